from __future__ import annotations

import asyncio

import pytest

from roomkit.errors import ConfigError, Overloaded, UsageError
from roomkit.net.ratelimit import RateLimiter, TokenBucket
from roomkit.runtime import Scope, monotonic


async def test_burst_passes_then_the_rate_rules():
    bucket = TokenBucket(10, burst=5)
    start = monotonic()
    stamps: list[float] = []
    for _ in range(25):
        await bucket.acquire()
        stamps.append(round(monotonic() - start, 6))
    assert stamps[:5] == [0] * 5
    assert stamps[5:] == [pytest.approx(n / 10) for n in range(1, 21)]


async def test_waiters_are_served_in_order_even_when_small_requests_come_last():
    bucket = TokenBucket(1, burst=3)
    await bucket.acquire(3)
    order: list[str] = []

    async def wait(name: str, tokens: int) -> None:
        await bucket.acquire(tokens)
        order.append(name)

    await with_scope(lambda s: [s.spawn(wait(n, t), name=n) for n, t in [("big", 3), ("small", 1), ("last", 2)]])
    assert order == ["big", "small", "last"]


async def with_scope(start) -> None:
    scope = Scope("test")
    await asyncio.gather(*start(scope))
    await scope.aclose()


async def test_try_acquire_never_overtakes_those_who_wait():
    bucket = TokenBucket(1, burst=2)
    await bucket.acquire(2)
    scope = Scope("test")
    waiter = scope.spawn(bucket.acquire(2), name="waiter")
    await asyncio.sleep(1.5)
    assert not bucket.try_acquire()
    await waiter
    assert not bucket.try_acquire()
    await asyncio.sleep(1)
    assert bucket.try_acquire()
    await scope.aclose()


async def test_a_cancelled_waiter_takes_nothing_and_the_next_moves_up():
    bucket = TokenBucket(1, burst=1)
    await bucket.acquire()
    scope = Scope("test")
    start = monotonic()
    first = scope.spawn(bucket.acquire(), name="first")
    second = scope.spawn(bucket.acquire(), name="second")
    await asyncio.sleep(0.5)
    first.cancel()
    await second
    assert monotonic() - start == pytest.approx(1)
    assert bucket.waiting == 0
    await scope.aclose()


async def test_cancelled_in_the_moment_of_being_served_gives_the_token_back():
    bucket = TokenBucket(1, burst=1)
    await bucket.acquire()
    scope = Scope("test")
    first = scope.spawn(bucket.acquire(), name="first")
    second = scope.spawn(bucket.acquire(), name="second")
    await asyncio.sleep(0)
    start = monotonic()
    asyncio.get_running_loop().call_later(1.0, first.cancel)
    await second
    assert monotonic() - start == pytest.approx(1)
    assert first.cancelled()
    await scope.aclose()


async def test_too_many_waiters_are_refused_with_the_time_to_come_back():
    bucket = TokenBucket(1, burst=1, max_waiting=1)
    await bucket.acquire()
    scope = Scope("test")
    scope.spawn(bucket.acquire(), name="waiter")
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await bucket.acquire()
    assert caught.value.retry_after == pytest.approx(2)
    await scope.aclose()


async def test_more_than_the_burst_can_never_be_taken():
    with pytest.raises(UsageError, match="raise burst"):
        await TokenBucket(1, burst=2).acquire(3)


@pytest.mark.parametrize("rate, burst", [(0, None), (-1, 1), (1, 0)])
def test_limits_that_let_nothing_through_are_refused(rate: float, burst: float | None):
    with pytest.raises(ConfigError):
        TokenBucket(rate, burst)


async def test_keys_do_not_share_tokens():
    limiter = RateLimiter(1, burst=2)
    assert [limiter.try_acquire("a") for _ in range(3)] == [True, True, False]
    assert limiter.try_acquire("b")
    assert limiter.retry_in("a") == pytest.approx(1)
    assert limiter.retry_in("never seen") == 0
    await limiter.acquire("a")
    assert not limiter.try_acquire("a")


async def test_memory_is_bounded_and_the_longest_unused_key_goes_first():
    limiter = RateLimiter(1, burst=1, max_keys=100)
    limiter.try_acquire("regular")
    for n in range(10_000):
        limiter.try_acquire(f"stranger {n}")
        assert not limiter.try_acquire("regular")
        assert len(limiter) <= 100


async def test_a_key_with_waiters_is_never_forgotten():
    limiter = RateLimiter(1, burst=1, max_keys=2)
    await limiter.acquire("a")
    scope = Scope("test")
    waiter = scope.spawn(limiter.acquire("a"), name="waiter")
    await asyncio.sleep(0)
    for n in range(5):
        limiter.try_acquire(n)
    assert not limiter.try_acquire("a")
    await waiter
    assert len(limiter) == 2
    await scope.aclose()


async def test_waiting_calls_of_all_keys_together_are_bounded():
    limiter = RateLimiter(1, burst=1, max_waiting=1)
    scope = Scope("test")
    for key in ("a", "b"):
        await limiter.acquire(key)
    scope.spawn(limiter.acquire("a"), name="waiter")
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await limiter.acquire("b")
    await scope.aclose()
