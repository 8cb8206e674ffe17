/** The conversation: exchanges of a question and its answer, drawn, asked, stopped, asked again, and kept.
 * An exchange is {text, media: ids, answer}; an answer what api.chat gives, with `error` when it failed.
 */

import { ApiError, chat, isLocked, wasStopped } from "./api.js";
import { thumbnail, troubleCard } from "./cards.js";
import { announce, copyText, count, eachFrame, get, iconButton, make, newId, plural, shortSeconds, speaker } from "./dom.js";
import { render } from "./markdown.js";
import { toPart } from "./media.js";
import { requestOptions, settings } from "./settings.js";
import { keep, recall, remember } from "./store.js";

const NEAR_PIXELS = 80; // so near to the end, the page follows an answer that grows
const ENDS = {
  length: "ended at the most tokens allowed", loop: "ended because it repeated itself", stopped: "stopped",
};
const INTERRUPTED = { message: "The page was closed before the answer came.", status: 0, advice: "" };

/** hooks: model(), onBusy(bool), onChange(), refill(text, media), onFrames(medium, frames), openSettings(field). */
export function setupChat(hooks) {
  let talk = blankTalk();
  let media = new Map();
  let running = null;

  const known = (ids) => ids.map((id) => media.get(id)).filter(Boolean);
  const told = () => talk.exchanges.filter(({ answer }) => answer?.text && !answer.error);
  const withMedia = (exchanges) => exchanges.map((exchange) => ({ ...exchange, media: known(exchange.media) }));

  /** Draw the exchanges from one on; what was said before stays as it is, with what the reader has selected there. */
  function redraw(from = 0) {
    const log = get("log");
    const last = talk.exchanges.length - 1;
    const focused = log.contains(document.activeElement);
    while (log.children.length > 2 * from) log.lastElementChild.remove();
    log.append(...talk.exchanges.slice(from).flatMap((one, place) => turn(one, from + place === last)));
    get("welcome").hidden = last >= 0;
    if (focused && !log.contains(document.activeElement)) get("words").focus({ preventScroll: true });
    hooks.onChange();
  }

  const redrawEnd = () => redraw(Math.max(0, talk.exchanges.length - 2)); // the one before loses its buttons

  function turn(exchange, isLast) {
    const lost = () => make("span", { className: "blank" }, "no longer kept");
    const pictures = exchange.media.map((id) => (media.has(id) ? thumbnail(media.get(id)) : lost()));
    return [
      make(
        "li", { className: "question" },
        make("h3", { className: "sr" }, "Question"),
        pictures.length ? make("div", { className: "pictures" }, ...pictures) : null,
        exchange.text ? make("p", { className: "words" }, exchange.text) : null,
        isLast && !running ? iconButton("edit", "Change the question", editLast) : null,
      ),
      make("li", { className: "answer" }, make("h3", { className: "sr" }, "Answer"), ...answered(exchange, isLast)),
    ];
  }

  function answered(exchange, isLast) {
    const { answer } = exchange;
    const body = make("div", { className: "text" });
    if (!answer) {
      body.append(make("p", { className: "waiting" }, "Looking…"));
      return [body];
    }
    body.append(asJson(answer.text) ?? render(answer.text));
    if (answer.error) {
      const locked = isLocked(answer.error);
      const action = locked ? ["Open the settings", () => hooks.openSettings("key")] : ["Try again", retry];
      return [body, troubleCard(answer.error, isLast ? action : null)];
    }
    const copy = iconButton("copy", "Copy the answer", () => copyText(answer.text, copy));
    const again = isLast && !running ? iconButton("retry", "Ask again", retry) : null;
    const foot = [copy, again, make("small", {}, footer(answer)), ...framesLinks(exchange)];
    return [body, make("div", { className: "foot" }, ...foot)];
  }

  /** To the frames of the videos that an answer is about, on the timeline of the view "Video". */
  function framesLinks({ answer, media: ids }) {
    const films = known(ids).filter((medium) => medium.kind === "video");
    if (!films.length || answer.frames.length < films.length) return [];
    const seen = answer.frames.slice(-films.length); // the conversation's earlier videos come first
    return films.map((film, place) => make(
      "button", { type: "button", className: "small", onclick: () => hooks.onFrames(film, seen[place]) },
      `See the ${plural(seen[place].timestamps_s.length, "frame")} it saw`,
    ));
  }

  async function run(exchange) {
    const mine = running = new AbortController();
    const within = talk;
    exchange.answer = null;
    hooks.onBusy(true);
    redrawEnd();
    const body = get("log").lastElementChild.querySelector(".text");
    const voice = speaker();
    const draw = eachFrame((text) => {
      if (!exchange.answer) body.replaceChildren(render(text));
    });
    body.classList.add("writing");
    toEnd();
    try {
      const messages = await wire(withMedia([...told(), exchange]));
      const request = { model: hooks.model(), messages, ...requestOptions() };
      exchange.answer = await chat(request, mine.signal, (text) => { voice.hear(text); draw(text); });
    } catch (error) {
      exchange.answer = failed(error);
    }
    keep(within);
    if (running !== mine) return; // another conversation is on show by now
    running = null;
    hooks.onBusy(false);
    redrawEnd();
    voice.end();
    if (exchange.answer.error) announce(exchange.answer.error.message);
  }

  async function send(text, added) {
    const exchange = { text, media: added.map((medium) => medium.id), answer: null };
    for (const medium of added) media.set(medium.id, medium);
    talk.exchanges.push(exchange);
    talk.title ||= text || added[0].name;
    remember(talk.id);
    if (!await keep(talk, added)) announce("This conversation can't be kept: the browser's storage is full or off.");
    await run(exchange);
  }

  const retry = () => run(talk.exchanges.at(-1));

  function editLast() {
    if (running || !talk.exchanges.length) return;
    const last = talk.exchanges.pop();
    redrawEnd();
    hooks.refill(last.text, known(last.media));
  }

  function turnTo(conversation, kept) {
    running?.abort();
    running = null;
    talk = conversation;
    media = kept;
    remember(talk.id);
    hooks.onBusy(false);
    redraw();
    toEnd();
  }

  let pinned = true; // whether the reader is at the end, and stays there while an answer grows
  addEventListener("scroll", () => { pinned = innerHeight + scrollY > document.body.scrollHeight - NEAR_PIXELS; });
  new ResizeObserver(() => { if (pinned && !get("chat").hidden) toEnd(); }).observe(get("log"));

  return {
    send,
    editLast,
    stop: () => running?.abort(),
    /** Thumbnails know their tiles only after the tokens were counted. */
    reprice: () => { if (!running) redraw(); },
    build: (text, added) => wire([...withMedia(told()), ...(text || added.length ? [{ text, media: added }] : [])]),
    id: () => talk.id,
    isBegun: () => told().length > 0,
    earlier: () => told().flatMap((exchange) => known(exchange.media)),
    async load(id) {
      const kept = await recall(id);
      if (!kept) return;
      for (const exchange of kept.conversation.exchanges) exchange.answer ??= { ...NOTHING, error: INTERRUPTED };
      turnTo(kept.conversation, kept.media);
    },
    fresh() {
      turnTo(blankTalk(), new Map());
      get("words").focus();
    },
  };
}

const NOTHING = { text: "", frames: [], totalS: 0, usage: null, finish: null };
const blankTalk = () => ({ id: newId(), title: "", exchanges: [] });

/** Exchanges that hold their media -> messages of the API. */
async function wire(exchanges) {
  const messages = settings.system ? [{ role: "system", content: settings.system }] : [];
  for (const { text, media, answer } of exchanges) {
    const parts = [];
    for (const medium of media) parts.push(await toPart(medium, settings));
    if (text) parts.push({ type: "text", text });
    messages.push({ role: "user", content: parts });
    if (answer) messages.push({ role: "assistant", content: answer.text });
  }
  return messages;
}

function failed(error) {
  const partial = error.partial ?? NOTHING;
  if (wasStopped(error)) return { ...partial, finish: "stopped" };
  const { message, status = 0, advice = "" } = error;
  return { ...partial, error: { message, status, advice: error instanceof ApiError ? advice : "Try again." } };
}

function footer({ usage, totalS, finish, model }) {
  const tokens = usage?.completion_tokens ?? 0;
  const rate = tokens > 1 && totalS > 0 ? `${count(tokens / totalS)}/s` : "";
  return [tokens ? plural(tokens, "token") : "", shortSeconds(totalS), rate, ENDS[finish], model].filter(Boolean).join(" · ");
}

/** A structured answer is easier to read with its lines broken; null when it is none. */
function asJson(text) {
  if (!/^\s*[{[]/.test(text)) return null;
  try {
    return make("pre", { tabIndex: 0 }, make("code", {}, JSON.stringify(JSON.parse(text), null, 2)));
  } catch {
    return null; // cut short, or it only looks like JSON
  }
}

const toEnd = () => scrollTo({ top: document.body.scrollHeight });
