"""Guards and observers: order, outcomes, failures, time limits, streams."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit import Allow, BeforeCommit, Block, Committed, EventDraft, EventType, Modify, TextContent
from roomkit.core.hooks import Filter
from roomkit.errors import UsageError
from roomkit.models.event import EventSource
from roomkit.models.hooks import BeforeDelivery, HookFailed, Injected, TaskCreated
from roomkit.models.room import Observation, Task
from roomkit.models.stream import StreamChunk, StreamEnd, StreamError
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, gapless, kit_with, said, say, stream

Moment = Any
SYSTEM = EventSource(channel_id="system", channel_type="system", direction="outbound")


def text(moment: Moment) -> str:
    return moment.value.text


def rewritten(moment: Moment, words: str) -> Modify:
    return Modify(moment.value.model_copy(update={"content": TextContent(text=words)}))


async def test_guards_run_in_order_and_each_sees_the_last_ones_change() -> None:
    order: list[str] = []
    async with kit_with(FakeChannel()) as kit:

        @kit.before(BeforeCommit, priority=5)
        async def second(moment: Moment) -> Modify:
            order.append(text(moment))
            return rewritten(moment, text(moment) + " 2")

        @kit.before(BeforeCommit, priority=1)
        async def first(moment: Moment) -> Modify:
            order.append(text(moment))
            return rewritten(moment, text(moment) + " 1")

        result = await say(kit, "x")
        assert order == ["x", "x 1"]
        assert await said(kit, result.room_id) == [("sms", "x 1 2", "committed")]


async def test_a_block_is_stored_with_its_guard_and_reason_and_delivered_to_nobody() -> None:
    other, brain = FakeChannel("other"), Brain()
    ran: list[str] = []
    async with kit_with(FakeChannel(), other, brain) as kit:
        await kit.create_room("r", channels=["sms", "other", "ai"])

        @kit.before(BeforeCommit, name="no-swearing")
        async def guard(moment: Moment) -> Block | None:
            return Block("rude") if "damn" in text(moment) else None

        @kit.before(BeforeCommit, priority=9)
        async def later(moment: Moment) -> None:
            ran.append(text(moment))

        result = await say(kit, "damn", "r", external_id="m")
        assert (result.blocked, result.reason) == (True, "rude")
        assert result.event is not None
        assert result.event.blocked_by == "no-swearing"
        assert ran == []
        assert other.texts == []
        assert brain.seen == []
        assert (await say(kit, "damn", "r", external_id="m")).event == result.event
        assert await gapless(kit, "r")


async def test_side_records_of_guards_are_kept_even_when_blocked() -> None:
    created: list[str] = []
    async with kit_with(FakeChannel()) as kit:

        @kit.on(TaskCreated)
        async def hear(notice: TaskCreated) -> None:
            created.append(notice.task.title)

        @kit.before(BeforeCommit)
        async def guard(moment: Moment) -> Block:
            tasks = (Task(id="t", title="look at this"),)
            return Block("spam", tasks=tasks, observations=(Observation(id="o", kind="spam"),))

        result = await say(kit, "buy now")
        room_id = result.room_id or ""
        assert [t.event_id for t in await kit.tasks(room_id)] == [result.event.id if result.event else None]
        assert [o.kind for o in await kit.observations(room_id)] == ["spam"]
        await asyncio.sleep(0)
        assert created == ["look at this"]


async def test_injected_events_follow_and_wake_nobody() -> None:
    sms, other, brain = FakeChannel(), FakeChannel("other"), Brain()
    async with kit_with(sms, other, brain) as kit:
        await kit.create_room("r", channels=["sms", "other", "ai"])

        @kit.before(BeforeCommit)
        async def guard(moment: Moment) -> Block | None:
            if text(moment) != "secret":
                return None
            told = EventDraft(source=SYSTEM, content=TextContent(text="please rephrase"))
            kept = EventDraft(source=SYSTEM, content=TextContent(text="for the record"))
            return Block("secret", inject=(Injected(told, ("sms",)), Injected(kept)))

        await (await say(kit, "secret", "r")).settled()
        await asyncio.sleep(1)
        assert [t for _, t, _ in await said(kit, "r")] == ["secret", "please rephrase", "for the record"]
        assert sms.texts == ["please rephrase"]
        assert other.texts == []
        assert brain.seen == []


@pytest.mark.parametrize("on_error", ["allow", "block"])
@pytest.mark.parametrize("fault", ["raise", "hang", "wrong", "foreign"])
async def test_a_failing_guard_does_what_it_declared(on_error: Any, fault: str) -> None:
    failed: list[str] = []
    async with kit_with(FakeChannel()) as kit:

        @kit.on(HookFailed)
        async def hear(notice: HookFailed) -> None:
            failed.append(notice.hook)

        @kit.before(BeforeCommit, name="g", on_error=on_error, budget_s=2)
        async def guard(moment: Moment) -> Any:
            match fault:
                case "raise":
                    raise ValueError("boom")
                case "hang":
                    await asyncio.sleep(100)
                case "wrong":
                    return "yes"
                case _:
                    return Modify("a plain string")
            return None

        result = await say(kit, "x")
        assert result.blocked is (on_error == "block")
        assert result.reason == ("guard_failed" if on_error == "block" else None)
        await asyncio.sleep(0)
        assert failed == ["g"]


async def test_guards_may_be_plain_functions() -> None:
    async with kit_with(FakeChannel()) as kit:

        @kit.before(BeforeCommit)
        def guard(moment: Moment) -> Block | None:
            return Block("no") if text(moment) == "x" else None

        assert (await say(kit, "x")).reason == "no"
        assert not (await say(kit, "y")).blocked


async def test_filters_choose_what_a_hook_hears() -> None:
    heard: list[str] = []
    async with kit_with(FakeChannel(), FakeChannel("web", "websocket")) as kit:
        await kit.create_room("r", channels=["sms", "web"])

        @kit.before(BeforeCommit, where=Filter(channel_ids=frozenset({"sms"})))
        async def only_sms(moment: Moment) -> Block:
            return Block("sms is closed")

        @kit.on(Committed, where=Filter(types=frozenset({EventType.MESSAGE}), channel_types=frozenset({"websocket"})))
        async def hear(notice: Committed) -> None:
            heard.append(notice.event.text)

        assert (await say(kit, "a", "r")).blocked
        assert not (await say(kit, "b", "r", channel="web")).blocked
        await asyncio.sleep(0)
        assert heard == ["b"]


async def test_a_slow_or_broken_observer_costs_the_room_nothing() -> None:
    async with kit_with(FakeChannel()) as kit:

        @kit.on(Committed)
        async def slow(notice: Committed) -> None:
            await asyncio.sleep(100)

        @kit.on(Committed)
        def broken(notice: Committed) -> None:
            raise RuntimeError("observer")

        begun = asyncio.get_running_loop().time()
        for i in range(5):
            await say(kit, str(i))
        assert asyncio.get_running_loop().time() - begun < 1


async def test_a_delivery_guard_changes_or_stops_what_one_channel_gets() -> None:
    a, b = FakeChannel("a"), FakeChannel("b")
    async with kit_with(FakeChannel(), a, b) as kit:
        await kit.create_room("r", channels=["sms", "a", "b"])

        @kit.before(BeforeDelivery)
        async def guard(moment: Moment) -> Any:
            if moment.channel_id == "a":
                return Block("not here")
            return Modify(moment.value.model_copy(update={"content": TextContent(text="***")}))

        await (await say(kit, "card 4111", "r")).settled()
        assert a.texts == []
        assert b.texts == ["***"]
        reasons = {d.channel_id: d.reason for d in await kit.deliveries("r")}
        assert reasons["a"] is not None
        assert "not here" in reasons["a"]
        assert await said(kit, "r") == [("sms", "card 4111", "committed")]


async def test_hooks_can_be_removed_and_refuse_what_is_no_moment() -> None:
    async with kit_with(FakeChannel()) as kit:

        async def guard(moment: Moment) -> Block:
            return Block("no")

        remove = kit.hooks.before(BeforeCommit, guard)
        assert (await say(kit, "x")).blocked
        remove()
        assert not (await say(kit, "x")).blocked
        with pytest.raises(UsageError, match=r"kit\.on"):
            kit.hooks.before(Committed, guard)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"kit\.before"):
            kit.hooks.on(BeforeCommit, guard)  # type: ignore[arg-type]


async def test_a_guard_that_writes_into_its_own_room_is_told_so() -> None:
    errors: list[BaseException] = []
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])

        @kit.on(HookFailed)
        async def hear(notice: HookFailed) -> None:
            errors.append(notice.error)

        @kit.before(BeforeCommit)
        async def guard(moment: Moment) -> None:
            await kit.send("r", "me too")

        assert not (await say(kit, "x", "r")).blocked
        await asyncio.sleep(0)
        assert [type(e) for e in errors] == [UsageError]
        assert "wait for itself" in str(errors[0])


# -- streams ----------------------------------------------------------------------------------------------------------


async def shown(mode: Any, guard: Any, *parts: str) -> tuple[str, list[Any], list[tuple[str, str, str]]]:
    """Streams `parts` past a guard; returns what a viewer saw grow, all stream items, and the log."""
    sms, brain = FakeChannel(), Brain(script=lambda c, e: stream(*parts))
    items: list[Any] = []
    async with kit_with(sms, brain) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        kit.before(BeforeCommit, streams=mode, where=Filter(channel_ids=frozenset({"ai"})))(guard)
        view = await kit.open_view("r", "sms", items.append)
        await (await say(kit, "go", "r")).settled()
        view.close()
        log = await said(kit, "r")
    return "".join(i.delta for i in items if isinstance(i, StreamChunk)), items, log


async def censor(moment: Moment) -> Any:
    if "BLOCK" in text(moment):
        return Block("forbidden")
    return rewritten(moment, text(moment).replace("4111", "****"))


async def test_pass_shows_everything_and_the_end_replaces_it() -> None:
    live, items, log = await shown("pass", censor, "card ", "4111", " ok")
    assert live == "card 4111 ok"
    assert isinstance(items[-1], StreamEnd)
    assert items[-1].event.text == "card **** ok"
    assert log[-1] == ("ai", "card **** ok", "committed")


async def test_a_block_at_commit_withdraws_what_was_shown() -> None:
    live, items, log = await shown("pass", censor, "one ", "BLOCK")
    assert live == "one BLOCK"
    assert isinstance(items[-1], StreamError)
    assert not [i for i in items if isinstance(i, StreamEnd)]
    assert log[-1] == ("ai", "one BLOCK", "blocked")


@pytest.mark.parametrize("cut", range(1, 12))
async def test_sentence_mode_never_shows_what_a_guard_would_change(cut: int) -> None:
    words = "my card 4111. and 4111 again"
    live, _items, log = await shown("sentence", censor, words[:cut], words[cut:])
    assert "4111" not in live
    assert live == "my card ****. and **** again"
    assert log[-1][1] == live


async def test_sentence_mode_stops_at_a_forbidden_sentence() -> None:
    live, items, log = await shown("sentence", censor, "fine. ", "BLOCK this. ", "never said. ")
    assert live == "fine. "
    assert isinstance(items[-1], StreamError)
    assert log[-1][2] == "blocked"
    assert "never said" not in log[-1][1]


async def test_withhold_shows_nothing_before_the_commit() -> None:
    live, items, log = await shown("withhold", censor, "card ", "4111")
    assert live == ""
    assert [type(i).__name__ for i in items if not hasattr(i, "kind")][-1] == "StreamEnd"
    assert log[-1] == ("ai", "card ****", "committed")
    assert isinstance(Allow(), Allow)
