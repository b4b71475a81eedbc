"""Silero VAD 6 (MIT, see silero_vad.LICENSE), computed with numpy: one set of weights for all, a small state for each.

A window is so small a job that the general machinery around it costs more than the work: written out as a dozen matrix
products into buffers that are there already, it takes half of what onnxruntime takes, to the same result.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from math import exp
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from roomkit.ports.audio import AudioStage
from roomkit.voice.stages.vad import VadStage

_CONTEXT, _WINDOW, _FFT, _BINS = 64, 512, 256, 129
_SILENT_PEAK, _ROOM_PEAK = 32, 328
"""-60 and -40 dBFS. What never gets louder than the first is no speech that anybody could make out; in a room that is
louder than the second the model is never left alone."""
_UNLIKELY, _SETTLED = 0.1, 31
"""After so many windows in a row (a second) that are no speech the model is left alone until it gets louder."""
_LOUDER = 1.25
"""Louder than the loudest of those windows, that is: 2 dB."""
_MISSED = 10
"""So many windows (320 ms) are made up for then: a model that has not listened to them hears a voice too late."""
_SCALE, _HALF = np.float32(1 / 32768), np.float32(0.5)
_ZERO, _ONE = np.float32(0), np.float32(1)


@cache
def _weights() -> Any:
    with np.load(Path(__file__).with_name("silero_vad.npz")) as file:
        weights: Any = SimpleNamespace(**{name: file[name] for name in file.files})
    weights.hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FFT) / _FFT)).astype(np.float32)
    weights.bias = float(weights.output_bias[0])
    return weights


class SileroDetector:
    """One stream's view of the shared model: 32 ms windows at 16 kHz, each with the 4 ms before it. `gate` leaves the
    model alone while the line is no louder than the room has been without speech."""

    window = _WINDOW
    faint = 0.1
    """What echo cancellation leaves of a voice may be as unlikely; coughs, music and noise stay below it."""

    def __init__(self, *, gate: bool = True) -> None:
        self._weights = _weights()
        self._gate = gate
        # Every view below is into one of these, so a window allocates next to nothing.
        self._input = np.zeros(_CONTEXT + _WINDOW + _CONTEXT, dtype=np.float32)
        self._frames = np.ndarray((4, _FFT), np.float32, self._input, 0, (_FFT // 2 * 4, 4))
        self._shaped = np.zeros((4, _FFT), dtype=np.float32)
        # Rows of zeros above and below are the padding of the convolutions.
        self._spectrum = np.zeros((6, _BINS), dtype=np.float32)
        self._spectra = np.ndarray((4, 3 * _BINS), np.float32, self._spectrum, 0, (_BINS * 4, 4))
        self._first = np.zeros((6, 128), dtype=np.float32)
        self._firsts = np.ndarray((2, 3 * 128), np.float32, self._first, 0, (2 * 128 * 4, 4))
        self._seen = np.zeros(256, dtype=np.float32)
        """What the LSTM sees: this window's features, and its own last output."""
        self._cell = np.zeros(128, dtype=np.float32)
        self._missed: deque[Any] = deque(maxlen=_MISSED)
        self._wake()

    def probability(self, pcm: bytes) -> float:
        values = np.frombuffer(pcm, "<i2")
        if not self._gate:
            return self._judged(values)
        peak = max(int(values.max()), -int(values.min()))
        if self._still >= _SETTLED:
            if peak <= self._room:
                self._missed.append(values)
                return 0.0
            for missed in self._missed:
                self._judged(missed)
            self._wake()
        likely = self._judged(values)
        if peak > _SILENT_PEAK and (likely > _UNLIKELY or peak > _ROOM_PEAK):
            self._wake()
        else:
            self._still += 1
            self._room = max(self._room, peak * _LOUDER)
        return likely

    def _wake(self) -> None:
        self._still, self._room = 0, float(_SILENT_PEAK)
        self._missed.clear()

    def _judged(self, values: Any) -> float:
        sound = self._input
        sound[:_CONTEXT] = sound[_WINDOW : _WINDOW + _CONTEXT]
        np.multiply(values, _SCALE, out=sound[_CONTEXT:-_CONTEXT])
        sound[-_CONTEXT:] = sound[-_CONTEXT - 2 : -2 * _CONTEXT - 2 : -1]
        self._features()
        return self._likely()

    def _features(self) -> None:
        """The spectrum of the window through four convolutions: what of it matters, in 128 numbers."""
        weights = self._weights
        np.multiply(self._frames, weights.hann, out=self._shaped)
        np.abs(np.fft.rfft(self._shaped, axis=1), out=self._spectrum[1:5])
        first = np.dot(self._spectra, weights.encoder0)
        first += weights.encoder0_bias
        np.maximum(first, _ZERO, out=self._first[1:5])
        second = np.dot(self._firsts, weights.encoder1)
        second += weights.encoder1_bias
        third = np.dot(np.maximum(second, _ZERO, out=second).reshape(128), weights.encoder2)
        third += weights.encoder2_bias
        fourth = np.dot(np.maximum(third, _ZERO, out=third), weights.encoder3)
        fourth += weights.encoder3_bias
        np.maximum(fourth, _ZERO, out=self._seen[:128])

    def _likely(self) -> float:
        """One step of the LSTM. Its gates come as the tanh of half their value, of which (1 + t) / 2 is the sigmoid."""
        weights, cell = self._weights, self._cell
        gates = np.dot(self._seen, weights.memory)
        gates += weights.memory_bias
        np.tanh(gates, out=gates)
        taken, kept, new, told = gates[:128], gates[128:256], gates[256:384], gates[384:]
        taken += _ONE
        taken *= new
        kept += _ONE
        cell *= kept
        cell += taken
        cell *= _HALF
        told += _ONE
        told *= np.tanh(cell)
        told *= _HALF
        self._seen[128:] = told
        return 1 / (1 + exp(-float(np.dot(np.maximum(told, _ZERO, out=told), weights.output)) - weights.bias))

    def reset(self) -> None:
        self._input[:] = 0
        self._seen[:] = 0
        self._cell[:] = 0
        self._wake()


def make(_kind: str, rate: int) -> AudioStage:
    return VadStage(SileroDetector(), rate)
