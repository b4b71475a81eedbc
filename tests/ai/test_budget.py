"""Spend limits: per room, per tenant, in a sliding window."""

from __future__ import annotations

import asyncio

from roomkit.ai.budget import Budget, SpendLimits

USAGE = {"input_tokens": 60, "output_tokens": 40, "cache_read_tokens": 50}


async def test_a_room_and_its_tenant_have_limits_of_their_own() -> None:
    budget = Budget(SpendLimits(room_tokens=100, tenant_tokens=200))
    assert budget.refusal("t", "a", "tokens") is None
    budget.spend_tokens("t", "a", USAGE)
    assert budget.refusal("t", "a", "tokens") == "the tokens limit of this room is used up (100 in 86400 s)"
    assert budget.refusal("t", "b", "tokens") is None
    budget.spend_tokens("t", "b", USAGE)
    assert "tenant" in (budget.refusal("t", "c", "tokens") or "")
    assert budget.refusal("other", "a", "tokens") is None


async def test_what_was_spent_is_forgiven_when_the_window_has_passed() -> None:
    budget = Budget(SpendLimits(room_tool_calls=2, window_s=60))
    budget.spend_tool_call("t", "a")
    await asyncio.sleep(30)
    budget.spend_tool_call("t", "a")
    assert budget.refusal("t", "a", "tool_calls") is not None
    await asyncio.sleep(29)
    assert budget.refusal("t", "a", "tool_calls") is not None
    await asyncio.sleep(1)
    assert budget.refusal("t", "a", "tool_calls") is None


async def test_money_is_counted_by_the_hosts_own_prices() -> None:
    prices = {"big": 0.01, "small": 0.001}

    def cost(usage: object, model: str | None) -> float:
        return 100 * prices[model or "big"]

    budget = Budget(SpendLimits(room_money=1.05, cost=cost))
    budget.spend_tokens("t", "a", USAGE, "big")
    assert budget.refusal("t", "a", "money") is None
    budget.spend_tokens("t", "a", USAGE, "small")
    assert budget.refusal("t", "a", "money") is not None


async def test_without_limits_nothing_is_refused() -> None:
    budget = Budget(SpendLimits())
    budget.spend_tokens("t", "a", USAGE)
    assert budget.refusal("t", "a", "tokens", "tool_calls", "money") is None
