/** A little markdown as elements: paragraphs, lists, headings, quotes, code, bold, italics. Text is only ever text:
 * nothing a model writes becomes a link, a picture or markup. */

import { make } from "./dom.js";

const FENCE = /^\s*(`{3,}|~{3,})/;
const ITEM = /^\s*(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const HEADING = /^#{1,6}\s+(.*)$/;
const INLINE = /(`{1,3})(.+?)\1(?!`)|\*\*(\S(?:.*?\S)?)\*\*|(?<![\w*])\*(\S(?:[^*]*?\S)?)\*(?![\w*])|(?<!\w)_(\S(?:[^_]*?\S)?)_(?!\w)/g;

/** Text -> a fragment. An open fence, as while streaming, is code to the end. */
export function render(text) {
  const fragment = document.createDocumentFragment();
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  let place = 0;
  const take = (fits) => {
    const begin = place;
    while (place < lines.length && fits(lines[place])) place += 1;
    return lines.slice(begin, place);
  };
  while (place < lines.length) {
    const line = lines[place];
    const fence = FENCE.exec(line);
    if (fence) {
      place += 1;
      const code = take((next) => !next.trimStart().startsWith(fence[1]));
      place += 1;
      fragment.append(make("pre", { tabIndex: 0 }, make("code", {}, code.join("\n"))));
    } else if (ITEM.test(line)) {
      fragment.append(list(take((next) => ITEM.test(next) || /^\s{2,}\S/.test(next))));
    } else if (HEADING.test(line)) {
      fragment.append(make("p", { className: "heading" }, ...inline(HEADING.exec(line)[1])));
      place += 1;
    } else if (line.startsWith(">")) {
      const quoted = take((next) => next.startsWith(">")).map((next) => next.replace(/^>\s?/, ""));
      fragment.append(make("blockquote", {}, ...inline(quoted.join("\n"))));
    } else if (line.trim() === "") {
      place += 1;
    } else {
      const plain = (next) => next.trim() && ![FENCE, ITEM, HEADING, /^>/].some((mark) => mark.test(next));
      fragment.append(make("p", {}, ...inline(take(plain).join("\n"))));
    }
  }
  return fragment;
}

function list(lines) {
  const first = ITEM.exec(lines[0])[1];
  const items = [];
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found) items.push(found[2]);
    else items[items.length - 1] += `\n${line.trim()}`;
  }
  const element = make(first === undefined ? "ul" : "ol", {}, ...items.map((item) => make("li", {}, ...inline(item))));
  if (first !== undefined) element.start = Number(first);
  return element;
}

function inline(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    parts.push(text.slice(end, found.index));
    const [whole, , code, bold, starred, lined] = found;
    if (code !== undefined) parts.push(make("code", {}, code.trim() || code));
    else if (bold !== undefined) parts.push(make("strong", {}, ...inline(bold)));
    else parts.push(make("em", {}, ...inline(starred ?? lined)));
    end = found.index + whole.length;
  }
  return [...parts, text.slice(end)].filter((part) => part !== "");
}
