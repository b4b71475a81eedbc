"""Automatic gain: a quiet caller is made louder, a loud one quieter, silence is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np

from roomkit.dsp.pcm import to_float, to_pcm
from roomkit.errors import ConfigError
from roomkit.models.audio import AudioFrame, AudioSignal
from roomkit.ports.audio import AudioStage

_STEP_MS = 5
_FULL = 32767.0


@dataclass(frozen=True, slots=True)
class GainConfig:
    """Peaks are brought to `target_dbfs` with at most `max_gain_db`. `attack_ms` and `release_ms` are time constants of
    what counts as the peak, up and down. Sound below `gate_dbfs` changes no gain: it is the room, not a voice."""

    target_dbfs: float = -3.0
    max_gain_db: float = 30.0
    attack_ms: float = 10.0
    release_ms: float = 100.0
    gate_dbfs: float = -50.0

    def __post_init__(self) -> None:
        if self.target_dbfs > 0 or self.max_gain_db < 0 or self.attack_ms <= 0 or self.release_ms <= 0:
            raise ConfigError("GainConfig wants target_dbfs <= 0, max_gain_db >= 0 and times above 0 ms")


class GainStage:
    """One stream. The gain follows the peaks of 5 ms steps and moves in a straight line between them."""

    name = "agc"

    def __init__(self, rate: int, config: GainConfig | None = None) -> None:
        config = config or GainConfig()
        self._step = max(rate * _STEP_MS // 1000, 1)
        self._target = 32768 * 10 ** (config.target_dbfs / 20)
        self._most = 10 ** (config.max_gain_db / 20)
        self._gate = 32768 * 10 ** (config.gate_dbfs / 20)
        self._up = 1 - exp(-_STEP_MS / config.attack_ms)
        self._down = 1 - exp(-_STEP_MS / config.release_ms)
        self._count, self._shape = 0, (np.zeros(0), np.zeros(0))
        self.reset()

    def reset(self) -> None:
        self._peak = self._target
        self.gain = 1.0

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        values = to_float(frame.pcm)
        count = len(values)
        if not count:
            return frame, ()
        borders, slope = self._steps(count)
        gains = np.array([self.gain, *map(self._follow, np.maximum.reduceat(np.abs(values), borders).tolist())])
        values *= np.dot(slope, gains.astype(np.float32))
        return AudioFrame(to_pcm(values), frame.rate, frame.position), ()

    def _steps(self, count: int) -> tuple[Any, Any]:
        """(where the steps begin, samples x gains: how much of each gain a sample gets); the same for every frame."""
        if count != self._count:
            borders = np.arange(0, count, self._step)
            points = np.append(borders, count)
            share = [np.interp(np.arange(1, count + 1), points, row) for row in np.eye(len(points))]
            self._count, self._shape = count, (borders, np.array(share, dtype=np.float32).T.copy())
        return self._shape

    def _follow(self, peak: float) -> float:
        if peak > self._gate:
            self._peak += (peak - self._peak) * (self._up if peak > self._peak else self._down)
            # Never so much that this very step would be cut off.
            self.gain = min(self._target / self._peak, self._most, _FULL / peak)
        return self.gain


def make(_kind: str, rate: int) -> AudioStage:
    return GainStage(rate)
