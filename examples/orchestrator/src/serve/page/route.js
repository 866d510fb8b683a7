// Where on the page one is: in the URL, so that it can be kept, sent and gone back to.
//
// `#/job/13` is a job's page. `#/jobs?state=ended&q=13` is the queue with a filter. An anchor within the page is no place
// of its own.

import { byId } from "./words.js";

/** The names that a filter has. */
const NAMES = ["state", "q", "kind", "stage", "owner", "past_grace", "before", "happened"];

export const route = { job: undefined, filter: new URLSearchParams() };
const listeners = [];

export const onRoute = (listener) => listeners.push(listener);

function read() {
  const { hash } = location;
  const [path, query = ""] = hash.startsWith("#/") ? hash.slice(2).split("?") : [""];
  const job = /^job\/([0-9]{1,16})$/.exec(path);
  route.job = job ? Number(job[1]) : undefined;
  if (!job) {
    const given = new URLSearchParams(query);
    route.filter = new URLSearchParams(NAMES.flatMap((name) => (given.get(name) ? [[name, given.get(name)]] : [])));
  }
  for (const listener of listeners) listener();
}

/** The place of this filter. */
export function placeOf(filter) {
  const query = filter.toString();
  return query ? `#/jobs?${query}` : "#/jobs";
}

/** Narrows or widens the filter; what is empty is left out. */
export function narrow(change, { keep = false } = {}) {
  const filter = new URLSearchParams(route.filter);
  filter.delete("before");
  for (const [name, value] of Object.entries(change)) {
    if (value) filter.set(name, value);
    else filter.delete(name);
  }
  const place = placeOf(filter);
  // Each letter that is typed is no place to go back to.
  if (keep) {
    history.replaceState(null, "", place);
    read();
  } else {
    location.hash = place.slice(1);
  }
}

addEventListener("hashchange", read);
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='#']:not([href^='#/'])");
  const target = link && byId(link.getAttribute("href").slice(1));
  if (!target) return;
  event.preventDefault();
  if (route.job !== undefined) {
    // The page that has it is shown at once, not with the event that tells of it.
    history.pushState(null, "", placeOf(route.filter));
    read();
  }
  if (target.tagName === "DETAILS") target.open = true;
  const focus = target.tagName === "DETAILS" ? target.querySelector("summary") : target;
  focus.focus({ preventScroll: true });
  target.scrollIntoView();
});

/** Reads where one is, at first. */
export const begin = read;
