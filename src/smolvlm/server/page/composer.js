/** Where a question is put together: words, pictures and videos from files, drops and the clipboard, and its price in
 * tokens before it is sent. Knows the conversation only through what main.js hands in.
 */

import { tokenize, wasStopped } from "./api.js";
import { card } from "./cards.js";
import { announce, count, get, plural } from "./dom.js";
import { isMedia, openMedium } from "./media.js";
import { settings } from "./settings.js";

const WAIT_MS = 450; // after the last key
const HEAVY_BYTES = 3e6; // above, media are counted once, and words alone while typing

/** hooks: send(words, media), stop(), build(words, media) -> messages with what was said before, earlier() -> media of
 * the conversation, isBegun() -> whether there is any, context() -> tokens that the model holds, model() -> its name, editLast(),
 * priced() after the media of the conversation got their tokens. */
export function setupComposer(hooks) {
  const words = get("words");
  let media = [];
  let busy = false;
  let opening = 0;

  const redraw = () => {
    get("tray").replaceChildren(...media.map((medium) => card(medium, { onChange: changed, onRemove: remove })));
    get("tray").hidden = !media.length;
    get("send").hidden = busy;
    get("stop").hidden = !busy;
    get("send").disabled = Boolean(opening) || !(words.value.trim() || media.length);
    get("schema-on").hidden = !settings.schema;
  };
  const meter = setupMeter(hooks, () => ({ words: words.value.trim(), media }), redraw);
  const changed = () => { redraw(); meter.count(); };
  const grow = () => {
    words.style.height = "auto";
    words.style.height = `${words.scrollHeight + 2}px`;
  };
  const remove = (medium) => {
    media = media.filter((one) => one !== medium);
    announce(`Removed ${medium.name}`);
    changed();
    words.focus();
  };

  async function add(files) {
    const wanted = files.filter(isMedia);
    if (wanted.length < files.length) announce("Only pictures and videos can be sent.");
    opening += wanted.length;
    redraw();
    for (const file of wanted) {
      media.push(await openMedium(file, settings.detail));
      opening -= 1;
      redraw();
    }
    if (wanted.length) announce(`${plural(media.length, "file")} to send`);
    changed();
    words.focus();
  }

  function submit() {
    if (get("send").disabled || busy) return;
    const asked = [words.value.trim(), media];
    words.value = "";
    media = [];
    grow();
    changed();
    hooks.send(...asked);
  }

  get("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  words.addEventListener("input", () => { grow(); redraw(); meter.count(); });
  words.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "ArrowUp" && !words.value && !media.length && !busy) {
      hooks.editLast();
    }
  });
  get("stop").addEventListener("click", () => { hooks.stop(); words.focus(); });
  for (const id of ["choose", "try-choose"]) get(id).addEventListener("click", () => get("files").click());
  get("files").addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  redraw();

  return {
    add,
    recount: changed,
    setBusy(value) { busy = value; changed(); },
    /** Put a question back to be changed. */
    refill(text, again) {
      words.value = text;
      media = again;
      grow();
      changed();
      words.focus();
    },
  };
}

/** The token meter: counts what would be sent, a little after it last changed. */
function setupMeter(hooks, current, redraw) {
  let timer = null;
  let running = null;
  let heavy = null; // {key, rest, most}: rest are the tokens of all but the words, for questions that are large to send

  async function total({ words, media }, signal) {
    const all = [...hooks.earlier(), ...media];
    const key = JSON.stringify([all.map((one) => [one.id, one.detail, one.send]), hooks.model(), settings]);
    const big = all.reduce((sum, medium) => sum + medium.blob.size, 0) > HEAVY_BYTES;
    const alone = async () => {
      const messages = [{ role: "user", content: words || "?" }];
      return (await tokenize({ model: hooks.model(), messages }, signal)).count;
    };
    if (big && heavy?.key === key) return { tokens: heavy.rest + await alone(), most: heavy.most, about: true };
    const body = { model: hooks.model(), messages: await hooks.build(words, media) };
    for (const name of ["fps", "max_frames"]) if (settings[name] !== null) body[name] = settings[name];
    const report = await tokenize(body, signal);
    if (report.media.length === all.length) {
      const news = hooks.earlier().some((medium) => !medium.cost);
      all.forEach((medium, place) => { medium.cost = report.media[place]; });
      if (news) hooks.priced();
    }
    if (big) heavy = { key, rest: report.count - await alone(), most: report.max_model_len };
    return { tokens: report.count, most: report.max_model_len, about: false };
  }

  async function run() {
    running?.abort();
    const mine = running = new AbortController();
    const asked = current();
    if (!asked.words && !asked.media.length && !hooks.isBegun()) {
      return draw(hooks.context() ? `${count(hooks.context())} tokens of context` : "", 0);
    }
    try {
      const { tokens, most, about } = await total(asked, mine.signal);
      if (mine.signal.aborted) return;
      const left = most - tokens;
      const price = `${about ? "about " : ""}${plural(tokens, "token")}`;
      draw(left >= 0 ? `${price}, ${count(left)} left` : `${price}: ${count(-left)} too many`, tokens / most);
      if (left < 0) announce(`The question is ${plural(-left, "token")} too long for the model.`);
      redraw();
    } catch (error) {
      if (!wasStopped(error) && !mine.signal.aborted) draw(error.message, 0, true);
    }
  }

  return {
    count() {
      clearTimeout(timer);
      timer = setTimeout(run, WAIT_MS);
    },
  };
}

function draw(text, share, wrong = false) {
  get("meter-text").textContent = text;
  get("meter").title = text;
  get("meter").classList.toggle("wrong", wrong || share > 1);
  get("meter-bar").firstElementChild.style.width = `${Math.min(100, 100 * share)}%`;
}

/** Files that are dropped on or pasted into the page. take: called with them. */
export function setupDrops(take) {
  let depth = 0; // dragenter and dragleave come for every element on the way
  const cover = (on) => { get("drop").hidden = !on; };
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth += 1; cover(true); } });
  addEventListener("dragleave", (event) => { if (hasFiles(event)) { depth -= 1; cover(depth > 0); } });
  addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    cover(false);
    take([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    // What is copied from a document comes as text and as a picture of it: into a field goes the text.
    const text = event.clipboardData?.types.includes("text/plain") && event.target.matches?.("textarea, input");
    if (!files.length || text) return;
    event.preventDefault();
    take(files);
  });
}
