// How things are said: numbers, times, owners, and elements that hold them.
//
// Whatever comes from the server is text, and goes in by `textContent`.

export const byId = (id) => document.getElementById(id);

/** An element with a class and children; strings become text. */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Sets the text, if it is another one: an unchanged text costs no layout. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const digits = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const timeOfDay = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const dayAndTime = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const number = (value) => (value < 1e6 ? digits.format(value) : compact.format(value));

// Between a number and its unit no line is broken.
export const UNIT = "\u00a0";
const pad = (value) => String(value).padStart(2, "0");

/** An age that is counting: tenths first, then seconds, then minutes. */
export function age(ms) {
  if (ms < 99_950) return `${(ms / 1000).toFixed(1)}${UNIT}s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${UNIT}min${UNIT}${pad(seconds % 60)}${UNIT}s`;
  return `${Math.floor(seconds / 3600)}${UNIT}h${UNIT}${pad(Math.floor(seconds / 60) % 60)}${UNIT}min`;
}

/** A limit, which stands still: as short as it can be said. */
export function limit(seconds) {
  if (seconds >= 3600 && seconds % 3600 === 0) return `${seconds / 3600}${UNIT}h`;
  if (seconds >= 120 && seconds % 60 === 0) return `${seconds / 60}${UNIT}min`;
  return `${digits.format(seconds)}${UNIT}s`;
}

export const short = (ms) => (ms < 1000 ? `${Math.round(ms / 10) * 10}${UNIT}ms` : age(ms));
/** The time that is left: tenths only at the end. */
export const soon = (ms) => (ms < 10_000 || ms >= 99_950 ? age(ms) : `${Math.round(ms / 1000)}${UNIT}s`);
export const some = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;
export const words = (name) => name.replaceAll("_", " ");

/** What a server's object has under a server's name; never what every object has. */
export const own = (object, key) => (object && Object.hasOwn(object, key) ? object[key] : undefined);

/** "run 12 at `test`", as nodes, and in which process, where there are several. */
export function holder({ run_id: run, stage, process }) {
  const what = [run == null ? "the reaper’s claim at " : `run ${run} at `, make("code", "", stage)];
  return process == null ? what : [...what, ` in ${process}`];
}

/** A link to a job's own page, without its job. */
export function jobLink() {
  return make("a", "id");
}

/** Makes the link this job's. */
export function linkTo(link, job) {
  const href = `#/job/${job}`;
  if (link.getAttribute("href") !== href) link.setAttribute("href", href);
  say(link, `#${job}`);
}

/** The link leads nowhere any more. */
export function unlink(link, text = "") {
  link.removeAttribute("href");
  say(link, text);
}

/** "reap, backstop" as what is done to a job: the backstop goes without saying. */
export function done(what, when = "") {
  const [act, cause] = what.split(", ");
  if (act !== "reap") return `redriven${when}`;
  return cause === "backstop" ? `reaped${when}` : `reaped${when}, ${cause},`;
}

/** "reaped at 22:34:10, in 34 s, unless it commits" */
export function due(next, now) {
  const left = next.at_ms - now;
  const when = left > 0 ? ` at ${timeOfDay.format(next.at_ms)}, in ${soon(left)},` : " now,";
  return `${done(next.what, when)} unless it commits`;
}

export const REASONS = {
  claim_conflict: "somebody marked it in that instant",
  boot_grace: "the reaper has only just started",
  defer_all: "defer all is in force",
};

export const MODES = {
  honor: { name: "Honor" },
  defer_all: { name: "Defer all", warning: "Defer all is in force: nothing is redriven, only the backstop ends jobs." },
  dry_run: { name: "Dry run", warning: "Dry run is in force: the reaper says its verdicts and does nothing." },
  ignore: {
    name: "Ignore",
    warning: "Ignore is in force: the reaper does not ask who owns a job. Live ones are run a second time.",
  },
};
export const modeName = (mode) => own(MODES, mode)?.name ?? words(mode);

export const LIMITS_OF = {
  finalize_grace: "Grace",
  hard_deadline: "Hard deadline",
  lost_grace: "Lost grace",
  boot_grace: "Boot grace",
  stale_after: "Stale after",
  max_redrives: "Redrives at most",
};
