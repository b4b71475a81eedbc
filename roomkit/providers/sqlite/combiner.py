"""Many tasks, one thread: what is asked for while the thread is busy becomes its next group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from roomkit.runtime import WorkerThread

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Combiner(Generic[Item, Outcome]):
    """Runs `work(items)` on a thread of its own, which gives one outcome (or exception) per item, in their order.

    One group is at work at a time. Before each there are two turns of the loop, in which everybody whose wait has just
    ended may hand in again, and those who wait for them in turn: many writers make few groups. An item handed in is
    always worked on, also when its caller has been cancelled."""

    def __init__(
        self, name: str, work: Callable[[list[Item]], list[Outcome | Exception]], *, largest: int = 256
    ) -> None:
        self.thread = WorkerThread(name)
        self._work = work
        self._largest = largest
        self._waiting: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._busy = False
        """A group is being gathered or worked on."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def call(self, item: Item) -> Outcome:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if not self._busy:
            self._gather()
        return await future

    async def aclose(self, last: Callable[[], None] | None = None) -> None:
        """Waits until everything handed in is done, runs `last` on the thread and ends it."""
        await self._idle.wait()
        if last is not None:
            await self.thread.submit(last)
        await self.thread.aclose()

    def __len__(self) -> int:
        return len(self._waiting)

    def _gather(self) -> None:
        self._busy = True
        self._idle.clear()
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._submit)

    def _submit(self) -> None:
        if self._waiting:
            self.thread.submit(self._take).add_done_callback(self._settle)
        else:
            self._busy = False
            self._idle.set()

    def _take(self) -> list[tuple[asyncio.Future[Outcome], Outcome | Exception]]:
        """On the thread."""
        group: list[tuple[Item, asyncio.Future[Outcome]]] = []
        while self._waiting and len(group) < self._largest:
            group.append(self._waiting.popleft())
        if not group:
            return []
        try:
            outcomes = self._work([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - whatever goes wrong belongs to those who wait
            return [(future, error) for _, future in group]
        return [(future, outcome) for (_, future), outcome in zip(group, outcomes, strict=True)]

    def _settle(self, job: asyncio.Future[list[tuple[asyncio.Future[Outcome], Outcome | Exception]]]) -> None:
        for future, outcome in job.result():
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._gather()
