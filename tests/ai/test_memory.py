"""Memories: the newest, never the oldest; sums that are made once; nothing of another room."""

from __future__ import annotations

import asyncio

import pytest

from roomkit import AIChannel, InboundMessage
from roomkit.ai.budget import Budget, SpendLimits
from roomkit.ai.memory import Retrieval, SlidingWindow, Summarizing
from roomkit.errors import Unavailable
from roomkit.models.ai import AIMessage, AIRequest
from roomkit.models.content import DeleteContent, EditContent, TextContent, ToolCallContent
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.hooks import Block
from roomkit.testing import FakeChannel
from roomkit.testing.ai import ScriptedAI
from tests.ai.rooms import Talk
from tests.core.rooms import kit_with, say


def filled(count: int, room: str = "room", size: int = 40, tenant: str = "default") -> Talk:
    talk = Talk(room, tenant=tenant)
    for n in range(count):
        talk.event(f"{n:03d} " + "x" * size)
    return talk


def indexes(items: list[AIMessage | RoomEvent]) -> list[int]:
    return [item.index for item in items if isinstance(item, RoomEvent)]


async def test_the_window_holds_the_newest() -> None:
    memory = SlidingWindow()
    assert indexes(await memory.retrieve("room", filled(10).log, 3)) == [7, 8, 9]
    await memory.ingest("room", filled(1).log[0])
    await memory.close()


async def test_a_short_past_is_not_summed_up() -> None:
    ai = ScriptedAI()
    assert indexes(await Summarizing(ai).retrieve("room", filled(5).log, 50)) == [0, 1, 2, 3, 4]
    assert await Summarizing(ai).retrieve("room", [], 50) == []
    assert ai.requests == []


async def test_a_long_past_is_summed_up_once_and_again_only_when_as_much_has_come() -> None:
    ai = ScriptedAI("They greeted.", "They greeted and parted.")
    memory = Summarizing(ai, window_tokens=200)
    talk = filled(20)
    first = await memory.retrieve("room", talk.log, 50)
    assert isinstance(first[0], AIMessage)
    assert first[0].text.endswith("They greeted.")
    assert indexes(first)[-1] == 19
    assert indexes(first)[0] > 5
    assert "000" in ai.requests[0].messages[0].text
    assert await memory.retrieve("room", talk.log, 50) == first
    assert len(ai.requests) == 1
    for n in range(20, 40):
        talk.event(f"{n:03d} " + "x" * 40)
    again = await memory.retrieve("room", talk.log, 50)
    assert isinstance(again[0], AIMessage)
    assert again[0].text.endswith("They greeted and parted.")
    assert ai.requests[1].messages[0].text.startswith("Summary so far: They greeted.")


async def test_a_summary_outlives_the_events_it_was_made_of() -> None:
    ai = ScriptedAI("They greeted.")
    memory = Summarizing(ai, window_tokens=200)
    talk = filled(20)
    whole = await memory.retrieve("room", talk.log, 50)
    assert await memory.retrieve("room", talk.log[8:], 50) == whole


@pytest.mark.parametrize("change", ["hidden", "edited", "room", "tenant"])
async def test_a_summary_is_not_told_to_those_who_read_something_else(change: str) -> None:
    ai = ScriptedAI("The code is 1234.", "Nothing.")
    memory = Summarizing(ai, window_tokens=200)
    talk = filled(20)
    await memory.retrieve("room", talk.log, 50)
    match change:
        case "hidden":
            told = await memory.retrieve("room", [talk.log[0], *talk.log[2:]], 50)
        case "edited":
            changed = talk.log[1].model_copy(update={"content": TextContent(text="never mind " + "x" * 40)})
            told = await memory.retrieve("room", [talk.log[0], changed, *talk.log[2:]], 50)
        case "room":
            told = await memory.retrieve("other", filled(20, "other").log, 50)
        case _:
            told = await memory.retrieve("room", filled(20, tenant="acme").log, 50)
    assert "1234" not in str(told)


async def test_old_tool_results_go_first() -> None:
    talk = filled(3)
    for n in range(4):
        content = ToolCallContent(call_id=f"c{n}", name="t", status="completed", result="y" * 200)
        talk.event(content, type=EventType.TOOL_CALL_END, channel="ai")
    talk.event("last")
    found = await Summarizing(ScriptedAI(), window_tokens=300).retrieve("room", talk.log, 4)
    assert indexes(found) == [0, 1, 2, 6, 7]


async def test_a_summary_that_fails_is_the_providers_error() -> None:
    memory = Summarizing(ScriptedAI([Unavailable("scripted", "down")]), window_tokens=200)
    with pytest.raises(Unavailable):
        await memory.retrieve("room", filled(20).log, 50)
    await memory.close()


class Words:
    """A retriever that finds texts sharing a word."""

    def __init__(self) -> None:
        self.known: list[tuple[str, str, str]] = []
        self.closed = False

    async def add(self, tenant: str, room_id: str, event: RoomEvent) -> None:
        self.known.append((tenant, room_id, event.text))

    async def search(self, tenant: str, room_id: str, query: str, limit: int) -> list[str]:
        words = set(query.split())
        return [t for own, room, t in self.known if (own, room) == (tenant, room_id) and words & set(t.split())][:limit]

    async def aclose(self) -> None:
        self.closed = True


async def test_retrieval_adds_what_fits_and_is_not_there_already() -> None:
    words = Words()
    memory = Retrieval(words, results=1)
    talk = Talk()
    for text in ("my dog is ill", "the dog eats", "hello", "", "what about the dog?"):
        await memory.ingest("room", talk.event(text))
    found = await memory.retrieve("room", talk.log, 2)
    assert isinstance(found[0], AIMessage)
    assert found[0].text == "Said earlier, possibly of use:\n- the dog eats"
    assert indexes(found) == [3, 4]
    assert indexes(await memory.retrieve("room", talk.log[2:3], 2)) == [2]
    assert await memory.retrieve("room", [], 2) == []
    await memory.close()
    assert words.closed


class Everything(Words):
    """A retriever that finds all that it was ever given."""

    async def search(self, tenant: str, room_id: str, query: str, limit: int) -> list[str]:
        return [text for _, _, text in self.known][:limit]


@pytest.mark.parametrize("how", ["deleted", "edited", "kept"])
async def test_retrieval_brings_back_only_what_still_stands_in_the_room(how: str) -> None:
    ai = ScriptedAI("ok", repeat=True)
    channel = AIChannel("ai", ai, memory=Retrieval(Everything()), max_context_events=1)
    kit = kit_with(FakeChannel(), channel)
    async with kit:
        await kit.create_room("r", channels=["sms", "ai"])
        first = await say(kit, "my card is 4111", "r")
        await first.settled()
        assert first.event is not None
        target = first.event.id
        changes = {
            "deleted": DeleteContent(target_event_id=target),
            "edited": EditContent(target_event_id=target, new_content=TextContent(text="my card is secret")),
        }
        if how in changes:
            message = InboundMessage(channel_id="sms", sender_id="+4411", content=changes[how])
            assert not (await kit.process_inbound(message, room_id="r")).blocked
        await (await say(kit, "what now", "r")).settled()
    assert ("card is 4111" in str(ai.requests[-1].messages)) is (how == "kept")


@pytest.mark.parametrize("how", ["deleted", "edited", "erased with a person"])
async def test_retrieval_erases_what_was_taken_back_at_once(how: str) -> None:
    removed: list[tuple[str, str, str]] = []

    class Erasing(Words):
        async def remove(self, tenant: str, room_id: str, event_id: str) -> None:
            removed.append((tenant, room_id, event_id))

    channel = AIChannel("ai", ScriptedAI("ok", repeat=True), memory=Retrieval(Erasing()))
    kit = kit_with(FakeChannel(), channel)
    async with kit:
        await kit.create_room("r", channels=["sms", "ai"])
        first = await say(kit, "my card is 4111", "r")
        await first.settled()
        assert first.event is not None
        if how == "erased with a person":
            await kit.erase_person("+4411")
        else:
            content = {
                "deleted": DeleteContent(target_event_id=first.event.id),
                "edited": EditContent(target_event_id=first.event.id, new_content=TextContent(text="my card")),
            }[how]
            await kit.process_inbound(InboundMessage(channel_id="sms", sender_id="+4411", content=content), room_id="r")
        await asyncio.sleep(1)
        assert removed == [("default", "r", first.event.id)]
        await kit.unregister_channel("ai")
        await kit.send("r", DeleteContent(target_event_id=first.event.id, delete_type="sender"), by="eve")
        assert len(removed) == 1


async def test_who_sums_up_is_asked_under_the_channels_guards_and_budget() -> None:
    """A guard of generations sees the request, the budget pays for it, and where one says no nobody is asked."""
    seen: list[AIRequest] = []

    def guard(request: AIRequest) -> AIRequest | Block:
        seen.append(request)
        summary = request.metadata.get("purpose") == "summary"
        return Block("not that") if summary and forbid else request

    for forbid, spent in ((False, 0), (True, 0), (False, 1_000_000)):
        seen.clear()
        sums, brain = ScriptedAI("They greeted."), ScriptedAI("Yes.")
        budget = Budget(SpendLimits(room_tokens=1_000_000))
        budget.spend_tokens("default", "room", {"input_tokens": spent})
        talk = filled(20)
        assert talk.turn is not None
        talk.turn.guard_request = guard
        await talk.say(AIChannel("ai", brain, memory=Summarizing(sums, window_tokens=200)).configure(budget=budget))
        asked = not forbid and not spent
        assert len(sums.requests) == asked
        assert [r.metadata.get("purpose") for r in seen] == ([] if spent else ["summary", None])
        assert len(talk.turn.usage) == (0 if spent else 2 if asked else 1)
        if not spent:
            told = str(brain.requests[0].messages)
            assert ("They greeted." in told) == asked
            assert "019" in told
            assert "000" not in told
