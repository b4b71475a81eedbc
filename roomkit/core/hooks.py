"""Guards and observers: registration, order, filters, time limits, and what happens when one fails."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from roomkit.core.results import LANE
from roomkit.errors import RoomKitError, UsageError
from roomkit.models.hooks import Allow, Block, HookFailed, Injected, Modify, Moment, Notice
from roomkit.models.room import Observation, Task
from roomkit.runtime import Scope, WorkerPool, bounded

log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])

OnError = Literal["allow", "block"]
Streams = Literal["pass", "sentence", "withhold"]
MAX_OBSERVATIONS_IN_FLIGHT = 10_000
GUARD_QUEUE_S = 5.0
"""How long a guard that is a plain function may wait for a thread, in seconds."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Empty sets match everything. `types` looks at the event type of `Committed`."""

    channel_ids: frozenset[str] = frozenset()
    channel_types: frozenset[str] = frozenset()
    directions: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    room_id: str | None = None
    tenant: str | None = None

    def matches(self, moment: Moment[Any]) -> bool:
        return (
            (not self.channel_ids or moment.channel_id in self.channel_ids)
            and (not self.channel_types or moment.channel_type in self.channel_types)
            and (not self.directions or moment.direction in self.directions)
            and (self.room_id is None or moment.room.id == self.room_id)
            and (self.tenant is None or moment.room.tenant == self.tenant)
        )


@dataclass(slots=True, eq=False)
class Guard:
    moment: type[Moment[Any]]
    fn: Callable[[Any], Any]
    name: str
    priority: int
    budget_s: float
    on_error: OnError
    streams: Streams
    where: Filter | None
    is_async: bool


@dataclass(slots=True, eq=False)
class Observer:
    notice: type[Notice]
    fn: Callable[[Any], Any]
    name: str
    where: Filter | None
    is_async: bool


# As they are: a lambda around each would be a call more.
_LIST: Any = list
_DICT: Any = dict


@dataclass(slots=True)
class Outcome:
    """What all guards of one moment made of it."""

    value: Any
    blocked_by: str = ""
    reason: str = ""
    inject: list[Injected] = field(default_factory=_LIST)
    tasks: list[Task] = field(default_factory=_LIST)
    observations: list[Observation] = field(default_factory=_LIST)
    metadata: dict[str, Any] = field(default_factory=_DICT)

    @property
    def asks(self) -> bool:
        """Whether there is anything to be kept beside the value."""
        return bool(self.inject or self.tasks or self.observations)

    def joined(self, before: Outcome | None) -> Outcome | None:
        """Its side records after those of `before`."""
        if before is None or not self.asks:
            return self if self.asks else before
        before.inject += self.inject
        before.tasks += self.tasks
        before.observations += self.observations
        return before


class Hooks:
    """The registry of one kit. Lists are sorted when they change, never when they run."""

    def __init__(self, scope: Scope, pool: WorkerPool) -> None:
        self._scope = scope
        self._pool = pool
        # Observers may take any time: they must not keep the guards from being asked.
        self._guard_pool = WorkerPool(pool.max_workers, name="roomkit-pool-guards")
        self._guards: dict[type[Moment[Any]], tuple[Guard, ...]] = {}
        self._observers: dict[type[Notice], tuple[Observer, ...]] = {}
        self.guarded: Callable[[type[Moment[Any]]], bool] = self._guards.__contains__
        self.heard: Callable[[type[Notice]], bool] = self._observers.__contains__
        """Whether anybody is asked before, or told of, something of this kind: asked several times for each event."""
        self._in_flight = 0
        self.dropped = 0

    def before(
        self,
        moment: type[Moment[Any]],
        fn: Callable[[Any], Any],
        *,
        priority: int = 0,
        name: str | None = None,
        budget_s: float = 5.0,
        on_error: OnError | None = None,
        streams: Streams = "pass",
        where: Filter | None = None,
    ) -> Callable[[], None]:
        """Adds a guard, lower priority first; returns the way to remove it. Without `on_error` the moment's own holds:
        "block" before tools, "allow" elsewhere."""
        if not (isinstance(moment, type) and issubclass(moment, Moment)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(
                f"kit.before() takes a moment such as BeforeCommit, not {moment!r}; for notices use kit.on()"
            )
        fails = on_error or moment.on_error
        guard = Guard(
            moment, fn, name or _name(fn), priority, budget_s, fails, streams, where, inspect.iscoroutinefunction(fn)
        )
        kept = [*self._guards.get(moment, ()), guard]
        self._guards[moment] = tuple(sorted(kept, key=lambda g: g.priority))
        return lambda: self._drop_guard(guard)

    def on(
        self,
        notice: type[Notice],
        fn: Callable[[Any], Any],
        *,
        name: str | None = None,
        where: Filter | None = None,
    ) -> Callable[[], None]:
        """Adds an observer; returns the way to remove it."""
        if not (isinstance(notice, type) and issubclass(notice, Notice)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"kit.on() takes a notice such as Committed, not {notice!r}; for guards use kit.before()")
        observer = Observer(notice, fn, name or _name(fn), where, inspect.iscoroutinefunction(fn))
        self._observers[notice] = (*self._observers.get(notice, ()), observer)
        return lambda: self._drop_observer(observer)

    def stream_mode(self, moment: Moment[Any]) -> Streams:
        """How text that is still streaming is treated for this moment's guards: the strictest wishes win."""
        order: tuple[Streams, ...] = ("pass", "sentence", "withhold")
        strictest: Streams = "pass"
        for guard in self._guards.get(type(moment), ()):
            matching = guard.where is None or guard.where.matches(moment)
            if matching and order.index(guard.streams) > order.index(strictest):
                strictest = guard.streams
        return strictest

    async def run(self, moment: Moment[Any]) -> Outcome:
        """Runs the guards in order. The first block ends it; side records are kept in every case (D20)."""
        outcome = Outcome(moment.value)
        for guard in self._guards.get(type(moment), ()):
            if guard.where is not None and not guard.where.matches(moment):
                continue
            try:
                if guard.is_async:
                    decision = await bounded(guard.fn(moment), guard.budget_s, guard.name)
                else:
                    decision = await self._ask_plain(guard, moment)
            except Exception as error:  # noqa: BLE001 - a guard is user code: its failure must not break the room
                self._failed(guard, moment, error)
                if guard.on_error == "block":
                    outcome.blocked_by, outcome.reason = guard.name, "guard_failed"
                    return outcome
                continue
            if decision is None:
                continue
            if not self._apply(guard, moment, decision, outcome):
                return outcome
        return outcome

    async def _ask_plain(self, guard: Guard, moment: Moment[Any]) -> Any:
        result = await self._in_thread(guard, moment)
        return await bounded(result, guard.budget_s, guard.name) if inspect.isawaitable(result) else result

    async def _in_thread(self, guard: Guard, moment: Moment[Any]) -> Any:
        """A plain function's budget begins when it does; waiting for a thread is limited on its own."""
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(GUARD_QUEUE_S)
        what = f"{guard.name} found no free thread in {GUARD_QUEUE_S:g} s"

        def begun() -> None:
            nonlocal what
            what = f"{guard.name} took longer than {guard.budget_s:g} s"
            with contextlib.suppress(RuntimeError):  # nobody waits for it any more
                limit.reschedule(loop.time() + guard.budget_s)

        def call(moment: Moment[Any]) -> Any:
            loop.call_soon_threadsafe(begun)
            return guard.fn(moment)

        try:
            async with limit:
                return await self._guard_pool.run(call, moment)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(what) from error

    def _apply(self, guard: Guard, moment: Moment[Any], decision: Any, outcome: Outcome) -> bool:
        if not isinstance(decision, (Allow, Block, Modify)):
            error = UsageError(
                f'guard "{guard.name}" returned {type(decision).__name__}: return None, Allow(), Block() or Modify()'
            )
            return self._refuse(guard, moment, error, outcome)
        outcome.inject.extend(decision.inject)
        outcome.tasks.extend(decision.tasks)
        outcome.observations.extend(decision.observations)
        if isinstance(decision, Block):
            outcome.blocked_by, outcome.reason = guard.name, decision.reason
            return False
        outcome.metadata.update(decision.metadata)
        if isinstance(decision, Modify):
            if not _same_kind(moment.value, decision.value):
                error = UsageError(
                    f'guard "{guard.name}" put a {type(decision.value).__name__} for a {type(moment.value).__name__}'
                )
                return self._refuse(guard, moment, error, outcome)
            moment.value = outcome.value = decision.value
        return True

    def _refuse(self, guard: Guard, moment: Moment[Any], error: Exception, outcome: Outcome) -> bool:
        self._failed(guard, moment, error)
        if guard.on_error == "block":
            outcome.blocked_by, outcome.reason = guard.name, "guard_failed"
            return False
        return True

    def _failed(self, guard: Guard, moment: Moment[Any], error: Exception) -> None:
        log.error("guard %s failed (%s): %s", guard.name, guard.on_error, error, exc_info=_trace(error))
        self.tell(HookFailed(moment.room.tenant, moment.room.id, guard.name, error))

    def tell(self, notice: Notice) -> None:
        """Tells observers. They run beside the room: never waited for, at most once across a crash (D41)."""
        observers = self._observers.get(type(notice), ())
        if observers and self._scope.closed:
            return
        for observer in observers:
            if observer.where is not None and not _hears(observer.where, notice):
                continue
            if self._in_flight >= MAX_OBSERVATIONS_IN_FLIGHT:
                self.dropped += 1
                continue
            self._in_flight += 1
            self._scope.spawn(self._observe(observer, notice), name=f"observer {observer.name}")

    async def _observe(self, observer: Observer, notice: Notice) -> None:
        LANE.set(None)  # whoever gave notice does not wait for it
        try:
            result = observer.fn(notice) if observer.is_async else self._pool.run(observer.fn, notice)
            result = await cast("Awaitable[Any]", result)
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # an observer is user code and can never break the room
            log.exception("observer %s failed on %s", observer.name, type(notice).__name__)
            if not isinstance(notice, HookFailed):
                self.tell(HookFailed(notice.tenant, notice.room_id, observer.name, error))
        finally:
            self._in_flight -= 1

    def _drop_guard(self, guard: Guard) -> None:
        left = tuple(g for g in self._guards.get(guard.moment, ()) if g is not guard)
        if left:
            self._guards[guard.moment] = left
        else:
            self._guards.pop(guard.moment, None)

    def _drop_observer(self, observer: Observer) -> None:
        left = tuple(o for o in self._observers.get(observer.notice, ()) if o is not observer)
        if left:
            self._observers[observer.notice] = left
        else:
            self._observers.pop(observer.notice, None)


def _hears(where: Filter, notice: Notice) -> bool:
    if where.tenant is not None and notice.tenant != where.tenant:
        return False
    if where.room_id is not None and notice.room_id != where.room_id:
        return False
    event = getattr(notice, "event", None)
    if event is None:
        return True
    return (
        (not where.types or event.type in where.types)
        and (not where.channel_ids or event.source.channel_id in where.channel_ids)
        and (not where.channel_types or event.source.channel_type in where.channel_types)
        and (not where.directions or event.source.direction in where.directions)
    )


def _same_kind(old: object, new: object) -> bool:
    from roomkit.models.delivery import InboundMessage
    from roomkit.models.hooks import IdentityAnswer

    return isinstance(new, type(old)) or (isinstance(old, InboundMessage) and isinstance(new, IdentityAnswer))


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__name__


def _trace(error: Exception) -> BaseException | None:
    return None if isinstance(error, (RoomKitError, TimeoutError)) else error
