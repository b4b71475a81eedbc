"""Recorder: a call's sound on disk, with the caller's consent only; written by a thread of its own as the call goes on.

The two directions share one time line, that of the loop's clock: a pause longer than 30 ms becomes silence, a shorter
one is the jitter of a line and is closed up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np

from roomkit.dsp.pcm import mix
from roomkit.errors import ConfigError, SessionEnded
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.runtime import WorkerThread, monotonic
from roomkit.voice.soundfiles import SoundFile, create, private

log = logging.getLogger(__name__)
Direction = Literal["inbound", "outbound", "both"]
Layout = Literal["mixed", "stereo", "separate", "all"]
GAP_MS = 30
_NOTE = ".json"
"""After the name of a recording, the name of the note of whose call it is."""
_HOLD_MS = 200
"""One direction waits this long for the other; then it was silent."""
_CHUNK_MS = 200
_MOST_CHUNKS = 50
"""Ten seconds that a slow disk may be behind; later sound is silence in the file, and counted."""


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """`layout` is for both directions: one mixed channel, caller left and room right, a file each, or mixed and a file
    each ("all"). `consented` says that every caller has agreed before the call; else nothing is kept until `consent`.
    `bitrate` is that of Opus, per channel in bit/s."""

    format: Literal["wav", "opus"] = "wav"
    direction: Direction = "both"
    layout: Layout = "mixed"
    consented: bool = False
    bitrate: int = 24_000

    def __post_init__(self) -> None:
        for name, known in (
            ("format", ("wav", "opus")),
            ("direction", ("inbound", "outbound", "both")),
            ("layout", ("mixed", "stereo", "separate", "all")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"RecordingOptions.{name} is one of {', '.join(known)}; not {getattr(self, name)!r}")


class Recording:
    """Records the calls of a channel into `folder`: `AudioPipelineConfig(taps=[Recording("calls")])`. Files are named
    by the session, with everything but letters, digits, "-" and "_" replaced, and never replace one another. Beside
    each lies a note of whose call it is, by which it is found when they are erased."""

    def __init__(self, folder: str | Path, options: RecordingOptions | None = None) -> None:
        self._folder = Path(folder)
        self._options = options or RecordingOptions()
        self._calls: dict[str, Recorder] = {}

    def __call__(self, session: VoiceSession, rate: int) -> Recorder:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", session.id)[:80] or "call"
        recorder = Recorder(self._folder / name, rate, self._options, session)
        recorder.closed = lambda: self._calls.pop(session.id, None)
        self._calls[session.id] = recorder
        return recorder

    def consent(self, session: VoiceSession) -> None:
        """The caller agrees: what is said from now on is kept. Raises `SessionEnded`."""
        self._of(session).consent()

    def withdraw(self, session: VoiceSession, *, delete: bool = False) -> None:
        """The caller agrees no longer: not one more frame is kept, and with `delete` nothing of what was."""
        self._of(session).withdraw(delete=delete)

    async def erase_person(self, tenant: str, names: Collection[str]) -> int:
        """Deletes the recordings in the folder of calls of whoever has one of these ids or addresses, and of those that
        are going on; returns how many files. The kit calls it when it erases them."""
        count = 0
        for recorder in tuple(self._calls.values()):
            session = recorder.session
            if session is not None and session.tenant == tenant and session.participant_id in names:
                count += len(recorder.paths)
                recorder.withdraw(delete=True)
                await recorder.done()
        return count + await asyncio.to_thread(_erase, self._folder, tenant, frozenset(names))

    def _of(self, session: VoiceSession) -> Recorder:
        recorder = self._calls.get(session.id)
        if recorder is None:
            raise SessionEnded(f"call {session.id} is not being recorded: it has ended, or has not been answered")
        return recorder


def _erase(folder: Path, tenant: str, names: frozenset[str]) -> int:
    count = 0
    for note in (*folder.glob(f"*.wav{_NOTE}"), *folder.glob(f"*.ogg{_NOTE}")):
        try:
            told: Any = json.loads(note.read_bytes())
            theirs = told["tenant"] == tenant and told["participant"] in names
        except (OSError, ValueError, KeyError, TypeError):
            log.warning("%s tells of nobody's recording: look yourself whose it is", note)
            continue
        if theirs:
            note.with_name(note.name.removesuffix(_NOTE)).unlink(missing_ok=True)
            note.unlink(missing_ok=True)  # last, so that what was cut short is finished by the next try
            count += 1
    return count


class _Track:
    """One direction: `end` counts samples of the time line; `sound` waits to be written."""

    __slots__ = ("end", "sound")

    def __init__(self) -> None:
        self.end = 0
        self.sound = bytearray()

    def add(self, pcm: bytes) -> None:
        self.sound += pcm
        self.end += len(pcm) // 2

    def until(self, end: int) -> None:
        """Silence up to there."""
        if end > self.end:
            self.add(bytes(2 * (end - self.end)))


class Recorder:
    """One call's recording, an `AudioTap`. `changed` hears when a file is begun and when it is finished or paused."""

    def __init__(self, stem: Path, rate: int, options: RecordingOptions, session: VoiceSession | None = None) -> None:
        self.session = session
        self.changed: Callable[[bool, Path], None] = lambda _on, _path: None
        self.closed: Callable[[], object] = lambda: None
        self.dropped = 0
        """Samples that a slow disk cost."""
        self._rate = rate
        names = ("inbound", "outbound") if options.direction == "both" else (options.direction,)
        self._tracks = {name: _Track() for name in names}
        self._files = _Files(stem, rate, options, tuple(names), session)
        self._gap, self._hold, self._chunk = (rate * ms // 1000 for ms in (GAP_MS, _HOLD_MS, _CHUNK_MS))
        self._thread = WorkerThread("roomkit-recorder")
        self._began: float | None = None
        self._on = self._announced = self._running = self._over = self._failed = False
        self._silent = 0
        self._jobs: set[asyncio.Future[None]] = set()
        if options.consented:
            self.consent()

    @property
    def recording(self) -> bool:
        return self._on

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files there are."""
        return tuple(file.path for file in self._files.open)

    # -- consent ----------------------------------------------------------------------------------------------------

    def consent(self) -> None:
        if not self._on and not self._over and not self._failed:
            self._on, self._announced = True, False

    def withdraw(self, *, delete: bool = False) -> None:
        """Takes effect before the next frame. What was kept until now stays, unless `delete`."""
        if self._on:
            self._on = False
            self._rest()
        if delete:
            self._submit(self._files.delete)
            self._began, self._silent = None, 0
            for track in self._tracks.values():
                track.end = 0
        self._stopped()

    # -- sound ------------------------------------------------------------------------------------------------------

    def inbound(self, frame: AudioFrame) -> None:
        self._take("inbound", frame, frame.samples)

    def outbound(self, frame: AudioFrame) -> None:
        self._take("outbound", frame, 0)

    def _take(self, name: str, frame: AudioFrame, age: int) -> None:
        track = self._tracks.get(name)
        if not self._on or track is None:
            return
        if self._began is None:
            self._began = monotonic()
        now = int((monotonic() - self._began) * self._rate)
        self._skip(now - self._hold)
        if now - age - track.end > self._gap:
            track.until(now - age)
        track.add(frame.pcm)
        for other in self._tracks.values():
            other.until(now - self._hold)
        if min(len(each.sound) for each in self._tracks.values()) >= 2 * self._chunk:
            self._flush()

    def _skip(self, until: int) -> None:
        """A long time in which nobody made a sound is a number, not memory."""
        end = max(track.end for track in self._tracks.values())
        if until - end <= self._chunk:
            return
        self._rest()
        for track in self._tracks.values():
            track.end = until
        self._silent += until - end

    def _rest(self) -> None:
        """Everything that waits, with the shorter direction filled up."""
        end = max(track.end for track in self._tracks.values())
        for track in self._tracks.values():
            track.until(end)
        self._flush()

    def _flush(self) -> None:
        size = min(len(track.sound) for track in self._tracks.values())
        if not size or self._failed:
            return
        parts = [bytes(track.sound[:size]) for track in self._tracks.values()]
        for track in self._tracks.values():
            del track.sound[:size]
        if len(self._jobs) >= _MOST_CHUNKS:
            self._silent += size // 2
            self.dropped += size // 2
        else:
            silent, self._silent = self._silent, 0
            self._submit(lambda: self._files.write(silent, parts))

    # -- the thread -------------------------------------------------------------------------------------------------

    def _submit(self, job: Callable[[], None]) -> None:
        if self._over:
            return
        future = self._thread.submit(job)
        self._jobs.add(future)
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[None]) -> None:
        self._jobs.discard(future)
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            if not self._failed:
                log.error("recording stopped: %s", error)
            self._failed, self._on = True, False
            self._stopped()
            return
        if self.paths and not self._announced:
            self._announced = self._running = True
            for path in self.paths:
                self.changed(True, path)
            if not self._on:
                self._stopped()
        if self._over and not self._jobs:
            self._stopped()

    def _stopped(self) -> None:
        if self._running:
            self._running = False
            for path in self.paths:
                self.changed(False, path)

    def close(self) -> None:
        """The call is over: the thread finishes the files. Idempotent; `done` waits for it."""
        if self._over:
            return
        self._on = False
        self._rest()
        if self._files.open or self._jobs:  # after a failure, too
            self._submit(self._files.close)
        self._over = True
        self._thread.close()
        self.closed()

    async def done(self) -> None:
        """Waits until everything is on disk. Raises nothing: a failure was logged."""
        if self._jobs:
            await asyncio.wait(self._jobs)


class _Files:
    """What the thread does. The files are made with the first sound there is to keep."""

    def __init__(
        self, stem: Path, rate: int, options: RecordingOptions, names: tuple[str, ...], session: VoiceSession | None
    ) -> None:
        self.open: list[SoundFile] = []
        self._session = session
        self._stem, self._rate, self._options = stem, rate, options
        layout = options.layout if len(names) == 2 else "mixed"
        self._outputs: list[tuple[str, int, Callable[[list[bytes]], bytes]]] = []
        if layout in ("mixed", "all"):
            self._outputs.append(("", 1, mix))
        if layout == "stereo":
            self._outputs.append(("", 2, _stereo))
        if layout in ("separate", "all"):
            self._outputs += [(f"-{name}", 1, itemgetter(at)) for at, name in enumerate(names)]

    def write(self, silent: int, parts: list[bytes]) -> None:
        if not self.open:
            self._create()
        while silent > 0:
            count = min(silent, self._rate)
            self._each([bytes(2 * count)] * len(parts))
            silent -= count
        self._each(parts)

    def _create(self) -> None:
        options = self._options
        self._stem.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        ending = "wav" if options.format == "wav" else "ogg"
        for suffix, channels, _ in self._outputs:
            path = self._stem.with_name(f"{self._stem.name}{suffix}.{ending}")
            file = create(path, options.format, self._rate, channels, options.bitrate)
            self.open.append(file)
            self._note(file.path)

    def _note(self, path: Path) -> None:
        if (session := self._session) is not None:
            told = {"tenant": session.tenant, "participant": session.participant_id, "room": session.room_id}
            private(path.with_name(path.name + _NOTE), json.dumps(told).encode())

    def _each(self, parts: list[bytes]) -> None:
        for file, (_, _, combine) in zip(self.open, self._outputs, strict=True):
            file.write(combine(parts))

    def close(self) -> None:
        with ExitStack() as all_of_them:
            for file in self.open:
                all_of_them.callback(file.close)

    def delete(self) -> None:
        files, self.open = self.open, []
        for file in files:
            file.close()
            file.path.unlink(missing_ok=True)
            file.path.with_name(file.path.name + _NOTE).unlink(missing_ok=True)


def _stereo(parts: list[bytes]) -> bytes:
    return np.column_stack([np.frombuffer(part, "<i2") for part in parts]).tobytes()
