/** Speaking: the microphone button, and what the call is doing. */
import { Icon } from "../shared/icons.js";
import { html, signal, useEffect } from "../shared/lib.js";
import { VoiceCall, voiceChannels } from "../shared/voice.js";
import { heardOf, PHASES, timeLine } from "../shared/voice_state.js";

const channel = signal(/** @type {{id: string, by: string, hears?: string} | null} */ (null));
const call = signal(/** @type {VoiceCall | null} */ (null));
const state = signal(/** @type {import("../shared/voice.js").CallState} */ ("off"));
const trouble = signal("");
const level = signal(0);
const live = signal(/** @type {Record<string, import("../shared/voice_state.js").Live>} */ ({}));

/** @param {any} frame of the room socket */
export function voiceHeard(frame) {
  if (frame.type === "snapshot" || frame.type === "resumed") void voiceChannels().then((found) => { channel.value = found.find((one) => one.by === "socket") ?? null; });
  if (call.value) live.value = heardOf(live.value, frame);
}

/** @param {string} roomId */
function toggle(roomId) {
  if (call.value) return call.value.stop();
  live.value = {};
  call.value = new VoiceCall({
    channel: channel.value?.id ?? "",
    roomId,
    onState: (next, why) => {
      state.value = next;
      trouble.value = why;
      if (next !== "ended") return;
      call.value = null;
      level.value = 0;
    },
    onLevel: (loud, own) => { if (own) level.value = Math.max(Math.sqrt(loud), level.value * 0.85); },
  });
  void call.value.start();
}

addEventListener("pagehide", () => call.value?.stop());

/** @param {{roomId: string | null, disabled: boolean}} props */
export function CallButton({ roomId, disabled }) {
  if (!channel.value || !roomId) return null;
  const on = call.value !== null;
  const words = on ? "Stop speaking" : "Speak";
  return html`<button type="button" class="icon-button call ${on ? "on" : ""}" aria-pressed=${on} aria-label=${words} title=${words} disabled=${disabled && !on} onClick=${() => toggle(roomId)}><${Icon} name=${on ? "muted" : "voice"} /></button>`;
}

/** @param {{roomId: string | null}} props */
export function CallStrip({ roomId }) {
  useEffect(() => () => call.value?.stop(), [roomId]);
  if (!call.value) return trouble.value ? html`<p class="call-trouble" role="alert">${trouble.value}<button class="icon-button" aria-label="Hide" onClick=${() => { trouble.value = ""; }}><${Icon} name="close" size=${16} /></button></p>` : null;
  const mine = live.value[call.value.session];
  const words = state.value === "on" ? PHASES[mine?.phase ?? "listening"] ?? "Listening" : state.value === "asking" ? "Asking for the microphone…" : "Connecting…";
  return html`<section class="call-strip" aria-label="Call">
    <div class="call-now"><b role="status">${words}</b><${Meter} /><span class="call-partial" aria-live="off">${mine?.partial ?? ""}</span></div>
    ${mine?.turn && html`<${Turn} turn=${mine.turn} />`}
    ${channel.value?.hears === "sphinx" && html`<small>Understood offline on this server: it often mishears. Short, clear sentences work best.</small>`}
  </section>`;
}

function Meter() {
  return html`<meter min="0" max="1" value=${Math.min(1, level.value * 1.6)} aria-label="Loudness of your voice"></meter>`;
}

/** @param {{turn: Record<string, number | null>}} props */
function Turn({ turn }) {
  return html`<p class="call-turn">After your last word: ${timeLine(turn).map(({ name, ms }) => html`<span key=${name}>${name} <b>${ms} ms</b></span>`)}</p>`;
}
