"""Reach once: when a message fails or stays unread on the chosen way to a person, the next way is tried (D28)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from roomkit.core.actor import Change, delivery_record, outbox_row
from roomkit.core.lanes import Item
from roomkit.core.outgoing import tell
from roomkit.core.policy import may_see
from roomkit.core.results import CURRENT
from roomkit.core.state import event_key
from roomkit.errors import StateError
from roomkit.models.delivery import DeliveryRecord, DeliveryState, DeliveryStatus
from roomkit.models.event import RoomEvent
from roomkit.ports.store import Batch, EventQuery, Record, RecordKey, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor


def next_way(actor: RoomActor, event: RoomEvent, channel_id: str) -> str | None:
    """The way to the same person that comes after `channel_id`: where they were last, then in order of seating."""
    failed = actor.state.bindings.get(channel_id)
    if failed is None or failed.participant_id is None or actor.state.room.delivery == "every_channel":
        return None
    reach = actor.engine.registry.reach(actor.tenant)
    ways = [
        seat
        for seat in actor.state.bindings.values()
        if seat.participant_id == failed.participant_id
        and reach.get(seat.channel_id) == "outbox"
        and seat.can_read
        and not seat.output_muted
        and seat.direction != "inbound"
        and may_see(event, seat)
        and seat.channel_id != event.source.channel_id
    ]
    ways.sort(key=lambda seat: (seat.attached_at, seat.channel_id))
    ids = [seat.channel_id for seat in ways]
    person = actor.state.participants.get(failed.participant_id)
    if person is not None and person.last_channel_id in ids:
        ids.remove(person.last_channel_id)
        ids.insert(0, person.last_channel_id)
    position = ids.index(channel_id) + 1 if channel_id in ids else 0
    return ids[position] if position < len(ids) else None


async def by_other_way(actor: RoomActor, record: DeliveryRecord, status: DeliveryStatus) -> DeliveryRecord | None:
    """Of a channel with two ways: what the first could not deliver goes by the second, once and whole (its parts are
    others there), and the record says so where some of it had arrived. That it does stands in the same transaction as
    the news of the failure, so that neither a crash nor a repeated report changes it. None where there is no second
    way, or it has been gone already."""
    channel = actor.engine.channels.get(record.channel_id)
    way = getattr(getattr(channel, "stand_in", None), "way", None)
    refused = getattr(getattr(channel, "provider", None), "opt_out_codes", ())
    if way is None or record.details.get("via") == way or status.code in refused:
        return None
    why = status.error or status.code or "not delivered"
    arrived = sum(state in (DeliveryState.DELIVERED, DeliveryState.READ) for state in record.part_states.values())
    if arrived:
        why = f"{why} ({arrived} of {len(record.parts)} parts had arrived and are repeated)"
    new = record.model_copy(
        update={
            "details": {**record.details, "via": way, "instead_of": why},
            "provider_message_id": None,
            "parts": (),
            "part_states": {},
            "updated_at": actor.engine.now(),
        }
    )
    row = {"channel": record.channel_id, "index": record.index, "event_id": record.event_id, "attempts": 0}
    other = {"via": way, "instead_of": why}
    row |= {"parts": [], **other}
    row_key = event_key(actor.room_id, record.index, record.channel_id)
    change = Change(activity=False)
    change.put += [delivery_record(actor.tenant, new), Record("outbox", actor.tenant, row_key, row, actor.room_id)]
    await actor.commit(change)
    tell(actor, new)
    actor.engine.count("sent_another_way")
    item = Item(None, record.index, record.event_id, CURRENT.get())
    item.way = other
    actor.engine.lanes.put(actor, record.channel_id, item)
    return new


async def try_next(actor: RoomActor, event: RoomEvent, channel_id: str) -> None:
    way = next_way(actor, event, channel_id)
    if way is not None:
        await deliver_also(actor, event, way)


async def deliver_also(actor: RoomActor, event: RoomEvent, channel_id: str) -> None:
    """Adds one delivery of an event that is already in the log."""
    engine = actor.engine
    await engine.store.commit(
        Batch(actor.tenant, actor.epoch, actor.room_id, put=(outbox_row(actor, event, channel_id),))
    )
    engine.lanes.put(actor, channel_id, Item(event, event.index, event.id, CURRENT.get()))


async def resend(actor: RoomActor, letter_key: str) -> None:
    """Puts a dead letter back into its lane, once, in one transaction; what it holds up follows. Runs in the actor."""
    store = actor.engine.store
    found = await store.records(RecordQuery("dead", actor.tenant, key=letter_key))
    if not found:
        raise StateError("this dead letter has just been sent again by somebody else; nothing was changed")
    index, channel_id = found[0].value["index"], found[0].value["channel"]
    events = await store.events(EventQuery(actor.tenant, actor.room_id, start=index, stop=index + 1))
    change = Change(activity=False)
    change.delete.append(RecordKey("dead", actor.tenant, letter_key))
    change.put.extend(outbox_row(actor, event, channel_id) for event in events)
    await actor.commit(change)
    actor.engine.lanes.dead -= 1
    again = [Item(event, event.index, event.id, CURRENT.get()) for event in events]
    _go_on(actor, channel_id, again, freed=bool(found[0].value.get("holds")))


async def discard(actor: RoomActor, letter_key: str) -> None:
    """Gives a dead letter up; what it holds up goes on. Runs in the actor."""
    found = await actor.engine.store.records(RecordQuery("dead", actor.tenant, key=letter_key))
    if not found:
        raise StateError("this dead letter is gone already; nothing was changed")
    change = Change(activity=False)
    change.delete.append(RecordKey("dead", actor.tenant, letter_key))
    await actor.commit(change)
    actor.engine.lanes.dead -= 1
    _go_on(actor, found[0].value["channel"], [], freed=bool(found[0].value.get("holds")))


def _go_on(actor: RoomActor, channel_id: str, first: list[Item], *, freed: bool) -> None:
    lanes = actor.engine.lanes
    lane, waiting = lanes.lines.get((actor.tenant, actor.room_id, channel_id)), list[Item]()
    if lane is not None and freed:
        lane.held, waiting = False, list(lane.items)
        lane.items = deque()
    for item in (*first, *waiting):
        lanes.put(actor, channel_id, item)


async def unread(actor: RoomActor, index: int, channel_id: str) -> None:
    """The time to read it is over: unless it was read meanwhile, the next way is tried."""
    store = actor.engine.store
    found = await store.records(RecordQuery("delivery", actor.tenant, key=event_key(actor.room_id, index, channel_id)))
    binding = actor.state.bindings.get(channel_id)
    read = bool(found) and found[0].value.get("state") == "read"
    if read or (binding is not None and binding.last_read_index >= index):
        return
    events = await store.events(EventQuery(actor.tenant, actor.room_id, start=index, stop=index + 1))
    if events:
        await try_next(actor, events[0], channel_id)
