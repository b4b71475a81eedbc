/** What the chat page knows, and the words it uses for it. */
import { renew, socketUrl } from "../shared/api.js";
import { computed, signal } from "../shared/lib.js";
import { RoomClient } from "../shared/room_client.js";
import { emptyState, project } from "../shared/room_state.js";
import { currentToken, session } from "../shared/session.js";
import { voiceHeard } from "./call.js";

/** @typedef {import("../shared/types.js").RoomEvent} RoomEvent */
/** @typedef {import("../shared/types.js").Shown} Shown */

export const state = signal(emptyState());
/** One part of the state at a time: who shows people need not look again at every word that arrives. */
const events = computed(() => state.value.events);
const participants = computed(() => state.value.participants);
const outbox = computed(() => state.value.outbox);
const room = computed(() => state.value.room);
export const link = signal(/** @type {import("../shared/types.js").Link} */ ("connecting"));
export const now = signal(Date.now());
export const limits = signal(/** @type {Record<string, number>} */ ({}));
export const problem = signal(/** @type {string | null} */ (null));
const started = session();

export const client = new RoomClient({
  url: socketUrl(),
  token: currentToken,
  roomId: started.room,
  storage: sessionStorage,
  renew,
  onState: (next) => { state.value = next; },
  onLink: (next) => { link.value = next; },
  onFrame: (frame) => {
    voiceHeard(frame);
    if (frame.type === "welcome") limits.value = frame.limits;
    if (frame.type === "snapshot" || frame.type === "resumed") here();
    if (frame.type === "error") problem.value = frame.ref === "join" ? "This conversation cannot be opened." : frame.message;
  },
});
/** Tells the staff whether anybody is looking, and how far has been read. Said again now and then: it is never stored. */
export function here() {
  const seen = document.visibilityState === "visible";
  client.presence(seen ? "online" : "away");
  if (seen && state.peek().position >= 0) client.read(state.peek().position);
}

export const hasToken = Boolean(started.token);

export const me = () => client.principal?.id ?? null;

/** @param {import("../shared/types.js").Source} source */
export const isOwn = (source) => source.participant_id != null && source.participant_id === me();

/** @param {import("../shared/types.js").Source} source */
export const isAI = (source) => ["ai", "app"].includes(source.channel_type);

/** @param {import("../shared/types.js").Source} source @param {Record<string, any>} [metadata] */
export function nameOf(source, metadata = {}) {
  const person = source.participant_id && participants.value.find((one) => one.id === source.participant_id);
  return metadata.sender_name ?? (person && person.display_name) ?? (isAI(source) ? capital(source.channel_id) : personName(source.participant_id));
}

/** @param {string | null | undefined} id */
export function personName(id) {
  const person = participants.value.find((one) => one.id === id);
  return person?.display_name ?? (id && !id.startsWith("staff-") ? capital(id) : "Team");
}

/** @param {string} id */
const capital = (id) => id.charAt(0).toUpperCase() + id.slice(1).replace(/[_-]+/g, " ");

/** Whether the assistant goes on only when a person has said yes. */
export const awaited = computed(() => Boolean(room.value?.approval) && mode.value !== "closed");

/** Whether a person holds the floor, one was asked for, or the assistant answers. */
export const mode = computed(() => {
  const here = room.value;
  if (!here) return "unknown";
  if (!["active", "paused"].includes(here.status)) return "closed";
  if (here.floor.mode === "human") return "human";
  if (here.waiting || here.floor.mode === "waiting") return "waiting";
  return "ai";
});

/** @param {RoomEvent} event @returns {{words: string, tone: string} | null} */
export function timeline(event) {
  const told = event.content.message || event.content.text || "";
  const data = event.content.data ?? {};
  switch (event.type) {
    case "system": {
      const tone = /human|wait|person/.test(event.content.code ?? "") ? "wait" : /ai/.test(event.content.code ?? "") ? "ai" : "";
      return told ? { words: told, tone } : null;
    }
    case "floor_changed":
      if (data.mode === "human") return { words: `${data.name ?? personName(data.holder)} has joined and answers from now on`, tone: "human" };
      if (data.mode === "ai") return { words: "The assistant answers again", tone: "ai" };
      return null;
    case "attention_changed": return event.content.code === "human_requested" ? { words: "A person has been asked to join. You can go on writing meanwhile.", tone: "wait" } : null;
    case "room_closed": return { words: told || "This conversation was closed", tone: "" };
    case "room_reopened": return { words: told || "This conversation is open again", tone: "" };
    case "delivery_failed": return null;
    default: return null;
  }
}

const DISCLOSURE = { kind: "told", key: "told-ai", words: "An AI assistant answers here. You can ask for a person at any time.", tone: "ai" };

/** The lines of the log but for what is being written: messages, what the room says about itself, our own unsent words. */
const settled = computed(() => {
  /** @type {any[]} */
  const out = [];
  let day = "", before = /** @type {any} */ (null), toldAI = false;
  const stamp = (/** @type {string | number} */ at) => {
    const its = new Date(at).toDateString();
    if (its !== day) out.push({ kind: "day", key: `day ${its}`, at });
    if (its !== day) before = null;
    day = its;
  };
  const disclose = () => {
    if (!toldAI) out.push(DISCLOSURE);
    toldAI = true;
  };
  const push = (/** @type {any} */ line) => {
    const writer = line.own ? "me" : `${line.source.channel_id}:${line.source.participant_id ?? ""}`;
    line.first = !before || before.writer !== writer || line.at - before.at > 300_000;
    if (before && !line.first && before.line.pending?.state !== "failed") before.line.last = false;
    line.last = true;
    before = { writer, at: line.at, line };
    out.push(line);
  };
  const unsent = [...outbox.value];
  /** A message that was refused stays where it was written; one on its way is last. */
  const pushUnsent = (/** @type {number} */ until) => {
    while (unsent.length && (until === Infinity || (unsent[0].state === "failed" && unsent[0].at < until))) {
      const pending = /** @type {import("../shared/types.js").Pending} */ (unsent.shift());
      stamp(pending.at);
      push({ kind: "message", key: pending.client_id, own: true, source: { channel_id: "", channel_type: "" }, content: pending.content, at: pending.at, pending, reactions: {} });
    }
  };
  for (const { event, content, edited, deleted, reactions } of project(events.value)) {
    pushUnsent(Date.parse(event.created_at));
    if (event.visibility === "internal" || event.status !== "committed") continue;
    if (event.source.channel_type === "system" && event.type === "message") {
      // The house itself speaks: that an AI answers, or how long the wait is, which says more than our own line.
      const before = out.at(-1);
      const asked = before?.about === "attention_changed";
      if (asked) out.pop();
      else stamp(event.created_at);
      out.push({ kind: "told", key: event.id, words: content.text ?? "", tone: asked ? "wait" : toldAI ? "" : "ai" });
      toldAI ||= !asked;
      continue;
    }
    if (event.type !== "message") {
      const told = timeline(event);
      if (!told) continue;
      stamp(event.created_at);
      if (/^ai|disclos/.test(event.content.code ?? "")) toldAI = true;
      out.push({ kind: "told", key: event.id, about: event.type, ...told });
      before = null;
      continue;
    }
    stamp(event.created_at);
    if (isAI(event.source)) disclose();
    const own = isOwn(event.source);
    // Our own words keep the key under which they were sent, as a reply keeps that of its stream: no bubble is made twice.
    push({ kind: "message", key: (own && event.metadata.client_id) || event.id, own, source: event.source, content, edited, deleted, reactions, at: Date.parse(event.created_at), event });
  }
  pushUnsent(Infinity);
  return { out, toldAI, last: before };
});

/** All lines. A reply keeps its key when it is stored, so that its bubble stays in place. */
export const lines = computed(() => {
  const { out, toldAI, last } = settled.value;
  const writing = Object.values(state.value.streams).map((stream) => ({
    kind: "message", key: stream.id, own: false, source: stream.source, content: { type: "text", text: stream.text }, at: last?.at ?? 0, growing: true,
    reactions: {}, first: last?.writer !== `${stream.source.channel_id}:${stream.source.participant_id ?? ""}`, last: true,
  }));
  const disclosed = toldAI || !writing.some((line) => isAI(line.source));
  return [...out, ...(disclosed ? [] : [DISCLOSURE]), ...writing];
});

/** Who is about to say something, in words; null when nobody is. Signs of life fade by themselves. */
export function liveliness() {
  if (awaited.value) return "Waiting for a person’s OK";
  const fresh = Object.values(state.value.signs).filter((one) => one.sender !== me() && now.value - one.at < 7000);
  const tool = fresh.find((one) => one.kind === "tool");
  if (tool) return tool.data.note || `${senderName(tool.sender)} is looking something up`;
  const busy = fresh.find((one) => one.kind === "thinking" || one.kind === "typing");
  if (!busy || Object.keys(state.value.streams).length) return null;
  return `${senderName(busy.sender)} is ${busy.kind === "thinking" ? "thinking" : "typing"}`;
}

/** @param {string} id */
const senderName = (id) => personName(id) === "Team" ? nameSaid(id) ?? "Somebody" : personName(id);

/** What somebody of the staff has signed their words with. @param {string} id */
const nameSaid = (id) => state.value.events.findLast((event) => event.source.participant_id === id)?.metadata.sender_name;
