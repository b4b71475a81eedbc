/** The end user's page. */
import { api, roomPath } from "../shared/api.js";
import { keepFocus } from "../shared/focus.js";
import { initials } from "../shared/format.js";
import { Icon } from "../shared/icons.js";
import { html, render, useState } from "../shared/lib.js";
import { Composer } from "./composer.js";
import { Log } from "./messages.js";
import { client, hasToken, here, lines, link, mode, now, personName, problem, state } from "./model.js";

function App() {
  if (!hasToken) return html`<${Screen} icon="link" title="This page needs its link" words="Open the chat from the link that you were given: it carries your personal key." />`;
  if (link.value === "unauthorized") return html`<${Screen} icon="lock" title="This link has expired" words="Ask for a new link, or open the chat again from where you came. What you wrote is kept." />`;
  if (link.value === "refused") return html`<${Screen} icon="lock" title="Not allowed" words="This key may not be used for the chat." />`;
  if (!state.value.ready) return html`<${Screen} icon=${problem.value ? "warning" : "refresh"} spin=${!problem.value} title=${problem.value ?? "One moment…"} words=${problem.value ? "" : "Connecting to your conversation."} />`;
  return html`<${Top} /><main class="stage"><${Banner} /><${Log} /></main><${Composer} />`;
}

function Top() {
  const floor = state.value.room?.floor;
  const human = mode.value === "human";
  const holder = human ? personName(floor?.holder) : "";
  const title = human ? holder : state.value.room?.metadata?.title ?? "Chat";
  const words = {
    human: "A person from the team", waiting: "A person has been asked to join", closed: "This conversation is closed",
    ai: "AI assistant · answers at once", unknown: "",
  }[mode.value];
  const connected = link.value === "live" || link.value === "back";
  return html`<header class="top">
    <span class="face ${human ? "human" : "ai"} ${connected ? "on" : ""}" aria-hidden="true">${human ? initials(holder) : html`<${Icon} name="spark" />`}</span>
    <div class="who"><h1>${title}</h1><p role="status">${connected ? words : "Not connected at the moment"}</p></div>
    ${mode.value === "ai" && html`<${AskForPerson} />`}
  </header>`;
}

function AskForPerson() {
  const [busy, setBusy] = useState(false);
  const ask = async () => {
    setBusy(true);
    try {
      await api("POST", roomPath(client.roomId ?? "", "request-human"), { reason: "Asked for a person in the chat" });
    } catch (error) {
      problem.value = /** @type {Error} */ (error).message;
    }
    setBusy(false);
  };
  return html`<button class="button" disabled=${busy} onClick=${ask} aria-label="Talk to a person"><${Icon} name="person" size=${17} /><span class="label">Talk to a person</span></button>`;
}

function Banner() {
  const words = { lost: "Reconnecting… nothing is lost", back: "Back", connecting: "Connecting…" }[/** @type {"lost"} */ (link.value)];
  return html`<div role="status" aria-live="polite">${words && html`<div class="banner ${link.value}"><span class=${link.value === "back" ? "" : "spin"}><${Icon} name=${link.value === "back" ? "check" : "refresh"} size=${16} /></span>${words}</div>`}</div>`;
}

/** @param {{icon: string, title: string, words: string, spin?: boolean}} props */
function Screen({ icon, title, words, spin = false }) {
  return html`<main class="screen"><span class="face"><span class=${spin ? "spin" : ""}><${Icon} name=${icon} size=${28} /></span></span><h1>${title}</h1><p>${words}</p></main>`;
}

setInterval(() => { if (Object.keys(state.value.signs).length) now.value = Date.now(); }, 1000);

/** While the tab is in the background, its title says how much is new. */
let away = 0;
lines.subscribe((shown) => {
  const said = shown.filter((line) => line.kind === "message" && !line.own).length;
  if (document.visibilityState === "visible") away = said;
  document.title = said > away ? `(${said - away}) Chat` : "Chat";
});
setInterval(() => { if (link.value === "live" && document.visibilityState === "visible") here(); }, 25_000);
document.addEventListener("visibilitychange", () => {
  if (link.value === "live") here();
  if (document.visibilityState !== "visible") return;
  away = lines.value.filter((line) => line.kind === "message" && !line.own).length;
  document.title = "Chat";
});

const app = /** @type {HTMLElement} */ (document.getElementById("app"));
render(html`<${App} />`, app);
keepFocus();
addEventListener("pagehide", () => client.presence("offline"));
if (hasToken) client.start();
