"""Holdings: the rooms that this node has. They are taken with a lease, read back many at once, go on where the owner
before has stopped, and are dropped without a word to the store when somebody else has them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from roomkit.core import lanes, recovery, turns
from roomkit.core.actor import RoomActor
from roomkit.core.owners import Owners, RoomKey
from roomkit.core.state import BINDING, PARTICIPANT, ROOM, RoomState, all_of, load, state_of
from roomkit.errors import Elsewhere, Fenced, StoreError
from roomkit.models.stream import Ephemeral
from roomkit.ports.ownership import Held, Ownership
from roomkit.ports.store import Record, RecordQuery
from roomkit.runtime import Scope

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
KINDS = (BINDING, PARTICIPANT, "detached", "outbox", "stream", "turn", "timer")
"""What is read of a room, beside itself and its head, when it is brought into memory."""
RESUMED_S = 1.0
PAUSE_S = 0.02
REFUSED_S = 0.05
"""Before a room is read again whose lease this node still has, although a write under it was refused."""
MOST_REFUSED = 10_000


class Holdings:
    def __init__(
        self,
        engine: Engine,
        owners: Owners,
        address: str,
        ownership: Callable[[], Ownership],
        revive: Callable[[], Awaitable[None]],
    ) -> None:
        """`revive` is called when this node turns out to have been taken over from."""
        self.engine = engine
        self.owners = owners
        self.moving = False
        """Rooms are given away and none is taken any more."""
        self.generation = 0
        """Rises when this node has lost all its leases and begins again."""
        self._address = address
        self._ownership = ownership
        self._revive = revive
        self._scope = Scope("cut replies", on_failure=self._failed)
        self._exits: dict[RoomKey, Callable[[], None]] = {}
        self._first = asyncio.Lock()
        self._resuming: dict[RoomKey, asyncio.Task[None]] = {}
        self._refused: dict[RoomKey, int] = {}

    async def acquire(self, tenant: str, room_id: str) -> int:
        """The epoch of this node's lease. Raises `Elsewhere` for another node's room, or when this one takes none."""
        if self.moving:
            raise Elsewhere(tenant, room_id, "")
        try:
            answer = await self._ownership().acquire(tenant, room_id)
        except Fenced:
            await self._revive()
            raise Elsewhere(tenant, room_id, "") from None
        if isinstance(answer, Held):
            if answer.address == self._address:
                raise Elsewhere(tenant, room_id, "")  # of this process before it was restarted
            if answer.address:
                self.owners.learn(tenant, room_id, answer.address)
            raise Elsewhere(tenant, room_id, answer.address)
        return answer.epoch

    async def read(self, keys: list[RoomKey]) -> AsyncGenerator[RoomActor]:
        """For `RoomTable.load`: takes the rooms and makes their actors. Rooms that do not exist are not taken."""
        for tenant, room_id in keys:
            async with self._first if self.owners.inheriting else nullcontext():
                await self._find(tenant, room_id)
            if await self.engine.store.records(RecordQuery(ROOM, tenant, key=room_id)):
                generation = self.generation
                epoch = await self.acquire(tenant, room_id)
                if self._refused.pop((tenant, room_id), None) == epoch:
                    # Timers, views and cut replies bring a room back as soon as it is lost: without end, were the
                    # store to refuse its writes and to leave it the lease.
                    await asyncio.sleep(REFUSED_S)
                for actor in await self.read_owned({(tenant, room_id): epoch}, [(tenant, room_id)], generation):
                    if actor.retired:  # lost again before anybody had it
                        raise Elsewhere(tenant, room_id, "")
                    yield actor

    async def _find(self, tenant: str, room_id: str) -> None:
        """Raises `Elsewhere` where another node is known to have the room. After a take-over the first who asks finds
        out for all who has got the rooms."""
        if (address := self.owners.of(tenant, room_id)) is not None:
            raise Elsewhere(tenant, room_id, address)
        if self.owners.inheriting and await self.engine.store.records(RecordQuery(ROOM, tenant, key=room_id)):
            await self.acquire(tenant, room_id)

    async def look(self, tenant: str, room_id: str) -> RoomState | None:
        return await load(self.engine.store, tenant, room_id, self._capabilities())

    async def read_owned(self, epochs: dict[RoomKey, int], keys: Sequence[RoomKey], generation: int) -> list[RoomActor]:
        """Raises `Elsewhere` when this node has lost its leases since that generation: then they are another's."""
        capabilities, made = self._capabilities(), list[RoomActor]()
        records_of = await self._records(keys)
        if generation != self.generation:
            raise Elsewhere(*keys[0], "")
        for key, records in records_of.items():
            state = state_of(records, capabilities)
            if state is not None:
                actor = RoomActor(self.engine, state)
                actor.epoch = epochs[key]
                self._resume(actor, records)
                made.append(actor)
        return made

    async def _records(self, keys: Sequence[RoomKey]) -> dict[RoomKey, dict[str, list[Record]]]:
        store = self.engine.store
        at_once = getattr(store, "read_rooms", None)
        if at_once is not None:
            return await at_once(keys, KINDS)
        found: dict[RoomKey, dict[str, list[Record]]] = {}
        for tenant, room_id in keys:
            found[tenant, room_id] = {
                kind: await store.records(RecordQuery(kind, tenant, key=room_id)) for kind in (ROOM, "head")
            }
            for kind in KINDS:
                found[tenant, room_id][kind] = await all_of(store, kind, tenant, room_id)
        return found

    def _capabilities(self) -> dict[str, Any]:
        return {channel_id: channel.capabilities for channel_id, channel in self.engine.channels.items()}

    def _resume(self, actor: RoomActor, records: dict[str, list[Record]]) -> None:
        """What the owner before has left: before anybody can ask for something new."""
        self.entered(actor)
        for record in records.get("timer", ()):
            self.engine.timers.arm(record)
        for record in records.get("outbox", ()):
            if not self.engine.lanes.outcomes.ending(actor, record):
                recovery.resume_delivery(actor, record)
        streams, questions = records.get("stream", ()), records.get("turn", ())
        if streams or questions:
            key = (actor.tenant, actor.room_id)
            task = self._scope.spawn(recovery.resume_replies(actor, streams, questions), name=f"resume {actor.room_id}")
            self._resuming[key] = task
            actor.lanes += 1  # Sent back to the store it would be resumed once more, beside this.

            def over(done: asyncio.Task[None]) -> None:
                actor.lanes -= 1
                if self._resuming.get(key) is done:
                    del self._resuming[key]

            task.add_done_callback(over)

    async def resumed(self, tenant: str, room_id: str, *, patient: bool = False) -> None:
        """Waits until the room's cut replies are closed, or, unless `patient`, for a moment."""
        task = self._resuming.get((tenant, room_id))
        if task is not None:
            await asyncio.wait([task], timeout=None if patient else RESUMED_S)

    def entered(self, actor: RoomActor) -> None:
        """The room is in memory here: signs of life about it come from every node."""
        key = (actor.tenant, actor.room_id)

        def hear(message: Ephemeral) -> None:
            actor.hub.ephemeral(message, actor.state.bindings)

        self.left(actor)
        self._exits[key] = self.engine.bus.subscribe(*key, hear)

    def left(self, actor: RoomActor) -> None:
        leave = self._exits.pop((actor.tenant, actor.room_id), None)
        if leave is not None:
            leave()

    def refused(self, actor: RoomActor) -> None:
        """A write was refused as a former owner's."""
        if len(self._refused) >= MOST_REFUSED:
            self._refused.clear()
        self._refused[actor.tenant, actor.room_id] = actor.epoch

    def drop(self, actor: RoomActor) -> None:
        """The room is another node's, or will be: everything about it here ends without a word to the store."""
        self.engine.table.remove(actor)
        self.left(actor)
        lanes.forget(self.engine.lanes, actor)
        turns.forget(self.engine.turns, actor)
        resuming = self._resuming.pop((actor.tenant, actor.room_id), None)
        if resuming is not None:
            resuming.cancel()
        actor.hub.lose(actor.room_id)

    async def release(self, rooms: Iterable[RoomKey]) -> None:
        keys = list(rooms)
        if keys:
            try:
                await self._ownership().release(keys)
            except StoreError as error:
                log.warning("%d rooms could not be released and are kept until the lease ends: %s", len(keys), error)

    @asynccontextmanager
    async def alone(self, *what: str) -> AsyncGenerator[None]:
        """Whatever `what` names is done by one node at a time."""
        name = "~" + hashlib.sha256("\n".join(what).encode()).hexdigest()
        while True:
            try:
                await self.acquire("", name)
                break
            except Elsewhere:
                if self.moving:
                    raise
                await asyncio.sleep(PAUSE_S)
        try:
            yield
        finally:
            await self.release([("", name)])

    def idle(self) -> list[RoomActor]:
        """The rooms with nothing to do and nobody who looks on."""
        return [a for a in self.engine.table.actors() if a.idle and (a.tenant, a.room_id) not in self._resuming]

    async def aclose(self) -> None:
        await self._scope.aclose()

    def _failed(self, _failure: object) -> None:
        self.engine.count("task_failures")
