/** Right: what can be done in the open room, and who and what is in it. */
import { api } from "../shared/api.js";
import { clock, spaced, wordsOf } from "../shared/format.js";
import { channelIcon, Icon } from "../shared/icons.js";
import { html, root, useEffect, useRef, useState } from "../shared/lib.js";
import { Calls } from "./calls.js";
import { deskBox } from "./desk.js";
import { act, atLeast, beside, bindings, brains, iHold, isOpen, now, people, personName, room, state, toast } from "./model.js";

export function Panel() {
  const here = room.value;
  if (!here) return null;
  return html`<aside class="panel" aria-label="Room actions">
    <${Calls} roomId=${here.id} now=${now.value} mine=${iHold.value} />
    <${Decisions} />
    <${Floor} />
    ${brains.value.map((one) => html`<${Brain} key=${one.channel_id} binding=${one} />`)}
    <${Channels} />
    <${People} />
    <${Tasks} />
    <${RoomActions} />
  </aside>`;
}

/** @param {{title: string, open?: boolean, count?: number, children?: any}} props */
const Section = ({ title, open = true, count, children }) => html`<details class="section" open=${open}><summary><${Icon} name="chevron" size=${14} />${title}${count ? html`<span class="count">${count}</span>` : ""}</summary><div class="section-body">${children}</div></details>`;

function Decisions() {
  const { approvals, drafts } = beside.value;
  if (!approvals.length && !drafts.length) return null;
  return html`<section class="decisions" aria-label="Waiting for your decision"><h2>Waiting for your decision</h2>
    ${approvals.map((one) => html`<${Approval} key=${one.id} one=${one} />`)}
    ${drafts.map((one) => html`<${Draft} key=${one.id} one=${one} />`)}</section>`;
}

/** @param {{one: any}} props */
function Approval({ one }) {
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const call = one.call ?? one;
  const left = one.expires_at ? Date.parse(one.expires_at) - now.value : null;
  const answer = async (/** @type {boolean} */ granted) => {
    setBusy(true);
    await act("POST", `approvals/${encodeURIComponent(one.id)}`, { granted, reason: reason.trim() || null }, granted ? "Approved" : "Denied");
    setBusy(false);
  };
  return html`<article class="decision">
    <h3><${Icon} name="tool" size=${15} />${spaced(call.name ?? call.tool ?? one.tool_name ?? "tool")}${left !== null && html`<time title="Time left to answer">${clock(left)}</time>`}</h3>
    <pre tabindex="0">${JSON.stringify(call.arguments ?? {}, null, 2)}</pre>
    <input value=${reason} placeholder="Reason (the AI reads it)" aria-label="Reason" onInput=${(/** @type {any} */ event) => setReason(event.target.value)} />
    <div class="pair"><button class="button primary" disabled=${busy || !atLeast("supervisor")} onClick=${() => answer(true)}>Approve</button><button class="button danger" disabled=${busy || !atLeast("supervisor")} onClick=${() => answer(false)}>Deny</button></div>
  </article>`;
}

/** @param {{one: any}} props */
function Draft({ one }) {
  const by = one.created_by ?? one.by ?? one.author ?? one.source?.participant_id;
  const path = `drafts/${encodeURIComponent(one.id)}`;
  return html`<article class="decision">
    <h3><${Icon} name="pencil" size=${15} />Draft${by ? ` by ${personName(by)}` : ""}</h3>
    <p class="prose">${one.text ?? wordsOf(one.content)}</p>
    <div class="pair"><button class="button primary" disabled=${!atLeast("supervisor")} onClick=${() => act("POST", `${path}/approve`, {}, "Draft sent")}>Send it</button><button class="button danger" onClick=${() => act("POST", `${path}/discard`, {}, "Draft discarded")}>Discard</button></div>
  </article>`;
}

/** @param {boolean} [force] */
export async function takeOver(force = false) {
  const told = await act("POST", "floor/take", { force }, "You have the floor: the AI is silent");
  // A keyboard on the glass would cover the conversation.
  if (told && !matchMedia("(pointer: coarse)").matches) deskBox.focus();
}
/** @param {string} note */
export const handBack = (note) => act("POST", "floor/release", { note: note.trim() || null }, "Handed back to the AI");

function Floor() {
  const [note, setNote] = useState("");
  const here = /** @type {import("../shared/types.js").Room} */ (room.value);
  const floor = here.floor;
  if (!isOpen(here)) return html`<${Section} title="Who answers"><p class="lead">Nobody: the room is ${here.status}.</p></${Section}>`;
  const other = floor.mode === "human" && !iHold.value;
  const words = { ai: "The AI answers.", both: "The AI and people answer.", none: "Nobody is asked to answer.", waiting: "The customer waits for a person.", human: iHold.value ? "You answer. The AI is silent." : `${personName(floor.holder)} answers. The AI is silent.` }[/** @type {"ai"} */ (floor.mode)];
  return html`<${Section} title="Who answers">
    <p class="lead">${words} <${Lease} /></p>
    ${iHold.value ? html`<textarea rows="2" value=${note} placeholder="Note for the AI: what was agreed, what is left" aria-label="Note for the AI" onInput=${(/** @type {any} */ event) => setNote(event.target.value)}></textarea>
        <button class="button primary wide" onClick=${async () => { if (await handBack(note)) setNote(""); }}><${Icon} name="back" size=${16} />Hand back to the AI</button>`
      : html`<button class="button primary wide" onClick=${() => takeOver(other)}><${Icon} name="hand" size=${16} />${other ? `Take over from ${personName(floor.holder)}` : "Take over"}</button>`}
    ${atLeast("supervisor") && html`<div class="segments" role="group" aria-label="Without a person">${[["ai", "AI"], ["both", "Both"], ["none", "Nobody"]].map(([mode, label]) => html`<button key=${mode} aria-pressed=${floor.mode === mode} onClick=${() => act("PUT", "floor", { mode })}>${label}</button>`)}</div>`}
  </${Section}>`;
}

/** How long the floor is held without activity. */
export function Lease() {
  const floor = room.value?.floor;
  if (floor?.mode !== "human" || !floor.lease_until) return null;
  const left = Date.parse(floor.lease_until) - now.value;
  return html`<span class="lease ${left < 20_000 ? "low" : ""}" title="The floor is given up after this time without activity"><${Icon} name="clock" size=${13} />${clock(left)}</span>`;
}

/** @param {{binding: any}} props */
function Brain({ binding }) {
  const [kind, setKind] = useState("inject");
  const [text, setText] = useState("");
  const id = binding.channel_id;
  const writing = Object.values(state.value.streams).some((one) => one.source.channel_id === id);
  const steer = (/** @type {string} */ directive, /** @type {string | undefined} */ words, /** @type {string} */ done) => act("POST", "steer", { directive, text: words, channel_id: id }, done);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (text.trim() && await steer(kind, text.trim(), kind === "inject" ? "Told the AI" : "Instructions added")) setText("");
  };
  return html`<${Section} title=${`Steer ${id}`}>
    <p class="lead">${writing ? html`<span class="dots"><i></i><i></i><i></i></span> Writing now` : binding.muted ? "Muted: it works, but is not heard." : "Quiet."}</p>
    ${atLeast("supervisor") && html`<button class="button wide ${writing ? "danger" : ""}" disabled=${!writing} onClick=${() => steer("cancel", undefined, "Reply stopped")}><${Icon} name="stop" size=${15} />Stop this reply</button>
    <form class="stack" onSubmit=${submit}>
      <div class="segments" role="group" aria-label="How to steer">${[["inject", "Tell it now"], ["update_prompt", "Add instructions"]].map(([value, label]) => html`<button type="button" key=${value} aria-pressed=${kind === value} onClick=${() => setKind(value)}>${label}</button>`)}</div>
      <textarea rows="2" value=${text} aria-label=${kind === "inject" ? "Message to the running reply" : "Instructions for the running reply"} placeholder=${kind === "inject" ? "e.g. Offer a replacement instead" : "e.g. Answer in two sentences"} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>
      <button class="button wide" disabled=${!text.trim()}>${kind === "inject" ? "Tell the AI" : "Add instructions"}</button>
    </form>`}
  </${Section}>`;
}

const ACCESS = [["read_write", "reads, writes"], ["read_only", "only reads"], ["write_only", "only writes"], ["none", "no access"]];
const SIGHT = [["all", "seen by all"], ["transport", "seen by people"], ["intelligence", "seen by AI"], ["internal", "seen by staff"], ["none", "seen by nobody"]];

function Channels() {
  return html`<${Section} title="Channels" count=${bindings.value.length}><ul class="channels">${bindings.value.map((one) => html`<${Channel} key=${one.channel_id} one=${one} />`)}</ul></${Section}>`;
}

/** @param {{one: any}} props */
function Channel({ one }) {
  const may = atLeast("supervisor");
  const patch = (/** @type {object} */ change, /** @type {string} */ done) => act("PATCH", `bindings/${encodeURIComponent(one.channel_id)}`, change, done);
  const address = one.metadata?.phone_number ?? one.metadata?.email ?? one.metadata?.address ?? "";
  const sight = SIGHT.some(([value]) => value === one.visibility) ? SIGHT : [...SIGHT, [one.visibility, `seen by ${one.visibility}`]];
  return html`<li class=${one.muted ? "muted" : ""}>
    <${Icon} name=${channelIcon(one.channel_type)} size=${17} />
    <div class="channel-name"><b>${one.channel_id}</b><small>${[one.channel_type, address, personName(one.participant_id)].filter(Boolean).join(" · ")}</small></div>
    <button class="button small" aria-pressed=${one.muted} disabled=${!may} onClick=${() => patch({ muted: !one.muted }, `${one.channel_id} ${one.muted ? "unmuted" : "muted"}`)}><${Icon} name=${one.muted ? "voice" : "muted"} size=${14} />${one.muted ? "Unmute" : "Mute"}</button>
    <div class="rights"><label><span class="unseen">Access of ${one.channel_id}</span><select disabled=${!may} value=${one.access} onChange=${(/** @type {any} */ event) => patch({ access: event.target.value }, "Access changed")}>${ACCESS.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}</select></label>
      <label><span class="unseen">Who sees ${one.channel_id}</span><select disabled=${!may} value=${one.visibility} onChange=${(/** @type {any} */ event) => patch({ visibility: event.target.value }, "Visibility changed")}>${sight.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}</select></label></div>
  </li>`;
}

/** @param {string} id */
const presence = (id) => state.value.signs[`presence:${id}`]?.data.state ?? "";

function People() {
  return html`<${Section} title="People" count=${people.value.length}><ul class="people">${people.value.map((one) => html`<li key=${one.id}><b>${one.display_name || one.address || one.id}${presence(one.id) && html`<span class="presence ${presence(one.id)}">${presence(one.id)}</span>`}</b><small>${[one.role, one.address, one.status !== "active" && one.status, one.identification && spaced(one.identification)].filter(Boolean).join(" · ")}</small></li>`)}
    ${!people.value.length && html`<li class="none">Nobody yet.</li>`}</ul></${Section}>`;
}

function Tasks() {
  const { tasks, observations } = beside.value;
  if (!tasks.length && !observations.length) return null;
  return html`<${Section} title="Tasks and observations" count=${tasks.length + observations.length}><ul class="people">
    ${tasks.map((one) => html`<li key=${one.id}><b>${one.title}</b><small>${[spaced(one.status), one.description].filter(Boolean).join(" · ")}</small></li>`)}
    ${observations.map((one) => html`<li key=${one.id}><b>${one.content || one.kind}</b><small>${[one.kind, one.confidence != null && `${Math.round(one.confidence * 100)} % sure`].filter(Boolean).join(" · ")}</small></li>`)}
  </ul></${Section}>`;
}

/** Closing ends what is being said: it is asked twice. */
function Close() {
  const [sure, setSure] = useState(false);
  const first = useRef(/** @type {any} */ (null)), asked = useRef(false);
  useEffect(() => {
    if (sure || asked.current) first.current.focus();
    asked.current = sure;
  }, [sure]);
  if (!sure) return html`<button ref=${first} class="button wide danger" onClick=${() => setSure(true)}><${Icon} name="lock" size=${16} />Close this room</button>`;
  return html`<div class="sure" role="group" aria-label="Close this room?" onKeyDown=${(/** @type {KeyboardEvent} */ event) => { if (event.key === "Escape") { event.stopPropagation(); setSure(false); } }}><p>Close it for everybody? Replies under way end; it can be reopened.</p>
    <div class="pair"><button class="button danger" onClick=${() => act("POST", "close", {}, "Room closed")}>Yes, close it</button><button ref=${first} class="button" onClick=${() => setSure(false)}>Keep it open</button></div></div>`;
}

function RoomActions() {
  const here = /** @type {import("../shared/types.js").Room} */ (room.value);
  const open = isOpen(here);
  const copyLink = async () => {
    try {
      const guest = people.value.find((one) => one.role === "owner" || one.role === "member");
      const { token } = await api("POST", "tokens", { role: "guest", room_id: here.id, id: guest?.id, display_name: guest?.display_name });
      await navigator.clipboard.writeText(`${root()}#token=${token}`);
      toast("Chat link copied");
    } catch (error) {
      toast(/** @type {Error} */ (error).message, true);
    }
  };
  return html`<${Section} title="Room">
    <dl class="facts"><dt>State</dt><dd>${here.status}</dd>${here.external_id && html`<dt>External id</dt><dd>${here.external_id}</dd>`}<dt>Id</dt><dd><code>${here.id}</code></dd><dt>Events</dt><dd>${state.value.position + 1}</dd></dl>
    <div class="stack">
      ${open && !here.waiting && here.floor.mode !== "human" && html`<button class="button wide" onClick=${() => act("POST", "request-human", { reason: "Asked for on the supervisor page" }, "In the queue")}><${Icon} name="bell" size=${16} />Ask for a person</button>`}
      <button class="button wide" onClick=${copyLink}><${Icon} name="link" size=${16} />Copy a chat link</button>
      ${atLeast("supervisor") && (open ? html`<${Close} />`
        : html`<button class="button wide" disabled=${here.status === "archived"} onClick=${() => act("POST", "reopen", {}, "Room open again")}><${Icon} name="refresh" size=${16} />Reopen this room</button>`)}
    </div>
  </${Section}>`;
}
