"""Nodes: this process as one of several on one store. It owns rooms by lease, finds the owners of all others, and takes
over from who is silent. Loaded only where a kit was told so (`NodeOptions`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from roomkit.core import lanes, turns
from roomkit.core.actor import RoomActor
from roomkit.core.bus import MemoryBus
from roomkit.core.following import Follower
from roomkit.core.forwarding import Calls
from roomkit.core.holdings import Holdings
from roomkit.core.owners import Owners, RoomKey
from roomkit.core.streams import Deliver, View, Viewer
from roomkit.errors import ConfigError, Elsewhere, Fenced, RoomKitError, StateError, StoreError
from roomkit.models.hooks import Committed
from roomkit.ports.node import NodeLink, NodeOptions
from roomkit.ports.ownership import Lease, NodeSilent, Ownership
from roomkit.ports.store import RecordQuery, Store
from roomkit.runtime import Scope, monotonic

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
T = TypeVar("T")
UNFINISHED = ("stream", "turn", "outbox")
EVERY = 10_000_000
RENEW_S = 0.5
SUSPECT_S = 0.1
SUSPECTED = 20
"""How often, and how many times, somebody looks whether a node that does not answer still renews."""
SWEEP_S = 5.0
ORPHANS_EVERY = 6
"""Sweeps between two looks for work in rooms that nobody has."""
LATE_S = 1.0
"""How late a timer is before somebody looks whether its room has an owner."""
GIVE_BACK_S = 0.1
CHUNK = 100
PRELOADED = 5_000
"""Rooms that are brought into memory when they are taken over; the others when somebody asks for them."""
PAUSE_S = 0.02


class Nodes:
    """One per engine. `started` it renews, watches the others and sweeps; `aclose` leaves the rooms to them."""

    def __init__(self, engine: Engine, options: NodeOptions, link: NodeLink, rooms: type[Any]) -> None:
        """`rooms` is the class of a tenant's surface, whose methods are forwarded."""
        self.engine = engine
        self.address = options.address
        self.link = link
        self.calls = Calls(self, rooms)
        self.owners = Owners()
        self.held = Holdings(
            engine, self.owners, options.address, lambda: self.ownership, lambda: self.revive(self.held.generation)
        )
        self.on_sweep: list[Callable[[], Any]] = []
        self._options = options
        self._scope = Scope("nodes", on_failure=self._failed)
        self._watching = Scope("watch", on_failure=self._failed)
        self._reviving: asyncio.Task[None] | None = None
        self._checking = False
        self._suspects: set[str] = set()
        self._unhook: Callable[[], None] | None = None

    @property
    def ownership(self) -> Ownership:
        store: Any = self.engine.store  # that it has leases is seen to by `join`
        return self._options.ownership or store.ownership

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> dict[str, int]:
        """Begins to live. What was left unfinished is found by the first sweep, and taken from who is silent."""
        self.link.serve(self.calls)
        self._unhook = self.engine.hooks.on(Committed, self._committed, name="tell the other nodes")
        self._watching.spawn(self._watch(), name="watch the nodes")
        self._scope.spawn(self._renew(), name="renew")
        self._scope.spawn(self._sweep(), name="sweep")
        if not self.address:
            self._scope.spawn(self._give_back(), name="give rooms back")
        return {}

    async def aclose(self) -> None:
        """Answers nobody any more. The leases end with the store."""
        self.held.moving = True
        if self._unhook is not None:
            self._unhook()
        await self.link.aclose()
        await self._watching.aclose()
        await self._scope.aclose()
        await self.held.aclose()

    async def hand_over(self, limit: float) -> bool:
        """Gives every room away as soon as nothing is under way in it: replies end or, after `limit` seconds, are left
        to the next owner as they are in the store. True when nothing was cut short (R11)."""
        engine = self.engine
        self.held.moving = engine.draining = True
        late = monotonic() + limit
        while actors := engine.table.actors():
            at_work = turns.at_work(engine.turns) | lanes.at_work(engine.lanes)
            ready = [a for a in actors if not a.busy and (a.tenant, a.room_id) not in at_work]
            for actor in ready:
                self.held.drop(actor)
            await engine.lanes.outcomes.flushed()
            await self.held.release((actor.tenant, actor.room_id) for actor in ready)
            if len(ready) == len(actors):
                break
            if monotonic() > late:
                return False
            await asyncio.sleep(PAUSE_S)
        return True

    def _failed(self, failure: Any) -> None:
        self.engine.count("task_failures")

    async def acquire(self, tenant: str, room_id: str) -> int:
        """The epoch of this node's lease of a room. Raises `Elsewhere` when another node has it."""
        return await self.held.acquire(tenant, room_id)

    def lost(self, actor: RoomActor) -> None:
        """A commit was refused: somebody else has this room, and perhaps all of them."""
        self.engine.count("node_rooms_lost")
        self.held.refused(actor)
        if not actor.retired:
            self.held.drop(actor)
        if not self._scope.closed and not self._checking:
            self._checking = True
            self._scope.spawn(self._check(self.held.generation), name="check the lease")

    async def _check(self, generation: int) -> None:
        try:
            if not self.reviving:
                await self.ownership.renew()
        except Fenced:
            await self.revive(generation)
        except StoreError as error:
            log.warning("the lease cannot be renewed: %s", error)
        finally:
            self._checking = False

    @property
    def reviving(self) -> bool:
        return self._reviving is not None and not self._reviving.done()

    async def revived(self) -> None:
        """Waits until this node has begun again."""
        if self._reviving is not None:
            await asyncio.wait([self._reviving])

    async def revive(self, generation: int) -> None:
        """This node was taken for dead and is: it forgets all its rooms and begins again as a new one, also when who
        has found that out does not wait for it."""
        if generation == self.held.generation and not self._scope.closed:
            self.held.generation += 1
            self.engine.count("node_revivals")
            log.warning("another node has taken over from this one, which was silent for too long; it begins again")
            for actor in self.engine.table.actors():
                self.held.drop(actor)
            self.engine.timers.clear()
            self._reviving = self._scope.spawn(self._begin_again(self._reviving), name="begin again")
        await self.revived()

    async def _begin_again(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._watching.cancel()
        engine = self.engine
        await engine.lanes.outcomes.flushed()
        await engine.store.aclose()
        while True:
            try:
                engine.info = await engine.store.open()
                break
            except RoomKitError as error:
                log.warning("the store cannot be opened again yet: %s", error)
                await asyncio.sleep(RENEW_S)
        self._watching.spawn(self._watch(), name="watch the nodes")

    # -- the others ---------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self._check(self.held.generation)

    async def _watch(self) -> None:
        async for sign in self.ownership.watch():
            if isinstance(sign, NodeSilent):
                await self._take_over(sign.node)
                self.owners.gone(sign.address)  # Whoever wakes up now finds the next owner.

    async def _take_over(self, node: str) -> None:
        if self.held.moving:
            return
        generation = self.held.generation
        try:
            leases = await self.ownership.take_over(node)
        except Fenced:
            self._scope.spawn(self.revive(generation), name="begin again at once")
            return
        except StoreError as error:
            log.warning("a silent node was not taken over: %s", error)
            return
        if leases:
            self.engine.count("node_take_overs")
            log.warning("took over %d rooms of a node that is silent or has left", len(leases))
            self._scope.spawn(self._recover(leases, generation), name="recover rooms")

    async def _recover(self, leases: list[Lease], generation: int) -> None:
        """Brings the rooms into memory: first those where something is unfinished."""
        epochs = {(lease.tenant, lease.room_id): lease.epoch for lease in leases}
        most = PRELOADED if self.address else 0
        first = list(islice(epochs, most))

        async def read(keys: list[RoomKey]) -> AsyncGenerator[RoomActor]:
            self.owners.changed()
            taken = set(keys)
            urgent = [key for key in await _unfinished(self.engine.store, epochs.keys()) if key in taken]
            some = list(dict.fromkeys((*urgent, *keys)))
            for start in range(0, len(some), CHUNK):
                for actor in await self.held.read_owned(epochs, some[start : start + CHUNK], generation):
                    yield actor
                await asyncio.sleep(0)

        while True:
            try:
                await self.engine.table.load(first, read)
                for tenant, room_id in await _unfinished(self.engine.store, set(epochs).difference(first)):
                    await _try(self.engine, tenant, room_id)
                await self.engine.timers.load(epochs)
                break
            except Elsewhere:
                return  # another node has taken over from this one meanwhile
            except StoreError as error:
                log.warning("rooms that were taken over cannot be read yet: %s", error)
                await asyncio.sleep(RENEW_S)
        # What is no room (a consumer's place begins with "~") is for whoever does that work.
        idle = (key for key in epochs if self.engine.table.loaded(*key) is None)
        await self.held.release([key for key in idle if not self.address or key[1].startswith("~")])

    async def _sweep(self) -> None:
        """Finds what nobody does: timers and unfinished work of rooms that have no owner."""
        rounds = 0
        while True:
            try:
                await self._look_for_orphans(everything=rounds % ORPHANS_EVERY == 0)
                await self.engine.attention.load(self.engine.store)
                for look in self.on_sweep:
                    await look()
            except StoreError as error:
                log.warning("a sweep was left out: %s", error)
            rounds += 1
            await asyncio.sleep(SWEEP_S)

    async def _look_for_orphans(self, *, everything: bool) -> None:
        if self.held.moving:
            return
        engine = self.engine
        late = engine.now().timestamp() - LATE_S
        for record in await engine.store.records(RecordQuery("timer", None, due_before=late, order="due", limit=1000)):
            if not engine.timers.armed(record):
                engine.timers.arm(record)
        if everything:
            for tenant, room_id in await _unfinished(self.engine.store, None):
                if engine.table.loaded(tenant, room_id) is None:
                    await _try(self.engine, tenant, room_id)

    async def _give_back(self) -> None:
        """Nobody can be sent here, so rooms are kept only as long as there is something to do."""
        while True:
            await asyncio.sleep(GIVE_BACK_S)
            idle = self.held.idle()
            for actor in idle:
                self.held.drop(actor)
            if idle:
                await self.engine.lanes.outcomes.flushed()
                await self.held.release((actor.tenant, actor.room_id) for actor in idle)

    def suspect(self, address: str) -> None:
        """Nobody answers there. As soon as it has missed its renewals too, nobody waits any longer."""
        if address and address not in self._suspects and hasattr(self.ownership, "suspect"):
            self._suspects.add(address)
            self._scope.spawn(self._suspected(address), name="suspect a node")

    async def _suspected(self, address: str) -> None:
        try:
            for _ in range(SUSPECTED):
                ownership: Any = self.ownership
                if await ownership.suspect(address):
                    return
                await asyncio.sleep(SUSPECT_S)
        except StoreError as error:
            log.debug("whether the node at %s lives could not be looked up: %s", address, error)
        finally:
            self._suspects.discard(address)

    # -- for the parts ----------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """For somebody who waits for it."""
        return self._scope.spawn(work, name="ask a node", awaited=True)

    async def open_view(
        self, tenant: str, room_id: str, viewer: Viewer, deliver: Deliver, after: int | None, tail: int
    ) -> View:
        """As `views.open_view`, wherever the room is and whoever owns it later."""
        follower = Follower(self, self._scope, (tenant, room_id), viewer, deliver)
        return await follower.open(after, tail)

    def rooms(self, tenant: str) -> Any:
        """A tenant's surface that finds the owner of each room."""
        return self.calls.surface(tenant)

    async def _committed(self, notice: Committed) -> None:
        self.engine.bus.changed(notice.tenant, notice.room_id)


async def _try(engine: Engine, tenant: str, room_id: str) -> None:
    """Finishes what is unfinished in a room, unless somebody else has it."""
    try:
        await engine.table.actor(tenant, room_id)
    except Elsewhere:
        pass


async def _unfinished(store: Store, rooms: Iterable[RoomKey] | None) -> list[RoomKey]:
    wanted = None if rooms is None else set(rooms)
    found: dict[RoomKey, None] = {}
    for kind in UNFINISHED:
        for record in await store.records(RecordQuery(kind, None, limit=EVERY)):
            key = (record.tenant, record.room_id or "")
            if wanted is None or key in wanted:
                found[key] = None
    return list(found)


def join(engine: Engine, options: NodeOptions, rooms: type[Any], secrets: Sequence[str]) -> Nodes:
    """Makes the engine's process one of several; before it is started. Raises `ConfigError`, `StateError`."""
    if engine.opened or engine.nodes is not None:
        raise StateError("the kit is started, or one of several already; say it once, before kit.start()")
    share = getattr(engine.store, "share", None)
    if share is not None:
        share(options.address)
    elif options.ownership is None and not hasattr(engine.store, "ownership"):
        raise ConfigError(
            f'a {type(engine.store).__name__} has one process; use RoomKit("postgresql://...") for several'
        )
    link = options.link
    if link is None:
        from roomkit.net.node_link import SocketLink

        link = SocketLink(options.secrets or tuple(secrets), engine.clock)
    make_bus = getattr(engine.store, "bus", None)
    if isinstance(engine.bus, MemoryBus) and make_bus is not None:
        engine.bus = make_bus() or engine.bus
    engine.nodes = nodes = Nodes(engine, options, link, rooms)
    return nodes


__all__ = ["Nodes", "join"]
