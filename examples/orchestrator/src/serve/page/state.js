// What is known of the queue: a whole state at first, then what is different.

import { own } from "./words.js";

export const known = {
  /** The state, but for the running jobs. */
  queue: undefined,
  /** The running jobs by id. */
  jobs: new Map(),
  /** The number of the state. */
  seq: undefined,
  /** Whether the page shows it. */
  rendered: true,
};

/** Takes up a whole state. One that was asked for has no number. */
export function takeWhole(state, seq) {
  const { running, ...queue } = state;
  known.queue = queue;
  known.jobs = new Map(Object.values(running).flat().map((job) => [job.job, job]));
  known.seq = seq;
  known.rendered = false;
  clock.heard(queue.now_ms);
}

/** Takes up a difference. Returns whether it is one to what is known. */
export function takeChange(change, seq) {
  if (known.queue === undefined || seq !== known.seq + 1) return false;
  Object.assign(known.queue, change.set);
  known.queue.now_ms = change.now_ms;
  for (const job of change.gone) known.jobs.delete(job);
  for (const job of change.running) known.jobs.set(job.job, job);
  known.seq = seq;
  known.rendered = false;
  clock.heard(change.now_ms);
  return true;
}

/** The server's clock, by which all ages are told. */
export const clock = {
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

/** The limits a running job is judged by, in milliseconds; no deadline is infinity. */
export function limitsOf(job) {
  const { policy } = known.queue;
  const rules = own(policy.stages, job.stage) ?? own(policy.stages, "finalize") ?? {};
  const deadline = rules.no_backstop ? null : (rules.hard_deadline ?? policy.hard_deadline);
  return {
    grace: (rules.finalize_grace ?? policy.finalize_grace) * 1000,
    deadline: deadline == null ? Infinity : deadline * 1000,
  };
}
