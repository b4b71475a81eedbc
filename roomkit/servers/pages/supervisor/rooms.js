/** Left: who needs a person, and all rooms. */
import { ago, clock, hueOf, initials } from "../shared/format.js";
import { channelIcon, Icon } from "../shared/icons.js";
import { html, signal, useRef } from "../shared/lib.js";
import { filter, isOpen, listed, listTrouble, loadRooms, moreRooms, next, now, openId, openRoom, personName, rooms, search, shownRooms, since, titleOf, waiting, whyWaiting } from "./model.js";

/** @typedef {import("../shared/types.js").Room} Room */

const CHIPS = [["all", "All"], ["waiting", "Waiting"], ["ai", "AI"], ["human", "Person"], ["closed", "Closed"]];

export function Rooms() {
  return html`<nav class="rooms" aria-label="Rooms">
    <${Queue} />
    <${Filters} />
    <${List} />
  </nav>`;
}

function Queue() {
  const queue = waiting.value;
  return html`<section class="queue" aria-labelledby="queue">
    <h2 id="queue">Needs a person <span class="count ${queue.length ? "hot" : ""}">${queue.length}</span></h2>
    ${queue.length === 0 && html`<p class="calm"><${Icon} name="check" size=${17} />Nobody is waiting.</p>`}
    <ul>${queue.map((room) => html`<${Waiting} key=${room.id} room=${room} />`)}</ul>
  </section>`;
}

/** @param {{room: Room}} props */
function Waiting({ room }) {
  const ms = now.value - since(room);
  const heat = ms > 180_000 ? "late" : ms > 60_000 ? "warm" : "";
  return html`<li><button class="waiting ${heat} ${openId.value === room.id ? "open" : ""}" onClick=${() => openRoom(room.id)}>
    <b>${titleOf(room)}</b><time>${clock(ms)}</time>
    <small>${whyWaiting(room)}</small>
  </button></li>`;
}

function Filters() {
  const channels = [...new Set(Object.values(rooms.value).flatMap((room) => room.channels ?? []))].sort();
  const { q, state, channel } = filter.value;
  const set = (/** @type {object} */ change) => { filter.value = { ...filter.value, ...change }; };
  return html`<section class="filters" aria-label="Filters">
    <label class="search"><${Icon} name="search" size=${17} /><span class="unseen">Search rooms</span>
      <input id="search" type="search" value=${q} placeholder="Person, phone, id…" onInput=${(/** @type {any} */ event) => search(event.target.value)} onKeyDown=${intoList} />
      <kbd>/</kbd></label>
    <div class="chips" role="group" aria-label="State">${CHIPS.map(([value, label]) => html`<button key=${value} aria-pressed=${state === value} onClick=${() => set({ state: value })}>${label}</button>`)}</div>
    ${channels.length > 1 && html`<label class="channel-filter"><span class="unseen">Channel</span><select value=${channel} onChange=${(/** @type {any} */ event) => set({ channel: event.target.value })}>
      <option value="">All channels</option>${channels.map((id) => html`<option key=${id} value=${id}>${id}</option>`)}</select></label>`}
  </section>`;
}

/** The list is one stop of the tab key; the arrows go through it. */
const at = signal("");

/** @param {KeyboardEvent} event */
function intoList(event) {
  if (!["ArrowDown", "Enter"].includes(event.key)) return;
  event.preventDefault();
  /** @type {HTMLElement | null} */ (document.querySelector(".list .room"))?.focus();
}

function List() {
  const list = useRef(/** @type {any} */ (null));
  if (listed.value === "loading") return html`<div class="list-state"><span class="spin"><${Icon} name="refresh" /></span>Loading rooms…</div>`;
  if (listed.value === "failed") return html`<div class="list-state bad"><${Icon} name="warning" />${listTrouble.value}<button class="button" onClick=${() => void loadRooms()}>Try again</button></div>`;
  const shown = shownRooms.value;
  const move = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[/** @type {"ArrowDown"} */ (event.key)];
    if (!step) return;
    event.preventDefault();
    const all = [...list.current.querySelectorAll("button")];
    all[Math.min(all.length - 1, Math.max(0, all.indexOf(document.activeElement) + step))]?.focus();
  };
  if (!shown.length) return html`<div class="list-state">${Object.keys(rooms.value).length ? "No room matches." : "No rooms yet. They appear here as people write."}</div>`;
  const stop = [at.value, openId.value].find((id) => shown.some((room) => room.id === id)) ?? shown[0].id;
  return html`<ul class="list" ref=${list} onKeyDown=${move} aria-label="All rooms">${shown.map((room) => html`<${Line} key=${room.id} room=${room} stop=${room.id === stop} />`)}
    ${next.value !== null && !filter.value.q && html`<li class="more"><button class="button quiet" onClick=${() => void moreRooms()}>More rooms</button></li>`}</ul>`;
}

/** @param {{room: Room, stop: boolean}} props */
function Line({ room, stop }) {
  const title = titleOf(room);
  const types = (room.channels ?? []).slice(0, 4);
  return html`<li><button class="room ${openId.value === room.id ? "open" : ""} ${isOpen(room) ? "" : "closed"}" tabindex=${stop ? 0 : -1} onFocus=${() => { at.value = room.id; }} aria-current=${openId.value === room.id ? "true" : undefined} onClick=${() => openRoom(room.id)}>
    <span class="face hue-${hueOf(title)}" aria-hidden="true">${initials(title)}</span>
    <span class="room-text"><b title=${room.id}>${title}</b>${room.last && title !== `“${room.last}”` && html`<small class="last">${room.last}</small>`}<small>${types.map((id) => html`<span class="mini" key=${id} title=${id}><${Icon} name=${channelIcon(id)} size=${12} />${id}</span>`)}</small></span>
    <span class="room-side"><time>${ago(room.last_activity_at ?? room.created_at, now.value)}</time><${State} room=${room} /></span>
  </button></li>`;
}

/** @param {{room: Room}} props */
export function State({ room }) {
  if (!isOpen(room)) return html`<span class="state closed">${room.status}</span>`;
  if (room.approvals?.length && !room.waiting) return html`<span class="state waiting-state" title=${whyWaiting(room)}>yes or no?</span>`;
  if (room.waiting || room.floor.mode === "waiting") return html`<span class="state waiting-state">waiting</span>`;
  if (room.floor.mode === "human") return html`<span class="state human">${personName(room.floor.holder) || "person"}</span>`;
  const words = { ai: "AI", both: "AI + person", none: "nobody" }[/** @type {"ai"} */ (room.floor.mode)] ?? room.floor.mode;
  return html`<span class="state ai">${room.status === "paused" ? "paused" : words}</span>`;
}
