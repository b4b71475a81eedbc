"""The rules of sequence that are easy to get wrong, one test each; a docstring names its rule or bug class."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from typing import Any

import pytest
from pydantic import ValidationError

from roomkit import Block, EventType, InboundMessage, KitOptions, Modify, RoomKit, TurnPolicy
from roomkit.errors import RoomClosed, StateError, UsageError
from roomkit.models.content import CompositeContent, EditContent, TextContent, ToolCallContent
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.models.event import EventDraft, EventSource
from roomkit.models.hooks import Allow, BeforeCommit, Committed, Injected, Moment, Trouble
from roomkit.models.room import Access, AgentResponsePolicy, FloorMode, Observation, RoomStatus, RoomTimers, Task
from roomkit.models.steering import Cancel
from roomkit.models.stream import StreamChunk, StreamEnd, TextDelta, ToolStep
from roomkit.ports.channel import ChannelOutput
from roomkit.testing import FakeChannel
from tests.core.faults import FaultyStore, ends
from tests.core.rooms import Brain, gapless, kit_with, said, say, stream

CALL = ToolCallContent(call_id="c1", name="look")
DONE = CALL.model_copy(update={"status": "completed", "result": "ok"})
SYSTEM = EventSource(channel_id="system", channel_type="system", direction="internal")


def words(kit: RoomKit, room: str = "r") -> Any:
    return said(kit, room)


# -- rooms -------------------------------------------------------------------------------------------------------------


async def test_a_paused_room_that_speaks_again_pauses_again() -> None:
    """1.1 timers and rule 37: a message resumes the same room, and its clock starts over."""
    async with kit_with(FakeChannel()) as kit:
        timers = RoomTimers(inactive_after_seconds=10, closed_after_seconds=100)
        await kit.create_room("r", channels=["sms"], timers=timers)
        await asyncio.sleep(11)
        assert (await kit.get_room("r")).status is RoomStatus.PAUSED
        assert (await say(kit, "hi")).room_id == "r"
        assert (await kit.get_room("r")).status is RoomStatus.ACTIVE
        await asyncio.sleep(11)
        assert (await kit.get_room("r")).status is RoomStatus.PAUSED
        await asyncio.sleep(101)
        assert (await kit.get_room("r")).status is RoomStatus.CLOSED
        kinds = [e.type for e in await kit.events("r", raw=True)]
        assert kinds.count(EventType.ROOM_PAUSED) == 2
        assert kinds.count(EventType.ROOM_CLOSED) == 1


async def test_nothing_at_all_makes_the_log_of_a_closed_room_grow() -> None:
    """1.1 refusal at every growth point, rule 35 and P17: the room's own closing is its last record."""
    sms = FakeChannel()
    async with kit_with(sms, FakeChannel("mail"), Brain(script=lambda c, e: stream("late", every=5))) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.add_member("r", "ann")
        await say(kit, "go", "r")
        await asyncio.sleep(1)
        await kit.close_room("r")
        log = await kit.events("r", raw=True)
        assert log[-1].type is EventType.ROOM_CLOSED
        for call in (
            kit.attach_channel("r", "mail"),
            kit.add_member("r", "bob"),
            kit.note("r", "n", "eve"),
            kit.whisper("r", "w", to="ai", by="eve"),
            kit.draft("r", "d", by="eve"),
            kit.take_over("r", "eve"),
            kit.release("r"),
            kit.request_human("r", "help"),
        ):
            with pytest.raises(RoomClosed):
                await call
        await kit.mute("r", "sms")
        await kit.set_access("r", "sms", Access.NONE)
        await kit.rename_member("r", "ann", "Ann")
        await kit.remove_member("r", "ann")
        await kit.detach_channel("r", "ai")
        await kit.mark_read("r", "sms", 1)
        assert (await say(kit, "late", "r", channel="mail")).reason == "room_closed"
        await asyncio.sleep(20)
        assert await kit.events("r", raw=True) == log
        await kit.reopen_room("r")
        assert [b.channel_id for b in await kit.bindings("r")] == ["sms"]
        assert (await say(kit, "still shut out", "r")).blocked


async def test_an_event_injected_by_a_guard_is_refused_by_a_closed_room() -> None:
    """Rule 5: guards of a closed room are not even asked."""
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        asked: list[str] = []

        @kit.before(BeforeCommit)
        async def guard(moment: Moment[Any]) -> Allow:
            asked.append(moment.value.text)
            return Allow(inject=(Injected(EventDraft(source=SYSTEM, content=TextContent(text="x"))),))

        await kit.close_room("r")
        await say(kit, "hi", "r")
        assert asked == []


async def test_a_custom_router_chooses_the_room() -> None:
    """1.1 routing: pluggable, and its None opens a new room."""

    class Router:
        async def route(self, tenant: str, message: InboundMessage, candidates: list[Any]) -> str | None:
            return "vip" if message.sender_id == "vip" else None

    async with kit_with(FakeChannel(), options=KitOptions(router=Router())) as kit:
        await kit.create_room("vip", channels=["sms"])
        assert (await say(kit, "a", who="vip")).room_id == "vip"
        assert (await say(kit, "b", who="other")).room_id != "vip"


async def test_ids_that_would_confuse_keys_are_refused() -> None:
    """P27: a room's id can never reach into another room's records."""
    async with kit_with() as kit:
        with pytest.raises(UsageError, match="line break"):
            await kit.create_room("a\nb")


# -- guards ------------------------------------------------------------------------------------------------------------


async def test_a_modification_to_nothing_counts() -> None:
    """P9: a falsy payload is a payload."""
    async with kit_with(FakeChannel(), FakeChannel("mail")) as kit:
        await kit.create_room("r", channels=["sms", "mail"])

        @kit.before(BeforeCommit)
        async def guard(moment: Moment[Any]) -> Modify:
            return Modify(moment.value.replaced(content=TextContent(text="")))

        await (await say(kit, "secret", "r")).settled()
        assert (await words(kit))[0] == ("sms", "", "committed")


async def test_a_blocked_edit_changes_nothing() -> None:
    """1.2 timing of mutation: applied only when hooks have allowed it."""
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        first = (await say(kit, "original", "r")).event
        assert first is not None

        @kit.before(BeforeCommit)
        async def guard(moment: Moment[Any]) -> Block | None:
            return Block("no edits") if moment.value.type is EventType.EDIT else None

        content = EditContent(target_event_id=first.id, new_content=TextContent(text="changed"))
        edit = InboundMessage(channel_id="sms", sender_id="+4411", content=content, type=EventType.EDIT)
        assert (await kit.process_inbound(edit, room_id="r")).blocked
        assert [e.text for e in await kit.events("r") if e.type is EventType.MESSAGE] == ["original"]


async def test_what_a_guard_injects_is_seen_only_where_it_is_sent() -> None:
    """1.5 inject on block: history and live views tell nobody else."""
    web, mail = FakeChannel("web"), FakeChannel("mail")
    web.reach = "cursor"
    async with kit_with(FakeChannel(), mail, web) as kit:
        await kit.create_room("r", channels=["sms", "mail", "web"])
        items: list[Any] = []
        await kit.open_view("r", "web", items.append)

        @kit.before(BeforeCommit)
        async def guard(moment: Moment[Any]) -> Block:
            told = EventDraft(source=SYSTEM, content=TextContent(text="mind your words"))
            kept = EventDraft(source=SYSTEM, content=TextContent(text="for the record"))
            return Block("rude", inject=(Injected(told, ("sms",)), Injected(kept)))

        await (await say(kit, "rude", "r")).settled()
        assert [i for i in items if i.type is not EventType.PARTICIPANT_JOINED] == []
        assert mail.texts == []
        log = await kit.events("r", raw=True)
        assert [e.visibility for e in log[-2:]] == ["sms", "internal"]


async def test_a_guard_that_takes_its_time_keeps_the_order_and_loses_nobody() -> None:
    """Rule 9 and R2: others of the room wait in line, other rooms do not."""
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.create_room("other", channels=["sms"])

        @kit.before(BeforeCommit)
        async def guard(moment: Moment[Any]) -> None:
            if moment.value.text == "0":
                await asyncio.sleep(4.9)

        loop = asyncio.get_running_loop()
        calls = [asyncio.ensure_future(say(kit, str(i), "r")) for i in range(5)]
        await say(kit, "quick", "other")
        assert loop.time() < 0.1
        await asyncio.gather(*calls)
        assert [t for _, t, _ in await words(kit)] == ["0", "1", "2", "3", "4"]
        assert 4.8 < loop.time() < 5.5


@pytest.mark.parametrize("slow", ["identity", "inbound", "commit"])
async def test_the_time_limit_covers_what_it_names_and_never_the_commit(slow: str) -> None:
    """1.6, P20 and P21: whoever is told "process_timeout" finds nothing stored; what is stored is acknowledged."""

    class Slow(FakeChannel):
        async def handle_inbound(self, message: InboundMessage, context: Any = None) -> Any:
            await asyncio.sleep(40 if slow == "inbound" else 0)
            return await super().handle_inbound(message, context)

    class Resolver:
        async def resolve(self, tenant: str, channel_type: str, message: InboundMessage) -> Any:
            await asyncio.sleep(40 if slow == "identity" else 0)
            raise RuntimeError

    store = FaultyStore(durable=False)
    options = KitOptions(identity_timeout_s=100)
    async with kit_with(Slow(), store=store, resolver=Resolver(), options=options) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.add_member("r", "sms:+4411", channel_id="sms")
        store.delay = 60 if slow == "commit" else 0
        result = await say(kit, "hi", "r")
        store.delay = 0
        stored = [t for _, t, _ in await words(kit)]
        if slow == "commit":
            assert (result.blocked, stored) == (False, ["hi"])
        else:
            assert (result.blocked, result.reason, stored) == (True, "process_timeout", [])


# -- chains and turns --------------------------------------------------------------------------------------------------


async def test_the_records_of_tools_ask_nobody() -> None:
    """Rule 2: they are stored and shown, and no brain answers them."""
    asks = Brain("asks", lambda c, e: stream(ToolStep(CALL), ToolStep(DONE), "done"))
    hears = Brain("hears", lambda c, e: ChannelOutput())
    async with kit_with(FakeChannel(), asks, hears) as kit:
        await kit.create_room("r", channels=["sms", "asks", "hears"])
        await (await say(kit, "go", "r")).settled()
        assert [text for turn in hears.seen for text in turn] == ["go", "done"]


async def test_what_a_brain_notes_is_kept_even_where_its_words_are_not() -> None:
    """Rules 4 and 31: side records of a muted, read-only or too deep answer are applied."""
    note = Task(id="t1", title="call back")
    seen = Observation(id="o1", kind="mood", content="cross")

    def script(context: Any, event: Any) -> ChannelOutput:
        draft = EventDraft(source=SYSTEM, content=TextContent(text="no"))
        return ChannelOutput((draft,), tasks=(note,), observations=(seen,), metadata_updates={"k": 1})

    async with kit_with(FakeChannel(), Brain(script=script), options=KitOptions(max_chain_depth=1)) as kit:
        for name in ("deep", "muted", "read_only"):
            await kit.create_room(name, channels=["sms", "ai"])
        await kit.mute("muted", "ai")
        await kit.set_access("read_only", "ai", Access.READ_ONLY)
        for name, blocked_by in (
            ("deep", "event_chain_depth_limit"),
            ("muted", "event_chain_depth_limit"),
            ("read_only", "event_chain_depth_limit"),
        ):
            await (await say(kit, "go", name)).settled()
            assert [t.title for t in await kit.tasks(name)] == ["call back"]
            assert [o.content for o in await kit.observations(name)] == ["cross"]
            assert (await kit.events(name, raw=True))[-1].blocked_by == blocked_by
            assert {b.channel_id: b.metadata for b in await kit.bindings(name)}["ai"] == {"k": 1}


async def test_an_answer_may_come_after_a_later_message_and_still_names_its_question() -> None:
    """Rule 11: order and parent link are promised, never adjacency."""
    brain = Brain(script=lambda c, e: stream("slow", "answer", every=1))
    brain.turn_policy = TurnPolicy("queue")
    async with kit_with(FakeChannel(), brain) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        first = await say(kit, "one", "r")
        await asyncio.sleep(0.5)
        second = await say(kit, "two", "r")
        await first.settled()
        await second.settled()
        log = [e for e in await kit.events("r", raw=True) if e.type is EventType.MESSAGE]
        assert [e.text for e in log] == ["one", "two", "slowanswer", "slowanswer"]
        assert [e.correlation_id for e in log[2:]] == [log[0].id, log[1].id]


async def test_a_brain_may_write_into_its_own_room_while_it_answers() -> None:
    """Rule 12: calls from inside a turn wait neither for it nor for each other."""

    async def answer(kit: RoomKit) -> Any:
        yield "let me see "
        await kit.send("r", "aside", addressed_to=())
        with pytest.raises(UsageError, match="settled"):
            await inner[0].settled()
        yield "done"

    inner: list[Any] = []
    async with kit_with(FakeChannel(), Brain(script=lambda c, e: answer(kit))) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        inner.append(await say(kit, "go", "r"))
        await inner[0].settled(5)
        assert [t for _, t, _ in await words(kit)] == ["go", "aside", "let me see done"]


@pytest.mark.parametrize("rooms", [["a", "b"], ["a", "b", "c"]])
async def test_turns_that_wait_for_each_other_are_told_so(rooms: list[str]) -> None:
    """Two rooms, or three in a circle: each asks the next and waits for its answer, which never comes."""
    asked: dict[str, Any] = {}
    told: list[str] = []

    async def answer(kit: RoomKit, room_id: str) -> Any:
        await asyncio.sleep(1)
        following = rooms[(rooms.index(room_id) + 1) % len(rooms)]
        try:
            await asked[following].settled()
        except UsageError as error:
            told.append(str(error))
        yield "done"

    brain = Brain(script=lambda c, e: answer(kit, c.room.id))
    async with kit_with(FakeChannel(), brain) as kit:
        for room_id in rooms:
            await kit.create_room(room_id, channels=["sms", "ai"])
        for room_id in rooms:
            asked[room_id] = await say(kit, "go", room_id, who=room_id)
        for room_id in rooms:
            await asked[room_id].settled(10)
        assert len(told) == 1
        assert "wait for each other" in told[0]
        assert (await words(kit, rooms[0]))[-1][1] == "done"


async def test_work_that_comes_later_can_close_the_circle_too() -> None:
    """A delivery waits for a message elsewhere, whose turn then writes behind that delivery and waits for it."""
    told: list[str] = []
    first: list[Any] = []

    async def answer(kit: RoomKit) -> Any:
        await asyncio.sleep(5)
        result = await kit.send("a", "behind you")
        try:
            await result.settled()
        except UsageError as error:
            told.append(str(error))
        yield "done"

    class Waits(FakeChannel):
        async def deliver(self, event: Any, binding: Any, context: Any) -> Any:
            if event.text == "go":
                first.append(await kit.send("b", "question"))
                with contextlib.suppress(UsageError):
                    await first[0].settled()
            return await super().deliver(event, binding, context)

    async with kit_with(Waits("sms"), Brain(script=lambda c, e: answer(kit))) as kit:
        await kit.create_room("a", channels=["sms"])
        await kit.create_room("b", channels=["ai"])
        await (await kit.send("a", "go")).settled(20)
        assert len(told) == 1


async def test_addressing_chooses_who_answers_and_nothing_else() -> None:
    """Rule 30 and 1.3: it is stored, hides nothing, and the policy can change in a living room."""
    one, two, sms = Brain("one"), Brain("two"), FakeChannel()
    async with kit_with(sms, one, two) as kit:
        settings = {"agent_response_policy": AgentResponsePolicy.ADDRESSED_ONLY}
        await kit.create_room(
            "r", channels=["sms", "one", "two"], agent_response_policy=AgentResponsePolicy.AGENT_CHAIN
        )
        await kit.update_room("r", **settings)
        result = await kit.send("r", "two only", addressed_to=["two"])
        await result.settled()
        assert (one.seen, two.seen) == ([], [["two only"]])
        assert result.event is not None
        assert result.event.addressed_to == ("two",)
        await (await kit.send("r", "nobody", addressed_to=[])).settled()
        assert (len(one.seen), len(two.seen)) == (0, 1)
        await (await kit.send("r", "all")).settled()
        assert one.histories[-1][:3] == ["two only", "echo two only", "nobody"]
        assert sms.texts[:3] == ["two only", "echo two only", "nobody"]


async def test_the_window_of_a_history_is_the_newest_part() -> None:
    """P14: more events than asked for, and the last ones come."""
    newest: list[list[str]] = []

    async def answer(context: Any) -> Any:
        newest.append([e.text for e in await context.history(3)])
        yield ""

    async with kit_with(FakeChannel(), Brain(script=lambda c, e: answer(c))) as kit:
        await kit.create_room("r", channels=["sms"])
        for i in range(250):
            await kit.send("r", str(i))
        await kit.attach_channel("r", "ai")
        await (await say(kit, "last", "r")).settled()
        assert newest == [["248", "249", "last"]]


async def test_a_whisper_is_in_no_other_brains_prompt() -> None:
    """Rule 28 and P15: what was hidden at delivery stays hidden in rebuilt history; one's own stays visible."""
    adviser, other = Brain("adviser"), Brain("other", lambda c, e: ChannelOutput())
    async with kit_with(FakeChannel(), adviser, other) as kit:
        await kit.create_room("r", channels=["sms", "adviser", "other"])
        await kit.set_visibility("r", "adviser", "adviser")
        await kit.whisper("r", "be kind", to="adviser", by="eve")
        await (await say(kit, "hello", "r")).settled()
        await (await say(kit, "again", "r")).settled()
        assert adviser.histories[-1] == ["be kind", "hello", "echo hello", "again"]
        assert other.histories[-1] == ["hello", "again"]


async def test_steering_without_a_name_never_guesses() -> None:
    """Rule 39: with two turns in the room it must be told which; a cancel of one room leaves the other alone."""
    one, two = (Brain(n, lambda c, e: stream(*"abcdef", every=0.5)) for n in ("one", "two"))
    async with kit_with(FakeChannel(), one, two) as kit:
        await kit.create_room(
            "r", channels=["sms", "one", "two"], agent_response_policy=AgentResponsePolicy.ADDRESSED_ONLY
        )
        await kit.create_room("q", channels=["sms", "one"])
        results = [await say(kit, "go", "r"), await say(kit, "go", "q")]
        await asyncio.sleep(0.7)
        with pytest.raises(UsageError, match="several"):
            await kit.steer("r", Cancel("stop"))
        await kit.steer("r", Cancel("stop"), channel_id="one")
        for result in results:
            await result.settled()
        assert [(c, t) for c, t, _ in await words(kit) if c != "sms"] == [("one", "a"), ("two", "abcdef")]
        assert [t for c, t, _ in await words(kit, "q") if c == "one"] == ["abcdef"]


async def test_a_reply_is_kept_when_the_floor_moves_and_the_ai_may_still_answer() -> None:
    """D26: the generation rises, and voids what was begun, only when the AI loses the right to answer."""
    async with kit_with(FakeChannel(), Brain(script=lambda c, e: stream("a", "b", every=1))) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        items: list[Any] = []
        await kit.open_view("r", "sms", items.append)
        result = await say(kit, "go", "r")
        await asyncio.sleep(1.5)
        await kit.set_floor("r", FloorMode.BOTH, "eve")
        await result.settled()
        reply = (await kit.events("r", raw=True))[-1]
        assert (reply.text, reply.blocked_by) == ("ab", None)
        assert ends(items) == ["StreamStart", "StreamEnd"]


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_every_viewer_streams_and_a_plain_one_gets_one_whole_event() -> None:
    """Rules 19, 21 and 22: chunks add up to the stored event, which comes once, under its own id."""
    web, mail = FakeChannel("web"), FakeChannel("mail")
    web.reach = "cursor"
    async with kit_with(FakeChannel(), web, mail, Brain(script=lambda c, e: stream("a ", "b ", "c"))) as kit:
        await kit.create_room("r", channels=["sms", "web", "mail", "ai"])
        views: list[list[Any]] = [[], [], []]
        for who, items in zip(("web", "web", "mail"), views, strict=True):
            await kit.open_view("r", who, items.append)
        await (await say(kit, "go", "r")).settled()
        stored = (await kit.events("r", raw=True))[-1]
        for items in views:
            assert "".join(i.delta for i in items if isinstance(i, StreamChunk)) == stored.text == "a b c"
            assert [i.event for i in items if isinstance(i, StreamEnd)] == [stored]
            assert stored not in items
        assert [e.id for e in mail.events if e.text == "a b c"] == [stored.id]


@pytest.mark.parametrize("how", ["access", "output", "detach", "visibility"])
async def test_rights_that_change_under_a_stream_end_it_once_for_each_viewer(how: str) -> None:
    """Rule 24 and P2: what a viewer may no longer hear stops at once, and every start has one end."""
    web, tv = FakeChannel("web"), FakeChannel("tv")
    web.reach = tv.reach = "cursor"
    async with kit_with(FakeChannel(), web, tv, Brain(script=lambda c, e: stream(*"abcdef", every=0.5))) as kit:
        await kit.create_room("r", channels=["sms", "web", "tv", "ai"])
        items: list[Any] = []
        others: list[Any] = []
        await kit.open_view("r", "web", items.append)
        await kit.open_view("r", "tv", others.append)
        result = await say(kit, "go", "r")
        await asyncio.sleep(1.2)
        if how == "access":
            await kit.set_access("r", "web", Access.WRITE_ONLY)
        elif how == "output":
            await kit.mute("r", "web", output=True)
        elif how == "detach":
            await kit.detach_channel("r", "web")
        else:
            await kit.set_visibility("r", "ai", "tv")
        heard = sum(isinstance(i, StreamChunk) for i in items)
        assert ends(items) == ["StreamStart"] + ["StreamError"] * (how != "visibility")
        await result.settled()
        assert ends(others) == ["StreamStart", "StreamEnd"]
        assert ends(items) == ["StreamStart", "StreamError"]
        if how != "visibility":
            assert sum(isinstance(i, StreamChunk) for i in items) == heard == 2


async def test_a_viewer_that_is_let_in_under_a_stream_gets_it_from_the_start() -> None:
    """Rule 24: and the other way round."""
    web = FakeChannel("web")
    web.reach = "cursor"
    async with kit_with(FakeChannel(), web, Brain(script=lambda c, e: stream(*"abcdef", every=0.5))) as kit:
        await kit.create_room("r", channels=["sms", "web", "ai"])
        await kit.set_access("r", "web", Access.NONE)
        items: list[Any] = []
        await kit.open_view("r", "web", items.append)
        result = await say(kit, "go", "r")
        await asyncio.sleep(1.2)
        assert items == []
        await kit.set_access("r", "web", Access.READ_ONLY)
        await result.settled()
        assert ends(items) == ["StreamStart", "StreamEnd"]
        assert "".join(i.delta for i in items if isinstance(i, StreamChunk)) == "abcdef"


async def test_a_muted_brain_under_a_supervisors_eye_ends_once() -> None:
    """Rules 24 and 31: who sees everything is told that it was withdrawn, then gets the blocked event itself."""
    from roomkit.core.streams import INTERNAL

    async with kit_with(FakeChannel(), Brain(script=lambda c, e: stream(*"abcdef", every=0.5))) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        items: list[Any] = []
        await kit.open_view("r", INTERNAL, items.append)
        result = await say(kit, "go", "r")
        await asyncio.sleep(1.2)
        await kit.mute("r", "ai")
        await result.settled()
        assert ends(items) == ["StreamStart", "StreamError"]
        assert items[-1].blocked_by == "source_muted"
        assert items[-1].text == "abcdef"


@pytest.mark.parametrize("why", ["error", "cancel"])
async def test_what_failed_is_told_once_and_what_was_stopped_is_not_trouble(why: str) -> None:
    """Rule 20 and P4: partial words are kept either way."""
    told: list[Any] = []

    async def answer() -> Any:
        yield TextDelta("half")
        await asyncio.sleep(1)
        raise RuntimeError("boom")

    async with kit_with(FakeChannel(), Brain(script=lambda c, e: answer())) as kit:
        kit.on(Trouble)(told.append)
        await kit.create_room("r", channels=["sms", "ai"])
        result = await say(kit, "go", "r")
        await asyncio.sleep(0.5)
        if why == "cancel":
            await kit.steer("r", Cancel("enough"))
        await result.settled()
        await asyncio.sleep(0.1)
        reply = (await kit.events("r", raw=True))[-1]
        assert (reply.text, reply.metadata["interrupted"]) == ("half", "error" if why == "error" else "enough")
        assert len(told) == (1 if why == "error" else 0)


MOOD: ContextVar[str] = ContextVar("mood", default="lost")


async def test_what_a_brain_sets_around_its_answer_is_there_while_it_speaks() -> None:
    """Rule 25: one context for on_event and for the stream that it returns."""

    class Sets(Brain):
        async def on_event(self, *args: Any) -> ChannelOutput:
            MOOD.set("kept")
            return await super().on_event(*args)

    async def answer() -> Any:
        yield "mood "
        await asyncio.sleep(0.1)
        yield MOOD.get()

    async with kit_with(FakeChannel(), Sets(script=lambda c, e: answer())) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await (await say(kit, "go", "r")).settled()
        assert (await words(kit))[-1][1] == "mood kept"


async def test_nothing_is_shown_or_asked_for_after_a_forbidden_sentence() -> None:
    """D19: not even the rest of the same delta, and the brain is stopped at once."""
    pulled: list[int] = []

    async def answer() -> Any:
        yield "fine. "
        yield "BAD. and the rest"
        pulled.append(1)
        yield "more. "

    async with kit_with(FakeChannel(), Brain(script=lambda c, e: answer())) as kit:

        @kit.before(BeforeCommit, streams="sentence")
        async def guard(moment: Moment[Any]) -> Block | None:
            return Block("bad word") if "BAD" in moment.value.text else None

        await kit.create_room("r", channels=["sms", "ai"])
        items: list[Any] = []
        await kit.open_view("r", "sms", items.append)
        await (await say(kit, "go", "r")).settled()
        assert "".join(i.delta for i in items if isinstance(i, StreamChunk)) == "fine. "
        assert pulled == []


@pytest.mark.parametrize("exit_by", ["end", "error", "take_over", "close", "detach", "guard", "shutdown"])
async def test_a_stream_is_closed_on_every_exit(exit_by: str) -> None:
    """Rules 23 and 26, P5: nobody listens, and still its cleaning up runs before the turn is over."""
    closed: list[str] = []

    async def answer() -> Any:
        try:
            yield "one. "
            yield "BAD. "
            await asyncio.sleep(1)
            if exit_by == "error":
                raise RuntimeError
            yield "two. "
        finally:
            closed.append(exit_by)

    kit = kit_with(FakeChannel(), Brain(script=lambda c, e: ChannelOutput(response_stream=answer())))
    await kit.create_room("r", channels=["sms", "ai"])
    if exit_by == "guard":

        @kit.before(BeforeCommit, streams="sentence")
        async def guard(moment: Moment[Any]) -> Block | None:
            return Block("bad word") if "BAD" in moment.value.text else None

    result = await say(kit, "go", "r")
    await asyncio.sleep(0.5)
    if exit_by == "take_over":
        await kit.take_over("r", "eve")
    elif exit_by == "close":
        await kit.close_room("r")
    elif exit_by == "detach":
        await kit.detach_channel("r", "ai")
    elif exit_by == "shutdown":
        await kit.aclose()
    await result.settled(5)
    assert closed == [exit_by]
    await kit.aclose()


# -- delivery ----------------------------------------------------------------------------------------------------------


async def test_a_send_that_never_returns_costs_only_its_own_lane() -> None:
    """Rule 9, P22 and P23: neither the room nor its other channels nor its observers wait."""
    dead, live, hung = FakeChannel("dead", policy=DeliveryPolicy(timeout_s=5, max_retries=0)), FakeChannel("live"), []
    dead.hang()
    async with kit_with(FakeChannel(), dead, live) as kit:

        @kit.on(Committed)
        async def observer(notice: Committed) -> None:
            hung.append(notice)
            await asyncio.sleep(1e6)

        await kit.create_room("r", channels=["sms", "dead", "live"])
        for i in range(3):
            await say(kit, str(i), "r")
        await asyncio.sleep(0.1)
        assert live.texts == ["0", "1", "2"]
        assert len(hung) >= 3
        await asyncio.sleep(20)
        assert [d["error"] for d in await kit.dead_letters("r")] == ["dead: no answer in 5 s"] * 3


async def test_two_rooms_on_one_channel_hear_only_their_own() -> None:
    """P24: zero cross-talk, in deliveries and in views."""
    sms, web = FakeChannel(), FakeChannel("web")
    web.reach = "cursor"
    async with kit_with(sms, web, Brain()) as kit:
        heard: dict[str, list[Any]] = {"a": [], "b": []}
        for name, items in heard.items():
            await kit.create_room(name, channels=["sms", "web", "ai"])
            await kit.open_view(name, "web", items.append)
        for i in range(3):
            for name in heard:
                await (await kit.send(name, f"{name}{i}")).settled()
        assert {room for room, _, text in sms.delivered if "a" in text.removeprefix("echo ")} == {"a"}
        for name, items in heard.items():
            assert {i.room_id for i in items} == {name}


async def test_the_next_way_to_a_person_is_no_way_around_visibility() -> None:
    """D28 and 1.3: what only one channel may see is not sent on another when it fails."""
    sms = FakeChannel(temper=lambda e, n: DeliveryResult(success=False, error="no"))
    mail = FakeChannel("mail")
    async with kit_with(sms, mail) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "sms", participant_id="ann")
        await kit.attach_channel("r", "mail", participant_id="ann")
        await (await kit.send("r", "your pin is 1234", visibility="sms")).settled()
        await asyncio.sleep(1)
        assert mail.texts == []
        await (await kit.send("r", "hello")).settled()
        await asyncio.sleep(1)
        assert mail.texts == ["hello"]


async def test_a_channel_that_closes_late_does_not_tear_down_its_successor() -> None:
    """Rule 38 and P54."""

    class Slow(FakeChannel):
        async def close(self) -> None:
            await asyncio.sleep(5)

    async with kit_with(Slow()) as kit:
        await kit.create_room("r", channels=["sms"])
        going = asyncio.ensure_future(kit.unregister_channel("sms"))
        await asyncio.sleep(1)
        new = FakeChannel()
        kit.register_channel(new)
        await going
        await (await kit.send("r", "hi")).settled()
        assert new.texts == ["hi"]
        assert kit.channels["sms"] is new


async def test_the_vendors_own_words_are_kept() -> None:
    """P38 and the three levels of metadata of 1.2: raw payload, event and seat stay apart."""
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "sms", metadata={"seat": 1})
        raw = {"Body": "hi", "Extra": ["?"]}
        message = InboundMessage.text("sms", "+44", "hi", raw_payload=raw, metadata={"m": 1}, channel_data={"seg": 2})
        event = (await kit.process_inbound(message, room_id="r")).event
        assert event is not None
        assert event.source.raw_payload == raw
        assert event.source.provider == "sms"
        assert (event.metadata, event.channel_data) == ({"m": 1}, {"seg": 2})
        assert (await kit.bindings("r"))[0].metadata == {"seat": 1}


def test_composites_nest_no_deeper_than_five() -> None:
    """1.2 composite."""
    content: Any = TextContent(text="x")
    for _ in range(5):
        content = CompositeContent(parts=(content,))
    with pytest.raises(ValidationError, match="nested deeper"):
        CompositeContent(parts=(content,))


async def test_a_known_person_is_not_moved_to_another_channel() -> None:
    """1.4 lazy get-or-create: the record keeps its home and learns the new way."""
    async with kit_with(FakeChannel(), FakeChannel("mail")) as kit:
        await kit.create_room("r", channels=["sms", "mail"])
        for channel in ("sms", "mail"):
            message = InboundMessage.text(channel, "x", "hi", participant_id="ann")
            await kit.process_inbound(message, room_id="r")
        (person,) = await kit.participants("r")
        assert (person.channel_id, person.last_channel_id) == ("sms", "mail")
        assert person.connected_via == ("sms", "mail")


async def test_a_redelivery_leaves_no_trace_anywhere() -> None:
    """Rule 15: not in the room it was sent to, nor in the other one that it is sent to now."""
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        await kit.create_room("q", channels=[])
        first = await say(kit, "one", "r", external_id="m1")
        before = [await kit.events(n, raw=True) for n in "rq"]
        again = await say(kit, "one", "q", external_id="m1")
        assert (again.duplicate, again.event) == (True, first.event)
        assert [await kit.events(n, raw=True) for n in "rq"] == before
        assert await kit.bindings("q") == []


async def test_an_unknown_seat_is_told_by_name() -> None:
    """1.3 update_binding_metadata: leaves a record, reaches the gate, and refuses a seat that does not exist."""
    sms = FakeChannel()
    async with kit_with(sms) as kit:
        await kit.create_room("r", channels=["sms"])
        with pytest.raises(StateError, match="sms2"):
            await kit.update_binding_metadata("r", "sms2", {"k": 1})
        seat = await kit.update_binding_metadata("r", "sms", {"k": 1})
        assert seat.metadata["k"] == 1
        assert sms.bindings[-1].metadata["k"] == 1
        assert (await kit.events("r", raw=True))[-1].type is EventType.CHANNEL_UPDATED


async def test_a_view_of_no_tail_shows_nothing_of_the_past() -> None:
    """R6: and of a tail just that much."""
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        for i in range(5):
            await kit.send("r", str(i))
        assert (await kit.open_view("r", "sms", print, tail=0)).events == []
        assert [e.text for e in (await kit.open_view("r", "sms", print, tail=2)).events] == ["3", "4"]
        assert await gapless(kit, "r")
