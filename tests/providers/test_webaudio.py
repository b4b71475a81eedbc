"""A page's microphone and loudspeaker over a web socket, from the server's side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from roomkit.errors import ProtocolError
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.ports.audio import VoiceBackend
from roomkit.providers.webaudio.audio import FRAME_BYTES, WebAudioBackend
from roomkit.runtime import Scope
from roomkit.testing.voice import FakePage, FarEnd, MemoryLine, check_voice_backend, sound


async def nothing() -> None: ...


@asynccontextmanager
async def page(
    backend: WebAudioBackend, session: VoiceSession | None = None
) -> AsyncIterator[tuple[FakePage, MemoryLine]]:
    async with Scope("page") as scope:
        line = MemoryLine()
        far = FakePage(line.put, session)
        line.on_sent = far.take
        scope.spawn(backend.serve(line, far.session, nothing), name="serve")
        scope.spawn(far.report(), name="report")
        await asyncio.sleep(0.01)
        yield far, line
        line.put(None)
        await asyncio.sleep(0.01)


async def test_conformance() -> None:
    async with Scope("pages") as scope:

        async def connect(listen_only: bool) -> tuple[VoiceBackend, FarEnd]:
            backend = WebAudioBackend()
            line = MemoryLine()
            far = FakePage(line.put, VoiceSession("page", listen_only=listen_only))
            line.on_sent = far.take
            scope.spawn(backend.serve(line, far.session, nothing), name="serve")
            scope.spawn(far.report(), name="report")
            await asyncio.sleep(0)
            return backend, far

        await check_voice_backend(connect)


async def test_a_report_from_before_a_clear_does_not_count_for_what_came_after() -> None:
    backend = WebAudioBackend()
    async with page(backend) as (far, line):
        for _ in range(10):
            await backend.send_audio(far.session, AudioFrame(sound(320, 16_000), 16_000))
        await asyncio.sleep(0.1)
        await backend.clear(far.session)
        at_clear = backend.played(far.session)
        await backend.send_audio(far.session, AudioFrame(sound(320, 16_000), 16_000))
        line.put(json.dumps({"type": "played", "epoch": 0, "position": 3_200}))
        await asyncio.sleep(0.001)
        assert backend.played(far.session) == at_clear


async def test_a_page_cannot_say_that_more_sounded_than_was_sent() -> None:
    backend = WebAudioBackend()
    async with page(backend) as (far, line):
        await backend.send_audio(far.session, AudioFrame(sound(320, 16_000), 16_000))
        line.put(json.dumps({"type": "played", "epoch": 0, "position": 10**9}))
        await asyncio.sleep(0.001)
        assert backend.played(far.session) == 320


async def test_what_comes_faster_than_sound_is_dropped_unread() -> None:
    backend = WebAudioBackend()
    async with page(backend) as (far, _):
        for _ in range(1_000):
            await far.say(sound(320, 16_000))
        await asyncio.sleep(0.01)
        call = backend._calls[far.session.id]
        assert call.flooded >= 790
        assert len(call.frames) <= 100


@pytest.mark.parametrize("nonsense", ["no json", "[]", '{"no": "type"}', b"short", bytes(FRAME_BYTES + 5), "[" * 900])
async def test_nonsense_ends_the_call(nonsense: str | bytes) -> None:
    backend, told = WebAudioBackend(), []
    backend.on_event(told.append)
    line = MemoryLine()
    line.put(nonsense)
    with pytest.raises(ProtocolError):
        await backend.serve(line, VoiceSession("page"), nothing)
    assert [event.kind for event in told] == ["connected", "disconnected"]
    assert len(backend) == 0


async def test_a_room_that_does_not_take_the_call_hangs_up() -> None:
    from roomkit.errors import StateError

    backend = WebAudioBackend()

    async def refuse() -> None:
        raise StateError("full")

    line = MemoryLine()
    await backend.serve(line, VoiceSession("page"), refuse)
    assert line.code == 4406, "a page can tell it from the end of a call"
    assert len(backend) == 0
