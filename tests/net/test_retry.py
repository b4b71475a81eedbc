from __future__ import annotations

import random

import pytest

from roomkit.errors import ConfigError, ProviderError, RateLimited, Refused, Unavailable
from roomkit.net.retry import RetryPolicy, retry
from roomkit.runtime import monotonic

EXACT = RetryPolicy(jitter=0)


class Vendor:
    def __init__(self, *outcomes: ProviderError | str) -> None:
        self.outcomes = list(outcomes)
        self.called_at: list[float] = []

    async def __call__(self) -> str:
        self.called_at.append(monotonic())
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome

    @property
    def gaps(self) -> list[float]:
        return [round(b - a, 6) for a, b in zip(self.called_at, self.called_at[1:], strict=False)]


async def test_waits_grow_by_the_factor_and_end_with_the_result():
    vendor = Vendor(*(Unavailable("v", "down") for _ in range(3)), "ok")
    assert await retry(vendor, EXACT) == "ok"
    assert vendor.gaps == [1, 2, 4]


async def test_the_last_error_is_raised_when_the_policy_is_used_up():
    errors = [Unavailable("v", f"down {n}") for n in range(4)]
    with pytest.raises(Unavailable, match="down 3"):
        await retry(Vendor(*errors), EXACT)


async def test_delays_are_capped():
    policy = RetryPolicy(max_retries=9, jitter=0)
    vendor = Vendor(*(Unavailable("v", "down") for _ in range(9)), "ok")
    await retry(vendor, policy)
    assert vendor.gaps[-3:] == [60, 60, 60]
    assert policy.delay(100_000) == 60


async def test_errors_that_do_not_say_retryable_are_raised_at_once():
    for error in (Refused("v", "blocked"), Unavailable("v", "never", retryable=False)):
        vendor = Vendor(error, "ok")
        with pytest.raises(ProviderError):
            await retry(vendor, EXACT)
        assert len(vendor.called_at) == 1

    async def bug() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await retry(bug, EXACT)


async def test_retry_after_is_a_lower_bound():
    vendor = Vendor(RateLimited("v", "slow", retry_after=7), RateLimited("v", "slow", retry_after=0.5), "ok")
    await retry(vendor, EXACT)
    assert vendor.gaps == [7, 2]


async def test_a_wait_longer_than_allowed_is_left_to_the_caller():
    vendor = Vendor(RateLimited("v", "tomorrow", retry_after=301), "ok")
    with pytest.raises(RateLimited) as caught:
        await retry(vendor, EXACT)
    assert caught.value.retry_after == 301


def test_jitter_takes_its_share_of_the_delay_from_the_injected_numbers():
    policy = RetryPolicy(jitter=0.5)
    assert policy.delay(1, rng=lambda: 0.0) == 2
    assert policy.delay(1, rng=lambda: 1.0) == 1
    first, second = random.Random(7), random.Random(7)
    assert [policy.delay(n, rng=first.random) for n in range(5)] == [
        policy.delay(n, rng=second.random) for n in range(5)
    ]
    assert policy.delay(1, retry_after=1.9, rng=lambda: 1.0) == 1.9


async def test_observer_hears_of_every_wait():
    heard: list[tuple[int, float]] = []
    vendor = Vendor(Unavailable("v", "x"), Unavailable("v", "x"), "ok")
    await retry(vendor, EXACT, on_retry=lambda attempt, _, delay: heard.append((attempt, delay)))
    assert heard == [(0, 1), (1, 2)]


@pytest.mark.parametrize("bad", [{"max_retries": -1}, {"jitter": 1.1}, {"factor": 0.5}, {"base_delay": -1}])
def test_impossible_policies_are_refused(bad: dict[str, float]):
    with pytest.raises(ConfigError):
        RetryPolicy(**bad)
