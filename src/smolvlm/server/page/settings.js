/** What the user set: kept in localStorage, read by every view. The API key is api.js's, and not kept for long. */

import { apiKey, setApiKey } from "./api.js";
import { announce, closable, get } from "./dom.js";

const STORED = "smolvlm.settings";
const DEFAULTS = {
  system: "", temperature: 0, max_tokens: 256, seed: null, detail: "auto", max_frames: null, fps: null, schema: "",
};
const NUMBERS = ["temperature", "max_tokens", "seed", "max_frames", "fps"];

export const settings = { ...DEFAULTS, ...stored() };

function stored() {
  try {
    return JSON.parse(localStorage.getItem(STORED)) ?? {};
  } catch {
    return {};
  }
}

/** The fields of a request that the settings decide. */
export function requestOptions() {
  const options = { temperature: settings.temperature, max_tokens: settings.max_tokens };
  for (const name of ["seed", "max_frames", "fps"]) if (settings[name] !== null) options[name] = settings[name];
  if (settings.schema) {
    const schema = JSON.parse(settings.schema);
    options.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
  }
  return options;
}

/** onChange is called after each save. Returns a function that opens the dialog, at a field if one is named. */
export function setupSettings(onChange) {
  const dialog = get("settings");
  const form = dialog.querySelector("form");
  const fill = (values) => {
    for (const [name, value] of Object.entries(values)) form.elements[name].value = value ?? "";
    form.elements.key.value = apiKey();
    complain("");
  };
  const complain = (words) => {
    get("schema-trouble").textContent = words;
    form.elements.schema.setAttribute("aria-invalid", String(Boolean(words)));
  };
  form.addEventListener("submit", (event) => {
    const wrong = schemaTrouble(form.elements.schema.value);
    complain(wrong);
    if (wrong) {
      event.preventDefault();
      form.elements.schema.focus();
      return;
    }
    save(form);
    announce("Settings saved");
    onChange();
  });
  get("settings-reset").addEventListener("click", () => fill(DEFAULTS));
  closable(dialog);
  return (field) => {
    fill(settings);
    dialog.showModal();
    if (field) form.elements[field].focus();
  };
}

function save(form) {
  for (const name of Object.keys(DEFAULTS)) {
    const value = form.elements[name].value.trim();
    const number = value === "" ? DEFAULTS[name] : Number(value);
    settings[name] = NUMBERS.includes(name) ? number : value;
  }
  setApiKey(form.elements.key.value.trim());
  try {
    localStorage.setItem(STORED, JSON.stringify(settings));
  } catch {
    // Not kept, then; they hold until the page is closed.
  }
}

function schemaTrouble(text) {
  if (!text.trim()) return "";
  try {
    const schema = JSON.parse(text);
    return schema && typeof schema === "object" && !Array.isArray(schema) ? "" : "A JSON schema is an object: {…}.";
  } catch (error) {
    return `This is no valid JSON: ${error.message}.`;
  }
}
