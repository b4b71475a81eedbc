/** Times, names and texts, as people read them. */

/** @param {string | number} at */
export const clockTime = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

/** @param {string | number} at */
export function dayName(at) {
  const date = new Date(at);
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(at).setHours(0, 0, 0, 0)) / 86_400_000);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return date.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" });
}

/** A running clock: 0:42, 12:05, 3:10 h. @param {number} ms */
export function clock(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)}:${two(seconds % 60)}`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}:${two(Math.floor((seconds % 3600) / 60))} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** @param {string | number | null | undefined} at @param {number} now */
export function ago(at, now) {
  if (!at) return "";
  const seconds = Math.max(0, (now - new Date(at).getTime()) / 1000);
  if (seconds < 45) return "now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min`;
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h`;
  return new Date(at).toLocaleDateString([], { day: "numeric", month: "short" });
}

/** @param {number | null | undefined} bytes */
export function fileSize(bytes) {
  if (!bytes) return "";
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 ** 2) return `${Math.round(bytes / 1024)} KB`;
  return `${(bytes / 1024 ** 2).toFixed(1)} MB`;
}

/** The words inside any content. @param {any} content @returns {string} */
export function wordsOf(content) {
  if (!content) return "";
  if (content.type === "composite") return content.parts.map(wordsOf).filter(Boolean).join("\n");
  if (content.type === "edit") return wordsOf(content.new_content);
  return content.text ?? content.caption ?? content.message ?? content.transcript ?? content.fallback ?? content.label ?? content.address ?? "";
}

/** Two letters for a round picture. @param {string} name */
export function initials(name) {
  if (/^[+\d]/.test(name)) return name.replace(/\D/g, "").slice(-2);
  const words = name.replace(/[^\p{L}\p{N} ]/gu, " ").trim().split(/\s+/);
  return ((words[0]?.[0] ?? "?") + (words.length > 1 ? words[words.length - 1][0] : "")).toUpperCase();
}

/** A steady number from 0 to 5 for a name: its colour. @param {string} name */
export const hueOf = (name) => [...name].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 997, 7) % 6;

/** "order_lookup" reads as "order lookup". @param {string} name */
export const spaced = (name) => name.replace(/[_-]+/g, " ");
