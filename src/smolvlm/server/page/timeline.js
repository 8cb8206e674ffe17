/** The timeline under a video: where the model's frames lie, pictures of them made here, and a rail to seek on. */

import { clock, get, make } from "./dom.js";
import { closeFilm, framesAt, openFilm } from "./media.js";

const THUMB_SIDE = 160;
const STEP_S = 1;
const LONG_STEP_S = 5;
const MANY_FRAMES = 128; // of so many, only times are shown: pictures would take minutes to seek

/** film: the video element. Returns {open(durationS, blob), showFrames(seconds, sure), close()}. */
export function setupTimeline(film) {
  const rail = get("rail");
  let durationS = 0;
  let blob = null; // of the video, when this browser can play it
  let seconds = [];
  let making = null; // the AbortController of the thumbnails that are being made

  function seek(second) {
    const target = Math.max(0, Math.min(durationS, second));
    if (blob) film.currentTime = target;
    place(target);
  }

  /** Move what shows the present moment. */
  function place(second) {
    rail.setAttribute("aria-valuenow", second.toFixed(1));
    rail.setAttribute("aria-valuetext", `${clock(second)} of ${clock(durationS)}`);
    rail.style.setProperty("--now", `${durationS ? (100 * second) / durationS : 0}%`);
    const current = seconds.findLastIndex((one) => one <= second + 0.05);
    [...get("frames").children].forEach((item, index) => {
      item.firstElementChild.setAttribute("aria-current", String(index === current));
    });
  }

  function open(length, playable) {
    durationS = length;
    blob = playable;
    rail.setAttribute("aria-valuemax", length.toFixed(1));
    get("timeline").hidden = !length;
    showFrames([], false);
  }

  /** seconds: of the frames. sure: an answer saw them; else they are what a question would show. */
  function showFrames(times, sure) {
    making?.abort();
    seconds = times;
    rail.replaceChildren(...times.map((second) => {
      const tick = make("span", { className: "tick" });
      tick.style.left = `${(100 * second) / durationS}%`;
      return tick;
    }), make("span", { className: "now" }));
    rail.classList.toggle("sure", sure);
    const many = times.length === 1 ? "1 frame" : `${times.length} frames`;
    get("seen-line").textContent = times.length ? `${many} ${sure ? "that the model saw" : "that a question would show the model"}` : "";
    const canvases = times.map(() => make("span", { className: "blank" }));
    get("frames").replaceChildren(...times.map((second, index) => make(
      "li", {},
      make(
        "button", { type: "button", "aria-label": `Frame at ${clock(second)}`, onclick: () => { film.pause(); seek(second); } },
        canvases[index], make("span", {}, clock(second)),
      ),
    )));
    place(blob ? film.currentTime : 0);
    if (blob && times.length && times.length <= MANY_FRAMES) {
      making = new AbortController();
      paint(blob, times, canvases, making.signal);
    }
  }

  film.addEventListener("timeupdate", () => place(film.currentTime));
  film.addEventListener("seeking", () => place(film.currentTime));
  rail.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? LONG_STEP_S : STEP_S;
    const now = Number(rail.getAttribute("aria-valuenow"));
    const targets = {
      ArrowRight: now + step, ArrowUp: now + step, ArrowLeft: now - step, ArrowDown: now - step, Home: 0, End: durationS,
      PageUp: now + LONG_STEP_S, PageDown: now - LONG_STEP_S,
    };
    if (!(event.key in targets)) return;
    event.preventDefault();
    seek(targets[event.key]);
  });
  const point = (event) => {
    const { left, width } = rail.getBoundingClientRect();
    seek(((event.clientX - left) / width) * durationS);
  };
  rail.addEventListener("pointerdown", (event) => { rail.setPointerCapture(event.pointerId); point(event); });
  rail.addEventListener("pointermove", (event) => { if (rail.hasPointerCapture(event.pointerId)) point(event); });

  return { open, showFrames, close: () => { making?.abort(); open(0, null); } };
}

/** Put pictures in the place of the blanks, in a player of its own, so that the visible one stays where it is. */
async function paint(blob, times, blanks, signal) {
  let film;
  try {
    film = await openFilm(blob);
    let index = 0;
    for await (const frame of framesAt(film, times, THUMB_SIDE)) {
      if (signal.aborted) break;
      blanks[index].replaceWith(frame);
      index += 1;
    }
  } catch {
    // The times alone are shown, then.
  } finally {
    if (film) closeFilm(film);
  }
}
