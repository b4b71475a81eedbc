/**
 * What a client knows about one room: a pure function of the frames it was sent.
 *
 * `apply(state, frame)` never changes its argument, reads no clock and touches no network: `room_client.js` does that.
 * Lengths and offsets on the wire count characters (code points); a JavaScript string counts UTF-16 units.
 *
 * @typedef {import("./types.js").Frame} Frame
 * @typedef {import("./types.js").RoomEvent} RoomEvent
 * @typedef {import("./types.js").RoomState} RoomState
 * @typedef {import("./types.js").Stream} Stream
 * @typedef {import("./types.js").Pending} Pending
 */

/** How many parts of a reply that came too early are kept; the stored text at its end replaces them all. */
const MAX_EARLY = 256;

/** @returns {RoomState} */
export const emptyState = () => ({
  room: null, participants: [], bindings: [], viewers: [], epoch: null, position: -1, more: false,
  events: [], byId: {}, streams: {}, outbox: [], signs: {}, gap: false, ready: false,
});

/** @param {RoomState} state @param {Frame} frame @returns {RoomState} */
export function apply(state, frame) {
  switch (frame.type) {
    case "snapshot": return snapshot(state, frame);
    case "resumed": return resumed(state, frame);
    case "resync_required": return { ...state, epoch: null, position: -1, gap: false };
    case "event": return sequenced(state, frame, frame.event);
    case "stream_start": return withStream(state, frame.stream_id, openStream(frame, state.streams[frame.stream_id]));
    case "stream_chunk": return chunk(state, frame);
    case "stream_end": return sequenced(state, frame, frame.event, frame.stream_id);
    case "stream_error": return withStream(state, frame.stream_id, null);
    case "ack": return settle(changed(state, frame.client_id, { state: "sent", event_id: frame.event_id }));
    case "nack": return refused(state, frame);
    case "ephemeral": return sign(state, frame);
    case "room": return { ...state, room: frame.room };
    case "history": return prepended(state, frame.events, frame.more);
    default: return state;
  }
}

/** Whether something was lost on the way, so that the room has to be joined again. @param {RoomState} state */
export const holed = (state) => state.gap || Object.values(state.streams).some((stream) => stream.early.length > 0);

/** A message of our own, shown at once and sent until it is acknowledged. @param {RoomState} state @param {Pending} pending */
export const queued = (state, pending) => ({ ...state, outbox: [...state.outbox, pending] });

/** @param {RoomState} state @param {string} clientId */
export const dropped = (state, clientId) => ({ ...state, outbox: state.outbox.filter((one) => one.client_id !== clientId) });

/** A refused message goes out again, under the same id. @param {RoomState} state @param {string} clientId */
export const retried = (state, clientId) => changed(state, clientId, { state: "sending", error: null });

/** Older events, read page by page, join at the front.
 * @param {RoomState} state @param {RoomEvent[]} older @param {boolean} more @returns {RoomState} */
export function prepended(state, older, more) {
  const fresh = older.filter((event) => !(event.id in state.byId));
  return { ...withEvents(state, [...fresh, ...state.events]), more };
}

/** Where to go on after a lost connection, or null when everything has to be read again. @param {RoomState} state */
export const resumePoint = (state) => (state.epoch === null ? null : { epoch: state.epoch, index: state.position });

/** @param {RoomState} state @param {Extract<Frame, {type: "snapshot"}>} frame @returns {RoomState} */
function snapshot(state, frame) {
  return entered(withEvents(state, frame.events), frame, frame.more);
}

/** @param {RoomState} state @param {Extract<Frame, {type: "resumed"}>} frame @returns {RoomState} */
function resumed(state, frame) {
  const missed = frame.events.filter((event) => !(event.id in state.byId));
  return entered(withEvents(state, [...state.events, ...missed]), frame, state.more);
}

/** The list of replies being written is complete: one that is not named ended while we were away.
 * @param {RoomState} state @param {import("./types.js").Entered} frame @param {boolean} more @returns {RoomState} */
function entered(state, frame, more) {
  const open = frame.streams.filter((one) => !(one.stream_id in state.byId));
  return settle({
    ...state, more, epoch: frame.epoch, position: frame.index, gap: false, ready: true, signs: {},
    room: frame.room, participants: frame.participants, bindings: frame.bindings ?? [], viewers: frame.viewers ?? [],
    streams: Object.fromEntries(open.map((one) => [one.stream_id, openStream(one)])),
  });
}

/** @param {RoomState} state @param {{index: number, prev: number}} at @param {RoomEvent} event @param {string} [streamId]
 * @returns {RoomState} */
function sequenced(state, at, event, streamId = event.id) {
  const closed = withStream(state, streamId, null);
  if (at.index <= state.position) return closed;
  if (at.prev !== state.position) return { ...state, gap: true };
  const next = event.id in state.byId ? closed : withEvents(closed, [...state.events, event]);
  return settle({ ...quiet(next, event), position: at.index });
}

/** Who has spoken is no longer typing or thinking. @param {RoomState} state @param {RoomEvent} event @returns {RoomState} */
function quiet(state, { source }) {
  const said = [source.participant_id, source.channel_id];
  const kept = Object.entries(state.signs).filter(([, one]) => !FADING.includes(one.kind) || !said.includes(one.sender));
  return { ...state, signs: Object.fromEntries(kept) };
}

const FADING = ["typing", "thinking", "tool"];

/** @param {RoomState} state @param {Extract<Frame, {type: "stream_chunk"}>} frame @returns {RoomState} */
function chunk(state, frame) {
  const stream = state.streams[frame.stream_id];
  if (!stream) return state;
  let { text, length } = stream;
  const early = [...stream.early, { offset: frame.offset, delta: frame.delta }].sort((a, b) => a.offset - b.offset);
  const kept = [];
  for (const part of early) {
    if (part.offset > length) { kept.push(part); continue; }
    const characters = [...part.delta];
    const fresh = characters.slice(length - part.offset);
    text += fresh.join("");
    length += fresh.length;
  }
  return withStream(state, frame.stream_id, { ...stream, text, length, early: kept.slice(0, MAX_EARLY) });
}

/** @param {any} told @param {Stream} [known] @returns {Stream} */
function openStream(told, known) {
  const text = told.text ?? known?.text ?? "";
  return { id: told.stream_id, source: told.source, text, length: [...text].length, early: [] };
}

/** @param {RoomState} state @param {string} id @param {Stream | null} stream @returns {RoomState} */
function withStream(state, id, stream) {
  if (stream === null && !(id in state.streams)) return state;
  if (stream !== null && id in state.byId) return state;
  const streams = { ...state.streams };
  if (stream === null) delete streams[id];
  else streams[id] = stream;
  return { ...state, streams };
}

/** @param {RoomState} state @param {RoomEvent[]} events @returns {RoomState} */
function withEvents(state, events) {
  const byId = Object.fromEntries(events.map((event) => [event.id, event]));
  return { ...state, events, byId };
}

/** With `retry_after` it is only too early, and the client sends it again.
 * @param {RoomState} state @param {Extract<Frame, {type: "nack"}>} frame @returns {RoomState} */
function refused(state, frame) {
  if (frame.retry_after !== undefined && frame.retry_after !== null) return state;
  return changed(state, frame.client_id, { state: "failed", error: frame.message || frame.code });
}

/** @param {RoomState} state @param {string} clientId @param {Partial<Pending>} change @returns {RoomState} */
function changed(state, clientId, change) {
  return { ...state, outbox: state.outbox.map((one) => (one.client_id === clientId ? { ...one, ...change } : one)) };
}

/** A message of our own that is in the log is shown from there. @param {RoomState} state @returns {RoomState} */
function settle(state) {
  if (!state.outbox.length) return state;
  const stored = new Set(state.events.map((event) => event.metadata?.client_id));
  const outbox = state.outbox.filter((one) => !stored.has(one.client_id) && !(one.event_id && one.event_id in state.byId));
  return { ...state, outbox };
}

/** Signs of life: at most once, never stored. Whoever shows them lets them fade.
 * @param {RoomState} state @param {Extract<Frame, {type: "ephemeral"}>} frame @returns {RoomState} */
function sign(state, frame) {
  if (frame.kind === "viewing") return { ...state, viewers: frame.data.viewers ?? [] };
  if (frame.kind.startsWith("voice_")) return state; // ten a second: `voice_state.js` keeps those
  const key = `${frame.kind}:${frame.sender}`;
  const signs = { ...state.signs };
  if (frame.kind === "typing" && frame.data.on === false) delete signs[key];
  else signs[key] = { kind: frame.kind, sender: frame.sender, data: frame.data, at: frame.at ?? 0 };
  if (frame.kind === "thinking") signs[key].data = { text: ((state.signs[key]?.data.text ?? "") + (frame.data.delta ?? frame.data.text ?? "")).slice(-600) };
  return { ...state, signs };
}

/**
 * Events as a reader sees them: edits, deletions and reactions folded into what they speak about. What the server has
 * folded already stands in an event's metadata; folding it again changes nothing.
 * @param {RoomEvent[]} events
 * @returns {import("./types.js").Shown[]}
 */
export function project(events) {
  /** @type {Map<string, import("./types.js").Shown>} */
  const shown = new Map();
  for (const event of events) {
    const { content, metadata } = event;
    const target = shown.get(content.target_event_id);
    if (content.target_event_id && event.status !== "blocked") {
      if (target && content.type === "edit") Object.assign(target, { content: content.new_content, edited: true });
      if (target && content.type === "delete") target.deleted = true;
      if (target && content.type === "reaction") react(target, content, event.source.participant_id ?? event.source.channel_id);
      continue;
    }
    for (const id of (content.code === "person_erased" && content.data?.event_ids) || []) {
      const gone = shown.get(id);
      if (gone) Object.assign(gone, { content: { type: "system", code: "deleted", data: {} }, deleted: true });
    }
    shown.set(event.id, { event, content, edited: Boolean(metadata.edited), deleted: Boolean(metadata.deleted), reactions: { ...metadata.reactions } });
  }
  return [...shown.values()];
}

/** @param {import("./types.js").Shown} target @param {any} content @param {string} who */
function react({ reactions }, { emoji, removed }, who) {
  const others = (reactions[emoji] ?? []).filter((one) => one !== who);
  const people = removed ? others : [...others, who];
  if (people.length) reactions[emoji] = people;
  else delete reactions[emoji];
}
