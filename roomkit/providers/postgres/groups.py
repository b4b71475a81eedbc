"""Many tasks, a few writing connections: what is asked for while they are busy becomes their next groups."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from roomkit.errors import StoreUnavailable
from roomkit.providers.postgres.plan import Item, Outcome
from roomkit.providers.postgres.writer import Writer
from roomkit.runtime import Scope, Wakeup

_SMALL = 16
"""Up to so many batches are not worth a second connection."""
_MOST_CHARACTERS = 8_000_000
"""With more in it than that a group takes no further batch."""


class Groups:
    """Hands batches to the writers in groups. Batches that touch the same thing are written in the order they came,
    never by two connections at once. An item handed in is always worked on, also when its caller was cancelled."""

    def __init__(self, writers: Sequence[Writer], largest: int, scope: Scope, wrote: Callable[[], None]) -> None:
        self._writers = writers
        self._largest = largest
        self._scope = scope
        self._wrote = wrote
        self._waiting: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._busy: set[tuple[str, ...]] = set()
        self._idle: list[Wakeup] = []
        self._in_flight = 0
        self._alone = False
        self._empty: asyncio.Future[None] | None = None
        self._closed = False

    def start(self) -> None:
        for number, writer in enumerate(self._writers):
            self._scope.spawn(self._serve(writer), name=f"writer {number}")

    async def call(self, item: Item) -> Outcome:
        if self._closed:
            raise StoreUnavailable("the store is closed; start the kit again")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._idle:
            self._idle.pop().set()
        return await future

    async def aclose(self) -> None:
        """Waits until everything handed in has its answer."""
        self._closed = True
        while self._waiting or self._in_flight:
            self._empty = asyncio.get_running_loop().create_future()
            await self._empty

    def __len__(self) -> int:
        return len(self._waiting)

    async def _serve(self, writer: Writer) -> None:
        wakeup = Wakeup()
        while True:
            group = self._take()
            if not group:
                self._idle.append(wakeup)
                await wakeup.wait()
                continue
            keys = {key for item, _ in group for key in item.keys}
            self._busy |= keys
            self._in_flight += 1
            try:
                outcomes: Sequence[Outcome | Exception] = await writer.write([item for item, _ in group])
            except asyncio.CancelledError:
                unknown = StoreUnavailable("the store was closed before this was written, or just after")
                self._settle(group, [unknown] * len(group))
                raise
            except Exception as error:  # noqa: BLE001 - whatever goes wrong belongs to those who wait
                outcomes = [error] * len(group)
            finally:
                self._in_flight -= 1
                self._busy -= keys
                self._alone = False
            self._settle(group, outcomes)
            self._wrote()
            if self._waiting and self._idle:  # Something may have waited for our keys alone.
                self._idle.pop().set()
            await asyncio.sleep(0)  # Those who were answered may hand in again.

    def _take(self) -> list[tuple[Item, asyncio.Future[Outcome]]]:
        """The next group: what touches nothing that another writer has, nor anything that stays behind."""
        waiting, busy = self._waiting, self._busy
        if self._alone:
            return []
        most = min(self._largest, max(_SMALL, -(-len(waiting) // (len(self._writers) - self._in_flight))))
        group: list[tuple[Item, asyncio.Future[Outcome]]] = []
        stay: list[tuple[Item, asyncio.Future[Outcome]]] = []
        behind: set[tuple[str, ...]] = set()
        left = _MOST_CHARACTERS
        while waiting and len(group) < most and len(stay) < self._largest and left > 0:
            entry = waiting.popleft()
            item = entry[0]
            if item.alone:  # What came before it is written first, what came after it later.
                if group or stay or self._in_flight:
                    waiting.appendleft(entry)
                else:
                    group.append(entry)
                    self._alone = True
                break
            if busy.isdisjoint(item.keys) and behind.isdisjoint(item.keys):
                group.append(entry)
                left -= item.size
            else:
                stay.append(entry)
                behind |= item.keys
        waiting.extendleft(reversed(stay))
        return group

    def _settle(
        self, group: list[tuple[Item, asyncio.Future[Outcome]]], outcomes: Sequence[Outcome | Exception]
    ) -> None:
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        if self._empty is not None and not self._empty.done() and not self._waiting and not self._in_flight:
            self._empty.set_result(None)
