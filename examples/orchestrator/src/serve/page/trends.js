// How the last hour went: three small lines.

import { age, byId, make, number, say } from "./words.js";

const EVERY = 5000;
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [300, 40];

const oldest = (ms) => (ms === 0 ? "none" : age(ms));
const LINES = [
  { key: "deferred", name: "Left alone", say: number, of: "jobs left alone at a time" },
  { key: "reaps", name: "Reaps", say: number, of: "jobs reaped", sum: true },
  { key: "oldest_owner_ms", name: "Oldest owner", say: oldest, of: "age of the oldest owner" },
];

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

class Line {
  constructor(of) {
    this.of = of;
    this.path = element("path", { class: "spark" });
    this.picture = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.picture.append(this.path);
    this.told = make("span", "told");
    this.element = make("figure", "trend", make("figcaption", "", make("b", "", of.name), " ", this.told), this.picture);
    this.element.dataset.trend = of.key;
  }

  /** Points that stand at the right: what was before the start is empty. */
  show(points) {
    const { of } = this;
    const most = Math.max(0, ...points);
    const step = WIDTH / 359;
    const at = (value, index) => {
      const x = WIDTH - (points.length - 1 - index) * step;
      return `${x.toFixed(1)},${(HEIGHT - 2 - (most === 0 ? 0 : (value / most) * (HEIGHT - 4))).toFixed(1)}`;
    };
    this.path.setAttribute("d", `M${points.map(at).join("L")}`);
    const total = points.reduce((sum, value) => sum + value, 0);
    const said = of.sum ? of.say(total) : `${of.say(points.at(-1) ?? 0)} now, ${of.say(most)} at most`;
    say(this.told, said);
    this.picture.setAttribute("aria-label", `The last hour, ${of.of}: ${said}`);
  }
}

const lines = LINES.map((of) => new Line(of));
byId("trends").append(...lines.map((line) => line.element));

async function ask() {
  if (document.hidden) return;
  try {
    const response = await fetch("/trends", { cache: "no-store" });
    if (!response.ok) return;
    const told = await response.json();
    for (const line of lines) line.show(told[line.of.key]);
  } catch {
    // The link says so.
  }
}

let begun = false;
/** Once the server answers, and from then on. */
export function followTrends() {
  if (begun) return;
  begun = true;
  ask();
  setInterval(ask, EVERY);
}
