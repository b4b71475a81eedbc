"""Speex' echo canceller with its residual suppression, by the library of the system (Debian: libspeexdsp1)."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library
from functools import cache
from typing import Any

from roomkit.errors import ConfigError
from roomkit.models.audio import AudioFrame, AudioSignal
from roomkit.ports.audio import EchoStage
from roomkit.voice.stages.blocks import Blocks, Reference

TAIL_MS = 400
"""Longer than the line and the room together."""
_ECHO_SET_SAMPLING_RATE = 24
_PREPROCESS_SET_DENOISE = 0
_PREPROCESS_SET_ECHO_STATE = 24


@cache
def _library() -> Any:
    try:
        speex: Any = ctypes.CDLL(find_library("speexdsp") or "libspeexdsp.so.1")
    except OSError as error:
        raise ConfigError('the "speex" stage needs libspeexdsp: apt-get install libspeexdsp1, or aec="apm"') from error
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    speex.speex_echo_state_init.restype = speex.speex_preprocess_state_init.restype = pointer
    speex.speex_echo_state_init.argtypes = speex.speex_preprocess_state_init.argtypes = [number, number]
    speex.speex_echo_cancellation.argtypes = [pointer, text, text, text]
    speex.speex_preprocess_run.argtypes = [pointer, text]
    speex.speex_echo_ctl.argtypes = speex.speex_preprocess_ctl.argtypes = [pointer, number, pointer]
    speex.speex_echo_state_destroy.argtypes = speex.speex_preprocess_state_destroy.argtypes = [pointer]
    return speex


class SpeexStage:
    """One stream's echo, taken out in 20 ms blocks."""

    name = "speex"

    def __init__(self, rate: int) -> None:
        self._rate, self._size = rate, rate // 50
        self._speex = _library()
        self._out = ctypes.create_string_buffer(2 * self._size)
        self._blocks = Blocks(self._size, self._work)
        self._reference = Reference(self._size, rate)
        self._echo = self._rest = None
        self._make()

    def _make(self) -> None:
        self._drop()
        self._echo = self._speex.speex_echo_state_init(self._size, self._rate * TAIL_MS // 1000)
        self._rest = self._speex.speex_preprocess_state_init(self._size, self._rate)
        rate, off = ctypes.c_int(self._rate), ctypes.c_int(0)
        self._speex.speex_echo_ctl(self._echo, _ECHO_SET_SAMPLING_RATE, ctypes.byref(rate))
        self._speex.speex_preprocess_ctl(self._rest, _PREPROCESS_SET_DENOISE, ctypes.byref(off))
        self._speex.speex_preprocess_ctl(self._rest, _PREPROCESS_SET_ECHO_STATE, self._echo)

    def _drop(self) -> None:
        if self._rest:
            self._speex.speex_preprocess_state_destroy(self._rest)
            self._speex.speex_echo_state_destroy(self._echo)
        self._echo = self._rest = None

    def __del__(self) -> None:
        if hasattr(self, "_rest"):
            self._drop()

    def _work(self, block: bytes) -> bytes:
        self._speex.speex_echo_cancellation(self._echo, block, self._reference.take(), self._out)
        self._speex.speex_preprocess_run(self._rest, self._out)
        return self._out.raw

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        return self._blocks.process(frame), ()

    def reference(self, frame: AudioFrame) -> None:
        self._reference.push(frame.pcm)

    def reset(self) -> None:
        self._blocks.reset()
        self._reference.clear()
        self._make()


def make(_kind: str, rate: int) -> EchoStage:
    return SpeexStage(rate)
