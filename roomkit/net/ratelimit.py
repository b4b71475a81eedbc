"""Token buckets on the loop's time: outgoing calls wait their turn, incoming ones are refused."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING

from roomkit.errors import ConfigError, Overloaded, UsageError
from roomkit.runtime import monotonic

if TYPE_CHECKING:
    from roomkit.models.delivery import DeliveryPolicy

MAX_BUCKETS = 10_000

_ROUNDING = 1e-9  # a waiter woken exactly on time must not miss its token by a rounding error
_Waiter = tuple[float, int, asyncio.Future[None], float]
"""When it is its turn on the bucket's clock, its number, whom to wake, tokens wanted."""


class TokenBucket:
    """`rate` tokens a second, at most `burst` saved up; starts full. Groups of waiters (tenants, say) get equal shares:
    a thousand calls of one delay the next call of another by one."""

    __slots__ = (
        "_at",
        "_burst",
        "_ends",
        "_number",
        "_rate",
        "_served",
        "_timer",
        "_tokens",
        "_waiting",
        "max_waiting",
    )

    def __init__(self, rate: float, burst: float | None = None, *, max_waiting: int = 10_000) -> None:
        """`burst` defaults to one second's worth, at least one token."""
        if rate <= 0 or (burst is not None and burst < 1):
            raise ConfigError(
                f"rate limit: rate={rate}, burst={burst} lets nothing through; use rate > 0 and burst >= 1"
            )
        self._rate = rate
        self._burst = max(1.0, rate) if burst is None else burst
        self._tokens = self._burst
        self._at: float | None = None  # a bucket may be made before any loop runs
        self._waiting: list[_Waiter] = []
        self._number = 0
        self._served = 0.0  # a clock that counts the tokens which the best served group was given
        self._ends: dict[Hashable, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.max_waiting = max_waiting

    def try_acquire(self, tokens: float = 1) -> bool:
        """Take `tokens` now or not at all. Nobody overtakes those who wait in `acquire`."""
        self._check(tokens)
        return not self._waiting and self._take(tokens)

    async def acquire(self, tokens: float = 1, *, group: Hashable = None) -> None:
        """Wait until `tokens` can be taken: within a `group` first come first served, and the groups in turn.

        A cancelled waiter takes nothing. Raises `Overloaded` when `max_waiting` others wait already.
        """
        if self.try_acquire(tokens):
            return
        if len(self._waiting) >= self.max_waiting:
            raise Overloaded(
                f"rate limit: {len(self._waiting)} calls wait already; send less or raise the rate",
                retry_after=self.retry_in(tokens),
            )
        turn = asyncio.get_running_loop().create_future()
        self._ends[group] = end = max(self._served, self._ends.get(group, 0.0)) + tokens
        self._number += 1
        entry = (end, self._number, turn, tokens)
        heappush(self._waiting, entry)
        self._arm()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._tokens += tokens
            elif entry in self._waiting:  # the timer may have dropped it already
                self._waiting.remove(entry)
                heapify(self._waiting)
            self._serve()
            raise

    def retry_in(self, tokens: float = 1) -> float:
        """Seconds until a newcomer could take `tokens`, those who wait served first."""
        self._refill()
        ahead = sum(waiter[3] for waiter in self._waiting)
        return max(0.0, (ahead + tokens - self._tokens) / self._rate)

    @property
    def idle(self) -> bool:
        """Full and without waiters: no different from a new bucket."""
        self._refill()
        return not self._waiting and self._tokens >= self._burst

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _check(self, tokens: float) -> None:
        if tokens > self._burst:
            raise UsageError(
                f"rate limit: {tokens} tokens can never be taken from a bucket of {self._burst}; raise burst"
            )

    def _refill(self) -> None:
        now = monotonic()
        elapsed = 0.0 if self._at is None else now - self._at
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
        self._at = now

    def _take(self, tokens: float) -> bool:
        self._refill()
        if self._tokens + _ROUNDING < tokens:
            return False
        self._tokens -= tokens
        return True

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            missing = self._waiting[0][3] - self._tokens
            self._timer = asyncio.get_running_loop().call_later(max(0.0, missing / self._rate), self._serve)

    def _serve(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            end, _, turn, tokens = self._waiting[0]
            if not turn.cancelled():
                if not self._take(tokens):
                    break
                turn.set_result(None)
                self._served = end
            heappop(self._waiting)
        if not self._waiting:
            self._ends.clear()
            self._served = 0.0
        self._arm()


class RateLimiter:
    """One bucket per key (provider, sender, address, ...), in bounded memory: the key unused for longest goes first."""

    def __init__(
        self, rate: float, burst: float | None = None, *, max_keys: int = 10_000, max_waiting: int = 10_000
    ) -> None:
        """`rate` and `burst` hold for each key, `max_waiting` for all of them together."""
        if max_keys < 1:
            raise ConfigError("rate limit: max_keys must be at least 1")
        self._rate = rate
        self._burst = burst
        self._max_keys = max_keys
        self._max_waiting = max_waiting
        self._waiting = 0
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def try_acquire(self, key: Hashable, tokens: float = 1) -> bool:
        """Take from `key`'s bucket now or not at all (inbound: refuse, never queue)."""
        return self._bucket(key).try_acquire(tokens)

    async def acquire(self, key: Hashable, tokens: float = 1) -> None:
        """Wait for `key`'s turn (outbound: queue, never drop); as `TokenBucket.acquire`."""
        bucket = self._bucket(key)
        if bucket.try_acquire(tokens):
            return
        if self._waiting >= self._max_waiting:
            raise Overloaded(
                f"rate limit: {self._waiting} calls wait already; send less or raise the rate",
                retry_after=bucket.retry_in(tokens),
            )
        self._waiting += 1
        try:
            await bucket.acquire(tokens)
        finally:
            self._waiting -= 1

    def retry_in(self, key: Hashable, tokens: float = 1) -> float:
        """Seconds until `key` could take `tokens`, for a Retry-After header."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.retry_in(tokens)

    def _bucket(self, key: Hashable) -> TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            self._make_room()
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, max_waiting=self._max_waiting)
        else:
            self._buckets.move_to_end(key)
        return bucket

    def _make_room(self) -> None:
        for _ in range(len(self._buckets)):
            if len(self._buckets) < self._max_keys:
                return
            key, bucket = self._buckets.popitem(last=False)
            if bucket.waiting:  # its waiters still count on it
                self._buckets[key] = bucket
        if len(self._buckets) >= self._max_keys:
            raise Overloaded(f"rate limit: all {self._max_keys} keys have calls waiting; send less or raise max_keys")


class Pacer:
    """Rates of providers and of their recipients, in bounded memory."""

    def __init__(self) -> None:
        self._buckets: dict[str, TokenBucket] = {}

    async def pace(self, tenant: str, provider: str, recipient: str, policy: DeliveryPolicy) -> None:
        """Waits for what the far end may be sent now; tenants who share a channel share its rate."""
        if policy.rate_per_s is not None:
            await self._bucket(provider, policy.rate_per_s, policy.burst).acquire(group=tenant)
        if policy.recipient_rate_per_s is not None:
            await self._bucket(f"{provider}\n{recipient}", policy.recipient_rate_per_s, None).acquire()

    def _bucket(self, name: str, rate: float, burst: float | None) -> TokenBucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            # Each lane waits with one delivery: their number is the limit, and none is turned away.
            bucket = TokenBucket(rate, burst, max_waiting=sys.maxsize)
            if len(self._buckets) >= MAX_BUCKETS:
                self._forget_bucket()
            self._buckets[name] = bucket
        return bucket

    def _forget_bucket(self) -> None:
        """Drops one that is no different from a new one; those in use go to the end."""
        for name in list(islice(self._buckets, 64)):
            bucket = self._buckets.pop(name)
            if bucket.idle:
                return
            self._buckets[name] = bucket
