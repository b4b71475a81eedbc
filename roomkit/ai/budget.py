"""Spend limits per room and per tenant (D44)."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from roomkit.ports.channel import Statement, TurnPort
from roomkit.runtime import monotonic

Kind = Literal["tokens", "tool_calls", "money"]
_KINDS: tuple[Kind, ...] = ("tokens", "tool_calls", "money")
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
    """Counts what was spent. One budget may serve several channels; what it counts outlives the process in a durable
    store, under `name` (by default the ids of its channels), and of a tenant it counts what all processes spend."""

    def __init__(self, limits: SpendLimits, *, name: str | None = None) -> None:
        self.limits = limits
        self._name = name
        self._channels: set[str] = set()
        self._accounts: OrderedDict[tuple[str, str | None, Kind], _Account] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._others: dict[str, list[dict[Kind, _Account]]] = {}

    @property
    def name(self) -> str:
        return self._name or "+".join(sorted(self._channels)) or "budget"

    def serve(self, channel_id: str) -> None:
        """This channel spends from here."""
        self._channels.add(channel_id)

    async def open(self, turn: TurnPort | None, tenant: str, room_id: str) -> None:
        """Takes up what was spent before a restart, and by other processes; before each reply."""
        if turn is None:
            return
        own, others = await turn.ledger.recall(self.name)
        room = (tenant, room_id)
        if own is not None and self._seen.get(room) != own.by:
            self._seen[room] = own.by
            if len(self._seen) > _MAX_ACCOUNTS:
                self._seen.popitem(last=False)
            if not own.mine or not any(key[:2] == room for key in self._accounts):
                for kind, account in self._read(own).items():
                    self._accounts[tenant, room_id, kind] = account
        self._others[tenant] = [self._read(statement) for statement in others]

    def _read(self, statement: Statement) -> dict[Kind, _Account]:
        now = monotonic() - statement.age_s
        return {
            cast("Kind", kind): _Account(self.limits.window_s, now, slots) for kind, slots in statement.spent.items()
        }

    def keep(self, turn: TurnPort | None, tenant: str, room_id: str) -> None:
        """What has just been spent is made durable with the room's next commit."""
        if turn is not None:
            turn.ledger.remember(self.name, lambda: self._spent(tenant, room_id), lambda: self._spent(tenant, None))

    def _spent(self, tenant: str, room: str | None) -> dict[str, list[list[float]]]:
        now = monotonic()
        found = {kind: self._accounts.get((tenant, room, kind)) for kind in _KINDS}
        return {kind: account.slots(now) for kind, account in found.items() if account is not None}

    def refusal(self, tenant: str, room_id: str, *kinds: Kind) -> str | None:
        """Why nothing more may be spent, or None."""
        now = monotonic()
        for room in (room_id, None):
            who = "room" if room else "tenant"
            for kind in kinds:
                limit: float | None = getattr(self.limits, f"{who}_{kind}")
                if limit is not None and self._total(tenant, room, kind, now) >= limit:
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

    def _total(self, tenant: str, room: str | None, kind: Kind, now: float) -> float:
        others = self._others.get(tenant, ()) if room is None else ()
        known = [account for accounts in others if (account := accounts.get(kind)) is not None]
        return sum((account.total(now) for account in known), self._account(tenant, room, kind).total(now))

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

    def __init__(self, window_s: float, now: float = 0.0, slots: Sequence[Sequence[float]] = ()) -> None:
        """`slots` are (age in seconds, amount) as of `now`, the oldest first."""
        self._window_s = window_s
        self._slot_s = window_s / 60
        self._slots: deque[list[float]] = deque([now - age, amount] for age, amount in slots)

    def slots(self, now: float) -> list[list[float]]:
        self.total(now)
        return [[now - at, amount] for at, amount in self._slots]

    def add(self, now: float, amount: float) -> None:
        if self._slots and now - self._slots[-1][0] < self._slot_s:
            self._slots[-1][1] += amount
        else:
            self._slots.append([now, amount])

    def total(self, now: float) -> float:
        while self._slots and now - self._slots[0][0] >= self._window_s:
            self._slots.popleft()
        return sum(amount for _, amount in self._slots)
