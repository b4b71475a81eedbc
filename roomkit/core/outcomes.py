"""What became of deliveries, written down together: each record in one transaction with the end of its outbox row."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from datetime import datetime
from typing import TYPE_CHECKING, Any

from roomkit.core.actor import delivery_record
from roomkit.core.outgoing import details_of
from roomkit.core.state import event_key
from roomkit.errors import Fenced, StoreUnavailable
from roomkit.models.content import sharing
from roomkit.models.delivery import DeliveryRecord, DeliveryResult
from roomkit.ports.store import Batch, Record, RecordKey
from roomkit.runtime import monotonic

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine
    from roomkit.core.front import Item


log = logging.getLogger(__name__)
FLUSH_S = 5.0
MOST = 256
"""Deliveries that wait to be written down, in a turn of the loop that does not end."""
_new: Any = getattr(tuple, "__new__")  # noqa: B009 - its type is of no use here
"""What a named tuple's own constructor ends in, at a third of the price."""
_NOBODYS = Context()
"""Where what belongs to no caller runs."""
Notes = tuple[list[Record], list[RecordKey]]
"""What became of deliveries, and their rows, which are over."""


_OUTCOME = sharing(
    dict.fromkeys(
        ("room_id", "index", "event_id", "channel_id", "state", "attempts", "maybe_duplicate", "updated_at"), None
    )
)


Over = tuple["RoomActor", str, "Item", DeliveryResult, bool]
"""A delivery that is over: its room, channel and result, and whether it has a row in the store."""


class Outcomes:
    """Gathers what is over while it writes, and in memory during a turn of the loop: all that came together goes in
    one transaction."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.writing = False
        self._over: list[Over] = []
        self._rows: list[tuple[RoomActor, Record]] = []
        self._noting: dict[tuple[str, RoomActor | None], Notes] = {}
        self._called = False

    @property
    def pending(self) -> bool:
        """Whether anything is not written down yet."""
        return self.writing or bool(self._over)

    def note(self, done: list[Over]) -> None:
        over = self._over
        over += done
        if len(over) >= MOST or self.engine.info.durable:  # After a crash as little as can be is sent again.
            self.hurry()
        elif not (self._called or self.writing):
            self._called = True
            asyncio.get_running_loop().call_soon(self.hurry, context=_NOBODYS)

    def keep(self, actor: RoomActor, rows: list[Record]) -> None:
        """Rows for what is not over yet, in a store where they are written after the event."""
        self._rows += ((actor, row) for row in rows)
        self.hurry()

    def hurry(self) -> None:
        """Writes now what is to be written: for who is about to read it."""
        self._called = False
        if (self._over or self._rows) and not self.writing and not self.engine.eager.scope.closed:
            self.writing = True
            self.engine.eager.start(self._write())

    async def _write(self) -> None:
        try:
            while self._over or self._rows:
                noting = self._noting = self._gathered()
                if self.engine.nodes is not None and len(noting) > 1:
                    await asyncio.gather(*(_keep(self.engine, *of, notes) for of, notes in noting.items()))
                else:
                    for of, notes in noting.items():
                        await _keep(self.engine, *of, notes)
        finally:
            self.writing = False
            self._noting = {}

    def _gathered(self) -> dict[tuple[str, RoomActor | None], Notes]:
        """What is to be written down next. Of several processes each room is fenced by its own lease: who has lost it
        must not say what became of it."""
        (over, self._over), (rows, self._rows) = (self._over, []), (self._rows, [])
        at, alone = self.engine.now(), self.engine.nodes is None
        stamp, index, by = at.isoformat(), -1, None
        found: dict[tuple[str, RoomActor | None], Notes] = {}
        notes: Notes = ([], [])
        start = ""
        like: DeliveryResult | None = None
        state: str | None = None
        for actor, channel_id, item, result, row in over:
            if actor is not by or item.index != index:  # Mostly a whole event's come one after another.
                by, index = actor, item.index
                notes = found.setdefault((actor.tenant, None if alone else actor), ([], []))
                start = event_key(actor.room_id, index, "")
            if row:
                notes[1].append(RecordKey("outbox", actor.tenant, start + channel_id))
            try:
                if result is not like:
                    like, state = result, _plain(result)
                if state is None or item.parts:
                    kept = delivery_record(actor.tenant, record_of(actor, channel_id, item, result, at))
                else:
                    kept = _kept(actor, start, channel_id, item, state, stamp)
                notes[0].append(kept)
            except Exception as error:  # noqa: BLE001 - what a plug-in calls a result must not cost the others theirs
                like = None
                self.engine.trouble(actor, f"what became of a delivery to {channel_id}", error)
        for actor, record in rows:
            notes = found.setdefault((actor.tenant, None if alone else actor), ([], []))
            if RecordKey("outbox", actor.tenant, record.key) not in notes[1]:  # over before its row was written
                notes[0].append(record)
        return found

    async def flushed(self) -> None:
        """At shutdown: waits until what was delivered is noted, as far as the store still writes."""
        self.hurry()
        until = monotonic() + FLUSH_S
        while self.writing and monotonic() < until:  # noqa: ASYNC110 - only at shutdown
            await asyncio.sleep(0.005)

    def ending(self, actor: RoomActor, row: Record) -> bool:
        """Whether this delivery is over, and the store is about to hear of it: its row is nothing to be done again.
        What was done under an earlier lease than the actor's the store hears no more."""
        gone = RecordKey("outbox", row.tenant, row.key)
        return any(
            gone in rows and (by is None or by.epoch == actor.epoch) for (_, by), (_, rows) in self._noting.items()
        ) or any(
            by.tenant == row.tenant
            and event_key(by.room_id, item.index, channel_id) == row.key
            and (self.engine.nodes is None or by.epoch == actor.epoch)
            for by, channel_id, item, _, _ in self._over
        )

    def unwritten(self, tenant: str, record_key: str) -> Record | None:
        """The record of a delivery that is over, and that the store is about to hear of."""
        self.hurry()
        for (of, _), (records, _) in self._noting.items():
            for record in records if of == tenant else ():
                if record.key == record_key and record.kind == "delivery":
                    return record
        at = self.engine.now()
        for actor, channel_id, item, result, _ in self._over:
            if actor.tenant == tenant and event_key(actor.room_id, item.index, channel_id) == record_key:
                return delivery_record(tenant, record_of(actor, channel_id, item, result, at))
        return None


def record_of(actor: RoomActor, channel_id: str, item: Item, result: DeliveryResult, at: datetime) -> DeliveryRecord:
    """What became of one delivery."""
    return DeliveryRecord.trusted(
        {
            "room_id": actor.room_id,
            "index": item.index,
            "event_id": item.event_id,
            "channel_id": channel_id,
            "state": result.state,
            "reason": result.error,
            "attempts": item.attempts,
            "provider_message_id": result.provider_message_id,
            "maybe_duplicate": item.maybe_duplicate,
            "parts": item.parts or result.parts,
            "part_states": {},
            "details": details_of(result, item.way),
            "updated_at": at,
        }
    )


def _plain(result: DeliveryResult) -> str | None:
    """The state, of a result that tells nothing else."""
    more = result.provider_message_id or result.parts or result.error or result.metadata
    return None if more else str(result.state)


def _kept(actor: RoomActor, start: str, channel_id: str, item: Item, state: str, stamp: str) -> Record:
    """What `delivery_record` makes of `record_of`, without the detour for plain ones. `start` is that of its key."""
    value = _OUTCOME.copy()
    value["room_id"] = actor.room_id
    value["index"] = item.index
    value["event_id"] = item.event_id
    value["channel_id"] = channel_id
    value["state"] = state
    value["attempts"] = item.attempts
    value["maybe_duplicate"] = item.maybe_duplicate
    value["updated_at"] = stamp
    return _new(Record, ("delivery", actor.tenant, start + channel_id, value, actor.room_id, None, ()))


async def _keep(engine: Engine, tenant: str, actor: RoomActor | None, notes: Notes) -> None:
    put, delete = tuple(notes[0]), tuple(notes[1])
    batch = Batch(tenant, engine.epoch, put=put, delete=delete)
    if actor is not None:
        batch = Batch(tenant, actor.epoch, actor.room_id, put=put, delete=delete)
    try:
        try:
            await engine.store.commit(batch)
        except StoreUnavailable:
            await engine.commit_until_done(batch)
    except StoreUnavailable as error:
        log.warning("deliveries that are done could not be noted and are repeated after the next start: %s", error)
    except Fenced:
        if actor is None:
            raise
        if not actor.retired:
            engine.table.drop(actor)  # What became of these the room's next owner finds out by itself.
    except Exception as error:  # noqa: BLE001 - what a driver does not take must not hold up the others, nor the sender
        if len(put) > 1:
            rows = {gone.key: gone for gone in delete}
            for one in put:
                gone = rows.pop(one.key, None)
                await _keep(engine, tenant, actor, ([one], [gone] if gone is not None else []))
            if rows:  # of what no record could be made of
                await _keep(engine, tenant, actor, ([], list(rows.values())))
            return
        engine.count("notes_refused")
        log.warning("what became of the delivery %s could not be noted: %s", put[0].key if put else "", error)
        if put:  # It is over all the same: without its row it is not made again.
            await _keep(engine, tenant, actor, ([], list(delete)))
