/** Yes or no over time: a state with hysteresis, its curve, and the list of its changes. Knows no camera. */

import { announce, copyText, get, make } from "./dom.js";

const POINTS = 120; // of the curve
const MOST_CHANGES = 50;
const LOW_MASS = 0.5;
const SIZE = { width: 240, height: 60 }; // of the curve's own coordinates

/** The next state: yes from `threshold` on, no again below `threshold - margin`; in between it stays as it was. */
export function nextState(state, probability, threshold, margin) {
  if (probability >= threshold) return true;
  return probability >= threshold - margin ? state : false;
}

export function setupWatch() {
  let state = false;
  let known = false;
  let points = [];
  const changes = []; // {at, state, probability}

  function restart() {
    state = known = false;
    points = [];
    get("verdict").className = "";
    get("verdict").firstElementChild.textContent = "–";
    get("verdict").lastElementChild.textContent = "";
    drawCurve([], 1, 0);
  }

  /** Take one more probability. picture: a canvas of the frame, shown beside a change. */
  function take(probability, mass, { threshold, margin }, picture) {
    points = [...points, probability].slice(-POINTS);
    const next = nextState(state, probability, threshold, margin);
    if (!known || next !== state) note(next, probability, picture);
    state = next;
    known = true;
    get("verdict").className = state ? "yes" : "no";
    get("verdict").firstElementChild.textContent = state ? "Yes" : "No";
    get("verdict").lastElementChild.textContent = `probability of yes ${probability.toFixed(2)}`;
    get("eye-mass").hidden = !(mass < LOW_MASS);
    get("eye-mass").textContent = `The model would rather say something else than yes or no (${(mass ?? 1).toFixed(2)} of its `
      + "probability lies on the two): ask in other words.";
    drawCurve(points, threshold, margin);
  }

  function note(next, probability, picture) {
    const at = new Date();
    changes.unshift({ at, state: next, probability });
    changes.length = Math.min(changes.length, MOST_CHANGES);
    const item = make(
      "li", { className: next ? "yes" : "no" }, picture,
      make("b", {}, next ? "Yes" : "No"), make("time", { dateTime: at.toISOString() }, at.toLocaleTimeString()),
      make("span", {}, probability.toFixed(2)),
    );
    if (get("changes-copy").hidden) get("changes").replaceChildren();
    get("changes-copy").hidden = false;
    get("changes").prepend(item);
    while (get("changes").children.length > MOST_CHANGES) get("changes").lastElementChild.remove();
    announce(`${next ? "Yes" : "No"} at ${at.toLocaleTimeString()}`);
  }

  get("changes-copy").addEventListener("click", (event) => {
    const lines = changes.map((one) => `${one.at.toISOString()}\t${one.state ? "yes" : "no"}\t${one.probability.toFixed(4)}`);
    copyText(lines.reverse().join("\n"), event.currentTarget);
  });
  return { restart, take, redraw: ({ threshold, margin }) => drawCurve(points, threshold, margin) };
}

function drawCurve(points, threshold, margin) {
  const { width, height } = SIZE;
  const y = (probability) => 2 + (height - 4) * (1 - probability);
  const [band, level, line] = get("curve").children;
  const set = (element, values) => Object.entries(values).forEach(([name, value]) => element.setAttribute(name, value));
  set(level, { x1: 0, x2: width, y1: y(threshold), y2: y(threshold) });
  set(band, { x: 0, width, y: y(threshold), height: y(Math.max(0, threshold - margin)) - y(threshold) });
  const step = width / (POINTS - 1);
  const start = width - step * (points.length - 1);
  line.setAttribute("points", points.map((one, place) => `${(start + step * place).toFixed(1)},${y(one).toFixed(1)}`).join(" "));
}
