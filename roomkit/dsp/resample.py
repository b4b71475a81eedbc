"""A streaming resampler with a short lag and the same number of samples out of every frame.

A windowed-sinc low-pass (Kaiser window; Crochiere and Rabiner, Multirate Digital Signal Processing, 1983) evaluated as
one matrix product per frame: block after block of input, each row of the matrix one output sample of the block. What a
stateless resampler does per frame clicks at every border; this one keeps the last `span` samples.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np

from roomkit.dsp.pcm import Floats, samples, to_pcm

SPAN_MS = 5.0
"""The filter's length: the lag is half of it, and the transition from pass to stop band 0.93 kHz wide."""
ATTENUATION_DB = 75.0
_BLOCK = 48


@lru_cache(maxsize=32)
def _design(rate_in: int, rate_out: int) -> tuple[Floats, int, int, int]:
    """(matrix of input window x outputs, inputs a block, outputs a block, samples kept from before)."""
    common = gcd(rate_in, rate_out)
    up, down = rate_out // common, rate_in // common
    per_frame = max(rate_in // 50 // down, 1)
    repeat = max((k for k in range(1, per_frame + 1) if per_frame % k == 0 and k * up <= _BLOCK), default=1)
    taken, made = repeat * down, repeat * up
    half = int(SPAN_MS * rate_in / 2000)
    kept = 2 * half
    lower = min(rate_in, rate_out)
    width = (ATTENUATION_DB - 8) / (2.285 * 2 * np.pi) / (SPAN_MS / 1000)
    cutoff = (lower / 2 - width / 2) / rate_in
    beta = 0.1102 * (ATTENUATION_DB - 8.7)
    matrix = np.zeros((kept + taken, made))
    window = np.arange(kept + taken)
    for row in range(made):
        # Where this output lies in the window, in input samples, late by half the span.
        distance = window - (half + row * down / up)
        inside = np.abs(distance) <= half
        shape = np.i0(beta * np.sqrt(np.maximum(1 - (distance / half) ** 2, 0))) / np.i0(beta)
        taps = np.where(inside, 2 * cutoff * np.sinc(2 * cutoff * distance) * shape, 0)
        matrix[:, row] = taps / taps.sum()
    return np.ascontiguousarray(matrix, dtype=np.float32), taken, made, kept


class Resampler:
    """One stream from `rate_in` to `rate_out` Hz, late by `lag_ms`. Frames of 20 ms give frames of 20 ms; of odder
    ones the remainder waits for the next. Not for several threads at once."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        if rate_in <= 0 or rate_out <= 0:
            raise ValueError(f"sample rates are positive, in Hz; got {rate_in} and {rate_out}")
        self.rate_in, self.rate_out = rate_in, rate_out
        self.lag_ms = 0.0 if rate_in == rate_out else SPAN_MS / 2
        self._matrix, self._taken, self._made, self._kept = _design(rate_in, rate_out)
        self._window = np.zeros(self._kept, dtype=np.float32)
        self._rows = np.zeros((0, 0), dtype=np.float32)
        self._filled = self._kept

    def process(self, pcm: bytes) -> bytes:
        """16-bit samples in, 16-bit samples out."""
        if self.rate_in == self.rate_out:
            return pcm
        end = self._filled + len(pcm) // 2
        blocks = (end - self._kept) // self._taken
        if end > len(self._window):
            window = np.empty(end, dtype=np.float32)
            window[: self._filled] = self._window[: self._filled]
            self._window, self._rows = window, self._rows[:0]
        window = self._window
        window[self._filled : end] = samples(pcm)
        self._filled = end
        if not blocks:
            return b""
        if len(self._rows) != blocks:
            # The constructor: `as_strided` makes the same view at ten times the price.
            shape = (blocks, self._kept + self._taken)
            self._rows = np.ndarray(shape, np.float32, window, 0, (self._taken * 4, 4))
        made = to_pcm((self._rows @ self._matrix).reshape(-1))
        used = blocks * self._taken
        self._filled = end - used
        window[: self._filled] = window[used:end]
        return made

    def reset(self) -> None:
        """As before the first frame."""
        self._window[: self._kept] = 0
        self._filled = self._kept
