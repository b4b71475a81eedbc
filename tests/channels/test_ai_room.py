"""The AI channel in a real room: its turns in the log, approvals, steering, take-over, restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from roomkit import AIChannel, BeforeToolUse, Block, RoomKit
from roomkit.ai.tools import Toolbox, tool
from roomkit.channels.ai import AIOptions
from roomkit.models.content import ToolCallContent
from roomkit.models.event import EventType
from roomkit.models.steering import Cancel, InjectMessage
from roomkit.testing import VirtualClock
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.channels import FakeChannel
from roomkit.testing.conversation import Conversation
from tests.ai.rooms import assert_paired, results_of

PAID: list[int] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    PAID.clear()


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pays."""
    PAID.append(amount)
    return f"paid {amount}"


@tool
async def look(seconds: float = 0) -> str:
    """Looks."""
    await asyncio.sleep(seconds)
    return "seen"


def chat_with(ai: ScriptedAI, url: str | None = None, **options: Any) -> tuple[Conversation, AIChannel]:
    kit = RoomKit(url, clock=VirtualClock()) if url else RoomKit(clock=VirtualClock())
    channel = AIChannel("ai", ai, tool_handler=Toolbox([pay, look]), **options)
    kit.register_channel(channel, default=True)
    return Conversation(kit, channel=FakeChannel("test", "sms")), channel


def test_options_are_a_frozen_value() -> None:
    with pytest.raises(AttributeError):
        AIOptions().human_tool = True  # type: ignore[misc]


async def test_a_turn_with_tools_is_in_the_log_and_comes_back_as_history() -> None:
    ai = ScriptedAI(["One moment.", call("look", "c1")], "All is well.", "Goodbye.")
    chat, _ = chat_with(ai)
    async with chat:
        await chat.say("how is it?")
        chat.expect("One moment.\n\nAll is well.")
        await chat.say("thanks")
        chat.expect("Goodbye.")
        events = await chat.kit.events(chat.room_id or "", limit=100, raw=True)
        calls = [e.content for e in events if isinstance(e.content, ToolCallContent)]
        assert [(c.call_id, c.status, c.result) for c in calls] == [
            ("c1", "pending", None),
            ("c1", "completed", "seen"),
        ]
        reply = next(e for e in events if e.text.startswith("One moment."))
        assert reply.metadata["end_reason"] == "completed"
        assert reply.metadata["usage"] == {"input_tokens": 20, "output_tokens": 10}
    assert [m.role for m in ai.requests[2].messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert_paired(ai.requests[2].messages)


async def test_an_approval_is_asked_for_and_waited_for() -> None:
    ai = ScriptedAI([call("pay", amount=5)], "Paid.")
    chat, _ = chat_with(ai, tool_loop_timeout_seconds=30)
    async with chat:
        saying = asyncio.ensure_future(chat.say("pay 5"))
        await asyncio.sleep(600)  # People take their time, and the loop's clock stands still.
        assert PAID == []
        (waiting,) = await chat.kit.approvals(chat.room_id)
        assert (waiting["name"], waiting["arguments"]) == ("pay", {"amount": 5})
        await chat.kit.answer_approval(waiting["id"], True, by="ann")
        await saying
        assert PAID == [5]
        chat.expect("Paid.")


async def test_an_approval_answered_after_a_restart_starts_a_new_turn(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rooms.db'}"
    chat, _ = chat_with(ScriptedAI([call("pay", amount=5)]), url)
    async with chat:
        saying = asyncio.ensure_future(chat.say("pay 5"))
        while not (waiting := await chat.kit.approvals()):
            await asyncio.sleep(0.1)
        saying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saying
    ai = ScriptedAI([call("pay", amount=5)], "Paid.")
    again, _ = chat_with(ai, url)
    again.room_id = waiting[0]["room_id"]
    async with again:
        await again.kit.answer_approval(waiting[0]["id"], True, by="ann")
        for _ in range(100):
            if PAID:
                break
            await asyncio.sleep(0.1)
        assert PAID == [5]  # once, and without asking again
        assert await again.kit.approvals() == []
        told = [m.text for m in ai.requests[0].messages if m.role == "system"]
        assert any("call pay" in text and "again" in text for text in told)


async def test_guards_of_the_room_decide_about_tools() -> None:
    ai = ScriptedAI([call("look", "c1")], "Sorry.")
    chat, _ = chat_with(ai)

    @chat.kit.before(BeforeToolUse)
    async def never(moment: BeforeToolUse) -> Block:
        return Block("not on Sundays")

    async with chat:
        await chat.say("look")
    assert "not on Sundays" in results_of(ai.requests[1])[0]


async def test_a_supervisor_steers_and_stops_a_reply_of_one_room() -> None:
    ai = ScriptedAI(["Once ", 5.0, "upon ", 5.0, "a time"], "Quickly: the end.", ["Long ", 100.0, "story"])
    chat, _ = chat_with(ai)
    async with chat:
        saying = asyncio.ensure_future(chat.say("a story"))
        await asyncio.sleep(7)
        await chat.kit.steer(chat.room_id or (await chat.kit.list_rooms())[0].id, InjectMessage("Be quick."))
        await saying
        chat.expect("Once upon a time\n\nQuickly: the end.")
        saying = asyncio.ensure_future(chat.say("another"))
        await asyncio.sleep(7)
        await chat.kit.steer(chat.room_id or "", Cancel("enough"))
        await saying
        chat.expect("Long")
        events = await chat.kit.events(chat.room_id or "", limit=100, raw=True)
        assert events[-1].metadata["end_reason"] == "cancelled"


async def test_taking_over_stops_tools_in_the_same_step() -> None:
    ai = ScriptedAI(["Working. ", call("look", "c1", seconds=100)])
    chat, channel = chat_with(ai)
    async with chat:
        saying = asyncio.ensure_future(chat.say("look"))
        await asyncio.sleep(5)
        (room,) = await chat.kit.list_rooms()
        await chat.kit.take_over(room.id, "ann")
        await saying
        events = await chat.kit.events(room.id, limit=100, raw=True)
        ends = [e.content for e in events if e.type is EventType.TOOL_CALL_END]
        assert [(c.call_id, c.status) for c in ends if isinstance(c, ToolCallContent)] == [("c1", "cancelled")]
        assert channel.active_loops == {}
    assert ai.opened == ai.closed


async def test_a_whisper_guides_the_ai_and_is_seen_by_nobody_else() -> None:
    ai = ScriptedAI("Hello.", "Here is 10 % off.")
    chat, _ = chat_with(ai)
    async with chat:
        await chat.say("hi")
        await chat.kit.whisper(chat.room_id or "", "Offer 10 % off.", to="ai", by="ann")
        await chat.say("too dear")
        assert [m.text for m in ai.requests[1].messages if m.role == "system"] == [
            "Note from the team: Offer 10 % off."
        ]
        assert "Offer" not in " ".join(chat.channel.texts)


async def test_a_whisper_that_is_sent_twice_guides_a_running_reply_once() -> None:
    hold = asyncio.Event()
    ai = ScriptedAI(["Let me", hold, call("look")], "Here is 10 % off.")
    chat, _ = chat_with(ai)
    async with chat:
        speaking = asyncio.ensure_future(chat.say("hi"))
        while not ai.requests:
            await asyncio.sleep(0.01)
        for _ in range(3):
            await chat.kit.whisper(chat.room_id or "", "Offer 10 % off.", to="ai", by="ann", idempotency_key="w1")
        hold.set()
        await speaking
        told = [m.text for m in ai.requests[1].messages if m.role == "system"]
        assert told == ["[from ann, your supervisor] Offer 10 % off."]
