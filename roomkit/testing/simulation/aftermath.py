"""The verdict on what hosts have done with whole rooms and people: copies, erasures, consumers, newcomers, whispers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from roomkit.core.consumers import KIND as CURSOR
from roomkit.core.inbox import REFUSED
from roomkit.models.content import SystemContent
from roomkit.models.event import EventType, RoomEvent
from roomkit.ports.store import RecordQuery
from roomkit.testing.simulation.deeds import FORK

if TYPE_CHECKING:
    from roomkit.testing.simulation.world import World

Logs = dict[tuple[str, str], list[RoomEvent]]
LATE_S = 4.0
"""How long after somebody was erased a delivery of their words may still be under way."""
OWN_ROWS = ("participant", "binding", "outbox", "delivery", "mutation", "draft", "turn", "held", "dead", "identity")


def judge(world: World, logs: Logs, every: Logs) -> Iterator[str]:
    """`logs` are those of the rooms that people were in, `every` has the copies as well."""
    yield from _copies(world, logs, every)
    yield from _newcomers(world, logs)
    yield from _enqueued(world, logs)
    yield from _consumed(world)
    yield from _secrets(world)
    yield from _erasures(world, every)


def _copies(world: World, logs: Logs, every: Logs) -> Iterator[str]:
    """A copy is whole or no room; it says what the original says, and nothing leaves it."""
    for (tenant, room), copy in world.copies.items():
        where, rows = f"{tenant}/{room}", world.disk.read(RecordQuery("room", tenant, key=room))
        if not rows:
            continue
        origin = rows[0].value.get("forked_from")
        at = (copy.at or 0) if origin is None else int(origin["index"])
        old, new = logs[copy.source][: at + 1], every.get((tenant, room), [])
        if [event.index for event in new] != list(range(len(new))) or len(new) < len(old):
            yield f"{where} has {len(new)} events, {len(old)} were to be copied"
        for one, other in zip(old, new, strict=False):
            erased = one.metadata.get("erased") or other.metadata.get("erased")
            erased = erased or (world.erased and isinstance(one.content, SystemContent))  # What was asked is emptied.
            if not erased and (one.type, one.text, one.created_at) != (other.type, other.text, other.created_at):
                yield f"{where}[{other.index}] is {other.text!r}, the original is {one.text!r}"
        for vendor in world.vendors.values():
            if any((receipt.tenant, receipt.room) == (tenant, room) for receipt in vendor.receipts):
                yield f"{vendor.name} was sent something from the copy {where}"
        if room.startswith(FORK) and any((run.tenant, run.room) == (tenant, room) for run in world.runs):
            yield f"a tool ran in the fork {where}"


def _is_room(world: World, tenant: str, room_id: str) -> bool:
    return bool(world.disk.read(RecordQuery("room", tenant, key=room_id)))


def _newcomers(world: World, logs: Logs) -> Iterator[str]:
    """One room each, however many first words came at once."""
    # An attempt that its caller gave up may leave a room in which nothing was said.
    opened = [spot for spot, log in logs.items() if spot not in world.spots and any(event.text for event in log)]
    for one in world.newcomers:
        if len(one.rooms) > 1:
            yield f"the first words of {one.name} opened {sorted(one.rooms)}"
    if len(opened) > len(world.newcomers):
        yield f"{len(world.newcomers)} newcomers opened {opened}"


def _enqueued(world: World, logs: Logs) -> Iterator[str]:
    """Each once, in the order of their transactions."""
    refused = {
        row.value["content"]["text"].split()[0] for row in world.disk.read(RecordQuery(REFUSED, None, limit=1000))
    }
    last: dict[tuple[int, tuple[str, str]], tuple[str, int]] = {}
    for process, spot, key, word in world.enqueued:
        found = [event.index for event in logs[spot] if event.type is EventType.MESSAGE and word in event.text]
        if len(found) != 1 and word not in refused:
            yield f"{word}, enqueued for {spot}, is stored {len(found)} times"
        before = last.get((process, spot), ("", -1))
        if (
            found and before[0] < key and found[0] < before[1]
        ):  # Two that were written side by side may come as they do.
            yield f"{word} is stored at {spot}[{found[0]}], before what was enqueued earlier"
        if found:
            last[process, spot] = (key, found[0])


def behind(world: World) -> list[tuple[str, str, int]]:
    """Events that the consumer has not done: (tenant, room, index)."""
    if "shop" not in world.features:
        return []
    done = {(one.tenant, one.room, one.index) for one in world.consumed}
    tenants = sorted({tenant for tenant, _ in world.spots})
    heads = [head for tenant in tenants for head in world.disk.read(RecordQuery("head", tenant, limit=1000))]
    places = [(head.tenant, head.key, index) for head in heads for index in range(head.value["next_index"])]
    return [one for one in places if one not in done and (one[0], one[1]) not in world.copies]


def _consumed(world: World) -> Iterator[str]:
    """Every event at least once, in the order of its room, and never again by a process that has begun after that was
    durable."""
    for place in behind(world):
        yield f"the consumer never got {place}"
    done: dict[tuple[str, str], int] = defaultdict(lambda: -1)
    durable: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for at, _, batch in world.disk.batches:
        for put in batch.put:
            if put.kind == CURSOR:
                durable[put.tenant, put.value["room_id"]].append((at, put.value["index"]))
    for one in world.consumed:
        room, where = (one.tenant, one.room), f"{one.tenant}/{one.room}[{one.index}]"
        if one.index > done[room] + 1:
            yield f"the consumer got {where} after [{done[room]}]"
        done[room] = max(done[room], one.index)
        born = world.processes[one.life].born
        if any(at < born and index >= one.index for at, index in durable[room]):
            yield f"the consumer got {where} again from process {one.life}, which began after that was noted"


def _secrets(world: World) -> Iterator[str]:
    """Words for one person reach nobody else: no machine, no other page. (What pages saw is part of the history.)"""
    for word, (spot, who) in world.secrets.items():
        if word in world.model.asked:
            yield f"the model was shown {word}, which was for {who} in {spot} alone"
        for vendor in world.vendors.values():
            if any(word in receipt.text for receipt in vendor.receipts):
                yield f"{vendor.name} got {word}, which was for {who} in {spot} alone"


def _erasures(world: World, every: Logs) -> Iterator[str]:
    """Of who was erased there are places in the log, and nothing else."""
    for phone, since in world.erased:
        tenant, address, words = phone.spot[0], f"+{phone.name}", {said.word for said in phone.said}
        mine = {said.event_id for said in phone.said if said.event_id}
        for (owner, room), log in every.items():
            for event in log if owner == tenant else ():
                if event.id in mine and not event.metadata.get("erased"):
                    yield f"{owner}/{room}[{event.index}] of {phone.name} is still {event.text!r}"
        for kind in OWN_ROWS:
            for row in world.disk.read(RecordQuery(kind, tenant, limit=10_000)):
                if (tenant, row.room_id) in world.copies and not _is_room(world, tenant, str(row.room_id)):
                    continue  # A copy that was cut or refused is no room: nobody can read it.
                told = json.dumps(row.value)
                if f'"{address}"' in told or any(word in told for word in words):
                    yield f"the {kind} row {row.key!r} still tells of {phone.name}"
        for vendor in world.vendors.values():
            for receipt in vendor.receipts:
                if receipt.event_id in mine and receipt.at > since + LATE_S:
                    yield f"{vendor.name} got what {phone.name} wrote at {receipt.at:.3f}, erased at {since:.3f}"
