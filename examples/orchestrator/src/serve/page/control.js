// What a user can change, behind the token: mode, submission, pause.

import { clock, known } from "./state.js";
import { LIMITS_OF, MODES, byId, limit, make, modeName, number, own, say, soon, timeOfDay } from "./words.js";

/** An answer that takes longer does not come. */
const PATIENCE = 15_000;
const token = byId("token");
const by = byId("by");

/** Storage may be refused; then the field itself has to do. */
function stored(change) {
  try {
    return change(sessionStorage);
  } catch {
    return undefined;
  }
}

for (const [field, key] of [[token, "orchestrator-token"], [by, "orchestrator-name"]]) {
  field.value = stored((storage) => storage.getItem(key)) ?? "";
  field.addEventListener("input", () => {
    stored((storage) => (field.value ? storage.setItem(key, field.value) : storage.removeItem(key)));
    refuseToken("");
  });
}
byId("token-form").addEventListener("submit", (event) => event.preventDefault());

function refuseToken(why) {
  say(byId("token-error"), why);
  if (why) token.setAttribute("aria-invalid", "true");
  else token.removeAttribute("aria-invalid");
}

/** Who does it, if somebody says so. */
export const name = () => by.value.trim();
/** With the name of who does it. */
const signed = (body) => (name() ? { ...body, by: name() } : body);

/** Sends a change. The answer's JSON, or an error to be shown; a refused token is shown by its field. */
export async function send(method, path, body, { sign = true } = {}) {
  const headers = { "Content-Type": "application/json" };
  if (/[^\x21-\x7e]/.test(token.value)) {
    refuse("A token has visible ASCII characters only, and no spaces.");
    throw new Error("Not sent.");
  }
  if (token.value) headers.Authorization = `Bearer ${token.value}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: JSON.stringify(sign ? signed(body) : body), cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) {
    refuse(`${token.value ? "Refused" : "A token is needed"}: ${answer.error ?? "the token is not the server’s"}`);
    throw new Error("Refused: see the token.");
  }
  refuseToken("");
  if (!response.ok) throw new Error(answer.error ?? `The server answers ${response.status}.`);
  return answer;
}

function refuse(why) {
  refuseToken(why);
  byId("control").open = true;
  token.focus();
}

/** Runs one change at a time, and says how it went. */
export function sender(form, said, change) {
  let busy = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    said.className = "said";
    say(said, "");
    try {
      say(said, await change(event));
      said.classList.add("good");
    } catch (error) {
      say(said, error.message);
      said.classList.add("bad");
    } finally {
      busy = false;
    }
  });
}

// The mode.

const modeForm = byId("mode-form");
const radios = [...modeForm.elements.mode];
const chosen = () => radios.find((radio) => radio.checked)?.value;
let policy; // the policy that is shown

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

export function enforce(next) {
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
export function tellUntil() {
  const set = known.queue.override;
  const left = set?.until_at_ms ? set.until_at_ms - clock.now() : undefined;
  const until = left === undefined ? "" : `until ${timeOfDay.format(set.until_at_ms)}, for ${soon(Math.max(0, left))}`;
  say(byId("in-force-until"), until);
  byId("in-force").title = set ? `Set by ${set.by} at ${timeOfDay.format(set.since_at_ms)}` : "";
}

/** What a user must not overlook, above everything else. */
function warn() {
  const ending = known.queue?.shutting_down ? "The service is shutting down: no job is started any more." : undefined;
  const paused = known.queue?.paused ? "The queue is paused: no queued job is started." : undefined;
  const told = [own(MODES, policy.mode)?.warning, paused, ending].filter(Boolean).join(" ");
  const warning = byId("warning");
  warning.hidden = told === "";
  warning.dataset.mode = policy.mode;
  say(warning, told);
  say(byId("pause"), known.queue?.paused ? "Resume the queue" : "Pause the queue");
}

const setting = (key, value) => (key === "max_redrives" ? number(value) : limit(value));

function showLimits() {
  const list = byId("limits");
  list.replaceChildren();
  for (const [key, name] of Object.entries(LIMITS_OF)) {
    const unset = policy[key] == null;
    const value = make("dd", unset ? "unset" : "", unset ? (key === "hard_deadline" ? "no backstop" : "none") : setting(key, policy[key]));
    list.append(make("dt", "", name), value);
  }
  for (const [stage, rules] of Object.entries(policy.stages ?? {})) {
    const differs = Object.entries(LIMITS_OF).filter(([key]) => rules[key] != null && rules[key] !== policy[key]);
    const said = differs.map(([key, name]) => `${name.toLowerCase()} ${setting(key, rules[key])}`);
    if (rules.no_backstop && !policy.no_backstop) said.push("no backstop");
    said.unshift(rules.marking ? "monitors mark" : "monitors do not mark");
    list.append(make("dt", "of-stage", "At ", make("code", "", stage), ` ${said.join(", ")}.`), make("dd", "unseen", ""));
  }
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
  const { seq } = known;
  // What is refused stays chosen: with another token it may go.
  const { override, warning, ...put } = await send("PUT", "/policy", during ? { mode, for: during } : { mode });
  // The stream tells of it too, and may have told of a later one by now.
  if (known.queue && known.seq === seq) {
    known.queue.policy = put;
    enforce(put);
  }
  choose(put.mode);
  byId("during").value = "";
  const until = override?.until_at_ms ? ` until ${timeOfDay.format(override.until_at_ms)}` : "";
  return `${modeName(put.mode)} is in force${until}.${warning ? ` It is ${warning}` : ""}`;
});

// Jobs.

sender(byId("submit-form"), byId("submit-said"), async () => {
  const asked = { count: byId("count").valueAsNumber, kind: byId("kind").value };
  const { jobs } = await send("POST", "/jobs", asked, { sign: false });
  const ids = jobs.length === 1 ? `job ${jobs[0]}` : `jobs ${jobs[0]} to ${jobs.at(-1)}`;
  return `Submitted ${ids}.`;
});

sender(byId("pause-form"), byId("pause-said"), async () => {
  const { seq } = known;
  const { paused, warning } = await send("PUT", "/submission", { paused: !known.queue?.paused });
  if (known.queue && known.seq === seq) known.queue.paused = paused;
  warn();
  return `${paused ? "Paused: no queued job is started." : "Queued jobs are started again."}${warning ? ` ${warning}` : ""}`;
});

// On a narrow screen, the jobs are what one came for.
if (matchMedia("(max-width: 56rem)").matches) byId("control").open = false;
