// Running jobs, one table for all stages. A job keeps its row, whatever stage it is at, and a row outlives its job: rows
// are kept and filled again, never rebuilt. Hundreds of running jobs change a few strings and custom properties a frame.

import { narrow, onRoute, route } from "./route.js";
import { clock, known, limitsOf } from "./state.js";
import { REASONS, age, byId, done, due, holder, jobLink, limit, linkTo, make, number, own, say, short, soon, unlink, words } from "./words.js";

/** Rows shown unless all are asked for. */
const SHOWN = 12;
/** How long a row stays empty before the table shrinks, so that a busy table does not jump. */
const LINGER = 3000;
export const calm = matchMedia("(prefers-reduced-motion: reduce)");

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
    this.id = jobLink();
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
      this.element.style.height = "";
      this.element.dataset.job = job.job;
      linkTo(this.id, job.job);
      if (!calm.matches) this.arrive();
    }
    this.element.dataset.stage = job.stage;
    say(this.place, job.stage);
    const again = job.redrives > 0 ? `, redriven ${job.redrives}×` : "";
    say(this.origin, job.run == null ? job.kind : `${job.kind}, run ${job.run}${again}`);
    const { owner } = job;
    const by = owner ? `${owner.run_id ?? ""}@${owner.stage}@${owner.process ?? ""}` : "";
    if (fresh || by !== this.by) {
      this.by = by;
      this.whose.replaceChildren(...(owner ? holder(owner) : ["no owner"]));
    }
    this.element.className = "";
    this.spoken = undefined;
  }

  /** The job has ended. Until the next one comes, the row says so. */
  vacate(now) {
    // With less text it would be lower, and the rows below would move.
    this.element.style.height = `${this.element.getBoundingClientRect().height}px`;
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

  /** The job goes on, and the filter does not take it any more. */
  leave() {
    this.hasLeft = true;
    this.element.remove();
  }

  /** Nobody came. */
  blank() {
    unlink(this.id);
    say(this.whose, "");
  }

  /** A short wash of color: the text is legible all the time. */
  arrive() {
    const wash = getComputedStyle(this.element).getPropertyValue("--calm-wash");
    this.element.animate({ backgroundColor: [wash, "transparent"] }, { duration: 600, easing: "ease-out" });
  }

  /** Lets the ages go on. */
  tick(now) {
    const { job, limits } = this;
    if (!job) return;
    const running = now - job.started_at_ms;
    const finished = job.finished_at_ms == null ? undefined : now - job.finished_at_ms;
    const past = finished > limits.grace;
    const held = job.owner ? Math.max(0, now - job.owner.since_at_ms) : undefined;
    const { policy } = known.queue;

    say(this.runningAge, age(Math.max(0, running)));
    this.running.fill(running / limits.deadline);
    this.flag("near-end", running > 0.8 * limits.deadline);
    say(this.coming, this.comes(now));

    this.flag("nobody", !job.owner);
    if (job.owner) {
      const { pulse_at_ms: beaten, generation } = job.owner;
      const pulse = beaten == null ? undefined : Math.max(0, now - beaten);
      const beat = pulse === undefined ? "" : ` · pulse ${short(pulse)}`;
      say(this.held, `gen. ${generation} · ${age(held)}${beat}`);
      this.held.classList.toggle("old-pulse", policy.stale_after != null && pulse > policy.stale_after * 1000);
    } else {
      say(this.held, finished === undefined ? "its process runs" : "");
    }

    this.flag("none-yet", finished === undefined);
    this.flag("late", past && (job.deferred || job.owner));
    this.flag("alone", past && !job.deferred && !job.owner);
    this.flag("proposed", job.dry_run);
    say(this.finishedAge, finished === undefined ? "–" : age(Math.max(0, finished)));
    // The right part of the bar is full when the backstop comes, which goes by the age of the job.
    const left = limits.deadline - (running - (finished ?? 0)) - limits.grace;
    const over = past ? (Number.isFinite(left) ? (finished - limits.grace) / Math.max(left, 1) : 1) : 0;
    this.finished.fill(finished === undefined ? 0 : finished / limits.grace, over);
    this.explain(past, held, policy.mode);
  }

  /** Under the age of the job: what the reaper does next with it if nothing changes, in its own words. */
  comes(now) {
    const { dry_run: proposed, next } = this.job;
    if (proposed) return `dry run: would be ${done(proposed)}`;
    if (next) {
      const would = known.queue.policy.mode === "dry_run" ? "would be " : "";
      const left = next.at_ms - now;
      return `${would}${done(next.what, left > 0 ? ` in ${soon(left)}` : " now")} unless it commits`;
    }
    const { deadline } = this.limits;
    return Number.isFinite(deadline) ? `of ${limit(deadline / 1000)}` : "no backstop";
  }

  /** Beside the age: the grace, or why the job is left alone past it. */
  explain(past, held, mode) {
    const { job, limits } = this;
    const { deferred, owner } = job;
    const heldFor = owner ? age(held) : "";
    const spoken = `${past}|${deferred?.reason}|${heldFor}|${this.by}|${mode}|${job.dry_run}`;
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
      say(this.said, mode === "ignore" ? "past grace: Ignore does not ask who owns it" : "past grace, owned");
    } else if (past) {
      say(this.said, job.dry_run ? "past grace, no owner" : "past grace, no owner: to be redriven");
    } else {
      say(this.said, job.finished_at_ms == null ? "not finished" : `of ${limit(limits.grace / 1000)} grace`);
    }
  }

  flag(name, on) {
    this.element.classList.toggle(name, Boolean(on));
  }
}

/** Whether the filter in the URL takes the job: the same as the server's `GET /jobs`. */
function takes(job) {
  const { filter } = route;
  const wanted = (name) => filter.get(name) ?? "";
  const { owner } = job;
  const whose = owner?.run_id == null ? "" : `run ${owner.run_id}`;
  const process = owner?.process ?? "";
  const sought = wanted("q");
  return (
    (!wanted("stage") || job.stage === wanted("stage")) &&
    (!wanted("kind") || job.kind === wanted("kind")) &&
    (!wanted("owner") ||
      (owner ? ["any", String(owner.run_id), whose].includes(wanted("owner")) : wanted("owner") === "none")) &&
    (!wanted("past_grace") || (job.finished_at_ms != null && clock.now() - job.finished_at_ms > limitsOf(job).grace)) &&
    (!sought || String(job.job) === sought || [job.kind, job.stage, whose, process].some((text) => text.includes(sought)))
  );
}

export const board = {
  rows: [],
  body: byId("running-rows"),
  most: SHOWN,

  /** Jobs keep their rows; a new one takes the first free row. */
  update(running, now) {
    const jobs = running.filter(takes).sort((a, b) => a.job - b.job);
    const listed = new Map(jobs.map((job) => [job.job, job]));
    for (const row of this.rows) {
      if (!row.job) continue;
      const job = listed.get(row.job.job);
      listed.delete(row.job.job);
      if (job) row.show(job);
      else if (known.jobs.has(row.job.job)) row.leave();
      else row.vacate(now);
    }
    this.rows = this.rows.filter((row) => !row.hasLeft);
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
    this.tellRest(jobs.length, running.length);
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

  tellRest(jobs, all) {
    const shown = this.rows.filter((row) => row.job).length;
    const rest = byId("running-rest");
    rest.hidden = jobs <= SHOWN;
    say(byId("running-shown"), `${number(shown)} of ${number(jobs)}`);
    say(byId("running-all"), this.most === SHOWN ? "Show all" : "Show fewer");
    const empty = byId("running-empty");
    empty.hidden = this.rows.length > 0;
    const stage = route.filter.get("stage");
    if (all === 0) say(empty, "No job is running.");
    else if (stage && [...route.filter.keys()].length === 1) say(empty, `No job is at ${stage}.`);
    else say(empty, "No running job is like that.");
  },

  /** What is filtered away has not ended: its row goes at once. */
  refilter() {
    for (const row of this.rows.splice(0)) row.element.remove();
    known.rendered = false;
  },
};

byId("running-all").addEventListener("click", () => {
  board.most = board.most === SHOWN ? Infinity : SHOWN;
  known.rendered = false;
});

// The stages, in the order in which a job goes through them: how many jobs are at each, and a way to see only those.

const stages = new Map();

class Stage {
  constructor(name) {
    this.name = name;
    this.count = make("span", "stage-count");
    this.button = make("button", "stage", make("span", "stage-name", name), this.count);
    this.button.type = "button";
    this.button.addEventListener("click", () => narrow({ stage: route.filter.get("stage") === name ? "" : name }));
    this.element = make("li", "", this.button);
    this.element.dataset.stage = name;
    this.press();
  }

  press() {
    this.button.setAttribute("aria-pressed", String(route.filter.get("stage") === this.name));
  }
}

export function placeStages(running) {
  const names = [...new Set([...known.queue.stages, ...stages.keys(), ...running.map((job) => job.stage)])];
  if (!names.every((name) => stages.has(name))) {
    for (const name of names) {
      if (!stages.has(name)) stages.set(name, new Stage(name));
    }
    byId("stages").replaceChildren(...names.map((name) => stages.get(name).element));
  }
  for (const stage of stages.values()) {
    const jobs = running.filter((job) => job.stage === stage.name).length;
    say(stage.count, number(jobs));
    stage.element.classList.toggle("idle", jobs === 0);
  }
}

let filtered = "";
onRoute(() => {
  if (route.job !== undefined) return;
  for (const stage of stages.values()) stage.press();
  const filter = route.filter.toString();
  if (filter !== filtered) board.refilter();
  filtered = filter;
});

// What the reaper does something with next.

/** As many as there is room for, whether or not there are so many: nothing below moves. */
const URGENT = 5;

class Urgent {
  constructor() {
    this.id = jobLink();
    this.what = make("span", "what");
    this.whose = make("span", "second");
    this.element = make("li", "vacant", this.id, this.what, this.whose);
  }

  show(job) {
    this.job = job;
    this.element.className = job ? "" : "vacant";
    if (!job) {
      unlink(this.id);
      delete this.element.dataset.job;
      for (const told of [this.what, this.whose]) told.textContent = "";
      return;
    }
    this.element.dataset.job = job.job;
    linkTo(this.id, job.job);
    this.whose.replaceChildren(...(job.owner ? ["owned by ", ...holder(job.owner)] : ["nobody owns it"]));
  }

  tick(now) {
    if (!this.job) return;
    const { dry_run: proposed, next } = this.job;
    if (proposed) say(this.what, `dry run: would be ${done(proposed)} now`);
    else if (next) say(this.what, due(next, now));
  }
}

export const urgent = Array.from({ length: URGENT }, () => new Urgent());
byId("attention-list").append(...urgent.map((row) => row.element));

export function updateAttention() {
  const told = known.queue.attention.map((id) => known.jobs.get(id)).filter(Boolean);
  urgent.forEach((row, at) => row.show(told[at]));
  byId("attention-empty").hidden = told.length > 0;
}
