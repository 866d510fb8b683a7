// The processes that share the jobs, where there are several: whose marks are whose, and how fresh the view of them is.

import { known } from "./state.js";
import { age, byId, make, say, some } from "./words.js";

const part = byId("processes");
const list = byId("process-list");
const heard = byId("processes-heard");

/** Takes up what the queue says of them. */
export function updateProcesses() {
  const { processes } = known.queue;
  part.hidden = processes.length === 0;
  list.replaceChildren(
    ...processes.map(({ name, marks, own }) =>
      make("li", own ? "own" : "", make("b", "", name), ` owns ${some(marks, "job")}${own ? ", and shows this page" : ""}`),
    ),
  );
}

/** Lets the age of the view go on. */
export function tickProcesses(now) {
  const { marks_heard_at_ms: at } = known.queue;
  if (at != null) say(heard, `Marks of all processes, as of ${age(Math.max(0, now - at))} ago.`);
}
