"""RealtimeCall where models, vendors and callers do not keep to the order of things; on the mocks, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit.channels.realtime import RealtimeOptions
from roomkit.models import realtime as rt
from roomkit.ports.realtime import RealtimeTraits
from roomkit.runtime import monotonic
from roomkit.testing.calls import ScriptedVad
from roomkit.voice.pipeline import AudioPipelineConfig
from roomkit.voice.realtime.mock import IN_BAND, MockRealtimeProvider
from tests.channels.test_realtime import ORDER_TOOL, Desk, desk


def _own_ears() -> RealtimeOptions:
    return RealtimeOptions(pipeline=AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None))


def _unmarked() -> MockRealtimeProvider:
    """A provider that does not tell where speech begins and ends."""
    return MockRealtimeProvider(traits=RealtimeTraits(marks_speech=False, reconfigures=IN_BAND))


async def _texts(it: Desk) -> list[str]:
    return [text for _, text in await it.log()]


# -- what the caller said ----------------------------------------------------------------------------------------------


async def test_words_that_come_after_their_time_hold_up_nothing_that_follows() -> None:
    async with desk() as it:
        await it.call()
        it.model.emit(rt.SpeechBegan("u1"), rt.SpeechStopped("u1"))
        await asyncio.sleep(3.5)
        it.model.emit(rt.UserText("u1", "better", final=False), rt.UserText("u1", "better late"))
        await asyncio.sleep(0.1)
        it.model.hears("and now this")
        it.model.says("ok", ms=100)
        await asyncio.sleep(1)
        assert await _texts(it) == ["better late", "and now this", "ok"]


async def test_a_break_in_the_middle_of_the_caller_s_words_holds_up_nothing() -> None:
    async with desk(provider=_unmarked(), tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        it.model.emit(rt.UserText("g1", "I would like", final=False))
        await asyncio.sleep(0.1)
        it.model.breaks()
        await asyncio.sleep(0.5)
        it.model.emit(rt.UserText("g2", "hello?"))
        it.model.calls(("find_order", {"number": 1}))
        it.model.says("ok", ms=100)
        await asyncio.sleep(1)
        assert len(it.model.of(rt.ToolAnswer)) == 1
        assert [text for text in await _texts(it) if "find" not in text] == ["I would like", "hello?", "ok"]
        said = next(event for event in await it.kit.events(it.room) if event.text == "I would like")
        assert said.metadata["unfinished"] is True


async def test_words_whose_end_nobody_tells_hold_up_a_tool_for_a_limited_time() -> None:
    async with desk(provider=_unmarked(), tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        it.model.emit(rt.UserText("g1", "I would", final=False))
        await asyncio.sleep(2)
        it.model.emit(rt.UserText("g1", "I would like", final=False))
        it.model.calls(("find_order", {"number": 1}))
        await asyncio.sleep(2)
        assert not it.model.of(rt.ToolAnswer)
        await asyncio.sleep(1.5)
        assert len(it.model.of(rt.ToolAnswer)) == 1
        it.model.emit(rt.UserText("g1", "I would like tea"))
        await asyncio.sleep(0.1)
        assert (await _texts(it))[-1] == "I would like tea"


async def test_the_last_words_of_a_caller_who_hangs_up_stand_in_the_room() -> None:
    async with desk(provider=_unmarked()) as it:
        await it.call()
        it.model.emit(rt.UserText("g1", "thanks", final=False), rt.UserText("g1", "thanks bye", final=False))
        await asyncio.sleep(0.1)
        it.line.disconnects(it.session)
        await asyncio.sleep(0.5)
        assert await _texts(it) == ["thanks bye"]


async def test_a_caller_who_goes_on_before_the_vendor_has_named_what_was_said_is_heard_to_the_end() -> None:
    async with desk(options=_own_ears()) as it:
        await it.call()
        await it.line.speak(it.session, 400, 500)
        await it.line.speak(it.session, 800, 0)
        async with asyncio.TaskGroup() as group:
            group.create_task(it.line.speak(it.session, 600, 500))
            await asyncio.sleep(0.3)
            it.model.emit(rt.SpeechStopped("item-1"), rt.UserText("item-1", "first"))
        await it.line.speak(it.session, 800, 0)
        it.model.emit(rt.SpeechStopped("item-2"), rt.UserText("item-2", "second"))
        await asyncio.sleep(0.3)
        assert [each.speaking for each in it.model.of(rt.UserSpeech)] == [True, False, True, False]
        assert await _texts(it) == ["first", "second"]


async def test_speech_that_a_mute_cuts_off_gives_its_name_to_nothing() -> None:
    async with desk(options=_own_ears()) as it:
        await it.call()
        await it.line.speak(it.session, 400, 500)
        await it.kit.mute(it.room, "voice")
        await it.kit.unmute(it.room, "voice")
        await it.line.speak(it.session, 400, 500)
        it.model.says("while you speak", ms=100)
        await it.line.speak(it.session, 800, 0)
        it.model.emit(rt.SpeechStopped("item-1"), rt.UserText("item-1", "the second time"))
        it.model.says("ok", ms=100)
        await asyncio.sleep(0.5)
        assert await _texts(it) == ["the second time", "ok"]


# -- who speaks --------------------------------------------------------------------------------------------------------


async def test_a_reply_that_begins_while_the_caller_speaks_is_not_heard() -> None:
    async with desk(options=_own_ears()) as it:
        await it.call()
        async with asyncio.TaskGroup() as group:
            group.create_task(it.line.speak(it.session, 1000, 500))
            await asyncio.sleep(0.4)
            it.model.says("I talk over you", ms=500)
        assert not any(it.line.heard(it.session))
        assert it.model.of(rt.CutReply)
        await it.line.speak(it.session, 800, 0)
        it.model.says("now I may", ms=300)
        await asyncio.sleep(1)
        assert any(it.line.heard(it.session))


async def test_a_line_that_falls_silent_in_mid_word_does_not_silence_the_model() -> None:
    async with desk(options=_own_ears()) as it:
        await it.call()
        await it.line.speak(it.session, 400, 500)  # then nothing at all: the microphone is off at the far end
        await asyncio.sleep(1)
        it.model.says("are you there?", ms=300)
        await asyncio.sleep(1)
        assert any(it.line.heard(it.session))


async def test_a_reply_that_fails_is_asked_for_once_more() -> None:
    async with desk() as it:
        await it.call()
        it.model.hears("are you there?")
        for asked in (1, 1):
            it.model.emit(rt.ReplyBegan("r"), rt.ReplyOver("r", "failed", "server_error"))
            await asyncio.sleep(2)
            assert len(it.model.of(rt.Respond)) == asked
        it.model.says("yes", ms=100)
        await asyncio.sleep(1)
        it.model.emit(rt.ReplyBegan("r2"), rt.ReplyOver("r2", "failed", "server_error"), rt.SpeechBegan("u"))
        await it.line.speak(it.session, 2_000)
        assert len(it.model.of(rt.Respond)) == 1, "who speaks is answered anyway"


async def test_whoever_hangs_up_here_drops_the_line_at_once() -> None:
    async def slow(name: str, arguments: dict[str, Any]) -> str:
        await asyncio.sleep(60)
        return "never"

    async with desk(tools=[ORDER_TOOL], tool_handler=slow) as it:
        await it.call()
        it.model.calls(("find_order", {"number": 2}))
        await asyncio.sleep(0.5)
        async with asyncio.TaskGroup() as group:
            group.create_task(it.channel.end_session(it.session))
            await asyncio.sleep(0.5)
            assert len(it.line) == 0
        assert ("tool_call_end", "find_order unknown_outcome") in await it.log()


async def test_a_tool_may_hang_up() -> None:
    async def hang_up(name: str, arguments: dict[str, Any]) -> str:
        await it.channel.end_session(it.session)
        return "goodbye"

    async with desk(tools=[ORDER_TOOL], tool_handler=hang_up) as it:
        await it.call()
        it.model.calls(("find_order", {"number": 1}))
        await asyncio.sleep(0.5)
        assert len(it.line) == 0
        assert it.model.closed
        assert (await it.log())[-1] == ("tool_call_end", "find_order completed")
        assert it.channel._rooms == {}


async def test_who_hangs_up_and_does_not_wait_for_it_has_hung_up() -> None:
    async def slow(name: str, arguments: dict[str, Any]) -> str:
        await asyncio.sleep(3)
        return "found"

    async with desk(tools=[ORDER_TOOL], tool_handler=slow) as it:
        await it.call()
        it.model.calls(("find_order", {"number": 2}))
        await asyncio.sleep(0.5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(it.channel.end_session(it.session), 0.1)
        await asyncio.sleep(4)
        assert it.model.closed
        assert (await it.log())[-1] == ("tool_call_end", "find_order completed")
        assert it.channel._rooms == {}
        assert len(it.channel._scope) == 0


async def test_calls_end_side_by_side_when_the_channel_closes() -> None:
    async def slow(name: str, arguments: dict[str, Any]) -> str:
        await asyncio.sleep(60)
        return "found"

    async with desk(tools=[ORDER_TOOL], tool_handler=slow) as it:
        for _ in range(4):
            await it.call()
            it.model.calls(("find_order", {"number": 2}))
        await asyncio.sleep(0.5)
        began = monotonic()
        await it.channel.close()
        assert monotonic() - began < 6
        assert all(session.closed for session in it.provider.sessions)
        assert [what for _, what in await it.log()].count("find_order unknown_outcome") == 4


async def _found(name: str, arguments: dict[str, Any]) -> str:
    return "on its way"
