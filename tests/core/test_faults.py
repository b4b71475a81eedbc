"""A store that fails, plug-ins that raise, callers that go: nothing is lost, no room is wedged, the error is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit import Channel, EventType, InboundMessage, KitOptions, Modify, RoomKit, TurnPolicy
from roomkit.core.memory import MemoryStore
from roomkit.errors import Fenced, Overloaded, StateError, StoreUnavailable
from roomkit.models.content import TextContent, ToolCallContent
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.models.hooks import BeforeCommit, Committed, Moment, Trouble
from roomkit.models.room import FloorMode
from roomkit.models.stream import ToolStep
from roomkit.testing import FakeChannel, VirtualClock
from tests.core.faults import FaultyStore, drops, ends, has, puts
from tests.core.rooms import Brain, gapless, kit_with, said, say, stream

CALL = ToolCallContent(call_id="c1", name="charge")
WORDS = [f"w{i} " for i in range(20)]


def talker() -> Brain:
    return Brain(script=lambda c, e: stream(*WORDS, every=0.1))


async def room(kit: RoomKit, *channels: str) -> list[Any]:
    """A room with these channels, and what a supervisor sees of it."""
    items: list[Any] = []
    await kit.create_room("r", channels=list(channels))
    await kit.open_view("r", "sms", items.append)
    return items


# -- the store fails ------------------------------------------------------------------------------------------------


async def test_the_end_of_a_reply_waits_for_the_store_and_is_told() -> None:
    store, told = FaultyStore(), []
    async with kit_with(FakeChannel(), talker(), store=store) as kit:
        kit.on(Trouble)(told.append)
        items = await room(kit, "sms", "ai")
        result = await say(kit, "go", "r")
        await asyncio.sleep(1)
        store.down(has(EventType.MESSAGE))
        await asyncio.sleep(5)
        assert store.refused > 3
        store.up()
        await result.settled(5)
        assert [t for _, t, _ in await said(kit, "r")] == ["go", "".join(WORDS)]
        assert ends(items) == ["StreamStart", "StreamEnd"]
        await asyncio.sleep(1)
        assert await store.rows() == {}
        assert len([t for t in told if "store" not in t.where]) == 1


@pytest.mark.parametrize("act", ["take_over", "close_room"])
async def test_a_take_over_that_cannot_be_stored_changes_nothing(act: str) -> None:
    store, brain = FaultyStore(), talker()
    async with kit_with(FakeChannel(), brain, store=store) as kit:
        items = await room(kit, "sms", "ai")
        first = await say(kit, "go", "r")
        await asyncio.sleep(0.55)
        second = await say(kit, "and then?", "r")
        store.down()
        with pytest.raises(StoreUnavailable):
            await (kit.take_over("r", "eve") if act == "take_over" else kit.close_room("r"))
        store.up()
        assert (await kit.get_room("r")).floor.mode is FloorMode.AI
        assert (await kit.get_room("r")).open
        await first.settled(10)
        await second.settled(10)
        assert [t for _, t, _ in await said(kit, "r")] == ["go", "and then?", "".join(WORDS), "".join(WORDS)]
        assert ends(items) == ["StreamStart", "StreamEnd"] * 2
        await asyncio.sleep(1)
        assert await store.rows() == {}


async def test_a_take_over_during_a_slow_commit_leaves_no_row_and_no_open_stream() -> None:
    store = FaultyStore(delay=0.3)
    async with kit_with(FakeChannel(), talker(), store=store) as kit:
        items = await room(kit, "sms", "ai")
        result = await say(kit, "go", "r")
        await asyncio.sleep(1.5)
        await kit.take_over("r", "eve")
        await result.settled(10)
        await asyncio.sleep(5)
        assert ends(items) == ["StreamStart", "StreamEnd"]
        assert await store.rows() == {}
        assert await gapless(kit, "r")


async def test_a_take_over_before_the_first_word_leaves_no_row_and_no_stream() -> None:
    store = FaultyStore(delay=0.3)
    async with kit_with(FakeChannel(), talker(), store=store) as kit:
        items = await room(kit, "sms", "ai")
        result = await say(kit, "go", "r")
        await kit.take_over("r", "eve")
        await result.settled(10)
        await asyncio.sleep(5)
        assert ends(items).count("StreamStart") == len(ends(items)) / 2
        assert await store.rows() == {}


async def test_a_tool_runs_only_after_its_intent_is_stored_and_its_result_is_never_lost() -> None:
    store, ran = FaultyStore(), []

    async def parts() -> Any:
        yield ToolStep(CALL)
        ran.append(store.judge)
        yield ToolStep(CALL.model_copy(update={"status": "completed", "result": "ok"}))
        yield "charged"

    async with kit_with(FakeChannel(), Brain(script=lambda c, e: parts()), store=store) as kit:
        await room(kit, "sms", "ai")
        store.down(has(EventType.TOOL_CALL_START))
        result = await say(kit, "go", "r")
        await asyncio.sleep(3)
        assert ran == []
        store.down(has(EventType.TOOL_CALL_END))
        await asyncio.sleep(3)
        store.up()
        await result.settled(5)
        kinds = [e.type for e in await kit.events("r", raw=True)]
        assert kinds[-3:] == [EventType.TOOL_CALL_START, EventType.TOOL_CALL_END, EventType.MESSAGE]
        await asyncio.sleep(1)
        assert await store.rows() == {}


async def test_a_failed_checkpoint_is_made_up_for() -> None:
    store = FaultyStore()
    async with kit_with(FakeChannel(), talker(), store=store) as kit:
        await room(kit, "sms", "ai")
        result = await say(kit, "go", "r")
        await asyncio.sleep(0.3)
        store.down(puts("stream"))
        await asyncio.sleep(0.5)
        store.up()
        await asyncio.sleep(0.5)
        from roomkit.ports.store import RecordQuery

        kept = await store.records(RecordQuery("stream", "default"))
        assert kept[0].value["text"].startswith("".join(WORDS[:9]))
        await result.settled(5)
        assert (await said(kit, "r"))[-1][1] == "".join(WORDS)


async def test_a_lane_outlives_a_store_that_cannot_note_attempts() -> None:
    store, sms = FaultyStore(), FakeChannel(policy=DeliveryPolicy(on_ambiguous="stop_and_ask"))
    async with kit_with(sms, FakeChannel("in"), store=store) as kit:
        await kit.create_room("r", channels=["sms", "in"])
        store.down(lambda b: not b.events and puts("outbox")(b))
        results = [await say(kit, str(i), "r", channel="in") for i in range(3)]
        await asyncio.sleep(3)
        assert sms.texts == []
        store.up()
        for result in results:
            await result.settled(5)
        assert sms.texts == ["0", "1", "2"]
        await asyncio.sleep(1)
        assert await store.rows() == {}


async def test_a_dead_letter_waits_for_the_store_and_the_lane_goes_on() -> None:
    store = FaultyStore()
    sms = FakeChannel(temper=lambda e, n: DeliveryResult(success=False, error="no") if e.text == "0" else None)
    async with kit_with(sms, FakeChannel("in"), store=store) as kit:
        await kit.create_room("r", channels=["sms", "in"])
        store.down(puts("dead"))
        results = [await say(kit, str(i), "r", channel="in") for i in range(3)]
        await asyncio.sleep(3)
        store.up()
        for result in results:
            await result.settled(5)
        assert sms.texts == ["1", "2"]
        assert sms.attempts.count(("r", results[0].event.index)) == 1  # type: ignore[union-attr]
        assert len(await kit.dead_letters("r")) == 1
        await asyncio.sleep(1)
        assert await store.rows() == {}


async def test_two_people_send_a_dead_letter_again_at_once_and_it_goes_once() -> None:
    store = FaultyStore(delay=0.01)
    sms = FakeChannel(temper=lambda e, n: DeliveryResult(success=False, error="no") if n == 0 else None)
    async with kit_with(sms, FakeChannel("in"), store=store) as kit:
        await kit.create_room("r", channels=["sms", "in"])
        await (await say(kit, "hi", "r", channel="in")).settled()
        letter = (await kit.dead_letters("r"))[0]["id"]
        store.down(drops("dead"))
        with pytest.raises(StoreUnavailable):
            await kit.resend(letter)
        store.up()
        assert len(await kit.dead_letters("r")) == 1
        done = await asyncio.gather(kit.resend(letter), kit.resend(letter), return_exceptions=True)
        await asyncio.sleep(1)
        assert sms.texts == ["hi"]
        assert [type(d) for d in done] == [type(None), StateError]
        assert await store.rows() == {}


async def test_a_lease_lapses_even_if_the_store_was_down_just_then() -> None:
    store = FaultyStore()
    async with kit_with(FakeChannel(), store=store) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.take_over("r", "eve", lease_s=60)
        await asyncio.sleep(50)
        store.down()
        await asyncio.sleep(20)
        store.up()
        await asyncio.sleep(2)
        waiting = await kit.get_room("r")
        assert waiting.floor.mode is FloorMode.WAITING
        assert waiting.attention is not None


async def test_a_message_that_is_stored_is_acknowledged_whatever_its_lease_does() -> None:
    store = FaultyStore()
    async with kit_with(FakeChannel(), store=store) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.take_over("r", "eve", lease_s=60)
        await asyncio.sleep(50)
        store.down(lambda b: not b.events)
        assert (await kit.send("r", "one moment", by="eve")).event is not None
        assert await kit.note("r", "busy", "eve")
        store.up()


async def test_a_fenced_writer_ends_what_it_has_begun() -> None:
    store, sms = FaultyStore(), FakeChannel()
    async with kit_with(sms, talker(), store=store) as kit:
        items = await room(kit, "sms", "ai")
        result = await say(kit, "go", "r")
        await asyncio.sleep(1)
        store.take_over()
        await result.settled(20)
        assert ends(items) == ["StreamStart", "StreamError"]
        with pytest.raises(Fenced):
            await say(kit, "again", "r")


async def test_a_kit_whose_store_is_dead_still_closes() -> None:
    store = FaultyStore()
    kit = kit_with(FakeChannel(), talker(), store=store)
    await kit.start()
    await room(kit, "sms", "ai")
    result = await say(kit, "go", "r")
    await asyncio.sleep(1)
    store.down()
    closing = asyncio.ensure_future(kit.send("r", "lost"))
    waiting = asyncio.ensure_future(result.settled())
    await asyncio.wait_for(kit.aclose(), 30)
    with pytest.raises(StoreUnavailable):
        await closing
    await asyncio.wait_for(waiting, 1)


async def test_closing_in_the_middle_of_everything_answers_everybody() -> None:
    store, sms = FaultyStore(delay=0.2), FakeChannel()
    kit = kit_with(sms, talker(), FakeChannel("in"), store=store)
    await kit.start()
    await room(kit, "sms", "ai", "in")
    sms.hang()
    result = await say(kit, "go", "r", channel="in")
    await asyncio.sleep(0.7)
    calls = [asyncio.ensure_future(say(kit, str(i), "r", channel="in")) for i in range(5)]
    settled = asyncio.ensure_future(result.settled())
    await asyncio.sleep(0.05)
    await asyncio.wait_for(kit.aclose(), 30)
    for done in await asyncio.gather(*calls, return_exceptions=True):
        assert not isinstance(done, BaseException) or isinstance(done, StateError), done
    await asyncio.wait_for(settled, 1)


async def test_two_starts_at_once_resume_once() -> None:
    store, brain = FaultyStore(), Brain(script=lambda c, e: stream("late", every=5))
    kit = kit_with(FakeChannel(), brain, store=store)
    await kit.start()
    await room(kit, "sms", "ai")
    await say(kit, "go", "r")
    store.judge = lambda b: True if not b.events else None
    await kit.aclose()
    store.up()
    again = Brain()
    later = RoomKit(store, clock=VirtualClock())
    for channel in (FakeChannel(), again):
        later.register_channel(channel)
    store.delay = 0.1
    await asyncio.gather(later.start(), later.start())
    await asyncio.sleep(5)
    assert later.engine.started
    assert len([t for c, t, _ in await said(later, "r") if c == "ai"]) <= 1
    assert await store.rows() == {}
    await later.aclose()


# -- plug-ins raise --------------------------------------------------------------------------------------------------


async def test_a_guard_that_raises_a_cancellation_hurts_nobody_else() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])

        @kit.before(BeforeCommit)
        async def guard(moment: Moment[Any]) -> None:
            await asyncio.sleep(1)
            if moment.value.text == "bad":
                raise asyncio.CancelledError

        done = await asyncio.gather(*(say(kit, t, "r") for t in ("bad", "good", "fine")), return_exceptions=True)
        assert isinstance(done[0], StateError)
        assert [t for _, t, _ in await said(kit, "r")] == ["good", "fine"]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), RuntimeError("boom")])
async def test_a_brain_that_raises_a_cancellation_fails_like_any_other(error: BaseException) -> None:
    async def broken() -> Any:
        yield "half "
        await asyncio.sleep(1)
        raise error

    scripts = iter([broken(), stream("whole")])
    async with kit_with(FakeChannel(), Brain(script=lambda c, e: next(scripts))) as kit:
        items = await room(kit, "sms", "ai")
        first = await say(kit, "a", "r")
        await asyncio.sleep(0.5)
        second = await say(kit, "b", "r")
        await first.settled(5)
        await second.settled(5)
        assert [t for _, t, _ in await said(kit, "r")] == ["a", "b", "half ", "whole"]
        assert ends(items) == ["StreamStart", "StreamEnd"] * 2


async def test_a_channel_that_raises_a_cancellation_keeps_its_lane() -> None:
    sms = FakeChannel(temper=lambda e, n: asyncio.CancelledError() if e.text == "0" else None)
    async with kit_with(sms, FakeChannel("in")) as kit:
        await kit.create_room("r", channels=["sms", "in"])
        for i in range(3):
            await (await say(kit, str(i), "r", channel="in")).settled(5)
        assert sms.texts == ["1", "2"]
        assert len(await kit.dead_letters()) == 1


async def test_gates_listeners_and_transcoders_that_raise_leave_the_room_whole() -> None:
    class Bad(FakeChannel):
        def update_binding(self, binding: Any) -> None:
            raise RuntimeError("gate")

    def transcoder(content: Any, capabilities: Any, **more: Any) -> Any:
        raise RuntimeError("transcode")

    bad, good = Bad("bad"), FakeChannel("good")
    bad.capabilities = bad.capabilities.model_copy(update={"text": False})
    async with kit_with(bad, good, FakeChannel(), options=KitOptions(transcoder=transcoder)) as kit:
        kit.engine.attention.listeners.append(lambda tenant, room: 1 / 0)  # type: ignore[arg-type,func-returns-value]
        items = await room(kit, "bad", "sms", "good")
        await kit.mute("r", "bad")
        assert [i for i in items if getattr(i, "type", None) is EventType.CHANNEL_MUTED] == []
        result = await say(kit, "hello", "r")
        assert result.event is not None
        await result.settled(5)
        assert good.texts == ["hello"]
        assert len(await kit.dead_letters()) == 1
        await kit.request_human("r", "help")
        assert (await kit.get_room("r")).attention is not None
        assert await gapless(kit, "r")


async def test_an_end_that_fails_under_an_interruption_loses_no_question() -> None:
    store = FaultyStore(delay=0.5, durable=False)
    brain = Brain(script=lambda c, e: _fails() if e.text == "a" else stream("fine"))
    brain.turn_policy = TurnPolicy(mode="interrupt")
    async with kit_with(FakeChannel(), brain, store=store) as kit:
        await room(kit, "sms", "ai")
        first = await say(kit, "a", "r")
        await asyncio.sleep(0.6)
        second = await say(kit, "b", "r")
        await first.settled(20)
        await second.settled(20)
        assert [t for c, t, _ in await said(kit, "r") if c == "ai"] == ["half ", "fine"]


async def _fails() -> Any:
    yield "half "
    await asyncio.sleep(0.5)
    raise RuntimeError("boom")


# -- callers go, rooms come and go -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.75])
async def test_a_caller_cancelled_anywhere_leaves_one_message_or_none(after: float) -> None:
    store = FaultyStore(delay=0.1, durable=False)
    async with kit_with(FakeChannel(), Brain(), store=store) as kit:
        await kit.create_room("r", channels=["ai"])
        task = asyncio.ensure_future(say(kit, "one", "r", external_id="m1"))
        twin = asyncio.ensure_future(say(kit, "one", "r", external_id="m1"))
        await asyncio.sleep(after)
        task.cancel()
        result = await asyncio.wait_for(twin, 10)
        assert result.event is not None
        again = await say(kit, "one", "r", external_id="m1")
        assert again.duplicate
        assert again.event == result.event
        await result.settled(10)
        await asyncio.sleep(5)
        assert [t for _, t, _ in await said(kit, "r")] == ["one", "echo one"]
        assert await gapless(kit, "r")


async def test_a_full_mailbox_keeps_no_reply_out() -> None:
    store = FaultyStore(durable=False)
    async with kit_with(
        FakeChannel(), Brain(script=lambda c, e: stream("yes", every=1)), store=store, options=KitOptions(mailbox=3)
    ) as kit:
        await room(kit, "sms", "ai")
        result = await say(kit, "go", "r")
        await asyncio.sleep(0.9)
        store.delay = 1
        flood = [asyncio.ensure_future(kit.send("r", str(i))) for i in range(10)]
        done = await asyncio.gather(*flood, return_exceptions=True)
        assert sum(isinstance(d, Overloaded) for d in done) == 6
        await result.settled(20)
        assert "yes" in [t for c, t, _ in await said(kit, "r") if c == "ai"]


async def test_a_room_sent_back_to_the_store_under_a_slow_message_takes_it_all_the_same() -> None:
    class Slow(FakeChannel):
        async def handle_inbound(self, message: InboundMessage, context: Any = None) -> Any:
            if message.sender_id == "slow":
                await asyncio.sleep(5)
            return await Channel.handle_inbound(self, message, context)

    async with kit_with(Slow(), options=KitOptions(resident_rooms=1)) as kit:
        await kit.create_room("r", channels=["sms"])
        await say(kit, "first", "r")
        slow = asyncio.ensure_future(say(kit, "late", "r", who="slow"))
        await asyncio.sleep(1)
        for i in range(3):
            await kit.create_room(f"other{i}")
        await say(kit, "second", "r")
        await kit.mute("r", "sms")
        for i in range(3):
            await kit.create_room(f"more{i}")
        result = await slow
        assert (result.blocked, result.reason) == (True, "source_muted")
        assert [t for _, t, _ in await said(kit, "r")] == ["first", "second", "late"]
        assert (await say(kit, "third", "r")).event is not None
        assert await gapless(kit, "r")


async def test_a_room_with_a_view_a_turn_or_a_delivery_is_not_sent_back() -> None:
    sms, items = FakeChannel(), []
    async with kit_with(sms, talker(), FakeChannel("in"), options=KitOptions(resident_rooms=1)) as kit:
        await kit.create_room("viewed", channels=["sms"])
        await kit.open_view("viewed", "sms", items.append)
        await kit.create_room("turning", channels=["in", "ai"])
        turning = await say(kit, "go", "turning", channel="in")
        sms.hang()
        await kit.create_room("delivering", channels=["sms", "in"])
        delivering = await say(kit, "hi", "delivering", channel="in")
        for i in range(200):
            await kit.create_room(f"n{i}")
        assert len(kit.engine.table) <= 4
        await say(kit, "seen", "viewed", who="someone")
        assert "seen" in [getattr(i, "text", "") for i in items]
        sms.resume()
        await turning.settled(10)
        await delivering.settled(10)
        assert (await said(kit, "turning"))[-1][1] == "".join(WORDS)
        assert sms.texts == ["hi"]


async def test_a_room_is_created_once() -> None:
    store = FaultyStore(delay=0.1, durable=False)
    async with kit_with(FakeChannel(), store=store) as kit:
        done = await asyncio.gather(kit.create_room("r"), kit.create_room("r"), return_exceptions=True)
        assert sorted(type(d).__name__ for d in done) == ["Room", "StateError"]
        items: list[Any] = []
        await kit.open_view("r", "sms", items.append)
        await kit.attach_channel("r", "sms")
        assert (await kit.send("r", "hello")).event is not None
        assert [getattr(i, "text", "") for i in items][-1] == "hello"
        assert await gapless(kit, "r")


async def test_two_kits_over_one_store_in_memory_never_fork_a_room() -> None:
    store = MemoryStore()
    one, two = kit_with(FakeChannel(), store=store), kit_with(FakeChannel(), store=store)
    await one.create_room("r", channels=["sms"])
    for i in range(4):
        for kit in (one, two):
            try:
                await kit.send("r", str(i))
            except Fenced:
                await kit.send("r", str(i))
    assert [t for _, t, _ in await said(one, "r")] == [str(i // 2) for i in range(8)]
    assert await gapless(two, "r")
    await one.aclose()
    await two.aclose()


async def test_a_channel_unregistered_in_the_middle_costs_nobody_else() -> None:
    sms, other, brain = FakeChannel(), FakeChannel("other"), talker()
    async with kit_with(sms, other, brain, FakeChannel("in")) as kit:
        items = await room(kit, "sms", "other", "ai", "in")
        sms.hang()
        results = [await say(kit, str(i), "r", channel="in") for i in range(3)]
        await asyncio.sleep(0.5)
        await kit.unregister_channel("sms")
        await kit.unregister_channel("ai")
        sms.resume()
        for result in results:
            await result.settled(5)
        assert other.texts[:3] == ["0", "1", "2"]
        assert brain.cancelled == 1
        assert ends(items) == ["StreamStart", "StreamEnd"]
        kit.register_channel(FakeChannel())
        assert (await say(kit, "back", "r")).event is not None


async def test_a_flood_of_rooms_with_a_small_table() -> None:
    async with kit_with(
        FakeChannel(), Brain(script=lambda c, e: stream("ok")), options=KitOptions(resident_rooms=50)
    ) as kit:
        results = await asyncio.gather(*(say(kit, "hi", who=f"+44{i}") for i in range(600)))
        for result in results:
            await result.settled(30)
        for i in range(10):
            await kit.create_room(f"one more {i}")
        assert len(kit.engine.table) <= 51
        assert len({r.room_id for r in results}) == 600
        for result in results[::97]:
            assert [t for _, t, _ in await said(kit, result.room_id)] == ["hi", "ok"]


async def test_a_very_long_text_comes_through_whole() -> None:
    long = "word " * 40_000
    sms = FakeChannel()
    brain = Brain(script=lambda c, e: stream(*[long[i : i + 1000] for i in range(0, len(long), 1000)]))
    async with kit_with(sms, brain, FakeChannel("in"), store=FaultyStore()) as kit:
        await room(kit, "sms", "ai", "in")
        await (await say(kit, long, "r", channel="in")).settled(60)
        assert sms.texts == [long, long]


# -- guards and words that were cut short ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["take_over", "close", "error", "detach", "crash"])
async def test_words_that_were_cut_short_pass_the_guards_too(how: str) -> None:
    async def parts() -> Any:
        yield "my card is 4111 "
        await asyncio.sleep(1)
        if how == "error":
            raise RuntimeError("boom")
        await asyncio.sleep(100)

    def redact(kit: RoomKit) -> None:
        @kit.before(BeforeCommit)
        async def guard(moment: Moment[Any]) -> Modify | None:
            if "4111" not in moment.value.text:
                return None
            hidden = moment.value.text.replace("4111", "****")
            return Modify(moment.value.replaced(content=TextContent(text=hidden)))

    store, sms = FaultyStore(), FakeChannel()
    kit = kit_with(sms, Brain(script=lambda c, e: parts()), FakeChannel("in"), store=store)
    redact(kit)
    await kit.start()
    await room(kit, "sms", "ai", "in")
    await say(kit, "go", "r", channel="in")
    await asyncio.sleep(0.9)
    if how == "take_over":
        await kit.take_over("r", "eve")
    elif how == "close":
        await kit.close_room("r")
    elif how == "detach":
        await kit.detach_channel("r", "ai")
    elif how == "crash":
        await kit.aclose()
        store.down(lambda b: False)
        kit = kit_with(sms, Brain(), FakeChannel("in"), store=store)
        redact(kit)
        await kit.start()
    await asyncio.sleep(2)
    told = [e.text for e in await kit.events("r", raw=True) if e.source.channel_id == "ai"]
    assert told == ["my card is **** "]
    assert not [t for t in sms.texts if "4111" in t]
    await kit.aclose()


async def test_an_approval_given_by_an_observer_at_once_is_heard() -> None:
    answers: list[Any] = []

    async def ask(context: Any) -> Any:
        answers.append(await context.turn.approve(CALL, expires_s=60))
        yield "done"

    async with kit_with(FakeChannel(), Brain(script=lambda c, e: ask(c))) as kit:
        await room(kit, "sms", "ai")

        @kit.on(Committed)
        async def approve(notice: Committed) -> None:
            if notice.event.type is EventType.APPROVAL_REQUESTED:
                await kit.answer_approval(notice.event.content.data["id"], True, by="auto", room_id="r")  # type: ignore[union-attr]

        await (await say(kit, "go", "r")).settled(30)
        assert [a.granted for a in answers] == [True]
        assert (await said(kit, "r"))[-1][1] == "done"
