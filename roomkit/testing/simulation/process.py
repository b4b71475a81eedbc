"""One process of the simulation: everything in it runs in its own context, and its death cuts it off at once.

From the moment of a crash nothing the process does reaches anybody: its store writes nothing, its vendors hear nothing,
its callers get no answer. What is left of its tasks is then cancelled. A crash keeps exactly what the disk has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from roomkit.errors import RoomKitError
from roomkit.runtime import Scope

if TYPE_CHECKING:
    from roomkit.kit import RoomKit
    from roomkit.testing.simulation.nodes import SimOwnership
    from roomkit.testing.simulation.world import World

T = TypeVar("T")
HURRY = "hurry"
"""The feature that some who ask hang up before the answer."""
PROCESS: ContextVar[Process | None] = ContextVar("roomkit_simulated_process", default=None)
_REAPS = 50


class Lost(Exception):
    """The process at the other end died, or the line to it broke, before it answered."""


class Process:
    """`crash_at` is (name of a crash point, nth visit). `cuts` are called at its death, in the order they were made."""

    kit: RoomKit

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.born = world.loop.time()
        self.name = f"process {number}"
        self.alive = True
        self.started = False
        self.death: asyncio.Future[str] = world.loop.create_future()
        self.freezing: asyncio.Future[None] = world.loop.create_future()
        self.crash_at: tuple[str, int] | None = None
        self.counters: dict[str, float] | None = None
        """What its engine had counted when it died."""
        self.stale = False
        """Another process has taken over from it."""
        self.ownership: SimOwnership | None = None
        """Its leases, where it is one of several."""
        self.cuts: dict[object, Callable[[], None]] = {}
        self.tasks: list[asyncio.Task[Any]] = []
        self._scope = Scope(self.name, on_failure=lambda _: None)
        self._answers: dict[asyncio.Future[Any], None] = {}
        self._thaw: asyncio.Future[None] | None = None
        self._context = copy_context()
        self._context.run(PROCESS.set, self)

    def spawn(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Runs `coro` inside the process."""
        return self._context.copy().run(self._scope.spawn, coro, name=name)

    def run(self, fn: Callable[..., T], *args: Any) -> T:
        """Calls `fn` inside the process, at once."""
        return self._context.copy().run(fn, *args)

    async def call(self, fn: Callable[..., Awaitable[T]], *args: Any, **more: Any) -> T:
        """Calls from outside and waits for the answer. Raises `Lost` when the process dies before it; a caller that is
        cancelled breaks the line, and the process notices."""
        if not self.alive:
            raise Lost
        answer: asyncio.Future[T] = self.world.loop.create_future()
        self._answers[answer] = None
        task = self.spawn(self._serve(answer, fn, args, more), "request")
        try:
            return await answer
        finally:
            self._answers.pop(answer, None)
            if not task.done() and self.alive:
                task.cancel()

    async def ask(self, fn: Callable[..., Awaitable[T]], *args: Any, **more: Any) -> T:
        """As `call`, for somebody who may hang up before the answer, and then knows as little as after a crash."""
        world = self.world
        if world.calm or HURRY not in world.features or world.hasty.random() > 0.3:
            return await self.call(fn, *args, **more)
        try:
            async with asyncio.timeout(world.hasty.choice((0.0, 0.001, 0.01, 0.1, 1.0))):
                return await self.call(fn, *args, **more)
        except TimeoutError:
            raise Lost from None

    async def _serve(
        self, answer: asyncio.Future[Any], fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], more: Any
    ) -> None:
        try:
            value = await fn(*args, **more)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
            if self.alive and not answer.done():
                answer.set_exception(error)
        else:
            if self.alive and not answer.done():
                answer.set_result(value)

    def visited(self, name: str) -> bool:
        """Called at every crash point inside the process."""
        if self.crash_at is not None and self.crash_at[0] == name and self.alive:
            self.crash_at = (name, self.crash_at[1] - 1)
            if self.crash_at[1] <= 0:
                self.die(f"at {name}")
        return False

    # -- a pause, as of a stopped or a cut-off process --------------------------------------------------------------

    def freeze(self) -> None:
        """From now on nothing gets in or out, and it does not know."""
        if self._thaw is not None:
            return
        self.world.trace(self.name, "freezes")
        self._thaw = self.world.loop.create_future()
        if not self.freezing.done():
            self.freezing.set_result(None)
        self._cut()

    def thaw(self) -> None:
        self.world.trace(self.name, "wakes up")
        if self._thaw is not None and not self._thaw.done():
            self._thaw.set_result(None)
            self.freezing = self.world.loop.create_future()
        self._thaw = None

    @property
    def ready(self) -> bool:
        """It takes calls."""
        return self.alive and self.started and self._thaw is None

    @property
    def frozen(self) -> bool:
        return self._thaw is not None

    @property
    def life(self) -> str:
        return self.name if self.ownership is None else self.ownership.node

    def lost(self, tenant: str, room_id: str) -> bool:
        """Whether another one has taken the room over."""
        if self.ownership is None:
            return self.stale
        return self.world.disk.leases.holder(tenant, room_id) != self.ownership.node

    async def retire(self) -> None:
        """As a rolling restart has it do."""
        self.world.trace(self.name, "is asked to stop")
        with contextlib.suppress(Lost, RoomKitError):
            await self.call(self.kit.drain, 2.0)
            await self.call(self.kit.aclose)
        self.die("after it was asked to stop")

    async def thawed(self) -> None:
        """Waits while it is frozen."""
        while self._thaw is not None:
            await asyncio.shield(self._thaw)

    def _cut(self) -> None:
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(Lost())
        for cut in tuple(self.cuts.values()):
            cut()

    def die(self, how: str) -> None:
        """Now. Everybody who waits for it finds out; nothing it still does counts."""
        if not self.alive:
            return
        self.alive = False
        self.world.trace(self.name, f"dies {how}")
        self.counters = dict(self.kit.engine.counters)
        self.kit.engine.draining = True
        self.death.set_result(how)
        if self._thaw is not None:
            self.thaw()
        self._cut()
        self.world.loop.call_soon(self._reap, 0)

    def _reap(self, round_: int) -> None:
        left = [task for task in self.tasks if not task.done()]
        for task in left:
            task.cancel()
        if left and round_ < _REAPS:
            self.world.loop.call_later(0.0 if round_ < 10 else 0.01, self._reap, round_ + 1)
        self.tasks = left

    async def gone(self) -> None:
        """Waits until nothing of a dead process is left."""
        for _ in range(_REAPS):
            left = [task for task in self.tasks if not task.done()]
            if not left:
                return
            with contextlib.suppress(Exception):
                await asyncio.wait(left, timeout=1.0)


class Points:
    """What `runtime.crashpoint` asks in place of `ROOMKIT_CRASH_AT`: the process that is running decides."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def visited(self, name: str) -> bool:
        process = PROCESS.get()
        self.seen[name] = self.seen.get(name, 0) + 1
        return process.visited(name) if process is not None else False


def note_tasks(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> asyncio.Task[Any]:
    """A task factory that remembers whose task it is."""
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **more)
    process = PROCESS.get()
    if process is not None:
        process.tasks.append(task)
    return task


def alive() -> Process:
    """The process whose code is running. One that is dead can do nothing any more: `CancelledError`."""
    process = PROCESS.get()
    if process is None or not process.alive:
        raise asyncio.CancelledError
    return process
