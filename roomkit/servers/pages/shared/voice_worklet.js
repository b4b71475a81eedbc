/**
 * Sound on the browser's audio thread. "roomkit-ear" makes 20 ms frames at 16 kHz of the microphone, whatever rate the
 * device has; "roomkit-mouth" plays such frames, forgets at once what it is told to, and reports what has really sounded.
 */
const RATE = 16_000;
const FRAME = 320;
/** How often what has sounded is reported, in seconds. */
const REPORT = 0.04;
/** More than that many samples never wait: a server that sends faster than sound loses the newest. */
const MOST = RATE * 10;

/** A streaming low-pass with exact positions (windowed sinc, one row of taps for each fraction of a sample). */
export class Resampler {
  /** @param {number} from @param {number} to Hz */
  constructor(from, to) {
    const common = gcd(from, to);
    this.up = to / common;
    this.down = from / common;
    const scale = Math.max(1, from / to);
    this.half = Math.ceil(16 * scale);
    const cutoff = 0.46 / scale;
    const taps = 2 * this.half;
    this.table = new Float32Array(this.up * taps);
    for (let phase = 0; phase < this.up; phase++) {
      let sum = 0;
      for (let n = 0; n < taps; n++) {
        const x = n - this.half + 1 - phase / this.up;
        const sinc = x === 0 ? 2 * cutoff : Math.sin(2 * Math.PI * cutoff * x) / (Math.PI * x);
        const window = Math.abs(x) < this.half ? 0.5 + 0.5 * Math.cos((Math.PI * x) / this.half) : 0;
        sum += this.table[phase * taps + n] = sinc * window;
      }
      for (let n = 0; n < taps; n++) this.table[phase * taps + n] /= sum;
    }
    this.kept = new Float32Array(taps + 4096);
    this.length = taps - 1;
    this.phase = 0;
  }

  reset() {
    this.kept.fill(0);
    this.length = 2 * this.half - 1;
    this.phase = 0;
  }

  /** Takes samples, at most 4096 at a time. @param {Float32Array} input */
  push(input) {
    this.kept.set(input, this.length);
    this.length += input.length;
  }

  /** Whether `next` has enough to make a sample of. */
  get ready() { return this.length >= 2 * this.half; }

  next() {
    const taps = 2 * this.half;
    const row = this.phase * taps;
    let sum = 0;
    for (let n = 0; n < taps; n++) sum += this.table[row + n] * this.kept[n];
    this.phase += this.down;
    const whole = Math.floor(this.phase / this.up);
    this.phase -= whole * this.up;
    if (whole) {
      this.kept.copyWithin(0, whole, this.length);
      this.length -= whole;
    }
    return sum;
  }
}

/** @param {number} a @param {number} b @returns {number} */
const gcd = (a, b) => (b ? gcd(b, a % b) : a);

class Ear extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE);
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.position = 0;
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const input = inputs[0]?.[0];
    if (!input) return true;
    this.resampler.push(input);
    while (this.resampler.ready) {
      this.frame[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(this.resampler.next() * 32768)));
      if (this.filled === FRAME) this.send();
    }
    return true;
  }

  send() {
    const message = new ArrayBuffer(4 + FRAME * 2);
    const view = new DataView(message);
    view.setUint32(0, this.position, true);
    let sum = 0;
    for (let n = 0; n < FRAME; n++) {
      view.setInt16(4 + 2 * n, this.frame[n], true);
      sum += this.frame[n] ** 2;
    }
    this.position = (this.position + FRAME) >>> 0;
    this.filled = 0;
    this.port.postMessage({ message, level: Math.sqrt(sum / FRAME) / 32768 }, [message]);
  }
}

class Mouth extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(RATE, sampleRate);
    this.one = new Float32Array(1);
    /** @type {Int16Array[]} */
    this.queue = [];
    /** Samples of the first that are used up, of all that wait, that have sounded since the last clear, that were reported. */
    this.at = this.waiting = this.played = this.reported = 0;
    this.due = 0;
    this.epoch = 0;
    this.port.onmessage = ({ data }) => {
      if (data.epoch !== undefined) this.forget(data.epoch);
      else if (this.waiting < MOST) this.add(new Int16Array(data.pcm));
    };
  }

  /** Silence from the next sample on. @param {number} epoch */
  forget(epoch) {
    this.queue = [];
    this.at = this.waiting = this.played = this.reported = 0;
    this.due = 0;
    this.epoch = epoch;
    this.resampler.reset();
  }

  /** @param {Int16Array} pcm */
  add(pcm) {
    this.queue.push(pcm);
    this.waiting += pcm.length;
  }

  /** @param {Float32Array[][]} _inputs @param {Float32Array[][]} outputs */
  process(_inputs, outputs) {
    const output = outputs[0][0];
    let energy = 0;
    for (let n = 0; n < output.length; n++) {
      while (!this.resampler.ready) this.feed();
      output[n] = this.resampler.next();
      energy += output[n] ** 2;
    }
    if (this.played !== this.reported && (currentTime >= this.due || !this.waiting)) {
      this.reported = this.played;
      this.due = currentTime + REPORT;
      this.port.postMessage({ epoch: this.epoch, position: this.played, level: Math.sqrt(energy / output.length) });
    }
    return true;
  }

  /** The next sample of what waits, or silence: the end of a sound is in the filter still. */
  feed() {
    this.one[0] = 0;
    const first = this.queue[0];
    if (first) {
      this.one[0] = first[this.at++] / 32768;
      this.played++;
      this.waiting--;
      if (this.at === first.length) {
        this.queue.shift();
        this.at = 0;
      }
    }
    this.resampler.push(this.one);
  }
}

registerProcessor("roomkit-ear", Ear);
registerProcessor("roomkit-mouth", Mouth);
