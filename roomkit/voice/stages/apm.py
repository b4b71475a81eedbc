"""WebRTC's audio processing, by LiveKit's build of it: echo (AEC3), gain and noise in one pass over 10 ms blocks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any

from roomkit.errors import MissingExtra
from roomkit.models.audio import AudioFrame, AudioSignal
from roomkit.ports.audio import EchoStage
from roomkit.voice.stages.blocks import Blocks, Reference

KINDS = ("aec", "agc", "denoiser")


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


class ApmStage:
    """One stream's processing; what `kinds` names is on, with a high-pass filter. One pass does all of it, so a
    pipeline that says "apm" for several kinds has one such stage, where the first of them stands."""

    name = "apm"

    def __init__(self, rate: int, kinds: Collection[str] = KINDS) -> None:
        self._kinds = frozenset(kinds)
        size = rate // 100
        self._module = _livekit("apm").AudioProcessingModule
        frame: Any = _livekit("audio_frame").AudioFrame
        # Processed in place, so these two buffers are all that the stage ever needs.
        self._near, self._far = bytearray(2 * size), bytearray(2 * size)
        self._near_frame, self._far_frame = frame(self._near, rate, 1, size), frame(self._far, rate, 1, size)
        self._blocks = Blocks(size, self._work)
        self._reference = Reference(size, rate)
        self._make()

    def _make(self) -> None:
        echo = "aec" in self._kinds
        self._apm: Any = self._module(
            echo_cancellation=echo,
            noise_suppression="denoiser" in self._kinds,
            high_pass_filter=True,
            auto_gain_control="agc" in self._kinds,
        )
        self._echo = echo
        if echo:
            self._apm.set_stream_delay_ms(0)
        self._clean = _directly(self._apm, "apm_process_stream", self._near_frame, self._near)
        self._play = _directly(self._apm, "apm_process_reverse_stream", self._far_frame, self._far)

    def _work(self, block: bytes) -> bytes:
        if self._echo:
            self._far[:] = self._reference.take()
            self._play()
        self._near[:] = block
        self._clean()
        return bytes(self._near)

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        return self._blocks.process(frame), ()

    def reference(self, frame: AudioFrame) -> None:
        if self._echo:
            self._reference.push(frame.pcm)

    def reset(self) -> None:
        self._blocks.reset()
        self._reference.clear()
        self._make()


def make(kind: str, rate: int) -> EchoStage:
    return ApmStage(rate, (kind,))


def joint(kinds: Collection[str], rate: int) -> EchoStage:
    """One stage for several kinds of one stream."""
    return ApmStage(rate, kinds)
