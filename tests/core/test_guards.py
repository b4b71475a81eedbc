"""Guards that must not fail open: tools, threads, whispers, what is said sentence by sentence."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from roomkit import BeforeCommit, Block, Committed, EventDraft, TextContent
from roomkit.models.content import ToolCallContent
from roomkit.models.event import EventSource
from roomkit.models.hooks import BeforeDelivery, BeforeToolUse, Injected
from roomkit.models.room import Task
from roomkit.ports.channel import RoomContext
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, kit_with, say, stream

Moment = Any


async def asked_before_a_tool(**options: Any) -> Any:
    answers: list[Any] = []

    async def parts(context: RoomContext) -> Any:
        assert context.turn is not None
        call = ToolCallContent(call_id="c", name="refund")
        answers.append(await context.turn.guard_tool(call))
        yield "done"

    brain = Brain(script=lambda context, event: parts(context))
    async with kit_with(FakeChannel(), brain) as kit:

        @kit.before(BeforeToolUse, **options)
        async def broken(moment: Moment) -> None:
            raise ValueError("boom")

        await (await say(kit, "go")).settled()
    return answers[0]


async def test_a_broken_guard_of_tools_keeps_the_tool_from_running() -> None:
    assert isinstance(await asked_before_a_tool(), Block)


async def test_a_guard_of_tools_may_say_that_its_failure_does_not_matter() -> None:
    assert isinstance(await asked_before_a_tool(on_error="allow"), ToolCallContent)


@pytest.mark.real_time
async def test_observers_that_never_end_do_not_keep_guards_from_being_asked() -> None:
    release = threading.Event()
    kit = kit_with(FakeChannel())

    @kit.on(Committed)
    def slow(notice: Committed) -> None:
        release.wait(30)

    @kit.before(BeforeCommit, budget_s=1.0)
    def guard(moment: Moment) -> Block | None:
        return Block("pii") if "4111" in moment.value.text else None

    async with kit:
        await kit.create_room("r", channels=["sms"])
        for i in range(20):
            await say(kit, str(i), "r")
        result = await say(kit, "card 4111", "r")
        release.set()
        assert (result.blocked, result.reason) == (True, "pii")


@pytest.mark.real_time
async def test_the_budget_of_a_plain_guard_begins_when_it_does() -> None:
    """Every guard sleeps for less than its budget, all that share the threads for longer."""
    rooms = 20
    kit = kit_with(FakeChannel())
    gate = threading.Semaphore(0)

    @kit.before(BeforeCommit, budget_s=0.5, on_error="block")
    def guard(moment: Moment) -> None:
        gate.acquire(timeout=0.2)

    async with kit:
        for i in range(rooms):
            await kit.create_room(f"r{i}", channels=["sms"])
        results = await asyncio.gather(*(say(kit, "x", f"r{i}") for i in range(rooms)))
        assert [r.reason for r in results if r.blocked] == []


async def test_a_whisper_to_people_passes_the_guards() -> None:
    other = FakeChannel("other")
    async with kit_with(FakeChannel(), other) as kit:
        await kit.create_room("r", channels=["sms", "other"])

        @kit.before(BeforeCommit, name="pii")
        async def guard(moment: Moment) -> Block | None:
            return Block("pii") if "4111" in moment.value.text else None

        assert (await kit.whisper("r", "card 4111", to="other", by="ann")).blocked_by == "pii"
        assert not (await kit.whisper("r", "hello", to="other", by="ann")).blocked
        await asyncio.sleep(1)
        assert other.texts == ["hello"]


def task(name: str) -> Task:
    return Task(id=name, title=name)


def note_to(channel: str, words: str) -> Injected:
    source = EventSource(channel_id="system", channel_type="system", direction="outbound")
    return Injected(EventDraft(source=source, content=TextContent(text=words)), targets=(channel,))


@pytest.mark.parametrize("mode", ["pass", "sentence", "withhold"])
async def test_what_a_guard_of_a_reply_asks_for_is_kept(mode: Any) -> None:
    phone, brain = FakeChannel(), Brain(script=lambda context, event: stream("My pin is 1234. ", "Bye."))
    async with kit_with(phone, brain) as kit:

        @kit.before(BeforeCommit, streams=mode)
        async def guard(moment: Moment) -> Block | None:
            if "1234" not in moment.value.text:
                return None
            return Block("pin", inject=(note_to("sms", "I cannot say that."),), tasks=(task("leak"),))

        result = await say(kit, "pin?")
        await result.settled()
        assert [t.id for t in await kit.tasks(result.room_id or "")] == ["leak"]
        assert phone.texts == ["I cannot say that."]


async def test_what_guards_of_tools_and_deliveries_ask_for_is_kept() -> None:
    async def parts(context: RoomContext) -> Any:
        assert context.turn is not None
        await context.turn.guard_tool(ToolCallContent(call_id="c", name="refund"))
        yield "done"

    async with kit_with(FakeChannel(), Brain(script=lambda context, event: parts(context))) as kit:

        @kit.before(BeforeToolUse)
        async def tool(moment: Moment) -> Block:
            return Block("no", tasks=(task("tool"),))

        @kit.before(BeforeDelivery)
        async def delivery(moment: Moment) -> Block:
            return Block("no", tasks=(task("delivery"),))

        result = await say(kit, "go")
        await result.settled()
        assert {t.id for t in await kit.tasks(result.room_id or "")} == {"tool", "delivery"}
