"""Consumers: programs that follow all rooms of a tenant and survive restarts (D41).

A consumer has a cursor in every room, the index of the last event that it is done with, and gets the events of a room
in order, each at least once; several rooms at a time. A number over all rooms would be no cursor: what commits late
under an earlier number would be skipped. What finds the rooms with something new is a hint (a commit in this process)
and a look at the heads of all rooms every so often, so that a lost hint costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from roomkit.core.state import key
from roomkit.errors import Elsewhere, Fenced, StateError, StoreError, StoreUnavailable, UsageError
from roomkit.models.content import valid_text
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.hooks import Committed
from roomkit.ports.store import Batch, EventQuery, Record, RecordQuery
from roomkit.runtime import BlockingBuffer, Scope, Wakeup, monotonic

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
KIND, DEAD = "consumer", "consumer_dead"
PAGE = 64
HEADS = 1_000
LONGEST_PAUSE_S = 60.0
Handler = Callable[[RoomEvent], object]


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """`kinds`: only these types of events, None for all. `start`: where a consumer of a new name begins in rooms that
    are here already: with their "first" event, or "now". `concurrency`: rooms at a time. `retries`: after so many
    further attempts, at growing pauses, an event becomes a dead letter and the room goes on. `look_every_s`: how often
    it looks for rooms of which no hint came (commits of other processes)."""

    kinds: frozenset[EventType] | None = None
    start: Literal["first", "now"] = "first"
    concurrency: int = 8
    retries: int = 5
    look_every_s: float = 5.0


class Consumed:
    """One event, until it is acknowledged; the next one of its room comes after that."""

    __slots__ = ("_answer", "_done", "event")

    def __init__(self, event: RoomEvent, answer: asyncio.Future[bool]) -> None:
        self.event = event
        self._answer = answer
        self._done: asyncio.Future[None] = answer.get_loop().create_future()

    async def ack(self) -> None:
        """Done with it: returns when that is durable, and it does not come again."""
        self._settle(True)
        await asyncio.shield(self._done)

    def nack(self) -> None:
        """Not done: it comes again after a pause."""
        self._settle(False)

    def stored(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _settle(self, good: bool) -> None:
        if self._answer.done():
            raise StateError(f"event {self.event.id} was answered already; ack() or nack() it once")
        self._answer.set_result(good)


class Consumer:
    """`kit.consume(...)`: runs from the start of the kit to its end, or to `aclose`. Without a handler it is an
    asynchronous iterator of `Consumed`."""

    def __init__(
        self, engine: Engine, tenant: str, name: str, handler: Handler | None, options: ConsumerOptions
    ) -> None:
        """Raises `UsageError` for a name that cannot be one, or that is taken in this kit."""
        if not name or any(sign in name for sign in "/~\n"):
            raise UsageError(f"{name!r} cannot be a consumer's name; use a short word such as 'crm'")
        if options.concurrency < 1 or options.retries < 0 or options.look_every_s <= 0:
            raise UsageError("a consumer needs concurrency >= 1, retries >= 0 and look_every_s > 0")
        if (tenant, name) in engine.consumers:
            raise UsageError(f'there is a consumer "{name}" already; give each a name of its own')
        engine.consumers[tenant, name] = self
        self.name = name
        self._engine = engine
        self._tenant = tenant
        self._handler = handler or self._offer
        self._options = options
        self._scope = Scope(f"consumer {name}")
        self._offered: BlockingBuffer[Consumed] = BlockingBuffer(1)
        self._wakeups = [Wakeup() for _ in range(options.concurrency)]
        self._cursors: dict[str, int] = {}
        self._heads: dict[str, int] = {}
        self._waiting: dict[str, None] = {}
        self._busy: set[str] = set()
        self._forks: set[str] = set()
        self._troubled: dict[str, tuple[int, float]] = {}
        self._epoch = 0
        self._own = f"~consumer~{name}"
        self._leave: Callable[[], None] = lambda: None
        # Read when it is asked for: adding it up takes a step for each room, which is too much for each event.
        engine.meters.registry.gauge(
            "roomkit_consumer_lag_events", "Events that a consumer has not done yet.", ["consumer"]
        ).labels(name).follow(lambda: float(self.lag))

    @property
    def lag(self) -> int:
        """How many events it has yet to look at, as far as it knows."""
        return sum(max(head - 1 - self._cursors.get(room, -1), 0) for room, head in self._heads.items())

    def start(self) -> None:
        """Called by the kit when it starts."""
        self._leave = self._engine.hooks.on(Committed, self._hint, name=f"consumer {self.name}")
        self._scope.spawn(self._run(), name=f"consumer {self.name}")

    async def aclose(self) -> None:
        """Stops. What is under way comes again when a consumer of this name starts. May be called again."""
        self._leave()
        self._offered.close()
        await self._scope.aclose()
        self._engine.consumers.pop((self._tenant, self.name), None)
        if self._engine.nodes is not None and self._engine.opened:
            try:  # The next process need not wait.
                await self._engine.nodes.ownership.release([(self._tenant, self._own)])
            except StoreError as error:
                log.info('consumer "%s" keeps its place until the lease of this process ends: %s', self.name, error)

    async def dead_letters(self, limit: int = 100) -> list[dict[str, Any]]:
        """The events that were given up, with the last error."""
        query = RecordQuery(DEAD, self._tenant, prefix=f"{self.name}\n", limit=limit)
        return [record.value for record in await self._engine.store.records(query)]

    def __aiter__(self) -> AsyncIterator[Consumed]:
        if self._handler != self._offer:
            raise UsageError(f'consumer "{self.name}" has a handler; leave it out to iterate')
        return aiter(self._offered)

    async def _offer(self, event: RoomEvent) -> Consumed:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        item = Consumed(event, answer)
        await self._offered.put(item)
        if not await answer:
            raise _NotYet
        return item

    # -- finding the rooms ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Stands by while another process has this consumer."""
        while True:
            try:
                nodes = self._engine.nodes
                self._epoch = self._engine.epoch if nodes is None else await nodes.acquire(self._tenant, self._own)
                self._cursors.clear()
                self._heads.clear()
                await self._load()
                async with Scope(f"consumer {self.name} at work") as workers:
                    tasks = [workers.spawn(self._work(w), name="room", awaited=True) for w in self._wakeups]
                    tasks.append(workers.spawn(self._watch(), name="look", awaited=True))
                    await asyncio.gather(*tasks)
            except (Elsewhere, Fenced, StoreUnavailable) as error:
                if self._engine.nodes is None and isinstance(error, Fenced):
                    log.error('consumer "%s" has stopped: %s', self.name, error)  # noqa: TRY400 - told in one line
                    return
                await asyncio.sleep(self._options.look_every_s)
            except Exception as error:  # noqa: BLE001 - the boundary of a consumer: nothing of its own ends it
                self._engine.count("consumer_errors")
                log.warning('consumer "%s" begins again after %s: %s', self.name, type(error).__name__, error)
                await asyncio.sleep(self._options.look_every_s)

    async def _load(self) -> None:
        for record in await self._all(KIND, f"{self.name}\n"):
            self._cursors[record.value["room_id"]] = record.value["index"]
        if "" not in self._cursors:
            heads = await self._all("head", None) if self._options.start == "now" else []
            await self._save({one.key: one.value["next_index"] - 1 for one in heads})
            await self._save({"": -1})  # Last: until it stands there, the start is made anew.

    async def _watch(self) -> None:
        while True:
            for head in await self._all("head", None):
                self._seen(head.key, head.value["next_index"])
            await asyncio.sleep(self._options.look_every_s)

    async def _hint(self, notice: Committed) -> None:
        if notice.tenant == self._tenant:
            self._seen(notice.room_id, notice.event.index + 1)

    def _seen(self, room_id: str, next_index: int) -> None:
        if next_index > self._heads.get(room_id, 0):
            self._heads[room_id] = next_index
        put_off = room_id in self._busy or (room_id in self._troubled and monotonic() < self._troubled[room_id][1])
        behind = self._heads.get(room_id, 0) - 1 > self._cursors.get(room_id, -1) or room_id in self._troubled
        if behind and not put_off:
            self._waiting[room_id] = None
            for wakeup in self._wakeups:
                wakeup.set()

    # -- one room ---------------------------------------------------------------------------------------------------

    async def _work(self, wakeup: Wakeup) -> None:
        while True:
            while self._waiting:
                room_id = next(iter(self._waiting))
                del self._waiting[room_id]
                self._busy.add(room_id)
                try:
                    await self._room(room_id)
                    self._troubled.pop(room_id, None)
                except (Elsewhere, Fenced, StoreUnavailable):
                    raise
                except Exception as error:  # noqa: BLE001 - the boundary of a room: the others go on
                    self._put_off(room_id, error)
                finally:
                    self._busy.discard(room_id)
                self._seen(room_id, 0)
            await wakeup.wait()

    def _put_off(self, room_id: str, error: Exception) -> None:
        """What it could not note or read in this room it tries again after a growing pause."""
        times = self._troubled.get(room_id, (0, 0.0))[0]
        self._troubled[room_id] = (times + 1, monotonic() + pause(times))
        self._engine.count("consumer_errors")
        log.warning('consumer "%s" puts %s off after %s: %s', self.name, room_id, type(error).__name__, error)

    async def _room(self, room_id: str) -> None:
        if room_id in self._troubled and room_id in self._cursors:
            await self._save({room_id: self._cursors[room_id]})  # What was done and could not be noted.
        start = self._cursors.get(room_id, -1) + 1
        page = await self._engine.store.events(EventQuery(self._tenant, room_id, start=start, limit=PAGE))
        if not page or room_id in self._forks or (start == 0 and await self._is_fork(room_id)):
            self._heads[room_id] = start  # Looked at; nothing that concerns it.
            return
        saved = start - 1
        try:
            for event in page:
                if self._options.kinds is None or event.type in self._options.kinds:
                    answered = await self._event(event)
                    if isinstance(answered, Consumed):
                        saved = event.index
                        await self._save({room_id: saved})
                        answered.stored()
                self._cursors[room_id] = event.index
        finally:
            if self._cursors.get(room_id, -1) > saved:
                await self._save({room_id: self._cursors[room_id]})

    async def _is_fork(self, room_id: str) -> bool:
        """A copy to try things in is nobody's news; and what has no room yet is still being copied."""
        found = await self._engine.store.records(RecordQuery("room", self._tenant, key=room_id))
        if found and "forked_from" in found[0].value:
            self._forks.add(room_id)
        return not found or room_id in self._forks

    async def _event(self, event: RoomEvent) -> object:
        """Hands the event over until that works, or for the last time. Returns what the handler did."""
        failures = given_back = 0
        while True:
            try:
                self._engine.count("consumed")
                if inspect.iscoroutinefunction(self._handler):
                    return await cast("Callable[[RoomEvent], Awaitable[object]]", self._handler)(event)
                answer = await self._engine.pool.run(self._handler, event)
                return await answer if inspect.isawaitable(answer) else answer
            except _NotYet:  # It was given back on purpose: it is never given up for that.
                given_back += 1
                wait = pause(given_back - 1)
            except (Fenced, StoreUnavailable):
                raise
            except Exception as error:  # noqa: BLE001 - the boundary of a handler: its failure is this event's
                log.warning('consumer "%s" failed on event %d of %s: %s', self.name, event.index, event.room_id, error)
                if failures >= self._options.retries:
                    await self._bury(event, error)
                    return None
                failures += 1
                wait = pause(failures - 1)
            self._engine.count("consumer_retries")
            await asyncio.sleep(wait)
            event = await self._today(event)

    async def _today(self, event: RoomEvent) -> RoomEvent:
        """As the log has it now: it may have been erased in a pause."""
        query = EventQuery(self._tenant, event.room_id, start=event.index, stop=event.index + 1, limit=1)
        return next(iter(await self._engine.store.events(query)), event)

    async def _bury(self, event: RoomEvent, error: Exception) -> None:
        erased = (await self._today(event)).metadata.get("erased")
        value = {"room_id": event.room_id, "index": event.index, "event_id": event.id, "error": type(error).__name__}
        value["told"] = "erased" if erased else valid_text(str(error)[:500]).replace("\0", "\ufffd")
        value["consumer"] = self.name
        self._engine.count("consumer_dead_letters")
        await self._commit(Record(DEAD, self._tenant, key(self.name, event.room_id, event.index), value))

    async def _save(self, cursors: dict[str, int]) -> None:
        rows = [
            Record(KIND, self._tenant, key(self.name, room_id), {"room_id": room_id, "index": index})
            for room_id, index in cursors.items()
        ]
        for first in range(0, len(rows), HEADS):
            await self._commit(*rows[first : first + HEADS])
        self._cursors.update(cursors)

    async def _commit(self, *rows: Record) -> None:
        """Under the lease of this consumer where there are leases, so that a zombie moves no cursor."""
        room_id = self._own if self._engine.nodes is not None else None
        await self._engine.store.commit(Batch(self._tenant, self._epoch, room_id, put=rows))

    async def _all(self, kind: str, prefix: str | None) -> list[Record]:
        found: list[Record] = []
        after: str | None = None
        while True:
            query = RecordQuery(kind, self._tenant, prefix=prefix, after=after, limit=HEADS)
            page = await self._engine.store.records(query)
            found += page
            if len(page) < HEADS:
                return found
            after = page[-1].key


def pause(times: int) -> float:
    """Seconds before the next attempt, after so many."""
    return min(2.0 ** min(times, 10), LONGEST_PAUSE_S)


class _NotYet(Exception):
    """The event was given back."""


def options_of(kinds: Iterable[EventType | str] | None, **given: Any) -> ConsumerOptions:
    return ConsumerOptions(None if kinds is None else frozenset(map(EventType, kinds)), **given)
