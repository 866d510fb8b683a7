// The live page: one stream of events in, one small tree of elements out.

import { board, calm, placeStages, updateAttention, urgent } from "./board.js";
import { enforce, tellUntil } from "./control.js";
import { followJob, tickJob } from "./job.js";
import { link } from "./link.js";
import { followOthers, updateKinds } from "./others.js";
import { begin, onRoute, route } from "./route.js";
import { tickProcesses, updateProcesses } from "./processes.js";
import { clock, known } from "./state.js";
import { followTrends } from "./trends.js";
import { number, say } from "./words.js";

const counters = Object.fromEntries(
  [...document.querySelectorAll("[data-count]")].map((element) => [element.dataset.count, element]),
);

function count(name, value) {
  say(counters[name].querySelector("dd > *"), number(value ?? 0));
  counters[name].classList.toggle("none", !value);
}

function updateCounters(running) {
  const { counts, reaper } = known.queue;
  count("queued", counts.queued);
  count("running", counts.running);
  // Of the running jobs: a mark that is about to be cleared has none any more.
  count("owned", running.filter((job) => job.owner).length);
  count("merged", counts.merged);
  count("rolled_back", counts.rolled_back);
  count("reaped", counts.reaped);
  count("sweeps", reaper.sweeps);
  count("defers", reaper.finalizer_defers_total);
  count("redrives", known.queue.redrives_total);
  count("conflicts", reaper.claim_conflicts);
  count("lost", reaper.reaps_worker_lost);
  count("backstop", reaper.reaps_backstop);
  count("exhausted", reaper.reaps_redrives_exhausted);
}

/** What a browser's tab says. */
function entitle(running) {
  const deferred = running.filter((job) => job.deferred).length;
  const jobs = `${number(known.queue.counts.running)} running${deferred > 0 ? `, ${deferred} deferred` : ""}`;
  document.title = `${route.job === undefined ? jobs : `Job ${route.job}`} · orchestrator`;
}

/** Time between two steps of the ages. */
const STEP = 100;
let drawn = 0;

function draw(now) {
  requestAnimationFrame(draw);
  if (known.queue === undefined || !["live", "asking"].includes(link.state)) return; // what is not news does not age
  if (!known.rendered) {
    known.rendered = true;
    enforce(known.queue.policy);
    const running = [...known.jobs.values()];
    placeStages(running);
    board.update(running, now);
    updateAttention();
    updateCounters(running);
    updateKinds();
    followOthers();
    followJob();
    followTrends();
    updateProcesses();
    entitle(running);
  } else if (now - drawn < (calm.matches ? 10 * STEP : STEP)) {
    return;
  }
  drawn = now;
  const at = clock.now();
  for (const row of board.rows) row.tick(at);
  for (const row of urgent) row.tick(at);
  tickJob(at);
  tickProcesses(at);
  tellUntil();
}

onRoute(() => {
  if (known.queue) entitle([...known.jobs.values()]);
});
begin();
link.open();
setInterval(() => link.watch(), 1000);
addEventListener("online", () => link.state === "live" || link.open());
requestAnimationFrame(draw);
