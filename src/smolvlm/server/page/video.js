/** The view "Video": one film, questions about it, and on its timeline the frames that the model saw. */

import { ApiError, chat, isLocked, tokenize, wasStopped } from "./api.js";
import { troubleCard } from "./cards.js";
import { announce, count, eachFrame, get, iconButton, copyText, make, sizeWords, plural, shortSeconds, speaker } from "./dom.js";
import { render } from "./markdown.js";
import { isVideo, openMedium, toPart } from "./media.js";
import { requestOptions, settings } from "./settings.js";
import { setupTimeline } from "./timeline.js";

const WAIT_MS = 450;

/** hooks: model(), openSettings(field). Returns {open(file), show(medium, frames), leave(), recount()}. */
export function setupVideo(hooks) {
  const film = get("film");
  const timeline = setupTimeline(film);
  let medium = null;
  let running = null;
  let counting = null;
  let timer = null;
  let shownFor = ""; // the way of choosing frames whose frames are on the timeline

  /** How frames are chosen: this view's fields, else the settings. */
  function look() {
    const number = (id, kept) => (get(id).value === "" ? kept : get(id).valueAsNumber);
    const chosen = { fps: number("film-fps", settings.fps), max_frames: number("film-most", settings.max_frames) };
    return Object.fromEntries(Object.entries(chosen).filter(([, value]) => value !== null));
  }

  const way = () => JSON.stringify([medium.id, look(), get("film-send").value, hooks.model()]);
  const open = async (file) => show(await openMedium(file, settings.detail));

  /** A video and, when an answer saw it already, its frames {timestamps_s, duration_s}. */
  function show(wanted, frames) {
    running?.abort();
    if (film.src) URL.revokeObjectURL(film.src);
    medium = wanted;
    const playable = Boolean(medium.thumb);
    film.hidden = !playable;
    if (playable) film.src = URL.createObjectURL(medium.blob);
    else film.removeAttribute("src");
    get("film-none").hidden = true;
    get("film-form").hidden = false;
    get("film-name").firstElementChild.textContent = `${medium.name}, ${sizeWords(medium.bytes)}`;
    get("film-blind").hidden = playable;
    get("film-send").value = playable ? medium.send : "file";
    get("film-send").disabled = !playable;
    get("film-log").replaceChildren();
    get("film-trouble").replaceChildren();
    timeline.open(frames?.duration_s ?? medium.durationS, playable ? medium.blob : null);
    shownFor = frames ? way() : "";
    if (frames) timeline.showFrames(frames.timestamps_s, true);
    recount();
    get("film-other").focus({ preventScroll: true }); // what had the focus may be hidden now
  }

  async function body() {
    medium.send = get("film-send").value;
    const content = [await toPart(medium, look()), { type: "text", text: get("film-words").value.trim() }];
    const system = settings.system ? [{ role: "system", content: settings.system }] : [];
    return { model: hooks.model(), messages: [...system, { role: "user", content }], ...look() };
  }

  /** Tokens, and where the frames would be, before anything is asked. */
  function recount() {
    clearTimeout(timer);
    counting?.abort();
    if (medium && !get("video").hidden) timer = setTimeout(countNow, WAIT_MS);
  }

  async function countNow() {
    const mine = counting = new AbortController();
    const chosen = way();
    try {
      const report = await tokenize(await body(), mine.signal);
      const left = report.max_model_len - report.count;
      get("film-meter").textContent = `${plural(report.count, "token")}, `
        + (left >= 0 ? `${count(left)} left` : `${count(-left)} too many`);
      const seconds = report.media.find((one) => one.kind === "video")?.timestamps_s ?? [];
      if (chosen === shownFor || running) return; // an answer saw them, or will tell soon
      if (!medium.durationS && seconds.length) timeline.open(seconds.at(-1) + 1, null); // until an answer tells the length
      timeline.showFrames(seconds, false);
      shownFor = chosen;
    } catch (error) {
      if (!wasStopped(error)) get("film-meter").textContent = error.message;
    }
  }

  async function ask() {
    if (!medium || running) return;
    const mine = running = new AbortController();
    shownFor = way();
    const item = make("li", {}, make("p", { className: "words" }, get("film-words").value.trim()), make("div", { className: "said" }));
    const text = item.lastElementChild;
    text.append(make("p", { className: "waiting" }, "Looking…"));
    get("film-log").prepend(item);
    get("film-trouble").replaceChildren();
    busy(true);
    const voice = speaker();
    const draw = eachFrame((all) => text.replaceChildren(render(all)));
    try {
      const answer = await chat({ ...requestOptions(), ...(await body()) }, mine.signal, (all) => { voice.hear(all); draw(all); });
      close(item, text, answer);
    } catch (error) {
      if (wasStopped(error)) close(item, text, { ...error.partial, stopped: true });
      else refuse(error, item);
    }
    voice.end();
    if (running === mine) running = null;
    busy(false);
  }

  function close(item, text, answer) {
    text.replaceChildren(render(answer.text));
    const seen = answer.frames[0];
    const copy = iconButton("copy", "Copy the answer", () => copyText(answer.text, copy));
    const facts = [plural(answer.usage?.completion_tokens ?? 0, "token"), shortSeconds(answer.totalS), answer.stopped ? "stopped" : ""];
    const back = seen ? make(
      "button", { type: "button", className: "small", onclick: () => reveal(seen) }, plural(seen.timestamps_s.length, "frame"),
    ) : null;
    item.append(make("div", { className: "foot" }, copy, back, make("small", {}, facts.filter(Boolean).join(" · "))));
    if (seen) reveal(seen);
  }

  function reveal(seen) {
    if (!medium.durationS) timeline.open(seen.duration_s, null);
    timeline.showFrames(seen.timestamps_s, true);
  }

  function refuse(error, item) {
    item.remove();
    shownFor = "";
    recount();
    const locked = isLocked(error);
    const action = locked ? ["Open the settings", () => hooks.openSettings("key")] : ["Try again", ask];
    get("film-trouble").replaceChildren(troubleCard(error, action));
    if (!(error instanceof ApiError)) console.error(error);
  }

  function busy(on) {
    get("film-ask").hidden = on;
    get("film-stop").hidden = !on;
  }

  async function choose(event) {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) await open(file);
  }

  get("film-form").hidden = true;
  get("film-form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  get("film-form").addEventListener("input", recount);
  get("film-words").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask();
  });
  get("film-stop").addEventListener("click", () => { running?.abort(); get("film-ask").focus(); });
  for (const id of ["film-choose", "film-other"]) get(id).addEventListener("click", () => get("film-file").click());
  get("film-file").addEventListener("change", choose);
  return {
    open: (files) => {
      const file = files.find(isVideo) ?? files.find((one) => one.type === "image/gif");
      if (file) open(file);
      else announce("This view takes a video.");
    },
    show,
    recount,
    stop: () => running?.abort(),
    leave: () => film.pause(),
  };
}
