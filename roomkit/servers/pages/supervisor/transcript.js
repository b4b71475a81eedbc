/** Middle: everything that happened in one room, and why. */
import { ContentView } from "../shared/content.js";
import { clockTime, dayName, initials, spaced } from "../shared/format.js";
import { channelIcon, Icon } from "../shared/icons.js";
import { computed, html, once, useEffect, useLayoutEffect, useRef, useState } from "../shared/lib.js";
import { project } from "../shared/room_state.js";
import { Received } from "./received.js";
import { beside, bindings, client, events, me, now, outbox, people, personName, personToken, state, viewers } from "./model.js";

/** @typedef {import("../shared/types.js").RoomEvent} RoomEvent */
/** @typedef {import("../shared/types.js").Source} Source */

/** A tool's call and its result are two events and one line. */
const settled = computed(() => {
  /** @type {any[]} */
  const out = [];
  /** @type {Map<string, any>} */
  const calls = new Map();
  let day = "";
  const stamp = (/** @type {string | number} */ at) => {
    const its = new Date(at).toDateString();
    if (its !== day) out.push({ kind: "day", key: `day ${its}`, at });
    day = its;
  };
  for (const shown of project(events.value)) {
    const { event, content } = shown;
    stamp(event.created_at);
    const known = content.type === "tool_call" && calls.get(content.call_id);
    if (known) known.content = content;
    else {
      const own = event.source.participant_id === me.value?.id && event.metadata.client_id;
      const row = { kind: kindOf(event), key: own || event.id, ...shown };
      if (content.type === "tool_call") calls.set(content.call_id, row);
      out.push(row);
    }
  }
  for (const pending of outbox.value) {
    const event = { id: pending.client_id, created_at: new Date(pending.at).toISOString(), source: { channel_id: "", channel_type: "host", participant_id: me.value?.id }, metadata: {}, visibility: "all", status: "committed" };
    out.push({ kind: "message", key: pending.client_id, event, content: pending.content, pending, reactions: {} });
  }
  return out;
});

const rows = computed(() => [
  ...settled.value,
  ...Object.values(state.value.streams).map((stream) => ({
    kind: "message", key: stream.id, growing: true, content: { type: "text", text: stream.text }, reactions: {},
    event: { id: stream.id, source: stream.source, metadata: {}, visibility: "all", status: "committed" },
  })),
]);

/** @param {RoomEvent} event */
function kindOf(event) {
  if (event.content.type === "tool_call") return "tool";
  if (event.metadata.whisper) return "whisper";
  if (event.type === "note") return "note";
  if (event.status === "draft") return "draft";
  if (event.type !== "message" && event.status !== "blocked") return "timeline";
  if (event.status === "blocked") return "blocked";
  if (event.source.channel_type === "system") return "house";
  return !["all", "", undefined].includes(event.visibility) ? "whisper" : "message";
}

export function Transcript() {
  const log = useRef(/** @type {any} */ (null));
  const pinned = useRef(true);
  const seen = useRef({ first: "", height: 0, room: /** @type {string | null} */ (null) });
  const [away, setAway] = useState(false);
  const shown = rows.value;
  useLayoutEffect(() => {
    const box = log.current, first = state.value.events[0]?.id ?? "";
    if (seen.current.room !== client.roomId) pinned.current = true;
    if (pinned.current) box.scrollTop = box.scrollHeight;
    else if (first !== seen.current.first) box.scrollTop += box.scrollHeight - seen.current.height;
    seen.current = { first, height: box.scrollHeight, room: client.roomId };
  }, [shown]);
  useEffect(() => {
    const watch = new ResizeObserver(() => { if (pinned.current) log.current.scrollTop = log.current.scrollHeight; });
    watch.observe(log.current);
    watch.observe(log.current.firstElementChild);
    return () => watch.disconnect();
  }, []);
  const scrolled = () => {
    const box = log.current;
    pinned.current = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
    setAway(!pinned.current);
    if (box.scrollTop < 50) client.older();
  };
  const latest = () => { pinned.current = true; log.current.scrollTop = log.current.scrollHeight; };
  return html`<div class="transcript-stage">
    <div class="transcript" ref=${log} onScroll=${scrolled} role="log" aria-label="Transcript" aria-live="polite" aria-relevant="additions" tabindex="0">
      <ol>
        ${state.value.more && html`<li class="older" key="older"><button class="button quiet" onClick=${() => client.older()}>Earlier events</button></li>`}
        ${!shown.length && state.value.ready && html`<li class="blank" key="blank">Nothing has happened in this room yet.</li>`}
        ${shown.map((row) => {
          const deliveries = beside.value.deliveries[row.event?.id];
          return once(row, deliveries, () => html`<${Row} key=${row.key} row=${row} deliveries=${deliveries} />`);
        })}
      </ol>
      <${Signs} />
    </div>
    ${away && html`<button class="button latest" onClick=${latest}><${Icon} name="down" size=${15} />Latest</button>`}
  </div>`;
}

/** @param {{row: any, deliveries: any[] | undefined}} props */
function Row({ row, deliveries }) {
  if (row.kind === "day") return html`<li class="day"><time>${dayName(row.at)}</time></li>`;
  if (row.kind === "timeline") return html`<li class="happened"><time>${clockTime(row.event.created_at)}</time><span>${happened(row.event)}</span><${Hidden} event=${row.event} quiet=${true} /></li>`;
  if (row.kind === "tool") return html`<${Tool} row=${row} />`;
  return html`<${Said} row=${row} deliveries=${deliveries} />`;
}

/** @param {{row: any, deliveries: any[] | undefined}} props */
function Said({ row, deliveries = [] }) {
  const { event, content, growing, pending } = row;
  const { source } = event;
  const who = writer(event);
  const side = ["ai", "app"].includes(source.channel_type) ? "ai" : isStaff(source) ? "human" : "guest";
  return html`<li class="said ${side} ${row.kind} ${growing ? "writing" : ""}" data-event=${event.id} data-index=${event.index} aria-busy=${growing ? "true" : undefined}>
    <span class="face ${side}" aria-hidden="true">${side === "ai" ? html`<${Icon} name="spark" size=${16} />` : source.channel_type === "system" ? html`<${Icon} name="bell" size=${16} />` : initials(who)}</span>
    <div class="said-body">
      <header><b>${who}</b><${Badge} source=${source} />${LABELS[row.kind] && html`<span class="label ${row.kind}"><${Icon} name=${LABELS[row.kind][1]} size=${13} />${LABELS[row.kind][0]}</span>`}
        <${Hidden} event=${event} />
        ${event.created_at && html`<time title=${event.created_at}>${clockTime(event.created_at)}</time>`}${event.index !== undefined && html`<span class="number">#${event.index}</span>`}</header>
      <div class="said-text">${row.deleted ? html`<p class="gone">Deleted</p>` : growing && !content.text ? html`<span class="dots" aria-label="writing"><i></i><i></i><i></i></span>` : html`<${ContentView} content=${content} roomId=${client.roomId ?? ""} growing=${growing} />`}</div>
      ${row.kind === "blocked" && html`<p class="why"><${Icon} name="warning" size=${14} /><span>Blocked by <b>${spaced(event.blocked_by ?? "a rule")}</b>${event.blocked_reason ? `: ${event.blocked_reason}` : ""}</span></p>`}
      ${Object.keys(row.reactions).length > 0 && html`<p class="reactions">${Object.entries(row.reactions).map(([emoji, people]) => html`<span key=${emoji} title=${people.map(personName).join(", ")}>${emoji} ${people.length} </span>`)}</p>`}
      <${Foot} event=${event} deliveries=${withReads(event, deliveries)} pending=${pending} edited=${row.edited} />
    </div>
  </li>`;
}

/** @type {Record<string, [string, string]>} */
const LABELS = { note: ["Note", "note"], whisper: ["Whisper", "whisper"], draft: ["Draft", "pencil"], blocked: ["Not delivered", "hidden"] };

/** @param {{event: any, deliveries: any[], pending: any, edited: boolean}} props */
function Foot({ event, deliveries, pending, edited }) {
  const [open, setOpen] = useState(false);
  const reason = event.metadata?.end_reason;
  const usage = event.metadata?.usage;
  if (pending) {
    return html`<p class="foot">${pending.state === "failed" ? html`<span class="chip bad">not sent: ${pending.error}</span>
      <button onClick=${() => client.retry(pending.client_id)}>Try again</button><button onClick=${() => client.discard(pending.client_id)}>Remove</button>` : html`<span class="chip">sending…</span>`}</p>`;
  }
  const notes = [edited && "edited", reason && reason !== "completed" && `ended: ${spaced(reason)}`, usage?.output_tokens && `${usage.input_tokens ?? 0} + ${usage.output_tokens} tokens`].filter(Boolean);
  if (!deliveries.length && !notes.length) return null;
  return html`<p class="foot">${deliveries.map((one) => html`<${Delivered} key=${one.channel_id} one=${one} />`)}${notes.map((note) => html`<span class="plain" key=${note}>${note}</span>`)}
    ${deliveries.some((one) => one.index !== undefined) && html`<button aria-expanded=${open} onClick=${() => setOpen(!open)}>What arrived</button>`}</p>
    ${open && html`<${Received} event=${event} roomId=${client.roomId ?? ""} deliveries=${deliveries} />`}`;
}

/** A channel without delivery records, such as a socket, still tells how far its reader has read.
 * @param {any} event @param {import("../shared/types.js").Delivery[]} deliveries */
function withReads(event, deliveries) {
  if (event.index === undefined || event.type !== "message" || event.status !== "committed") return deliveries;
  const read = bindings.value.filter((one) => one.category === "transport" && one.channel_id !== event.source.channel_id && one.last_read_index >= event.index
    && !deliveries.some((known) => known.channel_id === one.channel_id));
  return [...deliveries, ...read.map((one) => ({ channel_id: one.channel_id, state: "read", attempts: 0 }))];
}

const MARKS = { held: "clock", queued: "clock", sent: "check", delivered: "check", read: "check", failed: "warning", skipped: "hidden" };

/** @param {{one: import("../shared/types.js").Delivery}} props */
function Delivered({ one }) {
  const why = one.reason ? spaced(one.reason) : "";
  const tone = one.state === "failed" ? "bad" : one.state === "skipped" || one.state === "held" ? "dim" : one.state === "read" ? "good" : "";
  const more = [why, one.attempts > 1 ? `${one.attempts} attempts` : "", one.maybe_duplicate ? "may have arrived twice" : ""].filter(Boolean).join(" · ");
  return html`<span class="chip ${tone}" title=${`${one.channel_id}: ${one.state}${more ? `, ${more}` : ""}`}><${Icon} name=${MARKS[/** @type {"sent"} */ (one.state)] ?? "check"} size=${12} />${one.channel_id} ${one.state}${more ? html`<em>${more}</em>` : ""}</span>`;
}

/** @param {{row: any}} props */
function Tool({ row }) {
  const { content, event } = row;
  const running = content.status === "pending";
  const bad = ["failed", "denied", "unknown_outcome"].includes(content.status);
  const took = content.duration_ms != null ? content.duration_ms < 1000 ? `${content.duration_ms} ms` : `${(content.duration_ms / 1000).toFixed(1)} s` : "";
  return html`<li class="tool ${bad ? "bad" : ""}" data-event=${event.id}><details>
    <summary><span class=${running ? "spin" : ""}><${Icon} name=${running ? "refresh" : bad ? "warning" : "tool"} size=${15} /></span>
      <b>${spaced(content.name)}</b><code>${brief(content.arguments)}</code><span class="tool-state">${running ? "running" : spaced(content.status)}${took && ` · ${took}`}</span><time>${clockTime(event.created_at)}</time></summary>
    <dl><dt>Arguments</dt><dd><pre tabindex="0">${pretty(content.arguments)}</pre></dd>
      ${content.result != null && html`<dt>Result</dt><dd><pre tabindex="0">${pretty(content.result)}</pre></dd>`}
      ${content.error && html`<dt>Error</dt><dd><pre tabindex="0">${content.error}</pre></dd>`}</dl>
  </details></li>`;
}

/** @param {any} value */
function pretty(value) {
  try {
    return JSON.stringify(typeof value === "string" ? JSON.parse(value) : value, null, 2);
  } catch {
    return String(value);
  }
}

/** @param {Record<string, any>} values */
const brief = (values) => Object.entries(values ?? {}).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");

/** @param {{source: Source}} props */
export function Badge({ source }) {
  if (!source.channel_id || source.channel_type === "host") return null;
  return html`<span class="badge"><${Icon} name=${channelIcon(source.channel_type)} size=${12} />${source.channel_id}</span>`;
}

/** A name of a visibility: a channel, or one person. @param {string} token */
const tokenName = (token) => personName(people.value.find((one) => personToken(one.id) === token)?.id) || token;

/** Who cannot see this. @param {{event: RoomEvent, quiet?: boolean}} props */
function Hidden({ event, quiet = false }) {
  const visibility = event.visibility ?? "all";
  if (["all", ""].includes(visibility) || (event.type === "note" && visibility === "internal")) return null;
  if (event.type === "note" && visibility === "intelligence") return html`<span class="seen-by"><${Icon} name="spark" size=${13} />the AI reads it</span>`;
  const words = { none: "hidden from everyone", internal: "staff only", transport: "people only, no AI", intelligence: "AI only" }[/** @type {"none"} */ (visibility)] ?? `only ${visibility.split(",").map(tokenName).join(", ")}`;
  return html`<span class="seen-by" title=${words}><${Icon} name="hidden" size=${13} />${quiet ? html`<span class="unseen">${words}</span>` : words}</span>`;
}

/** @param {RoomEvent} event */
function writer(event) {
  const { source, metadata } = event;
  return metadata.sender_name || personName(source.participant_id) || /** @type {any} */ (source).external_id || (source.channel_id ? source.channel_id.charAt(0).toUpperCase() + source.channel_id.slice(1) : "You");
}

/** Everybody who held the floor here, looks at the room or is known as staff. */
const staff = computed(() => new Set([
  me.value?.id, ...viewers.value.map((one) => one.id), ...people.value.filter((one) => ["agent", "observer"].includes(one.role)).map((one) => one.id),
  ...events.value.map((event) => event.content.data?.holder),
]));

/** @param {Source} source */
const isStaff = (source) => source.channel_type === "host" || (source.participant_id != null && staff.value.has(source.participant_id));

/** What the room says about itself, in words. @param {RoomEvent} event */
function happened(event) {
  const data = event.content.data ?? {};
  if (event.content.message) return event.content.message;
  const who = personName(data.participant_id ?? data.by ?? data.holder ?? event.source.participant_id);
  const channel = data.channel_id ?? "";
  switch (event.type) {
    case "floor_changed": return { human: `${who || "A person"} took over`, ai: "The AI answers again", both: "AI and person may answer", none: "Nobody is asked to answer", waiting: "Waiting for a person again" }[/** @type {"ai"} */ (data.mode)] ?? "The floor changed";
    case "attention_changed": return data.reason ? `${personName(data.requested_by) || "Somebody"} asked for a person: ${data.reason}` : "Nobody waits any more";
    case "room_created": return "The room was made";
    case "participant_joined": return `${who} joined`;
    case "participant_left": return `${who} left`;
    case "stream_start": return `${channel || event.source.channel_id} began to answer`;
    case "approval_requested": return `Approval asked for ${spaced(data.name ?? data.tool ?? "a tool")}`;
    case "approval_answered": return `${data.granted ? "Approved" : "Denied"}${data.by ? ` by ${personName(data.by)}` : ""}${data.reason ? `: ${data.reason}` : ""}`;
    case "channel_muted": return `${channel} was muted`;
    case "channel_unmuted": return `${channel} was unmuted`;
    case "channel_attached": return `${channel} joined the room`;
    case "channel_detached": return `${channel} left the room`;
    case "channel_updated": return `${channel} was changed`;
    case "system": return event.content.code === "call_started" ? `${who || "Somebody"} called` : spaced(event.content.code ?? event.type);
    case "dtmf": return `${who || "The caller"} pressed ${data.digit}`;
    case "delivery_failed": return `Delivery to ${channel} failed${data.reason ? `: ${data.reason}` : ""}`;
    default: return [spaced(event.type).replace(/^./, (letter) => letter.toUpperCase()), who || channel].filter(Boolean).join(": ");
  }
}

function Signs() {
  const fresh = Object.values(state.value.signs).filter((one) => one.sender !== me.value?.id && now.value - one.at < 7000);
  const thought = fresh.find((one) => one.kind === "thinking" && one.data.text);
  const writing = new Set(Object.values(state.value.streams).filter((one) => one.text).map((one) => one.source.channel_id));
  const busy = fresh.filter((one) => one.kind === "tool" || (["typing", "thinking"].includes(one.kind) && !writing.has(one.sender)));
  return html`<div class="signs" aria-live="off">${busy.map((one) => html`<p key=${one.kind + one.sender}><span class="dots"><i></i><i></i><i></i></span>${personName(one.sender)} is ${one.kind === "tool" ? `using ${spaced(one.data.name ?? "a tool")}${one.data.note ? `: ${one.data.note}` : ""}` : one.kind}…</p>`)}
    ${thought && html`<p class="thought">${thought.data.text}</p>`}</div>`;
}
