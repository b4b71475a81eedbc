"""Engine: the parts of one kit joined together: store, actors, lanes, turns, timers, hooks. RoomKit is its front."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from roomkit.core.actor import RoomActor
from roomkit.core.attention import AttentionList
from roomkit.core.bus import MemoryBus
from roomkit.core.hooks import Hooks
from roomkit.core.identity import AddressBook
from roomkit.core.inbound import Inbound
from roomkit.core.lanes import OutboxLanes
from roomkit.core.memory import MemoryStore
from roomkit.core.meters import Meters
from roomkit.core.policy import MAX_CHAIN_DEPTH
from roomkit.core.recovery import recover
from roomkit.core.registry import Registry
from roomkit.core.results import InboundResult
from roomkit.core.state import event_by_id
from roomkit.core.table import RoomTable
from roomkit.core.timers import Timers
from roomkit.core.turns import Turns
from roomkit.errors import StateError, StoreUnavailable
from roomkit.models.event import RoomEvent
from roomkit.models.hooks import BreakerChanged, Trouble
from roomkit.models.room import (
    RoomTimers,
)
from roomkit.models.stream import Ephemeral
from roomkit.net.breaker import BreakerChange, Breakers
from roomkit.net.ratelimit import TokenBucket
from roomkit.ports.channel import Channel
from roomkit.ports.identity import IdentityResolver, InboundRouter
from roomkit.ports.store import Batch, Record, RecordKey, RecordQuery, Store, StoreInfo
from roomkit.runtime import Clock, Scope, StallWatchdog, SystemClock, TaskFailure, WorkerPool, idle
from roomkit.runtime.eager import Eager
from roomkit.runtime.tracing import Tracer, Tracing

if TYPE_CHECKING:
    from roomkit.core.consent import Consent
    from roomkit.core.consumers import Consumer
    from roomkit.core.courtesy import Courtesy
    from roomkit.core.inbox import HostInbox
    from roomkit.core.nodes import Nodes
    from roomkit.core.redacting import Redactions
    from roomkit.core.transcode import Transcoder
    from roomkit.models.consent import ConsentPolicy, Digests, QuietHours
    from roomkit.models.redaction import Redaction
    from roomkit.ports.blob import BlobStore
    from roomkit.ports.bus import EphemeralBus
    from roomkit.ports.node import NodeOptions

log = logging.getLogger(__name__)
_random_tails: list[str] = []
if hasattr(os, "register_at_fork"):  # A child process must not give out what its parent will.
    os.register_at_fork(after_in_child=_random_tails.clear)


def _random_tail() -> str:
    """64 unguessable bits as 16 hexadecimal digits; the system is asked for many at a time."""
    while True:
        try:
            return _random_tails.pop()
        except IndexError:
            digits = os.urandom(8 * 256).hex()
            _random_tails.extend(digits[at : at + 16] for at in range(0, len(digits), 16))


T = TypeVar("T")
RETRY_WRITE_S = 0.5
PRUNE_EVERY_S = 3600.0
ANYBODY = RecordQuery("identity", None, limit=1)


@dataclass(frozen=True, slots=True)
class KitOptions:
    """Settings of a kit; times in seconds, sizes in items.

    `inbound_limit` is (messages a second, burst) per channel and sender; None is unlimited. `identity_channel_types`
    limits identity resolution to these types; None means all. `phone_region` ("GB") completes phone numbers without a
    country in the address book (needs [phone]). `watch_loop` reports an event loop that is blocked for
    longer than `stall_threshold_s`, with the culprit's stack; None does so for durable stores and servers. `tracer`
    takes the spans (see also `kit.trace`). `audit` seals what is
    committed into a chain that shows later alterations (`kit.audit_room`); it costs a read and a small write per room
    and `audit_every_s`, beside the commits. `consent`, `quiet_hours` and `digests` say who is written to and when,
    `redaction` what is taken out of words on their way to a model, an export or the store: for all tenants or by name
    ("*": the others). `node` makes this process one of several on its store. With `answer_at_chain_limit=False` no
    brain is asked for an answer that the chain depth would block: it costs nothing, and notes nothing.
    """

    mailbox: int = 1_000
    resident_rooms: int = 10_000
    max_chain_depth: int = MAX_CHAIN_DEPTH
    answer_at_chain_limit: bool = True
    process_timeout_s: float = 30.0
    identity_timeout_s: float = 10.0
    drain_timeout_s: float = 10.0
    inbound_limit: tuple[float, float] | None = None
    identity_channel_types: tuple[str, ...] | None = None
    phone_region: str | None = None
    router: InboundRouter | None = None
    transcoder: Transcoder | None = None
    courtesy: Courtesy | None = None
    consent: ConsentPolicy | Mapping[str, ConsentPolicy] | None = None
    quiet_hours: QuietHours | Mapping[str, QuietHours] | None = None
    digests: Digests | Mapping[str, Digests] | None = None
    redaction: Redaction | Mapping[str, Redaction] | None = None
    stall_threshold_s: float = 0.25
    watch_loop: bool | None = None
    tracer: Tracer | None = None
    sync_workers: int = 8
    node: NodeOptions | None = None
    audit: bool = False
    audit_every_s: float = 5.0


@dataclass(slots=True)
class Template:
    """What a new room is furnished with (D25). `channels` None takes the source, the app channel and default AIs."""

    channels: tuple[str, ...] | None = None
    timers: RoomTimers = field(default_factory=RoomTimers)
    metadata: dict[str, Any] = field(default_factory=lambda: {})


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
        self.bus: EphemeralBus = bus or _bus_of(self.store) or MemoryBus()
        self.breakers = Breakers(on_change=self._breaker_changed)
        self.lanes = OutboxLanes(self, self.breakers)
        self.turns = Turns(self)
        self.timers = Timers(self)
        self.inbound = Inbound(self)
        self.registry = Registry(self)
        self.table = RoomTable(self)
        self.attention = AttentionList()
        self.nodes: Nodes | None = None
        """Set where several processes share the store."""
        self.template = Template()
        self.answers: dict[str, asyncio.Future[Any]] = {}
        self.counters: dict[str, float] = defaultdict(float)
        self.meters = Meters(self)
        self.tracing = Tracing(options.tracer)
        self.inbox: HostInbox | None = None
        self.audit_key = ""
        self.consumers: dict[tuple[str, str], Consumer] = {}
        self.draining = False
        self.opened = False
        self.started = False
        self._start = asyncio.Lock()
        self.media_link: Callable[[str, str], str] | None = None
        self.blobs: Callable[[], BlobStore] | None = None
        self._resolver = resolver
        self._book: AddressBook | None = None
        self._rng = rng
        self.random: Callable[[], float] = (rng or random).random
        self._limits: OrderedDict[tuple[str, str, str], TokenBucket] = OrderedDict()
        self._watchdog: StallWatchdog | None = None
        self.consent: Consent | None = None
        if any(one is not None for one in (options.consent, options.quiet_hours, options.digests)):
            from roomkit.core.gate import equip

            equip(self)
        self.redactions: Redactions | None = None
        if options.redaction is not None:
            from roomkit.core.redacting import Redactions

            self.redactions = Redactions(self)

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> dict[str, int]:
        """Opens the store and resumes what was unfinished (D38). Idempotent; not after `aclose`."""
        if self.scope.closed:
            raise StateError("this kit is closed and does not start again; make a new RoomKit")
        async with self._start:
            return {} if self.started else await self._open()

    async def _open(self) -> dict[str, int]:
        self.info = await self.store.open()
        self.opened = True
        self.draining = False
        await self.attention.load(self.store)
        if self.info.durable and self.resolver is None and await self.store.records(ANYBODY):
            self._book = self.address_book  # what it knew before the restart it knows again
        if self.nodes is not None:
            counts = await self.nodes.start()
        else:
            await self.timers.load()
            counts = await recover(self)
        self.started = True
        self.scope.spawn(self.timers.run(), name="timers")
        self.scope.spawn(self._prune(), name="prune dedupe keys")
        if self.info.durable or self.options.watch_loop:
            self.watch()
        for consumer in self.consumers.values():
            consumer.start()
        if self.options.audit:
            from roomkit.core.audit import Sealer

            self.scope.spawn(Sealer(self, self.options.audit_every_s).run(), name="audit")
        return counts

    def watch(self) -> None:
        """Reports a blocked loop from now on, unless `watch_loop` is False (D42). Costs a thread; again changes
        nothing."""
        if self._watchdog is None and self.options.watch_loop is not False:
            self._watchdog = StallWatchdog(self.options.stall_threshold_s, report=self.meters.stalled)
            self._watchdog.start()

    async def aclose(self) -> None:
        """Stops: running replies checkpoint, deliveries stay in the outbox, the store closes. Idempotent."""
        if not self.draining:
            await _hang_up(self.channels)
        self.draining = True
        if self.nodes is not None:
            await self.nodes.aclose()
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
        for consumer in tuple(self.consumers.values()):
            await consumer.aclose()
        await self.scope.aclose()
        await self.lanes.outcomes.flushed()
        await self.eager.scope.aclose()
        self.lanes.abandon()
        self.turns.abandon()
        for channel in tuple(self.channels.values()):
            try:
                await channel.close()
            except Exception:  # a channel is a plug-in: its end must not keep the store open
                log.exception('channel "%s" could not be closed', channel.channel_id)
        await self.bus.aclose()
        if self.opened:
            self.opened = self.started = False
            await self.store.aclose()

    async def drain(self, timeout: float | None = None) -> bool:
        """Lets running replies and deliveries finish; False when some were left to the next start (R11)."""
        limit = timeout if timeout is not None else self.options.drain_timeout_s
        if self.nodes is not None:
            return await self.nodes.hand_over(limit)
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
        if not self.opened:
            raise StateError("this kit is not started: use `async with RoomKit(...) as kit`, or await kit.start()")

    # -- small services ---------------------------------------------------------------------------------------------

    @property
    def channels(self) -> dict[str, Channel]:
        return self.registry.channels

    @property
    def epoch(self) -> int:
        return self.info.epoch

    def now(self) -> datetime:
        return self.clock.now()

    def new_id(self, at: datetime | None = None) -> str:
        """Milliseconds, so that ids sort and index pages stay warm, then 64 random bits: unguessable by default,
        repeatable under an injected generator."""
        tail = f"{self._rng.getrandbits(64):016x}" if self._rng is not None else _random_tail()
        return f"{int((at or self.now()).timestamp() * 1000):011x}{tail}"

    def count(self, name: str, by: float = 1) -> None:
        self.counters[name] += by

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

    def admit(self, tenant: str, channel_id: str, sender: str) -> bool:
        """One token of the sender's inbound budget, in bounded memory."""
        assert self.options.inbound_limit is not None
        key = (tenant, channel_id, sender)
        bucket = self._limits.get(key)
        if bucket is None:
            rate, burst = self.options.inbound_limit
            bucket = self._limits[key] = TokenBucket(rate, burst)
            if len(self._limits) > 10_000:
                self._limits.popitem(last=False)
        self._limits.move_to_end(key)
        return bucket.try_acquire()

    def publish(self, tenant: str, message: Ephemeral) -> None:
        """A sign of life, to whoever watches the room here or in another process."""
        actor = self.table.loaded(tenant, message.room_id)
        if actor is not None and self.nodes is None:  # of several processes the room's own hears it from the bus
            actor.hub.ephemeral(message, actor.state.bindings)
        self.bus.publish(tenant, message)

    async def insist(self, attempt: Callable[[], Awaitable[T]], what: str) -> T:
        """Repeats `attempt` until the store works again; the first failure is told. Once the kit is closing it gives up
        with the error: what is not durable then waits for the next start."""
        told = False
        while True:
            try:
                return await attempt()
            except StoreUnavailable as error:
                if self.draining:
                    raise
                self.count("write_retries")
                if not told:
                    told = True
                    log.warning("the store does not write, %s waits for it: %s", what, error)
                    self.hooks.tell(Trouble("", "", what, error))
                await asyncio.sleep(RETRY_WRITE_S)

    async def commit_until_done(self, batch: Batch) -> None:
        """A write that nobody waits for is repeated until the store works again."""
        await self.insist(lambda: self.store.commit(batch), "a write")

    def write_soon(self, batch: Batch) -> None:
        if not self.eager.scope.closed:
            self.eager.start(self.commit_until_done(batch))

    async def forget_row(self, actor: RoomActor, record: Record) -> None:
        gone = RecordKey(record.kind, record.tenant, record.key)
        await self.store.commit(Batch(record.tenant, actor.epoch, actor.room_id, delete=(gone,)))

    async def _prune(self) -> None:
        while True:
            await idle(PRUNE_EVERY_S)
            for tenant in {"default", *self.registry.tenants.values()}:
                await self.commit_until_done(Batch(tenant, self.epoch, prune_dedupe_before=self.now().timestamp()))

    # -- what the parts tell ----------------------------------------------------------------------------------------

    async def event_result(self, tenant: str, room_id: str, event_id: str) -> InboundResult:
        """What the first delivery of a message came to."""
        event: RoomEvent | None = await event_by_id(self.store, tenant, room_id, event_id)
        blocked = event is not None and event.blocked
        reason = (event.blocked_reason or event.blocked_by) if event is not None else None
        return InboundResult(event, room_id, blocked, reason, duplicate=True)

    # -- people and numbers -----------------------------------------------------------------------------------------

    @property
    def address_book(self) -> AddressBook:
        if self._book is None:
            from roomkit.models.addresses import check_region

            check_region(self.options.phone_region)
            self._book = AddressBook(self.store, self.epoch, self.options.phone_region)
        return self._book

    @property
    def resolver(self) -> IdentityResolver | None:
        return self._resolver if self._resolver is not None else self._book


def _bus_of(store: Store) -> EphemeralBus | None:
    """What a store of several processes brings along for what it does not keep."""
    bus: Callable[[], EphemeralBus | None] | None = getattr(store, "bus", None)
    return bus() if bus is not None else None


__all__ = ["Engine", "KitOptions", "Template"]


async def _hang_up(channels: Mapping[str, Channel]) -> None:
    """Live calls end while the rooms can still write down what was heard of them."""
    for channel in tuple(channels.values()):
        live: Callable[[], list[Any]] | None = getattr(channel, "sessions", None)
        for session in live() if live is not None else []:
            try:
                await channel.disconnect_session(session, session.room_id)
            except Exception:  # a channel is a plug-in: the end of its call must not keep the store open
                log.exception('a call of channel "%s" could not be ended', channel.channel_id)
