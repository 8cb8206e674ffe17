/** Small tools for elements: making them, icons, numbers as text, what a screen reader hears. Knows no server. */

const SVG = "http://www.w3.org/2000/svg";
const SAID_EVERY_MS = 3000; // a screen reader that is interrupted by every word reads none

export const get = (id) => document.getElementById(id);

/** An element with properties (dataset and attributes like aria-label too) and children; text is always text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-")) element.setAttribute(name, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const icon = (name) => makeSvg("svg", { "aria-hidden": "true" }, makeSvg("use", { href: `#i-${name}` }));

/** A button with an icon whose name is its label. */
export const iconButton = (name, label, onclick) =>
  make("button", { type: "button", className: "plain", title: label, "aria-label": label, onclick }, icon(name));

/** randomUUID needs https or localhost. */
export const newId = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

export const count = (number) => Math.round(number).toLocaleString("en");
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
export const shortSeconds = (s) => (s < 1 ? `${Math.round(s * 1000)} ms` : `${s.toFixed(s < 10 ? 1 : 0)} s`);
export const sizeWords = (bytes) => (bytes < 1e5 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`);

/** 75.25 -> 1:15.3; digits: of a second. */
export function clock(seconds, digits = 1) {
  const rounded = Number(seconds.toFixed(digits));
  const whole = Math.floor(rounded / 60);
  return `${whole}:${(rounded - 60 * whole).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}

/** Say something to screen readers, after what they are saying now. */
export function announce(text) {
  get("live").textContent = text;
}

/** Says a growing text in whole sentences and not too often. Call hear(all of it so far), then end(). */
export function speaker() {
  let said = 0;
  let last = performance.now();
  let text = "";
  const say = (end) => {
    if (end > said) announce(text.slice(said, end));
    said = end;
    last = performance.now();
  };
  return {
    hear(all) {
      text = all;
      const end = Math.max(...[". ", "! ", "? ", "\n"].map((mark) => all.lastIndexOf(mark))) + 1;
      if (end > said && performance.now() - last > SAID_EVERY_MS) say(end);
    },
    end: () => say(text.length),
  };
}

/** Show a picture from a blob without keeping its address alive. */
export function show(image, blob) {
  const address = URL.createObjectURL(blob);
  const release = () => URL.revokeObjectURL(address);
  image.addEventListener("load", release, { once: true });
  image.addEventListener("error", release, { once: true });
  image.src = address;
  return image;
}

export async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https, only the old way is left.
    const field = make("textarea", { value: text, className: "sr" });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  }
  announce("Copied");
  const old = [...button.childNodes];
  button.replaceChildren(button.classList.contains("plain") ? icon("done") : "Copied");
  setTimeout(() => button.replaceChildren(...old), 1200);
}

/** At most one call a screen refresh, the last one's arguments win. */
export function eachFrame(act) {
  let waiting = null;
  return (...given) => {
    if (waiting === null) requestAnimationFrame(() => { const last = waiting; waiting = null; act(...last); });
    waiting = given;
  };
}

/** Close a dialog by its cross, by Escape, and by a click beside it. */
export function closable(dialog) {
  dialog.querySelector("[data-closes]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
