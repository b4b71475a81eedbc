/** The REST API: one function, one kind of failure. */
import { root } from "./lib.js";
import { currentToken, setToken } from "./session.js";

export class ApiError extends Error {
  /** @param {number} status @param {string} code @param {string} message */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/**
 * @param {string} method @param {string} path below `api/`, its parts already encoded
 * @param {any} [body] JSON, or a Blob as it is
 * @returns {Promise<any>}
 */
export async function api(method, path, body) {
  /** @type {Record<string, string>} */
  const headers = { Authorization: `Bearer ${currentToken() ?? ""}` };
  const raw = body instanceof Blob;
  if (body !== undefined) headers["Content-Type"] = raw ? body.type || "application/octet-stream" : "application/json";
  let answer;
  try {
    answer = await fetch(new URL(`api/${path}`, root()), { method, headers, body: raw ? body : body && JSON.stringify(body) });
  } catch {
    throw new ApiError(0, "offline", "The server cannot be reached. Try again in a moment.");
  }
  const told = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok) return told;
  throw new ApiError(answer.status, told?.error?.code ?? "failed", told?.error?.message ?? `The server answered ${answer.status}.`);
}

/** @param {string} roomId @param {string} [rest] */
export const roomPath = (roomId, rest = "") => `rooms/${encodeURIComponent(roomId)}${rest && `/${rest}`}`;

export async function renew() {
  const { token } = await api("POST", "tokens/refresh");
  setToken(token);
  return token;
}

export const socketUrl = () => String(new URL("socket", root())).replace(/^http/, "ws");

/** @type {Map<string, Promise<string>>} */
const links = new Map();

/** A link to a stored file that needs no header. Asked for once in nine minutes: it is good for ten.
 * @param {string} roomId @param {string} url @returns {Promise<string>} */
export function mediaLink(roomId, url) {
  if (!url.startsWith("blob:")) return Promise.resolve(url);
  const known = links.get(url);
  if (known) return known;
  const asked = api("GET", roomPath(roomId, `media/${encodeURIComponent(url.slice(5))}`)).then(({ href }) => String(new URL(href, root())));
  links.set(url, asked);
  setTimeout(() => links.delete(url), 540_000);
  asked.catch(() => links.delete(url));
  return asked;
}

/** @param {string} roomId @param {File} file */
export async function upload(roomId, file) {
  const kept = await api("POST", roomPath(roomId, `media?filename=${encodeURIComponent(file.name)}`), file);
  return { type: "media", url: kept.url, mime_type: kept.mime_type, filename: kept.filename ?? file.name, size_bytes: kept.size_bytes };
}
