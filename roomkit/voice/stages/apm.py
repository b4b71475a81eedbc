"""WebRTC's audio processing, by LiveKit's build of it: echo (AEC3), gain and noise over 10 ms blocks."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any

import numpy as np

from roomkit.dsp.pcm import energy, to_float, to_pcm
from roomkit.errors import MissingExtra
from roomkit.models.audio import AudioFrame, AudioSignal
from roomkit.ports.audio import EchoStage
from roomkit.voice.stages.blocks import Blocks, Reference

KINDS = ("aec", "agc", "denoiser")
_AFTER = 100
"""Blocks: for a second after the last sound was played its echo can come back, by a slow line and a large room."""
_NOTHING = 16.0
"""An RMS of -66 dBFS: neither a voice nor an echo that anybody could make out."""
_HUSH = 50
"""Blocks, half a second, until a line that is no louder counts as quiet."""
_MISSED = 40
"""Blocks that echo cancellation makes up for when the line is no longer quiet: as long as an echo may be late."""


def _livekit(module: str) -> Any:
    try:
        return import_module(f"livekit.rtc.{module}")
    except ImportError as error:
        raise MissingExtra('the "apm" stage', "livekit", "apm") from error


def _directly(apm: Any, kind: str, frame: Any, sound: bytearray) -> Callable[[], None]:
    """What `apm` does to `frame`, without building the same request for every block: `sound` is processed in place.

    The package offers no such way, so this one goes by its wire format and is given up for the public way (`plainly`)
    where the package has changed inside, after a fork, and whenever the answer is not the plain success."""
    public = {"apm_process_stream": "process_stream", "apm_process_reverse_stream": "process_reverse_stream"}[kind]

    def plainly() -> None:
        getattr(apm, public)(frame)

    address = ctypes.c_char.from_buffer(sound)
    try:
        library: Any = _livekit("_ffi_client").FfiClient.instance._ffi_lib
        messages: Any = _livekit("_proto.ffi_pb2")
        ask, drop = library.livekit_ffi_request, library.livekit_ffi_drop_handle
        request, fine = messages.FfiRequest(), messages.FfiResponse()
        asked = getattr(request, kind)
        asked.apm_handle, asked.data_ptr = apm._ffi_handle.handle, ctypes.addressof(address)
        asked.size, asked.sample_rate, asked.num_channels = len(sound), frame.sample_rate, 1
        getattr(fine, kind).SetInParent()
        wire, expected = request.SerializeToString(), fine.ByteSize()
    except (AttributeError, ImportError, TypeError):
        return plainly
    given = (ctypes.c_ubyte * len(wire)).from_buffer_copy(wire)
    answer, length = ctypes.POINTER(ctypes.c_ubyte)(), ctypes.c_size_t()
    answer_at, length_at = ctypes.byref(answer), ctypes.byref(length)
    size, process = len(wire), os.getpid()

    def directly() -> None:
        handle = ask(given, size, answer_at, length_at) if os.getpid() == process else 0
        if handle:
            drop(handle)
        if not handle or length.value != expected:
            plainly()

    return directly


class _Module:
    """One native processing of one stream, with a high-pass filter: blocks of 10 ms, in place in two buffers."""

    def __init__(self, rate: int, kinds: Collection[str]) -> None:
        size = rate // 100
        frame: Any = _livekit("audio_frame").AudioFrame
        self._near, self._far = bytearray(2 * size), bytearray(2 * size)
        self._frames = frame(self._near, rate, 1, size), frame(self._far, rate, 1, size)
        self._apm: Any = _livekit("apm").AudioProcessingModule(
            echo_cancellation="aec" in kinds,
            noise_suppression="denoiser" in kinds,
            high_pass_filter=True,
            auto_gain_control="agc" in kinds,
        )
        if "aec" in kinds:
            self._apm.set_stream_delay_ms(0)
        self._clean = _directly(self._apm, "apm_process_stream", self._frames[0], self._near)
        self._play = _directly(self._apm, "apm_process_reverse_stream", self._frames[1], self._far)

    def heard(self, block: bytes, played: bytes | None = None) -> bytes:
        """`block` made clean; `played` is what sounded at the far end meanwhile, where that is to be taken out."""
        if played is not None:
            self._far[:] = played
            self._play()
        self._near[:] = block
        self._clean()
        return bytes(self._near)


class _Hush:
    """Whether a line has been so quiet for half a second that there is nothing on it to clean. What is left of it then
    passes as loud as cleaning had left it, so that nobody hears when that begins and ends."""

    def __init__(self, samples: int) -> None:
        self._nothing = _NOTHING**2 * samples
        self._blocks = 0
        self._raw = self._clean = 0.0
        self._gain = 1.0

    def over(self, power: float) -> bool:
        """Whether a block of so much energy needs no cleaning."""
        if power > self._nothing:
            self._blocks, self._raw, self._clean = 0, 0.0, 0.0
            return False
        self._blocks += 1
        if self._blocks <= _HUSH:
            self._raw += power
            return False
        if self._blocks == _HUSH + 1:
            self._gain = (self._clean / self._raw) ** 0.5 if self._clean < self._raw else 1.0
        return True

    def cleaned(self, block: bytes) -> None:
        """What became of the block that `over` was asked about last."""
        if self._blocks:
            self._clean += energy(block)

    def faint(self, block: bytes) -> bytes:
        return block if self._gain == 1.0 else to_pcm(to_float(block) * self._gain)


class ApmStage:
    """One stream's processing: what `kinds` names. A pipeline that says "apm" for several kinds has one such stage, in
    the place of the first of them.

    Echo is taken out while something is played and a second longer, which is when there can be any; and everything
    stands still while the line itself has been quiet for half a second: an echo that is not there needs no taking out.
    What stands still keeps what it has learned of the room and the caller."""

    name = "apm"

    def __init__(self, rate: int, kinds: Collection[str] = KINDS) -> None:
        self._rate, self._kinds = rate, frozenset(kinds)
        self._blocks = Blocks(rate // 100, self._work)
        self._reference = Reference(rate // 100, rate)
        self._silence = bytes(rate // 100 * 2)
        self._rising = np.clip(np.linspace(-0.7, 1, rate // 100, dtype=np.float32), 0, 1)
        self._missed: deque[tuple[bytes, bytes]] = deque(maxlen=_MISSED)
        self._make()

    def _make(self) -> None:
        rest = self._kinds - {"aec"}
        self._echo = _Module(self._rate, ("aec",)) if "aec" in self._kinds else None
        self._rest = _Module(self._rate, rest) if rest or self._echo is None else None
        self._no_echo, self._no_rest = _Hush(self._rate // 100), _Hush(self._rate // 100)
        self._still = _AFTER
        self._stood = True
        self._missed.clear()

    def _work(self, block: bytes) -> bytes:
        power = energy(block)
        if self._echo is not None:
            clean = self._without_echo(self._echo, block, power)
            if clean is not block:
                block, power = clean, energy(clean)
        if self._rest is None:
            return block
        if self._no_rest.over(power):
            return self._no_rest.faint(block)
        block = self._rest.heard(block)
        self._no_rest.cleaned(block)
        return block

    def _miss(self, block: bytes, played: bytes) -> None:
        self._stood = True
        if self.echoing:
            self._missed.append((block, played))
        else:
            self._missed.clear()

    def _without_echo(self, echo: _Module, block: bytes, power: float) -> bytes:
        played = self._reference.take()
        self._still = self._still + 1 if played == self._silence else 0
        if self._no_echo.over(power):
            self._miss(block, played)
            return self._no_echo.faint(block)
        stood, self._stood = self._stood, not self.echoing
        if stood and self._stood:
            self._no_echo.cleaned(block)
            return block
        begins = stood and not self._missed  # after a hush there is nothing to fade from, and much to let through
        while self._missed:
            echo.heard(*self._missed.popleft())
        clean = echo.heard(block, played)
        self._no_echo.cleaned(clean)
        if begins:
            return self._crossed(block, clean)
        return self._crossed(clean, block) if self._stood else clean

    def _crossed(self, before: bytes, after: bytes) -> bytes:
        """From one to the other without a click. What is cleaned comes 4 ms late, so the first 4 are `before` alone."""
        return to_pcm(to_float(before) * (1 - self._rising) + to_float(after) * self._rising)

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        return self._blocks.process(frame), ()

    def reference(self, frame: AudioFrame) -> None:
        if self._echo is not None:
            self._reference.push(frame.pcm)

    @property
    def echoing(self) -> bool:
        """Whether there can be any echo now."""
        return self._echo is not None and self._still < _AFTER

    def reset(self) -> None:
        self._blocks.reset()
        self._reference.clear()
        self._make()


def make(kind: str, rate: int) -> EchoStage:
    return ApmStage(rate, (kind,))


def joint(kinds: Collection[str], rate: int) -> EchoStage:
    """One stage for several kinds of one stream."""
    return ApmStage(rate, kinds)
