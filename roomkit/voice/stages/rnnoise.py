"""RNNoise, by the library in the pyrnnoise wheel: steady and unsteady noise, for human ears; late by 35 ms."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from roomkit.dsp.pcm import to_float, to_pcm
from roomkit.dsp.resample import Resampler
from roomkit.errors import ConfigError
from roomkit.models.audio import AudioFrame, AudioSignal
from roomkit.ports.audio import AudioStage
from roomkit.voice.stages.blocks import Blocks

_RATE, _SIZE = 48_000, 480
_FILES = {"darwin": "librnnoise.dylib", "win32": "rnnoise.dll"}


@cache
def _library() -> Any:
    # Not imported: the package around the library wants a plotting library, which a call does not.
    spec = find_spec("pyrnnoise")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError('the "rnnoise" stage needs a library: pip install --no-deps pyrnnoise, or denoiser="apm"')
    folder = Path(next(iter(spec.submodule_search_locations)))
    rnnoise: Any = ctypes.CDLL(str(folder / _FILES.get(sys.platform, "librnnoise.so")))
    rnnoise.rnnoise_create.argtypes, rnnoise.rnnoise_create.restype = [ctypes.c_void_p], ctypes.c_void_p
    rnnoise.rnnoise_destroy.argtypes = [ctypes.c_void_p]
    rnnoise.rnnoise_process_frame.argtypes = [ctypes.c_void_p] * 3
    rnnoise.rnnoise_process_frame.restype = ctypes.c_float
    return rnnoise


class RnnoiseStage:
    """One stream, in 10 ms blocks at 48 kHz and back."""

    name = "rnnoise"

    def __init__(self, rate: int) -> None:
        self._rnnoise = _library()
        self._up, self._down = Resampler(rate, _RATE), Resampler(_RATE, rate)
        self._blocks = Blocks(rate // 100, self._work)
        self._values = np.zeros(_SIZE, dtype=np.float32)
        self._state = self._rnnoise.rnnoise_create(None)

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._rnnoise.rnnoise_destroy(self._state)

    def _work(self, block: bytes) -> bytes:
        self._values[:] = to_float(self._up.process(block))
        address = self._values.ctypes.data
        self._rnnoise.rnnoise_process_frame(self._state, address, address)
        return self._down.process(to_pcm(self._values))

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        return self._blocks.process(frame), ()

    def reset(self) -> None:
        self._blocks.reset()
        self._up.reset()
        self._down.reset()
        self._rnnoise.rnnoise_destroy(self._state)
        self._state = self._rnnoise.rnnoise_create(None)


def make(_kind: str, rate: int) -> AudioStage:
    return RnnoiseStage(rate)
