// The filter of the jobs, and the list of those that do not run: queued ones and ended ones, asked for page by page.

import { known } from "./state.js";
import { narrow, onRoute, placeOf, route } from "./route.js";
import { byId, dayAndTime, jobLink, linkTo, make, number, say, short, words } from "./words.js";

const ENDED = ["ended", "merged", "rolled_back", "reaped"];
const PAGE = 50;
/** The list is asked for again no faster than this, while the numbers of jobs change. */
const EVERY = 2000;

/** The state whose jobs are shown. */
const wanted = () => {
  const state = route.filter.get("state");
  return state === "queued" || ENDED.includes(state) ? state : "running";
};

const search = byId("search");
search.addEventListener("input", () => narrow({ q: search.value.trim() }, { keep: true }));
byId("filter").addEventListener("submit", (event) => event.preventDefault());
byId("filter-kind").addEventListener("change", (event) => narrow({ kind: event.target.value }));
byId("filter-owner").addEventListener("change", (event) => narrow({ owner: event.target.value }));
byId("filter-end").addEventListener("change", (event) => narrow({ state: event.target.value }));
byId("filter-past").addEventListener("change", (event) => narrow({ past_grace: event.target.checked ? "true" : "" }));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input:not([type=radio], [type=checkbox]), select, textarea");
  if (event.key === "/" && !typing && route.job === undefined) {
    event.preventDefault();
    search.focus();
    search.select();
  }
  if (event.key === "Escape" && event.target === search) {
    search.value = "";
    narrow({ q: "" }, { keep: true });
    search.blur();
  }
});

/** Kinds that can be chosen; one that the URL names is among them. */
export function updateKinds() {
  const kinds = known.queue.kinds;
  fill(byId("kind"), kinds.map((kind) => [kind, kind]));
  const given = route.filter.get("kind");
  const all = given && !kinds.includes(given) ? [...kinds, given] : kinds;
  fill(byId("filter-kind"), [["", "Any kind"], ...all.map((kind) => [kind, kind])], given ?? "");
}

function fill(select, options, value = select.value) {
  const told = JSON.stringify(options);
  if (select.told !== told) {
    select.told = told;
    select.replaceChildren(...options.map(([of, name]) => new Option(name, of)));
  }
  if (options.some(([of]) => of === value) && select.value !== value) select.value = value;
}

const OWNERS = [["", "Owned or not"], ["any", "Owned"], ["none", "Nobody’s"]];

onRoute(() => {
  if (route.job !== undefined) return;
  const state = wanted();
  const { filter } = route;
  const running = state === "running";
  for (const tab of document.querySelectorAll("[data-tab]")) {
    const current = tab.dataset.tab === (ENDED.includes(state) ? "ended" : state);
    if (current) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  byId("running-part").hidden = !running;
  byId("others-part").hidden = running;
  byId("filter-owner").hidden = !running;
  byId("filter-past-label").hidden = !running;
  byId("filter-end").hidden = !ENDED.includes(state);
  byId("filter-end").value = ENDED.includes(state) ? state : "ended";
  byId("filter-past").checked = filter.has("past_grace");
  const owner = filter.get("owner") ?? "";
  const isRun = owner !== "" && !OWNERS.some(([of]) => of === owner);
  fill(byId("filter-owner"), isRun ? [...OWNERS, [owner, `run ${owner.replace("run ", "")}`]] : OWNERS, owner);
  if (document.activeElement !== search) search.value = filter.get("q") ?? "";
  if (known.queue) updateKinds();
  const narrowed = ["q", "kind", "stage", "owner", "past_grace"].some((name) => filter.has(name));
  const clear = byId("filter-clear");
  clear.hidden = !narrowed;
  clear.setAttribute("href", placeOf(new URLSearchParams(running ? {} : { state })));
  if (!running) ask();
});

let counted = "";
let asked = 0;
let timer;

/** Asks again when jobs have come or gone. The first page follows, an older one stands still. */
export function followOthers() {
  const state = wanted();
  const counts = JSON.stringify(known.queue.counts);
  if (state === "running" || route.job !== undefined || route.filter.has("before") || counts === counted) return;
  clearTimeout(timer);
  timer = setTimeout(ask, Math.max(0, asked + EVERY - performance.now()));
}

async function ask() {
  asked = performance.now();
  if (known.queue) counted = JSON.stringify(known.queue.counts);
  const state = wanted();
  const query = new URLSearchParams({ state, limit: String(PAGE) });
  for (const name of ["q", "kind", "before"]) {
    if (route.filter.has(name)) query.set(name, route.filter.get(name));
  }
  const place = location.hash;
  let told;
  try {
    const response = await fetch(`/jobs?${query}`, { cache: "no-store" });
    told = await response.json();
    if (!response.ok) throw new Error(told.error);
  } catch (error) {
    counted = "";
    told = { jobs: [], total: 0, next: null, error: `The list cannot be had: ${error.message}` };
  }
  // Another list may be wanted by now.
  if (place !== location.hash) return;
  show(told, state);
}

function show({ jobs, total, next, error }, state) {
  byId("others-rows").replaceChildren(...jobs.map(rowOf));
  const rest = byId("others-rest");
  rest.hidden = jobs.length === 0 && !route.filter.has("before");
  say(byId("others-shown"), `${number(jobs.length)} of ${number(total)}`);
  turn(byId("others-older"), next == null ? undefined : String(next));
  turn(byId("others-newest"), route.filter.has("before") ? "" : undefined);
  const empty = byId("others-empty");
  empty.hidden = jobs.length > 0;
  const which = state === "queued" ? "No queued job" : state === "ended" ? "No ended job" : `No job that was ${words(state)}`;
  say(empty, error ?? `${which} is ${[...route.filter.keys()].some((name) => name !== "state") ? "like that" : "here"}.`);
}

for (const id of ["others-older", "others-newest"]) {
  // A page begins at its top.
  byId(id).addEventListener("click", () => byId("running").scrollIntoView());
}

/** A link to another page of the list, if there is one. */
function turn(link, before) {
  link.hidden = before === undefined;
  if (before === undefined) return;
  const filter = new URLSearchParams(route.filter);
  filter.delete("before");
  if (before) filter.set("before", before);
  link.setAttribute("href", placeOf(filter));
}

function rowOf(job) {
  const link = jobLink();
  linkTo(link, job.job);
  const badge = make("span", "badge", words(job.state));
  badge.dataset.state = job.state;
  const again = job.redrives > 0 ? `, redriven ${job.redrives}×` : "";
  const origin = make("span", "second", job.run == null ? job.kind : `${job.kind}, run ${job.run}${again}`);
  const at = (ms) => (ms == null ? "–" : dayAndTime.format(ms));
  const took = job.ended_at_ms != null && job.started_at_ms != null ? short(job.ended_at_ms - job.started_at_ms) : "–";
  const row = make(
    "tr",
    "",
    make("td", "job", link, origin),
    make("td", "", badge),
    make("td", "", at(job.submitted_at_ms)),
    make("td", "", at(job.ended_at_ms)),
    make("td", "", took),
  );
  row.dataset.other = job.job;
  row.setAttribute("role", "row");
  for (const cell of row.children) cell.setAttribute("role", "cell");
  return row;
}
