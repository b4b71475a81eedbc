/** The audio thread's code without a browser: what goes through keeps its pitch, its level and its length. */
import assert from "node:assert/strict";
import { test } from "node:test";

/** @type {Record<string, any>} */
const made = {};
const scope = /** @type {any} */ (globalThis);
scope.sampleRate = 48_000;
scope.currentTime = 0;
scope.AudioWorkletProcessor = class { constructor() { this.port = { told: [], postMessage(/** @type {any} */ what) { this.told.push(what); } }; } };
scope.registerProcessor = (/** @type {string} */ name, /** @type {any} */ kind) => { made[name] = kind; };
const { Resampler } = await import("../../roomkit/servers/pages/shared/voice_worklet.js");

const QUANTUM = 128;
/** @param {number} hertz @param {number} rate @param {number} count */
const sine = (hertz, rate, count) => Float32Array.from({ length: count }, (_, n) => 0.5 * Math.sin((2 * Math.PI * hertz * n) / rate));

/** @param {number} from @param {number} to @param {Float32Array} input */
function through(from, to, input) {
  const resampler = new Resampler(from, to);
  const out = [];
  for (let at = 0; at < input.length; at += QUANTUM) {
    resampler.push(input.subarray(at, at + QUANTUM));
    while (resampler.ready) out.push(resampler.next());
  }
  return out;
}

/** @param {number[]} values */
const level = (values) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);

for (const rate of [44_100, 48_000, 96_000, 16_000]) {
  test(`a tone of 1 kHz comes through from ${rate} Hz, one of 12 kHz does not`, () => {
    const kept = through(rate, 16_000, sine(1000, rate, rate));
    assert.ok(Math.abs(kept.length - 16_000) <= 40, `${kept.length} samples of a second`);
    assert.ok(Math.abs(level(kept.slice(200, -200)) - 0.3536) < 0.01);
    if (rate > 30_000) assert.ok(level(through(rate, 16_000, sine(12_000, rate, rate)).slice(200, -200)) < 0.002);
  });
}

/** @param {any} mouth @param {number} blocks */
function play(mouth, blocks) {
  const heard = [];
  for (let n = 0; n < blocks; n++) {
    const output = new Float32Array(QUANTUM);
    mouth.process([], [[output]]);
    scope.currentTime += QUANTUM / scope.sampleRate;
    heard.push(...output);
  }
  return heard;
}

const frame = () => Int16Array.from(sine(1000, 16_000, 320), (value) => value * 32767).buffer;

test("what has sounded is counted and reported, and a clear silences within a frame", () => {
  const mouth = new made["roomkit-mouth"]();
  for (let n = 0; n < 10; n++) mouth.port.onmessage({ data: { pcm: frame() } });
  assert.ok(level(play(mouth, 30)) > 0.3);
  const { epoch, position } = mouth.port.told.at(-1);
  assert.equal(epoch, 0);
  assert.ok(position > 640 && position <= 1300, `${position}`);
  mouth.port.onmessage({ data: { epoch: 1 } });
  assert.equal(level(play(mouth, 10)), 0);
  mouth.port.onmessage({ data: { pcm: frame() } });
  play(mouth, 12);
  const last = mouth.port.told.at(-1);
  assert.deepEqual([last.epoch, last.position], [1, 320]);
});

test("the ear makes frames of 20 ms with their position", () => {
  const ear = new made["roomkit-ear"]();
  const input = sine(1000, 48_000, 48_000);
  for (let at = 0; at < input.length; at += QUANTUM) ear.process([[input.subarray(at, at + QUANTUM)]]);
  ear.process([[]]);
  const frames = ear.port.told;
  assert.equal(frames.length, 50);
  frames.forEach((/** @type {any} */ { message }, /** @type {number} */ n) => {
    assert.equal(message.byteLength, 644);
    assert.equal(new DataView(message).getUint32(0, true), n * 320);
  });
  assert.ok(Math.abs(frames[20].level - 0.3536) < 0.01);
});
