"""What is played where a frame never came: the last pitch periods once more, fading (after ITU-T G.711 Appendix I)."""

from __future__ import annotations

import numpy as np

from roomkit.dsp.pcm import Floats, silence, to_float, to_pcm

MOST_MS = 60
"""Beyond that it is silence: a vowel that goes on for longer sounds like a machine."""
_LONGEST_MS, _SHORTEST_MS = 15.0, 2.5
_JOIN_MS = 4


class Concealer:
    """One stream. `good` frames in order, `lost` wherever one is missing; it also joins the two without a click."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._long, self._short = int(rate * _LONGEST_MS / 1000), int(rate * _SHORTEST_MS / 1000)
        self.reset()

    def reset(self) -> None:
        self._past = np.zeros(3 * self._long, dtype=np.float32)
        self._period: Floats | None = None
        self._made = 0

    def good(self, pcm: bytes) -> bytes:
        """The frame; after a gap its first milliseconds are mixed with what was made up."""
        values = to_float(pcm)
        if self._made:
            join = min(self._rate * _JOIN_MS // 1000, len(values))
            ramp = np.linspace(0, 1, join, dtype=np.float32)
            values[:join] = values[:join] * ramp + self._made_up(join) * (1 - ramp)
            pcm = to_pcm(values)
            self._made, self._period = 0, None
        self._past = np.concatenate((self._past, values))[-3 * self._long :]
        return pcm

    def lost(self, samples: int) -> bytes:
        """Something like what was to come: at most `MOST_MS` of it in a row, then silence."""
        if self._made >= MOST_MS * self._rate // 1000:
            return silence(samples)
        return to_pcm(self._made_up(samples))

    def _made_up(self, samples: int) -> Floats:
        if self._period is None:
            self._period = self._last_period()
        at = self._made + np.arange(samples)
        fade = np.clip(1 - at / (MOST_MS * self._rate / 1000), 0, 1).astype(np.float32)
        self._made += samples
        return self._period[at % len(self._period)] * fade

    def _last_period(self) -> Floats:
        """The lag at which the recent sound is most like itself."""
        recent = self._past[-self._long :]
        lags = range(self._short, self._long + 1)
        likeness = [float(recent @ self._past[-self._long - lag : -lag]) for lag in lags]
        energy = [float(np.square(self._past[-self._long - lag : -lag]).sum()) + 1.0 for lag in lags]
        best = int(np.argmax(np.array(likeness) / np.sqrt(np.array(energy))))
        return self._past[-(self._short + best) :].copy()
