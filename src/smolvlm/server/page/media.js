/** Pictures and videos: from files to what is sent and what is shown. A medium is a plain object that store.js keeps:
 * {id, kind, name, bytes, width, height, durationS, detail, send, blob, thumb, note, cost}.
 *
 * A file is sent as it is, byte for byte. Two exceptions, both said beside it: a picture with a side above 4,096 pixels
 * or of more than 24 MB is made smaller first; the server resizes no side beyond 4,096, so it gets the same tiles. And
 * a video goes as frames made here when the user chooses that, or when its file is larger than a server takes by default.
 */

import { ApiError } from "./api.js";
import { newId, plural, sizeWords } from "./dom.js";

const MOST_SIDE = 4096; // smolvlm resizes no side beyond this
const MOST_BYTES = 24e6;
const MOST_VIDEO_BYTES = 47e6; // base64 makes a body of 64 MB of it, the most that a server takes by default
const MOST_SENT_BYTES = 250e6; // one text of a browser can't hold much more
const THUMB_SIDE = 320;
const SEEK_MS = 20_000; // of a large file on a slow disk; after that, the browser can't play it
const FRAME_SIDE = 512; // the tile of the released models; a frame is always one tile
const FRAMES = { fps: 1, most: 32 };
const VIDEO_NAME = /\.(mp4|m4v|mov|mkv|webm|avi|ts|mpe?g|flv|ogv|3gp)$/i;
const IMAGE_NAME = /\.(png|jpe?g|webp|gif|bmp|avif|tiff?|heic)$/i;

export const isVideo = (file) => file.type.startsWith("video/") || (!file.type && VIDEO_NAME.test(file.name));
export const isMedia = (file) => isVideo(file) || file.type.startsWith("image/") || IMAGE_NAME.test(file.name);

/** A file -> a medium; never refuses one, because the server may read what this browser can't. */
export async function openMedium(file, detail) {
  const kind = isVideo(file) ? "video" : "image";
  const medium = {
    id: newId(), kind, name: file.name || `pasted ${kind}`, bytes: file.size,
    width: 0, height: 0, durationS: 0, detail, send: "file", blob: file, thumb: null, note: "", cost: null,
  };
  try {
    await (kind === "video" ? openVideo : openPicture)(medium);
  } catch {
    medium.note = "This browser can't show it; the server may still read it.";
  }
  return medium;
}

async function openPicture(medium) {
  const picture = await createImageBitmap(medium.blob);
  const { width, height } = picture;
  Object.assign(medium, { width, height, thumb: await toBlob(drawn(picture, THUMB_SIDE), "image/webp", 0.8) });
  if (Math.max(width, height) > MOST_SIDE || medium.bytes > MOST_BYTES) {
    const smaller = drawn(picture, MOST_SIDE);
    const keepsAlpha = medium.blob.type === "image/png" && medium.bytes <= MOST_BYTES;
    medium.blob = await toBlob(smaller, keepsAlpha ? "image/png" : "image/jpeg", 0.95);
    medium.note = `Made smaller here for the way, from ${width} × ${height} to ${smaller.width} × ${smaller.height}: `
      + "the same tiles.";
  }
  picture.close();
}

async function openVideo(medium) {
  const film = await openFilm(medium.blob);
  try {
    Object.assign(medium, { width: film.videoWidth, height: film.videoHeight, durationS: film.duration });
    await seek(film, Math.min(0.1, film.duration / 2));
    medium.thumb = await toBlob(drawn(film, THUMB_SIDE), "image/webp", 0.8);
    if (medium.bytes > MOST_VIDEO_BYTES) {
      medium.send = "frames";
      medium.note = "Larger than a server takes by default: frames are made here.";
    }
  } finally {
    closeFilm(film);
  }
}

/** A video element of its own, ready to seek. Rejects when this browser can't decode it. */
export function openFilm(blob) {
  const film = document.createElement("video");
  Object.assign(film, { muted: true, playsInline: true, preload: "auto", src: URL.createObjectURL(blob) });
  return new Promise((resolve, reject) => {
    const fail = () => { closeFilm(film); reject(new Error("This browser can't play the video.")); };
    const timer = setTimeout(fail, SEEK_MS);
    film.addEventListener("error", () => { clearTimeout(timer); fail(); }, { once: true });
    film.addEventListener("loadeddata", () => {
      clearTimeout(timer);
      if (film.videoWidth && Number.isFinite(film.duration)) resolve(film);
      else fail();
    }, { once: true });
  });
}

export function closeFilm(film) {
  URL.revokeObjectURL(film.src);
  film.removeAttribute("src");
  film.load();
}

function seek(film, second) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("The video can't be seeked.")), SEEK_MS);
    film.addEventListener("seeked", () => { clearTimeout(timer); resolve(); }, { once: true });
    film.currentTime = second;
  });
}

/** Canvases of the frames shown at some seconds, one after the other. side: of the longest edge. */
export async function* framesAt(film, seconds, side) {
  for (const second of seconds) {
    await seek(film, Math.min(second + 0.001, film.duration)); // a time on a border belongs to the later frame
    yield drawn(film, side);
  }
}

/** Draw a picture or a video's frame, its longest side at most `side` pixels. */
function drawn(source, side) {
  const width = source.videoWidth || source.width;
  const height = source.videoHeight || source.height;
  const scale = Math.min(1, side / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

export function toBlob(canvas, type, quality) {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The picture can't be encoded."))), type, quality);
  });
}

export function dataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** A medium -> a content part of a chat message. look: {fps, max_frames} or nothing, for frames made here. */
export async function toPart(medium, look = {}) {
  if (medium.send === "file" && medium.blob.size > MOST_SENT_BYTES) {
    const size = sizeWords(medium.blob.size);
    throw new ApiError(`${medium.name} has ${size}: too much for a browser to send.`, 413);
  }
  if (medium.kind === "image") {
    return { type: "image_url", image_url: { url: await dataUri(medium.blob), detail: medium.detail } };
  }
  if (medium.send !== "frames") return { type: "video_url", video_url: { url: await dataUri(medium.blob) } };
  const film = await openFilm(medium.blob);
  try {
    const seconds = evenly(film.duration, look.fps ?? FRAMES.fps, look.max_frames ?? FRAMES.most);
    const frames = [];
    for await (const frame of framesAt(film, seconds, FRAME_SIDE)) {
      frames.push(await dataUri(await toBlob(frame, "image/jpeg", 0.92)));
    }
    return { type: "video", frames, timestamps_s: seconds };
  } finally {
    closeFilm(film);
  }
}

function evenly(durationS, fps, most) {
  const number = Math.max(1, Math.min(most, Math.round(durationS * fps)));
  return Array.from({ length: number }, (_, index) => Number(((index * durationS) / number).toFixed(3)));
}

/** What a medium costs, in words. */
export function costWords(cost) {
  if (cost.kind === "video") return `${plural(cost.timestamps_s.length, "frame")}, ${plural(cost.tokens, "token")}`;
  const tiles = cost.rows ? `${cost.cols} × ${cost.rows} tiles and the whole` : "1 tile";
  return `${tiles}, ${plural(cost.tokens, "token")}`;
}

/** A picture for those who have none at hand, of the kind that the bundled model knows. */
export async function drawnPicture() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 256;
  const pen = canvas.getContext("2d");
  const fill = (colour, path) => {
    pen.fillStyle = colour;
    pen.beginPath();
    path();
    pen.fill();
  };
  fill("#faf7ee", () => pen.rect(0, 0, 256, 256));
  fill("#da262a", () => pen.arc(66, 70, 34, 0, 2 * Math.PI));
  fill("#2858d6", () => pen.rect(164, 40, 58, 58));
  fill("#f2d01c", () => { pen.moveTo(128, 156); pen.lineTo(166, 222); pen.lineTo(90, 222); });
  return new File([await toBlob(canvas, "image/png")], "drawn.png", { type: "image/png" });
}
