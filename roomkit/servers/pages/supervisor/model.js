/** What the supervisor page knows: the rooms, the open room and everything beside its log. */
import { api, ApiError, renew, roomPath, socketUrl } from "../shared/api.js";
import { spaced } from "../shared/format.js";
import { computed, signal } from "../shared/lib.js";
import { RoomClient } from "../shared/room_client.js";
import { emptyState } from "../shared/room_state.js";
import { currentToken, session, setToken } from "../shared/session.js";
import { stopListening, voiceHeard } from "./calls.js";

/** @typedef {import("../shared/types.js").Room} Room */
/** @typedef {import("../shared/types.js").Delivery} Delivery */

const started = session();
export const hasToken = signal(Boolean(started.token));
export const link = signal(/** @type {import("../shared/types.js").Link} */ ("connecting"));
export const me = signal(/** @type {import("../shared/types.js").Principal | null} */ (null));
export const now = signal(Date.now());
export const MOST_DEAD = 50;
export const rooms = signal(/** @type {Record<string, Room>} */ ({}));
export const listed = signal(/** @type {"loading" | "ready" | "failed"} */ ("loading"));
export const listTrouble = signal("");
export const openId = signal(/** @type {string | null} */ (started.room));
export const state = signal(emptyState());
/** One part of the state at a time: a long transcript is not looked at again for every word that arrives. */
export const events = computed(() => state.value.events);
export const viewers = computed(() => state.value.viewers);
export const outbox = computed(() => state.value.outbox);
const seated = computed(() => state.value.bindings);
const present = computed(() => state.value.participants);
const entered = computed(() => state.value.room);
export const roomTrouble = signal("");
export const filter = signal({ q: "", state: "all", channel: "" });
export const found = signal(/** @type {Set<string> | null} */ (null));
export const toasts = signal(/** @type {{id: number, words: string, bad: boolean}[]} */ ([]));

/** Beside the log: read when the room opens and after whatever may have changed it. */
export const beside = signal({
  deliveries: /** @type {Record<string, Delivery[]>} */ ({}), approvals: /** @type {any[]} */ ([]), drafts: /** @type {any[]} */ ([]),
  tasks: /** @type {any[]} */ ([]), observations: /** @type {any[]} */ ([]), bindings: /** @type {any[]} */ ([]), participants: /** @type {any[]} */ ([]),
});
export const dead = signal(/** @type {any[]} */ ([]));

export const client = new RoomClient({
  url: socketUrl(),
  token: currentToken,
  roomId: started.room,
  watch: true,
  storage: sessionStorage,
  renew,
  onState: (next) => { state.value = next; },
  onLink: (next) => {
    link.value = next;
    if (next === "live" || next === "back") void loadRooms();
  },
  onFrame: heard,
  onWatching: () => void loadRooms(),
});

/** @param {import("../shared/types.js").Frame} frame */
function heard(frame) {
  voiceHeard(frame);
  switch (frame.type) {
    case "welcome": me.value = frame.principal; break;
    case "rooms":
      for (const room of frame.rooms) toldAt.set(room.id, Date.now());
      merge(frame.rooms);
      break;
    case "room": merge([frame.room]); soon(); break;
    case "snapshot":
    case "resumed": roomTrouble.value = ""; soon(0); break;
    case "event":
    case "stream_end": soon(); break;
    case "ephemeral": if (["delivery", "read"].includes(frame.kind)) soon(); break;
    case "error": frame.ref === "join" ? (roomTrouble.value = frame.message) : toast(frame.message, true); break;
    default:
  }
}

/** When the server told of a room by itself, the last time. @type {Map<string, number>} */
const toldAt = new Map();

/** A later account of a room wins, but a short one never erases what a longer one told. @param {Room[]} told
 * @param {number} [asked] when it was asked for: what the server has told by itself since then is newer */
function merge(told, asked = Infinity) {
  const merged = { ...rooms.value };
  for (const room of told) if ((toldAt.get(room.id) ?? 0) < asked) merged[room.id] = { ...merged[room.id], ...room };
  rooms.value = merged;
}

export async function loadRooms() {
  const asked = Date.now();
  try {
    const [page, waiting] = await Promise.all([api("GET", "rooms?limit=200"), api("GET", "attention")]);
    merge([...page.rooms, ...waiting.rooms], asked);
    if (listed.value !== "ready") next.value = page.next_offset ?? null;
    listed.value = "ready";
    api("GET", `dead-letters?limit=${MOST_DEAD}`).then((told) => { dead.value = told.dead_letters; }, () => undefined);
  } catch (error) {
    if (denied(error)) return;
    listTrouble.value = /** @type {Error} */ (error).message;
    if (listed.value === "loading") listed.value = "failed";
  }
}

/** Where the list goes on, or null. */
export const next = signal(/** @type {number | null} */ (null));

export async function moreRooms() {
  const asked = Date.now();
  try {
    const page = await api("GET", `rooms?limit=200&offset=${next.value ?? 0}`);
    merge(page.rooms, asked);
    next.value = page.next_offset ?? null;
  } catch (error) {
    if (!denied(error)) toast(/** @type {Error} */ (error).message, true);
  }
}

/** The server searches names, addresses and ids; what is typed filters what is shown meanwhile. */
/** @type {ReturnType<typeof setTimeout> | undefined} */
let searching;
/** @param {string} q */
export function search(q) {
  filter.value = { ...filter.value, q };
  found.value = null;
  clearTimeout(searching);
  if (q.trim()) searching = setTimeout(() => {
    const asked = Date.now();
    api("GET", `rooms?limit=50&q=${encodeURIComponent(q.trim())}`).then((told) => {
      if (filter.value.q !== q) return;
      merge(told.rooms, asked);
      found.value = new Set(told.rooms.map((/** @type {Room} */ room) => room.id));
    }, () => undefined);
  }, 250);
}

/** @param {string} roomId */
export function openRoom(roomId) {
  if (openId.value === roomId && client.roomId === roomId) return;
  openId.value = roomId;
  roomTrouble.value = "";
  stopListening();
  sessionStorage.setItem("roomkit.room.supervisor", roomId);
  beside.value = { deliveries: {}, approvals: [], drafts: [], tasks: [], observations: [], bindings: [], participants: [] };
  client.open(roomId);
}

export function leaveRoom() { openId.value = null; }

/** @type {ReturnType<typeof setTimeout> | undefined} */
let reading;
export function soon(ms = 350) {
  clearTimeout(reading);
  reading = setTimeout(() => void readBeside(), ms);
}

async function readBeside() {
  const id = openId.value;
  if (!id) return;
  const events = state.value.events;
  const start = events.length ? Math.max(events[0].index, state.value.position - 200) : 0;
  const asked = await Promise.allSettled([
    api("GET", roomPath(id, `deliveries?start=${start}&stop=${state.value.position + 1}`)), api("GET", roomPath(id, "approvals")),
    api("GET", roomPath(id, "drafts")), api("GET", roomPath(id, "tasks")), api("GET", roomPath(id)),
  ]);
  if (openId.value !== id) return;
  const [deliveries, approvals, drafts, tasks, whole] = asked.map((one) => (one.status === "fulfilled" ? one.value : {}));
  /** @type {Record<string, Delivery[]>} */
  const byEvent = deliveries.deliveries ? {} : beside.value.deliveries;
  for (const one of deliveries.deliveries ?? []) (byEvent[one.event_id] ??= []).push(one);
  beside.value = {
    deliveries: byEvent, approvals: (approvals.approvals ?? []).filter(pending), drafts: (drafts.drafts ?? []).filter(pending),
    tasks: tasks.tasks ?? [], observations: tasks.observations ?? [],
    bindings: whole.bindings ?? state.value.bindings, participants: whole.participants ?? state.value.participants,
  };
  if (whole.room) merge([whole.room]);
}

/** @param {any} one */
const pending = (one) => !one.status || ["pending", "draft", "open"].includes(one.status);

/** Does something in the open room and says how it went. @returns {Promise<any>} what the server answered, or null
 * @param {string} method @param {string} rest @param {any} [body] @param {string} [done] */
export async function act(method, rest, body, done) {
  try {
    const told = await api(method, roomPath(openId.value ?? "", rest), body);
    if (told?.room) merge([told.room]);
    if (done) toast(done);
    soon(60);
    return told ?? {};
  } catch (error) {
    if (!denied(error)) toast(/** @type {Error} */ (error).message, true);
    return null;
  }
}

/** @param {unknown} error */
function denied(error) {
  if (!(error instanceof ApiError) || error.status !== 401) return false;
  link.value = "unauthorized";
  return true;
}

let toastId = 0;
/** @param {string} words @param {boolean} [bad] */
export function toast(words, bad = false) {
  const id = ++toastId;
  toasts.value = [...toasts.value.slice(-2), { id, words, bad }];
  setTimeout(() => { toasts.value = toasts.value.filter((one) => one.id !== id); }, bad ? 7000 : 3000);
}

/** @param {string} token */
export function signIn(token) {
  setToken(token.trim().replace(/^.*#token=/, "").replace(/&.*$/, ""));
  location.reload();
}

export const room = computed(() => (openId.value && entered.value ? { ...rooms.value[openId.value], ...entered.value } : null));
export const bindings = computed(() => (beside.value.bindings.length ? beside.value.bindings : seated.value));
export const people = computed(() => (beside.value.participants.length ? beside.value.participants : present.value));
export const brains = computed(() => bindings.value.filter((one) => one.category === "intelligence"));
export const iHold = computed(() => room.value?.floor.mode === "human" && room.value.floor.holder === me.value?.id);
const RANKS = ["guest", "agent", "supervisor", "admin"];
/** @param {string} role */
export const atLeast = (role) => RANKS.indexOf(me.value?.role ?? "guest") >= RANKS.indexOf(role);

/** Whether a person is asked to come, or to say yes or no. @param {Room} one */
export const needsPerson = (one) => isOpen(one) && (one.waiting || Boolean(one.approvals?.length));

/** @param {Room} one */
export function whyWaiting(one) {
  if (one.attention) return one.attention.reason;
  const asked = one.approvals ?? [];
  return asked.length ? `Yes or no: ${spaced(asked[0].name)}${asked.length > 1 ? ` and ${asked.length - 1} more` : ""}?` : "Waiting for a person";
}

export const waiting = computed(() => Object.values(rooms.value).filter(needsPerson)
  .sort((a, b) => (b.attention?.priority ?? 0) - (a.attention?.priority ?? 0) || since(a) - since(b)));

/** @param {Room} one */
export const since = (one) => Math.min(...[one.attention, ...(one.approvals ?? [])].map((all) => Date.parse(all?.since ?? "")).filter(Boolean), Date.now());

export const shownRooms = computed(() => {
  const { q, state: wanted, channel } = filter.value;
  const needle = q.trim().toLowerCase();
  return Object.values(rooms.value)
    .filter((one) => !needle || found.value?.has(one.id) || [titleOf(one), one.id, one.external_id, ...(one.channels ?? [])].some((text) => text?.toLowerCase().includes(needle)))
    .filter((one) => !channel || one.channels?.includes(channel))
    .filter((one) => STATES[wanted](one))
    .sort((a, b) => Date.parse(b.last_activity_at ?? b.created_at ?? "") - Date.parse(a.last_activity_at ?? a.created_at ?? ""));
});

/** @type {Record<string, (room: Room) => boolean>} */
export const STATES = {
  all: (one) => one.status !== "archived",
  waiting: needsPerson,
  ai: (one) => isOpen(one) && one.floor.mode !== "human" && !needsPerson(one),
  human: (one) => isOpen(one) && one.floor.mode === "human",
  closed: (one) => !isOpen(one),
};
/** @param {Room} one */
export const isOpen = (one) => one.status === "active" || one.status === "paused";

/** @param {Room} one */
export const titleOf = (one) => one.metadata?.title || one.people?.join(", ") || one.external_id || (one.last ? `“${one.last}”` : "New room");

/** How a whisper names one person. @param {string} id */
export const personToken = (id) => `person:${id.replace(/[%,\s]/gu, (mark) => `%${(mark.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(2, "0")}`)}`;

/** @param {string | null | undefined} id */
export function personName(id) {
  if (!id) return "";
  if (id === me.value?.id) return me.value.display_name ?? "You";
  const person = people.value.find((one) => one.id === id) ?? viewers.value.find((one) => one.id === id);
  return person?.display_name || person?.address || id;
}
