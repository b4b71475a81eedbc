"""The kit for audio transports finds what it is for: each planted fault is named."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.providers.live_audio import LiveCall, SentSound
from roomkit.providers.webaudio.audio import WebAudioBackend
from roomkit.runtime import Scope
from roomkit.testing import check_voice_backend
from roomkit.testing.voice import FakePage, Loudspeaker, MemoryLine, sound


async def check(kind: type[WebAudioBackend], page: type[FakePage] = FakePage) -> None:
    async with Scope("pages") as scope:

        async def nothing() -> None: ...

        async def connect(listen_only: bool) -> tuple[WebAudioBackend, FakePage]:
            backend, line = kind(), MemoryLine()
            far = page(line.put, VoiceSession("page", listen_only=listen_only))
            line.on_sent = far.take
            scope.spawn(backend.serve(line, far.session, nothing), name="serve")
            scope.spawn(far.report(), name="report")
            await asyncio.sleep(0)
            return backend, far

        await check_voice_backend(connect)


class NeverClears(WebAudioBackend):
    async def forget(self, call: LiveCall[Any], epoch: int) -> None: ...


class CountsWhatWasSent(WebAudioBackend):
    def played(self, session: VoiceSession) -> int:
        return self._calls[session.id].sound.sent


class Deaf(WebAudioBackend):
    def take(self, call: LiveCall[Any], pcm: bytes, position: int | None = None) -> None: ...


class HearsMonitors(WebAudioBackend):
    def take(self, call: LiveCall[Any], pcm: bytes, position: int | None = None) -> None:
        call.frames.push(AudioFrame(pcm, 16_000, position or 0))


class LeavesSilently(WebAudioBackend):
    def gone(self, call: LiveCall[Any]) -> None:
        call.over = True
        call.frames.close()


class PlaysOnAfterTheEnd(WebAudioBackend):
    async def send_audio(self, session: VoiceSession, frame: AudioFrame) -> None:
        if session.id in self._calls:
            await super().send_audio(session, frame)


class LosesHalf(WebAudioBackend):
    async def put(self, call: LiveCall[Any], frame: AudioFrame) -> None:
        if call.sound.sent // 320 % 2:
            await super().put(call, frame)


class NeverReports(FakePage):
    async def report(self) -> None: ...


@pytest.mark.parametrize(
    "kind, page, named",
    [
        (NeverClears, FakePage, "after clear"),
        (CountsWhatWasSent, FakePage, "samples sounded, .* are said to have"),
        (Deaf, FakePage, "that were said 0 came"),
        (HearsMonitors, FakePage, "a monitor is heard"),
        (LeavesSilently, FakePage, "nobody is told"),
        (PlaysOnAfterTheEnd, FakePage, "SessionEnded"),
        (LosesHalf, FakePage, "late|never played|sounded"),
        (WebAudioBackend, NeverReports, "known .* late"),
    ],
)
async def test_a_planted_fault_is_named(kind: type[WebAudioBackend], page: type[FakePage], named: str) -> None:
    with pytest.raises(AssertionError, match=named):
        await check(kind, page)


async def test_a_loudspeaker_plays_at_the_pace_of_sound() -> None:
    told: list[Any] = []
    speaker = Loudspeaker(8_000, told.append)
    speaker.add(sound(800, 8_000))
    speaker.add(b"", "half")
    speaker.add(sound(800, 8_000))
    speaker.add(b"", "end")
    await asyncio.sleep(0.15)
    assert len(speaker.heard) == 2 * 1_200
    assert told == ["half"]
    assert speaker.clear() == ["end"]
    await asyncio.sleep(1)
    assert len(speaker.heard) == 2 * 1_200


async def test_sound_that_was_forgotten_never_counts() -> None:
    counted = SentSound(8_000)
    counted.sent += 1_600
    counted.confirm(0, 800)
    await asyncio.sleep(0.01)
    assert counted.played() == 880
    assert counted.clear() == 1
    assert counted.sent == 880
    counted.confirm(0, 1_600)
    await asyncio.sleep(1)
    assert counted.played() == 880
    counted.sent += 160
    counted.confirm(1, 160)
    assert counted.played() == 1_040
