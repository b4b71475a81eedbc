"""LocalBackend: the microphone and loudspeaker of the machine that the kit runs on, with sounddevice (PortAudio).

PortAudio calls from a thread of its own, every 20 ms. What it brings is handed to the loop; what it plays it takes from
a bounded queue that is filled from the loop. No lock is held while it runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from roomkit.errors import ConfigError, MissingExtra, StateError
from roomkit.models.audio import FRAME_MS, AudioFrame, VoiceSession
from roomkit.ports.audio import BackendTraits
from roomkit.providers.live_audio import LiveBackend, LiveCall

MOST_QUEUED = 100
"""Two seconds of 20 ms: the playout is never that far ahead."""


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """`rate` in Hz. Devices by PortAudio's name or number, None for the system's own choice."""

    rate: int = 16_000
    microphone: str | int | None = None
    loudspeaker: str | int | None = None


class _Wire:
    """One pair of streams. `ear` and `mouth` run in PortAudio's thread."""

    def __init__(self, backend: LocalBackend, loop: asyncio.AbstractEventLoop) -> None:
        self.backend = backend
        self.loop = loop
        self.queue: deque[tuple[int, bytes]] = deque()
        self.epoch = 0
        self.streams: list[Any] = []
        self.call: LiveCall[_Wire] | None = None
        self.underruns = 0
        self._position = 0

    def ear(self, data: Any, _frames: int, _time: Any, status: Any) -> None:
        self._hand_over(self._heard, bytes(data))

    def mouth(self, out: Any, frames: int, _time: Any, status: Any) -> None:
        try:
            epoch, pcm = self.queue.popleft()
        except IndexError:
            out[:] = bytes(frames * 2)
            return
        out[:] = pcm.ljust(frames * 2, b"\0")[: frames * 2]
        self._hand_over(self._played, epoch, len(pcm) // 2)

    def _hand_over(self, what: Any, *values: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(what, *values)
        except RuntimeError:
            pass  # the loop has ended: there is nobody to tell

    def _heard(self, pcm: bytes) -> None:
        if self.call is not None:
            self.backend.take(self.call, pcm)

    def _played(self, epoch: int, samples: int) -> None:
        if self.call is not None and epoch == self.epoch:
            self._position += samples
            self.call.sound.confirm(epoch, self._position)

    def forget(self, epoch: int) -> None:
        self.queue.clear()
        self.epoch, self._position = epoch, 0


class LocalBackend(LiveBackend[_Wire]):
    """A `VoiceBackend` with one call at a time: `call` opens it. Raises `MissingExtra` without sounddevice,
    `ConfigError` without PortAudio or its devices."""

    def __init__(self, options: LocalOptions | None = None, *, sounddevice: Any = None) -> None:
        self._options = options or LocalOptions()
        super().__init__(BackendTraits(rate=self._options.rate))
        self._sound: Any = sounddevice or _sounddevice()

    def call(self, *, session_id: str = "local", participant_id: str = "local") -> VoiceSession:
        """Whoever sits at this machine. Opens the devices in a blocking way."""
        if self._calls:
            raise StateError("the microphone of this machine is on a call already; hang it up first")
        session = VoiceSession(session_id, participant_id=participant_id)
        wire = _Wire(self, asyncio.get_running_loop())
        options, size = self._options, self._options.rate * FRAME_MS // 1000
        shape = {"samplerate": options.rate, "channels": 1, "dtype": "int16", "blocksize": size, "latency": "low"}
        try:
            ear = self._sound.RawInputStream(device=options.microphone, callback=wire.ear, **shape)
            wire.streams.append(ear)
            wire.streams.append(self._sound.RawOutputStream(device=options.loudspeaker, callback=wire.mouth, **shape))
            wire.call = self.opened(session, wire, FRAME_MS / 1000)
            for stream in wire.streams:
                stream.start()
        except (self._sound.PortAudioError, ValueError) as error:
            self._calls.pop(session.id, None)
            _close(wire)
            raise ConfigError(
                f"the sound devices of this machine cannot be opened ({error}); choose them with LocalOptions"
            ) from error
        return session

    async def put(self, call: LiveCall[_Wire], frame: AudioFrame) -> None:
        if len(call.wire.queue) < MOST_QUEUED:
            call.wire.queue.append((call.sound.epoch, frame.pcm))

    async def forget(self, call: LiveCall[_Wire], epoch: int) -> None:
        call.wire.forget(epoch)

    async def leave(self, call: LiveCall[_Wire]) -> None:
        call.wire.call = None
        _close(call.wire)


def _close(wire: _Wire) -> None:
    for stream in wire.streams:
        stream.abort()
        stream.close()
    wire.streams.clear()


def _sounddevice() -> Any:
    try:
        return import_module("sounddevice")
    except ImportError as error:
        raise MissingExtra("LocalBackend", "sounddevice", "local") from error
    except OSError as error:
        raise ConfigError("LocalBackend needs PortAudio: apt-get install libportaudio2") from error


def provider(_account: str | None = None, **options: Any) -> LocalBackend:
    return LocalBackend(LocalOptions(**options))
