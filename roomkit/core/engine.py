"""Engine: the parts of one kit joined together: store, actors, lanes, turns, timers, hooks. RoomKit is its front."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from roomkit.core import approvals, floor, membership
from roomkit.core.actor import Change, RoomActor
from roomkit.core.bus import MemoryBus
from roomkit.core.courtesy import Courtesy
from roomkit.core.hooks import Hooks
from roomkit.core.identity import AddressBook
from roomkit.core.inbound import Inbound
from roomkit.core.lanes import Item, OutboxLanes
from roomkit.core.memory import MemoryStore
from roomkit.core.policy import MAX_CHAIN_DEPTH
from roomkit.core.recovery import ALL, recover
from roomkit.core.results import CURRENT, InboundResult
from roomkit.core.state import RoomState, event_by_id, key, load
from roomkit.core.timers import Timers
from roomkit.core.transcode import Transcoder
from roomkit.core.turns import Turns
from roomkit.errors import ChannelNotFound, RoomKitError, RoomNotFound, StateError, StoreUnavailable
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.hooks import BreakerChanged, Notice, Trouble
from roomkit.models.room import (
    Access,
    Assurance,
    ChannelBinding,
    Room,
    RoomTimers,
)
from roomkit.net.breaker import BreakerChange, Breakers
from roomkit.net.ratelimit import TokenBucket
from roomkit.ports.blob import BlobStore
from roomkit.ports.bus import EphemeralBus
from roomkit.ports.channel import Channel
from roomkit.ports.identity import IdentityResolver, InboundRouter
from roomkit.ports.store import Batch, Duplicate, Record, RecordKey, RecordQuery, Store, StoreInfo
from roomkit.runtime import Clock, Scope, StallWatchdog, SystemClock, TaskFailure, WorkerPool
from roomkit.runtime.eager import Eager

log = logging.getLogger(__name__)
RETRY_WRITE_S = 0.5
PRUNE_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class KitOptions:
    """Settings of a kit; times in seconds, sizes in items.

    `inbound_limit` is (messages a second, burst) per channel and sender; None is unlimited. `identity_channel_types`
    limits identity resolution to these types; None means all.
    """

    mailbox: int = 1_000
    resident_rooms: int = 10_000
    max_chain_depth: int = MAX_CHAIN_DEPTH
    process_timeout_s: float = 30.0
    identity_timeout_s: float = 10.0
    drain_timeout_s: float = 10.0
    inbound_limit: tuple[float, float] | None = None
    identity_channel_types: tuple[str, ...] | None = None
    router: InboundRouter | None = None
    transcoder: Transcoder | None = None
    courtesy: Courtesy | None = None
    stall_threshold_s: float = 0.25
    sync_workers: int = 8


@dataclass(slots=True)
class Template:
    """What a new room is furnished with (D25). `channels` None takes the source, the app channel and default AIs."""

    channels: tuple[str, ...] | None = None
    timers: RoomTimers = field(default_factory=RoomTimers)
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


class Engine:
    """Everything a kit's rooms share. One event loop, one store."""

    def __init__(
        self,
        store: Store | None,
        clock: Clock | None,
        options: KitOptions,
        *,
        resolver: IdentityResolver | None = None,
        bus: EphemeralBus | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.store: Store = store if store is not None else MemoryStore()
        self.clock: Clock = clock or SystemClock()
        self.options = options
        self.info = StoreInfo("", 0, durable=False)
        self.scope = Scope("rooms", on_failure=self._task_failed)
        self.pool = WorkerPool(options.sync_workers)
        self.eager = Eager(Scope("eager", on_failure=self._task_failed))
        self.hooks = Hooks(self.scope, self.pool)
        self.bus: EphemeralBus = bus or MemoryBus()
        self.breakers = Breakers(on_change=self._breaker_changed)
        self.lanes = OutboxLanes(self, self.breakers)
        self.turns = Turns(self)
        self.timers = Timers(self)
        self.inbound = Inbound(self)
        self.channels: dict[str, Channel] = {}
        self.tenants: dict[str, str] = {}
        self.defaults: list[str] = []
        self.template = Template()
        self.answers: dict[str, asyncio.Future[Any]] = {}
        self.counters: dict[str, float] = {}
        self.attention_listeners: list[Callable[[str, Room], None]] = []
        self.draining = False
        self.started = False
        self.media_link: Callable[[str, str], str] | None = None
        self.blobs: Callable[[], BlobStore] | None = None
        self._resolver = resolver
        self._book: AddressBook | None = None
        self._rng = rng
        self.random: Callable[[], float] = (rng or random).random
        self._actors: OrderedDict[tuple[str, str], RoomActor] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Future[RoomActor | None]] = {}
        self._reach: dict[str, str] = {}
        self._limits: OrderedDict[tuple[str, str], TokenBucket] = OrderedDict()
        self._watchdog: StallWatchdog | None = None
        self._waiting: set[tuple[str, str]] = set()

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> dict[str, int]:
        """Opens the store and resumes what was unfinished (D38). Idempotent."""
        if self.started:
            return {}
        self.info = await self.store.open()
        self.started = True
        self.draining = False
        await self.timers.load()
        waiting = RecordQuery("room", None, terms=("attention:waiting",), limit=ALL)
        self._waiting = {(record.tenant, record.key) for record in await self.store.records(waiting)}
        counts = await recover(self)
        self.scope.spawn(self.timers.run(), name="timers")
        self.scope.spawn(self._prune(), name="prune dedupe keys")
        if self.info.durable:
            self._watchdog = StallWatchdog(threshold_s=self.options.stall_threshold_s)
            self._watchdog.start()
        return counts

    async def aclose(self) -> None:
        """Stops: running replies checkpoint, deliveries stay in the outbox, the store closes. Idempotent."""
        self.draining = True
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
        await self.scope.aclose()
        await self.lanes.flushed()
        await self.eager.scope.aclose()
        for channel in tuple(self.channels.values()):
            await channel.close()
        await self.bus.aclose()
        if self.started:
            self.started = False
            await self.store.aclose()

    async def drain(self, timeout: float | None = None) -> bool:
        """Lets running replies and deliveries finish; False when some were left to the next start (R11)."""
        limit = timeout if timeout is not None else self.options.drain_timeout_s
        try:
            async with asyncio.timeout(limit):
                while self.turns.active() or self.lanes.backlog:  # noqa: ASYNC110 - many owners, none with an event
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        finally:
            self.draining = True
        return True

    def require_started(self) -> None:
        """An in-memory kit may be used at once; a durable one must have been started (D38)."""
        if not self.started:
            raise StateError("this kit is not started: use `async with RoomKit(...) as kit`, or await kit.start()")

    # -- small services ---------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self.info.epoch

    def now(self) -> datetime:
        return self.clock.now()

    def new_id(self) -> str:
        """Milliseconds, so that ids sort and index pages stay warm, then 64 random bits: unguessable by default,
        repeatable under an injected generator."""
        tail = f"{self._rng.getrandbits(64):016x}" if self._rng is not None else os.urandom(8).hex()
        return f"{int(self.now().timestamp() * 1000):011x}{tail}"

    def count(self, name: str, by: float = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + by

    def observe(self, name: str, value: float) -> None:
        """Adds to a running sum and count, exported as a summary."""
        self.count(f"{name}_sum", value)
        self.count(f"{name}_count")

    def warn(self, actor: RoomActor, message: str) -> None:
        log.warning("room %s: %s", actor.room_id, message)

    def trouble(self, actor: RoomActor, where: str, error: Exception) -> None:
        log.error("%s in room %s: %s", where, actor.room_id, error)
        self.hooks.tell(Trouble(actor.tenant, actor.room_id, where, error))

    def _task_failed(self, failure: TaskFailure) -> None:
        self.count("task_failures")
        if isinstance(failure.error, Exception):
            self.hooks.tell(Trouble("", "", failure.name, failure.error))

    def _breaker_changed(self, change: BreakerChange) -> None:
        self.count("breaker_changes")
        self.hooks.tell(BreakerChanged("", change.recipient or "", change.provider, change.state.value))

    def admit(self, channel_id: str, sender: str) -> bool:
        """One token of the sender's inbound budget, in bounded memory."""
        assert self.options.inbound_limit is not None
        bucket = self._limits.get((channel_id, sender))
        if bucket is None:
            rate, burst = self.options.inbound_limit
            bucket = self._limits[channel_id, sender] = TokenBucket(rate, burst)
            if len(self._limits) > 10_000:
                self._limits.popitem(last=False)
        self._limits.move_to_end((channel_id, sender))
        return bucket.try_acquire()

    async def commit_until_done(self, batch: Batch) -> None:
        """A write that nobody waits for is repeated until the store works again."""
        while True:
            try:
                await self.store.commit(batch)
            except StoreUnavailable:
                self.count("write_retries")
                await asyncio.sleep(RETRY_WRITE_S)
            else:
                return

    def write_soon(self, batch: Batch) -> None:
        if not self.eager.scope.closed:
            self.eager.start(self.commit_until_done(batch))

    async def forget_row(self, record: Record) -> None:
        gone = RecordKey(record.kind, record.tenant, record.key)
        await self.store.commit(Batch(record.tenant, self.epoch, delete=(gone,)))

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            for tenant in {"default", *self.tenants.values()}:
                await self.commit_until_done(Batch(tenant, self.epoch, prune_dedupe_before=self.now().timestamp()))

    # -- channels ---------------------------------------------------------------------------------------------------

    def register(self, channel: Channel, tenant: str, *, default: bool) -> None:
        self.channels[channel.channel_id] = channel
        self.tenants[channel.channel_id] = tenant
        self._reach[channel.channel_id] = channel.reach
        if default:
            self.defaults.append(channel.channel_id)

    def unregister(self, channel_id: str) -> Channel:
        channel = self.channels.pop(channel_id)
        self.tenants.pop(channel_id, None)
        self._reach.pop(channel_id, None)
        if channel_id in self.defaults:
            self.defaults.remove(channel_id)
        return channel

    def channel(self, channel_id: str, tenant: str) -> Channel:
        """A channel of the tenant's own, or one shared by the default tenant."""
        found = self.channels.get(channel_id)
        if found is None or self.tenants[channel_id] not in (tenant, "default"):
            raise ChannelNotFound(channel_id, self.channels)
        return found

    def reach(self) -> Mapping[str, str]:
        return self._reach

    def binding(
        self,
        channel: Channel,
        room_id: str,
        tenant: str,
        *,
        metadata: dict[str, Any] | None = None,
        access: Access = Access.READ_WRITE,
        visibility: str = "all",
        participant_id: str | None = None,
        assurance: Assurance = Assurance.CLAIMED,
        fallback_after_s: float | None = None,
    ) -> ChannelBinding:
        metadata = dict(metadata or {})
        recipient_key = getattr(channel, "recipient_key", None)
        if recipient_key in metadata and "address" not in metadata:
            metadata["address"] = metadata[recipient_key]
        return ChannelBinding(
            channel_id=channel.channel_id,
            room_id=room_id,
            channel_type=channel.channel_type,
            tenant=tenant,
            category=channel.category,
            direction=channel.direction,
            access=access,
            visibility=visibility,
            participant_id=participant_id,
            assurance=assurance,
            attached_at=self.now(),
            capabilities=channel.capabilities,
            fallback_after_s=fallback_after_s,
            metadata=metadata,
        )

    # -- rooms ------------------------------------------------------------------------------------------------------

    async def actor(self, tenant: str, room_id: str) -> RoomActor | None:
        """The room's actor, loaded when it is not resident; None when the tenant has no such room."""
        self.require_started()
        actor_key = (tenant, room_id)
        found = self._actors.get(actor_key)
        if found is not None:
            self._actors.move_to_end(actor_key)
            return found
        loading = self._loading.get(actor_key)
        if loading is not None:
            return await asyncio.shield(loading)
        gate: asyncio.Future[RoomActor | None] = asyncio.get_running_loop().create_future()
        self._loading[actor_key] = gate
        actor: RoomActor | None = None
        try:
            capabilities = {cid: channel.capabilities for cid, channel in self.channels.items()}
            state = await load(self.store, tenant, room_id, capabilities)
            if state is not None:
                actor = self._admit_actor(RoomActor(self, state))
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

    async def require_actor(self, tenant: str, room_id: str) -> RoomActor:
        found = await self.actor(tenant, room_id)
        if found is None:
            raise RoomNotFound(room_id, await self.room_ids(tenant))
        return found

    async def room_ids(self, tenant: str) -> list[str]:
        """A few ids for a did-you-mean."""
        return [record.key for record in await self.store.records(RecordQuery("room", tenant, limit=200))]

    def _admit_actor(self, actor: RoomActor) -> RoomActor:
        self._actors[actor.tenant, actor.room_id] = actor
        excess = len(self._actors) - self.options.resident_rooms
        if excess > 0:
            self._evict(excess)
        return actor

    def _evict(self, excess: int) -> None:
        """Sends idle rooms back to the store, the longest unused first."""
        for actor_key, actor in list(self._actors.items())[: excess + 64]:
            if excess <= 0:
                return
            if actor.idle and not self.lanes.busy(actor) and not self.turns.busy(actor):
                del self._actors[actor_key]
                excess -= 1

    @property
    def resident(self) -> int:
        return len(self._actors)

    def loaded(self, tenant: str, room_id: str) -> RoomActor | None:
        """The room's actor if it is in memory."""
        return self._actors.get((tenant, room_id))

    def actors(self) -> list[RoomActor]:
        return list(self._actors.values())

    async def create_room(
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
        self.require_started()
        room_id = room_id or self.new_id()
        if await self.actor(tenant, room_id) is not None:
            raise StateError(f'room "{room_id}" exists already; choose another id or use kit.get_room()')
        now = self.now()
        room = Room(
            id=room_id,
            tenant=tenant,
            created_at=now,
            updated_at=now,
            external_id=external_id,
            metadata={**self.template.metadata, **(metadata or {})},
            **cast("dict[str, Any]", {"timers": self.template.timers, **(settings or {})}),
        )
        actor = RoomActor(self, RoomState(room))
        change = Change(room=room)
        wanted = channels if channels is not None else self.template.channels
        if wanted is None:
            wanted = tuple(dict.fromkeys(cid for cid in self.defaults if self._shared(cid, tenant)))
        for channel_id in wanted:
            channel = self.channel(channel_id, tenant)
            change.bindings[channel_id] = self.binding(channel, room_id, tenant)
        if source is not None:
            change.bindings[source.channel_id] = source.model_copy(update={"room_id": room_id})
        change.system(
            EventType.ROOM_CREATED, "room_created", channels=sorted(change.bindings), external_id=external_id, by=sender
        )
        self._actors[tenant, room_id] = actor
        try:
            await actor.call(_commit, change)
        except BaseException:
            self._actors.pop((tenant, room_id), None)
            raise
        self._admit_actor(actor)
        if room.timers.inactive_after_seconds is not None:
            membership.arm_timers(actor)
        self.count("rooms_created")
        return actor

    def _shared(self, channel_id: str, tenant: str) -> bool:
        return self.tenants.get(channel_id) in (tenant, "default")

    # -- what the parts tell ----------------------------------------------------------------------------------------

    def committed(self, actor: RoomActor, events: list[RoomEvent]) -> None:
        self.count("events", len(events))

    def waiting_rooms(self, tenant: str) -> int:
        """How many rooms of a tenant wait for a person now."""
        return sum(1 for waiting_tenant, _ in self._waiting if waiting_tenant == tenant)

    def attention_changed(self, actor: RoomActor) -> None:
        room = actor.state.snapshot()
        if room.attention is None:
            self._waiting.discard((actor.tenant, actor.room_id))
        else:
            self._waiting.add((actor.tenant, actor.room_id))
        for listener in tuple(self.attention_listeners):
            listener(actor.tenant, room)

    async def timer_rang(self, tenant: str, room_id: str, name: str, data: dict[str, Any]) -> None:
        actor = await self.actor(tenant, room_id)
        if actor is None:
            return
        kind = name.split(":", 1)[0]
        if kind in ("idle", "close"):
            await actor.call(membership.timer_due, kind)
        elif kind == "floor":
            await actor.call(floor.lease_due, data["generation"])
        elif kind == "approval":
            await self._approval_due(actor, data["id"])
        elif kind == "fallback":
            await self._unread(actor, data["index"], data["channel"])

    async def _approval_due(self, actor: RoomActor, approval_id: str) -> None:
        try:
            await actor.call(approvals.answer, approval_id, False, "system", "expired", True)
        except RoomKitError as error:
            log.debug("approval %s was answered before it expired: %s", approval_id, error)

    async def _unread(self, actor: RoomActor, index: int, channel_id: str) -> None:
        """A message is still unread on the way that was chosen: try the next one (D28)."""
        found = await self.store.records(
            RecordQuery("delivery", actor.tenant, key=key(actor.room_id, index, channel_id))
        )
        if found and found[0].value.get("state") == "read":
            return
        binding = actor.state.bindings.get(channel_id)
        if binding is not None and binding.last_read_index >= index:
            return
        from roomkit.ports.store import EventQuery

        events = await self.store.events(EventQuery(actor.tenant, actor.room_id, start=index, stop=index + 1))
        next_way = self.fallback_for(actor, events[0], channel_id) if events else None
        if next_way is not None:
            await self.deliver_also(actor, events[0], next_way)

    def fallback_for(self, actor: RoomActor, event: RoomEvent, channel_id: str) -> str | None:
        """Another way to the same person that this event has not been tried on."""
        failed = actor.state.bindings.get(channel_id)
        if failed is None or failed.participant_id is None or actor.state.room.delivery == "every_channel":
            return None
        others = [
            b
            for b in actor.state.bindings.values()
            if b.participant_id == failed.participant_id
            and self._reach.get(b.channel_id) == "outbox"
            and b.can_read
            and not b.output_muted
            and b.channel_id != event.source.channel_id
        ]
        others.sort(key=lambda b: (b.attached_at, b.channel_id))
        ids = [b.channel_id for b in others]
        person = actor.state.participants.get(failed.participant_id)
        if person is not None and person.last_channel_id in ids:
            ids.remove(person.last_channel_id)
            ids.insert(0, person.last_channel_id)
        position = ids.index(channel_id) + 1 if channel_id in ids else 0
        return ids[position] if position < len(ids) else None

    async def deliver_also(self, actor: RoomActor, event: RoomEvent, channel_id: str) -> None:
        """Adds one delivery of an event that is already in the log."""
        value = {"channel": channel_id, "index": event.index, "event_id": event.id, "attempts": 0}
        row = Record("outbox", actor.tenant, key(actor.room_id, event.index, channel_id), value, actor.room_id)
        await self.store.commit(Batch(actor.tenant, self.epoch, put=(row,)))
        self.lanes.put(actor, channel_id, Item(event, event.index, event.id, CURRENT.get()))

    async def first_result(self, tenant: str, duplicate: Duplicate) -> InboundResult:
        return await self.event_result(tenant, duplicate.room_id, duplicate.event_id)

    async def event_result(self, tenant: str, room_id: str, event_id: str) -> InboundResult:
        """What the first delivery of a message came to."""
        event: RoomEvent | None = await event_by_id(self.store, tenant, room_id, event_id)
        blocked = event is not None and event.blocked
        reason = (event.blocked_reason or event.blocked_by) if event is not None else None
        return InboundResult(event, room_id, blocked, reason, duplicate=True)

    def tell(self, notice: Notice) -> None:
        self.hooks.tell(notice)

    # -- people and numbers -----------------------------------------------------------------------------------------

    @property
    def address_book(self) -> AddressBook:
        if self._book is None:
            self._book = AddressBook(self.store, self.epoch)
        return self._book

    @property
    def resolver(self) -> IdentityResolver | None:
        return self._resolver if self._resolver is not None else self._book

    def stats(self) -> dict[str, float]:
        """Counters and gauges for `/metrics`."""
        health = self.store.health()
        return {
            **self.counters,
            **{f"store_{name}": value for name, value in health.counters.items()},
            "store_writable": float(health.writable),
            "store_pending": health.pending,
            "rooms_resident": self.resident,
            "outbox_backlog": self.lanes.backlog,
            "turns_active": self.turns.active(),
            "turns_waiting": self.turns.waiting(),
            "timers": len(self.timers),
            "rooms_waiting": len(self._waiting),
            "mailbox_depth": sum(actor.depth for actor in self._actors.values()),
            "observers_dropped": self.hooks.dropped,
            "tasks": len(self.scope),
        }


async def _commit(actor: RoomActor, change: Change) -> None:
    await actor.commit(change)


__all__ = ["Engine", "KitOptions", "Template"]
