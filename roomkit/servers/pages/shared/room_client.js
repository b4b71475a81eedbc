/**
 * The room socket's client in a browser: connects, joins, resumes, sends until acknowledged. Shows nothing itself.
 * What a frame means is decided by `room_state.js`; this file owns the socket and the timers.
 */
import { apply, dropped, emptyState, holed, queued, resumePoint, retried } from "./room_state.js";

/** @typedef {import("./types.js").Frame} Frame */
/** @typedef {import("./types.js").RoomState} RoomState */
/** @typedef {import("./types.js").Link} Link */

const FIRST_WAIT = 300;
const LONGEST_WAIT = 15_000;
const JOIN_TAIL = 100;
const WATCHING = "watching";
/** Codes after which trying again cannot help, or only with another token. @type {Record<number, Link>} */
const FINAL = { 4401: "unauthorized", 4403: "refused" };

export class RoomClient {
  /**
   * @param {{url: string, token: () => string | null, roomId?: string | null, watch?: boolean, storage?: Storage | null,
   *   renew?: () => Promise<string>, onState: (state: RoomState) => void, onLink: (link: Link) => void, onFrame?: (frame: Frame) => void, onWatching?: () => void}} options
   *   `onWatching` is called once the server tells of every room: what is read from then on misses nothing
   */
  constructor(options) {
    this.options = options;
    this.roomId = options.roomId ?? null;
    this.state = emptyState();
    /** @type {import("./types.js").Principal | null} */
    this.principal = null;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {Link} */
    this.link = "connecting";
    this.tries = 0;
    this.typed = 0;
    this.heard = 0;
    this.heartbeat = 20_000;
    this.joining = false;
    this.inRoom = false;
    this.wasLive = false;
    this.stopped = false;
    /** @type {Record<string, ReturnType<typeof setTimeout>>} */
    this.timers = {};
    this.wake = () => this.#wakened();
  }

  start() {
    addEventListener("online", this.wake);
    addEventListener("offline", this.wake); // a look, no more: a server of this machine is there without a network
    addEventListener("pageshow", this.wake);
    document.addEventListener("visibilitychange", this.wake);
    this.#connect();
  }

  stop() {
    this.stopped = true;
    removeEventListener("online", this.wake);
    removeEventListener("offline", this.wake);
    removeEventListener("pageshow", this.wake);
    document.removeEventListener("visibilitychange", this.wake);
    for (const name of Object.keys(this.timers)) this.#cancel(name);
    this.socket?.close(1000);
    this.#setLink("stopped");
  }

  /** Enters a room, leaving the one before. @param {string} roomId */
  open(roomId) {
    this.roomId = roomId;
    this.joining = false;
    this.inRoom = false;
    this.state = { ...emptyState(), outbox: this.#restored(roomId) };
    this.options.onState(this.state);
    this.#join();
  }

  /** Shown at once; sent again after every reconnect until the server says that it is durable.
   * @param {import("./types.js").Content} content */
  send(content) {
    const pending = { client_id: newId(), content, state: /** @type {const} */ ("sending"), at: Date.now() };
    this.#become(queued(this.state, pending));
    this.#emit(pending);
  }

  /** @param {string} clientId */
  retry(clientId) {
    this.#become(retried(this.state, clientId));
    const pending = this.state.outbox.find((one) => one.client_id === clientId);
    if (pending) this.#emit(pending);
  }

  /** @param {string} clientId */
  discard(clientId) { this.#become(dropped(this.state, clientId)); }

  /** May be called at every key: it is said again only every four seconds. @param {boolean} on */
  typing(on) {
    const again = Date.now() - this.typed > 4000;
    if (on ? !again : !this.typed) return;
    this.typed = on ? Date.now() : 0;
    this.#say({ type: "typing", on });
  }

  /** @param {string} state */
  presence(state) { this.#say({ type: "presence", state }); }

  /** @param {number} index */
  read(index) { this.#say({ type: "read", index }); }

  older() {
    const first = this.state.events[0]?.index ?? this.state.position + 1;
    if (this.state.more) this.#say({ type: "history", before: first, limit: 50 });
  }

  #connect() {
    if (this.stopped || this.socket) return;
    const socket = new WebSocket(this.options.url);
    this.socket = socket;
    this.heard = Date.now();
    socket.onopen = () => socket.send(JSON.stringify({ type: "auth", token: this.options.token() ?? "", v: 1 }));
    socket.onmessage = (message) => this.#receive(JSON.parse(message.data));
    socket.onclose = (closed) => { if (this.socket === socket) this.#lost(closed.code); };
    this.#later("watch", 10_000, () => this.#beat());
  }

  /** @param {number} code */
  #lost(code) {
    this.socket = null;
    this.joining = false;
    this.inRoom = false;
    for (const name of ["watch", "probe", "renew"]) this.#cancel(name);
    if (this.stopped) return;
    if (FINAL[code]) return this.#setLink(FINAL[code]);
    this.#setLink(this.wasLive ? "lost" : "connecting");
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.tries++) * (0.5 + Math.random() / 2);
    this.#later("reconnect", code === 1013 || code === 4429 ? wait + 2000 : wait, () => this.#connect());
  }

  /** @param {Frame} frame */
  #receive(frame) {
    this.heard = Date.now();
    if (frame.type === "welcome") this.#welcomed(frame);
    if (frame.type === "pong") return void (frame.t === WATCHING && this.options.onWatching?.());
    if (frame.type === "nack" && frame.retry_after != null) this.#resendAfter(frame.client_id, frame.retry_after);
    if (frame.type === "ephemeral") frame = { ...frame, at: Date.now() };
    if (frame.type === "error" && frame.ref === "join") this.joining = false;
    if (roomOf(frame) !== null && roomOf(frame) !== this.roomId) return void this.options.onFrame?.(frame);
    this.#become(apply(this.state, frame));
    if (frame.type === "snapshot" || frame.type === "resumed") this.#joined();
    if (holed(this.state)) this.#join();
    this.options.onFrame?.(frame);
  }

  /** @param {Extract<Frame, {type: "welcome"}>} frame */
  #welcomed(frame) {
    this.principal = frame.principal;
    this.heartbeat = frame.heartbeat_s * 1000;
    if (this.options.watch) {
      this.#say({ type: "watch", on: true });
      this.#say({ type: "ping", t: WATCHING }); // Frames are taken in order: its answer says that the one before was.
    }
    if (!this.roomId && frame.principal.room_id) {
      this.roomId = frame.principal.room_id;
      this.#become({ ...this.state, outbox: this.#restored(this.roomId) });
    }
    this.#later("watch", this.heartbeat / 2, () => this.#beat());
    this.#renewBefore(frame.expires_at);
    if (this.inRoom) return;
    if (this.roomId) this.#join();
    else this.#live();
  }

  /** A fresh token well before the old one ends, so that an eight-hour shift is one session. @param {number | null} expires */
  #renewBefore(expires) {
    const { renew } = this.options;
    if (!expires || !renew) return;
    const left = expires * 1000 - Date.now();
    this.#later("renew", Math.min(Math.max(left * 0.75, 1000), 2 ** 31 - 1), () => {
      renew().then((token) => this.#say({ type: "auth", token, v: 1 }), () => this.#renewBefore(expires));
    });
  }

  #join() {
    if (!this.roomId || this.joining) return;
    this.joining = this.#say({ type: "join", room_id: this.roomId, tail: JOIN_TAIL, resume: resumePoint(this.state) ?? undefined });
  }

  #joined() {
    this.joining = false;
    this.inRoom = true;
    for (const pending of this.state.outbox) if (pending.state === "sending") this.#emit(pending);
    this.#live();
  }

  #live() {
    this.tries = 0;
    if (this.link === "lost") {
      this.#setLink("back");
      this.#later("back", 2500, () => this.#setLink("live"));
    } else if (this.link !== "back") this.#setLink("live");
    this.wasLive = true;
  }

  /** @param {import("./types.js").Pending} pending */
  #emit(pending) {
    if (this.joining || !this.inRoom) return;
    const { client_id, content } = pending;
    const plain = content.type === "text" && Object.keys(content).length === 2;
    this.#say({ type: "send", client_id, ...(plain ? { text: content.text } : { content }) });
  }

  /** @param {string} clientId @param {number} seconds */
  #resendAfter(clientId, seconds) {
    this.#later(`resend:${clientId}`, seconds * 1000 + 50, () => {
      const pending = this.state.outbox.find((one) => one.client_id === clientId && one.state === "sending");
      if (pending) this.#emit(pending);
    });
  }

  /** Silence for two and a half heartbeats is a lost connection, whatever the socket believes. */
  #beat() {
    if (Date.now() - this.heard > this.heartbeat * 2.5) {
      return this.#drop();
    }
    this.#say({ type: "ping" });
    this.#later("watch", this.heartbeat / 2, () => this.#beat());
  }

  #wakened() {
    if (document.visibilityState === "hidden" || this.stopped || FINAL_LINKS.has(this.link)) return;
    if (this.socket) return this.#probe();
    this.#cancel("reconnect");
    this.tries = 0;
    this.#connect();
  }

  /** After a phone's sleep the socket often looks alive and is not. */
  #probe() {
    const asked = Date.now();
    this.#say({ type: "ping" });
    this.#later("probe", 4000, () => { if (this.heard < asked) this.#drop(); });
  }

  #drop() {
    const socket = this.socket;
    this.#lost(1006);
    socket?.close();
  }

  /** @param {object} frame @returns {boolean} whether it went out */
  #say(frame) {
    if (this.socket?.readyState !== 1) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  /** @param {RoomState} state */
  #become(state) {
    if (state === this.state) return;
    if (state.outbox !== this.state.outbox) this.#keep(state);
    this.state = state;
    this.options.onState(state);
  }

  /** What is not acknowledged survives a reload of the page. @param {RoomState} state */
  #keep(state) {
    const key = `roomkit.outbox.${this.roomId}`;
    if (state.outbox.length) this.options.storage?.setItem(key, JSON.stringify(state.outbox));
    else this.options.storage?.removeItem(key);
  }

  /** @param {string} roomId @returns {import("./types.js").Pending[]} */
  #restored(roomId) {
    try {
      const kept = JSON.parse(this.options.storage?.getItem(`roomkit.outbox.${roomId}`) ?? "[]");
      return kept.filter((/** @type {import("./types.js").Pending} */ one) => one.state !== "sent");
    } catch {
      return [];
    }
  }

  /** @param {Link} link */
  #setLink(link) {
    this.link = link;
    this.options.onLink(link);
  }

  /** @param {string} name @param {number} ms @param {() => void} run */
  #later(name, ms, run) {
    this.#cancel(name);
    this.timers[name] = setTimeout(run, ms);
  }

  /** @param {string} name */
  #cancel(name) { clearTimeout(this.timers[name]); }
}

const FINAL_LINKS = new Set(["unauthorized", "refused", "stopped"]);

/** The room that a frame speaks about. @param {any} frame */
const roomOf = (frame) => frame.room_id ?? frame.event?.room_id ?? frame.room?.id ?? null;

/** `randomUUID` exists in secure contexts only; a phone on the local network sees none. */
/** An id that nobody else has; `randomUUID` is there only where the page is trusted. */
export const newId = () => crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
