// The live page: one stream of events in, one small tree of elements out.
//
// Whatever comes from the server is text, and goes in by `textContent`. Rows are kept and filled again, never
// rebuilt: hundreds of running jobs change a few strings and custom properties a frame.

const byId = (id) => document.getElementById(id);

/** An element with a class and children; strings become text. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Sets the text, if it is another one: an unchanged text costs no layout. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// How numbers are said.

const digits = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const timeOfDay = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

const number = (value) => (value < 1e6 ? digits.format(value) : compact.format(value));

// Between a number and its unit no line is broken.
const UNIT = "\u00a0";

/** An age that is counting: tenths first, then seconds, then minutes. */
function age(ms) {
  if (ms < 99_950) return `${(ms / 1000).toFixed(1)}${UNIT}s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${UNIT}min${UNIT}${pad(seconds % 60)}${UNIT}s`;
  return `${Math.floor(seconds / 3600)}${UNIT}h${UNIT}${pad(Math.floor(seconds / 60) % 60)}${UNIT}min`;
}

/** A limit, which stands still: as short as it can be said. */
function limit(seconds) {
  if (seconds >= 3600 && seconds % 3600 === 0) return `${seconds / 3600}${UNIT}h`;
  if (seconds >= 120 && seconds % 60 === 0) return `${seconds / 60}${UNIT}min`;
  return `${digits.format(seconds)}${UNIT}s`;
}

/** What a server's object has under a server's name; never what every object has. */
const own = (object, key) => (object && Object.hasOwn(object, key) ? object[key] : undefined);

const pad = (value) => String(value).padStart(2, "0");
const short = (ms) => (ms < 1000 ? `${Math.round(ms / 10) * 10}${UNIT}ms` : age(ms));
const some = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;
const words = (name) => name.replaceAll("_", " ");

// The server's clock, by which all ages are told.

const clock = {
  offset: undefined,
  /** Of all events, the one that was quickest on its way tells the time best. */
  heard(serverNow) {
    const offset = serverNow - performance.now();
    const steady = this.offset !== undefined && Math.abs(offset - this.offset) < 2000;
    this.offset = steady ? Math.max(offset, this.offset - 5) : offset;
  },
  now() {
    return performance.now() + this.offset;
  },
};

// What is known.

const MODES = {
  honor: { name: "Honor" },
  defer_all: { name: "Defer all", warning: "Defer all is in force: nothing is redriven, only the backstop ends jobs." },
  dry_run: { name: "Dry run", warning: "Dry run is in force: the reaper says its verdicts and does nothing." },
  ignore: {
    name: "Ignore",
    warning: "Ignore is in force: the reaper does not ask who owns a job. Live ones are run a second time.",
  },
};
const modeName = (mode) => own(MODES, mode)?.name ?? words(mode);

let queue; // the last whole state
let policy; // the policy in force
let rendered = true; // whether the page shows `queue`

/** The limits a running job is judged by, in milliseconds; no deadline is infinity. */
function limitsOf(job) {
  const rules = own(policy.stages, job.stage) ?? own(policy.stages, "finalize") ?? {};
  const deadline = rules.no_backstop ? null : (rules.hard_deadline ?? policy.hard_deadline);
  return {
    grace: (rules.finalize_grace ?? policy.finalize_grace) * 1000,
    deadline: deadline == null ? Infinity : deadline * 1000,
  };
}

// Running jobs, one table for all stages. A job keeps its row, whatever stage it is at, and a row outlives its job.

/** Rows shown unless all are asked for. */
const SHOWN = 12;
/** How long a row stays empty before the table shrinks, so that a busy table does not jump. */
const LINGER = 3000;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

class Bar {
  constructor(...parts) {
    this.parts = parts.map((name) => make("i", name));
    this.element = make("div", "bar", make("div", "in", ...this.parts));
    this.element.setAttribute("aria-hidden", "true"); // the caption says the same
  }

  fill(...shares) {
    this.parts.forEach((part, at) => {
      const share = Math.min(1, Math.max(0, shares[at])).toFixed(3);
      if (part.share === share) return;
      part.share = share;
      part.style.setProperty("--part", share);
    });
  }
}

class Row {
  constructor() {
    this.job = undefined;
    this.emptySince = -Infinity;
    this.id = make("span", "id");
    this.origin = make("span", "second");
    this.place = make("code", "stage-name");
    this.whose = make("span", "whose");
    this.held = make("span", "second");
    this.finishedAge = make("b");
    this.said = make("span", "second said-of");
    this.finished = new Bar("within", "past");
    this.finished.element.append(make("i", "tick"));
    this.runningAge = make("b");
    this.coming = make("span", "second coming");
    this.running = new Bar("whole");
    this.element = make(
      "tr",
      "vacant",
      make("td", "job", this.id, this.origin),
      make("td", "stage", this.place),
      make("td", "owner", this.whose, this.held),
      make("td", "finished", make("div", "gauge", this.finished.element, this.finishedAge), this.said),
      make("td", "age", make("div", "gauge", this.running.element, this.runningAge), this.coming),
    );
    this.element.setAttribute("role", "row");
    for (const cell of this.element.children) cell.setAttribute("role", "cell");
  }

  show(job) {
    const fresh = this.job?.job !== job.job;
    this.job = job;
    this.limits = limitsOf(job);
    if (fresh) {
      this.element.dataset.job = job.job;
      say(this.id, `#${job.job}`);
      if (!calm.matches) this.arrive();
    }
    this.element.dataset.stage = job.stage;
    say(this.place, job.stage);
    const again = job.redrives > 0 ? `, redriven ${job.redrives}×` : "";
    say(this.origin, job.run == null ? job.kind : `${job.kind}, run ${job.run}${again}`);
    const { owner } = job;
    const by = owner ? `${owner.run_id ?? ""}@${owner.stage}` : "";
    if (fresh || by !== this.by) {
      this.by = by;
      this.whose.replaceChildren(...(owner ? holder(owner) : ["no owner"]));
    }
    this.element.className = "";
    this.spoken = undefined;
  }

  /** The job has ended. Until the next one comes, the row says so. */
  vacate(now) {
    this.job = undefined;
    this.by = undefined;
    this.emptySince = now;
    this.element.className = "vacant";
    delete this.element.dataset.job;
    delete this.element.dataset.stage;
    this.whose.replaceChildren("ended");
    for (const told of [this.origin, this.place, this.held, this.finishedAge, this.said, this.runningAge, this.coming]) {
      told.textContent = "";
    }
    this.finished.fill(0, 0);
    this.running.fill(0);
  }

  /** Nobody came. */
  blank() {
    say(this.id, "");
    say(this.whose, "");
  }

  /** A short wash of color: the text is legible all the time. */
  arrive() {
    const wash = getComputedStyle(this.element).getPropertyValue("--calm-wash");
    this.element.animate({ backgroundColor: [wash, "transparent"] }, { duration: 600, easing: "ease-out" });
  }

  /** Lets the ages go on: `passed` is the time since the state was told. */
  tick(passed) {
    const { job, limits } = this;
    if (!job) return;
    const running = job.running_ms + passed;
    const finished = job.finished_ms == null ? undefined : job.finished_ms + passed;
    const past = finished > limits.grace;
    const held = job.owner ? job.owner.age_ms + passed : undefined;

    say(this.runningAge, age(running));
    this.running.fill(running / limits.deadline);
    this.flag("near-end", running > 0.8 * limits.deadline);
    say(this.coming, this.comes(passed));

    this.flag("nobody", !job.owner);
    if (job.owner) {
      const { pulse_age_ms: pulse, generation } = job.owner;
      const beat = pulse == null ? "" : ` · pulse ${short(pulse + passed)}`;
      say(this.held, `gen. ${generation} · ${age(held)}${beat}`);
      this.held.classList.toggle("old-pulse", pulse != null && policy.stale_after != null && pulse + passed > policy.stale_after * 1000);
    } else {
      say(this.held, finished === undefined ? "its process runs" : "");
    }

    this.flag("none-yet", finished === undefined);
    this.flag("late", past && (job.deferred || job.owner));
    this.flag("alone", past && !job.deferred && !job.owner);
    this.flag("proposed", job.dry_run);
    say(this.finishedAge, finished === undefined ? "–" : age(finished));
    // The right part of the bar is full when the backstop comes, which goes by the age of the job.
    const left = limits.deadline - (running - (finished ?? 0)) - limits.grace;
    const over = past ? (Number.isFinite(left) ? (finished - limits.grace) / Math.max(left, 1) : 1) : 0;
    this.finished.fill(finished === undefined ? 0 : finished / limits.grace, over);
    this.explain(past, held);
  }

  /** Under the age of the job: what the reaper does next with it if nothing changes, in its own words. */
  comes(passed) {
    const { dry_run: proposed, next } = this.job;
    if (proposed) return `dry run: would be ${done(proposed)}`;
    if (next) {
      const would = policy.mode === "dry_run" ? "would be " : "";
      const left = next.in_ms - passed;
      return `${would}${done(next.what, left > 0 ? ` in ${soon(left)}` : " now")} unless it commits`;
    }
    const { deadline } = this.limits;
    return Number.isFinite(deadline) ? `of ${limit(deadline / 1000)}` : "no backstop";
  }

  /** Beside the age: the grace, or why the job is left alone past it. */
  explain(past, held) {
    const { job, limits } = this;
    const { deferred, owner } = job;
    const heldFor = owner ? age(held) : "";
    const spoken = `${past}|${deferred?.reason}|${heldFor}|${this.by}|${policy.mode}|${job.dry_run}`;
    if (spoken === this.spoken) {
      return;
    }
    this.spoken = spoken;
    const start = past ? "past grace, " : "";
    if (deferred?.reason === "owned" && owner) {
      this.said.replaceChildren(`${start}deferred: owned by `, ...holder(owner), ` for ${heldFor}`);
    } else if (deferred) {
      say(this.said, `${start}deferred: ${own(REASONS, deferred.reason) ?? words(deferred.reason)}`);
    } else if (past && owner) {
      say(this.said, policy.mode === "ignore" ? "past grace: Ignore does not ask who owns it" : "past grace, owned");
    } else if (past) {
      say(this.said, job.dry_run ? "past grace, no owner" : "past grace, no owner: to be redriven");
    } else {
      say(this.said, job.finished_ms == null ? "not finished" : `of ${limit(limits.grace / 1000)} grace`);
    }
  }

  flag(name, on) {
    this.element.classList.toggle(name, Boolean(on));
  }
}

/** "reap, backstop" as what is done to a job: the backstop goes without saying. */
function done(what, when = "") {
  const [act, cause] = what.split(", ");
  if (act !== "reap") return `redriven${when}`;
  return cause === "backstop" ? `reaped${when}` : `reaped${when}, ${cause},`;
}

/** The time that is left: tenths only at the end. */
const soon = (ms) => (ms < 10_000 || ms >= 99_950 ? age(ms) : `${Math.round(ms / 1000)}${UNIT}s`);

const REASONS = {
  claim_conflict: "somebody marked it in that instant",
  boot_grace: "the reaper has only just started",
  defer_all: "defer all is in force",
};

/** "run 12 at `test`", as nodes. */
function holder({ run_id: run, stage }) {
  return [run == null ? "the reaper’s claim at " : `run ${run} at `, make("code", "", stage)];
}

const board = {
  rows: [],
  body: byId("running-rows"),
  /** The one stage that is shown, or all of them. */
  stage: undefined,
  most: SHOWN,

  /** Jobs keep their rows; a new one takes the first free row. */
  update(running, now) {
    const jobs = running.filter((job) => this.stage === undefined || job.stage === this.stage).sort((a, b) => a.job - b.job);
    const listed = new Map(jobs.map((job) => [job.job, job]));
    for (const row of this.rows) {
      if (!row.job) continue;
      const job = listed.get(row.job.job);
      listed.delete(row.job.job);
      if (job) row.show(job);
      else row.vacate(now);
    }
    for (const job of listed.values()) {
      let free = this.rows.find((row) => !row.job);
      if (!free) {
        if (this.rows.length >= this.most) break;
        free = this.append();
      }
      free.show(job);
    }
    // Fewer are to be shown again: those at the end go.
    while (this.rows.length > this.most) this.rows.pop().element.remove();
    this.settle(now);
    this.tellRest(jobs.length);
  },

  append() {
    const row = new Row();
    this.rows.push(row);
    this.body.append(row.element);
    return row;
  },

  /** Once all is quiet, the jobs close ranks, each taking another's row where it stands, and the rows at the end go. */
  settle(now) {
    const empty = this.rows.filter((row) => !row.job);
    const waits = (row) => now - row.emptySince <= LINGER;
    for (const row of empty) {
      if (!waits(row)) row.blank();
    }
    if (empty.length === 0 || empty.some(waits)) return;
    const jobs = this.rows.flatMap((row) => row.job ?? []).sort((a, b) => a.job - b.job);
    for (const row of this.rows.splice(jobs.length)) row.element.remove();
    jobs.forEach((job, at) => this.rows[at].show(job));
  },

  tellRest(jobs) {
    const shown = this.rows.filter((row) => row.job).length;
    const rest = byId("running-rest");
    rest.hidden = jobs <= SHOWN;
    say(byId("running-shown"), `${number(shown)} of ${number(jobs)}`);
    say(byId("running-all"), this.most === SHOWN ? "Show all" : "Show fewer");
    const empty = byId("running-empty");
    empty.hidden = this.rows.length > 0;
    say(empty, this.stage === undefined ? "No job is running." : `No job is at ${this.stage}.`);
  },
};

byId("running-all").addEventListener("click", () => {
  board.most = board.most === SHOWN ? Infinity : SHOWN;
  rendered = false;
});

// The stages, in the order in which a job goes through them: how many jobs are at each, and a way to see only those.

const stages = new Map();

const ENDS = new Map([["process", -2], ["finalize", -1], ["commit", Infinity]]);

class Stage {
  constructor(name) {
    this.name = name;
    this.count = make("span", "stage-count");
    this.button = make("button", "stage", make("span", "stage-name", name), this.count);
    this.button.type = "button";
    this.button.setAttribute("aria-pressed", "false");
    this.button.addEventListener("click", () => {
      board.stage = board.stage === name ? undefined : name;
      for (const stage of stages.values()) stage.button.setAttribute("aria-pressed", String(stage.name === board.stage));
      // What is filtered away has not ended.
      for (const row of board.rows.splice(0)) row.element.remove();
      rendered = false;
    });
    this.element = make("li", "", this.button);
    this.element.dataset.stage = name;
  }
}

/** In the order of the server's pipeline; without one, as first seen between what every job begins and ends with. */
function placeStages(running) {
  const told = queue.stages ?? [];
  const known = [...new Set([...told, ...stages.keys(), ...Object.keys(queue.running)])];
  if (!known.every((name) => stages.has(name))) {
    const rank = new Map(known.map((name, at) => [name, ENDS.get(name) ?? at]));
    if (told.length === 0) known.sort((a, b) => rank.get(a) - rank.get(b));
    for (const name of known) {
      if (!stages.has(name)) stages.set(name, new Stage(name));
    }
    byId("stages").replaceChildren(...known.map((name) => stages.get(name).element));
  }
  for (const stage of stages.values()) {
    const jobs = running.filter((job) => job.stage === stage.name).length;
    say(stage.count, number(jobs));
    stage.element.classList.toggle("idle", jobs === 0);
  }
}

// What the reaper does something with next.

/** As many as there is room for, whether or not there are so many: nothing below moves. */
const URGENT = 5;

class Urgent {
  constructor() {
    this.id = make("span", "id");
    this.what = make("span", "what");
    this.whose = make("span", "second");
    this.element = make("li", "vacant", this.id, this.what, this.whose);
  }

  show(job) {
    this.job = job;
    this.element.className = job ? "" : "vacant";
    if (!job) {
      for (const told of [this.id, this.what, this.whose]) told.textContent = "";
      return;
    }
    this.element.dataset.job = job.job;
    say(this.id, `#${job.job}`);
    this.whose.replaceChildren(...(job.owner ? ["owned by ", ...holder(job.owner)] : ["nobody owns it"]));
  }

  /** "reaped at 22:34:10, in 34 s, unless it commits" */
  tick(passed) {
    if (!this.job) return;
    const { dry_run: proposed, next } = this.job;
    if (proposed) say(this.what, `dry run: would be ${done(proposed)} now`);
    else if (next) say(this.what, due(next, next.in_ms - passed));
  }
}

function due(next, left) {
  const when = left > 0 ? ` at ${timeOfDay.format(next.at_ms)}, in ${soon(left)},` : " now,";
  return `${done(next.what, when)} unless it commits`;
}

const urgent = Array.from({ length: URGENT }, () => new Urgent());
byId("attention-list").append(...urgent.map((row) => row.element));

function updateAttention(running) {
  const jobs = new Map(running.map((job) => [job.job, job]));
  const told = (queue.attention ?? []).map((id) => jobs.get(id)).filter(Boolean);
  urgent.forEach((row, at) => row.show(told[at]));
  byId("attention-empty").hidden = told.length > 0;
}

// Deferrals.

/** Deferrals kept on the page; the server tells no more. */
const KEPT = 50;
let deferrals = []; // the newest first
const deferralKey = (deferral) => `${deferral.seq} ${deferral.at_ms}`; // a restarted server counts from one again
const newestFirst = (a, b) => b.at_ms - a.at_ms || b.seq - a.seq;

/** An entry of the list. It stays where it is and tells of another deferral: nothing on the page moves for news. */
class Entry {
  constructor() {
    this.id = make("span", "id");
    this.badge = make("span", "badge");
    this.whose = make("span", "second");
    this.time = make("time");
    this.text = make("p", "text");
    this.element = make("li", "", make("p", "head", this.id, this.badge, this.whose, this.time), this.text);
  }

  show(deferral) {
    if (this.deferral === deferral) return;
    this.deferral = deferral;
    const { reason, owner, at_ms: at } = deferral;
    say(this.id, `#${deferral.job}`);
    say(this.badge, words(reason));
    this.badge.dataset.reason = reason;
    this.whose.replaceChildren(...(owner ? holder(owner) : []));
    say(this.time, timeOfDay.format(at));
    this.time.dateTime = new Date(at).toISOString();
    say(this.text, deferral.text);
    this.text.title = deferral.text;
  }
}

const entries = [];

/** Takes up what is not known yet, and returns it. */
function addDeferrals(told) {
  const known = new Set(deferrals.map(deferralKey));
  const fresh = told.filter((deferral) => !known.has(deferralKey(deferral)));
  if (fresh.length > 0) {
    deferrals.push(...fresh);
    showDeferrals();
  }
  return fresh;
}

/** The whole list as the server tells it, and what came after it was told. */
function updateDeferrals() {
  const told = new Set(queue.deferrals.map(deferralKey));
  const kept = deferrals.filter((deferral) => told.has(deferralKey(deferral)) || deferral.at_ms >= queue.now_ms - 1000);
  const forgot = kept.length < deferrals.length;
  deferrals = kept;
  const fresh = addDeferrals(queue.deferrals);
  if (forgot || fresh.length === 0) showDeferrals();
  return fresh;
}

function showDeferrals() {
  deferrals.sort(newestFirst).splice(KEPT);
  while (entries.length < deferrals.length) {
    entries.push(new Entry());
    byId("deferral-list").append(entries.at(-1).element);
  }
  for (const entry of entries.splice(deferrals.length)) entry.element.remove();
  deferrals.forEach((deferral, at) => entries[at].show(deferral));
  byId("deferrals-empty").hidden = deferrals.length > 0;
}

/** Said aloud at most this often, however many there are. */
const ANNOUNCE_EVERY = 8000;
let unsaid = [];
let announcing = false;

function announce(fresh) {
  unsaid.push(...fresh);
  if (announcing || unsaid.length === 0) return;
  announcing = true;
  const [last] = [...unsaid].sort((a, b) => b.at_ms - a.at_ms);
  const latest = `job ${last.job}, ${words(last.reason)}`;
  say(byId("announcer"), unsaid.length === 1 ? `Deferred: ${latest}.` : `${unsaid.length} deferrals, the last: ${latest}.`);
  unsaid = [];
  setTimeout(() => {
    announcing = false;
    announce([]);
  }, ANNOUNCE_EVERY);
}

// Counters, and the policy in force.

const counters = Object.fromEntries(
  [...document.querySelectorAll("[data-count]")].map((element) => [element.dataset.count, element]),
);

function count(name, value) {
  say(counters[name].querySelector("dd"), number(value ?? 0));
  counters[name].classList.toggle("none", !value);
}

function updateCounters(running) {
  const { counts, reaper } = queue;
  count("queued", counts.queued);
  count("running", counts.running);
  // Of the running jobs: a mark that is about to be cleared has none any more.
  count("owned", running.filter((job) => job.owner).length);
  count("merged", counts.merged);
  count("rolled_back", counts.rolled_back);
  count("reaped", counts.reaped);
  count("sweeps", reaper.sweeps);
  count("defers", reaper.finalizer_defers_total);
  count("redrives", reaper.redrives);
  count("conflicts", reaper.claim_conflicts);
  count("lost", reaper.reaps_worker_lost);
  count("backstop", reaper.reaps_backstop);
  count("exhausted", reaper.reaps_redrives_exhausted);
}

const modeForm = byId("mode-form");
const radios = [...modeForm.elements.mode];
const chosen = () => radios.find((radio) => radio.checked)?.value;

function choose(mode) {
  for (const radio of radios) radio.checked = radio.value === mode;
  offer();
  say(byId("preview"), "");
}

/** What the button would do. */
function offer() {
  const mode = chosen();
  const button = byId("apply");
  const change = mode !== undefined && policy !== undefined && mode !== policy.mode;
  // Not `disabled`: that would take the focus away from under the user's hands.
  button.setAttribute("aria-disabled", String(!change));
  button.classList.toggle("danger", change && mode === "ignore");
  say(button, change ? `Put ${modeName(mode)} in force` : "Put in force");
}

function enforce(next) {
  const before = policy;
  policy = next;
  const { mode } = policy;
  // A choice that is not yet sent is the user's, and stays.
  if (before === undefined || chosen() === before.mode || chosen() === undefined) choose(mode);
  else offer();
  for (const label of modeForm.querySelectorAll(".mode")) {
    label.querySelector(".tag").hidden = label.dataset.mode !== mode;
  }
  const chip = byId("in-force");
  chip.hidden = false;
  chip.dataset.mode = mode;
  say(byId("in-force-mode"), modeName(mode));
  warn();
  if (JSON.stringify(before) !== JSON.stringify(policy)) showLimits();
}

/** Beside the mode: until when it is in force, and who has set it. */
function tellUntil(passed) {
  const set = queue.override;
  const left = set?.until_at_ms ? set.until_at_ms - queue.now_ms - passed : undefined;
  const until = left === undefined ? "" : `until ${timeOfDay.format(set.until_at_ms)}, for ${soon(Math.max(0, left))}`;
  say(byId("in-force-until"), until);
  byId("in-force").title = set ? `Set by ${set.by} at ${timeOfDay.format(set.since_at_ms)}` : "";
}

/** What a user must not overlook, above everything else. */
function warn() {
  const ending = queue?.shutting_down ? "The service is shutting down: no job is started any more." : undefined;
  const paused = queue?.paused ? "The queue is paused: no queued job is started." : undefined;
  const told = [own(MODES, policy.mode)?.warning, paused, ending].filter(Boolean).join(" ");
  const warning = byId("warning");
  warning.hidden = told === "";
  warning.dataset.mode = policy.mode;
  say(warning, told);
}

const LIMITS = {
  finalize_grace: "Grace",
  hard_deadline: "Hard deadline",
  lost_grace: "Lost grace",
  boot_grace: "Boot grace",
  stale_after: "Stale after",
  max_redrives: "Redrives at most",
};
const setting = (key, value) => (key === "max_redrives" ? number(value) : limit(value));

function showLimits() {
  const list = byId("limits");
  list.replaceChildren();
  for (const [key, name] of Object.entries(LIMITS)) {
    const unset = policy[key] == null;
    const value = make("dd", unset ? "unset" : "", unset ? (key === "hard_deadline" ? "no backstop" : "none") : setting(key, policy[key]));
    list.append(make("dt", "", name), value);
  }
  for (const [stage, rules] of Object.entries(policy.stages ?? {})) {
    const differs = Object.entries(LIMITS).filter(([key]) => rules[key] != null && rules[key] !== policy[key]);
    const said = differs.map(([key, name]) => `${name.toLowerCase()} ${setting(key, rules[key])}`);
    if (rules.no_backstop && !policy.no_backstop) said.push("no backstop");
    said.unshift(rules.marking ? "monitors mark" : "monitors do not mark");
    list.append(make("dt", "of-stage", "At ", make("code", "", stage), ` ${said.join(", ")}.`));
  }
}

function updateKinds() {
  const select = byId("kind");
  const kinds = queue.kinds ?? [];
  const shown = [...select.options].map((option) => option.value);
  if (kinds.length === 0 || kinds.join("\n") === shown.join("\n")) return;
  const { value } = select;
  select.replaceChildren(...kinds.map((kind) => new Option(kind, kind)));
  if (kinds.includes(value)) select.value = value;
}

// Drawing.

/** Time between two steps of the ages. */
const STEP = 100;
let drawn = 0;

function draw(now) {
  requestAnimationFrame(draw);
  if (queue === undefined || !["live", "asking"].includes(link.state)) return; // what is not news does not age
  if (!rendered) {
    rendered = true;
    const first = stages.size === 0;
    enforce(queue.policy);
    const running = Object.values(queue.running).flat();
    placeStages(running);
    board.update(running, now);
    updateAttention(running);
    const fresh = updateDeferrals();
    if (!first) announce(fresh);
    updateCounters(running);
    updateKinds();
    const deferred = running.filter((job) => job.deferred).length;
    document.title = `${number(queue.counts.running)} running${deferred > 0 ? `, ${deferred} deferred` : ""} · orchestrator`;
  } else if (now - drawn < (calm.matches ? 10 * STEP : STEP)) {
    return;
  }
  drawn = now;
  const passed = Math.max(0, clock.now() - queue.now_ms);
  for (const row of board.rows) row.tick(passed);
  for (const row of urgent) row.tick(passed);
  tellUntil(passed);
}

// The connection. The server says something every 2 s at least: silence is a fault too.

const SILENCE = 6000;
const RETRY = [500, 1000, 2000, 4000];
/** Pause between two looks of a page that there is no stream for. */
const ASK_EVERY = 3000;

const link = {
  state: "connecting",
  source: undefined,
  heardAt: undefined, // by performance.now()
  attempts: 0,
  refusals: 0,
  openedAt: 0,

  open() {
    this.source?.close();
    this.openedAt = performance.now();
    this.source = new EventSource("/events");
    this.source.addEventListener("queue", (event) => {
      this.heard(JSON.parse(event.data));
      this.refusals = 0;
      this.become("live");
    });
    this.source.addEventListener("deferral", (event) => {
      announce(addDeferrals([JSON.parse(event.data)]));
    });
    // The browser's own way to try again gives up on some answers, and cannot be hurried.
    this.source.addEventListener("error", () => this.ask());
  },

  heard(state) {
    queue = state;
    rendered = false;
    clock.heard(queue.now_ms);
    this.attempts = 0;
    this.heardAt = performance.now();
  },

  /** The stream is not to be had. Where the server answers all the same, it is asked now and then. */
  async ask() {
    // Only an answer that is no stream closes it. Otherwise there was none at all.
    if (this.source.readyState !== EventSource.CLOSED) return this.retry();
    try {
      const response = await fetch("/queue", { cache: "no-store", signal: AbortSignal.timeout(SILENCE) });
      if (!response.ok) throw new Error(`The server answers ${response.status}.`);
      const state = await response.json();
      // A stream that broke off is opened again at once. One that is refused again and again has no place for us.
      this.refusals += 1;
      if (this.refusals > 1) {
        this.heard(state);
        this.become("asking");
      }
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.open(), this.refusals > 1 ? ASK_EVERY : RETRY[0]);
    } catch {
      this.retry();
    }
    return undefined;
  },

  retry() {
    this.source.close();
    this.become(this.heardAt === undefined ? "connecting" : "reconnecting");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), RETRY[Math.min(this.attempts, RETRY.length - 1)]);
    this.attempts += 1;
  },

  become(state) {
    if (state === this.state) return;
    this.state = state;
    byId("link").dataset.state = state;
    say(byId("link-text"), state);
    byId("page").classList.toggle("stale", state === "reconnecting");
    this.tellLoss();
  },

  tellLoss() {
    const strip = byId("lost");
    if (this.state === "asking") {
      strip.hidden = false;
      say(strip, "Too many are watching. This page asks every few seconds instead.");
      return;
    }
    const lost = this.state === "reconnecting" || (this.state === "connecting" && this.attempts > 0);
    strip.hidden = !lost;
    if (!lost) return;
    if (queue === undefined) {
      say(strip, "The server does not answer. Trying again.");
    } else {
      const silent = Math.round((performance.now() - this.heardAt) / 1000);
      say(strip, `Connection lost. What you see is of ${timeOfDay.format(queue.now_ms)}, ${some(silent, "second")} ago. Trying again.`);
    }
  },

  watch() {
    const last = this.state === "live" ? this.heardAt : this.openedAt;
    if (this.state === "asking") return;
    if (performance.now() - last > SILENCE && this.source.readyState !== EventSource.CLOSED) this.retry();
    this.tellLoss();
  },
};

// Control.

const token = byId("token");
const KEY = "orchestrator-token";

/** Storage may be refused; then the field itself has to do. */
function stored(change) {
  try {
    return change(sessionStorage);
  } catch {
    return undefined;
  }
}

token.value = stored((storage) => storage.getItem(KEY)) ?? "";
token.addEventListener("input", () => {
  stored((storage) => (token.value ? storage.setItem(KEY, token.value) : storage.removeItem(KEY)));
  refuseToken("");
});
byId("token-form").addEventListener("submit", (event) => event.preventDefault());

function refuseToken(why) {
  say(byId("token-error"), why);
  if (why) token.setAttribute("aria-invalid", "true");
  else token.removeAttribute("aria-invalid");
}

/** Sends a change. The answer's JSON, or an error to be shown; a refused token is shown by its field. */
async function send(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  if (/[^\x21-\x7e]/.test(token.value)) {
    refuseToken("A token has visible ASCII characters only, and no spaces.");
    token.focus();
    throw new Error("Not sent.");
  }
  if (token.value) headers.Authorization = `Bearer ${token.value}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) {
    refuseToken(`${token.value ? "Refused" : "A token is needed"}: ${answer.error ?? "the token is not the server’s"}`);
    token.focus();
    throw new Error("Refused: see the token.");
  }
  refuseToken("");
  if (!response.ok) throw new Error(answer.error ?? `The server answers ${response.status}.`);
  return answer;
}

/** Runs one change at a time, and says how it went. */
function sender(form, said, change) {
  let busy = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    said.className = "said";
    say(said, "");
    try {
      say(said, await change());
      said.classList.add("good");
    } catch (error) {
      say(said, error.message);
      said.classList.add("bad");
    }
    busy = false;
  });
}

modeForm.addEventListener("change", (event) => {
  say(byId("mode-said"), "");
  offer();
  if (event.target.name === "mode") preview();
});

/** Tells what the chosen mode would do, before it is in force. */
async function preview() {
  const mode = chosen();
  const told = byId("preview");
  say(told, "");
  if (mode === undefined || mode === policy?.mode) return;
  try {
    const response = await fetch(`/policy/preview?mode=${encodeURIComponent(mode)}`, { cache: "no-store" });
    const { text, live } = await response.json();
    // Another one may be chosen by now.
    if (!response.ok || chosen() !== mode) return;
    told.classList.toggle("danger", live.length > 0);
    say(told, `${text}.`);
  } catch {
    // Without it, the words beside the choice have to do.
  }
}
sender(modeForm, byId("mode-said"), async () => {
  const mode = chosen();
  if (mode === undefined || mode === policy?.mode) return "";
  const during = byId("during").value;
  // What is refused stays chosen: with another token it may go.
  const { override, warning, ...put } = await send("PUT", "/policy", during ? { mode, for: during } : { mode });
  enforce(put);
  choose(policy.mode);
  byId("during").value = "";
  const until = override?.until_at_ms ? ` until ${timeOfDay.format(override.until_at_ms)}` : "";
  return `${modeName(policy.mode)} is in force${until}.${warning ? ` It is ${warning}` : ""}`;
});

sender(byId("submit-form"), byId("submit-said"), async () => {
  const { jobs } = await send("POST", "/jobs", { count: byId("count").valueAsNumber, kind: byId("kind").value });
  const ids = jobs.length === 1 ? `job ${jobs[0]}` : `jobs ${jobs[0]} to ${jobs.at(-1)}`;
  return `Submitted ${ids}.`;
});

link.open();
setInterval(() => link.watch(), 1000);
addEventListener("online", () => link.state === "live" || link.open());
requestAnimationFrame(draw);
