"""RoomTable: the actors of the rooms in memory, loaded when somebody asks and sent back when idle."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterable, Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from roomkit.core import membership
from roomkit.core.actor import Change, RoomActor
from roomkit.core.policy import require_json, require_room_id, wellformed
from roomkit.core.state import RoomState, load
from roomkit.errors import Elsewhere, RoomNotFound, StateError
from roomkit.models.event import EventType
from roomkit.models.room import ChannelBinding, Room
from roomkit.ports.store import RecordQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine


MOST_LOOKED_AT = 64
RoomKey = tuple[str, str]


class RoomTable:
    """At most `options.resident_rooms` idle rooms stay in memory; busy ones always do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._actors: OrderedDict[tuple[str, str], RoomActor] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Future[RoomActor | None]] = {}
        self.writing: dict[tuple[str, str], asyncio.Future[None]] = {}
        """Rooms that are being written as a whole: imported or forked."""

    def __len__(self) -> int:
        return len(self._actors)

    async def actor(self, tenant: str, room_id: str) -> RoomActor | None:
        """The room's actor, loaded when it is not resident; None when the tenant has no such room."""
        self._engine.require_started()
        actor_key = (tenant, room_id)
        found = self._actors.get(actor_key)
        if found is not None:
            self._actors.move_to_end(actor_key)
            return found
        loading = self._loading.get(actor_key)
        if loading is not None:
            return await asyncio.shield(loading)
        if self._engine.nodes is not None:
            await self.load([actor_key], self._engine.nodes.held.read)
            return self._actors.get(actor_key)
        gate: asyncio.Future[RoomActor | None] = asyncio.get_running_loop().create_future()
        self._loading[actor_key] = gate
        actor: RoomActor | None = None
        try:
            capabilities = {cid: channel.capabilities for cid, channel in self._engine.channels.items()}
            state = await load(self._engine.store, tenant, room_id, capabilities)
            if state is not None:
                actor = self._admit_actor(RoomActor(self._engine, state))
            gate.set_result(actor)
            return actor
        except BaseException as error:
            gate.set_exception(
                error if isinstance(error, Exception) else StateError("loading was cancelled; try again")
            )
            gate.exception()
            raise
        finally:
            del self._loading[actor_key]

    async def load(self, keys: Iterable[RoomKey], read: Callable[[list[RoomKey]], AsyncIterable[RoomActor]]) -> None:
        """Brings rooms into memory, many at once: `read` makes the actors of those that nobody else is loading. Whoever
        asks for one of them meanwhile gets it as soon as it is there."""
        gates: dict[RoomKey, asyncio.Future[RoomActor | None]] = {
            one: asyncio.get_running_loop().create_future()
            for one in keys
            if one not in self._actors and one not in self._loading
        }
        self._loading.update(gates)
        try:
            async for actor in read(list(gates)):
                gate = self._loading.pop((actor.tenant, actor.room_id))  # Whoever asks from here on looks for himself.
                if actor.retired:  # lost again before anybody had it
                    gate.set_exception(Elsewhere(actor.tenant, actor.room_id, ""))
                    gate.exception()
                else:
                    gate.set_result(self._admit_actor(actor))
        except BaseException as error:
            told = error if isinstance(error, Exception) else StateError("loading was cancelled; try again")
            for one, gate in gates.items():
                if not gate.done():
                    del self._loading[one]
                    gate.set_exception(told)
                    gate.exception()
            raise
        finally:
            for one, gate in gates.items():
                if not gate.done():
                    del self._loading[one]
                    gate.set_result(None)

    async def look(self, tenant: str, room_id: str) -> RoomState | None:
        """The room as it is, for looking only; whoever owns it. None when the tenant has no such room."""
        self._engine.require_started()
        found = self._actors.get((tenant, room_id))
        if found is None and self._engine.nodes is None:
            found = await self.actor(tenant, room_id)
        if found is not None or self._engine.nodes is None:
            return found.state if found is not None else None
        return await self._engine.nodes.held.look(tenant, room_id)

    def remove(self, actor: RoomActor) -> None:
        """Whoever still holds this actor is led to the one that takes its place, here or in another process."""
        actor.retired = True
        if self._actors.get((actor.tenant, actor.room_id)) is actor:
            del self._actors[actor.tenant, actor.room_id]

    async def require(self, tenant: str, room_id: str) -> RoomActor:
        found = await self.actor(tenant, room_id)
        if found is None:
            raise RoomNotFound(room_id, await self.ids(tenant))
        return found

    async def ids(self, tenant: str) -> list[str]:
        """A few ids for a did-you-mean."""
        return [record.key for record in await self._engine.store.records(RecordQuery("room", tenant, limit=200))]

    def _admit_actor(self, actor: RoomActor) -> RoomActor:
        self._actors[actor.tenant, actor.room_id] = actor
        excess = len(self._actors) - self._engine.options.resident_rooms
        if excess > 0:
            self._evict(excess, actor)
        return actor

    def _evict(self, excess: int, fresh: RoomActor) -> None:
        """Sends idle rooms back to the store, the longest unused first; never the one that somebody just asked for.
        Busy ones go to the end of the line, so that however many there are, nobody looks at all of them."""
        for actor_key, actor in tuple(islice(self._actors.items(), MOST_LOOKED_AT)):
            if actor is fresh or not actor.idle:
                self._actors.move_to_end(actor_key)
                continue
            actor.retired = True
            del self._actors[actor_key]
            if self._engine.nodes is not None:
                self._engine.nodes.held.left(actor)
            excess -= 1
            if excess <= 0:
                return

    def drop(self, actor: RoomActor) -> None:
        """Another writer was in this room, so what the actor knows is old: the next call reads it again, unless
        somebody looks on, to whom that would be a gap."""
        if self._engine.nodes is not None:
            self._engine.nodes.lost(actor)
            return
        actor_key = (actor.tenant, actor.room_id)
        if actor.hub.idle and not actor.lanes and self._actors.get(actor_key) is actor:
            actor.retired = True
            del self._actors[actor_key]

    def used(self, tenant: str, room_id: str) -> RoomActor | None:
        """As `loaded`, for somebody who has work for the room: it is the last to be sent back."""
        found = self._actors.get((tenant, room_id))
        if found is not None:
            self._actors.move_to_end((tenant, room_id))
        return found

    def loaded(self, tenant: str, room_id: str) -> RoomActor | None:
        """The room's actor if it is in memory."""
        return self._actors.get((tenant, room_id))

    def actors(self) -> list[RoomActor]:
        return list(self._actors.values())

    async def create(
        self,
        tenant: str,
        *,
        room_id: str | None = None,
        external_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        channels: tuple[str, ...] | None = None,
        source: ChannelBinding | None = None,
        sender: str | None = None,
        settings: dict[str, Any] | None = None,
    ) -> RoomActor:
        """Creates a room with its channels in one commit; its first record names them."""
        self._engine.require_started()
        room = self._new(tenant, room_id or self._engine.new_id(), external_id, metadata, settings)
        change = Change(room=room)
        for channel_id in self._wanted(tenant, channels):
            channel = self._engine.registry.require(channel_id, tenant)
            change.bindings[channel_id] = self._engine.registry.seat(channel, room.id, tenant, at=room.created_at)
        if source is not None:
            change.bindings[source.channel_id] = source.model_copy(update={"room_id": room.id})
        change.system(
            EventType.ROOM_CREATED, "room_created", channels=sorted(change.bindings), external_id=external_id, by=sender
        )
        epoch = await self._claim(tenant, room.id)
        actor = self._actors[tenant, room.id] = RoomActor(self._engine, RoomState(room))
        if epoch is not None:
            actor.epoch = epoch
        membership.plan_timers(actor, change)
        try:
            await actor.call(_commit, change)
        except BaseException:
            self.remove(actor)
            raise
        if not actor.retired:  # Lost meanwhile it is made all the same, and its next owner's.
            self._admit_actor(actor)
            if self._engine.nodes is not None:
                self._engine.nodes.held.entered(actor)
        self._engine.count("rooms_created")
        return actor

    def _new(
        self,
        tenant: str,
        room_id: str,
        external_id: str | None,
        metadata: dict[str, Any] | None,
        settings: dict[str, Any] | None,
    ) -> Room:
        """The room as it is to be. Raises `UsageError` for what no room can be."""
        require_room_id(room_id)
        if metadata:
            require_json(metadata, "the metadata of a room")
        now, template = self._engine.now(), self._engine.template
        with wellformed("a room"):
            room = Room(
                id=room_id,
                tenant=tenant,
                created_at=now,
                updated_at=now,
                external_id=external_id,
                metadata={**template.metadata, **(metadata or {})},
                **cast("dict[str, Any]", {"timers": template.timers, **(settings or {})}),
            ).lean()
        membership.require_timers(room.timers)
        return room

    async def _claim(self, tenant: str, room_id: str) -> int | None:
        """The epoch of this process's lease for a room to be made, None where there are no leases. Raises `StateError`
        for one that exists."""
        nodes, taken = self._engine.nodes, await self.actor(tenant, room_id) is not None
        epoch = await nodes.acquire(tenant, room_id) if nodes is not None and not taken else None
        if nodes is not None and not taken:  # somebody may have made it meanwhile
            taken = await nodes.held.look(tenant, room_id) is not None
        if taken or (tenant, room_id) in self._actors:
            raise StateError(f'room "{room_id}" exists already; choose another id or use kit.get_room()')
        return epoch

    def _wanted(self, tenant: str, channels: tuple[str, ...] | None) -> tuple[str, ...]:
        wanted = channels if channels is not None else self._engine.template.channels
        if wanted is not None:
            return wanted
        registry = self._engine.registry
        return tuple(dict.fromkeys(cid for cid in registry.defaults if registry.serves(cid, tenant)))


async def _commit(actor: RoomActor, change: Change) -> None:
    await actor.commit(change)
