"""One schedule, out of one number: who is there, what goes wrong, and when it heals."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from roomkit.channels.ai import AIChannel
from roomkit.channels.websocket import WebSocketChannel
from roomkit.core.engine import KitOptions
from roomkit.errors import RoomKitError, StoreUnavailable
from roomkit.kit import RoomKit
from roomkit.models.delivery import DeliveryPolicy
from roomkit.models.hooks import Trouble
from roomkit.models.room import FloorMode, RoomTimers
from roomkit.ports.channel import TurnPolicy
from roomkit.ports.node import NodeOptions
from roomkit.ports.store import RecordQuery
from roomkit.runtime import Scope
from roomkit.runtime.crashpoint import CRASH_POINTS
from roomkit.servers.door import Door
from roomkit.servers.options import ServerOptions
from roomkit.servers.socket import SocketDoor
from roomkit.testing.clock import VirtualClock
from roomkit.testing.simulation.aftermath import behind
from roomkit.testing.simulation.clients import Page, Phone, Said, Spot
from roomkit.testing.simulation.deeds import (
    DEEDS,
    MORE,
    Consumed,
    Copy,
    Desk,
    Newcomer,
    Shop,
    SimInbox,
    include,
    more_people,
)
from roomkit.testing.simulation.disk import Disk, SimStore
from roomkit.testing.simulation.judge import judge
from roomkit.testing.simulation.nodes import Network, SimLink, SimOwnership
from roomkit.testing.simulation.outside import ASKING, TOOLS, Model, Run, SimChannel, Vendor
from roomkit.testing.simulation.process import HURRY, Lost, Process
from roomkit.testing.simulation.trace import Trace

if TYPE_CHECKING:
    from roomkit.rooms import Rooms
    from roomkit.testing.loop import VirtualLoop

log = logging.getLogger(__name__)
STORM_S = 20.0
"""Virtual seconds after which everything heals, whatever has happened until then."""
NODES = (*(1 for _ in range(21)), 2, 3, 5)
"""How many nodes there are, as often as that."""
LATE_S = 6.0
"""A timer may ring so much too late: until then another process has begun, or taken over."""
PATIENCE = 60
"""Looks at whether all has come to rest, before it counts as never."""
POLICIES = {
    "sms": DeliveryPolicy(max_retries=3, base_delay=0.2, max_delay=2.0, timeout_s=2.0),
    "mail": DeliveryPolicy(max_retries=3, base_delay=0.2, max_delay=2.0, timeout_s=2.0, idempotent=True),
    "pager": DeliveryPolicy(max_retries=2, base_delay=0.2, timeout_s=2.0, on_ambiguous="stop_and_ask"),
}
LOBBY = DeliveryPolicy(max_retries=3, base_delay=0.2, timeout_s=2.0)
"""Of the channel by which rooms are opened."""
FEATURES = ("keyless", "newcomer", "shop", "erase", "segments", "drain", ASKING, *MORE)
CONSUMER = "shop"


class World:
    """Everything in and around the processes. `calm` says that nothing goes wrong any more."""

    def __init__(self, seed: int, loop: VirtualLoop, nodes: int | None = None) -> None:
        self.seed = seed
        self.loop = loop
        self.trace = Trace(loop)
        self.dice = random.Random(seed)
        self.scope = Scope("world", on_failure=lambda failure: self.wrong.append(f"harness: {failure.error!r}"))
        self.wrong: list[str] = []
        self.calm = True
        self.disk = Disk(self, self._fork())
        self.tool_dice = self._fork()
        self.vendors = {name: Vendor(self, name, policy, self._fork()) for name, policy in POLICIES.items()}
        self.vendors["lobby"] = Vendor(self, "lobby", LOBBY, random.Random(seed))
        self.model = Model(self, self._fork())
        self.said: list[Said] = []
        self.gone: list[tuple[str, float]] = []
        """Words that were taken back or replaced, and since when everybody has been told."""
        self.runs: list[Run] = []
        self.copies: dict[Spot, Copy] = {}
        self.secrets: dict[str, tuple[Spot, str]] = {}
        """Words for one person only: in which room, for whom."""
        self.enqueued: list[tuple[int, Spot, str, str]] = []
        """(process, room, key, word), as they were committed."""
        self.consumed: list[Consumed] = []
        self.erased: list[tuple[Phone, float]] = []
        self.newcomers: list[Newcomer] = []
        self.processes: list[Process] = []
        self.slots: dict[int, Process] = {}
        """The one that runs, or will run again, in each place."""
        self.phones: list[Phone] = []
        self.pages: list[Page] = []
        self.deeds: tuple[str, ...] = tuple(DEEDS)
        self._doors: dict[Process, SocketDoor] = {}
        self._choose()
        self.extra = random.Random(f"{seed} and more")
        self.features = frozenset[str]()
        self.more: tuple[str, ...] = ()
        include(self, self.extra.sample(FEATURES, self.extra.choice((0, 1, 2, 3))))
        self.hasty = random.Random(f"{seed} and hurry")
        include(self, (HURRY,) if self.hasty.random() < 0.2 else ())
        patience = random.Random(f"{seed} and patience")
        self.approval_s = patience.choice((30.0, 30.0, 3.0))
        self.later_s = patience.choice((*(0.0 for _ in range(8)), 3_700.0, 6.9 * 86_400.0))
        """How long nothing happens before vendors repeat an old message once more."""
        self.nodes = self.dice.choice(NODES) if nodes is None else nodes
        self.network = Network(self, self._fork())

    def _fork(self) -> random.Random:
        return random.Random(self.dice.getrandbits(64))

    def _choose(self) -> None:
        """What this schedule is about: few things each time, every pair of them in some schedule."""
        dice = self.dice
        tenants = ("default", "acme") if dice.random() < 0.6 else ("default",)
        names = ("r0", "r1") if dice.random() < 0.3 else ("r0",)
        self.spots: list[Spot] = [(tenant, name) for tenant in tenants for name in names]
        self.options = KitOptions(resident_rooms=dice.choice((1, 100)), watch_loop=False, sync_workers=1)
        quiet = dice.choice((0.0, 0.0, 0.3))
        mode = dice.choice(("coalesce", "coalesce", "queue", "interrupt"))
        self.turns = TurnPolicy(mode, quiet, dice.choice(("close", "close", "ask_again")))
        self.channels = ["web", *dice.sample(("sms", "mail", "pager"), dice.choice((1, 1, 2, 3)))]
        self.with_ai = dice.random() < 0.75
        if self.with_ai:
            self.channels.append("ai")
        self.pace = dice.choice((0.1, 0.5, 2.0))
        self.crashes = dice.choice((0, 1, 1, 2))
        self.deeds = tuple(dice.sample(tuple(DEEDS), 5))
        self.idle_s = dice.choice((0.0, 0.0, 0.0, 2.0))
        self.blackout = dice.random() < 0.2

    # -- processes --------------------------------------------------------------------------------------------------

    def start_process(self, slot: int) -> Process:
        process = Process(self, len(self.processes))
        self.processes.append(process)
        self.slots[slot] = process
        process.run(self._build, process)
        return process

    def _build(self, process: Process) -> None:
        store = SimStore(self.disk, process)
        kit = process.kit = RoomKit(store, options=self.options, clock=VirtualClock(self.loop), token_secrets="x" * 32)
        rng = self._fork()
        for name, value in (("_rng", rng), ("random", rng.random)):
            setattr(kit.engine, name, value)
        if self.nodes > 1:
            address = f"http://n{process.number}"
            process.ownership = SimOwnership(self, process, address)
            link = SimLink(self.network, process, address)
            kit.share(NodeOptions(address, ownership=process.ownership, link=link))
        kit.on(Trouble)(partial(self._trouble, process.name))
        if "enqueue" in self.features:
            setattr(store, "inbox", partial(SimInbox, self, process))  # noqa: B010 - only some stores have one
        for vendor in self.vendors.values():
            kit.register_channel(SimChannel(vendor))
        kit.register_channel(WebSocketChannel("web"))
        brain = AIChannel("ai", self.model).configure(
            tools=TOOLS, turn_policy=self.turns, approval_expires_s=self.approval_s
        )
        kit.register_channel(brain)
        options = ServerOptions(authenticate=lambda connection: connection.scope["principal"])
        if "shop" in self.features:
            for tenant in dict.fromkeys(tenant for tenant, _ in self.spots):
                rooms = self.rooms(process, tenant)
                rooms.consume(CONSUMER, Shop(self, tenant, self.extra).take, retries=50, concurrency=2)
        self._doors[process] = SocketDoor(
            Door(kit, replace(options, heartbeat_s=1e6, max_connections_per_principal=1000))
        )

    async def _trouble(self, who: str, notice: Trouble) -> None:
        self.trace(who, f"has trouble with {notice.where}: {notice.error!r:.120}")

    def door_of(self, process: Process) -> SocketDoor:
        return self._doors[process]

    def door(self, dice: random.Random) -> Process | None:
        """A process that takes calls now."""
        if self.nodes == 1:
            process = self.slots.get(0)
            return process if process is not None and process.ready else None
        ready = [process for process in self.slots.values() if process.ready]
        return dice.choice(ready) if ready else None

    async def reach_disk(self, process: Process) -> None:
        """As a question to the store: slow at times, and nothing that is frozen or dead gets there."""
        await process.thawed()
        if not process.alive:
            raise StoreUnavailable("the simulated process is dead")

    @staticmethod
    def rooms(process: Process, tenant: str) -> Rooms:
        return process.kit if tenant == "default" else process.kit.tenant(tenant)

    async def _keep_running(self, slot: int) -> None:
        """Starts a new process whenever the one before has died or, alone on its disk, is silent for too long."""
        while True:
            process = self.start_process(slot)
            if self.crashes and not self.calm:
                self._arm(process)
            try:
                await process.call(process.kit.start)
                process.started = True
                self.trace(process.name, "has started")
            except Lost:
                pass
            except RoomKitError as error:
                process.die(f"because it cannot start: {type(error).__name__}")
            while process.alive and not (process.frozen and self.nodes == 1):
                ends = [process.death] if self.nodes > 1 else [process.death, process.freezing]
                await asyncio.wait(ends, return_when="FIRST_COMPLETED")
                await asyncio.sleep(self.dice.choice((0.0, 0.2, 1.0)))
            await asyncio.sleep(0.05)
            self.crashes -= self.crashes > 0

    # -- the course of things ---------------------------------------------------------------------------------------

    async def live(self) -> list[str]:
        """The whole schedule, and the verdict on it."""
        keepers = [self.scope.spawn(self._keep_running(slot), name="keeper") for slot in range(self.nodes)]
        await self._furnish()
        self.calm = self.disk.calm = False
        if self.crashes:
            self._arm(self.dice.choice(self.processes))
        clients = [self.scope.spawn(life, name="client") for life in self._people()]
        troubles = [self.scope.spawn(trouble, name="trouble") for trouble in self._troubles()]
        self.loop.call_later(STORM_S, self._heal)
        for client in clients:
            await asyncio.shield(client)
        for trouble in troubles:
            trouble.cancel()
        self._heal()
        await self.rest()
        busy = self.nodes > 1 or self.pages or self.features & {"shop", "enqueue"}  # They look round all the time.
        if self.later_s and not busy:
            await asyncio.sleep(self.later_s)
            for phone in self.phones:
                await phone.again()
        verdict = await judge(self)
        for keeper in keepers:
            keeper.cancel()
        await self.stop()
        return verdict

    def _arm(self, process: Process) -> None:
        if self.dice.random() < 0.7:
            process.crash_at = (self.dice.choice(tuple(CRASH_POINTS)), self.dice.choice((1, 2, 3, 5, 8)))

    async def _furnish(self) -> None:
        while (process := self.door(self.dice)) is None:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        for tenant, room in self.spots:
            rooms = self.rooms(process, tenant)
            timers = RoomTimers(inactive_after_seconds=self.idle_s or None)
            made = {"channels": self.channels, "delivery": "every_channel", "timers": timers}
            await process.call(rooms.create_room, room, **made)

    def _people(self) -> list[Any]:
        dice, lives = self.dice, list[Any]()
        outlets = [name for name in self.channels if name in POLICIES]
        for number in range(dice.choice((1, 2, 2, 3))):
            phone = Phone(self, f"p{number}", dice.choice(self.spots), dice.choice(outlets), self._fork())
            self.phones.append(phone)
            lives.append(phone.live(dice.choice((1, 2, 3))))
        for number in range(dice.choice((0, 1, 1, 2))):
            page = Page(self, f"g{number}", dice.choice(self.spots), dice.random() < 0.4, self._fork())
            self.pages.append(page)
            lives.append(page.live(dice.choice((0, 1, 2))))
        for number in range(dice.choice((0, 1, 1, 2))):
            lives.append(Desk(self, f"s{number}", self.spots, self._fork()).live(dice.choice((1, 2, 4))))
        return lives + more_people(self)

    def _troubles(self) -> list[Any]:
        troubles: list[Any] = []
        if self.crashes:
            troubles.append(self._kill())
        if self.blackout:
            troubles.append(self._fill())
        if self.nodes > 1:
            troubles.append(self._part())
        return troubles

    async def _kill(self) -> None:
        """At any moment, in the middle of anything."""
        while True:
            await asyncio.sleep(self.dice.random() * self.pace * 6)
            process = self.dice.choice(tuple(self.slots.values()))
            if not self.crashes or not process.alive or process.crash_at or not process.started:
                continue
            if "drain" in self.features and self.nodes > 1 and self.dice.random() < 0.5:
                self.scope.spawn(process.retire(), name="drain")
            elif self.dice.random() < 0.5:
                process.die("at some moment")
            else:
                process.freeze()
                self.loop.call_later(self.dice.choice((0.5, 2.5, 4.0)), process.thaw)

    async def _part(self) -> None:
        while True:
            await asyncio.sleep(self.dice.random() * self.pace * 6)
            addresses = sorted(address for address, link in self.network.links.items() if link.process.alive)
            if len(addresses) > 1 and self.dice.random() < 0.5:
                self.network.part(*self.dice.sample(addresses, 2))
            else:
                self.network.join()

    async def _fill(self) -> None:
        while True:
            await asyncio.sleep(self.dice.random() * self.pace * 4)
            self.disk.full = True
            self.trace("disk", "is full")
            await asyncio.sleep(self.dice.choice((0.1, 1.0, 3.0)))
            self.disk.full = False
            self.trace("disk", "has space")

    def _heal(self) -> None:
        if self.calm:
            return
        self.calm = self.disk.calm = True
        self.disk.full = False
        self.network.join()
        self.crashes = 0
        for process in self.processes:
            process.crash_at = None
            if process.frozen:
                process.thaw()
        for page in self.pages:
            if page.wire is not None:
                page.wire.stall(False)
        self.trace("world", "heals")

    # -- until nothing is left to do --------------------------------------------------------------------------------

    async def rest(self) -> None:
        """Everybody connects, every question is answered, every lane runs empty."""
        for look in range(PATIENCE):
            for process in self.processes:
                if process.stale:
                    process.die("because another has taken over")
            for page in self.pages:
                await page.settle()
            process = self.door(self.dice)
            settled = all(one.ready and not one.stale for one in self.slots.values())
            if settled and process is not None and await self._quiet(process):
                await asyncio.sleep(3.0)
                left = any(one.stale and one.alive for one in self.processes) or behind(self)
                if all(page.through for page in self.pages) and not left:
                    return
            await asyncio.sleep(0.5 if look < PATIENCE / 2 else 10.0)  # A breaker may be open for minutes.
        self.wrong.append("the rooms never came to rest")

    async def _quiet(self, process: Process) -> bool:
        for tenant, room in self.spots:
            rooms = self.rooms(process, tenant)
            try:
                await process.call(_tidy, self, rooms, room)
            except (Lost, RoomKitError) as error:
                self.trace("world", f"could not tidy {tenant}/{room}: {type(error).__name__}: {error}")
                return False
        engines = [one.kit.engine for one in self.slots.values() if one.alive]
        kinds = ("outbox", "turn", "stream", "inbox")
        rows = any(self.disk.read(RecordQuery(kind, None, limit=1)) for kind in kinds) or behind(self)
        return not rows and not any(e.turns.active() or e.turns.waiting() or e.lanes.backlog for e in engines)

    async def stop(self) -> None:
        """Leaves nothing behind."""
        for process in self.processes:
            process.die("at the end")
        for process in self.processes:
            await process.gone()
        await self.scope.aclose()

    # -- what clients use -------------------------------------------------------------------------------------------

    async def nap(self, dice: random.Random) -> None:
        """Between two things that somebody does."""
        await asyncio.sleep(0.0 if self.calm else dice.choice((0.0, 0.0, 0.1, 1.0)) * self.pace)

    async def hop(self, dice: random.Random) -> None:
        """Through the network."""
        await asyncio.sleep(0.0 if self.calm else dice.choice((0.0, 0.0, 0.001, 0.05)))

    async def pause(self, dice: random.Random) -> None:
        """Before trying again."""
        await asyncio.sleep(0.2 if self.calm else dice.choice((0.05, 0.2, 1.0)))


async def _tidy(world: World, rooms: Rooms, room: str) -> None:
    now = await rooms.get_room(room)
    if not now.open:
        await rooms.reopen_room(room)
    for asked in await rooms.approvals(room):
        late = VirtualClock(world.loop).now().timestamp() - datetime.fromisoformat(asked["expires_at"]).timestamp()
        if late > LATE_S:
            world.wrong.append(f"the approval {asked['id']} of {room} expired {late:.1f} s ago, and still waits")
        await rooms.answer_approval(asked["id"], False, by="tidy", room_id=room)
    if now.floor.mode is not FloorMode.AI:
        await rooms.release(room)
