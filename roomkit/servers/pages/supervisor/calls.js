/** The calls of the open room, live: who speaks, what is understood, how long an answer takes; listening in; and speaking with them. */
import { Icon } from "../shared/icons.js";
import { html, signal } from "../shared/lib.js";
import { VoiceCall, voiceChannels } from "../shared/voice.js";
import { FADES, heardOf, loudness, PHASES, timeLine } from "../shared/voice_state.js";

/** @typedef {import("../shared/voice_state.js").Live} Live */

const calls = signal(/** @type {Record<string, Live>} */ ({}));
/** The own line to the room: of who only listens, or of who has the floor and speaks. */
const listening = signal(/** @type {VoiceCall | null} */ (null));
const speaks = signal(false);
const heard = signal(false);
const trouble = signal("");
const channel = signal("");

/** @param {any} frame of the room socket */
export function voiceHeard(frame) {
  calls.value = frame.type === "snapshot" ? {} : heardOf(calls.value, frame);
  if (frame.type === "snapshot") void voiceChannels().then((found) => { channel.value = found.find((one) => one.by === "socket")?.id ?? ""; });
}

/** @param {string} roomId @param {boolean} [aloud] with the own microphone */
function listen(roomId, aloud = false) {
  const before = listening.value;
  if (before) before.stop();
  if (before && speaks.value === aloud) return;
  speaks.value = aloud;
  const line = listening.value = new VoiceCall({
    channel: channel.value, roomId, listenOnly: !aloud,
    onState: (state, why) => {
      trouble.value = why;
      heard.value = state === "on";
      if (state === "ended" && listening.value === line) listening.value = null;
    },
  });
  void line.start();
}

export const stopListening = () => listening.value?.stop();

/** @param {{roomId: string, now: number, mine: boolean}} props `mine`: whoever looks has the floor */
export function Calls({ roomId, now, mine }) {
  const own = listening.value?.session;
  const live = Object.values(calls.value).filter((one) => now - one.at < FADES && one.session !== own);
  if (!live.length && !listening.value) return null;
  const [hears, talks] = [listening.value !== null && !speaks.value, listening.value !== null && speaks.value];
  return html`<section class="calls" aria-label="Calls"><h2><${Icon} name="voice" size=${15} />${live.length === 1 ? "On a call" : `${live.length} calls`}
      ${channel.value && html`<button class="button small" aria-pressed=${hears} onClick=${() => listen(roomId)}><${Icon} name=${hears ? "silent" : "sound"} size=${14} />${!hears ? "Listen" : heard.value ? "Stop listening" : "Connecting…"}</button>`}
      ${channel.value && (mine || talks) && html`<button class="button small" aria-pressed=${talks} title="The callers hear you" onClick=${() => listen(roomId, true)}><${Icon} name="voice" size=${14} />${!talks ? "Speak" : heard.value ? "Stop speaking" : "Connecting…"}</button>`}</h2>
    ${trouble.value && html`<p role="alert">${trouble.value}</p>`}
    ${live.map((one) => html`<article key=${one.session} class="call">
      <p><b>${PHASES[one.phase] ?? one.phase}</b><meter min="0" max="1" value=${loudness(one.inbound)} aria-label="Loudness of the caller"></meter><meter min="0" max="1" value=${one.phase === "speaking" ? loudness(one.outbound) : 0} aria-label="Loudness of the answer"></meter></p>
      ${one.partial && html`<p class="call-partial">${one.partial}</p>`}
      ${one.turn && html`<p class="call-turn">${timeLine(one.turn).map(({ name, ms }) => html`<span key=${name}>${name} <b>${ms} ms</b></span>`)}</p>`}
    </article>`)}</section>`;
}
