"""The three kinds of queue of the house. All are bounded, closeable, and count what happens to them.

Whatever is left in a closed buffer can still be taken; after that `BufferClosed` ends the consumer.
All methods belong to the loop thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from roomkit.errors import StateError, UsageError

T = TypeVar("T")


class BufferClosed(StateError):
    """Nothing more comes out of, or goes into, this buffer."""


@dataclass(slots=True)
class BufferStats:
    """Counters of one buffer since it was made. `peak` is the highest fill, in the unit of its capacity."""

    accepted: int = 0
    taken: int = 0
    merged: int = 0
    refused: int = 0
    dropped: int = 0
    peak: int = 0


class BlockingBuffer(Generic[T]):
    """First in, first out; a full buffer makes the producer wait. For commands: nothing is ever lost.

    Waiting producers are served in their order. A producer cancelled while waiting may have been granted its place
    in the same loop turn; then its item stays.
    """

    __slots__ = ("_closed", "_getters", "_items", "_putters", "capacity", "stats")

    def __init__(self, capacity: int) -> None:
        self.capacity = _positive(capacity)
        self.stats = BufferStats()
        self._items: deque[T] = deque()
        self._getters = _Waiters()
        self._putters: deque[tuple[asyncio.Future[None], T]] = deque()
        self._closed = False

    async def put(self, item: T) -> None:
        """Stores `item`, waiting for room. Raises `BufferClosed` if the buffer is, or meanwhile gets, closed."""
        if self._closed or len(self._items) < self.capacity:
            self.try_put(item)
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._putters.append((place, item))
        await place

    def try_put(self, item: T) -> bool:
        """Stores `item` if there is room now. Raises `BufferClosed` once closed."""
        if self._closed:
            raise BufferClosed("the buffer is closed; nothing can be put into it any more")
        if len(self._items) >= self.capacity:
            self.stats.refused += 1
            return False
        self._store(item)
        return True

    async def get(self) -> T:
        """The oldest item, waiting for one. Raises `BufferClosed` once closed and empty."""
        while not self._items:
            if self._closed:
                raise BufferClosed("the buffer is closed and empty")
            await self._getters.wait()
        item = self._items.popleft()
        self.stats.taken += 1
        self._admit()
        return item

    def clear(self) -> int:
        """Throws away what is stored now, lets waiting producers in, and returns how many items were dropped."""
        dropped = len(self._items)
        self._items.clear()
        self.stats.dropped += dropped
        self._admit()
        return dropped

    def close(self) -> None:
        """Ends the buffer: waiting producers get `BufferClosed`, the consumer after it has taken the rest."""
        self._closed = True
        while self._putters:
            place, _ = self._putters.popleft()
            if not place.done():
                place.set_exception(BufferClosed("the buffer was closed while an item waited for room"))
        self._getters.wake_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def __len__(self) -> int:
        return len(self._items)

    def __aiter__(self) -> AsyncIterator[T]:
        return _drain(self.get)

    def _store(self, item: T) -> None:
        self._items.append(item)
        stats = self.stats
        stats.accepted += 1
        stats.peak = max(stats.peak, len(self._items))
        self._getters.wake()

    def _admit(self) -> None:
        while self._putters and len(self._items) < self.capacity:
            place, item = self._putters.popleft()
            if not place.done():
                place.set_result(None)
                self._store(item)


class CoalescingBuffer(Generic[T]):
    """Merges an item with the one stored last where it can, so that a slow consumer gets fewer, larger items.

    `merge(last, new)` returns the merged item, or None if these two must stay apart. `size(item)` is its share of
    `capacity` (default 1 each). The producer never waits: `offer` answers False when the item does not fit, and
    the producer then cuts the consumer or resynchronises it. An empty buffer takes an item of any size.
    """

    __slots__ = ("_closed", "_filled", "_getters", "_items", "_merge", "_size", "capacity", "stats")

    def __init__(
        self, capacity: int, *, merge: Callable[[T, T], T | None], size: Callable[[T], int] | None = None
    ) -> None:
        self.capacity = _positive(capacity)
        self.stats = BufferStats()
        self._merge = merge
        self._size = size or _one
        self._items: deque[tuple[T, int]] = deque()
        self._filled = 0
        self._getters = _Waiters()
        self._closed = False

    def offer(self, item: T) -> bool:
        """Stores or merges `item`; False, with nothing changed, if it does not fit or the buffer is closed."""
        if self._closed:
            self.stats.refused += 1
            return False
        if not self._items:
            return self._append(item, self._size(item))
        last, last_size = self._items[-1]
        merged = self._merge(last, item)
        if merged is None:
            size = self._size(item)
            if self._filled + size > self.capacity:
                self.stats.refused += 1
                return False
            return self._append(item, size)
        size = self._size(merged)
        if self._filled - last_size + size > self.capacity:
            self.stats.refused += 1
            return False
        self._items[-1] = (merged, size)
        self._filled += size - last_size
        self.stats.accepted += 1
        self.stats.merged += 1
        self.stats.peak = max(self.stats.peak, self._filled)
        return True

    async def take(self) -> T:
        """The oldest item, waiting for one. Raises `BufferClosed` once closed and empty."""
        while not self._items:
            if self._closed:
                raise BufferClosed("the buffer is closed and empty")
            await self._getters.wait()
        return self._pop()

    def take_nowait(self) -> T | None:
        """The oldest item, or None if there is none now."""
        return self._pop() if self._items else None

    def clear(self) -> int:
        """Throws away what is stored now and returns how many items were dropped."""
        dropped = len(self._items)
        self._items.clear()
        self._filled = 0
        self.stats.dropped += dropped
        return dropped

    def close(self) -> None:
        """Refuses further items and ends the consumer once it has taken the rest."""
        self._closed = True
        self._getters.wake_all()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def filled(self) -> int:
        """How much of the capacity is in use, in the unit of `size`."""
        return self._filled

    def __len__(self) -> int:
        return len(self._items)

    def __aiter__(self) -> AsyncIterator[T]:
        return _drain(self.take)

    def _append(self, item: T, size: int) -> bool:
        self._items.append((item, size))
        self._filled += size
        self.stats.accepted += 1
        self.stats.peak = max(self.stats.peak, self._filled)
        self._getters.wake()
        return True

    def _pop(self) -> T:
        item, size = self._items.popleft()
        self._filled -= size
        self.stats.taken += 1
        return item


class DropOldestBuffer(Generic[T]):
    """Keeps the newest `capacity` items; for live data, where late is worse than lost. The producer never waits."""

    __slots__ = ("_closed", "_getters", "_items", "capacity", "stats")

    def __init__(self, capacity: int) -> None:
        self.capacity = _positive(capacity)
        self.stats = BufferStats()
        self._items: deque[T] = deque()
        self._getters = _Waiters()
        self._closed = False

    def push(self, item: T) -> None:
        """Stores `item`, dropping the oldest one if full. After `close` the item itself is dropped (and counted)."""
        stats = self.stats
        if self._closed:
            stats.dropped += 1
            return
        if len(self._items) >= self.capacity:
            self._items.popleft()
            stats.dropped += 1
        self._items.append(item)
        stats.accepted += 1
        stats.peak = max(stats.peak, len(self._items))
        self._getters.wake()

    async def get(self) -> T:
        """The oldest item kept, waiting for one. Raises `BufferClosed` once closed and empty."""
        while not self._items:
            if self._closed:
                raise BufferClosed("the buffer is closed and empty")
            await self._getters.wait()
        self.stats.taken += 1
        return self._items.popleft()

    def clear(self) -> int:
        """Throws away what is stored now and returns how many items were dropped."""
        dropped = len(self._items)
        self._items.clear()
        self.stats.dropped += dropped
        return dropped

    def close(self) -> None:
        """Drops further items and ends the consumer once it has taken the rest."""
        self._closed = True
        self._getters.wake_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def __len__(self) -> int:
        return len(self._items)

    def __aiter__(self) -> AsyncIterator[T]:
        return _drain(self.get)


class _Waiters:
    """Consumers waiting for an item, woken one at a time in their order."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.wake()  # It was woken and cancelled in one turn: another one must see the item.
            elif future in self._futures:
                self._futures.remove(future)
            raise

    def wake(self) -> None:
        futures = self._futures
        while futures:
            future = futures.popleft()
            if not future.done():
                future.set_result(None)
                return

    def wake_all(self) -> None:
        while self._futures:
            self.wake()


async def _drain(get: Callable[[], Awaitable[T]]) -> AsyncIterator[T]:
    while True:
        try:
            item = await get()
        except BufferClosed:
            return
        yield item


def _one(_: object) -> int:
    return 1


def _positive(capacity: int) -> int:
    if capacity < 1:
        raise UsageError(f"a buffer needs room for at least one item, not {capacity}; give it a positive capacity")
    return capacity
