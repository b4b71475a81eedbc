// The half that owns the socket and the timers, against a scripted server and a clock that is moved by hand.
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

/** @type {FakeSocket[]} */
let sockets = [];
class FakeSocket {
  constructor(url) {
    Object.assign(this, { url, readyState: 0, sent: [] });
    sockets.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  close() { this.readyState = 3; }
  open() { this.readyState = 1; this.onopen(); }
  tell(frame) { this.onmessage({ data: JSON.stringify(frame) }); }
  end(code) { this.readyState = 3; this.onclose({ code }); }
  of(type) { return this.sent.filter((frame) => frame.type === type); }
}
const listeners = {};
Object.assign(globalThis, {
  WebSocket: FakeSocket,
  addEventListener: (name, run) => { listeners[name] = run; },
  removeEventListener: () => {},
  document: { addEventListener: () => {}, removeEventListener: () => {}, visibilityState: "visible" },
});
const { RoomClient } = await import("../../roomkit/servers/pages/shared/room_client.js");

const event = (index, more = {}) => ({ id: `e${index}`, room_id: "r", index, type: "message", status: "committed", content: { type: "text", text: "x" }, source: { channel_id: "web" }, metadata: {}, ...more });
const entered = (type, events, index, more = {}) => ({ type, room_id: "r", epoch: "one", index, room: { id: "r" }, participants: [], events, more: false, streams: [], ...more });
const welcome = { type: "welcome", principal: { id: "ada", role: "guest", room_id: "r" }, heartbeat_s: 20, expires_at: null, limits: {} };
const memory = () => {
  const kept = new Map();
  return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
};

/** Time passes in small steps: a timer that sets a timer is seen at its own moment. */
function pass(ms) {
  for (let left = ms; left > 0; left -= 50) mock.timers.tick(Math.min(50, left));
}

let links, client, storage;
const last = () => sockets.at(-1);
function make(more = {}) {
  links = [];
  client = new RoomClient({ url: "ws://x/socket", token: () => "secret", storage, onState: () => {}, onLink: (link) => links.push(link), ...more });
  client.start();
}
function live(socket = last(), frame = entered("snapshot", [event(0)], 0)) {
  socket.open();
  socket.tell(welcome);
  socket.tell(frame);
}

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_790_000_000_000 });
  sockets = [];
  storage = memory();
  make();
});
afterEach(() => {
  client.stop();
  mock.timers.reset();
});

test("the token goes in the first frame, never in the address", () => {
  live();
  assert.deepEqual(last().sent.map((frame) => frame.type), ["auth", "join"]);
  assert.equal(last().sent[0].token, "secret");
  assert.doesNotMatch(last().url, /secret/);
  assert.deepEqual(links, ["live"]);
});

test("after a cut it resumes where it was and sends again what was not acknowledged, under the same ids", () => {
  live();
  client.send({ type: "text", text: "one" });
  client.send({ type: "text", text: "two" });
  const [first, second] = last().of("send");
  last().tell({ type: "ack", client_id: first.client_id, index: 1, event_id: "e1", duplicate: false });
  last().end(1006);
  assert.equal(links.at(-1), "lost");
  client.send({ type: "text", text: "three" });
  pass(1000);
  assert.equal(sockets.length, 2);
  last().open();
  last().tell(welcome);
  assert.deepEqual(last().of("join")[0].resume, { epoch: "one", index: 0 });
  assert.equal(last().of("send").length, 0);
  last().tell(entered("resumed", [event(1)], 1));
  assert.deepEqual(last().of("send").map((frame) => frame.text), ["two", "three"]);
  assert.equal(last().of("send")[0].client_id, second.client_id);
  assert.equal(links.at(-1), "back");
  pass(3000);
  assert.equal(links.at(-1), "live");
});

test("the waits grow, with jitter, up to fifteen seconds", () => {
  live();
  const waits = [];
  for (let n = 0; n < 9; n += 1) {
    const before = sockets.length;
    last().end(1006);
    let waited = 0;
    while (sockets.length === before) { pass(50); waited += 50; }
    waits.push(waited);
  }
  assert.ok(waits[0] <= 350, String(waits));
  assert.ok(waits.at(-1) >= 7500 && waits.at(-1) <= 15_050, String(waits));
});

test("a hole makes it join again, once", () => {
  live();
  last().tell({ type: "event", index: 3, prev: 2, event: event(3) });
  last().tell({ type: "event", index: 4, prev: 3, event: event(4) });
  assert.equal(last().of("join").length, 2);
  last().tell(entered("resumed", [event(1), event(2), event(3), event(4)], 4));
  assert.deepEqual(client.state.events.map((one) => one.index), [0, 1, 2, 3, 4]);
  last().tell({ type: "event", index: 9, prev: 8, event: event(9) });
  assert.equal(last().of("join").length, 3);
});

test("a socket that only looks alive is given up after two and a half heartbeats", () => {
  live();
  pass(40_000);
  assert.equal(sockets.length, 1);
  assert.ok(last().of("ping").length >= 3);
  pass(25_000);
  assert.equal(sockets[0].readyState, 3);
  assert.ok(sockets.length > 1);
});

test("pongs keep it alive", () => {
  live();
  for (let n = 0; n < 12; n += 1) {
    pass(10_000);
    last().tell({ type: "pong" });
  }
  assert.equal(sockets.length, 1);
});

test("a refused token ends it: no knocking on a closed door", () => {
  live();
  last().end(4401);
  pass(120_000);
  assert.deepEqual([links.at(-1), sockets.length], ["unauthorized", 1]);
});

test("too early is sent again by itself, after the time the server asked for", () => {
  live();
  client.send({ type: "text", text: "fast" });
  const { client_id } = last().of("send")[0];
  last().tell({ type: "nack", client_id, code: "rate_limited", message: "slow down", retry_after: 2 });
  pass(1500);
  assert.equal(last().of("send").length, 1);
  pass(1000);
  assert.deepEqual(last().of("send").map((frame) => frame.client_id), [client_id, client_id]);
});

test("what was not acknowledged survives a reload of the page", () => {
  live();
  client.send({ type: "text", text: "do not lose me" });
  client.stop();
  make();
  live(last(), entered("snapshot", [event(0)], 0));
  assert.deepEqual(last().of("send").map((frame) => frame.text), ["do not lose me"]);
});

test("the token is renewed within the session, without joining again", async () => {
  client.stop();
  make({ renew: async () => "fresh" });
  last().open();
  last().tell({ ...welcome, expires_at: Date.now() / 1000 + 20 });
  last().tell(entered("snapshot", [], -1));
  pass(16_000);
  await Promise.resolve();
  await Promise.resolve();
  assert.deepEqual(last().of("auth").map((frame) => frame.token), ["secret", "fresh"]);
  last().tell(welcome);
  assert.equal(last().of("join").length, 1);
});

test("frames of the room that was left are ignored", () => {
  live();
  client.open("other");
  last().tell({ type: "event", index: 1, prev: 0, event: event(1) });
  assert.deepEqual(client.state.events, []);
  assert.equal(last().of("join").at(-1).room_id, "other");
});

test("typing is said every four seconds, and taken back once", () => {
  live();
  for (let n = 0; n < 10; n += 1) { client.typing(true); pass(500); }
  client.typing(false);
  client.typing(false);
  assert.deepEqual(last().of("typing").map((frame) => frame.on), [true, true, false]);
});

test("being told that the network is gone, it looks at once whether its line is", () => {
  live();
  pass(1000);
  const before = last().of("ping").length;
  listeners.offline();
  assert.equal(last().of("ping").length, before + 1);
  assert.equal(links.at(-1), "live");
  pass(4100);
  assert.equal(links.at(-1), "lost");
});

test("being online again does not wait for the back-off", () => {
  live();
  last().end(1006);
  listeners.online();
  assert.equal(sockets.length, 2);
});
