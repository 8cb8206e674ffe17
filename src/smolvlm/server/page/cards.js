/** How pictures and videos are shown: thumbnails with the tile grid over them, cards to change, the closer look. */

import { clock, closable, get, iconButton, icon, make, makeSvg, sizeWords, show } from "./dom.js";
import { costWords } from "./media.js";

// A medium is in one place at a time, the tray or the conversation: its loaded thumbnail moves along, without a flicker.
const thumbs = new WeakMap();

function thumbOf(medium) {
  if (!thumbs.has(medium)) thumbs.set(medium, show(make("img", { alt: "" }), medium.thumb));
  return thumbs.get(medium);
}

/** The picture with the lines along which the model cuts it. */
function tiled(medium, picture) {
  const { rows = 0, cols = 0 } = medium.cost ?? {};
  if (medium.kind === "video" || rows * cols < 2) return make("span", { className: "tiled" }, picture);
  const lines = makeSvg("svg", { viewBox: `0 0 ${cols} ${rows}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (let col = 1; col < cols; col += 1) lines.append(makeSvg("path", { d: `M${col} 0V${rows}` }));
  for (let row = 1; row < rows; row += 1) lines.append(makeSvg("path", { d: `M0 ${row}H${cols}` }));
  return make("span", { className: "tiled" }, picture, lines);
}

/** A thumbnail that opens the closer look. */
export function thumbnail(medium) {
  const inside = medium.thumb ? tiled(medium, thumbOf(medium)) : make("span", { className: "blank" }, icon("film"), medium.name);
  const length = medium.durationS ? make("span", { className: "length" }, clock(medium.durationS, 0)) : null;
  const label = `${medium.name}${medium.cost ? `: ${costWords(medium.cost)}` : ""}. Look closer`;
  return make(
    "button", { type: "button", className: "thumb", "aria-label": label, title: medium.name, onclick: () => look(medium) },
    inside, length,
  );
}

/** A card of the tray: thumbnail, cost, how to look, remove. onChange, onRemove: called with the medium. */
export function card(medium, { onChange, onRemove }) {
  const choices = medium.kind === "video" ? { file: "send the file", frames: "frames made here" }
    : { low: "detail: low", auto: "detail: auto", high: "detail: high" };
  const field = medium.kind === "video" ? "send" : "detail";
  const select = make(
    "select",
    {
      "aria-label": `${medium.kind === "video" ? "What is sent of" : "Detail of"} ${medium.name}`,
      onchange: () => { medium[field] = select.value; onChange(medium); },
    },
    ...Object.entries(choices).map(([value, name]) => make("option", { value }, name)),
  );
  select.value = medium[field];
  if (medium.kind === "video" && !medium.thumb) select.disabled = true; // frames need a browser that can play it
  const facts = medium.cost ? costWords(medium.cost) : sizeWords(medium.bytes);
  return make(
    "li", { className: "card", title: medium.note || medium.name },
    thumbnail(medium),
    make("small", { className: "facts" }, facts),
    medium.note ? make("small", { className: "note" }, medium.note) : null,
    select,
    make("span", { className: "remove" }, iconButton("close", `Remove ${medium.name}`, () => onRemove(medium))),
  );
}

/** Fill the dialog "closer" with the medium at full size. */
function look(medium) {
  const dialog = get("closer");
  const blob = medium.kind === "image" && medium.thumb ? medium.blob : medium.thumb;
  get("closer-name").textContent = medium.name;
  get("closer-picture").replaceChildren(blob ? tiled(medium, show(make("img", { alt: "" }), blob)) : "Nothing to show.");
  const frames = medium.cost?.timestamps_s?.map((second) => clock(second)).join(", ");
  get("closer-facts").textContent = [
    medium.width ? `${medium.width} × ${medium.height} pixels` : "",
    sizeWords(medium.bytes),
    medium.cost ? costWords(medium.cost) : "",
    frames ? `frames at ${frames}` : "",
    medium.note,
  ].filter(Boolean).join(" · ");
  dialog.showModal();
}

export function setupCloser() {
  const dialog = get("closer");
  closable(dialog);
  dialog.addEventListener("close", () => get("closer-picture").replaceChildren()); // lets go of the large picture
}

/** An error of the server or the page, as it is, with what to do. action: [label, what it does], if something helps. */
export function troubleCard(error, action) {
  return make(
    "div", { className: "trouble" },
    make("p", {}, error.message),
    error.advice ? make("p", { className: "soft" }, error.advice) : null,
    action ? make("button", { type: "button", className: "small", onclick: action[1] }, action[0]) : null,
  );
}
