// The connection. The server says something every 2 s at least: silence is a fault too.

import { addHappened, loadHappened } from "./happened.js";
import { known, takeChange, takeWhole } from "./state.js";
import { byId, say, some, timeOfDay } from "./words.js";

const SILENCE = 6000;
const RETRY = [500, 1000, 2000, 4000];
/** Pause between two looks of a page that there is no stream for. */
const ASK_EVERY = 3000;

export const link = {
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
      takeWhole(JSON.parse(event.data), Number(event.lastEventId));
      this.heard();
      this.refusals = 0;
      this.become("live");
      loadHappened();
    });
    this.source.addEventListener("change", (event) => {
      const change = JSON.parse(event.data);
      // A difference to another state is of no use: the whole one is asked for again.
      if (!takeChange(change, Number(event.lastEventId))) return this.open();
      this.heard();
      addHappened(change.happened);
      return undefined;
    });
    // The browser's own way to try again gives up on some answers, and cannot be hurried.
    this.source.addEventListener("error", () => this.ask());
  },

  heard() {
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
        takeWhole(state);
        this.heard();
        this.become("asking");
        loadHappened();
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
    for (const page of document.querySelectorAll("main")) page.classList.toggle("stale", state === "reconnecting");
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
    if (known.queue === undefined) {
      say(strip, "The server does not answer. Trying again.");
    } else {
      const silent = Math.round((performance.now() - this.heardAt) / 1000);
      say(strip, `Connection lost. What you see is of ${timeOfDay.format(known.queue.now_ms)}, ${some(silent, "second")} ago. Trying again.`);
    }
  },

  watch() {
    const last = this.state === "live" ? this.heardAt : this.openedAt;
    if (this.state === "asking") return;
    if (performance.now() - last > SILENCE && this.source.readyState !== EventSource.CLOSED) this.retry();
    this.tellLoss();
  },
};
