"""Silero VAD 6 (MIT, see silero_vad.LICENSE): one session for the process, a small state for each stream."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from roomkit.errors import MissingExtra
from roomkit.ports.audio import AudioStage
from roomkit.voice.stages.vad import DETECTOR_RATE, VadStage

_CONTEXT = 64
_MODEL = Path(__file__).with_name("silero_vad.onnx")


@cache
def _session() -> Any:
    try:
        runtime: Any = import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtra('the "silero" VAD', "onnxruntime", "voice") from error
    options = runtime.SessionOptions()
    # A window is too small a job for more: threads would spin on cores that other calls need.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(str(_MODEL), options, providers=["CPUExecutionProvider"])


class SileroDetector:
    """One stream's view of the shared model: 32 ms windows at 16 kHz, each with the 4 ms before it."""

    window = 512

    def __init__(self) -> None:
        self._run = _session().run
        self._rate = np.array(DETECTOR_RATE, dtype=np.int64)
        self._input = np.zeros((1, _CONTEXT + self.window), dtype=np.float32)
        self._state = np.zeros((2, 1, 128), dtype=np.float32)

    def probability(self, pcm: bytes) -> float:
        self._input[0, :_CONTEXT] = self._input[0, -_CONTEXT:]
        np.multiply(np.frombuffer(pcm, "<i2"), np.float32(1 / 32768), out=self._input[0, _CONTEXT:])
        likely, self._state = self._run(None, {"input": self._input, "state": self._state, "sr": self._rate})
        return float(likely[0, 0])

    def reset(self) -> None:
        self._input[:] = 0
        self._state = np.zeros((2, 1, 128), dtype=np.float32)


def make(_kind: str, rate: int) -> AudioStage:
    return VadStage(SileroDetector(), rate)
