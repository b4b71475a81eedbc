"""Turns and replies: one answer per question, streams with exactly one end, policies for what arrives meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit import EventType, TurnPolicy
from roomkit.errors import UsageError
from roomkit.models.content import ToolCallContent
from roomkit.models.hooks import Committed, ReplyFinished, Trouble
from roomkit.models.room import ChannelCapabilities
from roomkit.models.stream import (
    ReplyEnd,
    StreamChunk,
    StreamEnd,
    StreamError,
    StreamStart,
    TextDelta,
    ThinkingDelta,
    ToolStep,
)
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, gapless, kit_with, said, say, stream


def streams(items: list[Any]) -> list[Any]:
    return [i for i in items if isinstance(i, (StreamStart, StreamChunk, StreamEnd, StreamError))]


async def test_a_streamed_reply_is_one_event_with_the_reserved_id() -> None:
    items: list[Any] = []
    brain = Brain(script=lambda c, e: stream("one ", TextDelta("two "), "three", ReplyEnd("completed", {"output": 3})))
    async with kit_with(FakeChannel(), brain) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.open_view("r", "sms", items.append)
        await (await say(kit, "go", "r")).settled()
        start, *chunks, end = streams(items)
        assert [(c.offset, c.delta) for c in chunks] == [(0, "one "), (4, "two "), (8, "three")]
        assert start.stream_id == end.stream_id == end.event.id
        assert end.event.text == "one two three"
        assert end.event.metadata["usage"] == {"output": 3}
        stored = [e for e in await kit.events("r", raw=True) if e.type is EventType.MESSAGE]
        assert stored[-1] == end.event
        assert stored[-1].correlation_id == stored[0].id
        assert stored[-1].chain_depth == 1


@pytest.mark.parametrize("listeners", [0, 1, 2])
async def test_a_failing_stream_ends_once_whoever_listens(listeners: int) -> None:
    async def broken() -> Any:
        yield "partial "
        raise ValueError("boom")

    views: list[list[Any]] = [[] for _ in range(listeners)]
    troubles: list[Trouble] = []
    ended: list[ReplyFinished] = []
    async with kit_with(FakeChannel(), Brain(script=lambda c, e: broken())) as kit:
        kit.hooks.on(Trouble, _collect(troubles))
        kit.hooks.on(ReplyFinished, _collect(ended))
        await kit.create_room("r", channels=["sms", "ai"])
        for seen in views:
            await kit.open_view("r", "sms", seen.append)
        await (await say(kit, "go", "r")).settled()
        await asyncio.sleep(0)
        assert await said(kit, "r") == [("sms", "go", "committed"), ("ai", "partial ", "committed")]
        assert len(troubles) == 1
        assert [(r.reason, r.error) for r in ended] == [("error", "ValueError: boom")]
        for seen in views:
            ends = [i for i in streams(seen) if isinstance(i, (StreamEnd, StreamError))]
            assert len(ends) == 1
            assert ends[0].event.metadata["interrupted"] == "error"


def _collect(into: list[Any]) -> Any:
    async def hear(notice: Any) -> None:
        into.append(notice)

    return hear


async def test_a_reply_without_words_leaves_no_message() -> None:
    items: list[Any] = []
    async with kit_with(FakeChannel(), Brain(script=lambda c, e: stream(ReplyEnd("empty_response")))) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.open_view("r", "sms", items.append)
        await (await say(kit, "go", "r")).settled()
        assert len(await said(kit, "r")) == 1
        assert streams(items) == []


async def test_quick_messages_get_one_answer() -> None:
    sms = FakeChannel(capabilities=ChannelCapabilities(quiet_window_s=1.5))
    brain = Brain()
    async with kit_with(sms, brain) as kit:
        for text in ("hi", "one more", "thing"):
            result = await say(kit, text)
            await asyncio.sleep(0.5)
        await result.settled()
        assert brain.seen == [["hi", "one more", "thing"]]
        assert sms.texts == ["echo thing"]
        await (await say(kit, "later")).settled()
        assert brain.seen[1:] == [["later"]]


async def test_what_arrives_during_a_turn_joins_the_next_one() -> None:
    brain = Brain(script=lambda c, e: stream("a", "b", every=1))
    async with kit_with(FakeChannel(), brain) as kit:
        room_id = (await say(kit, "1")).room_id
        await asyncio.sleep(0.5)
        await say(kit, "2")
        last = await say(kit, "3")
        await last.settled()
        assert brain.seen == [["1"], ["2", "3"]]
        assert [t for _, t, _ in await said(kit, room_id)] == ["1", "2", "3", "ab", "ab"]


async def test_queue_gives_each_message_its_own_turn() -> None:
    brain = Brain(script=lambda c, e: stream("a", every=1))
    brain.turn_policy = TurnPolicy(mode="queue")
    async with kit_with(FakeChannel(), brain) as kit:
        for text in "123":
            result = await say(kit, text)
        await result.settled()
        assert brain.seen == [["1"], ["2"], ["3"]]


async def test_interrupt_cuts_the_running_answer_short() -> None:
    brain = Brain(script=lambda c, e: stream(*"abcdef", every=1))
    brain.turn_policy = TurnPolicy(mode="interrupt")
    async with kit_with(FakeChannel(), brain) as kit:
        room_id = (await say(kit, "1")).room_id
        await asyncio.sleep(2.5)
        result = await say(kit, "2")
        await result.settled()
        texts = [t for _, t, _ in await said(kit, room_id)]
        assert texts == ["1", "2", "ab", "abcdef"]
        assert brain.cancelled == 1


async def test_two_rooms_interleaved_through_one_brain_never_mix() -> None:
    brain = Brain(script=lambda c, e: stream(*[f"{c.room.id}:{e.text} "] * 3, every=0.3))
    async with kit_with(FakeChannel(), brain) as kit:
        for room_id in ("a", "b"):
            await kit.create_room(room_id, channels=["sms", "ai"])
        results = [await say(kit, str(i), room_id) for i in range(3) for room_id in ("a", "b")]
        for result in results:
            await result.settled()
        for room_id in ("a", "b"):
            answers = [t for c, t, _ in await said(kit, room_id) if c == "ai"]
            assert answers
            assert all(word.startswith(f"{room_id}:") for t in answers for word in t.split())
            assert await gapless(kit, room_id)


async def test_tool_steps_are_in_the_log_before_the_brain_goes_on() -> None:
    call = ToolCallContent(call_id="c", name="look_up", arguments={"id": 1})
    logged: list[int] = []

    async def script(kit: Any) -> Any:
        yield "let me see. "
        yield ToolStep(call)
        logged.append(len([e for e in await kit.events("r", raw=True) if e.type is EventType.TOOL_CALL_START]))
        yield ToolStep(call.model_copy(update={"status": "completed", "result": "42"}))
        yield ThinkingDelta("aha")
        yield "42"

    items: list[Any] = []
    sms = FakeChannel()
    async with kit_with(sms) as kit:
        brain = Brain(script=lambda c, e: script(kit))
        kit.register_channel(brain)
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.open_view("r", "sms", items.append)
        await (await say(kit, "go", "r")).settled()
        kinds = [e.type.value for e in await kit.events("r", raw=True)][-4:]
        assert kinds == ["message", "tool_call_start", "tool_call_end", "message"]
        assert logged == [1]
        assert sms.texts == ["let me see. 42"]
        assert not [i for i in items if getattr(i, "type", "") in ("tool_call_start", "tool_call_end")]
        guest = await kit.open_view("r", "sms", items.append, tail=100)
        assert not [e for e in guest.events if e.type.value.startswith("tool")]


async def test_a_cancelled_turn_gives_every_open_call_its_one_answer() -> None:
    call = ToolCallContent(call_id="c", name="slow_tool")

    async def script() -> Any:
        yield ToolStep(call)
        await asyncio.sleep(100)
        yield "never"

    async with kit_with(FakeChannel(), Brain(script=lambda c, e: script())) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        result = await say(kit, "go", "r")
        await asyncio.sleep(1)
        await kit.take_over("r", "eve")
        await result.settled()
        steps = [e.content.status for e in await kit.events("r", raw=True) if isinstance(e.content, ToolCallContent)]
        assert steps == ["pending", "cancelled"]


async def test_muting_a_brain_in_mid_reply_withdraws_it() -> None:
    items: list[Any] = []
    async with kit_with(FakeChannel(), Brain(script=lambda c, e: stream(*"abcdef", every=1))) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.open_view("r", "sms", items.append)
        result = await say(kit, "go", "r")
        await asyncio.sleep(2.5)
        await kit.mute("r", "ai")
        await result.settled()
        kinds = [type(i).__name__ for i in streams(items)]
        assert kinds == ["StreamStart", "StreamChunk", "StreamChunk", "StreamError"]
        assert (await said(kit, "r"))[-1] == ("ai", "abcdef", "blocked")


async def test_a_late_viewer_gets_the_text_so_far_and_then_the_rest() -> None:
    items: list[Any] = []
    async with kit_with(FakeChannel(), Brain(script=lambda c, e: stream(*"abcdef", every=1))) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        result = await say(kit, "go", "r")
        await asyncio.sleep(3.5)
        view = await kit.open_view("r", "sms", items.append)
        assert [(s.stream_id, text) for s, text in view.streams] == [(view.streams[0][0].stream_id, "abc")]
        await result.settled()
        assert [(i.offset, i.delta) for i in streams(items) if isinstance(i, StreamChunk)] == [
            (3, "d"),
            (4, "e"),
            (5, "f"),
        ]


async def test_on_message_functions_answer_stream_and_stay_silent() -> None:
    from roomkit import RoomKit
    from roomkit.testing import Conversation, VirtualClock

    kit = RoomKit(clock=VirtualClock())

    @kit.on_message
    async def reply(ctx: Any, message: Any) -> Any:
        if message.text == "stream":
            return stream("a", "b")
        return None if message.text == "quiet" else f"You said: {message.text}"

    async with Conversation(kit) as chat:
        await chat.say("hello")
        chat.expect("You said: hello")
        await chat.say("stream")
        chat.expect("ab")
        await chat.say("quiet")
        assert chat.replies == []
        with pytest.raises(AssertionError, match="no reply contains"):
            chat.expect("anything")


async def test_observers_are_told_the_event_of_a_whole_answer_too() -> None:
    from roomkit import RoomKit
    from roomkit.testing import Conversation, VirtualClock

    kit, told = RoomKit(clock=VirtualClock()), []

    @kit.on_message
    async def reply(ctx: Any, message: Any) -> str:
        return "Noted."

    @kit.on(ReplyFinished)
    async def finished(notice: ReplyFinished) -> None:
        told.append(notice.event and notice.event.text)

    async with Conversation(kit) as chat:
        await chat.say("hello")
        await chat.advance(1)
    assert told == ["Noted."]


@pytest.mark.parametrize("where", ["own", "new message", "later answer"])
async def test_waiting_for_what_comes_after_oneself_is_refused(where: str) -> None:
    told: list[str] = []

    async def script(context: Any, event: Any) -> Any:
        if event.text == "go":
            addressed = ("two",) if where == "later answer" else None
            sent = result if where == "own" else await kit.send("r", "again", by="eve", addressed_to=addressed)
            try:
                await asyncio.gather(sent.settled())  # as a tool does it, in a task of its own
            except UsageError as error:
                told.append(str(error))
        yield "done"

    one, two = Brain("one", script), Brain("two")
    async with kit_with(FakeChannel(), one, two) as kit:
        await kit.create_room("r", channels=["sms", "one", "two"])
        result = await kit.send("r", "go", by="ann", addressed_to=("one",))
        await asyncio.sleep(100)
        assert ["inside its own" in text for text in told] == [True]
        assert kit.engine.turns.active() == 0


async def test_an_observer_may_wait_for_what_it_sends() -> None:
    done: list[str] = []
    async with kit_with(FakeChannel(), Brain()) as kit:

        @kit.on(Committed)
        async def again(notice: Any) -> None:
            if notice.event.text == "echo go":
                await (await kit.send("r", "more", by="eve")).settled()
                done.append("yes")

        await kit.create_room("r", channels=["sms", "ai"])
        await say(kit, "go", "r")
        await asyncio.sleep(5)
        assert done == ["yes"]


async def test_the_quiet_window_of_a_brain_wins_over_its_channels() -> None:
    sms = FakeChannel(capabilities=ChannelCapabilities(quiet_window_s=1.5))
    brain = Brain()
    brain.turn_policy = TurnPolicy(quiet_s=0.1)
    async with kit_with(sms, brain) as kit:
        for text in ("hi", "one more"):
            result = await say(kit, text)
            await asyncio.sleep(0.5)
        await result.settled()
        assert brain.seen == [["hi"], ["one more"]]
