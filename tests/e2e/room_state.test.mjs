// The pure half of the browser's room client, driven by scripted frames. Run by tests/e2e/test_pages_code.py.
import assert from "node:assert/strict";
import test from "node:test";
import { apply, emptyState, holed, project, queued, resumePoint, retried } from "../../roomkit/servers/pages/shared/room_state.js";

const source = { channel_id: "assistant", channel_type: "ai", participant_id: null };
const event = (index, more = {}) => ({
  id: `e${index}`, room_id: "r", index, type: "message", status: "committed", created_at: "2026-11-01T12:00:00Z",
  content: { type: "text", text: `text ${index}` }, source: { ...source, channel_id: "web", participant_id: "ada" }, metadata: {}, ...more,
});
const told = (index, prev = index - 1, more = {}) => ({ type: "event", index, prev, event: event(index, more) });
const snapshot = (events, more = {}) => ({
  type: "snapshot", room_id: "r", epoch: "one", index: events.at(-1)?.index ?? -1, room: { id: "r", status: "active", floor: { mode: "ai" } },
  participants: [], events, more: false, streams: [], ...more,
});
const start = (id, more = {}) => ({ type: "stream_start", room_id: "r", stream_id: id, source, ...more });
const chunk = (id, offset, delta) => ({ type: "stream_chunk", room_id: "r", stream_id: id, offset, delta });
const end = (id, index, prev, text) => ({
  type: "stream_end", room_id: "r", stream_id: id, index, prev, event: event(index, { id, source, content: { type: "text", text } }),
});
const play = (frames, state = emptyState()) => frames.reduce(apply, state);
const indexes = (state) => state.events.map((one) => one.index);
const live = () => play([snapshot([event(0), event(1)])]);

test("a snapshot and what follows, in order", () => {
  const state = play([snapshot([event(0), event(1)]), told(2), told(3)]);
  assert.deepEqual(indexes(state), [0, 1, 2, 3]);
  assert.deepEqual(resumePoint(state), { epoch: "one", index: 3 });
});

test("a repeated event changes nothing", () => {
  const once = play([told(2)], live());
  assert.deepEqual(play([told(2), told(1)], once), once);
});

test("events hidden from this viewer are no hole", () => {
  const state = play([told(7, 1)], live());
  assert.deepEqual(indexes(state), [0, 1, 7]);
  assert.equal(holed(state), false);
});

test("a lost event is noticed, nothing is shown past it, and resuming fills it", () => {
  const holedState = play([told(3)], live());
  assert.equal(holed(holedState), true);
  assert.deepEqual(indexes(holedState), [0, 1]);
  assert.equal(resumePoint(holedState).index, 1);
  const resumed = { ...snapshot([event(2), event(3)]), type: "resumed" };
  const state = play([resumed, told(3), told(4)], holedState);
  assert.deepEqual(indexes(state), [0, 1, 2, 3, 4]);
  assert.equal(holed(state), false);
});

test("a snapshot after a resync replaces everything", () => {
  const state = play([{ type: "resync_required", room_id: "r", reason: "epoch" }, snapshot([event(0)], { epoch: "two" })], live());
  assert.deepEqual(indexes(state), [0]);
  assert.equal(state.epoch, "two");
});

test("a reply grows token by token and is replaced by what was stored", () => {
  const growing = play([start("s"), chunk("s", 0, "Hel"), chunk("s", 3, "lo")], live());
  assert.equal(growing.streams.s.text, "Hello");
  const state = play([end("s", 2, 1, "Hello, world.")], growing);
  assert.deepEqual(state.streams, {});
  assert.equal(state.events.at(-1).content.text, "Hello, world.");
  assert.deepEqual(play([end("s", 2, 1, "again"), chunk("s", 5, "late"), start("s")], state), state);
});

test("repeated and overlapping chunks are said once", () => {
  const state = play([start("s"), chunk("s", 0, "abc"), chunk("s", 0, "abc"), chunk("s", 1, "bcde"), chunk("s", 2, "c")], live());
  assert.equal(state.streams.s.text, "abcde");
  assert.equal(holed(state), false);
});

test("chunks out of order wait for the missing one", () => {
  const waiting = play([start("s"), chunk("s", 6, "gh"), chunk("s", 3, "def")], live());
  assert.equal(waiting.streams.s.text, "");
  assert.equal(holed(waiting), true);
  const state = play([chunk("s", 0, "abc")], waiting);
  assert.equal(state.streams.s.text, "abcdefgh");
  assert.equal(holed(state), false);
});

test("offsets count characters, not UTF-16 units", () => {
  const state = play([start("s"), chunk("s", 0, "👋🏽 hé"), chunk("s", 5, "llo"), chunk("s", 7, "o 🎉"), chunk("s", 10, "!")], live());
  assert.equal(state.streams.s.text, "👋🏽 héllo 🎉!");
  assert.equal(holed(state), false);
});

test("a withdrawn reply disappears", () => {
  const state = play([start("s"), chunk("s", 0, "secret"), { type: "stream_error", room_id: "r", stream_id: "s", error: "blocked" }], live());
  assert.deepEqual(state.streams, {});
});

test("joining in the middle of a reply goes on where it is", () => {
  const state = play([snapshot([event(0)], { streams: [{ stream_id: "s", source, text: "So f👍r", offset: 6 }] }), chunk("s", 6, ", so good")]);
  assert.equal(state.streams.s.text, "So f👍r, so good");
});

test("a reply that ended while we were away is gone or stored, never both", () => {
  const growing = play([start("s"), start("t"), chunk("s", 0, "Hel"), chunk("t", 0, "x")], live());
  const stored = event(2, { id: "s", content: { type: "text", text: "Hello" } });
  const state = play([{ ...snapshot([stored]), type: "resumed", index: 2 }], growing);
  assert.deepEqual(state.streams, {});
  assert.equal(state.events.filter((one) => one.id === "s").length, 1);
});

test("a reply that is stored is never shown as being written as well", () => {
  const stored = event(2, { id: "s" });
  const state = play([snapshot([stored], { streams: [{ stream_id: "s", source, text: "Hel", offset: 3 }] }), start("s")]);
  assert.deepEqual(state.streams, {});
});

test("a crashed reply stored as an event closes its stream", () => {
  const state = play([start("s"), chunk("s", 0, "Hel"), told(2, 1, { id: "s" })], live());
  assert.deepEqual(state.streams, {});
});

const pending = (client_id) => ({ client_id, content: { type: "text", text: "hi" }, state: "sending", at: 0 });
const ack = (client_id, index) => ({ type: "ack", client_id, index, event_id: `e${index}`, duplicate: false });

test("our own message is shown once, whether ack or event comes first", () => {
  const mine = told(2, 1, { metadata: { client_id: "c" } });
  for (const frames of [[ack("c", 2), mine], [mine, ack("c", 2)]]) {
    let state = queued(live(), pending("c"));
    for (const frame of frames) {
      state = apply(state, frame);
      const shown = state.outbox.length + state.events.filter((one) => one.index === 2).length;
      assert.equal(shown, 1);
    }
    assert.deepEqual(state.outbox, []);
  }
});

test("an acknowledged message survives until its event is here", () => {
  const state = play([ack("c", 2)], queued(live(), pending("c")));
  assert.equal(state.outbox[0].state, "sent");
  const after = play([{ ...snapshot([event(2)]), type: "resumed" }], state);
  assert.deepEqual(after.outbox, []);
});

test("a refused message says why and can be tried again; one that is only too early waits", () => {
  const refused = play([{ type: "nack", client_id: "c", code: "blocked", message: "no links" }], queued(live(), pending("c")));
  assert.deepEqual([refused.outbox[0].state, refused.outbox[0].error], ["failed", "no links"]);
  assert.equal(retried(refused, "c").outbox[0].state, "sending");
  const early = play([{ type: "nack", client_id: "c", code: "rate_limited", message: "slow", retry_after: 2 }], queued(live(), pending("c")));
  assert.equal(early.outbox[0].state, "sending");
});

test("typing ends when it is said so, or when the words arrive", () => {
  const typing = { type: "ephemeral", room_id: "r", kind: "typing", sender: "ada", data: { on: true }, at: 5 };
  const state = play([typing], live());
  assert.equal(state.signs["typing:ada"].at, 5);
  assert.deepEqual(play([{ ...typing, data: { on: false } }], state).signs, {});
  assert.deepEqual(play([told(2)], state).signs, {});
});

test("older events join in front, without doubles", () => {
  const history = { type: "history", room_id: "r", events: [event(3), event(4), event(5)], more: true };
  const state = play([snapshot([event(5), event(6)], { more: true }), history, history]);
  assert.deepEqual(indexes(state), [3, 4, 5, 6]);
  assert.equal(state.more, true);
});

test("edits, deletions and reactions are folded into what they speak about", () => {
  const about = (index, type, more) => event(index, { type, content: { type, target_event_id: "e0", ...more } });
  const [first, blocked] = project([
    event(0),
    event(1, { status: "blocked" }),
    about(2, "reaction", { emoji: "👍", removed: false }),
    about(3, "edit", { new_content: { type: "text", text: "better" } }),
    about(4, "delete", {}),
  ]);
  assert.deepEqual([first.content.text, first.edited, first.deleted, first.reactions], ["better", true, true, { "👍": ["ada"] }]);
  assert.equal(blocked.event.status, "blocked");
});

test("what the server has folded already is not counted twice", () => {
  const react = (index, who, removed) => event(index, {
    type: "reaction", source: { ...source, participant_id: who }, content: { type: "reaction", target_event_id: "e0", emoji: "👍", removed },
  });
  const folded = event(0, { metadata: { reactions: { "👍": ["ada", "ben"] }, edited: true } });
  const [shown] = project([folded, react(1, "ada", false), react(2, "ben", true)]);
  assert.deepEqual([shown.reactions, shown.edited], [{ "👍": ["ada"] }, true]);
  assert.deepEqual(folded.metadata.reactions, { "👍": ["ada", "ben"] });
});

test("frames of an unknown type are ignored", () => {
  const state = live();
  assert.equal(apply(state, { type: "of the future" }), state);
});

test("any repetition and any cut in a long log ends in the same state", () => {
  let seed = 7;
  const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
  for (let round = 0; round < 300; round += 1) {
    const log = Array.from({ length: 12 }, (_, n) => event(n));
    let state = play([snapshot(log.slice(0, 1))]);
    let at = 1;
    while (at < log.length || holed(state)) {
      const step = random(4);
      if (step === 0) state = play([told(random(Math.max(1, at)))], state);
      else if (step === 1 && at < log.length) at += 1; // lost on the way
      else if (at < log.length) state = play([told(at++)], state);
      if (holed(state) || at >= log.length) {
        const from = resumePoint(state).index;
        state = play([{ ...snapshot(log.slice(from + 1, at)), type: "resumed", index: at - 1 }], state);
      }
    }
    assert.deepEqual(indexes(state), log.map((one) => one.index));
  }
});
