/** Puts the page together: views, theme, models, and which part hears of what. */

import { isLocked, models, wasStopped } from "./api.js";
import { setupCloser, troubleCard } from "./cards.js";
import { setupChat } from "./chat.js";
import { setupComposer, setupDrops } from "./composer.js";
import { announce, closable, get, iconButton, make, sizeWords, plural } from "./dom.js";
import { drawnPicture } from "./media.js";
import { setupSettings } from "./settings.js";
import { forget, forgetAll, listAll } from "./store.js";

const VIEWS = ["chat", "camera", "video"];
const RETRY_MS = 3000;
const DEFAULT_TILE = 512; // of the released models

let served = []; // what /v1/models lists
const chosen = () => served.find((one) => one.id === get("model").value);
const common = {
  model: () => get("model").value,
  context: () => chosen()?.max_model_len ?? 0,
  tileSize: () => chosen()?.tile_size ?? DEFAULT_TILE,
  openSettings: (field) => openSettings(field),
};

const openSettings = setupSettings(() => { loadModels(); recount(); });
// The two other views are loaded when they are first shown, and can't be used before.
const camera = once("camera", async () => (await import("./camera.js")).setupCamera(common));
const video = once("video", async () => (await import("./video.js")).setupVideo(common));
const composer = setupComposer({
  ...common,
  send: (words, media) => chat.send(words, media),
  stop: () => chat.stop(),
  build: (words, media) => chat.build(words, media),
  earlier: () => chat.earlier(),
  isBegun: () => chat.isBegun(),
  editLast: () => chat.editLast(),
  priced: () => chat.reprice(),
});
const chat = setupChat({
  ...common,
  onBusy: (busy) => composer.setBusy(busy),
  onChange: () => composer.recount(),
  refill: (text, media) => composer.refill(text, media),
  onFrames: (medium, frames) => { showView("video"); video().then((view) => view.show(medium, frames)); },
});

function once(view, load) {
  let made = null;
  get(view).inert = true;
  return () => (made ??= load().then((shown) => { get(view).inert = false; return shown; }));
}

function recount() {
  const view = document.body.dataset.view;
  if (view === "chat") composer.recount();
  if (view === "video") video().then((shown) => shown.recount());
}

/** One view at a time; its name is in the address, so that a reload and the back button find it. */
function showView(name, focus = false) {
  const old = VIEWS.find((one) => !get(one).hidden);
  for (const view of VIEWS) {
    const on = view === name;
    get(view).hidden = !on;
    get(`tab-${view}`).setAttribute("aria-selected", String(on));
    get(`tab-${view}`).tabIndex = on ? 0 : -1;
    if (on && focus) get(`tab-${view}`).focus();
  }
  document.body.dataset.view = name;
  if (location.hash !== `#/${name}`) history.replaceState(null, "", `#/${name}`);
  if (name === "camera") camera();
  if (old === "camera" && name !== "camera") camera().then((view) => view.stop());
  if (old === "video" && name !== "video") video().then((view) => view.leave());
  if (old !== name) scrollTo({ top: name === "chat" ? document.body.scrollHeight : 0 });
  recount();
}

function setupTabs() {
  for (const view of VIEWS) get(`tab-${view}`).addEventListener("click", () => showView(view));
  document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const now = VIEWS.indexOf(document.body.dataset.view);
    showView(VIEWS[(now + step + VIEWS.length) % VIEWS.length], true);
  });
  // With a slash: an address of an element would let the keyboard begin there, behind the tabs.
  const fromAddress = () => showView(VIEWS.find((view) => `#/${view}` === location.hash) ?? "chat");
  addEventListener("hashchange", fromAddress);
  fromAddress();
}

async function loadModels() {
  try {
    served = await models();
    const before = get("model").value;
    get("model").replaceChildren(...served.map((one) => make("option", { value: one.id }, one.id)));
    if (served.some((one) => one.id === before)) get("model").value = before;
    get("trouble").replaceChildren();
    recount();
  } catch (error) {
    if (wasStopped(error)) return;
    const locked = isLocked(error);
    const action = locked ? ["Open the settings", () => openSettings("key")] : ["Try again", loadModels];
    get("trouble").replaceChildren(troubleCard(error, action));
    if (!locked) setTimeout(() => { if (!served.length) loadModels(); }, RETRY_MS);
  }
}

/** The switch goes between light and dark; back at the system's own, nothing is kept. */
function setupTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  get("theme").addEventListener("click", () => {
    const dark = !isDark();
    if (dark === system.matches) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = dark ? "dark" : "light";
    try {
      if (dark === system.matches) localStorage.removeItem("smolvlm.theme");
      else localStorage.setItem("smolvlm.theme", dark ? "dark" : "light");
    } catch {
      // Not kept.
    }
    announce(dark ? "Dark" : "Light");
  });
}

function setupHistory() {
  const dialog = get("history");
  async function fill() {
    const { texts, bytes } = await listAll();
    get("history-size").textContent = `${plural(texts.length, "conversation")}, ${sizeWords(bytes)}`;
    get("history-clear").hidden = !texts.length;
    get("history-list").replaceChildren(...texts.map((one) => make(
      "li", { className: "row" },
      make(
        "button", { type: "button", className: "kept", onclick: () => { dialog.close(); showView("chat"); chat.load(one.id); } },
        make("span", {}, one.title), make("time", { className: "soft" }, new Date(one.changed).toLocaleString()),
      ),
      iconButton("close", `Delete ${one.title}`, () => drop(one.id)),
    )));
  }
  async function drop(id) {
    await forget(id);
    if (id === chat.id()) chat.fresh();
    fill();
  }
  closable(dialog);
  get("kept").addEventListener("click", async () => { await fill(); dialog.showModal(); });
  get("history-clear").addEventListener("click", async () => {
    await forgetAll();
    chat.fresh();
    fill();
    announce("Everything deleted");
  });
}

function setupKeys() {
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    chat.stop();
    if (document.body.dataset.view === "video") video().then((view) => view.stop());
  });
}

setupTabs();
setupTheme();
setupHistory();
setupKeys();
setupCloser();
setupDrops((files) => {
  if (document.body.dataset.view === "video") return video().then((view) => view.open(files));
  showView("chat");
  composer.add(files);
});
get("model").addEventListener("change", recount);
get("open-settings").addEventListener("click", () => openSettings());
get("schema-on").addEventListener("click", () => openSettings("schema"));
get("fresh").addEventListener("click", () => { showView("chat"); chat.fresh(); });
get("try-drawn").addEventListener("click", async () => {
  await composer.add([await drawnPicture()]);
  get("words").value ||= "Describe the picture.";
  composer.recount();
});
chat.load();
loadModels();
