"""What people at a desk, hosts and newcomers do in rooms, and what the judge needs to know of it afterwards."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roomkit.core.inbox import KIND as INBOX
from roomkit.errors import RoomKitError, StateError, StoreUnavailable
from roomkit.models.content import TextContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import RoomEvent
from roomkit.models.room import FloorMode
from roomkit.ports.store import Record, RecordQuery
from roomkit.testing.simulation.clients import Phone, Said, Spot, note_answer
from roomkit.testing.simulation.outside import ASKING
from roomkit.testing.simulation.process import Lost, Process, alive
from roomkit.testing.simulation.rights import HOLD_S, NOTE, PROPOSAL, is_allowed

if TYPE_CHECKING:
    from roomkit.rooms import Rooms
    from roomkit.testing.simulation.world import World

TRIES = 100
ATTIC = "attic"
"""The tenant into which rooms are imported."""
FORK, COPY = "fork-", "copy-"


class Desk:
    """A supervisor: takes the floor, releases it, answers approvals, mutes, closes, writes."""

    def __init__(self, world: World, name: str, spots: list[Spot], dice: random.Random) -> None:
        self.world = world
        self.name = name
        self.spots = spots
        self.dice = dice

    async def live(self, deeds: int) -> None:
        for number in range(deeds):
            await self.world.nap(self.dice)
            tenant, room = self.dice.choice(self.spots)
            if self.dice.random() < 0.3:
                await self.write(tenant, room, number)
            elif self.world.more and self.dice.random() < 0.5:
                await self.more(tenant, room, number)
            else:
                await self.do(tenant, room)

    async def do(self, tenant: str, room: str) -> None:
        process = self.world.door(self.dice)
        if process is None:
            return
        rooms = self.world.rooms(process, tenant)
        name = self.dice.choice(self.world.deeds)
        deed = DEEDS[name]
        try:
            await process.ask(deed, rooms, room, self.name)
            self.world.trace(self.name, f"did {name} in {tenant}/{room}")
        except (Lost, RoomKitError) as error:
            self.world.trace(self.name, f"could not {name} in {tenant}/{room}: {type(error).__name__}")

    async def more(self, tenant: str, room: str, number: int) -> None:
        process = self.world.door(self.dice)
        if process is None:
            return
        name = self.dice.choice(self.world.more)
        try:
            await MORE[name](self.world, process, (tenant, room), f"{self.name}.{number}")
            self.world.trace(self.name, f"did {name} in {tenant}/{room}")
        except (Lost, RoomKitError) as error:
            self.world.trace(self.name, f"could not {name} in {tenant}/{room}: {type(error).__name__}: {error}")

    async def write(self, tenant: str, room: str, number: int) -> None:
        """A host that repeats under one key what it is not sure of, or has no key and does not."""
        word = f"<{self.name}.{number}>"
        keyless = "keyless" in self.world.features and number % 2 == 0
        said = Said(self.name, tenant, "host", f"{self.name}-{number}", word, self.world.loop.time())
        self.world.said.append(said)
        for _ in range(TRIES):
            process = self.world.door(self.dice)
            if process is not None:
                rooms = self.world.rooms(process, tenant)
                try:
                    key = None if keyless else said.key
                    call = process.ask(rooms.send, room, f"{word} says", by=self.name, idempotency_key=key)
                    note_answer(self.world, said, await call)
                    return
                except (Lost, StoreUnavailable, StateError):
                    if keyless:
                        return
            await self.world.pause(self.dice)


Deed = Callable[["Rooms", str, str], Awaitable[Any]]


async def _answer(rooms: Rooms, room: str, who: str) -> None:
    for asked in await rooms.approvals(room):
        await rooms.answer_approval(asked["id"], len(asked["id"]) % 2 == 0 or "7" in asked["id"], by=who, room_id=room)


async def _hold(rooms: Rooms, room: str, who: str) -> None:
    await rooms.take_over(room, who, force=True, lease_s=HOLD_S)
    await asyncio.sleep(0.6 * HOLD_S)
    await rooms.note(room, NOTE, who)


async def _draft(rooms: Rooms, room: str, who: str) -> None:
    made = await rooms.draft(room, f"{PROPOSAL} {who}", by=who)
    await rooms.settle_draft(room, made.id, is_allowed(made.id), by=who)


DEEDS: dict[str, Deed] = {
    "answer": _answer,
    "take over": lambda rooms, room, who: rooms.take_over(room, who, force=True),
    "hold": _hold,
    "release": lambda rooms, room, _: rooms.release(room, None, note="yours"),
    "wait": lambda rooms, room, _: rooms.set_floor(room, FloorMode.WAITING),
    "call": lambda rooms, room, who: rooms.request_human(room, "help", by=who),
    "mute": lambda rooms, room, who: rooms.mute(room, "ai", by=who),
    "unmute": lambda rooms, room, who: rooms.unmute(room, "ai", by=who),
    "close": lambda rooms, room, who: rooms.close_room(room, by=who),
    "reopen": lambda rooms, room, who: rooms.reopen_room(room, by=who),
    "pause": lambda rooms, room, who: rooms.pause_room(room, by=who),
    "note": lambda rooms, room, who: rooms.note(room, NOTE, who),
    "whisper": lambda rooms, room, who: rooms.whisper(room, "be kind", to="ai", by=who),
    "draft": _draft,
}


# -- deeds that leave something for the judge to look for ------------------------------------------------------------


@dataclass(slots=True)
class Copy:
    """A fork or an import of a room. `at`: its last event that is of the original, where that is known."""

    source: Spot
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Consumed:
    """A consumer has done an event."""

    at: float
    life: int
    tenant: str
    room: str
    index: int


More = Callable[["World", Process, Spot, str], Awaitable[None]]


async def _fork(world: World, process: Process, spot: Spot, name: str) -> None:
    tenant, room = spot
    rooms, new_id = world.rooms(process, tenant), f"{FORK}{name}"
    copy = world.copies.setdefault((tenant, new_id), Copy(spot))
    ask = "ai" if world.with_ai and name[-1] in "02" else None
    made = await process.ask(rooms.fork, room, new_id=new_id, ask=ask)
    assert made.forked_from is not None
    copy.at = made.forked_from.index


async def _import(world: World, process: Process, spot: Spot, name: str) -> None:
    """Into another tenant; again where it was cut."""
    rooms, new_id = world.rooms(process, spot[0]), f"{COPY}{name}"

    async def export() -> list[str]:
        return [line async for line in rooms.export_room(spot[1])]

    lines = await process.ask(export)
    at = json.loads(lines[0])["roomkit"]["events"] - 1
    world.copies[ATTIC, new_id] = Copy(spot, at)
    for _ in range(TRIES):
        other = world.door(world.tool_dice)
        if other is not None:
            try:
                await other.ask(world.rooms(other, ATTIC).import_room, lines, room_id=new_id)
                return
            except (Lost, StoreUnavailable):
                pass
        await world.pause(world.tool_dice)


async def _enqueue(world: World, process: Process, spot: Spot, name: str) -> None:
    """In a transaction of the host's own, which may be rolled back."""
    word, transaction = f"<{name}.q>", dict[str, Record]()
    rooms = world.rooms(process, spot[0])
    await process.ask(rooms.enqueue, transaction, spot[1], f"{word} says", by=name)
    if world.tool_dice.random() < 0.8:
        world.disk.write_for_host(transaction["row"])
        world.enqueued.append((process.number, spot, transaction["row"].key, word))


async def _tell(world: World, process: Process, spot: Spot, name: str) -> None:
    """Words for one person who sits at a page."""
    rooms = world.rooms(process, spot[0])
    people = [one.id for one in await process.ask(rooms.participants, spot[1]) if one.id.startswith("g")]
    if people:
        word = f"<{name}.w>"
        world.secrets[word] = (spot, people[0])
        await process.ask(rooms.whisper, spot[1], f"{word} says", to=f"person:{people[0]}", by=name)


async def _permit(rooms: Rooms, room: str, who: str) -> None:
    await rooms.take_over(room, who, force=True)
    for asked in await rooms.approvals(room):
        await rooms.answer_approval(asked["id"], True, by=who, room_id=room)
    await rooms.release(room)


ASKED: tuple[Deed, ...] = (_permit, _permit, DEEDS["answer"], DEEDS["close"])


class Clerk:
    """Is there when a machine asks for something, or says it."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self.world = world
        self.dice = dice

    async def live(self, looks: int) -> None:
        for _ in range(looks):
            await asyncio.sleep(0.5 * self.dice.random())
            spot = self.dice.choice(self.world.spots)
            if self._is_there("approval", spot, ("approval:pending",)):
                await self._do(spot, self.dice.choice(ASKED))
            elif self._is_there("stream", spot) and self.dice.random() < 0.1:
                await self._do(spot, DEEDS["mute"])

    def _is_there(self, kind: str, spot: Spot, terms: tuple[str, ...] = ()) -> bool:
        return bool(self.world.disk.read(RecordQuery(kind, spot[0], room_id=spot[1], terms=terms, limit=1)))

    async def _do(self, spot: Spot, deed: Deed) -> None:
        process = self.world.door(self.dice)
        if process is not None:
            with suppress(Lost, RoomKitError):
                await process.ask(deed, self.world.rooms(process, spot[0]), spot[1], "clerk")


MORE: dict[str, More] = {"fork": _fork, "import": _import, "enqueue": _enqueue, "tell": _tell}


async def forget(world: World, phone: Phone, dice: random.Random) -> None:
    """Has whoever wrote from this phone erased, again and again until it is done."""
    while not phone.done:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.1)
    for _ in range(TRIES):
        await world.nap(dice)
        process = world.door(dice)
        if process is not None:
            try:
                await process.ask(world.rooms(process, phone.spot[0]).erase_person, f"+{phone.name}")
            except (Lost, RoomKitError) as error:
                world.trace("host", f"could not erase {phone.name}: {type(error).__name__}: {error}")
            else:
                now = world.loop.time()
                world.trace("host", f"has erased {phone.name}")
                world.erased.append((phone, now))
                world.gone += [(said.word, now) for said in phone.said]
                return
        await world.pause(dice)


class Newcomer:
    """Writes to a number that belongs to no room yet, perhaps twice at once; a host answers in the room that this
    opens."""

    def __init__(self, world: World, name: str, tenant: str, dice: random.Random) -> None:
        self.world = world
        self.name = name
        self.tenant = tenant
        self.dice = dice
        self.rooms: set[str] = set()

    async def live(self, messages: int) -> None:
        await self.world.nap(self.dice)
        first = [self._write(number) for number in range(2)]
        await asyncio.gather(*first)
        for number in range(2, messages):
            await self.world.nap(self.dice)
            await self._write(number)

    async def _write(self, number: int) -> None:
        world, word = self.world, f"<{self.name}.{number}>"
        said = Said(self.name, self.tenant, "lobby", f"{self.name}{number}", word, world.loop.time())
        world.said.append(said)
        text = TextContent(text=f"{word} says")
        message = InboundMessage(channel_id="lobby", sender_id=f"+{self.name}", content=text, external_id=said.key)
        while said.acked_at is None:
            await world.hop(self.dice)
            process = world.door(self.dice)
            if process is not None:
                try:
                    result = await process.ask(world.rooms(process, self.tenant).process_inbound, message)
                except (Lost, RoomKitError):
                    pass
                else:
                    note_answer(world, said, result)
                    self.rooms.add(said.room)
                    continue
            await world.pause(self.dice)
        await self._answer(said)

    async def _answer(self, said: Said) -> None:
        process = self.world.door(self.dice)
        if process is not None:
            try:
                rooms = self.world.rooms(process, self.tenant)
                await process.ask(rooms.send, said.room, "welcome", by="host", idempotency_key=f"{said.key} answer")
            except (Lost, RoomKitError):
                pass


class Shop:
    """What the host does with every event, which fails at times."""

    def __init__(self, world: World, tenant: str, dice: random.Random) -> None:
        self.world = world
        self.tenant = tenant
        self.dice = dice

    async def take(self, event: RoomEvent) -> None:
        process, world = alive(), self.world
        await process.thawed()
        if not world.calm and self.dice.random() < 0.2:
            await asyncio.sleep(self.dice.choice((0.0, 0.01, 0.3)))
        alive()
        if not world.calm and self.dice.random() < 0.05:
            raise RuntimeError("the shop is closed")
        done = Consumed(world.loop.time(), process.number, event.tenant, event.room_id, event.index)
        world.consumed.append(done)
        world.trace("shop", f"p{process.number} has done {event.tenant}/{event.room_id}[{event.index}]")


def include(world: World, features: Iterable[str]) -> None:
    """What happens in this schedule beside what its dice say. To be called before it begins."""
    world.features |= frozenset(features)
    world.more = tuple(name for name in MORE if name in world.features)


def more_people(world: World) -> list[Coroutine[Any, Any, None]]:
    """Those whom the features bring along."""
    dice, lives = world.extra, list[Coroutine[Any, Any, None]]()

    def own() -> random.Random:
        return random.Random(world.dice.getrandbits(64))

    if "newcomer" in world.features:
        world.newcomers = [Newcomer(world, f"n{n}", dice.choice(world.spots)[0], own()) for n in range(2)]
        lives += [one.live(dice.choice((2, 3))) for one in world.newcomers]
    if "erase" in world.features:
        lives.append(forget(world, dice.choice(world.phones), own()))
    if ASKING in world.features and world.with_ai:
        lives.append(Clerk(world, own()).live(20))
    if world.more:
        lives.append(Desk(world, "d", world.spots, own()).live(4))
    return lives


class SimInbox:
    """A `HostInbox`: the row stands in the host's transaction, `{}` before and with the row in it after."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def insert(self, connection: Any, tenant: str, key: str, room_id: str, value: dict[str, Any]) -> None:
        connection["row"] = Record(INBOX, tenant, key, value, room_id)

    async def wait(self, seconds: float) -> None:
        await self._world.reach_disk(self._process)
        woken = self._world.loop.create_future()
        self._world.disk.inbox_waits.append(woken)
        await asyncio.wait([woken], timeout=seconds)

    async def aclose(self) -> None:
        pass
