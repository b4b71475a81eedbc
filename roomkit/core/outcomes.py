"""What became of deliveries, written down together: each record in one transaction with the end of its outbox row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from roomkit.errors import Fenced, StoreUnavailable
from roomkit.ports.store import Batch, Record, RecordKey
from roomkit.runtime import monotonic

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
FLUSH_S = 5.0
Notes = tuple[list[Record], list[RecordKey]]
"""What became of deliveries, and their rows, which are over."""


class Outcomes:
    """Gathers while `gathering` is above zero, and while it writes: all that came together goes in one transaction."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.gathering = 0
        self.writing = False
        self._done: dict[tuple[str, RoomActor | None], Notes] = {}
        self._noting: dict[tuple[str, RoomActor | None], Notes] = {}

    def notes(self, actor: RoomActor) -> Notes:
        """Where the room's are gathered. Of several processes each room is fenced by its own lease: who has lost it
        must not say what became of it."""
        of = (actor.tenant, None if self.engine.nodes is None else actor)
        notes = self._done.get(of)
        if notes is None:
            notes = self._done[of] = ([], [])
        return notes

    def written(self) -> Coroutine[Any, Any, None] | None:
        """What writes it all down, where there is something and nobody is at it already."""
        if self.writing or self.gathering or not self._done:
            return None
        self.writing = True
        return self._write()

    async def _write(self) -> None:
        try:
            while self._done:
                done, self._done = self._done, {}
                self._noting = done
                if self.engine.nodes is not None and len(done) > 1:
                    await asyncio.gather(*(_keep(self.engine, *of, notes) for of, notes in done.items()))
                else:
                    for of, notes in done.items():
                        await _keep(self.engine, *of, notes)
        finally:
            self.writing = False
            self._noting = {}

    async def flushed(self) -> None:
        """At shutdown: waits until what was delivered is noted, as far as the store still writes."""
        until = monotonic() + FLUSH_S
        while self.writing and monotonic() < until:  # noqa: ASYNC110 - only at shutdown
            await asyncio.sleep(0.005)

    def ending(self, actor: RoomActor, row: Record) -> bool:
        """Whether this delivery is over, and the store is about to hear of it: its row is nothing to be done again.
        What was done under an earlier lease than the actor's the store hears no more."""
        gone = RecordKey("outbox", row.tenant, row.key)
        return any(
            gone in rows
            for done in (self._done, self._noting)
            for (tenant, by), (_, rows) in done.items()
            if tenant == row.tenant and (by is None or by.epoch == actor.epoch)
        )

    def unwritten(self, tenant: str, record_key: str) -> Record | None:
        """The record of a delivery that is over, and that the store is about to hear of."""
        waiting = (self._done, self._noting)
        kept = (one for done in waiting for (of, _), (rows, _) in done.items() if of == tenant for one in rows)
        return next((one for one in kept if one.key == record_key and one.kind == "delivery"), None)


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
            for one in put:
                await _keep(engine, tenant, actor, ([one], [gone for gone in delete if gone.key == one.key]))
            return
        engine.count("notes_refused")
        log.warning("what became of the delivery %s could not be noted: %s", put[0].key if put else "", error)
        if put:  # It is over all the same: without its row it is not made again.
            await _keep(engine, tenant, actor, ([], list(delete)))
