"""Keys of a telephone in sound: the eight frequencies by one matrix product a block (a bank of Goertzel filters,
written as a matrix), with the checks of ITU-T Q.24 that keep speech from being taken for keys."""

from __future__ import annotations

import numpy as np

from roomkit.dsp.pcm import to_float

LOW = (697, 770, 852, 941)
HIGH = (1209, 1336, 1477, 1633)
KEYS = ("123A", "456B", "789C", "*0#D")
BLOCK_MS = 12.25
"""Four of them fit into the shortest key, of 50 ms: three are whole wherever it begins."""
_TWIST_HIGH = 10 ** (9 / 10)
"""A high tone may be 8 dB weaker than the low one, as long lines damp it, and the low one 4 dB weaker; one more,
because in so short a block each leaks into the other."""
_TWIST_LOW = 10 ** (5 / 10)
_ALONE = 10 ** (6 / 10)
"""A tone is this much stronger than the next of its group."""
_SHARE = 0.72
"""The part of all energy that the two tones have: speech has far more elsewhere."""
_FAINT = 32768 * 10 ** (-42 / 20)


class KeyDetector:
    """One stream. `push` samples of any length; it gives keys as they are pressed, each once.

    A tone counts when it fills three blocks in a row (37 ms) and is over after two blocks without it."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._size = int(rate * BLOCK_MS / 1000)
        at = 2 * np.pi * np.arange(self._size)[:, None] * np.array((*LOW, *HIGH)) / rate
        # Cosine and sine of a frequency beside each other: a frequency's power is the square of that pair.
        self._bank = np.stack((np.cos(at), np.sin(at)), axis=2).reshape(self._size, 16).astype(np.float32)
        self.reset()

    def reset(self) -> None:
        self._rest = b""
        self._seen = self._missed = 0
        self._candidate = ""
        self._down = ""

    def push(self, pcm: bytes) -> list[str]:
        data = self._rest + pcm
        idle = not self._candidate and not self._down
        count = len(data) // (2 * self._size)
        # While nothing has begun three blocks are looked at together: that costs hardly more than one.
        if not count or (idle and count < 3):
            self._rest = data
            return []
        used = count * self._size * 2
        self._rest = data[used:]
        blocks = to_float(data[:used]).reshape(count, self._size)
        energy: list[float] = np.vecdot(blocks, blocks).tolist()
        if idle and max(energy) < self._size * _FAINT**2:
            return []
        pairs = np.dot(blocks, self._bank).reshape(count, 8, 2)
        power: list[list[float]] = np.vecdot(pairs, pairs).tolist()
        share = self._size * _SHARE / 4
        if idle and all(max(of) < share * whole for of, whole in zip(power, energy, strict=True)):
            return []  # two tones have most of the energy: the stronger of them has half of that
        return [key for key in map(self._step, map(self._key, power, energy)) if key]

    def _key(self, power: list[float], energy: float) -> str:
        if energy < self._size * _FAINT**2:
            return ""
        lows, highs = power[:4], power[4:]
        row, column = max(lows), max(highs)
        if column * _TWIST_HIGH < row or row * _TWIST_LOW < column:
            return ""
        others = max(sorted(lows)[2] / row, sorted(highs)[2] / column)
        if others * _ALONE > 1 or 2 * (row + column) / self._size < _SHARE * energy:
            return ""
        return KEYS[lows.index(row)][highs.index(column)]

    def _step(self, key: str) -> str:
        if self._down:
            self._missed = 0 if key == self._down else self._missed + 1
            if self._missed >= 2:
                self._down = ""
            else:
                return ""
        if not key or key != self._candidate:
            self._candidate, self._seen = key, 1 if key else 0
            return ""
        self._seen += 1
        if self._seen < 3:
            return ""
        self._down, self._missed, self._candidate = key, 0, ""
        return key
