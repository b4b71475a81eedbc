"""Line 18: who only listens has no uplink, and no keypad either. (Recording: `tests/voice/test_recorder.py`.)"""

from __future__ import annotations

import asyncio

import pytest

from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.runtime import Scope
from roomkit.testing.vendors.twilio_media import FakeTwilioCall
from roomkit.testing.voice import MemoryLine, sound
from tests.channels.test_realtime import desk
from tests.providers.test_twilio_media import asked, made, nothing, parameters


@pytest.mark.parametrize("listens", [True, False])
async def test_the_keys_of_who_only_listens_are_not_heard(listens: bool) -> None:
    backend, line, kinds = made(), MemoryLine(), list[str]()
    backend.on_event(lambda event: kinds.append(event.kind))
    told = parameters(backend.reply(asked(), "wss://calls.example/voice/phone").body)
    far = FakeTwilioCall(line.put, parameters=told, session=VoiceSession("call", listen_only=listens))
    async with Scope("phone") as scope:
        far.start()
        scope.spawn(backend.serve(line, far.session, nothing), name="serve")
        far.press("5")
        await far.say(sound(160, 8_000))
        await asyncio.sleep(1)
        assert ("dtmf" in kinds) is not listens
        assert bool(len(backend._calls[far.session.id].frames)) is not listens
        line.put(None)
        await asyncio.sleep(1)


async def test_nobody_hears_who_only_listens_although_the_line_lets_it_through() -> None:
    async with desk() as it:
        await it.call()
        monitor = VoiceSession("monitor", participant_id="boss", listen_only=True)
        await it.line.accept(monitor, None)
        await it.channel.answer(monitor, room_id=it.room)
        size = monitor.rate // 50
        for number in range(20):
            it.line._lines[monitor.id].frames.push(AudioFrame(b"\x84\x03" * size, monitor.rate, number * size))
            await asyncio.sleep(0.02)
        await asyncio.sleep(1)
        assert not any(it.line.heard(it.session))
