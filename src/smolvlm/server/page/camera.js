/** The camera: one request in flight, always about the newest frame. A frame that comes while the model looks at
 * another is dropped, one that hardly differs from the last it saw is skipped. Frames are made one tile small here.
 */

import { ApiError, chat, decide, isLocked, wasStopped } from "./api.js";
import { troubleCard } from "./cards.js";
import { announce, eachFrame, get, make, shortSeconds } from "./dom.js";
import { render } from "./markdown.js";
import { dataUri, toBlob } from "./media.js";
import { settings } from "./settings.js";
import { setupWatch } from "./watch.js";

const GRID = [32, 24]; // cells of grey in which frames are compared
const SHARE_COMPARED = 0.1; // of the cells, those that changed most: something small that moves counts
const STILL_WAIT_MS = 100;
const RATE_OVER_MS = 10_000;
const SAY_EVERY_MS = 12_000; // to screen readers
const NOTE_SIDE = [72, 54];

/** hooks: model() -> its name, tileSize() -> pixels, openSettings(field). Returns {stop}. */
export function setupCamera(hooks) {
  const eye = get("eye");
  const watch = setupWatch();
  let stream = null;
  let running = null; // the AbortController of what is in flight, while the camera is on
  let still = 0;
  let late = 0;

  const mode = () => document.querySelector("[name=eye-mode]:checked").value;
  const levels = () => ({ threshold: get("eye-threshold").valueAsNumber, margin: get("eye-margin").valueAsNumber });

  async function start() {
    if (!navigator.mediaDevices) {
      return trouble(new ApiError("This browser gives no camera to the page.", 0, "Open it by https, or on localhost."));
    }
    stop();
    get("eye-trouble").replaceChildren();
    const wanted = get("eye-device").value;
    const mine = running = new AbortController();
    try {
      const video = { ...(wanted ? { deviceId: { exact: wanted } } : { facingMode: "environment" }), width: { ideal: 1280 } };
      const got = await navigator.mediaDevices.getUserMedia({ video, audio: false });
      if (running !== mine) return got.getTracks().forEach((track) => track.stop());
      stream = got;
    } catch (error) {
      running = null;
      return trouble(new ApiError(`The camera can't be used: ${error.message}.`, 0, "Allow it in the browser, or choose another one."));
    }
    stream.getVideoTracks()[0].addEventListener("ended", () => stop("The camera was taken away."));
    eye.srcObject = stream;
    await eye.play().catch(() => {}); // stopped again already
    if (mine.signal.aborted) return;
    eye.parentElement.style.aspectRatio = eye.videoWidth / eye.videoHeight;
    sign(true);
    still = late = 0;
    await listDevices();
    announce("The camera is on");
    get("eye-stop").focus({ preventScroll: true });
    loop(mine);
  }

  /** Release the device at once. why: shown where the picture was. */
  function stop(why = "The camera is off.") {
    running?.abort();
    running = null;
    if (!stream) return;
    stream.getTracks().forEach((track) => track.stop());
    stream = eye.srcObject = null;
    sign(false);
    get("eye-note").textContent = why;
    announce(why);
  }

  /** All that shows whether the camera is on. */
  function sign(on) {
    get("sign").hidden = get("eye-stop").hidden = !on;
    get("eye-off").hidden = on;
    document.body.classList.toggle("filming", on);
    document.title = on ? "● camera on: smolvlm" : "smolvlm";
  }

  async function listDevices() {
    const found = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
    const current = stream?.getVideoTracks()[0].getSettings().deviceId;
    get("eye-device").replaceChildren(
      ...found.map((device, place) => make("option", { value: device.deviceId }, device.label || `Camera ${place + 1}`)),
    );
    get("eye-device").value = current ?? "";
    get("eye-devices").hidden = !found.length;
  }

  async function loop(mine) {
    const looked = []; // when frames were looked at
    let seen = null;
    let asked = "";
    const frames = countFrames(eye, mine.signal);
    while (!mine.signal.aborted) {
      const grey = greyOf(eye);
      const question = `${mode()} ${get("eye-words").value}`;
      const change = seen && question === asked ? difference(grey, seen) : 1;
      get("g-change").textContent = seen ? `${(100 * change).toFixed(0)}\u00a0%` : "–";
      if (change < get("eye-gate").valueAsNumber) {
        still += 1;
        get("g-still").textContent = still;
        await pause(STILL_WAIT_MS);
        continue;
      }
      if (question !== asked) watch.restart();
      seen = grey;
      asked = question;
      const before = frames.count;
      try {
        await (mode() === "watch" ? judge(mine.signal) : describe(mine.signal));
      } catch (error) {
        if (wasStopped(error) || mine.signal.aborted) return;
        trouble(error);
        if (error.status !== 429) return stop("Stopped by an error.");
        await pause(1000 * (error.retryAfterS || 1));
        continue;
      }
      get("eye-trouble").replaceChildren();
      late += Math.max(0, frames.count - before - 1);
      get("g-late").textContent = late;
      const now = performance.now();
      looked.push(now);
      while (now - looked[0] > RATE_OVER_MS) looked.shift();
      const spanS = (now - looked[0]) / 1000;
      get("g-rate").textContent = looked.length > 1 ? ((looked.length - 1) / spanS).toFixed(1) : "–";
    }
  }

  /** One tile, squeezed into a square: what the model makes of a frame anyway. So nothing is resized twice. */
  async function shot() {
    const side = hooks.tileSize();
    return dataUri(await toBlob(paint(eye, side, side), "image/jpeg", 0.92));
  }

  const describe = async (signal) => {
    const url = await shot();
    const content = [{ type: "image_url", image_url: { url, detail: "low" } }, { type: "text", text: get("eye-words").value }];
    const system = settings.system ? [{ role: "system", content: settings.system }] : [];
    const request = {
      model: hooks.model(), messages: [...system, { role: "user", content }], temperature: settings.temperature,
      max_tokens: get("eye-tokens").valueAsNumber,
    };
    const draw = eachFrame((text) => get("eye-answer").replaceChildren(render(text)));
    const answer = await chat(request, signal, draw);
    get("g-first").textContent = shortSeconds(answer.firstS || answer.totalS);
    get("g-answer").textContent = shortSeconds(answer.totalS);
    sayNowAndThen(answer.text);
  };

  const judge = async (signal) => {
    const began = performance.now();
    const small = paint(eye, ...NOTE_SIDE); // of the same moment as the frame that is judged
    const image = { type: "input_image", image_url: await shot(), detail: "low" };
    const report = await decide({
      model: hooks.model(), input: [{ role: "user", content: [image] }],
      questions: [{ type: "predicate", instructions: get("eye-words").value }],
    }, signal);
    const [{ probability, label_mass: mass }] = report.answers;
    if (probability === undefined) throw new ApiError("The model refused this question.", 0, "Ask in other words.");
    const time = shortSeconds((performance.now() - began) / 1000);
    get("g-answer").textContent = time;
    watch.take(probability, mass ?? report.label_mass, levels(), small);
  };

  function trouble(error) {
    const locked = isLocked(error);
    get("eye-trouble").replaceChildren(troubleCard(error, locked ? ["Open the settings", () => hooks.openSettings("key")] : null));
  }

  function showMode() {
    for (const part of document.querySelectorAll("[data-mode]")) part.hidden = part.dataset.mode !== mode();
    const words = get("eye-words");
    if (Object.values(EXAMPLES).includes(words.value)) words.value = EXAMPLES[mode()];
  }

  get("eye-start").addEventListener("click", start);
  get("eye-stop").addEventListener("click", () => { stop(); get("eye-start").focus(); });
  get("eye-device").addEventListener("change", start);
  for (const choice of document.querySelectorAll("[name=eye-mode]")) choice.addEventListener("change", showMode);
  setupSliders(() => watch.redraw(levels()));
  watch.redraw(levels());
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop("The camera was stopped because this tab was hidden.");
  });
  addEventListener("pagehide", () => stop());
  return { stop };
}

const EXAMPLES = { question: "What is in the picture?", watch: "Is there a person in the picture?" };

let saidAt = 0;
function sayNowAndThen(text) {
  if (performance.now() - saidAt < SAY_EVERY_MS) return;
  saidAt = performance.now();
  announce(text);
}

function setupSliders(onChange) {
  const words = { "eye-gate": (value) => `${Math.round(100 * value)}\u00a0%`, "eye-tokens": String };
  for (const slider of get("camera").querySelectorAll("input[type=range]")) {
    const say = () => {
      const text = (words[slider.id] ?? ((value) => value.toFixed(2)))(slider.valueAsNumber);
      slider.previousElementSibling.querySelector("b").textContent = text;
      onChange();
    };
    slider.addEventListener("input", say);
    say();
  }
}

/** Counts the frames that the camera delivers. */
function countFrames(eye, signal) {
  const frames = { count: 0 };
  const next = () => {
    frames.count += 1;
    if (!signal.aborted) eye.requestVideoFrameCallback(next);
  };
  eye.requestVideoFrameCallback?.(next);
  return frames;
}

function paint(eye, width, height) {
  const canvas = make("canvas", { width, height });
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(eye, 0, 0, width, height);
  return canvas;
}

const sampler = make("canvas", { width: GRID[0], height: GRID[1] }).getContext("2d", { willReadFrequently: true });

function greyOf(eye) {
  sampler.imageSmoothingQuality = "high";
  sampler.drawImage(eye, 0, 0, ...GRID);
  const { data } = sampler.getImageData(0, 0, ...GRID);
  const grey = new Float32Array(data.length / 4);
  for (let cell = 0; cell < grey.length; cell += 1) {
    grey[cell] = (0.299 * data[4 * cell] + 0.587 * data[4 * cell + 1] + 0.114 * data[4 * cell + 2]) / 255;
  }
  return grey;
}

/** How much two frames differ, 0 to 1: the mean over the cells that changed most. */
export function difference(one, other) {
  const changes = one.map((value, cell) => Math.abs(value - other[cell])).sort();
  const most = changes.subarray(Math.floor(changes.length * (1 - SHARE_COMPARED)));
  return most.reduce((sum, value) => sum + value, 0) / most.length;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
