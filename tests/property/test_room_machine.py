"""A kit beside a model made of plain dicts: whatever is done to rooms, in whatever order, the promises hold.

The rules of seeing, writing and delivering are written down here a second time, from the specification alone.
"""

from __future__ import annotations

import asyncio
import copy
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from roomkit import EventType, InboundMessage, RoomKit
from roomkit.core.streams import INTERNAL
from roomkit.errors import FloorTaken, RoomClosed
from roomkit.models.content import DeleteContent, EditContent, ReactionContent, TextContent, ToolCallContent
from roomkit.models.event import EventDraft, EventSource, RoomEvent
from roomkit.models.room import Access
from roomkit.models.stream import StreamChunk, StreamEnd, StreamError, StreamStart, ToolStep
from roomkit.ports.channel import ChannelOutput, RoomContext
from roomkit.testing import FakeChannel, VirtualClock
from roomkit.testing.loop import VirtualLoop
from tests.core.faults import FaultyStore
from tests.core.rooms import Brain, stream

ROOMS = st.sampled_from(["r0", "r0", "r0", "r1"])
TRANSPORTS = ("sms", "mail", "web")
BRAINS = ("ai", "bot")
CHANNELS = st.sampled_from(("sms", "sms", "web", "mail", "ai", "ai", "bot"))
SENDERS = st.sampled_from(("sms", "sms", "web", "mail"))
SHOWN = ("all", "all", "all", "none", "internal", "transport", "intelligence", "sms", "web,ai", "gone")
VISIBILITIES = st.sampled_from(SHOWN)
MOODS = ("whole", "quick", "slow", "silent", "broken", "tool", "two")
CHANGES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("access", ("read_write", "read_write", "read_only", "write_only", "none")),
    ("muted", (True, False)),
    ("deaf", (True, False)),
    ("visibility", SHOWN),
)
READS, WRITES = ("read_write", "read_only"), ("read_write", "write_only")
OUTSIDE = (EventType.MESSAGE, EventType.EDIT, EventType.DELETE, EventType.REACTION)


@dataclass(frozen=True)
class Seat:
    access: str = "read_write"
    muted: bool = False
    deaf: bool = False
    visibility: str = "all"


@dataclass
class ModelRoom:
    status: str = "active"
    seats: dict[str, Seat] = field(default_factory=dict)
    detached: set[str] = field(default_factory=set)
    holder: str | None = None


@dataclass
class Watch:
    """One view: what it was given, how far it was checked, what it is still owed."""

    room: str
    who: str | None
    items: list[Any]
    close: Any
    index: int
    checked: int = 0
    streams: dict[str, int] = field(default_factory=dict)


def sees(who: str | None, event: RoomEvent, seats: dict[str, Seat], person: str | None = None) -> bool:
    """Whether a channel sees an event; a `person` on it has only their own words for their own."""
    if who is None:
        return True
    seat = seats.get(who)
    if seat is None or event.status == "blocked":
        return False
    if event.source.channel_id == who and (person is None or event.source.participant_id == person):
        return True
    if seat.access not in READS:
        return False
    match event.visibility:
        case "all":
            return True
        case "none" | "internal":
            return False
        case "transport":
            return who in TRANSPORTS
        case "intelligence":
            return who in BRAINS
        case names:
            return who in names.split(",")


def hears(who: str | None, event: RoomEvent, seats: dict[str, Seat]) -> bool:
    return sees(who, event, seats) and (who is None or not seats[who].deaf)


def delivered(who: str, event: RoomEvent, seats: dict[str, Seat]) -> bool:
    """Whether an outbox channel must be sent this event."""
    # A text channel has no way to show a reaction.
    plain = event.status == "committed" and event.type in OUTSIDE[:3] and event.source.channel_id != who
    return plain and hears(who, event, seats)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop(limit_s=60)
        self.store = FaultyStore()
        self.rooms: dict[str, ModelRoom] = {}
        self.seen: dict[str, list[RoomEvent]] = {}
        self.acks: dict[tuple[str, str], tuple[str, str]] = {}
        self.acked: list[RoomEvent] = []
        self.results: list[Any] = []
        self.watches: list[Watch] = []
        self.mood = {"ai": "whole", "bot": "silent"}
        self.owed: dict[tuple[str, str], list[int]] = {}
        self.count = 0
        self.calls = 0
        self.sent: dict[tuple[str, str], list[int]] = {}
        self.texts: dict[str, str] = {}
        self.problems: list[str] = []
        self.loop.set_exception_handler(lambda loop, context: self.problems.append(str(context)))
        self.run(self.begin())

    def run(self, coro: Any) -> Any:
        return self.loop.run_until_complete(coro)

    async def begin(self) -> None:
        self.kit = RoomKit(self.store, clock=VirtualClock())
        self.outs = {name: FakeChannel(name, temper=self.temper) for name in ("sms", "mail")}
        web = FakeChannel("web")
        web.reach = "cursor"
        self.brains = {name: Brain(name, self.script) for name in BRAINS}
        for channel in (*self.outs.values(), web, *self.brains.values()):
            self.kit.register_channel(channel)
        await self.kit.start()

    def temper(self, event: RoomEvent, number: int) -> Any:
        return (0.3, None, None)[event.index % 3]

    # -- what brains say ------------------------------------------------------------------------------------------

    def script(self, context: RoomContext, event: RoomEvent) -> Any:
        me = context.binding.channel_id
        self.calls += 1
        seats = (self.before.get(context.room.id), self.rooms[context.room.id].seats)
        for one in context.events:
            if not any(s is not None and sees(me, one, s) for s in seats):
                self.problems.append(f"{me} was asked about an event hidden from it: {one}")
        mood = self.mood[me]
        text = f"{me} says {self.calls}"
        draft = EventDraft(source=EventSource(channel_id=me, channel_type="ai"), content=TextContent(text=text))
        call = ToolCallContent(call_id=f"c{self.calls}", name="look")
        done = call.model_copy(update={"status": "completed", "result": "x"})
        match mood:
            case "whole":
                return ChannelOutput(response_events=(draft,))
            case "two":
                return ChannelOutput(response_events=(draft, draft))
            case "quick":
                return stream(*text.split())
            case "slow":
                return stream(*text.split(), "and", "on", every=0.4)
            case "tool":
                return stream("hm", ToolStep(call), ToolStep(done), "so", every=0.2)
            case "broken":
                return self.broken(text)
            case _:
                return ChannelOutput()

    async def broken(self, text: str) -> Any:
        yield text
        await asyncio.sleep(0.3)
        raise RuntimeError("the brain broke")

    # -- checking -------------------------------------------------------------------------------------------------

    def act(self, coro: Any) -> Any:
        """One step: what it did to the logs is judged by the seats before and after it."""
        self.before = {name: dict(room.seats) for name, room in self.rooms.items()}
        return self.run(coro)

    def check(self) -> None:
        for name in self.rooms:
            self.check_room(name)
        for watch in self.watches:
            self.check_streams(watch)
        assert self.problems == []

    def log(self, name: str) -> list[RoomEvent]:
        """As it stands, without a turn of the loop, in which more could happen."""
        return list(self.store._tenants["default"].logs[name])

    def check_room(self, name: str) -> None:
        log = self.log(name)
        old = self.seen.get(name, [])
        assert [e.index for e in log] == list(range(len(log)))
        assert log[: len(old)] == old, "the past has changed"
        assert len({e.id for e in log}) == len(log)
        fresh, self.seen[name] = log[len(old) :], log
        now = self.rooms[name].seats
        was = self.before.get(name, now)
        for event in fresh:
            self.check_writer(event, was, now)
        for watch in self.watches:
            if watch.room == name:
                self.check_view(watch, log, was, now)
        for channel, out in self.outs.items():
            self.check_lane(name, channel, out, fresh, log, was, now)

    def check_writer(self, event: RoomEvent, was: dict[str, Seat], now: dict[str, Seat]) -> None:
        who = event.source.channel_id
        if event.status != "committed" or who not in (*TRANSPORTS, *BRAINS) or event.metadata.get("tool_record"):
            return
        seats = [s[who] for s in (was, now) if who in s]
        assert any(s.access in WRITES and not s.muted for s in seats), f"{who} may not write, yet {event}"
        assert event.visibility != "all" or any(s.visibility == "all" for s in seats), f"too visible: {event}"
        assert event.chain_depth < 5

    def check_view(self, watch: Watch, log: list[RoomEvent], was: dict[str, Seat], now: dict[str, Seat]) -> None:
        got = [i.event if isinstance(i, StreamEnd) else i for i in watch.items[watch.checked :]]
        got = [i for i in got if isinstance(i, RoomEvent)]
        fresh = log[watch.index + 1 :]
        watch.index = len(log) - 1
        assert [e.index for e in got] == sorted({e.index for e in got}), "a view saw events twice or out of order"
        assert all(log[e.index] == e for e in got), "a view saw what is not in the log"
        must = [e.index for e in fresh if hears(watch.who, e, was) and hears(watch.who, e, now)]
        may = {e.index for e in fresh if hears(watch.who, e, was) or hears(watch.who, e, now)}
        seen = [e.index for e in got]
        assert set(must) <= set(seen), f"{watch.who} missed {set(must) - set(seen)}"
        assert set(seen) <= may, f"{watch.who} saw {set(seen) - may}"

    def check_streams(self, watch: Watch) -> None:
        for item in watch.items[watch.checked :]:
            if isinstance(item, StreamStart):
                assert item.stream_id not in watch.streams, "a reply began twice"
                watch.streams[item.stream_id] = 0
            elif isinstance(item, StreamChunk):
                assert item.offset == watch.streams[item.stream_id], "a piece of a reply is missing"
                watch.streams[item.stream_id] += len(item.delta)
            elif isinstance(item, StreamError):
                assert watch.streams.pop(item.stream_id, None) is not None, "the end of what never began"
            elif isinstance(item, StreamEnd):
                watch.streams.pop(item.stream_id, None)
        watch.checked = len(watch.items)

    def check_lane(
        self,
        name: str,
        channel: str,
        out: FakeChannel,
        fresh: list[RoomEvent],
        log: list[RoomEvent],
        was: dict[str, Seat],
        now: dict[str, Seat],
    ) -> None:
        here = (name, channel)
        sent = self.sent.setdefault(here, [])
        new = [index for room, index in out.attempts if room == name][len(sent) :]
        for index in new:
            # What was on its way when the process stopped may come again: at least once.
            assert not sent or index > sent[-1] or (index == sent[-1] and self.restarted), "a lane out of order"
            event = log[index]
            assert event.status == "committed"
            assert event.source.channel_id != channel
            assert any(sees(channel, event, s) for s in (was, now)), f"{channel} was sent {event}"
            assert any(channel in s and s[channel].access in READS and not s[channel].deaf for s in (was, now))
            sent.append(index)
        owed = self.owed.setdefault(here, [])
        owed += [e.index for e in fresh if delivered(channel, e, was) and delivered(channel, e, now)]
        seat = now.get(channel)
        if seat is None or seat.deaf or seat.access not in READS:
            owed.clear()
        self.owed[here] = [index for index in owed if (name, index) not in {d[:2] for d in out.delivered}]

    restarted = False

    async def quiet(self) -> None:
        for _ in range(400):
            await asyncio.sleep(0.5)
            engine = self.kit.engine
            if not engine.turns.active() and not engine.turns.waiting() and not engine.lanes.backlog:
                return
        raise AssertionError("the kit never comes to rest")

    def settle(self) -> None:
        self.act(self.quiet())
        self.check()
        assert self.run(self.store.rows()) == {}
        assert all(result.settlement.done for result in self.results)
        assert {here: left for here, left in self.owed.items() if left} == {}
        assert [watch.streams for watch in self.watches if watch.streams] == []
        for event in self.acked:
            assert self.seen[event.room_id][event.index] == event, "an acknowledged event is gone"
        names = self.kit.engine.scope.names
        assert set(names) <= {"prune dedupe keys", "timers"}, names
        for name, room in self.rooms.items():
            self.check_projection(name, room)

    def check_projection(self, name: str, room: ModelRoom) -> None:
        for event in self.run(self.kit.events(name, limit=10_000)):
            if event.id in self.texts:
                assert event.text == self.texts[event.id]

    # -- rules ----------------------------------------------------------------------------------------------------

    @initialize(seed=st.integers(0, 2**32))
    def first(self, seed: int) -> None:
        self.make("r0", [*TRANSPORTS, "ai"])
        self.bustle(seed)

    def make(self, name: str, channels: list[str]) -> None:
        self.before = {}
        self.rooms[name] = ModelRoom(seats={c: Seat() for c in channels})
        self.act(self.kit.create_room(name, channels=channels, delivery="every_channel"))
        self.check()

    @precondition(lambda self: "r1" not in self.rooms)
    @rule(channels=st.lists(CHANNELS, unique=True))
    def create(self, channels: list[str]) -> None:
        self.make("r1", channels)

    @rule(name=ROOMS, status=st.sampled_from(["closed", "active", "paused"]))
    def move(self, name: str, status: str) -> None:
        room = self.rooms.get(name)
        if room is None or room.status == status or (room.status, status) == ("closed", "paused"):
            return
        verb = {"closed": self.kit.close_room, "active": self.kit.reopen_room, "paused": self.kit.pause_room}[status]
        made = self.act(verb(name))
        room.status = status
        assert made.status == status
        self.check()

    @rule(name=ROOMS, channel=CHANNELS)
    def detach(self, name: str, channel: str) -> None:
        room = self.rooms.get(name)
        if room is None or channel not in room.seats:
            return
        self.before = {}
        self.act(self.kit.detach_channel(name, channel))
        del room.seats[channel]
        room.detached.add(channel)
        self.check()

    @rule(name=ROOMS, channel=CHANNELS)
    def attach(self, name: str, channel: str) -> None:
        room = self.rooms.get(name)
        if room is None or channel in room.seats:
            return
        try:
            self.act(self.kit.attach_channel(name, channel))
        except RoomClosed:
            assert room.status == "closed"
            return
        room.seats[channel] = Seat()
        room.detached.discard(channel)
        self.check()

    @rule(
        name=ROOMS,
        channel=CHANNELS,
        what=st.sampled_from([(kind, value) for kind, values in CHANGES for value in values]),
        then=st.sampled_from(["say", "say", "hear", "rest", ""]),
    )
    def seat(self, name: str, channel: str, what: tuple[str, Any], then: str) -> None:
        room = self.rooms.get(name)
        if room is None or channel not in room.seats:
            return
        kind, value = what
        match kind:
            case "access":
                call = self.kit.set_access(name, channel, Access(value))
            case "visibility":
                call = self.kit.set_visibility(name, channel, value)
            case _:
                verb = self.kit.mute if value else self.kit.unmute
                call = verb(name, channel, output=kind == "deaf")
        self.act(call)
        room.seats[channel] = Seat(**{**vars(room.seats[channel]), kind: value})
        self.check()
        # What has changed is tried at once: left to chance, few changes would ever be met by an event.
        if then == "say" and channel in TRANSPORTS:
            self.say(name, channel, "x", "all", None, 1)
        elif then:
            self.host(name, "all")
        if then == "rest":
            self.settle()

    @rule(
        name=ROOMS,
        channel=SENDERS,
        who=st.sampled_from("xy"),
        visibility=VISIBILITIES,
        key=st.none() | st.integers(0, 5),
        copies=st.integers(1, 3),
    )
    def say(self, name: str, channel: str, who: str, visibility: str, key: int | None, copies: int) -> None:
        room = self.rooms.get(name)
        if room is None:
            return
        self.count += 1
        text = f"text {self.count}"
        external = f"fresh {self.count}" if key is None else f"k{key}"
        message = InboundMessage.text(channel, who, text, visibility=visibility, external_id=external)
        known = self.acks.get((channel, external))
        results = self.act(self.together(message, name, copies))
        self.results += results
        first = results[0]
        if known is not None and first.event is not None:
            assert all(r.duplicate and (r.event.room_id, r.event.id) == known for r in results)
        elif room.status == "closed":
            assert all((r.event, r.reason) == (None, "room_closed") for r in results)
        else:
            assert len({r.event.id for r in results}) == 1
            assert sum(not r.duplicate for r in results) == 1
            self.took(room, channel, visibility, first.event, text)
            self.acks[channel, external] = (name, first.event.id)
        self.check()

    async def together(self, message: InboundMessage, name: str, copies: int) -> list[Any]:
        return list(await asyncio.gather(*(self.kit.process_inbound(message, room_id=name) for _ in range(copies))))

    def took(self, room: ModelRoom, channel: str, visibility: str, event: RoomEvent, text: str) -> None:
        if channel not in room.seats and channel not in room.detached:
            room.seats[channel] = Seat()
        seat = room.seats.get(channel)
        if seat is None:
            expected = "source_not_attached"
        elif seat.access not in WRITES:
            expected = "source_read_only"
        else:
            expected = "source_muted" if seat.muted else None
        assert event.blocked_by == expected
        assert event.text == text
        stamped = seat.visibility if visibility == "all" and seat is not None else visibility
        assert event.visibility == stamped
        self.acked.append(event)
        room.status = "active"

    @rule(name=ROOMS, visibility=VISIBILITIES)
    def host(self, name: str, visibility: str) -> None:
        room = self.rooms.get(name)
        if room is None:
            return
        result = self.act(self.kit.send(name, "from the host", visibility=visibility))
        self.results.append(result)
        if room.status == "closed":
            assert result.reason == "room_closed"
        else:
            self.acked.append(result.event)
            room.status = "active"
        self.check()

    @rule(
        name=ROOMS,
        channel=SENDERS,
        who=st.sampled_from("xy"),
        which=st.integers(0, 40),
        kind=st.sampled_from(["edit", "delete", "react"]),
    )
    def change(self, name: str, channel: str, who: str, which: int, kind: str) -> None:
        room, log = self.rooms.get(name), self.seen.get(name, [])
        if room is None or channel not in room.seats:
            return
        targets = [e for e in log if e.type is EventType.MESSAGE]
        if not targets:
            return
        target = targets[which % len(targets)]
        self.count += 1
        content: Any = {
            "edit": EditContent(target_event_id=target.id, new_content=TextContent(text=f"edit {self.count}")),
            "delete": DeleteContent(target_event_id=target.id),
            "react": ReactionContent(target_event_id=target.id, emoji="+"),
        }[kind]
        event_type = {"edit": EventType.EDIT, "delete": EventType.DELETE, "react": EventType.REACTION}[kind]
        message = InboundMessage(channel_id=channel, sender_id=who, content=content, type=event_type)
        seat = room.seats[channel]
        result = self.act(self.kit.process_inbound(message, room_id=name))
        self.results.append(result)
        if room.status == "closed":
            assert result.reason == "room_closed"
            return
        own = target.source.participant_id == f"sms:{who}" and channel == target.source.channel_id
        if not sees(channel, target, room.seats, f"sms:{who}"):
            assert result.reason == "target_event_not_found"
        elif kind != "react" and not own:
            assert result.reason == "not_original_author"
        elif kind == "edit" and self.texts.get(target.id) == "":
            assert result.reason == "target_event_deleted"
        elif result.reason == "wider_than_target":  # a seat that speaks to others than the original did
            assert result.event is None
        elif seat.access not in WRITES or seat.muted:
            assert result.blocked
        else:
            assert not result.blocked
            if kind == "edit" and self.texts.get(target.id) != "":
                self.texts[target.id] = f"edit {self.count}"
            elif kind == "delete":
                self.texts[target.id] = ""
        if result.event is not None:
            room.status = "active"
        self.check()

    @rule(name=ROOMS, who=st.sampled_from(["eve", "bob"]), force=st.booleans())
    def take_over(self, name: str, who: str, force: bool) -> None:
        room = self.rooms.get(name)
        if room is None:
            return
        try:
            self.act(self.kit.take_over(name, who, force=force, lease_s=1e8))
        except RoomClosed:
            assert room.status == "closed"
        except FloorTaken:
            assert room.holder not in (None, who)
            assert not force
        else:
            room.holder = who
            assert not self.kit.engine.turns.waiting() or len(self.rooms) > 1
        self.check()

    @rule(seed=st.integers(0, 2**32))
    def bustle(self, seed: int) -> None:
        """Many small things in a row, most of them words: single rules alone make for empty rooms."""
        chance = random.Random(seed)
        pick = chance.choice
        for _ in range(20):
            name, channel = pick(("r0", "r0", "r1")), pick((*TRANSPORTS, *BRAINS))
            sender, who, shown = pick(TRANSPORTS), pick("xy"), pick(SHOWN)
            match pick(("say", "say", "say", "seat", "seat", "wait", "host", "change", "mood", "watch", "rest")):
                case "say":
                    self.say(name, sender, who, shown, pick((None, None, 1, 2)), pick((1, 1, 2)))
                case "seat":
                    kind, values = pick(CHANGES)
                    self.seat(name, channel, (kind, pick(values)), pick(("say", "hear", "rest", "")))
                case "wait":
                    self.wait(pick((0.0, 0.05, 0.35, 0.9, 5.0)))
                case "host":
                    self.host(name, shown)
                case "change":
                    self.change(name, sender, who, chance.randrange(40), pick(("edit", "delete", "react")))
                case "mood":
                    self.change_mood(pick(BRAINS), pick(MOODS))
                case "watch":
                    self.watch(name, pick((None, *TRANSPORTS, *BRAINS)), pick((True, False)))
                case _:
                    self.rest()

    @rule(name=ROOMS)
    def release(self, name: str) -> None:
        room = self.rooms.get(name)
        if room is not None and room.status != "closed":
            self.act(self.kit.release(name, None, note="back to you"))
            room.holder = None
            self.check()

    @rule(name=ROOMS, who=st.sampled_from([None, *TRANSPORTS, *BRAINS]), again=st.booleans())
    def watch(self, name: str, who: str | None, again: bool) -> None:
        if name not in self.rooms:
            return
        old = next((w for w in self.watches if w.room == name and w.who == who), None)
        after = old.index if old is not None and again else None
        if old is not None:
            old.close()
            self.watches.remove(old)
        items: list[Any] = []
        view = self.act(self.kit.open_view(name, INTERNAL if who is None else who, items.append, after=after, tail=5))
        self.before = {}
        log = self.log(name)
        start = max(0, view.index - 4) if after is None else after + 1
        seats = self.rooms[name].seats
        expected = [e.id for e in log[start : view.index + 1] if sees(who, e, seats)]
        assert [e.id for e in view.events] == expected
        fresh = Watch(name, who, items, view.close, view.index)
        fresh.streams = {start.stream_id: len(text) for start, text in view.streams}
        self.watches.append(fresh)
        self.check()

    @rule(name=ROOMS, who=st.sampled_from([None, *TRANSPORTS]))
    def look_away(self, name: str, who: str | None) -> None:
        for watch in [w for w in self.watches if w.room == name and w.who == who]:
            watch.close()
            self.watches.remove(watch)

    @rule(brain=st.sampled_from(BRAINS), mood=st.sampled_from(MOODS))
    def change_mood(self, brain: str, mood: str) -> None:
        self.mood[brain] = mood

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.35, 0.9, 5.0]))
    def wait(self, seconds: float) -> None:
        self.act(asyncio.sleep(seconds))
        self.check()

    @rule()
    def rest(self) -> None:
        self.settle()

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        for watch in self.watches:
            watch.close()
        self.watches.clear()
        self.restarted = True
        survivor = copy.deepcopy(self.store) if crash else self.store
        self.act(self.kit.aclose())
        assert all(result.settlement.done for result in self.results), "somebody waits for a kit that has closed"
        self.results.clear()
        self.store = survivor
        old = self.outs
        self.act(self.begin())
        for name, out in self.outs.items():
            out.delivered[:0] = old[name].delivered
            out.attempts[:0] = old[name].attempts
        self.check()

    def teardown(self) -> None:
        try:
            self.settle()
            self.run(self.kit.aclose())
            self.run(asyncio.sleep(0))
            assert [t for t in asyncio.all_tasks(self.loop) if not t.done()] == []
        finally:
            self.loop.close()


@pytest.mark.time_limit(240)
def test_a_kit_keeps_its_promises() -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=150,
            stateful_step_count=30,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
