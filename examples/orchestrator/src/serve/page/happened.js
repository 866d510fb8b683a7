// What the reaper and people did, the newest first. Repetitions are folded into one entry.

import { narrow, onRoute, route } from "./route.js";
import { byId, dayAndTime, jobLink, linkTo, make, number, say, timeOfDay, unlink } from "./words.js";

/** Events kept on the page, and entries shown. */
const KEPT = 400;
const SHOWN = 50;
/** Repetitions are no further apart than this. */
const TOGETHER = 5 * 60_000;
/** All but the steps of runs, which are told with their jobs. */
const KINDS = ["verdict", "redrive", "reap", "mode", "action", "trouble"];

let events = []; // the newest first
let older = []; // of the one kind that is asked for

/** What is the same where only runs and stages are others. */
const shapeOf = (what) =>
  what.replace(/( by| as|, displacing) (run \d+|a claim)( in \S+)?/g, "").replace(/(, claimed|, no claim)$/, "");

/** What was done to several jobs, as it is said of them. */
const PAST = [
  [/^defers/, "deferred"],
  [/^redrives it/, "redriven"],
  [/^reaps it/, "reaped"],
  [/^ends it/, "ended"],
  [/^leaves it out/, "left out"],
];

/** Events that say the same of different jobs, one after the other, as one. */
function fold(all) {
  const groups = [];
  for (const event of all) {
    const shape = shapeOf(event.what);
    const last = groups.at(-1);
    const alike = last && last.kind === event.kind && last.who === event.who && last.shape === shape && event.job != null;
    if (alike && last.events.at(-1).at_ms - event.at_ms <= TOGETHER) last.events.push(event);
    else groups.push({ kind: event.kind, who: event.who, shape, events: [event] });
    if (groups.length > SHOWN) break;
  }
  return groups.slice(0, SHOWN);
}

const NAMES = { verdict: "deferral", redrive: "redrive", reap: "reap", mode: "mode", action: "action", trouble: "trouble" };

/** An entry of the list. It stays where it is and tells of another thing: nothing on the page moves for news. */
class Entry {
  constructor() {
    this.badge = make("span", "badge");
    this.id = jobLink();
    this.many = make("button", "many");
    this.many.type = "button";
    this.many.addEventListener("click", () => {
      this.opened = this.opened === this.key ? undefined : this.key;
      this.unfold();
    });
    this.who = make("span", "second");
    this.time = make("time");
    this.text = make("p", "text");
    this.jobs = make("p", "jobs");
    this.element = make("li", "", make("p", "head", this.badge, this.id, this.many, this.who, this.time), this.text, this.jobs);
  }

  show(group) {
    const [newest] = group.events;
    const oldest = group.events.at(-1);
    const key = `${oldest.id} ${group.events.length}`;
    if (key === this.key) return;
    if (this.opened !== undefined && this.opened.split(" ")[0] === String(oldest.id)) this.opened = key;
    this.key = key;
    this.group = group;
    const jobs = new Set(group.events.map((event) => event.job));
    this.badge.dataset.kind = group.kind;
    say(this.badge, newest.what.startsWith("dry run") ? "dry run" : NAMES[group.kind] ?? group.kind);
    this.many.hidden = jobs.size === 1;
    this.id.hidden = !this.many.hidden || newest.job == null;
    if (newest.job == null) unlink(this.id);
    else linkTo(this.id, newest.job);
    say(this.many, `${number(jobs.size)} jobs`);
    say(this.who, group.who === "reaper" ? "" : `by ${group.who}`);
    say(this.time, timeOfDay.format(newest.at_ms));
    this.time.dateTime = new Date(newest.at_ms).toISOString();
    this.time.title = dayAndTime.format(newest.at_ms);
    const past = PAST.find(([begin]) => begin.test(group.shape));
    const shape = past ? group.shape.replace(...past) : group.shape;
    const since = `since ${timeOfDay.format(oldest.at_ms)}`;
    if (jobs.size > 1) say(this.text, `${shape}, ${since}`);
    else if (group.events.length > 1) say(this.text, `${shape}, ${number(group.events.length)} times ${since}`);
    else say(this.text, newest.what);
    this.text.title = this.text.textContent;
    this.unfold();
  }

  /** Shows each job of several. */
  unfold() {
    const open = this.opened === this.key && !this.many.hidden;
    this.many.setAttribute("aria-expanded", String(open));
    this.jobs.hidden = !open;
    if (!open) return;
    const jobs = [...new Set(this.group.events.map((event) => event.job))].sort((a, b) => a - b);
    this.jobs.replaceChildren(...jobs.flatMap((job) => {
      const link = jobLink();
      linkTo(link, job);
      return [link, " "];
    }));
  }
}

const entries = [];

function show() {
  const kind = route.filter.get("happened");
  const groups = fold(kind ? merged(older, events.filter((event) => event.kind === kind)) : events);
  while (entries.length < groups.length) {
    entries.push(new Entry());
    byId("happened-list").append(entries.at(-1).element);
  }
  for (const entry of entries.splice(groups.length)) entry.element.remove();
  groups.forEach((group, at) => entries[at].show(group));
  const empty = byId("happened-empty");
  empty.hidden = groups.length > 0;
  say(empty, kind ? "Nothing of this kind so far." : "Nothing so far.");
}

/** Each event once, the newest first. */
const merged = (...lists) => [...new Map(lists.flat().map((event) => [event.id, event])).values()].sort((a, b) => b.id - a.id);

/** Takes up what is not known yet, and returns it. */
function take(told) {
  const known = new Set(events.map((event) => event.id));
  const fresh = told.filter((event) => !known.has(event.id));
  if (fresh.length > 0) events = merged(fresh, events).slice(0, KEPT);
  return fresh;
}

/** What is new. */
export function addHappened(told) {
  const fresh = take(told);
  if (fresh.length === 0) return;
  show();
  announce(fresh);
}

/** What there is, after a whole state. A store that was replaced has another past. */
export async function loadHappened() {
  const kind = byId("happened-kind").value;
  const query = new URLSearchParams({ kind: kind || KINDS.join(","), limit: "200" });
  const newest = events[0]?.id ?? 0;
  try {
    const response = await fetch(`/history?${query}`, { cache: "no-store" });
    if (!response.ok) return;
    const { events: told } = await response.json();
    // Another kind may be chosen by now.
    if (kind !== byId("happened-kind").value) return;
    if (kind) {
      older = told;
    } else {
      // Where the newest are not known any more, nothing else is.
      if (told.length > 0 && told[0].id < newest) events = [];
      take(told);
    }
    show();
  } catch {
    // The next state asks again.
  }
}

/** Said aloud at most this often, however much there is. */
const ANNOUNCE_EVERY = 8000;
let unsaid = [];
let announcing = false;

function announce(fresh) {
  unsaid.push(...fresh);
  if (announcing || unsaid.length === 0) return;
  announcing = true;
  const last = unsaid.reduce((last, event) => (event.id > last.id ? event : last));
  const latest = last.job == null ? last.what : `job ${last.job}: ${last.what}`;
  say(byId("announcer"), unsaid.length === 1 ? `${latest}.` : `${unsaid.length} events, the last: ${latest}.`);
  unsaid = [];
  setTimeout(() => {
    announcing = false;
    announce([]);
  }, ANNOUNCE_EVERY);
}

byId("happened-kind").addEventListener("change", (event) => narrow({ happened: event.target.value }));
let shown = "";
onRoute(() => {
  if (route.job !== undefined) return;
  const kind = route.filter.get("happened") ?? "";
  byId("happened-kind").value = KINDS.includes(kind) ? kind : "";
  if (kind === shown) return;
  shown = kind;
  older = [];
  show();
  // Of one kind there may be older ones.
  loadHappened();
});
