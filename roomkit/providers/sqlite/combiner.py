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

    One group is at work at a time; those whose wait ends with it may hand in again before the next one starts. An item
    handed in is always worked on, also when its caller has been cancelled."""

    def __init__(
        self, name: str, work: Callable[[list[Item]], list[Outcome | Exception]], *, largest: int = 256
    ) -> None:
        self.thread = WorkerThread(name)
        self._work = work
        self._largest = largest
        self._waiting: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._job: asyncio.Future[list[tuple[asyncio.Future[Outcome], Outcome | Exception]]] | None = None

    async def call(self, item: Item) -> Outcome:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._job is None:
            self._submit()
        return await future

    async def aclose(self, last: Callable[[], None] | None = None) -> None:
        """Waits until everything handed in is done, runs `last` on the thread and ends it."""
        while self._job is not None:
            await asyncio.wait([self._job])
            await asyncio.sleep(0)
        if last is not None:
            await self.thread.submit(last)
        await self.thread.aclose()

    def __len__(self) -> int:
        return len(self._waiting)

    def _submit(self) -> None:
        self._job = self.thread.submit(self._take)
        self._job.add_done_callback(self._settle)

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
        job.get_loop().call_soon(self._next)

    def _next(self) -> None:
        self._job = None
        if self._waiting:
            self._submit()
