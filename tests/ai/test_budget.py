"""Spend limits: per room, per tenant, in a sliding window."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roomkit import InboundMessage, RoomKit
from roomkit.ai.budget import Budget, SpendLimits
from roomkit.ai.tools import Toolbox, tool
from roomkit.channels.ai import AIChannel
from roomkit.core.memory import MemoryStore
from roomkit.providers.sqlite.store import SQLiteStore
from roomkit.testing import FakeChannel, VirtualClock
from roomkit.testing.ai import ScriptedAI, call
from tests.ai.rooms import results_of

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

    for limits in (SpendLimits(room_money=1.05, cost=cost), SpendLimits(tenant_money=1.05, cost=cost)):
        budget = Budget(limits)
        budget.spend_tokens("t", "a", USAGE, "big")
        assert budget.refusal("t", "a", "money") is None
        budget.spend_tokens("t", "a", USAGE, "small")
        assert budget.refusal("t", "a", "money") is not None
        assert (budget.refusal("t", "b", "money") is None) == (limits.tenant_money is None)


async def test_without_limits_nothing_is_refused() -> None:
    budget = Budget(SpendLimits())
    budget.spend_tokens("t", "a", USAGE)
    assert budget.refusal("t", "a", "tokens", "tool_calls", "money") is None


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    memory = MemoryStore()
    return lambda: memory if request.param == "memory" else SQLiteStore(str(tmp_path / "a.db"))


def house(store: Any, limits: SpendLimits, *script: Any) -> tuple[RoomKit, ScriptedAI]:
    brain = ScriptedAI(*script, repeat=True)
    kit = RoomKit(clock=VirtualClock(), store=store)
    kit.register_channel(FakeChannel("sms"))
    box = Toolbox([look])
    kit.register_channel(AIChannel("ai", brain, tool_handler=box).configure(budget=Budget(limits)), default=True)
    return kit, brain


@tool
def look() -> str:
    """Looks."""
    return "seen"


async def ask(kit: RoomKit, who: str = "+1") -> str:
    result = await kit.process_inbound(InboundMessage.text("sms", who, "hello"))
    await result.settled()
    return result.room_id or ""


async def test_what_was_spent_is_not_forgotten_at_a_restart(store: Callable[[], Any]) -> None:
    limits = SpendLimits(room_tokens=30, tenant_tokens=45, window_s=3600)
    for turn, answered in enumerate([1, 1, 0, 0]):  # a reply uses 15
        kit, brain = house(store(), limits, "hi")
        async with kit:
            await ask(kit)
            assert len(brain.requests) == answered, f"the turn after {turn} restarts"
            await asyncio.sleep(10)
    kit, brain = house(store(), limits, "hi")
    async with kit:
        await ask(kit, "+2")
        assert len(brain.requests) == 1
        await ask(kit, "+3")
        assert len(brain.requests) == 1, "the tenant has spent 45 by now"
        await asyncio.sleep(3600)
        await ask(kit)
        assert len(brain.requests) == 2


async def test_calls_of_tools_are_counted_across_a_restart(store: Callable[[], Any]) -> None:
    limits = SpendLimits(room_tool_calls=1)
    for expected in ("seen", "tool calls limit"):
        kit, brain = house(store(), limits, [call("look")], "done")
        async with kit:
            await ask(kit)
            assert expected in results_of(brain.requests[1])[-1]


async def test_it_costs_no_commit_to_remember(store: Callable[[], Any]) -> None:
    counts = []
    for limits in (None, SpendLimits(room_tokens=1_000_000)):
        made = MemoryStore()
        kit, _ = house(made, limits or SpendLimits(), [call("look")], "done")
        if limits is None:
            kit.channels["ai"].configure(budget=None)
        async with kit:
            await ask(kit)
            counts.append(made.health().counters["commits"])
    assert counts[0] == counts[1]
