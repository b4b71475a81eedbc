"""Several nodes on one disk: leases with epochs that run out, and a network that is slow, parted or gone."""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roomkit.errors import Fenced, StoreUnavailable
from roomkit.ports.node import Json, NodeHandler, NodeLost
from roomkit.ports.ownership import Held, Lease, NodeSilent, Woken
from roomkit.ports.store import Batch
from roomkit.testing.simulation.process import Lost, Process

if TYPE_CHECKING:
    from roomkit.testing.simulation.world import World

LEASE_S = 2.0
RoomKey = tuple[str, str]


@dataclass(slots=True)
class Leases:
    """The rows that a real store would have: nodes with the time until which they live, rooms with owner and epoch."""

    nodes: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    rooms: dict[RoomKey, tuple[str | None, int]] = field(default_factory=dict[RoomKey, "tuple[str | None, int]"])
    waiting: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])

    def holder(self, tenant: str, room_id: str) -> str | None:
        return self.rooms.get((tenant, room_id), (None, 0))[0]

    def check(self, node: str, batch: Batch) -> None:
        """As every commit does: the writer holds the lease of what it writes, with this epoch. Raises `Fenced`."""
        key = (batch.tenant, batch.room_id) if batch.room_id is not None else ("", node)
        owner, epoch = self.rooms.get(key, (None, 0))
        if owner != node or batch.epoch < epoch:
            raise Fenced(f"epoch {batch.epoch} of {node} is over, {owner} has epoch {epoch}; this writer must stop")

    def wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)


class SimOwnership:
    """The leases of one process: an `Ownership`. Each `begin` makes it a node with a name of its own."""

    def __init__(self, world: World, process: Process, address: str) -> None:
        self.node = ""
        self.address = address
        self._world = world
        self._process = process
        self._lives = 0

    @property
    def _leases(self) -> Leases:
        return self._world.disk.leases

    def _now(self) -> float:
        return self._world.loop.time()

    def begin(self) -> int:
        """Makes the process known under a new name; returns its own epoch."""
        self._lives += 1
        self.node = f"{self._process.name}.{self._lives}"
        self._leases.nodes[self.node] = (self.address, self._now() + LEASE_S)
        self._leases.rooms["", self.node] = (self.node, 1)
        self._world.trace(self._process.name, f"is node {self.node}")
        return 1

    def leave(self) -> None:
        self._give(key for key, (owner, _) in tuple(self._leases.rooms.items()) if owner == self.node)
        self._leases.nodes.pop(self.node, None)

    async def _reach(self) -> None:
        await self._world.reach_disk(self._process)

    def _known(self) -> None:
        if self.node not in self._leases.nodes:
            raise Fenced("another process has taken over from this one")

    async def acquire(self, tenant: str, room_id: str) -> Lease | Held:
        await self._reach()
        self._known()
        leases = self._leases
        owner, epoch = leases.rooms.get((tenant, room_id), (None, 0))
        if owner not in (None, self.node):
            return Held(str(owner), leases.nodes.get(str(owner), ("", 0.0))[0])
        if owner is None:
            epoch += 1
            leases.rooms[tenant, room_id] = (self.node, epoch)
            self._world.trace("leases", f"{self.node} has {tenant}/{room_id} with epoch {epoch}")
        return Lease(tenant, room_id, epoch)

    async def renew(self) -> None:
        await self._reach()
        self._known()
        self._leases.nodes[self.node] = (self.address, self._now() + LEASE_S)

    async def release(self, rooms: Iterable[RoomKey]) -> None:
        rooms = list(rooms)
        await self._reach()
        self._give(rooms)

    def _give(self, rooms: Iterable[RoomKey]) -> None:
        for key in rooms:
            owner, epoch = self._leases.rooms.get(key, (None, 0))
            if owner == self.node:
                self._leases.rooms[key] = (None, epoch)
        self._leases.wake()

    async def take_over(self, node: str) -> list[Lease]:
        await self._reach()
        self._known()
        leases = self._leases
        if leases.nodes.get(node, ("", float("inf")))[1] > self._now():
            return []
        del leases.nodes[node]
        taken: list[Lease] = []
        for (tenant, room_id), (owner, epoch) in tuple(leases.rooms.items()):
            if owner == node:
                leases.rooms[tenant, room_id] = (self.node if tenant else None, epoch + 1)
                if tenant:
                    taken.append(Lease(tenant, room_id, epoch + 1))
        self._world.trace("leases", f"{self.node} takes {len(taken)} rooms over from {node}")
        leases.wake()
        return taken

    async def watch(self) -> AsyncIterator[Woken | NodeSilent]:
        others: dict[str, str] = {}
        while True:
            try:
                await self._reach()
            except StoreUnavailable:  # It is dead, and sees nothing any more.
                return
            now, leases = self._now(), self._leases
            gone = [NodeSilent(node, at) for node, at in others.items() if node not in leases.nodes]
            others = {node: at for node, (at, _) in leases.nodes.items() if node != self.node}
            gone += [NodeSilent(n, at) for n, (at, until) in leases.nodes.items() if n != self.node and until <= now]
            for one in gone:
                yield one
            yield Woken()
            wait = self._world.loop.create_future()
            leases.waiting.append(wait)
            await asyncio.wait([wait], timeout=LEASE_S / 4)


class Network:
    """Who reaches whom. Nodes that are `parted` hear nothing of each other."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self.world = world
        self.dice = dice
        self.links: dict[str, SimLink] = {}
        self.parted: set[frozenset[str]] = set()
        self.pipes: dict[_Pipe, None] = {}

    def part(self, one: str, other: str) -> None:
        self.world.trace("network", f"{one} and {other} are parted")
        self.parted.add(frozenset((one, other)))
        for pipe in tuple(self.pipes):
            if frozenset((pipe.one, pipe.other)) in self.parted:
                pipe.fail("parted")

    def join(self) -> None:
        if self.parted:
            self.world.trace("network", "is whole again")
        self.parted.clear()

    def reach(self, one: str, other: str) -> SimLink | None:
        link = self.links.get(other)
        if link is None or not link.process.alive or frozenset((one, other)) in self.parted:
            return None
        return link

    async def hop(self) -> None:
        if not self.world.calm:
            await asyncio.sleep(self.dice.choice((0.0, 0.0, 0.001, 0.05)))


class SimLink:
    """A `NodeLink` over the simulated network; what goes over it is JSON."""

    def __init__(self, network: Network, process: Process, address: str) -> None:
        self.process = process
        self.address = address
        self._network = network
        self._handler: NodeHandler | None = None
        network.links[address] = self

    def serve(self, handler: NodeHandler) -> None:
        self._handler = handler

    async def call(self, address: str, request: Json) -> Json:
        target = await self._find(address)
        handler = target.handler(address)
        try:
            answer = await target.process.call(handler.call, _copy(request))
        except Lost:
            raise NodeLost(address, "it died", sent=True) from None
        await self._network.hop()
        await self.process.thawed()
        if self._network.reach(self.address, address) is not target:
            raise NodeLost(address, "the answer was lost", sent=True)
        return _copy(answer)

    async def _find(self, address: str) -> SimLink:
        await self.process.thawed()
        await self._network.hop()
        target = self._network.reach(self.address, address)
        if target is None or not self.process.alive:
            raise NodeLost(address, "unreachable", sent=False)
        await target.process.thawed()
        return target

    def handler(self, address: str) -> NodeHandler:
        if self._handler is None:
            raise NodeLost(address, "it does not answer yet", sent=False)
        return self._handler

    async def stream(self, address: str, request: Json) -> AsyncGenerator[Json]:
        target = await self._find(address)
        pipe = _Pipe(self._network, self.address, address)
        target.process.cuts[pipe] = lambda: pipe.fail("it died")
        self._network.pipes[pipe] = None
        pump = target.process.spawn(pipe.pump(target.handler(address), _copy(request)), "node stream")
        try:
            while True:
                item = await pipe.take()
                await self.process.thawed()
                if item is None:
                    return
                yield item
        finally:
            target.process.cuts.pop(pipe, None)
            self._network.pipes.pop(pipe, None)
            pump.cancel()

    async def aclose(self) -> None:
        self._handler = None


class _Pipe:
    """One stream between two nodes, in order."""

    def __init__(self, network: Network, one: str, other: str) -> None:
        self.one = one
        self.other = other
        self._network = network
        self._items: deque[Json | None] = deque()
        self._broken = ""
        self._waiter: asyncio.Future[None] | None = None

    async def pump(self, handler: NodeHandler, request: Json) -> None:
        async for item in handler.stream(request):
            await self._network.hop()
            self._put(_copy(item))
        self._put(None)

    def _put(self, item: Json | None) -> None:
        self._items.append(item)
        self._wake()

    def fail(self, why: str) -> None:
        self._broken = why
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> Json | None:
        while not self._items or self._broken:
            if self._broken:
                raise NodeLost(self.other, self._broken, sent=True)
            self._waiter = self._network.world.loop.create_future()
            await self._waiter
        return self._items.popleft()


def _copy(told: Any) -> Any:
    return json.loads(json.dumps(told))


def unavailable() -> StoreUnavailable:
    return StoreUnavailable("the simulated process is dead")
