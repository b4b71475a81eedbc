"""People: phones whose vendor repeats what was not acknowledged, and pages that resume."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roomkit.errors import RoomKitError
from roomkit.models.access import Principal, PrincipalRole
from roomkit.models.content import DeleteContent, EditContent, ReactionContent, TextContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.room import FloorMode
from roomkit.protocols.room_socket import ClientSession
from roomkit.protocols.room_socket.messages import (
    Ack,
    EventFrame,
    Nack,
    Resumed,
    ServerFrame,
    Snapshot,
    StreamChunkFrame,
    StreamEndFrame,
    StreamErrorFrame,
    StreamStartFrame,
)
from roomkit.testing.simulation.process import Lost, Process
from roomkit.testing.simulation.wire import Wire

if TYPE_CHECKING:
    from roomkit.core.results import InboundResult
    from roomkit.testing.simulation.world import World

Spot = tuple[str, str]
"""(tenant, room)."""


@dataclass(slots=True)
class Said:
    """One message of a client, from its first sending to its first acknowledgement."""

    who: str
    tenant: str
    channel: str
    key: str
    word: str
    sent_at: float
    acked_at: float | None = None
    room: str = ""
    index: int = -1
    event_id: str = ""
    refused: str = ""
    silent: bool = False
    """Its event carries no words."""
    answers: set[tuple[str, int, str]] = field(default_factory=set[tuple[str, int, str]])


class Phone:
    """Writes through an outbox channel; its vendor brings every webhook until it is acknowledged, and some again."""

    def __init__(self, world: World, name: str, spot: Spot, channel: str, dice: random.Random) -> None:
        self.world = world
        self.name = name
        self.spot = spot
        self.channel = channel
        self.dice = dice
        first = not any((other.spot[0], other.channel) == (spot[0], channel) for other in world.phones)
        self.prefix = "m" if first else f"{name}m"
        self.said: list[Said] = []
        self.done = False
        """It will not write again, and nothing of it will be brought again."""

    async def live(self, messages: int) -> None:
        dice, mine = self.dice, self.said
        for number in range(messages):
            await self.world.nap(dice)
            # Numbered alike on every channel and in every tenant: the ids must not meet.
            key, word = f"{self.prefix}{number}", f"<{self.name}.{number}>"
            content: Any = TextContent(text=f"{word} says {self.name}")
            known = [one for one in mine if one.event_id]
            if known and dice.random() < 0.35:
                content = self._about(dice.choice(known), word)
            said = Said(self.name, self.spot[0], self.channel, key, word, self.world.loop.time())
            said.silent = isinstance(content, DeleteContent | ReactionContent)
            mine.append(said)
            self.world.said.append(said)
            message = InboundMessage(channel_id=self.channel, sender_id=f"+{self.name}", content=content)
            message = message.replaced(external_id=key)
            twice = dice.random() < 0.2
            if twice:
                await asyncio.gather(self._bring(said, message), self._bring(said, message))
            else:
                await self._bring(said, message)
            if isinstance(content, DeleteContent | EditContent) and said.event_id and not said.refused:
                target = next(one for one in mine if one.event_id == content.target_event_id)
                self.world.gone.append((target.word, self.world.loop.time()))
        for said in mine:
            if dice.random() < 0.3:  # The vendor never heard our yes, or forgot that it did.
                await self.world.nap(dice)
                await self._repeat(said)
        self.done = True

    async def again(self) -> None:
        """Long after, its vendor brings what it had brought first."""
        kept = [said for said in self.said if said.event_id and not said.refused]  # What was refused would be new.
        if kept:
            await self._repeat(kept[0])

    async def _repeat(self, said: Said) -> None:
        text = TextContent(text=f"{said.word} says {self.name}")
        again = InboundMessage(channel_id=self.channel, sender_id=f"+{self.name}", content=text)
        await self._bring(said, again.replaced(external_id=said.key))

    def _about(self, target: Said, word: str) -> Any:
        match self.dice.randrange(3):
            case 0:
                return EditContent(target_event_id=target.event_id, new_content=TextContent(text=f"{word} instead"))
            case 1:
                return DeleteContent(target_event_id=target.event_id)
            case _:
                return ReactionContent(target_event_id=target.event_id, emoji="+1")

    async def _bring(self, said: Said, message: InboundMessage) -> None:
        tenant, room = self.spot
        while True:
            await self.world.hop(self.dice)
            process = self.world.door(self.dice)
            call = self._once(process, tenant, room, message) if process is not None else None
            answer = await call if call is not None else None
            if answer is not None and (self.world.calm or self.dice.random() >= 0.1):
                note_answer(self.world, said, answer)
                return
            await self.world.pause(self.dice)

    async def _once(self, process: Process, tenant: str, room: str, message: InboundMessage) -> InboundResult | None:
        rooms = self.world.rooms(process, tenant)
        try:
            call = process.ask(rooms.process_inbound, message, room_id=room)
            if not self.world.calm and self.dice.random() < 0.05:
                return await asyncio.wait_for(call, self.dice.choice((0.0, 0.01, 0.1)))
            return await call
        except (Lost, RoomKitError, TimeoutError):
            return None


def note_answer(world: World, said: Said, result: InboundResult) -> None:
    """What a client was told about its message."""
    now = world.loop.time()
    event = result.event
    if event is None:
        if not result.blocked:
            world.wrong.append(f"{said.word} was acknowledged, and there is no event")
        said.refused = said.refused or str(result.reason)
        world.trace(said.who, f"{said.word} is refused: {result.reason}")
        return
    said.answers.add((event.room_id, event.index, event.id))
    if said.acked_at is None:
        said.acked_at, said.room, said.index, said.event_id = now, event.room_id, event.index, event.id
        said.refused = str(result.reason or "blocked") if result.blocked else ""
    more = " again" if result.duplicate else ""
    world.trace(said.who, f"{said.word} is acknowledged{more} at {event.room_id}[{event.index}]")


@dataclass(slots=True)
class Span:
    """What one observer got from one snapshot on: (index, id, prev). `prev` is None where nothing was claimed."""

    name: str
    spot: Spot
    staff: bool
    seen: list[tuple[int, str, int | None]] = field(default_factory=list[tuple[int, str, "int | None"]])
    who: str = ""
    start: int = -1
    """The index up to which the snapshot told everything."""


class Page:
    """A browser: a room socket client which dies, comes back and goes on where it was."""

    def __init__(self, world: World, name: str, spot: Spot, staff: bool, dice: random.Random) -> None:
        self.world = world
        self.name = name
        self.spot = spot
        self.staff = staff
        self.dice = dice
        self.session = ClientSession(spot[1], tail=dice.choice((5, 50)))
        role = PrincipalRole.SUPERVISOR if staff else PrincipalRole.GUEST
        self.principal = Principal(id=name, role=role, tenant=spot[0], room_id=None if staff else spot[1])
        self.spans: list[Span] = []
        self.wire: Wire | None = None
        self.ends: dict[str, int] = {}
        """Stream -> how many terminal frames came for it."""
        self.texts: dict[str, str] = {}
        """Event -> its text as this page knows it."""
        self.open: dict[str, str] = {}
        self.shown: dict[str, tuple[Process, list[tuple[float, str]]]] = {}
        """Stream -> who told it, and how it grew."""
        self.views: list[tuple[float, float, frozenset[str]]] = []
        """When it asked for one, when it had it, and which replies were growing in it."""
        self.stalled = False
        self.nets: dict[str, int] = {}
        self._asked_at = 0.0
        self._human = False
        self._ended_here: set[str] = set()
        self.wrong: list[str] = []
        self._said: dict[str, Said] = {}

    async def live(self, messages: int) -> None:
        dice = self.dice
        left = messages
        for _ in range(1 + dice.randrange(3)):
            await self.world.nap(dice)
            if not await self.connect():
                continue
            for _ in range(1 + dice.randrange(3)):
                await self.world.nap(dice)
                if left and dice.random() < 0.7:
                    left -= 1
                    self.write(messages - left)
                if dice.random() < 0.15 and self.wire is not None:
                    self.wire.stall(True)
                    self.stalled = True
            if dice.random() < 0.8 and self.wire is not None:
                self.world.trace(self.name, "breaks off")
                self.wire.close()

    def write(self, number: int) -> None:
        word = f"<{self.name}.{number}>"
        said = Said(self.name, self.spot[0], "web", f"c{number}", word, self.world.loop.time())
        self._said[said.key] = said
        self.world.said.append(said)
        self.session.send(said.key, f"{word} says {self.name}")
        self._flush()

    async def connect(self) -> bool:
        process = self.world.door(self.dice)
        if process is None:
            await self.world.pause(self.dice)
            return False
        if self.wire is not None:
            self.wire.close()
        self.wire = Wire(process, self.principal, self.dice, self.hear)
        self._ended_here.clear()
        self._asked_at = self.world.loop.time()
        self.session.connected(None)
        return True

    @property
    def through(self) -> bool:
        """It is connected, and nothing of its own is under way."""
        return self.wire is not None and self.wire.open and self.session.live and not self.session.unacknowledged

    async def settle(self) -> None:
        """Stays connected, and caught up, once everything is calm."""
        for tries in range(40):
            refused = tries % 8 == 7 and not self.session.live  # Its join was refused: it comes back.
            if self.wire is None or not self.wire.open or refused:
                await self.connect()
            if self.wire is not None:
                self.wire.stall(False)
            if self.through:
                return
            await asyncio.sleep(0.5)
            for client_id in tuple(self.session.unacknowledged):
                self.session.resend(client_id)
            self._flush()
        self.wrong.append(f"{self.name} never got through: {list(self.session.unacknowledged)}")

    def hear(self, text: str) -> None:
        session = self.session
        was_live, before = session.live, session.position
        frames = session.receive(text)
        if not frames and text.startswith(('{"type":"event"', '{"type":"stream_end"')) and was_live:
            self._net("frames that the client had to drop", text)
        for frame in frames:
            self._take(frame, before)
        self._flush()

    def _take(self, frame: ServerFrame, before: int) -> None:
        match frame:
            case Snapshot():
                span = Span(f"{self.name}#{len(self.spans)}", self.spot, self.staff, who=self.name, start=frame.index)
                self.spans.append(span)
                self.world.trace(self.name, f"sees {len(frame.events)} events up to {frame.index}")
                for event in frame.events:
                    self._see(event, None)
                self._streams(frame)
            case Resumed():
                self.world.trace(self.name, f"resumes after {frame.from_index} up to {frame.index}")
                for event in frame.events:
                    self._see(event, None)
                self._streams(frame)
            case EventFrame():
                self._see(frame.event, before)
            case StreamEndFrame():
                self._see(frame.event, before)
                self._ended(frame.stream_id, frame.event["content"].get("text", ""))
            case Ack() | Nack(retry_after=None):
                self._answered(frame)
            case StreamStartFrame() | StreamChunkFrame() | StreamErrorFrame():
                self._stream(frame)
            case _:
                pass

    def _stream(self, frame: StreamStartFrame | StreamChunkFrame | StreamErrorFrame) -> None:
        stream_id = frame.stream_id
        if isinstance(frame, StreamChunkFrame):
            self._grow(stream_id, frame.delta)
        elif isinstance(frame, StreamErrorFrame):
            self.world.trace(self.name, f"loses stream {stream_id[-6:]}: {frame.error}")
            self._ended(stream_id, None)
        else:
            if stream_id in self.open or stream_id in self.ends:
                self.wrong.append(f"{self.name} saw stream {stream_id} begin twice")
            self.open[stream_id] = ""

    def _answered(self, frame: Ack | Nack) -> None:
        said = self._said.get(frame.client_id)
        if said is None:
            return
        if isinstance(frame, Nack):
            said.refused = frame.code
            self.world.trace(self.name, f"{said.word} is refused: {frame.code}")
            return
        room = self.spot[1]
        said.answers.add((room, frame.index, frame.event_id))
        if said.acked_at is None:
            said.acked_at, said.room = self.world.loop.time(), room
            said.index, said.event_id = frame.index, frame.event_id
        self.world.trace(self.name, f"{said.word} is acknowledged at {room}[{frame.index}]")

    def _streams(self, frame: Snapshot | Resumed) -> None:
        """A view says which replies are in the making now; those that are not among them ended unseen."""
        self._floor(frame.room.get("floor", {}).get("mode"))
        now = {stream.stream_id: stream.text for stream in frame.streams}
        self.views.append((self._asked_at, self.world.loop.time(), frozenset(now)))
        for stream_id in now:
            if stream_id in self.ends:
                self.wrong.append(f"{self.name} was shown stream {stream_id} again after its end")
        self.open = now

    def _floor(self, mode: object) -> None:
        self._human = mode in (FloorMode.HUMAN, FloorMode.WAITING)

    def _grow(self, stream_id: str, delta: str) -> None:
        if stream_id in self.open and self.wire is not None:
            text = self.open[stream_id] = self.open[stream_id] + delta
            self.shown.setdefault(stream_id, (self.wire.process, []))[1].append((self.world.loop.time(), text))
            if self._human:
                self.wrong.append(f"{self.name} heard the AI go on with {delta!r} while a person has the floor")

    def _ended(self, stream_id: str, text: str | None) -> None:
        grown = self.open.pop(stream_id, None)
        self.ends[stream_id] = self.ends.get(stream_id, 0) + 1
        if stream_id in self._ended_here:
            self.wrong.append(f"{self.name} saw stream {stream_id} end {self.ends[stream_id]} times")
        self._ended_here.add(stream_id)
        # What is shown while a cut is being committed is not part of what was cut: the end replaces it (D18).
        if text is not None and grown is not None and not text.startswith(grown) and not grown.startswith(text):
            self.wrong.append(f"{self.name} saw stream {stream_id} grow to {grown!r}, and end as {text!r}")

    def _see(self, event: dict[str, Any], prev: int | None) -> None:
        span = self.spans[-1]
        index = event["index"]
        span.seen.append((index, event["id"], prev))
        if event["type"] == "floor_changed" and prev is not None:
            self._floor(event["content"]["data"]["mode"])
        text = event["content"].get("text")
        if text is not None and not event["metadata"].get("edited") and not event["metadata"].get("deleted"):
            self.texts[event["id"]] = text
        self.world.trace(self.name, f"sees {self.spot[1]}[{index}] {event['type']} {(text or '')[:20]!r}")

    def _flush(self) -> None:
        for text in self.session.data_to_send():
            if self.session.live and text.startswith('{"type":"join"'):
                self._net("gaps that the client had to mend by joining again", text)
            if self.wire is not None:
                self.wire.say(text)

    def _net(self, name: str, text: str) -> None:
        self.nets[name] = self.nets.get(name, 0) + 1
        self.world.trace(self.name, f"NET {name}: {text[:80]}")
