/** The supervisor's page: the queue, one room, and what can be done. */
import { api } from "../shared/api.js";
import { keepFocus } from "../shared/focus.js";
import { clock, initials } from "../shared/format.js";
import { Icon } from "../shared/icons.js";
import { html, render, signal, useEffect, useRef, useState } from "../shared/lib.js";
import { notices, sound, toggleNotices, toggleSound, watchAttention } from "./alarm.js";
import { Desk, deskBox, writing } from "./desk.js";
import { bindings, brains, client, dead, hasToken, iHold, isOpen, leaveRoom, link, loadRooms, me, MOST_DEAD, now, openId, openRoom, personName, room, roomTrouble, signIn, since, soon, state, titleOf, toast, toasts, viewers, waiting, whyWaiting } from "./model.js";
import { Lease, Panel, takeOver } from "./panel.js";
import { Rooms, State } from "./rooms.js";
import { Transcript } from "./transcript.js";

const dialog = signal(/** @type {"" | "keys" | "dead"} */ (""));
const panelOpen = signal(false);

function App() {
  if (!hasToken.value || link.value === "unauthorized") return html`<${SignIn} expired=${hasToken.value} />`;
  if (me.value?.role === "guest" || link.value === "refused") return html`<${SignIn} guest=${true} />`;
  return html`<${Top} />
    <div class="columns ${openId.value ? "in-room" : ""} ${panelOpen.value ? "with-panel" : ""}"><${Rooms} /><${Middle} /><${Panel} /></div>
    <${Toasts} />${dialog.value === "keys" && html`<${Keys} />`}${dialog.value === "dead" && html`<${DeadLetters} />`}`;
}

function Top() {
  const words = { connecting: "Connecting…", lost: "Reconnecting… nothing is lost", back: "Back", live: "Live", stopped: "Stopped", unauthorized: "", refused: "" }[link.value];
  const theme = () => {
    const next = getComputedStyle(document.documentElement).colorScheme === "dark" || (document.documentElement.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches) ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem("roomkit.theme", next);
  };
  const undelivered = `${dead.value.length}${dead.value.length >= MOST_DEAD ? "+" : ""}`;
  return html`<header class="bar">
    <span class="brand"><span class="logo"><${Icon} name="team" size=${17} /></span><span class="name">Supervisor</span></span>
    <span class="link ${link.value}" role="status"><i></i>${words}</span>
    <span class="space"></span>
    ${dead.value.length > 0 && html`<button class="button quiet bad" aria-label="${undelivered} undelivered" onClick=${() => { dialog.value = "dead"; }}><${Icon} name="warning" size=${16} />${undelivered}<span class="words">undelivered</span></button>`}
    <button class="icon-button" aria-pressed=${sound.value} aria-label="Sound when somebody waits" title="Sound when somebody waits" onClick=${toggleSound}><${Icon} name=${sound.value ? "sound" : "silent"} /></button>
    <button class="icon-button" aria-pressed=${notices.value} aria-label="Notifications when somebody waits" title="Notifications when somebody waits" onClick=${() => void toggleNotices()}><${Icon} name="bell" /></button>
    <button class="icon-button" aria-label="Light or dark" title="Light or dark" onClick=${theme}><${Icon} name="theme" /></button>
    <button class="icon-button keys-button" aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" onClick=${() => { dialog.value = "keys"; }}><b>?</b></button>
    ${me.value && html`<span class="me"><span class="face human" aria-hidden="true">${initials(me.value.display_name ?? me.value.id)}</span><span>${me.value.display_name ?? me.value.id}<small>${me.value.role}</small></span></span>`}
  </header>`;
}

function Middle() {
  if (!openId.value) {
    const first = waiting.value[0];
    return html`<main class="middle empty"><div class="nothing"><${Icon} name="team" size=${34} /><h1>${first ? `${titleOf(first)} has waited ${clock(now.value - since(first))}` : "Choose a room"}</h1>
      <p>${first ? whyWaiting(first) : "Its whole conversation appears here, live: every channel, every tool call, every decision."}</p>
      ${first && html`<button class="button primary" onClick=${() => openRoom(first.id)}>Open this room</button>`}</div></main>`;
  }
  if (roomTrouble.value) return html`<main class="middle empty"><div class="nothing"><${Icon} name="warning" size=${34} /><h1>This room cannot be opened</h1><p>${roomTrouble.value}</p><button class="button" onClick=${leaveRoom}>Back to the list</button></div></main>`;
  if (!room.value || !state.value.ready) return html`<main class="middle empty"><div class="nothing"><span class="spin"><${Icon} name="refresh" size=${28} /></span><p>Opening the room…</p></div></main>`;
  return html`<main class="middle"><${RoomTop} /><${Transcript} /><${Desk} /></main>`;
}

function RoomTop() {
  const here = /** @type {import("../shared/types.js").Room} */ (room.value);
  const names = [...new Set([here.external_id, ...(here.channels ?? bindings.value.map((one) => one.channel_id))])].filter(Boolean);
  const others = viewers.value.filter((one) => one.id !== me.value?.id);
  return html`<header class="room-top">
    <button class="icon-button to-list" aria-label="Back to the list" onClick=${leaveRoom}><${Icon} name="back" /></button>
    <div class="room-title"><h1>${titleOf({ ...here, people: here.people ?? state.value.participants.map((one) => one.display_name || one.address || one.id) })}</h1><p>${names.join(" · ")}</p></div>
    <div class="looking" title=${others.length ? `Also here: ${others.map((one) => one.display_name ?? one.id).join(", ")}` : "Only you are looking"}>
      ${others.slice(0, 4).map((one) => html`<span class="face human" key=${one.id}>${initials(one.display_name ?? one.id)}</span>`)}<span class="eye"><${Icon} name="eye" size=${15} />${others.length ? `${others.map((one) => (one.display_name ?? one.id).split(" ")[0]).join(", ")} too` : "only you"}</span></div>
    <${State} room=${here} />
    ${here.floor.mode === "human" ? html`<span class="holder"><${Icon} name="hand" size=${15} />${iHold.value ? "You have the floor" : `${personName(here.floor.holder)} has the floor`} <${Lease} /></span>`
      : isOpen(here) && html`<button class="button primary" onClick=${() => takeOver()}><${Icon} name="hand" size=${16} />Take over</button>`}
    <button class="icon-button panel-button" aria-expanded=${panelOpen.value} aria-label="Room actions" title="Room actions" onClick=${() => { panelOpen.value = !panelOpen.value; }}><${Icon} name="chevron" /></button>
  </header>`;
}

const Toasts = () => html`<div class="toasts" role="status" aria-live="polite">${toasts.value.map((one) => html`<p key=${one.id} class=${one.bad ? "bad" : ""}><${Icon} name=${one.bad ? "warning" : "check"} size=${16} />${one.words}</p>`)}</div>`;

/** @param {{expired?: boolean, guest?: boolean}} props */
function SignIn({ expired = false, guest = false }) {
  const [token, setToken] = useState("");
  const title = guest ? "This page is for staff" : expired ? "Please sign in again" : "Sign in";
  const words = guest ? "Your key opens the chat, but not this page." : expired ? "Your key has expired or was revoked. Nothing that you did is lost." : "Open this page from the link that you were given, or paste your key.";
  return html`<main class="sign-in"><form onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); if (token.trim()) signIn(token); }}>
    <span class="logo"><${Icon} name="lock" size=${24} /></span><h1>${title}</h1><p>${words}</p>
    <label><span class="unseen">Key or link</span><input type="password" value=${token} placeholder="Key or link" autocomplete="off" onInput=${(/** @type {any} */ event) => setToken(event.target.value)} /></label>
    <button class="button primary wide" disabled=${!token.trim()}>Continue</button></form></main>`;
}

/** @param {{title: string, children?: any}} props */
function Dialog({ title, children }) {
  const box = useRef(/** @type {any} */ (null));
  useEffect(() => { box.current.showModal(); }, []);
  return html`<dialog ref=${box} aria-label=${title} onClose=${() => { dialog.value = ""; }}><header><h2>${title}</h2><button class="icon-button" aria-label="Close" onClick=${() => box.current.close()}><${Icon} name="close" /></button></header>${children}</dialog>`;
}

const KEYS = [["/", "Search rooms"], ["↑  ↓", "Up and down the list"], ["j  k", "Next or previous room"], ["g", "Room that has waited longest"], ["t", "Take over"], ["r", "Reply"], ["n", "Note"], ["w", "Whisper"], ["Esc", "Leave the text box"], ["?", "This list"]];
const Keys = () => html`<${Dialog} title="Keyboard"><dl class="keys">${KEYS.map(([key, words]) => html`<dt><kbd>${key}</kbd></dt><dd>${words}</dd>`)}</dl></${Dialog}>`;

function DeadLetters() {
  const settle = async (/** @type {string} */ id, /** @type {boolean} */ again) => {
    const path = `dead-letters/${encodeURIComponent(id)}`;
    try {
      await (again ? api("POST", `${path}/resend`, {}) : api("DELETE", path));
      toast(again ? "Sent again" : "Given up");
      void loadRooms();
    } catch (error) {
      toast(/** @type {Error} */ (error).message, true);
    }
  };
  return html`<${Dialog} title="Undelivered messages"><ul class="dead">${dead.value.map((one) => html`<li key=${one.id}><div><b>${one.channel_id}</b><small>${[one.room_id, one.reason ?? one.error, one.holds && "later ones wait for it"].filter(Boolean).join(" · ")}</small></div>
    <button class="button small" onClick=${() => { openRoom(one.room_id); dialog.value = ""; }}>Open</button><button class="button small" disabled=${me.value?.role !== "admin"} title=${me.value?.role === "admin" ? "" : "Needs an admin"} onClick=${() => settle(one.id, true)}>Send again</button>
    ${me.value?.role === "admin" && html`<button class="button small quiet" onClick=${() => settle(one.id, false)}>Give up</button>`}</li>`)}</ul></${Dialog}>`;
}

/** @type {Record<string, () => void>} */
const SHORTCUTS = {
  "/": () => document.getElementById("search")?.focus(),
  j: () => step(1),
  k: () => step(-1),
  g: () => { if (waiting.value[0]) openRoom(waiting.value[0].id); },
  t: () => { if (room.value && isOpen(room.value) && room.value.floor.mode !== "human") void takeOver(); },
  r: () => write("reply"),
  n: () => write("note"),
  w: () => { if (brains.value.length) write("whisper"); },
  "?": () => { dialog.value = "keys"; },
};

/** @param {string} mode */
function write(mode) {
  writing.value = mode;
  deskBox.focus();
}

/** @param {number} by */
function step(by) {
  const all = [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".list .room"))];
  const at = all.findIndex((one) => one.classList.contains("open"));
  const next = all[Math.min(all.length - 1, Math.max(0, at + by))];
  next?.focus();
  next?.click();
  next?.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  const at = /** @type {HTMLInputElement} */ (event.target);
  // A search box with words in it is cleared first, as browsers do it.
  if (event.key === "Escape" && at.matches("input, textarea") && !(at.type === "search" && at.value)) at.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || at.closest("input, textarea, select, dialog")) return;
  if (event.key === "Escape" && panelOpen.value) {
    panelOpen.value = false;
    return /** @type {HTMLElement | null} */ (document.querySelector(".panel-button"))?.focus();
  }
  const run = SHORTCUTS[event.key];
  if (!run) return;
  event.preventDefault();
  run();
});

const kept = localStorage.getItem("roomkit.theme");
if (kept) document.documentElement.dataset.theme = kept;
setInterval(() => { now.value = Date.now(); }, 1000);
setInterval(() => { if (document.visibilityState === "visible" && link.value === "live") soon(0); }, 20_000);
setInterval(() => { if (link.value === "live") void loadRooms(); }, 30_000);
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
keepFocus();
if (hasToken.value) {
  watchAttention();
  client.start();
}
