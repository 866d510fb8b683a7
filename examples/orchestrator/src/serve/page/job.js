// A job's own page: who owns it, what comes next and when, what can be done, and its time line.

import { name, send, sender } from "./control.js";
import { onRoute, placeOf, route } from "./route.js";
import { clock, known } from "./state.js";
import { age, byId, dayAndTime, done, due, holder, limit, make, say, short, timeOfDay, words } from "./words.js";

/** A job that runs is asked for this often at least. */
const EVERY = 1000;

let told; // the answer that is shown
let asked = -Infinity;
let asking = false;

onRoute(() => {
  const open = route.job !== undefined;
  byId("page").hidden = open;
  byId("job-page").hidden = !open;
  byId("job-back").setAttribute("href", placeOf(route.filter));
  // Both pages need it, and it is filled in once.
  const place = byId(open ? "job-token" : "control-token");
  if (!place.contains(byId("token-form"))) place.append(byId("token-form"));
  if (!open) {
    told = undefined;
    return;
  }
  if (told?.job === route.job) return;
  told = undefined;
  clear();
  ask().then(() => byId("job").focus({ preventScroll: true }));
  scrollTo(0, 0);
});

function clear() {
  say(byId("job-title"), `Job ${route.job}`);
  for (const id of ["job-state", "job-verdict", "job-next", "job-said"]) say(byId(id), "");
  for (const id of ["job-facts", "job-actions", "line", "story"]) byId(id).replaceChildren();
  byId("story").spoken = undefined;
  byId("job-state").hidden = true;
  byId("job-output").hidden = true;
}

/** With each state: a job that has not ended is asked for again. */
export function followJob() {
  if (route.job === undefined || asking || performance.now() - asked < EVERY) return;
  if (told && told.ended_at_ms != null && !known.jobs.has(route.job)) return;
  ask();
}

async function ask() {
  const { job } = route;
  asked = performance.now();
  asking = true;
  try {
    const response = await fetch(`/jobs/${job}`, { cache: "no-store" });
    const answer = await response.json();
    if (route.job !== job) return;
    if (!response.ok) {
      // What is shown stays: only a job that there is not has nothing to show.
      if (response.status === 404) {
        told = undefined;
        clear();
      }
      say(byId("job-verdict"), `${answer.error}.`);
      return;
    }
    told = answer;
    show();
  } catch {
    // The link says so.
  } finally {
    asking = false;
  }
}

/** How a gate ended, in the words of the pipeline. */
function resultOf({ result, ended_at_ms: ended }) {
  if (ended == null) return isOpen(told) ? "runs" : "cut off";
  if (result === "exit code 0") return "green";
  return result == null ? "cut off" : `red, ${result}`;
}

const isOpen = (job) => job.state === "running" || job.state === "queued";

function show() {
  say(byId("job-title"), `Job ${told.job}`);
  const state = byId("job-state");
  state.hidden = false;
  state.dataset.state = told.state;
  say(state, words(told.state));
  const { running } = told;
  say(byId("job-verdict"), running?.verdict ? `${running.verdict.text}.` : "");
  showFacts();
  showActions();
  showLine();
  showStory();
  tickJob(clock.offset === undefined ? told.now_ms : clock.now());
}

/** Lets go on what does. */
export function tickJob(now) {
  if (!told || route.job === undefined) return;
  const running = told.running ?? undefined;
  const next = byId("job-next");
  if (running?.dry_run) say(next, `Dry run: would be ${done(running.dry_run)} now.`);
  else if (running?.next) say(next, `Next: ${due(running.next, now)}.`);
  else say(next, "");
  const marker = byId("line").querySelector(".now");
  if (marker && isOpen(told)) marker.style.setProperty("--at", share(now));
}

// What is so.

function showFacts() {
  const { running } = told;
  const owner = running?.owner;
  const at = (ms) => (ms == null ? undefined : dayAndTime.format(ms));
  const facts = [
    ["Kind", told.kind],
    ["Owner", owner ? [...holder(owner), `, generation ${owner.generation}, since ${timeOfDay.format(owner.since_at_ms)}`] : told.state === "running" ? "nobody" : undefined],
    ["Last pulse", owner?.pulse_at_ms == null ? undefined : timeOfDay.format(owner.pulse_at_ms)],
    ["Submitted", at(told.submitted_at_ms)],
    ["Started", at(told.started_at_ms)],
    ["Process finished", at(told.stamped_at_ms)],
    ["Grace over", isOpen(told) ? at(told.grace_at_ms) : undefined],
    ["Hard deadline", isOpen(told) ? at(told.deadline_at_ms) : undefined],
    ["Ended", at(told.ended_at_ms)],
    ["Redrives", told.redrives || undefined],
    ["Effects", told.effects.map((effect) => `${effect.effect} by run ${effect.run}`).join(", ") || undefined],
  ];
  const shown = facts.filter(([, value]) => value !== undefined);
  byId("job-facts").replaceChildren(
    ...shown.map(([name, value]) => make("div", "", make("dt", "", name), make("dd", "", ...[value].flat().map((part) => (part instanceof Node ? part : String(part)))))),
  );
}

// What can be done.

/** A change that cannot be taken back is asked for twice. */
const ACTIONS = {
  end: {
    name: "End it",
    danger: true,
    can: (job) => isOpen(job),
    warns: ({ running }) => (running?.owner ? `Run ${running.owner.run_id ?? "of the reaper"} is displaced and commits nothing.` : "It is ended as the backstop would."),
    act: async (job) => {
      const { state } = await send("POST", `/jobs/${job.job}/end`, {});
      return `Ended as ${words(state)}.`;
    },
  },
  requeue: {
    name: "Run it again",
    can: (job) => job.state === "reaped" || job.state === "rolled_back",
    act: async (job) => {
      const { jobs } = await send("POST", `/jobs/${job.job}/requeue`, {});
      return `Submitted again as job ${jobs[0]}.`;
    },
  },
  clear: {
    name: "Clear the mark",
    danger: true,
    can: (job) => job.running?.owner,
    warns: ({ running }) => `Generation ${running.owner.generation}: past its grace, the job is then redriven while its run may be at work.`,
    act: async (job) => {
      const { generation } = job.running.owner;
      const query = new URLSearchParams({ generation: String(generation), ...(name() ? { by: name() } : {}) });
      await send("DELETE", `/jobs/${job.job}/mark?${query}`, {}, { sign: false });
      return `The mark of generation ${generation} is cleared.`;
    },
  },
};

let sure; // the action that was asked for once, of which job, and the mark that was told of

/** What an action was asked for: another owner is another thing. */
const askedFor = (key) => `${key} ${told.job} ${told.running?.owner?.generation ?? ""}`;

function showActions() {
  const box = byId("job-actions");
  const can = Object.entries(ACTIONS).filter(([, action]) => action.can(told));
  const names = can.map(([key]) => key).join(" ");
  if (box.dataset.can !== `${told.job} ${names}` || box.children.length !== can.length) {
    box.dataset.can = `${told.job} ${names}`;
    sure = undefined;
    box.replaceChildren(...can.map(([key, action]) => {
      const button = make("button", action.danger ? "danger quiet" : "quiet", action.name);
      button.type = "submit";
      button.value = key;
      return button;
    }));
  }
}

sender(byId("job-form"), byId("job-said"), async (event) => {
  const button = event.submitter;
  const action = ACTIONS[button.value];
  for (const other of byId("job-actions").children) say(other, ACTIONS[other.value].name);
  if (action.warns && sure !== askedFor(button.value)) {
    sure = askedFor(button.value);
    say(button, `Really: ${action.name.toLowerCase()}`);
    return action.warns(told);
  }
  sure = undefined;
  const { job } = told;
  const said = await action.act(told);
  // Another job's page may be open by now.
  if (route.job !== job) return "";
  ask();
  return said;
});

// The time line, to scale.

let scale = { from: 0, to: 1 };
/** Where an instant stands, from 0 to 1. */
const share = (at) => Math.min(1, Math.max(0, (at - scale.from) / (scale.to - scale.from))).toFixed(4);

function part(className, from, to, text, title) {
  const element = make("span", className, make("span", "name", text));
  element.style.setProperty("--at", share(from));
  element.style.setProperty("--part", (share(to) - share(from)).toFixed(4));
  element.title = title;
  return element;
}

function showLine() {
  const line = byId("line");
  const now = told.now_ms;
  const open = isOpen(told);
  const instants = told.runs.flatMap((run) => [run.started_at_ms, run.marked_at_ms, run.ended_at_ms]).filter((at) => at != null);
  const from = Math.min(told.started_at_ms ?? now, ...instants);
  // What is still to come is on the line; what did not come is not.
  const ends = open ? [now, told.grace_at_ms, told.deadline_at_ms] : [told.ended_at_ms ?? now];
  const to = Math.max(from + 1, ...ends.filter((at) => at != null), ...instants);
  scale = { from, to: to + (to - from) * 0.02 };
  if (told.started_at_ms == null) {
    line.replaceChildren(make("p", "empty", "It was not started yet."));
    return;
  }

  const lanes = told.runs.map((run) => {
    const end = run.ended_at_ms ?? (open ? now : told.ended_at_ms ?? now);
    const lane = make("div", "lane", make("span", "of", `run ${run.run}`));
    const bars = make("div", "bars");
    if (run.started_at_ms != null) {
      const until = run.stamped_at_ms ?? run.marked_at_ms ?? end;
      bars.append(part("process", run.started_at_ms, until, "process", `process, ${age(until - run.started_at_ms)}`));
    }
    if (run.marked_at_ms != null) bars.append(part("mark", run.marked_at_ms, end, "", `marked for ${age(end - run.marked_at_ms)}`));
    for (const task of run.tasks) {
      const until = task.ended_at_ms ?? end;
      const result = resultOf(task);
      const gate = part("gate", task.started_at_ms, until, task.gate, `gate ${task.gate}: ${result}, ${age(until - task.started_at_ms)}`);
      gate.dataset.result = result.split(",")[0];
      bars.append(gate);
    }
    lane.append(bars);
    return lane;
  });

  const marks = make("div", "instants");
  let row = 0;
  let before = -1;
  const instant = (className, at, text) => {
    if (at == null || at > scale.to || at < scale.from) return;
    const element = make("span", `instant ${className}`, make("span", "name", text));
    const place = Number(share(at));
    // Names that would lie on each other take turns.
    row = place - before < 0.09 ? (row + 1) % 3 : 0;
    before = place;
    element.style.setProperty("--at", share(at));
    element.style.setProperty("--row", row);
    element.classList.toggle("left", place > 0.9);
    element.title = `${text}, ${dayAndTime.format(at)}`;
    marks.append(element);
  };
  const all = [
    ["stamp", told.stamped_at_ms, "stamp"],
    ["grace", told.grace_at_ms, "grace over"],
    ...told.effects.map((effect) => ["effect", effect.at_ms, effect.effect]),
    ["end", told.ended_at_ms, words(told.state)],
    ["deadline", told.deadline_at_ms, "deadline"],
    ...(open ? [["now", now, "now"]] : []),
  ];
  for (const [className, at, text] of all.sort((a, b) => (a[1] ?? 0) - (b[1] ?? 0))) instant(className, at, text);
  const clocks = make("p", "scale", make("span", "", timeOfDay.format(scale.from)), make("span", "", `${short(scale.to - scale.from)} in all`), make("span", "", timeOfDay.format(scale.to)));
  line.replaceChildren(marks, ...lanes, clocks);
}

// The same in words, with what was noted.

function showStory() {
  const rows = [];
  const add = (at, who, what, more = {}) => {
    if (at != null) rows.push({ at, who, what, ...more });
  };
  add(told.submitted_at_ms, "", "submitted", { rank: -1 });
  if (isOpen(told)) {
    const { policy } = known.queue ?? {};
    add(told.grace_at_ms, "", `its grace is over${policy ? `, ${limit(policy.finalize_grace)} after the stamp` : ""}`, { limit: true });
    add(told.deadline_at_ms, "", "its hard deadline: the backstop ends it, owned or not", { limit: true });
  }
  for (const run of told.runs) {
    const who = `run ${run.run}`;
    const at = run.stamped_at_ms ?? (run.output ? run.ended_at_ms ?? told.now_ms : undefined);
    const code = run.exit_code == null ? "" : `, exit code ${run.exit_code}`;
    const what = run.stamped_at_ms == null ? "its process has not finished" : `its process finished${code}`;
    add(at, who, what, { output: run.output ? `run=${run.run}` : undefined });
    for (const task of run.tasks) {
      const took = task.ended_at_ms == null ? "" : `, after ${short(task.ended_at_ms - task.started_at_ms)}`;
      const result = resultOf(task);
      add(task.ended_at_ms ?? task.started_at_ms, who, `gate ${task.gate}: ${result}${took}`, { output: task.output ? `task=${task.task}` : undefined, gate: true });
    }
  }
  for (const event of told.events) {
    // Told above, with its output.
    if (event.kind === "run" && (event.what === "stamped finished" || /^gate .*: (green|RED)/.test(event.what))) continue;
    add(event.at_ms, event.who, event.what, { rank: event.id });
  }
  rows.sort((a, b) => a.at - b.at || (a.rank ?? 0) - (b.rank ?? 0));
  const spoken = JSON.stringify(rows.map((row) => [row, row.at > told.now_ms]));
  const story = byId("story");
  if (story.spoken === spoken) return;
  story.spoken = spoken;
  const from = told.started_at_ms ?? told.submitted_at_ms ?? 0;
  const items = rows.map((row) => {
    const after = row.at - from;
    const offset = after < 0 ? `−${short(-after)}` : `+${short(after)}`;
    const time = make("time", "", dayAndTime.format(row.at));
    time.dateTime = new Date(row.at).toISOString();
    const what = make("span", "what", row.what);
    const item = make("li", row.at > told.now_ms ? "to-come" : "", time, make("span", "offset", offset), make("span", "who", row.who), what);
    if (row.output) {
      const button = make("button", "quiet small", "Output");
      button.type = "button";
      button.setAttribute("aria-label", `Output of ${row.who}, ${row.what}`);
      button.addEventListener("click", () => showOutput(row.output, `${row.who}, ${row.what}`));
      button.dataset.output = row.output;
      what.append(" ", button);
    }
    return item;
  });
  // Whoever is at a button stays there.
  const at = story.contains(document.activeElement) ? document.activeElement.dataset.output : undefined;
  story.replaceChildren(...items);
  if (at) story.querySelector(`[data-output="${CSS.escape(at)}"]`)?.focus({ preventScroll: true });
}

async function showOutput(which, of) {
  const { job } = route;
  let text;
  try {
    const response = await fetch(`/jobs/${job}/output?${which}`, { cache: "no-store" });
    text = response.ok ? await response.text() : (await response.json()).error;
  } catch {
    text = "The server cannot be reached.";
  }
  if (route.job !== job) return;
  byId("job-output").hidden = false;
  say(byId("output-title"), `Output of ${of}`);
  say(byId("output-text"), text === "" ? "It said nothing." : text);
  byId("output-title").focus();
  byId("job-output").scrollIntoView({ block: "nearest" });
}
