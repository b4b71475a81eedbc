"""The power is cut at any moment of a kit's life on our SQLite store: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from proofs.disk import Disk, memory_folder
from proofs.kill9 import Proof
from roomkit import Channel, ChannelBinding, InboundMessage, RoomContext, RoomEvent, RoomKit, TextContent
from roomkit.cli.witness import read_room
from roomkit.errors import RoomNotFound
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.providers.sqlite import SQLiteOptions, SQLiteStore

TITLE = "power cut under our own SQLite store, at its default settings"
ROOMS = ("r0", "r1", "r2")
CUTS_A_LIFE = 20
HEAVY_EVERY = 8
"""One life in so many writes long texts, so that the log of changes is copied into the file in its midst."""
HEAVY_CHARS = 900_000
Synchronous = Literal["full", "normal"]


class Vendor(Channel):
    """Like SMS: what it was given is out in the world."""

    delivery_policy = DeliveryPolicy(idempotent=True)

    def __init__(self, disk: Disk | None = None) -> None:
        super().__init__("out", "sms")
        self._disk = disk
        self.sent: list[tuple[str, int, str]] = []

    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        told = (event.room_id, event.index, event.id)
        self.sent.append(told)
        if self._disk is not None:
            self._disk.mark(("sent", *told))
        return DeliveryResult(success=True, provider_message_id=event.id)


@dataclass(slots=True)
class Known:
    """What the outside world knows at one moment."""

    rooms: set[str] = field(default_factory=set[str])
    acks: dict[str, tuple[str, int, str]] = field(default_factory=dict[str, tuple[str, int, str]])
    sent: set[tuple[str, int, str]] = field(default_factory=set[tuple[str, int, str]])
    erased: set[str] = field(default_factory=set[str])
    """Messages whose words are gone for good."""

    def hear(self, marks: list[Any]) -> Known:
        known = Known(set(self.rooms), dict(self.acks), set(self.sent), set(self.erased))
        for kind, *told in marks:
            if kind == "room":
                known.rooms.add(told[0])
            elif kind == "ack":
                known.acks[told[0]] = (told[1], told[2], told[3])
            elif kind == "erased":
                known.erased.update(ident for ident in known.acks if ident.split("-")[1] == told[0])
            else:
                known.sent.add((told[0], told[1], told[2]))
        return known


async def prove(n: int, seed: int) -> Proof:
    """`n` cuts at the default setting; then a tenth at NORMAL, which must lose something, or this proof is blind."""
    proof, dice = Proof(), random.Random(seed)
    lost = await _cuts(proof, dice, n, "full")
    proof.wrong += lost[:20]
    proof.figures["lost"] = len(lost)
    full = dict(proof.figures)
    if not full["copied_in_the_midst"] and n >= HEAVY_EVERY * CUTS_A_LIFE:
        proof.wrong.append("blind: no life was long enough for its log to be copied into the file in its midst")
    control = Proof()
    lost = await _cuts(control, dice, max(20, n // 10), "normal")
    proof.figures = Counter(full)
    proof.figures["cuts_at_NORMAL"] = control.figures["cuts"]
    proof.figures["lost_at_NORMAL"] = len(lost)
    if not lost:
        proof.wrong.append("blind: at synchronous=NORMAL nothing acknowledged was lost, so a loss would not be seen")
    return proof


async def _cuts(proof: Proof, dice: random.Random, n: int, synchronous: Synchronous) -> list[str]:
    """Lives, each with some cuts; the next life goes on with what one of them left. Returns what was lost."""
    lost: list[str] = []
    known, files = Known(), dict[str, bytes]()
    life = 0
    while proof.figures["cuts"] < n:
        heavy = life % HEAVY_EVERY == HEAVY_EVERY - 1
        if life % (2 * HEAVY_EVERY) == 0:
            known, files = Known(), {}
        with tempfile.TemporaryDirectory(prefix="roomkit-powercut-", dir=memory_folder()) as folder:
            disk = _laid(Path(folder), files)
            try:
                await _live(disk, life, dice, synchronous, heavy)
                cuts = min(CUTS_A_LIFE, n - proof.figures["cuts"])
                moments = dice.sample(range(len(disk.log)), cuts - 1)
                for at in (*sorted(moments), len(disk.log)):  # The last one when all is done, an erasure too.
                    found, then = disk.cut(at, dice), known.hear(disk.marks(at))
                    proof.figures["cuts"] += 1
                    proof.figures["acknowledged"] += len(then.acks)
                    proof.figures["erased"] += len(then.erased)
                    lost += [f"{synchronous}, life {life}, cut {at}: {one}" for one in await _judge(found, then)]
                known, files = (then, found) if not lost else (Known(), {})
            finally:
                disk.close()
            proof.figures["operations"] += len(disk.log)
            proof.figures["copied_in_the_midst"] += disk.copied("rooms.db")
        proof.figures["lives"] += 1
        life += 1
    return lost


def _laid(folder: Path, files: dict[str, bytes]) -> Disk:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return Disk(folder)


async def _live(disk: Disk, life: int, dice: random.Random, synchronous: Synchronous, heavy: bool) -> None:
    """A kit comes up on what there is, several people write at once, everything is delivered, the kit is closed."""
    store = SQLiteStore(disk.folder / "rooms.db", SQLiteOptions(synchronous=synchronous, connect=disk.connect))
    async with _kit(store, Vendor(disk)) as kit:
        for room_id in ROOMS:
            if await _found_or_made(kit, room_id):
                disk.mark(("room", room_id))

        async def write(person: int) -> None:
            for number in range(dice.randint(2, 8) if not heavy else 8):
                room_id, ident = dice.choice(ROOMS), f"{life}-{person}-{number}"
                text = _words(ident) + ("x" * HEAVY_CHARS if heavy else "")
                result = await kit.process_inbound(_message(ident, text), room_id=room_id)
                assert result.event is not None
                disk.mark(("ack", ident, room_id, result.event.index, result.event.id))
                if dice.random() < 0.5:
                    await result.settled()

        await asyncio.gather(*(write(person) for person in range(6)))
        if life % 2:
            person = str(dice.randrange(6))
            await kit.erase_person(_address(person))
            disk.mark(("erased", person))
            result = await kit.process_inbound(_message(f"{life}-9-0", "after that"), room_id=ROOMS[1])
            assert result.event is not None


def _kit(store: Any, vendor: Vendor) -> RoomKit:
    kit = RoomKit(store)
    kit.register_channel(Channel("in", "sms"))
    kit.register_channel(vendor)
    return kit


async def _found_or_made(kit: RoomKit, room_id: str) -> bool:
    try:
        await kit.get_room(room_id)
    except RoomNotFound:
        await kit.create_room(room_id, channels=["in", "out"])
    return True


def _words(ident: str) -> str:
    return f"the words of {ident}."


def _address(person: str) -> str:
    return f"+4470090000{person}"


def _message(ident: str, text: str) -> InboundMessage:
    """Message number n of a person in a life is "life-person-n"."""
    sender = _address(ident.split("-")[1])
    return InboundMessage(channel_id="in", sender_id=sender, content=TextContent(text=text), external_id=ident)


async def _judge(files: dict[str, bytes], known: Known) -> list[str]:
    """Power is back: an ordinary kit comes up on what was left. What is not as it was promised."""
    wrong: list[str] = []
    vendor = Vendor()
    with tempfile.TemporaryDirectory(prefix="roomkit-powercut-", dir=memory_folder()) as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        db = Path(folder) / "rooms.db"
        try:
            async with _kit(f"sqlite:///{db}", vendor) as kit:
                for room_id in ROOMS:
                    try:
                        await kit.get_room(room_id)
                    except RoomNotFound:
                        if room_id in known.rooms:
                            return [f"room {room_id} is gone"]
                        await kit.create_room(room_id, channels=["in", "out"])
                wrong += await _say_again(kit, known)
        except Exception as error:  # noqa: BLE001 - whatever keeps the kit from coming up is the finding
            return [f"no kit comes up on it: {type(error).__name__}: {error}"]
        stored = {room_id: read_room(db, room_id) for room_id in ROOMS}
    places: dict[str, dict[int, str]] = defaultdict(dict)
    for room_id, one in stored.items():
        places[room_id] = {event["index"]: event["id"] for event in one.events}
        if one.integrity != "ok":
            wrong.append(f"the file is damaged: {one.integrity}")
        if list(places[room_id]) != list(range(one.next_index)) or not all(event["agrees"] for event in one.events):
            wrong.append(f"the log of {room_id} has a gap, or an event is not what its row says")
        wrong += [f"{count} {kind} rows are left open in {room_id}" for kind, count in one.unsettled.items()]
    kept = " ".join(str(event["content"]) for one in stored.values() for event in one.events)
    wrong += [f"the erased words of {ident} are back in the log" for ident in known.erased if _words(ident) in kept]
    for name, data in files.items():
        back = [ident for ident in known.erased if _words(ident).encode() in data]
        wrong += [f"the erased words of {ident} are still in {name}" for ident in back]
    told = {*known.acks.values(), *known.sent}
    wrong += [
        f"{event} was told and is not at {room}[{at}]" for room, at, event in told if places[room].get(at) != event
    ]
    sent = known.sent.union(vendor.sent)
    wrong += [f"{told} was acknowledged and never delivered" for told in known.acks.values() if told not in sent]
    return wrong


async def _say_again(kit: RoomKit, known: Known) -> list[str]:
    """A vendor who calls again hears of the first event; a new message gets the next place; both have one effect."""
    wrong: list[str] = []
    for ident, (room_id, index, event_id) in list(known.acks.items())[-3:]:
        result = await kit.process_inbound(_message(ident, "again"), room_id=room_id)
        if not result.duplicate or result.event is None or (result.event.id, result.event.index) != (event_id, index):
            wrong.append(f"message {ident} had a second effect")
    result = await kit.process_inbound(_message("new-9-0", "after the cut"), room_id=ROOMS[0])
    await result.settled()
    return wrong if result.event is not None and not result.duplicate else [*wrong, "nothing can be written any more"]
