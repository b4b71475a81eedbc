/**
 * A call from a page: the microphone to the server, the server's voice to the loudspeaker.
 *
 *   const call = new VoiceCall({ channel: "voice", token: () => token, roomId, onState, onLevel });
 *   await call.start();   // from a click: browsers ask for the microphone then
 *   call.stop();
 *
 * What is understood, and what the room does with it, comes through the room socket (`voice_state.js`).
 */
import { root } from "./lib.js";
import { currentToken } from "./session.js";

/** @typedef {"off" | "asking" | "connecting" | "on" | "ended"} CallState */

/** Bytes that may wait to be sent: two seconds of sound. What is later than that nobody wants to hear. */
const MOST_WAITING = 64_000;
const PING = 10_000;
/** A call whose server went away is tried again so often, after so many ms at first and twice as many each time. */
const TRIES = 6;
const SOON = 500;
/** Why a connection ends that may come back: it broke, or the server goes away, failed, restarts, is full. */
const BACK = new Set([1001, 1006, 1011, 1012, 1013]);
/** @type {Record<number, string>} */
const WHY = {
  1001: "The server is going away. Call again in a moment.", 1013: "Too many calls at the moment.", 4401: "This link has expired.", 4403: "You may not call here.",
  4404: "Nobody takes calls here.", 4406: "Your call was not taken.", 4408: "The connection is too slow for a call.", 4409: "The connection was silent for too long.", 4429: "Too many calls. Wait a moment.",
};

export class VoiceCall {
  /**
   * @param {{channel: string, roomId: string, token?: () => string | null, listenOnly?: boolean,
   *   onState: (state: CallState, trouble: string) => void, onLevel?: (level: number, own: boolean) => void}} options
   */
  constructor(options) {
    this.options = options;
    /** @type {CallState} */
    this.state = "off";
    this.session = "";
    /** Frames of the microphone that were not sent, because the connection was behind. */
    this.dropped = 0;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {AudioContext | null} */
    this.context = null;
    /** @type {MediaStream | null} */
    this.stream = null;
    /** @type {AudioWorkletNode | null} */
    this.mouth = null;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.pinging = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.trying = undefined;
    /** How often the connection was tried again since it last stood; -1 before it ever did. */
    this.tries = -1;
  }

  async start() {
    this.#become("asking");
    try {
      const context = this.context = new AudioContext({ latencyHint: "interactive" });
      void context.resume();
      if (!context.audioWorklet || (!this.options.listenOnly && !navigator.mediaDevices)) throw new Error("A microphone needs https, or a page of this machine.");
      const microphone = this.options.listenOnly ? null : navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 } });
      const [stream] = await Promise.all([microphone, context.audioWorklet.addModule(new URL("voice_worklet.js", import.meta.url))]);
      this.stream = stream;
      if (this.#over()) return this.#release();
    } catch (error) {
      return this.#end(trouble(error));
    }
    this.#become("connecting");
    this.#connect();
  }

  /** Hangs up. May be called at any time. */
  stop() {
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify({ type: "bye" }));
    this.#end("");
  }

  #connect() {
    const url = String(new URL(`voice/${encodeURIComponent(this.options.channel)}`, root())).replace(/^http/, "ws");
    const socket = this.socket = new WebSocket(url);
    const { token = currentToken, roomId, listenOnly = false } = this.options;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      socket.send(JSON.stringify({ type: "auth", token: token() ?? "" }));
      socket.send(JSON.stringify({ type: "join", room_id: roomId, listen_only: listenOnly, again: this.tries > 0 }));
    };
    socket.onmessage = ({ data }) => this.#heard(data);
    socket.onclose = ({ code }) => this.#lost(code);
    clearInterval(this.pinging);
    this.pinging = setInterval(() => this.#say({ type: "ping" }), PING);
  }

  /** @param {number} code */
  #lost(code) {
    if (this.#over()) return;
    if (this.tries < 0 || this.tries >= TRIES || !BACK.has(code)) return this.#end(WHY[code] ?? (code === 1000 ? "" : "The connection was lost. Call again."));
    this.mouth?.disconnect();
    this.mouth = null;
    this.#become("connecting");
    this.trying = setTimeout(() => this.#connect(), SOON * 2 ** this.tries++);
  }

  /** @param {ArrayBuffer | string} data */
  #heard(data) {
    if (data instanceof ArrayBuffer) return this.mouth?.port.postMessage({ pcm: data }, [data]);
    const told = JSON.parse(data);
    if (told.type === "ready") this.#begin(told.session);
    if (told.type === "clear") this.mouth?.port.postMessage({ epoch: told.epoch });
  }

  /** @param {string} session */
  #begin(session) {
    const { context, stream } = this;
    if (!context || this.#over()) return;
    this.session = session;
    const back = this.tries >= 0;
    this.tries = 0;
    this.mouth = new AudioWorkletNode(context, "roomkit-mouth", { numberOfInputs: 0, numberOfOutputs: 1, outputChannelCount: [1] });
    this.mouth.port.onmessage = ({ data: { epoch, position, level } }) => {
      this.#say({ type: "played", epoch, position });
      this.options.onLevel?.(level, false);
    };
    this.mouth.connect(context.destination);
    if (stream && !back) {
      const ear = new AudioWorkletNode(context, "roomkit-ear", { numberOfInputs: 1, numberOfOutputs: 1 });
      ear.port.onmessage = ({ data: { message, level } }) => {
        if (this.socket?.readyState !== 1) return;
        if (this.socket.bufferedAmount > MOST_WAITING) this.dropped++;
        else this.socket.send(message);
        this.options.onLevel?.(level, true);
      };
      context.createMediaStreamSource(stream).connect(ear);
      ear.connect(context.destination); // it plays nothing, but what leads nowhere is not run
      for (const track of stream.getTracks()) track.onended = () => this.stop();
    }
    this.#become("on");
  }

  /** @param {object} frame */
  #say(frame) { if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(frame)); }

  #over() { return this.state === "ended"; }

  /** @param {string} why */
  #end(why) {
    if (this.#over()) return;
    this.#release();
    this.#become("ended", why);
  }

  #release() {
    clearInterval(this.pinging);
    clearTimeout(this.trying);
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    if (this.context && this.context.state !== "closed") void this.context.close();
    this.socket?.close(1000);
    this.mouth = null;
  }

  /** @param {CallState} state @param {string} [why] */
  #become(state, why = "") {
    this.state = state;
    this.options.onState(state, why);
  }
}

/** @param {unknown} error */
function trouble(error) {
  const name = error instanceof Error ? error.name : "";
  if (name === "NotAllowedError") return "The microphone was not allowed.";
  if (name === "NotFoundError") return "There is no microphone.";
  return error instanceof Error ? error.message : "The microphone could not be opened.";
}

/** The channels that take calls from this page. @returns {Promise<{id: string, by: string, hears?: string}[]>} */
export async function voiceChannels() {
  try {
    const answer = await fetch(new URL("voice", root()), { headers: { Authorization: `Bearer ${currentToken() ?? ""}` } });
    return answer.ok ? (await answer.json()).channels : [];
  } catch {
    return [];
  }
}
