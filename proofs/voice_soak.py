"""A thousand calls, one after the other, through everything: real speech in, cleaned, recognised as speech, recorded,
answered, interrupted, hung up. The memory of the process stays where it is, and nothing is left over of a call."""

from __future__ import annotations

import asyncio
import ctypes.util
import gc
import os
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from proofs.kill9 import Proof
from roomkit import AudioPipelineConfig, RoomKit, VoiceChannel
from roomkit.dsp.sound import read_wav
from roomkit.models.audio import AudioFrame, Transcript, VoiceSession
from roomkit.testing.calls import FRAME, RATE, ScriptedBackend, ScriptedTTS
from roomkit.testing.loop import run
from roomkit.voice.recorder import Recording, RecordingOptions

TITLE = "short calls, one after the other, and the memory that is left"
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
CALLERS, AT_ONCE = 20, 5
KB_A_CALL = 2.0
"""What a call may leave behind, beside pages in SQLite's cache, which is bounded (16 MB) and fills up as calls are
written down."""


class Line(ScriptedBackend):
    """Every caller says the same prompt; what was heard of a call is forgotten with it."""

    def __init__(self, said: bytes) -> None:
        super().__init__()
        self._said = said

    async def receive(self, session: VoiceSession) -> AsyncIterator[AudioFrame]:
        async for frame in super().receive(session):
            at = frame.position * 2
            part = self._said[at : at + 2 * FRAME]
            yield AudioFrame(part + bytes(2 * FRAME - len(part)), RATE, frame.position)

    def forget(self, session: VoiceSession) -> None:
        del self._lines[session.id]


class Knows:
    """A recogniser that drains what it is given and knows what was said."""

    streaming, rate = False, RATE
    heard = 0

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], *, language: str | None = None, call: str | None = None
    ) -> AsyncIterator[Transcript]:
        async for _ in frames:
            pass
        self.heard += 1
        yield Transcript("Nobody is available.", language=language)

    async def aclose(self) -> None: ...


async def prove(n: int, seed: int) -> Proof:
    with tempfile.TemporaryDirectory() as folder:
        return await asyncio.to_thread(lambda: run(_soak(n, Path(folder)), limit_s=None))


async def _soak(n: int, folder: Path) -> Proof:
    proof, stt = Proof(), Knows()
    line = Line(read_wav(PROMPTS / "vm-nobodyavail.wav", RATE))
    pipeline = AudioPipelineConfig(
        aec="apm", agc="builtin", taps=[Recording(str(folder), RecordingOptions(consented=True))]
    )
    phone = VoiceChannel("phone", stt=stt, tts=ScriptedTTS(), backend=line, pipeline=pipeline)
    sizes: list[int] = []
    async with RoomKit(f"sqlite:///{folder}/rooms.db") as kit:
        kit.register_channel(phone)

        @kit.on_message
        async def reply(ctx: Any, message: Any) -> str:
            return "This answer is so long that the caller hangs up before it has come to its end, as callers do."

        every = max(n // 10, 1)
        for number in range(0, n, AT_ONCE):
            await asyncio.gather(*(_call(line, phone, one) for one in range(number, min(number + AT_ONCE, n))))
            for file in folder.glob("*.wav"):
                file.unlink()
            if number // every != (number + AT_ONCE) // every or number + AT_ONCE >= n:
                sizes.append(_resident_kb())
        _judge(proof, n, sizes, stt, phone)
    return proof


async def _call(line: Line, phone: VoiceChannel, number: int) -> None:
    session = line.call(f"call-{number}", participant_id=f"caller-{number % CALLERS}")
    await phone.answer(session)
    await asyncio.sleep(5.5)
    line.disconnects(session)
    await asyncio.sleep(0.5)
    line.forget(session)


def _judge(proof: Proof, n: int, sizes: list[int], stt: Knows, phone: VoiceChannel) -> None:
    settled = sizes[len(sizes) // 3 :]
    calls = n * len(settled) // len(sizes)
    each = max(settled[-1] - settled[0], 0) / max(calls, 1)
    proof.figures["resident at the start, without SQLite's cache, KB"] = sizes[0]
    proof.figures["resident at the end, without SQLite's cache, KB"] = sizes[-1]
    proof.figures["SQLite's cache at the end, KB"] = _sqlite_bytes() // 1024
    proof.figures["left by a call in the last two thirds, bytes"] = round(each * 1024)
    proof.figures["turns"] = stt.heard
    proof.figures["threads at the end"] = threading.active_count()
    if calls >= 300 and each > KB_A_CALL:
        proof.wrong.append(f"a call leaves {each:.1f} KB behind: {sizes}")
    if stt.heard < n:
        proof.wrong.append(f"only {stt.heard} of {n} callers were heard")
    if left := len(phone.sessions()):
        proof.wrong.append(f"{left} calls are left over")


def _resident_kb() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return (pages * os.sysconf("SC_PAGE_SIZE") - _sqlite_bytes()) // 1024


def _sqlite_bytes() -> int:
    try:
        library = ctypes.CDLL(ctypes.util.find_library("sqlite3") or "libsqlite3.so.0")
        library.sqlite3_memory_used.restype = ctypes.c_int64
        return int(library.sqlite3_memory_used())
    except (OSError, AttributeError):  # a Python that brings a SQLite of its own
        return 0
