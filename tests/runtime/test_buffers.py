from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.errors import UsageError
from roomkit.runtime import BlockingBuffer, BufferClosed, CoalescingBuffer, DropOldestBuffer, Scope


def _text(capacity: int = 10) -> CoalescingBuffer[str]:
    """Merges texts; one which begins with "!" stays apart."""
    return CoalescingBuffer(
        capacity, merge=lambda a, b: None if a.startswith("!") or b.startswith("!") else a + b, size=len
    )


async def test_blocking_keeps_order_and_makes_the_producer_wait() -> None:
    buffer: BlockingBuffer[int] = BlockingBuffer(2)
    scope, done = Scope("s"), list[int]()

    async def produce() -> None:
        for number in range(5):
            await buffer.put(number)
            done.append(number)

    scope.spawn(produce(), name="producer")
    await asyncio.sleep(1)
    assert done == [0, 1]
    assert not buffer.try_put(99)
    assert [await buffer.get() for _ in range(5)] == [0, 1, 2, 3, 4]
    await scope.drain()
    stats = buffer.stats
    assert (stats.accepted, stats.taken, stats.refused, stats.peak, len(buffer)) == (5, 5, 1, 2, 0)


async def test_blocking_serves_waiting_producers_in_order() -> None:
    buffer: BlockingBuffer[str] = BlockingBuffer(1)
    scope = Scope("s")
    for name in "abcd":
        scope.spawn(buffer.put(name), name=name)
        await asyncio.sleep(1)
    assert [await buffer.get() for _ in range(4)] == ["a", "b", "c", "d"]
    await scope.drain()


async def test_blocking_forgets_a_cancelled_producer() -> None:
    buffer: BlockingBuffer[int] = BlockingBuffer(1)
    scope = Scope("s")
    await buffer.put(1)
    waiting = scope.spawn(buffer.put(2), name="cancelled")
    scope.spawn(buffer.put(3), name="kept")
    await asyncio.sleep(1)
    waiting.cancel()
    assert [await buffer.get(), await buffer.get()] == [1, 3]
    await scope.drain()


async def test_blocking_close_ends_producers_at_once_and_the_consumer_after_the_rest() -> None:
    buffer: BlockingBuffer[int] = BlockingBuffer(2)
    scope = Scope("s")
    await buffer.put(1)
    await buffer.put(2)
    waiting = scope.spawn(buffer.put(3), name="waiting", awaited=True)
    await asyncio.sleep(0)
    buffer.close()
    with pytest.raises(BufferClosed):
        await waiting
    with pytest.raises(BufferClosed):
        buffer.try_put(4)
    assert [item async for item in buffer] == [1, 2]
    with pytest.raises(BufferClosed):
        await buffer.get()


async def test_blocking_clear_lets_waiting_producers_in() -> None:
    buffer: BlockingBuffer[int] = BlockingBuffer(1)
    scope = Scope("s")
    await buffer.put(1)
    scope.spawn(buffer.put(2), name="waiting")
    await asyncio.sleep(0)
    assert buffer.clear() == 1
    assert await buffer.get() == 2
    await scope.drain()
    assert buffer.stats.dropped == 1


Make = Callable[[], tuple[object, Callable[[str], object], Callable[[], Awaitable[str]]]]


def _blocking() -> tuple[object, Callable[[str], object], Callable[[], Awaitable[str]]]:
    buffer: BlockingBuffer[str] = BlockingBuffer(10)
    return buffer, buffer.try_put, buffer.get


def _coalescing() -> tuple[object, Callable[[str], object], Callable[[], Awaitable[str]]]:
    buffer = _text()
    return buffer, buffer.offer, buffer.take


def _dropping() -> tuple[object, Callable[[str], object], Callable[[], Awaitable[str]]]:
    buffer: DropOldestBuffer[str] = DropOldestBuffer(10)
    return buffer, buffer.push, buffer.get


@pytest.mark.parametrize("make", [_blocking, _coalescing, _dropping])
async def test_a_consumer_waits_and_is_woken(make: Make) -> None:
    _, put, get = make()
    async with Scope("s") as scope:
        consumer = scope.spawn(_call(get), name="consumer")
        await asyncio.sleep(1)
        assert not consumer.done()
        put("!x")
        assert await consumer == "!x"


@pytest.mark.parametrize("make", [_blocking, _coalescing, _dropping])
async def test_a_woken_consumer_that_is_cancelled_passes_the_item_on(make: Make) -> None:
    _, put, get = make()
    async with Scope("s") as scope:
        first = scope.spawn(_call(get), name="first")
        second = scope.spawn(_call(get), name="second")
        await asyncio.sleep(1)
        put("!x")
        first.cancel()
        assert await second == "!x"
        assert first.cancelled()


@pytest.mark.parametrize("make", [_blocking, _coalescing, _dropping])
async def test_a_consumer_cancelled_while_waiting_takes_nothing(make: Make) -> None:
    buffer, put, get = make()
    async with Scope("s") as scope:
        first = scope.spawn(_call(get), name="first")
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.sleep(1)
        assert not buffer._getters._futures, "a consumer that gave up leaves nothing behind"  # type: ignore[attr-defined]
        put("!x")
        assert await get() == "!x"


@pytest.mark.parametrize("make", [_blocking, _coalescing, _dropping])
async def test_close_wakes_every_waiting_consumer(make: Make) -> None:
    buffer, _, get = make()
    async with Scope("s") as scope:
        consumers = [scope.spawn(_call(get), name=str(n), awaited=True) for n in range(3)]
        await asyncio.sleep(1)
        buffer.close()  # type: ignore[attr-defined]
        for consumer in consumers:
            with pytest.raises(BufferClosed):
                await consumer


async def _call(get: Callable[[], Awaitable[str]]) -> str:
    return await get()


async def test_coalescing_merges_neighbours_only() -> None:
    buffer = _text()
    for piece in ("a", "b", "!", "c", "d"):
        assert buffer.offer(piece)
    assert (len(buffer), buffer.filled) == (3, 5)
    buffer.close()
    assert [item async for item in buffer] == ["ab", "!", "cd"]
    assert (buffer.stats.accepted, buffer.stats.merged, buffer.stats.taken, buffer.filled) == (5, 2, 3, 0)


async def test_coalescing_refuses_what_does_not_fit_and_changes_nothing() -> None:
    buffer = _text(capacity=4)
    assert buffer.offer("abc")
    assert not buffer.offer("de")
    assert not buffer.offer("!x")
    assert buffer.offer("d")
    assert buffer.take_nowait() == "abcd"
    assert buffer.take_nowait() is None
    assert (buffer.stats.refused, buffer.stats.peak) == (2, 4)


async def test_coalescing_takes_any_size_when_empty_and_nothing_when_closed() -> None:
    buffer = _text(capacity=4)
    assert buffer.offer("!too large")
    assert not buffer.offer("x")
    assert buffer.clear() == 1
    assert buffer.offer("x")
    buffer.close()
    assert not buffer.offer("y")
    assert await buffer.take() == "x"


@given(pieces=st.lists(st.text("ab!", min_size=1, max_size=3), max_size=30), capacity=st.integers(1, 12))
async def test_coalescing_loses_no_text_it_accepted(pieces: list[str], capacity: int) -> None:
    buffer = _text(capacity)
    accepted, taken = "", ""
    for number, piece in enumerate(pieces):
        if buffer.offer(piece):
            accepted += piece
        assert buffer.filled <= max(capacity, 3)
        if number % 4 == 3:
            taken += buffer.take_nowait() or ""
    while (item := buffer.take_nowait()) is not None:
        taken += item
    assert taken == accepted
    assert buffer.filled == 0


async def test_dropping_keeps_the_newest_and_counts() -> None:
    buffer: DropOldestBuffer[int] = DropOldestBuffer(3)
    for number in range(5):
        buffer.push(number)
    assert len(buffer) == 3
    buffer.close()
    buffer.push(9)
    assert [item async for item in buffer] == [2, 3, 4]
    assert (buffer.stats.dropped, buffer.stats.accepted, buffer.stats.taken, buffer.stats.peak) == (3, 5, 3, 3)


async def test_dropping_clear() -> None:
    buffer: DropOldestBuffer[int] = DropOldestBuffer(3)
    buffer.push(1)
    assert (buffer.clear(), len(buffer), buffer.stats.dropped) == (1, 0, 1)


@pytest.mark.parametrize(
    "make", [BlockingBuffer, DropOldestBuffer, lambda capacity: CoalescingBuffer(capacity, merge=lambda a, b: None)]
)
def test_a_buffer_needs_room(make: Callable[[int], object]) -> None:
    with pytest.raises(UsageError, match="positive capacity"):
        make(0)
