/** Talks to the server that this page came from: requests, streams, refusals. Touches no element. */

let key = "";
try {
  key = sessionStorage.getItem("smolvlm.key") ?? "";
} catch {
  // Without storage the key lives as long as this page.
}

export const apiKey = () => key;

export function setApiKey(value) {
  key = value;
  try {
    if (value) sessionStorage.setItem("smolvlm.key", value);
    else sessionStorage.removeItem("smolvlm.key");
  } catch {
    // As above.
  }
}

const MANY_BYTES = 8e6; // above, a broken connection may well be a refusal that came before the upload ended
const ADVICE = {
  401: "Enter the server's API key in the settings.",
  model_not_found: "Choose another model at the top of the page.",
  context_length_exceeded: "What was said before counts, too: a new conversation has all the room.",
  408: "Send fewer or smaller files.",
  413: "Send fewer or smaller files; of a video, frames made here instead of the file.",
  429: "Wait a moment, then try again.",
  500: "Try again. If it happens again, the server's log says more.",
  503: "The server is busy, starting or stopping. Try again in a moment.",
  504: "Send fewer or smaller files, or allow fewer tokens.",
};

/** What went wrong, in the server's words, and what to do about it. status 0: no answer came at all. */
export class ApiError extends Error {
  constructor(message, status, advice = ADVICE[status] ?? "", retryAfterS = 0) {
    super(message);
    this.status = status;
    this.advice = advice;
    this.retryAfterS = retryAfterS;
  }
}

export const isLocked = (error) => error.status === 401;
export const wasStopped = (error) => error.name === "AbortError";

async function ask(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = { headers, signal, cache: "no-store" };
  if (body !== undefined) {
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (wasStopped(error)) throw error;
    throw unreachable(options.body?.length ?? 0);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

function unreachable(bytes) {
  if (bytes < MANY_BYTES) return new ApiError("The server doesn't answer.", 0, "See whether it is still running.");
  return new ApiError(
    `The server ended the connection while ${Math.round(bytes / 1e6)} MB were on their way to it.`, 0,
    `It may allow less in one request. ${ADVICE[413]}`,
  );
}

async function refusal(response) {
  const after = Number(response.headers.get("Retry-After")) || 0;
  let told = { message: `The server answered ${response.status} ${response.statusText}.`, code: null };
  try {
    told = (await response.json()).error;
  } catch {
    // Not the server's own error: something in between answered.
  }
  const advice = after ? `Try again in ${after} s.` : ADVICE[told.code];
  return new ApiError(told.message, response.status, advice, after);
}

export const models = async () => (await (await ask("v1/models")).json()).data;
export const tokenize = async (body, signal) => (await ask("tokenize", body, signal)).json();
export const decide = async (body, signal) => (await ask("v1/decisions", body, signal)).json();

/**
 * Ask and stream. onText is called with all the text so far. Resolves to
 * {text, finish, usage, frames, firstS, totalS, model}; when stopped or broken, the error holds what came as `partial`.
 */
export async function chat(body, signal, onText = () => {}) {
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  const answer = { text: "", finish: null, usage: null, frames: [], firstS: 0, totalS: 0, model: body.model };
  try {
    const asked = { ...body, stream: true, stream_options: { include_usage: true } };
    const response = await ask("v1/chat/completions", asked, signal);
    for await (const chunk of chunks(response.body)) {
      const piece = chunk.choices?.[0]?.delta?.content ?? "";
      if (piece) {
        answer.firstS ||= seconds();
        answer.text += piece;
        onText(answer.text);
      }
      answer.finish = chunk.choices?.[0]?.finish_reason ?? answer.finish;
      answer.usage = chunk.usage ?? answer.usage;
      answer.frames = chunk.smolvlm?.frames ?? answer.frames;
    }
  } catch (error) {
    error.partial = { ...answer, totalS: seconds() };
    throw error;
  }
  return { ...answer, totalS: seconds() };
}

async function* chunks(stream) {
  let done = false; // the stream is read to its end all the same: letting go of it would look like a stop
  for await (const event of events(stream)) {
    done ||= event === "[DONE]";
    if (done) continue;
    const chunk = JSON.parse(event);
    if (chunk.error) throw new ApiError(chunk.error.message, chunk.error.type === "server_error" ? 500 : 400, ADVICE[chunk.error.code]);
    yield chunk;
  }
  if (!done) throw new ApiError("The connection ended before the answer did.", 0, "Try again.");
}

/** The data of each server-sent event. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw wasStopped(error) ? error : new ApiError("The connection broke.", 0, "Try again.");
      });
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
