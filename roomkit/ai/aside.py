"""What a model is asked beside a reply, for example to sum up: under the same guards, limits and counters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

from roomkit.ai.budget import Budget
from roomkit.models.ai import COUNTERS, AIRequest, Finished, TextChunk
from roomkit.models.hooks import Block
from roomkit.ports.ai import AIProvider
from roomkit.ports.channel import TurnPort

Ask = Callable[[AIProvider, AIRequest], Awaitable[str | None]]
"""The model's words; None where a guard or a limit keeps it from being asked."""


async def ask_plainly(provider: AIProvider, request: AIRequest) -> str:
    return await _asked(provider, request, lambda _: None)


def asking(turn: TurnPort | None, budget: Budget | None, tenant: str, room_id: str) -> Ask:
    """How one turn asks. Errors of the provider pass."""

    async def ask(provider: AIProvider, request: AIRequest) -> str | None:
        if budget is not None and budget.refusal(tenant, room_id, "tokens", "money"):
            return None
        guarded = request if turn is None else await turn.guard_generation(request)
        return None if isinstance(guarded, Block) else await _asked(provider, guarded, spend)

    def spend(finished: Finished) -> None:
        usage = {counter: getattr(finished.usage, counter) for counter in COUNTERS}
        money = 0.0
        if budget is not None:
            money = budget.spend_tokens(tenant, room_id, usage, finished.model)
            budget.keep(turn, tenant, room_id)
        if turn is not None:
            turn.spent(usage, finished.model, money)

    return ask


async def _asked(provider: AIProvider, request: AIRequest, spend: Callable[[Finished], None]) -> str:
    said: list[str] = []
    async with aclosing(cast("Any", provider.stream(request))) as stream:
        async for event in stream:
            if isinstance(event, TextChunk):
                said.append(event.text)
            elif isinstance(event, Finished):
                spend(event)
    return "".join(said)
