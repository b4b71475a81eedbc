"""Nodes: this process as one of several on one store. It owns rooms by lease, finds the owners of all others, and takes
over from who is silent. Loaded only where a kit was told so (`NodeOptions`)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from roomkit.core import recovery
from roomkit.core.actor import RoomActor
from roomkit.core.bus import MemoryBus
from roomkit.core.following import Follower
from roomkit.core.forwarding import Calls
from roomkit.core.state import BINDING, PARTICIPANT, ROOM, RoomState, all_of, load, state_of
from roomkit.core.streams import Deliver, View, Viewer
from roomkit.errors import ConfigError, Elsewhere, Fenced, StateError, StoreError
from roomkit.models.hooks import Committed
from roomkit.models.stream import Ephemeral
from roomkit.ports.node import NodeLink, NodeOptions
from roomkit.ports.ownership import Held, Lease, NodeSilent, Ownership
from roomkit.ports.store import Record, RecordQuery
from roomkit.runtime import Scope, monotonic

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
RoomKey = tuple[str, str]
T = TypeVar("T")
KINDS = (BINDING, PARTICIPANT, "detached", "outbox", "stream", "turn", "timer")
"""What is read of a room, beside itself and its head, when it is brought into memory."""
UNFINISHED = ("stream", "turn", "outbox")
EVERY = 10_000_000
RENEW_S = 0.5
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
RESUMED_S = 1.0
AGAIN_S = 0.05
AGAIN_LATER_S = 0.25
"""How soon somebody who waits for an owner asks again without any news: of one who gives the room away, of one who is
silent."""
OWNERS = 100_000
INHERITING_S = 2.0


class Nodes:
    """One per engine. `started` it renews, watches the others and sweeps; `aclose` leaves the rooms to them."""

    def __init__(self, engine: Engine, options: NodeOptions, link: NodeLink, rooms: type[Any]) -> None:
        """`rooms` is the class of a tenant's surface, whose methods are forwarded."""
        self.engine = engine
        self.address = options.address
        self.link = link
        self.calls = Calls(self, rooms)
        self.moving = False
        """Rooms are given away and none is taken any more."""
        self.on_sweep: list[Callable[[], Any]] = []
        self._options = options
        self._scope = Scope("nodes", on_failure=self._failed)
        self._watching = Scope("watch", on_failure=self._failed)
        self._exits: dict[RoomKey, Callable[[], None]] = {}
        self._resuming: dict[RoomKey, asyncio.Task[None]] = {}
        self._asked: dict[str, set[Callable[[], object]]] = {}
        self._owners: dict[RoomKey, str] = {}
        self._heir: str | None = None
        self._inheriting = 0.0
        self._news: asyncio.Future[None] | None = None
        self._reviving = asyncio.Lock()
        self._generation = 0
        self._checking = False
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
        self.moving = True
        if self._unhook is not None:
            self._unhook()
        await self.link.aclose()
        await self._watching.aclose()
        await self._scope.aclose()

    async def hand_over(self, limit: float) -> bool:
        """Gives every room away as soon as nothing is under way in it: replies end or, after `limit` seconds, are left
        to the next owner as they are in the store. True when nothing was cut short (R11)."""
        engine = self.engine
        self.moving = engine.draining = True
        late = monotonic() + limit
        while actors := engine.table.actors():
            at_work = engine.turns.at_work() | engine.lanes.at_work()
            ready = [a for a in actors if not a.busy and (a.tenant, a.room_id) not in at_work]
            for actor in ready:
                self.drop(actor)
            await engine.lanes.flushed()
            await self._release((actor.tenant, actor.room_id) for actor in ready)
            if len(ready) == len(actors):
                break
            if monotonic() > late:
                return False
            await asyncio.sleep(PAUSE_S)
        return True

    def _failed(self, failure: Any) -> None:
        self.engine.count("task_failures")

    # -- rooms of one's own -------------------------------------------------------------------------------------------

    async def acquire(self, tenant: str, room_id: str) -> int:
        """The epoch of this node's lease. Raises `Elsewhere` for another node's room, or when this one takes none."""
        if self.moving:
            raise Elsewhere(tenant, room_id, "")
        try:
            answer = await self.ownership.acquire(tenant, room_id)
        except Fenced:
            await self.revive(self._generation)
            raise Elsewhere(tenant, room_id, "") from None
        if isinstance(answer, Held):
            if answer.address == self.address:
                raise Elsewhere(tenant, room_id, "")  # of this process before it was restarted
            if answer.address:
                while len(self._owners) >= OWNERS:
                    del self._owners[next(iter(self._owners))]
                self._owners[tenant, room_id] = answer.address
                if monotonic() < self._inheriting:
                    self._heir = answer.address
            raise Elsewhere(tenant, room_id, answer.address)
        return answer.epoch

    async def read(self, keys: list[RoomKey]) -> AsyncGenerator[RoomActor]:
        """For `RoomTable.load`: takes the rooms and makes their actors. Rooms that do not exist are not taken."""
        for tenant, room_id in keys:
            if (address := self._owners.get((tenant, room_id)) or self._heir_now()) is not None:
                self._owners[tenant, room_id] = address
                raise Elsewhere(tenant, room_id, address)
            if await self.engine.store.records(RecordQuery(ROOM, tenant, key=room_id)):
                epoch = await self.acquire(tenant, room_id)
                for actor in await self._read_owned({(tenant, room_id): epoch}, [(tenant, room_id)]):
                    if actor.retired:  # lost again before anybody had it
                        raise Elsewhere(tenant, room_id, "")
                    yield actor

    async def look(self, tenant: str, room_id: str) -> RoomState | None:
        return await load(self.engine.store, tenant, room_id, self._capabilities())

    async def _read_owned(self, epochs: dict[RoomKey, int], keys: Sequence[RoomKey]) -> list[RoomActor]:
        capabilities, made = self._capabilities(), list[RoomActor]()
        for key, records in (await self._records(keys)).items():
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
            recovery.resume_delivery(actor, record)
        streams, turns = records.get("stream", ()), records.get("turn", ())
        if streams or turns:
            key = (actor.tenant, actor.room_id)
            task = self._scope.spawn(
                recovery.resume_replies(actor, streams, turns), name=f"resume {actor.room_id}", awaited=False
            )
            self._resuming[key] = task
            task.add_done_callback(lambda done: self._resuming.get(key) is done and self._resuming.pop(key))

    async def resumed(self, tenant: str, room_id: str) -> None:
        """Waits until the room's cut replies are closed, or for a moment."""
        task = self._resuming.get((tenant, room_id))
        if task is not None:
            await asyncio.wait([task], timeout=RESUMED_S)

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

    def drop(self, actor: RoomActor) -> None:
        """The room is another node's, or will be: everything about it here ends without a word to the store."""
        self.engine.table.remove(actor)
        self.left(actor)
        self.engine.lanes.forget(actor)
        self.engine.turns.forget(actor)
        resuming = self._resuming.pop((actor.tenant, actor.room_id), None)
        if resuming is not None:
            resuming.cancel()
        actor.hub.lose(actor.room_id)

    def lost(self, actor: RoomActor) -> None:
        """A commit was refused: somebody else has this room, and perhaps all of them."""
        self.engine.count("node_rooms_lost")
        if not actor.retired:
            self.drop(actor)
        if not self._scope.closed and not self._checking:
            self._checking = True
            self._scope.spawn(self._check(self._generation), name="check the lease")

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
        return self._reviving.locked()

    async def revived(self) -> None:
        """Waits until this node has begun again."""
        async with self._reviving:
            pass

    async def revive(self, generation: int) -> None:
        """This node was taken for dead and is: it forgets all its rooms and begins again as a new one."""
        async with self._reviving:
            if generation != self._generation or self._scope.closed:
                return
            self._generation += 1
            engine = self.engine
            engine.count("node_revivals")
            log.warning("another node has taken over from this one, which was silent for too long; it begins again")
            self._watching.cancel()
            for actor in engine.table.actors():
                self.drop(actor)
            engine.timers.clear()
            await engine.lanes.flushed()
            await engine.store.aclose()
            while True:
                try:
                    engine.info = await engine.store.open()
                    break
                except StoreError as error:
                    log.warning("the store cannot be opened again yet: %s", error)
                    await asyncio.sleep(RENEW_S)
            self._watching.spawn(self._watch(), name="watch the nodes")

    # -- the others ---------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self._check(self._generation)

    async def _watch(self) -> None:
        async for sign in self.ownership.watch():
            if isinstance(sign, NodeSilent):
                self._gone(sign.address)
                await self._take_over(sign.node)

    async def _take_over(self, node: str) -> None:
        if self.moving:
            return
        generation = self._generation
        try:
            leases = await self.ownership.take_over(node)
        except Fenced:
            self._scope.spawn(self.revive(generation), name="begin again")
            return
        except StoreError as error:
            log.warning("a silent node was not taken over: %s", error)
            return
        if leases:
            self.engine.count("node_take_overs")
            log.warning("took over %d rooms of a node that is silent or has left", len(leases))
            self._scope.spawn(self._recover(leases), name="recover rooms")

    async def _recover(self, leases: list[Lease]) -> None:
        """Brings the rooms into memory: first those where something is unfinished."""
        epochs = {(lease.tenant, lease.room_id): lease.epoch for lease in leases}
        most = PRELOADED if self.address else 0
        first = list(islice(epochs, most))

        async def read(keys: list[RoomKey]) -> AsyncGenerator[RoomActor]:
            self._tell_news()
            taken = set(keys)
            urgent = [key for key in await self._unfinished(epochs.keys()) if key in taken]
            some = list(dict.fromkeys((*urgent, *keys)))
            for start in range(0, len(some), CHUNK):
                for actor in await self._read_owned(epochs, some[start : start + CHUNK]):
                    yield actor
                await asyncio.sleep(0)

        await self.engine.table.load(first, read)
        for tenant, room_id in await self._unfinished(set(epochs).difference(first)):
            await self._try(tenant, room_id)
        await self.engine.timers.load(epochs)
        if not self.address:
            await self._release(key for key in epochs if self.engine.table.loaded(*key) is None)

    async def _try(self, tenant: str, room_id: str) -> None:
        """Finishes what is unfinished in a room, unless somebody else has it."""
        try:
            await self.engine.table.actor(tenant, room_id)
        except Elsewhere:
            pass

    async def _unfinished(self, rooms: Iterable[RoomKey] | None) -> list[RoomKey]:
        wanted = None if rooms is None else set(rooms)
        found: dict[RoomKey, None] = {}
        for kind in UNFINISHED:
            for record in await self.engine.store.records(RecordQuery(kind, None, limit=EVERY)):
                key = (record.tenant, record.room_id or "")
                if wanted is None or key in wanted:
                    found[key] = None
        return list(found)

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
        if self.moving:
            return
        engine = self.engine
        late = engine.now().timestamp() - LATE_S
        for record in await engine.store.records(RecordQuery("timer", None, due_before=late, order="due", limit=1000)):
            if not engine.timers.armed(record):
                engine.timers.arm(record)
        if everything:
            for tenant, room_id in await self._unfinished(None):
                if engine.table.loaded(tenant, room_id) is None:
                    await self._try(tenant, room_id)

    async def _give_back(self) -> None:
        """Nobody can be sent here, so rooms are kept only as long as there is something to do."""
        while True:
            await asyncio.sleep(GIVE_BACK_S)
            idle = [a for a in self.engine.table.actors() if a.idle and (a.tenant, a.room_id) not in self._resuming]
            for actor in idle:
                self.drop(actor)
            if idle:
                await self.engine.lanes.flushed()
                await self._release((actor.tenant, actor.room_id) for actor in idle)

    async def _release(self, rooms: Iterable[RoomKey]) -> None:
        keys = list(rooms)
        if keys:
            try:
                await self.ownership.release(keys)
            except StoreError as error:
                log.warning("%d rooms could not be released and are kept until the lease ends: %s", len(keys), error)

    # -- finding the owner --------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """For somebody who waits for it."""
        return self._scope.spawn(work, name="ask a node", awaited=True)

    def forget_owner(self, elsewhere: Elsewhere) -> None:
        """It was not there: the next one who asks looks for the owner again."""
        self._owners.pop((elsewhere.tenant, elsewhere.room_id), None)
        self._heir = None

    def _heir_now(self) -> str | None:
        """Who has taken over lately has most likely got this room too; if not, it says so."""
        return self._heir if monotonic() < self._inheriting else None

    async def news(self, elsewhere: Elsewhere) -> None:
        """Waits until the owner of this room may be another one."""
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._news], timeout=AGAIN_LATER_S if elsewhere.address else AGAIN_S)

    def _tell_news(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set_result(None)

    @contextmanager
    def asking(self, address: str, cut: Callable[[], object]) -> Generator[None]:
        """While the node there is asked: `cut` is called as soon as it is known to be gone."""
        waiting = self._asked.setdefault(address, set())
        waiting.add(cut)
        try:
            yield
        finally:
            waiting.discard(cut)
            if not waiting and self._asked.get(address) is waiting:
                del self._asked[address]

    def _gone(self, address: str) -> None:
        """The node there is silent or has left: whoever waits for its answer hears of it."""
        for key in [key for key, owner in self._owners.items() if owner == address]:
            del self._owners[key]
        self._heir, self._inheriting = None, monotonic() + INHERITING_S
        for cut in tuple(self._asked.get(address, ())):
            cut()
        self._tell_news()

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
            await self._release([("", name)])

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
