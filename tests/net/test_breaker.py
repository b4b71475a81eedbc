from __future__ import annotations

import asyncio

import pytest

from roomkit.errors import ConfigError, ProviderError, RateLimited, Refused, Unavailable
from roomkit.net.breaker import BreakerChange, BreakerOpen, BreakerOptions, Breakers, BreakerState

DOWN = Unavailable("sms", "down")


def fail(breakers: Breakers, recipient: str | None, times: int = 1, error: BaseException = DOWN) -> None:
    for _ in range(times):
        breakers.acquire("sms", recipient).failed(error)


def is_open(breakers: Breakers, recipient: str | None) -> bool:
    try:
        breakers.acquire("sms", recipient).released()
    except BreakerOpen:
        return True
    return False


async def test_five_failures_in_a_row_open_for_sixty_seconds_then_one_probe():
    breakers = Breakers()
    fail(breakers, "a", 4)
    assert not is_open(breakers, "a")
    fail(breakers, "a")
    with pytest.raises(BreakerOpen) as caught:
        breakers.acquire("sms", "a")
    assert caught.value.retryable
    assert caught.value.retry_after == 60
    await asyncio.sleep(59.9)
    assert is_open(breakers, "a")
    await asyncio.sleep(0.2)
    assert breakers.state("sms", "a") == BreakerState.HALF_OPEN
    probe = breakers.acquire("sms", "a")
    assert is_open(breakers, "a"), "only one probe at a time"
    probe.succeeded()
    assert not is_open(breakers, "a")
    assert len(breakers) == 0


async def test_a_failed_probe_opens_again():
    breakers = Breakers()
    fail(breakers, "a", 5)
    await asyncio.sleep(60)
    fail(breakers, "a")
    await asyncio.sleep(59)
    assert is_open(breakers, "a")
    await asyncio.sleep(1)
    assert not is_open(breakers, "a")


async def test_success_in_between_starts_the_count_again():
    breakers = Breakers()
    for _ in range(10):
        fail(breakers, "a", 4)
        breakers.acquire("sms", "a").succeeded()
    assert not is_open(breakers, "a")


async def test_one_dead_recipient_never_silences_the_others():
    breakers = Breakers()
    fail(breakers, "dead", 4)
    for _ in range(50):
        fail(breakers, "dead")
        assert is_open(breakers, "dead")
        assert not is_open(breakers, "alive")
        await asyncio.sleep(61)


async def test_several_failing_recipients_open_the_provider_for_all():
    breakers = Breakers()
    for recipient in ("a", "b", "c", "d", "e"):
        fail(breakers, recipient)
    assert is_open(breakers, "never tried")
    assert not is_open_for("other", breakers)


def is_open_for(provider: str, breakers: Breakers) -> bool:
    return breakers.state(provider) != BreakerState.CLOSED


async def test_anybodys_success_shows_that_the_provider_is_alive():
    breakers = Breakers()
    for recipient in ("a", "b", "c", "d"):
        fail(breakers, recipient)
    breakers.acquire("sms", "x").succeeded()
    fail(breakers, "e")
    assert not is_open(breakers, "f")


async def test_after_an_outage_a_dead_recipient_cannot_waste_the_providers_probe():
    breakers = Breakers()
    fail(breakers, "dead", 4)
    for recipient in ("a", "b"):
        fail(breakers, recipient)
    assert is_open(breakers, "c")
    await asyncio.sleep(60)
    fail(breakers, "dead")
    await asyncio.sleep(60)
    fail(breakers, "dead")
    assert not is_open(breakers, "c"), "the probe is left to somebody else"
    breakers.acquire("sms", "c").succeeded()
    assert breakers.state("sms") == BreakerState.CLOSED


async def test_a_provider_without_recipients_counts_plainly():
    breakers = Breakers()
    fail(breakers, None, 5)
    assert is_open(breakers, None)


@pytest.mark.parametrize(
    "answer", [Refused("sms", "opted out"), RateLimited("sms", "slow"), ProviderError("sms", "no")]
)
async def test_an_answer_is_a_sign_of_life(answer: ProviderError):
    breakers = Breakers()
    for _ in range(10):
        fail(breakers, "a", 4)
        fail(breakers, "a", error=answer)
    assert not is_open(breakers, "a")


async def test_abandoned_attempts_prove_nothing():
    breakers = Breakers()
    fail(breakers, "a", 4)
    fail(breakers, "a", 10, asyncio.CancelledError())
    assert not is_open(breakers, "a")
    fail(breakers, "a")
    await asyncio.sleep(60)
    breakers.acquire("sms", "a").released()
    assert not is_open(breakers, "a"), "the probe is free again"


async def test_a_probe_that_never_reports_blocks_for_one_period_only():
    breakers = Breakers()
    fail(breakers, "a", 5)
    await asyncio.sleep(60)
    breakers.acquire("sms", "a")
    assert is_open(breakers, "a")
    await asyncio.sleep(60)
    assert not is_open(breakers, "a")


async def test_a_permit_counts_once():
    breakers = Breakers()
    permit = breakers.acquire("sms", "a")
    for _ in range(9):
        permit.failed(DOWN)
    assert not is_open(breakers, "a")


async def test_events_are_told_on_the_edges_only():
    heard: list[BreakerChange] = []
    breakers = Breakers(on_change=heard.append)
    fail(breakers, "a", 5)
    for _ in range(3):
        await asyncio.sleep(60)
        fail(breakers, "a")
    await asyncio.sleep(60)
    breakers.acquire("sms", "a").succeeded()
    assert [(c.recipient, c.state) for c in heard] == [("a", BreakerState.OPEN), ("a", BreakerState.CLOSED)]


async def test_memory_is_bounded():
    breakers = Breakers(BreakerOptions(max_keys=50))
    for n in range(1000):
        fail(breakers, f"r{n}", 1, DOWN) if not is_open(breakers, f"r{n}") else None
        await asyncio.sleep(61)
        assert len(breakers) <= 50


async def test_call_runs_under_the_breakers():
    breakers = Breakers(BreakerOptions(failures=1))
    calls: list[int] = []

    async def down() -> None:
        calls.append(1)
        raise DOWN

    with pytest.raises(Unavailable, match="down"):
        await breakers.call(down, "sms", "a")
    with pytest.raises(BreakerOpen):
        await breakers.call(down, "sms", "a")
    assert len(calls) == 1
    breakers.reset("sms", "a")

    async def fine() -> str:
        return "ok"

    assert await breakers.call(fine, "sms", "a") == "ok"


async def test_troubled_lists_what_is_not_closed():
    breakers = Breakers()
    fail(breakers, "a", 5)
    fail(breakers, "b", 1)
    assert breakers.troubled() == [BreakerChange("sms", "a", BreakerState.OPEN, 5)]


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError):
        BreakerOptions(failures=0)
