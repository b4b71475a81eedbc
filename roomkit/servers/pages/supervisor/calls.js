/** The calls of the open room, live: who speaks, what is understood, how long an answer takes; and listening in. */
import { Icon } from "../shared/icons.js";
import { html, signal } from "../shared/lib.js";
import { VoiceCall, voiceChannels } from "../shared/voice.js";
import { FADES, heardOf, loudness, PHASES, timeLine } from "../shared/voice_state.js";

/** @typedef {import("../shared/voice_state.js").Live} Live */

const calls = signal(/** @type {Record<string, Live>} */ ({}));
const listening = signal(/** @type {VoiceCall | null} */ (null));
const heard = signal(false);
const trouble = signal("");
const channel = signal("");

/** @param {any} frame of the room socket */
export function voiceHeard(frame) {
  calls.value = frame.type === "snapshot" ? {} : heardOf(calls.value, frame);
  if (frame.type === "snapshot") void voiceChannels().then((found) => { channel.value = found.find((one) => one.by === "socket")?.id ?? ""; });
}

/** @param {string} roomId */
function listen(roomId) {
  if (listening.value) return listening.value.stop();
  const line = listening.value = new VoiceCall({
    channel: channel.value, roomId, listenOnly: true,
    onState: (state, why) => {
      trouble.value = why;
      heard.value = state === "on";
      if (state === "ended" && listening.value === line) listening.value = null;
    },
  });
  void line.start();
}

export const stopListening = () => listening.value?.stop();

/** @param {{roomId: string, now: number}} props */
export function Calls({ roomId, now }) {
  const own = listening.value?.session;
  const live = Object.values(calls.value).filter((one) => now - one.at < FADES && one.session !== own);
  if (!live.length && !listening.value) return null;
  return html`<section class="calls" aria-label="Calls"><h2><${Icon} name="voice" size=${15} />${live.length === 1 ? "On a call" : `${live.length} calls`}
      ${channel.value && html`<button class="button small" aria-pressed=${listening.value !== null} onClick=${() => listen(roomId)}><${Icon} name=${listening.value ? "silent" : "sound"} size=${14} />${!listening.value ? "Listen" : heard.value ? "Stop listening" : "Connecting…"}</button>`}</h2>
    ${trouble.value && html`<p role="alert">${trouble.value}</p>`}
    ${live.map((one) => html`<article key=${one.session} class="call">
      <p><b>${PHASES[one.phase] ?? one.phase}</b><meter min="0" max="1" value=${loudness(one.inbound)} aria-label="Loudness of the caller"></meter><meter min="0" max="1" value=${one.phase === "speaking" ? loudness(one.outbound) : 0} aria-label="Loudness of the answer"></meter></p>
      ${one.partial && html`<p class="call-partial">${one.partial}</p>`}
      ${one.turn && html`<p class="call-turn">${timeLine(one.turn).map(({ name, ms }) => html`<span key=${name}>${name} <b>${ms} ms</b></span>`)}</p>`}
    </article>`)}</section>`;
}
