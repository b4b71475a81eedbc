"""Who answers: take-over in one step, leases, notes, whispers, drafts, attention, approvals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from roomkit import BeforeCommit, Block, EventType, InboundMessage, RoomKit
from roomkit.errors import FloorTaken, StateError, UsageError
from roomkit.models.content import TextContent, ToolCallContent
from roomkit.models.room import FloorMode
from roomkit.models.stream import StreamChunk, StreamEnd, TextDelta, ToolStep
from roomkit.testing import FakeChannel
from tests.core.faults import FaultyStore, has
from tests.core.rooms import Brain, gapless, kit_with, said, say, stream


def talker(every: float = 0.1, words: int = 100) -> Brain:
    return Brain(script=lambda c, e: stream(*[f"w{i} " for i in range(words)], every=every))


async def test_take_over_ends_the_running_turn_in_the_same_step() -> None:
    brain, items = talker(), []
    async with kit_with(FakeChannel(), brain) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.open_view("r", "sms", items.append)
        result = await say(kit, "go", "r")
        await asyncio.sleep(0.55)
        room = await kit.take_over("r", "eve")
        seen = len(items)
        await asyncio.sleep(5)
        await result.settled()
        assert (room.floor.mode, room.floor.holder) == (FloorMode.HUMAN, "eve")
        log = await kit.events("r", raw=True)
        kinds = [e.type for e in log]
        reply, floor = log[-2], log[-1]
        assert kinds[-1] is EventType.FLOOR_CHANGED
        assert reply.text == "w0 w1 w2 w3 w4 "
        assert reply.metadata["interrupted"] == "take_over"
        assert floor.index == reply.index + 1
        assert brain.cancelled == 1
        ends = [i for i in items if isinstance(i, StreamEnd)]
        assert len(ends) == 1
        assert ends[0].event == reply
        assert not [i for i in items[seen:] if isinstance(i, StreamChunk)]


async def test_a_brain_is_not_asked_while_a_person_has_the_floor() -> None:
    brain = Brain()
    async with kit_with(FakeChannel(), brain) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.take_over("r", "eve")
        await (await say(kit, "anyone?", "r")).settled()
        assert brain.seen == []
        await kit.release("r", "eve", note="caller is Ann; wants a refund")
        await (await say(kit, "and now?", "r")).settled()
        assert brain.seen == [["and now?"]]
        assert brain.histories[0] == ["anyone?", "caller is Ann; wants a refund", "and now?"]


@pytest.mark.parametrize("refused", [False, True])
async def test_nothing_begins_to_speak_while_a_take_over_is_being_written(refused: bool) -> None:
    """As a question that comes back after another process was lost, or whose quiet window ends just now."""
    brain, store = talker(words=5), FaultyStore(delay=0.5)
    async with kit_with(FakeChannel(), brain, store=store) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        question = (await say(kit, "go", "r")).event
        assert question is not None
        await asyncio.sleep(10)
        asked = len(brain.seen)
        items: list[Any] = []
        await kit.open_view("r", "sms", items.append)
        store.judge = lambda batch: refused and has(EventType.FLOOR_CHANGED)(batch)
        taking = asyncio.ensure_future(kit.take_over("r", "eve"))
        await asyncio.sleep(0.2)
        actor = await kit.engine.table.require("default", "r")
        kit.engine.turns.enqueue(actor, "ai", question, None)
        await asyncio.sleep(0.1)
        assert len(brain.seen) == asked
        await asyncio.wait([taking])
        await asyncio.sleep(10)
        assert (taking.exception() is not None, len(brain.seen) - asked) == (refused, refused)
        assert any(isinstance(item, StreamChunk) for item in items) is refused


async def test_taking_is_compare_and_set() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r")
        results = await asyncio.gather(kit.take_over("r", "eve"), kit.take_over("r", "bob"), return_exceptions=True)
        assert sum(isinstance(r, FloorTaken) for r in results) == 1
        holder = (await kit.get_room("r")).floor.holder
        other = "bob" if holder == "eve" else "eve"
        with pytest.raises(FloorTaken, match=str(holder)):
            await kit.release("r", other)
        assert (await kit.take_over("r", other, force=True)).floor.holder == other


async def test_an_answer_made_under_an_older_floor_is_not_let_in() -> None:
    from roomkit import ChannelOutput, EventDraft, TextContent
    from roomkit.models.event import EventSource

    source = EventSource(channel_id="ai", channel_type="ai")
    gate = asyncio.Event()

    class Stubborn(Brain):
        async def on_event(self, event: Any, binding: Any, context: Any) -> ChannelOutput:
            while not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    continue  # swallows cancellation: a brain that does not stop when told
            return ChannelOutput(response_events=(EventDraft(source=source, content=TextContent(text="late")),))

    async with kit_with(FakeChannel(), Stubborn()) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        result = await say(kit, "go", "r")
        await kit.take_over("r", "eve")
        gate.set()
        await result.settled()
        late = [e for e in await kit.events("r", raw=True) if e.text == "late"]
        assert [e.blocked_by for e in late] in ([], ["floor_changed"])


async def test_a_lapsed_lease_puts_the_room_into_waiting() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.take_over("r", "eve", lease_s=60)
        await asyncio.sleep(50)
        await kit.send("r", "one moment", by="eve")
        await asyncio.sleep(50)
        assert (await kit.get_room("r")).floor.mode is FloorMode.HUMAN
        await asyncio.sleep(61)
        room = await kit.get_room("r")
        assert room.floor.mode is FloorMode.WAITING
        assert room.attention is not None
        assert "eve" in room.attention.reason
        assert [r.id for r in await kit.attention()] == ["r"]


async def test_the_lease_is_renewed_whichever_way_its_holder_writes() -> None:
    """A supervisor on the phone or in the web chat is no less at work than one at the desk."""
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.take_over("r", "eve", lease_s=60)
        for who, mode in (("eve", FloorMode.HUMAN), ("eve", FloorMode.HUMAN), ("bob", FloorMode.WAITING)):
            await asyncio.sleep(40)
            text = TextContent(text="one moment")
            message = InboundMessage(channel_id="sms", sender_id="+1", participant_id=who, content=text)
            assert (await kit.process_inbound(message, room_id="r")).event is not None
            await asyncio.sleep(15)
            assert (await kit.get_room("r")).floor.mode is mode


async def test_attention_keeps_its_clock_and_ends_with_a_take_over() -> None:
    async with kit_with(FakeChannel()) as kit:
        for room_id in ("a", "b"):
            await kit.create_room(room_id)
            await kit.request_human(room_id, "asked for a person")
            await asyncio.sleep(10)
        since = (await kit.get_room("a")).attention.since  # type: ignore[union-attr]
        await kit.request_human("a", "again")
        assert (await kit.get_room("a")).attention.since == since  # type: ignore[union-attr]
        assert [r.id for r in await kit.attention()] == ["a", "b"]
        await kit.request_human("b", "urgent", priority=5)
        assert [r.id for r in await kit.attention()] == ["b", "a"]
        await kit.take_over("b", "eve")
        assert [r.id for r in await kit.attention()] == ["a"]


async def test_a_whisper_reaches_one_ear_only() -> None:
    sms, other, brain = FakeChannel(), FakeChannel("other"), Brain()
    async with kit_with(sms, other, brain) as kit:
        await kit.create_room("r", channels=["sms", "other", "ai"])
        await kit.whisper("r", "offer 10 %", to="ai", by="eve")
        await kit.whisper("r", "private word", to="other", by="eve")
        await asyncio.sleep(1)
        assert brain.seen == []
        assert sms.texts == []
        assert other.texts == ["private word"]
        await (await say(kit, "price?", "r")).settled()
        assert brain.histories == [["offer 10 %", "price?"]]
        guest = await kit.open_view("r", "sms", lambda item: None, tail=100)
        assert not [e for e in guest.events if "offer" in e.text or "private" in e.text]


async def test_a_note_never_leaves_the_house() -> None:
    sms, brain = FakeChannel(), Brain()
    async with kit_with(sms, brain) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.note("r", "rude customer", "eve")
        await (await say(kit, "hi", "r")).settled()
        assert brain.histories == [["hi"]]
        assert "rude customer" not in sms.texts


async def test_a_draft_is_sent_only_when_approved_and_only_once() -> None:
    sms, brain = FakeChannel(), Brain()
    async with kit_with(sms, brain) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        draft = await kit.draft("r", "we are sorry", by="trainee")
        assert [d["id"] for d in await kit.drafts("r")] == [draft.id]
        assert sms.texts == []
        sent = await kit.settle_draft("r", draft.id, True, by="eve")
        await asyncio.sleep(1)
        assert sent.event is not None
        assert sent.event.source.participant_id == "trainee"
        assert sms.texts[0] == "we are sorry"
        assert await kit.drafts("r") == []
        with pytest.raises(StateError, match="already sent"):
            await kit.settle_draft("r", draft.id, False, by="eve")
        dropped = await kit.draft("r", "never", by="trainee")
        await kit.settle_draft("r", dropped.id, False, by="eve")
        assert "never" not in sms.texts


CALL = ToolCallContent(call_id="c1", name="refund", arguments={"order": 7})


def asker(answers: list[Any], expires_s: float = 100) -> Brain:
    async def script(context: Any) -> Any:
        answer = await context.turn.approve(CALL, expires_s=expires_s)
        answers.append(answer)
        yield TextDelta("granted" if answer.granted else "denied")

    return Brain(script=lambda context, event: script(context))


@pytest.mark.parametrize("granted", [True, False])
async def test_an_approval_waits_for_a_person_and_is_answered_once(granted: bool) -> None:
    answers: list[Any] = []
    async with kit_with(FakeChannel(), asker(answers)) as kit:
        result = await say(kit, "refund please")
        await asyncio.sleep(50)
        asked = (await kit.approvals())[0]
        assert (asked["name"], asked["arguments"], asked["room_id"]) == ("refund", {"order": 7}, result.room_id)
        await kit.answer_approval(asked["id"], granted, by="eve", reason="ok")
        await result.settled()
        assert [(a.granted, a.by) for a in answers] == [(granted, "eve")]
        with pytest.raises(StateError):
            await kit.answer_approval(asked["id"], True, by="bob", room_id=result.room_id)
        assert await kit.approvals() == []


async def test_an_approval_expires_by_itself() -> None:
    answers: list[Any] = []
    async with kit_with(FakeChannel(), asker(answers, expires_s=30)) as kit:
        result = await say(kit, "refund please")
        await asyncio.sleep(31)
        await result.settled()
        assert [(a.granted, a.expired) for a in answers] == [(False, True)]


async def test_an_answer_after_the_turn_has_gone_starts_a_new_turn() -> None:
    from roomkit.core.memory import MemoryStore

    store, answers = MemoryStore(), []
    async with kit_with(FakeChannel(), asker(answers), store=store) as kit:
        room_id = (await say(kit, "refund please")).room_id or ""
        await asyncio.sleep(1)
        asked = (await kit.approvals())[0]
    async with kit_with(FakeChannel(), asker(answers), store=store) as kit:
        await asyncio.sleep(1)
        if answers:  # the question itself may have been asked again
            answers.clear()
        await kit.answer_approval(asked["id"], True, by="eve", room_id=room_id)
        await asyncio.sleep(1)
        assert any(a.granted and a.by == "eve" for a in answers)
        assert await gapless(kit, room_id)


Grant = Callable[[RoomKit], Awaitable[Any]]


async def asked_and_left(kit: RoomKit, leave: Grant) -> str:
    """One open question whose turn has gone: the approval's id."""
    await kit.create_room("r", channels=["sms", "ai"])
    await say(kit, "refund please", "r")
    await asyncio.sleep(1)
    asked = (await kit.approvals())[0]
    await leave(kit)
    return asked["id"]


def cancel(kit: RoomKit) -> Any:
    async def ended() -> None:
        for _, running in kit.engine.turns.running(await kit.engine.table.require("default", "r")):
            running.cancel("test")
        await asyncio.sleep(1)

    return ended()


@pytest.mark.parametrize("back", ["release", "both"])
async def test_a_yes_given_while_a_person_has_the_floor_waits_for_the_release(back: str) -> None:
    answers: list[Any] = []
    brain = asker(answers)
    async with kit_with(FakeChannel(), brain) as kit:
        approval = await asked_and_left(kit, lambda kit: kit.take_over("r", "eve"))
        await kit.answer_approval(approval, True, by="eve", room_id="r")
        await asyncio.sleep(5)
        assert (answers, len(brain.seen)) == ([], 1)
        assert [a["id"] for a in await kit.approvals(status="granted")] == [approval]
        await (kit.release("r", "eve") if back == "release" else kit.set_floor("r", FloorMode.BOTH))
        await asyncio.sleep(5)
        assert [(a.granted, a.by) for a in answers] == [(True, "eve")]
        await kit.take_over("r", "eve")
        await kit.release("r", "eve")
        await asyncio.sleep(5)
        assert len(answers) == 1
        assert await kit.approvals(status="granted") == []


async def test_a_no_while_a_person_has_the_floor_wakes_nobody() -> None:
    answers: list[Any] = []
    brain = asker(answers)
    async with kit_with(FakeChannel(), brain) as kit:
        approval = await asked_and_left(kit, lambda kit: kit.take_over("r", "eve"))
        await kit.answer_approval(approval, False, by="eve", room_id="r")
        await kit.release("r", "eve")
        await asyncio.sleep(5)
        assert (answers, len(brain.seen)) == ([], 1)


async def test_a_yes_not_used_in_time_is_worth_nothing() -> None:
    answers: list[Any] = []
    brain = asker(answers, expires_s=30)
    async with kit_with(FakeChannel(), brain) as kit:
        approval = await asked_and_left(kit, lambda kit: kit.take_over("r", "eve"))
        await kit.answer_approval(approval, True, by="eve", room_id="r")
        await asyncio.sleep(40)
        assert [a["id"] for a in await kit.approvals(status="expired")] == [approval]
        await kit.release("r", "eve")
        await asyncio.sleep(5)
        assert len(brain.seen) == 1
        await say(kit, "refund please", "r")
        await asyncio.sleep(1)
        assert answers == []
        assert [a["id"] for a in await kit.approvals()] != [approval]


async def test_a_yes_belongs_to_who_asked_and_is_used_once() -> None:
    answers: list[Any] = []
    calls = 0

    async def script(context: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != 2:  # the turn that the answer begins does not make use of it
            answers.append(await context.turn.approve(CALL, expires_s=1000))
        yield TextDelta("done")

    async with kit_with(FakeChannel(), Brain(script=lambda context, event: script(context))) as kit:
        approval = await asked_and_left(kit, cancel)
        await kit.answer_approval(approval, True, by="eve", room_id="r")
        await asyncio.sleep(5)
        assert calls == 2
        await say(kit, "and me", "r", who="+666")
        await asyncio.sleep(5)
        assert answers == []
        asked = await kit.approvals()
        assert [a["id"] for a in asked] != [approval]
        await kit.answer_approval(asked[0]["id"], False, by="eve", room_id="r")
        await asyncio.sleep(5)
        await say(kit, "please", "r")
        await asyncio.sleep(5)
        assert [a.granted for a in answers] == [False, True]
        await say(kit, "once more", "r")
        await asyncio.sleep(5)
        assert [a.granted for a in answers] == [False, True]


@pytest.mark.parametrize("act", ["both", "release"])
async def test_a_reply_goes_on_when_the_ai_keeps_its_right_to_answer(act: str) -> None:
    async with kit_with(FakeChannel(), talker(words=5)) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        result = await say(kit, "go", "r")
        await asyncio.sleep(0.25)
        await (kit.set_floor("r", FloorMode.BOTH) if act == "both" else kit.release("r", note="fyi"))
        await result.settled()
        assert [(t, s) for _, t, s in await said(kit, "r")][-1] == ("w0 w1 w2 w3 w4 ", "committed")


@pytest.mark.parametrize("lease_s", [0, -1, float("inf"), float("nan"), 1e300])
async def test_a_lease_has_an_end(lease_s: float) -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r")
        with pytest.raises(UsageError, match="lease_s"):
            await kit.take_over("r", "eve", lease_s=lease_s)
        assert (await kit.get_room("r")).floor.mode is FloorMode.AI


async def test_closing_a_room_keeps_what_was_said_and_takes_no_more() -> None:
    async with kit_with(FakeChannel(), talker()) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        result = await say(kit, "go", "r")
        await asyncio.sleep(0.35)
        await kit.close_room("r")
        await asyncio.sleep(5)
        await result.settled()
        log = await kit.events("r", raw=True)
        assert log[-1].type is EventType.ROOM_CLOSED
        assert [t for _, t, _ in await said(kit, "r")] == ["go", "w0 w1 w2 "]


async def test_a_tool_that_has_ended_while_a_person_takes_over_keeps_its_result() -> None:
    call = ToolCallContent(call_id="c1", name="charge", arguments={"amount": 5})

    async def script() -> Any:
        yield ToolStep(call)
        await asyncio.sleep(2)
        yield ToolStep(call.model_copy(update={"status": "completed", "result": "charged 5"}))
        await asyncio.sleep(1000)

    kit = kit_with(FakeChannel(), Brain(script=lambda c, e: script()))

    @kit.before(BeforeCommit)
    async def slow(moment: BeforeCommit) -> None:
        if moment.value.text == "wait":
            await asyncio.sleep(2)

    async with kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await say(kit, "charge me", "r")
        await asyncio.sleep(1)
        busy = asyncio.ensure_future(say(kit, "wait", "r"))
        await asyncio.sleep(0.5)
        await kit.take_over("r", "eve")
        await busy
        await asyncio.sleep(10)
        steps = [e.content for e in await kit.events("r", raw=True) if isinstance(e.content, ToolCallContent)]
        assert [(step.status, step.result) for step in steps] == [("pending", None), ("completed", "charged 5")]
        assert await gapless(kit, "r")


async def test_a_draft_that_a_guard_blocks_is_marked_blocked() -> None:
    async with kit_with(FakeChannel()) as kit:

        @kit.before(BeforeCommit)
        async def no_prices(moment: BeforeCommit) -> Any:
            return Block("no prices") if "EUR" in moment.value.text else None

        await kit.create_room("r")
        first, second = [await kit.draft("r", text, by="ann") for text in ("5 EUR", "hello")]
        assert (await kit.settle_draft("r", first.id, True, by="eve")).blocked
        assert not (await kit.settle_draft("r", second.id, True, by="eve")).blocked
        with pytest.raises(StateError, match="already blocked"):
            await kit.settle_draft("r", first.id, True, by="eve")
        with pytest.raises(StateError, match="already sent"):
            await kit.settle_draft("r", second.id, True, by="eve")
