/**
 * What a page knows about the calls of its room: a pure function of the signs of life on the room socket.
 *
 * @typedef {{session: string, phase: string, partial: string, inbound: number, outbound: number, turn: Record<string, number | null> | null, at: number}} Live
 */

/** A call tells its loudness ten times a second; one that says nothing for so long (ms) is over. */
export const FADES = 4000;
/** The stages of a turn, in their order. @type {[string, string][]} */
export const STAGES = [["transcript_ms", "understood"], ["decided_ms", "decided"], ["first_token_ms", "first word"], ["tts_first_byte_ms", "voice"], ["first_audio_ms", "heard"]];
/** @type {Record<string, string>} */
export const PHASES = { listening: "Listening", hearing: "Hearing you", deciding: "Was that all?", thinking: "Thinking", speaking: "Speaking", doubting: "Speaking, and hearing you" };

/** @param {Record<string, Live>} calls @param {any} frame @returns {Record<string, Live>} the same when it is about something else */
export function heardOf(calls, frame) {
  if (frame.type !== "ephemeral" || !frame.kind.startsWith("voice_") || !frame.data.session) return calls;
  const { session, ...data } = frame.data;
  const at = frame.at ?? 0;
  const kept = Object.fromEntries(Object.entries(calls).filter(([, one]) => at - one.at < FADES));
  const live = { ...(kept[session] ?? { session, phase: "listening", partial: "", inbound: -100, outbound: -100, turn: null }), at };
  switch (frame.kind) {
    case "voice_phase":
      live.phase = data.phase;
      if (["thinking", "speaking"].includes(data.phase)) live.partial = "";
      break;
    case "voice_partial": live.partial = data.text; break;
    case "voice_level": live[/** @type {"inbound"} */ (data.direction)] = data.dbfs; break;
    case "voice_turn": live.turn = data; break;
    default:
  }
  if (live.phase === "ended") delete kept[session];
  else kept[session] = live;
  return kept;
}

/** Loudness as a part of a meter. @param {number} dbfs */
export const loudness = (dbfs) => Math.max(0, Math.min(1, (dbfs + 60) / 54));

/** A turn in words. @param {Record<string, number | null>} turn */
export const timeLine = (turn) => STAGES.filter(([key]) => turn[key] != null).map(([key, name]) => ({ name, ms: Math.round(turn[key] ?? 0) }));
