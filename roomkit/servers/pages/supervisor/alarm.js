/** Somebody waits for a person: a short sound and a notification, each only where it was asked for. */
import { effect, signal } from "../shared/lib.js";
import { since, titleOf, waiting, whyWaiting } from "./model.js";

const AGAIN = 45_000;
export const sound = signal(localStorage.getItem("roomkit.sound") === "on");
export const notices = signal(localStorage.getItem("roomkit.notices") === "on" && "Notification" in window && Notification.permission === "granted");

/** @type {AudioContext | null} */
let audio = null;

function chime() {
  audio ??= new AudioContext();
  void audio.resume();
  for (const [n, pitch] of [659, 880].entries()) {
    const tone = audio.createOscillator(), volume = audio.createGain();
    const at = audio.currentTime + n * 0.16;
    tone.frequency.value = pitch;
    volume.gain.setValueAtTime(0, at);
    volume.gain.linearRampToValueAtTime(0.14, at + 0.02);
    volume.gain.exponentialRampToValueAtTime(0.0005, at + 0.5);
    tone.connect(volume).connect(audio.destination);
    tone.start(at);
    tone.stop(at + 0.55);
  }
}

export function toggleSound() {
  sound.value = !sound.value;
  localStorage.setItem("roomkit.sound", sound.value ? "on" : "off");
  if (sound.value) chime();
}

export async function toggleNotices() {
  if (!("Notification" in window)) return;
  notices.value = !notices.value && (await Notification.requestPermission()) === "granted";
  localStorage.setItem("roomkit.notices", notices.value ? "on" : "off");
}

/** @param {import("../shared/types.js").Room} room */
function notify(room) {
  if (!notices.value || document.visibilityState === "visible") return;
  const notice = new Notification(`${titleOf(room)} waits for a person`, { body: whyWaiting(room), tag: room.id });
  notice.onclick = () => window.focus();
}

export function watchAttention() {
  /** @type {Set<string> | null} */
  let known = null;
  effect(() => {
    const queue = waiting.value;
    const fresh = queue.filter((room) => known && !known.has(room.id));
    // Those who waited before the page opened are seen, not heard.
    known = new Set(queue.map((room) => room.id));
    fresh.forEach(notify);
    if (fresh.length && sound.peek()) chime();
    document.title = queue.length ? `(${queue.length}) Supervisor` : "Supervisor";
  });
  setInterval(() => { if (sound.value && waiting.value.some((room) => Date.now() - since(room) > AGAIN)) chime(); }, AGAIN);
}
