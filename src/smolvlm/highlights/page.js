const result = JSON.parse(document.getElementById("result").textContent);
const {duration_s: duration, curve, cuts_s: cuts, selection: asked} = result;
const get = (id) => document.getElementById(id);
const video = get("video");
const how = {...asked};
let segments = result.segments.map((one) => ({start: one.start_s, end: one.end_s, score: one.score, title: one.title || ""}));
let playing = false; // only the segments, one after another

function make(name, attributes = {}, ...children) {
  const space = name === "svg" || "rect line path".split(" ").includes(name) ? "http://www.w3.org/2000/svg" : null;
  const node = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function clock(seconds) {
  const tenths = Math.round(seconds * 10), minutes = Math.floor(tenths / 600);
  const two = (number) => String(number).padStart(2, "0");
  if (minutes >= 60) return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(Math.floor(tenths / 10) % 60)}`;
  return `${minutes}:${two(Math.floor(tenths / 10) % 60)}.${tenths % 10}`;
}

// ---- timeline ----

const WIDE = 1000, HIGH = 100;

function drawCurve() {
  const plot = get("plot");
  const x = (second) => WIDE * second / duration;
  const parts = [];
  for (const one of segments) {
    parts.push(make("rect", {class: "kept", x: x(one.start), width: Math.max(.5, x(one.end) - x(one.start)), y: 0, height: HIGH}));
  }
  curve.times_s.forEach((start, index) => {
    const end = index + 1 < curve.times_s.length ? curve.times_s[index + 1] : duration;
    const height = Math.max(.6, HIGH * curve.scores[index]);
    const inside = segments.some((one) => one.start <= (start + end) / 2 && (start + end) / 2 < one.end);
    parts.push(make("rect", {
      class: inside ? "inside" : "bar", x: x(start), width: Math.max(.3, x(end) - x(start)), y: HIGH - height, height,
    }));
  });
  const level = HIGH * (1 - how.threshold);
  parts.push(make("line", {class: "level", x1: 0, x2: WIDE, y1: level, y2: level}));
  plot.replaceChildren(...parts);
}

function drawTicks() {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
  const most = Math.max(3, Math.floor(get("timeline").clientWidth / 90));
  const step = steps.find((one) => duration / one <= most) || 7200;
  const marks = [];
  for (let second = 0; second <= duration; second += step) {
    const place = 100 * second / duration;
    const mark = make("span", {class: place > 96 ? "last" : ""}, clock(second).replace(/\.0$/, ""));
    mark.style.left = `${place}%`;
    marks.push(mark);
  }
  get("ticks").replaceChildren(...marks);
}

function showNow() {
  const second = video.currentTime;
  get("now").style.left = `${100 * Math.min(1, second / duration)}%`;
  const timeline = get("timeline");
  timeline.setAttribute("aria-valuenow", second.toFixed(1));
  timeline.setAttribute("aria-valuetext", clock(second));
  [...get("clips").querySelectorAll("button")].forEach((button, index) => {
    button.setAttribute("aria-current", segments[index].start <= second && second < segments[index].end);
  });
}

function seek(second) {
  video.currentTime = Math.min(duration, Math.max(0, second));
  showNow();
}

get("timeline").addEventListener("click", (event) => {
  const box = get("plot").getBoundingClientRect();
  playing = false;
  seek(duration * (event.clientX - box.left) / box.width);
});
get("timeline").addEventListener("keydown", (event) => {
  const step = {ArrowRight: 1, ArrowLeft: -1, ArrowUp: 5, ArrowDown: -5, PageUp: 30, PageDown: -30}[event.key];
  if (step) seek(video.currentTime + step);
  else if (event.key === "Home") seek(0);
  else if (event.key === "End") seek(duration);
  else return;
  event.preventDefault();
});

// ---- clips ----

function posterOf(one) {
  const middle = (one.start + one.end) / 2;
  const inside = result.posters.filter((poster) => one.start <= poster.second && poster.second < one.end);
  inside.sort((a, b) => Math.abs(a.second - middle) - Math.abs(b.second - middle));
  return inside.length ? make("img", {src: inside[0].picture, alt: ""}) : make("span", {class: "blank"});
}

function drawClips() {
  const items = segments.map((one, index) => {
    const words = make("span", {class: "words"}, `${index + 1} · ${clock(one.start)} – ${clock(one.end)}`);
    if (one.title) words.append(make("small", {}, one.title));
    words.append(make("small", {}, `score ${one.score.toFixed(2)}`));
    const button = make("button", {type: "button"}, posterOf(one), words);
    button.addEventListener("click", () => {
      playing = false;
      seek(one.start);
      video.play().catch(() => {});
    });
    return make("li", {}, button);
  });
  get("clips").replaceChildren(...items);
}

function neighbour(step) {
  const now = video.currentTime;
  const order = step > 0 ? segments.filter((one) => one.start > now + .05) : segments.filter((one) => one.start < now - 1);
  const next = step > 0 ? order[0] : order[order.length - 1];
  if (next) seek(next.start);
}

// The re-cut without a file: the source plays, and what lies between the segments is passed over.
video.addEventListener("timeupdate", () => {
  showNow();
  if (!playing) return;
  const now = video.currentTime;
  if (segments.some((one) => one.start - .05 <= now && now < one.end)) return;
  const next = segments.find((one) => one.start > now);
  if (next) seek(next.start);
  else {
    playing = false;
    video.pause();
  }
});
video.addEventListener("error", () => { get("missing").hidden = false; });
get("play").addEventListener("click", () => {
  if (!segments.length) return;
  playing = true;
  seek(segments[0].start);
  video.play().catch(() => {});
});
get("before").addEventListener("click", () => neighbour(-1));
get("after").addEventListener("click", () => neighbour(1));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("textarea, input")) return;
  if (event.key === "n") neighbour(1);
  else if (event.key === "p") neighbour(-1);
});

// ---- commands ----

const quoted = (word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

const FLAGS = [
  ["threshold", "threshold"], ["top", "top"], ["min_gap_s", "min-gap"], ["target_length_s", "target-length"],
  ["padding_s", "padding"], ["longest_s", "longest"],
];

function optionsBeside(known) { // 0 lifts a limit
  return FLAGS.flatMap(([key, flag]) => how[key] === known[key] ? [] : [`--${flag}`, String(how[key] ?? 0)]);
}

function showCommands() {
  const recut = ["smolvlm", "highlights", "--from", result.record, ...optionsBeside(asked), "-o", result.reel];
  get("recut").textContent = recut.map(quoted).join(" ");
  const wanted = get("criteria").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const again = [
    "smolvlm", "highlights", result.source, ...wanted.flatMap((one) => ["--criteria", one]), ...result.options,
    ...optionsBeside(result.defaults), "-o", result.reel,
  ];
  get("again").textContent = again.map(quoted).join(" ");
}

for (const button of document.querySelectorAll("button[data-copies]")) {
  button.addEventListener("click", async () => {
    const code = get(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch { // a page from a file may not be allowed to: then the text is marked, to be copied by hand
      getSelection().selectAllChildren(code);
      return;
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// ---- controls ----

function said(key) {
  if (key === "threshold") return how.threshold.toFixed(2);
  if (key === "top") return how.top === null ? "all" : String(how.top);
  return how[key] === null ? "any" : `${how[key]} s`;
}

function recut() {
  const titles = result.segments;
  segments = select(curve, duration, cuts, how).map((one) => {
    const same = titles.find((old) => old.title && old.start_s < one.end && old.end_s > one.start);
    return {...one, title: same ? same.title : ""};
  });
}

function show() {
  drawCurve();
  drawClips();
  showNow();
  showCommands();
  const total = segments.reduce((sum, one) => sum + one.end - one.start, 0);
  get("summary").textContent = segments.length
    ? `${segments.length} segment${segments.length > 1 ? "s" : ""}, ${clock(total)} of ${clock(duration)}`
    : "nothing reaches this threshold";
}

for (const input of document.querySelectorAll("input[data-key]")) {
  const {key} = input.dataset;
  const none = Number(input.max); // at its right end a limit is none
  input.value = asked[key] === null ? none : asked[key];
  const label = () => { input.parentElement.querySelector("output").textContent = said(key); };
  input.addEventListener("input", () => {
    const value = Number(input.value);
    how[key] = (key === "top" || key === "target_length_s") && value >= none ? null : value;
    label();
    recut();
    show();
  });
  label();
}
get("play").hidden = video.hidden;
if (result.posters.length) video.poster = result.posters[0].picture;
get("criteria").value = result.criteria.join("\n");
get("criteria").addEventListener("input", showCommands);
addEventListener("resize", drawTicks);
drawTicks();
show();
