"""Spend limits per room and per tenant (D44)."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from roomkit.runtime import monotonic

Kind = Literal["tokens", "tool_calls", "money"]
_MAX_ACCOUNTS = 20_000


@dataclass(frozen=True, slots=True)
class SpendLimits:
    """What one room and one tenant may spend within `window_s` seconds; None is unlimited. Money needs `cost`:
    (usage, model) -> amount, in whatever currency the limits are in."""

    room_tokens: int | None = None
    room_tool_calls: int | None = None
    room_money: float | None = None
    tenant_tokens: int | None = None
    tenant_tool_calls: int | None = None
    tenant_money: float | None = None
    window_s: float = 86_400.0
    cost: Callable[[Mapping[str, int], str | None], float] | None = None


class Budget:
    """Counts what was spent, in memory: a restart starts a new window. One budget may serve several channels."""

    def __init__(self, limits: SpendLimits) -> None:
        self.limits = limits
        self._accounts: OrderedDict[tuple[str, str | None, Kind], _Account] = OrderedDict()

    def refusal(self, tenant: str, room_id: str, *kinds: Kind) -> str | None:
        """Why nothing more may be spent, or None."""
        now = monotonic()
        for room in (room_id, None):
            who = "room" if room else "tenant"
            for kind in kinds:
                limit: float | None = getattr(self.limits, f"{who}_{kind}")
                if limit is not None and self._account(tenant, room, kind).total(now) >= limit:
                    unit = kind.replace("_", " ")
                    return f"the {unit} limit of this {who} is used up ({limit:g} in {self.limits.window_s:g} s)"
        return None

    def spend_tokens(self, tenant: str, room_id: str, usage: Mapping[str, int], model: str | None = None) -> float:
        """Counts one generation; returns what it cost, 0 where no `cost` is given."""
        self._spend(tenant, room_id, "tokens", usage.get("input_tokens", 0) + usage.get("output_tokens", 0))
        if self.limits.cost is None:
            return 0.0
        money = self.limits.cost(usage, model)
        self._spend(tenant, room_id, "money", money)
        return money

    def spend_tool_call(self, tenant: str, room_id: str) -> None:
        self._spend(tenant, room_id, "tool_calls", 1)

    def _spend(self, tenant: str, room_id: str, kind: Kind, amount: float) -> None:
        now = monotonic()
        for room in (room_id, None):
            self._account(tenant, room, kind).add(now, amount)

    def _account(self, tenant: str, room: str | None, kind: Kind) -> _Account:
        key = (tenant, room, kind)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(self.limits.window_s)
            if len(self._accounts) > _MAX_ACCOUNTS:
                self._accounts.popitem(last=False)
        self._accounts.move_to_end(key)
        return account


class _Account:
    """A sliding window in 60 slots."""

    __slots__ = ("_slot_s", "_slots", "_window_s")

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._slot_s = window_s / 60
        self._slots: deque[list[float]] = deque()

    def add(self, now: float, amount: float) -> None:
        if self._slots and now - self._slots[-1][0] < self._slot_s:
            self._slots[-1][1] += amount
        else:
            self._slots.append([now, amount])

    def total(self, now: float) -> float:
        while self._slots and now - self._slots[0][0] >= self._window_s:
            self._slots.popleft()
        return sum(amount for _, amount in self._slots)
