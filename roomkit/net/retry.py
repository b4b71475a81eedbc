"""Trying again: exponential back-off with jitter, for errors which say that trying again can help."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from roomkit.errors import ConfigError, ProviderError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently to try again. All times are seconds.

    `jitter` is the part of each delay that is random: 0 waits exactly, 1 waits anything up to the delay.
    A provider that asks for more than `longest_wait` is not waited for: its error is raised at once, `retry_after`
    attached, so that the caller can schedule the attempt instead of holding a task.
    """

    max_retries: int = 3
    base_delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 60.0
    jitter: float = 0.5
    longest_wait: float = 300.0

    def __post_init__(self) -> None:
        if self.max_retries < 0 or self.base_delay < 0 or self.max_delay < 0 or self.factor < 1:
            raise ConfigError("RetryPolicy: max_retries and delays must be >= 0 and factor >= 1; correct the arguments")
        if not 0 <= self.jitter <= 1:
            raise ConfigError(f"RetryPolicy: jitter={self.jitter} is no share of the delay; use a number from 0 to 1")

    def delay(
        self, attempt: int, *, retry_after: float | None = None, rng: Callable[[], float] = random.random
    ) -> float:
        """Seconds to wait after failed attempt number `attempt` (0 is the first); never less than `retry_after`."""
        # The exponent is bounded because a durable outbox may count attempts for days.
        backoff = min(self.max_delay, self.base_delay * self.factor ** min(attempt, 64))
        return max(backoff * (1 - self.jitter * rng()), retry_after or 0.0)


async def retry(
    fn: Callable[[], Awaitable[T]],
    policy: RetryPolicy | None = None,
    *,
    rng: Callable[[], float] = random.random,
    on_retry: Callable[[int, ProviderError, float], None] | None = None,
) -> T:
    """Await `fn()` until it succeeds, fails for good or the policy is used up; the last error is raised.

    Only a `ProviderError` that says `retryable` is tried again. `rng` returns numbers in [0, 1); `on_retry` hears
    (attempt, error, delay) before each wait. Cancellation ends the wait or the attempt at once.
    """
    policy = policy or RetryPolicy()
    attempt = 0
    while True:
        try:
            return await fn()
        except ProviderError as error:
            if not error.retryable or attempt >= policy.max_retries or (error.retry_after or 0) > policy.longest_wait:
                raise
            delay = policy.delay(attempt, retry_after=error.retry_after, rng=rng)
            if on_retry is not None:
                on_retry(attempt, error, delay)
        attempt += 1
        await asyncio.sleep(delay)
