/** Keeps conversations in this browser (IndexedDB): two tables, texts and media. Where storage is forbidden, every
 * function does nothing and the page works for as long as it is open.
 */

const BOUND_BYTES = 250e6; // of all media; the oldest conversations lose theirs first
const TAB = "smolvlm.conversation";
let opened = null;

function open() {
  opened ??= new Promise((resolve) => {
    const request = indexedDB.open("smolvlm", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("conversations", { keyPath: "id" });
      request.result.createObjectStore("media", { keyPath: "id" }).createIndex("conversation", "conversation");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
  }).catch(() => null);
  return opened;
}

/** Run `act` on tables of one transaction; resolves to the results of the requests it returns. */
async function within(mode, act) {
  const database = await open();
  if (!database) return [];
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(["conversations", "media"], mode);
    const requests = act(transaction.objectStore("conversations"), transaction.objectStore("media"));
    transaction.oncomplete = () => resolve(requests.map((request) => request.result));
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

/** Keep a conversation and the media that are new. A full disk is no reason to stop talking: resolves to false then. */
export async function keep(conversation, media = []) {
  try {
    await within("readwrite", (texts, blobs) => [
      texts.put({ ...conversation, changed: Date.now() }),
      ...media.map((medium) => blobs.put({ ...medium, conversation: conversation.id, changed: Date.now() })),
    ]);
    if (media.length) await shrink();
    return true;
  } catch {
    return false;
  }
}

async function shrink() {
  const [kept = []] = await within("readonly", (_, blobs) => [blobs.getAll()]);
  let bytes = kept.reduce((sum, medium) => sum + size(medium), 0);
  const dropped = [];
  for (const medium of kept.sort((one, other) => one.changed - other.changed)) {
    if (bytes <= BOUND_BYTES) break;
    bytes -= size(medium);
    dropped.push(medium.id);
  }
  if (dropped.length) await within("readwrite", (_, blobs) => dropped.map((id) => blobs.delete(id)));
}

const size = (medium) => medium.blob?.size ?? 0;

/** The conversation of this tab, in a new tab the latest; null when there is none. With its media, by id. */
export async function recall(id = remembered()) {
  try {
    const [all = []] = await within("readonly", (texts) => [texts.getAll()]);
    const latest = all.sort((one, other) => other.changed - one.changed)[0];
    const conversation = id ? all.find((one) => one.id === id) : latest;
    if (!conversation) return null;
    const [media] = await within("readonly", (_, blobs) => [blobs.index("conversation").getAll(conversation.id)]);
    return { conversation, media: new Map(media.map((medium) => [medium.id, medium])) };
  } catch {
    return null;
  }
}

/** All conversations, latest first, and the bytes of all media. */
export async function listAll() {
  const [texts = [], media = []] = await within("readonly", (t, m) => [t.getAll(), m.getAll()]);
  texts.sort((one, other) => other.changed - one.changed);
  return { texts, bytes: media.reduce((sum, medium) => sum + size(medium), 0) };
}

export async function forget(id) {
  const [ids = []] = await within("readonly", (_, media) => [media.index("conversation").getAllKeys(id)]);
  await within("readwrite", (texts, media) => [texts.delete(id), ...ids.map((one) => media.delete(one))]);
}

export const forgetAll = () => within("readwrite", (texts, media) => [texts.clear(), media.clear()]);

/** Each tab has its own conversation, also after a reload. */
export function remember(id) {
  try {
    sessionStorage.setItem(TAB, id);
  } catch {
    // Then a reload shows the latest one.
  }
}

function remembered() {
  try {
    return sessionStorage.getItem(TAB);
  } catch {
    return null;
  }
}
