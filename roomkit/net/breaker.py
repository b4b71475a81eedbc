"""Circuit breakers: a dead recipient or a dead provider is asked once a minute, not by every message.

There is one breaker per (provider, recipient), and one per provider for total outages. The provider's opens only when
several recipients in a row fail and nobody succeeds in between, so one dead recipient never silences the others.
Only troubled keys use memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from roomkit.errors import ConfigError, ProviderError, RateLimited, Unavailable
from roomkit.runtime import monotonic

T = TypeVar("T")
Key = tuple[str, str | None]


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"  # the pause is over; one probe decides


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """`failures` in a row open a breaker for `open_s` seconds; a provider's needs `spread` different recipients."""

    failures: int = 5
    open_s: float = 60.0
    spread: int = 3
    max_keys: int = 10_000

    def __post_init__(self) -> None:
        if self.failures < 1 or self.open_s <= 0 or self.spread < 1 or self.max_keys < 2:
            raise ConfigError("BreakerOptions: failures and spread must be >= 1, open_s > 0, max_keys >= 2")


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """A breaker opened or closed. `recipient` is None for the whole provider."""

    provider: str
    recipient: str | None
    state: BreakerState
    failures: int


class BreakerOpen(Unavailable):
    """Not tried: earlier attempts failed. `retry_after` says when the next probe is due."""

    def __init__(self, provider: str, recipient: str | None, retry_after: float) -> None:
        whom = "the provider" if recipient is None else "this recipient"
        super().__init__(
            provider,
            f"not tried, because the last attempts to reach {whom} failed; next attempt in {retry_after:.0f} s",
            retry_after=retry_after,
            code="breaker_open",
        )
        self.recipient = recipient


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    open_until: float | None = None
    probing_until: float = 0.0
    recipients: set[str] = field(default_factory=set[str])

    def wait(self, now: float) -> float:
        """Seconds until an attempt is allowed; 0 when it is."""
        if self.open_until is None:
            return 0.0
        return max(0.0, self.open_until - now, self.probing_until - now)

    def state(self, now: float) -> BreakerState:
        if self.open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.open_until else BreakerState.HALF_OPEN


class Permit:
    """Leave for one attempt. Tell exactly once how it ended; a second word is ignored."""

    __slots__ = ("_breakers", "_open", "_provider", "_recipient")

    def __init__(self, breakers: Breakers, provider: str, recipient: str | None) -> None:
        self._breakers = breakers
        self._provider = provider
        self._recipient = recipient
        self._open = True

    def succeeded(self) -> None:
        self._end(failed=False)

    def failed(self, error: BaseException) -> None:
        """A provider that answered, even with a refusal, is alive: only errors worth a retry count as failures."""
        if isinstance(error, ProviderError):
            self._end(failed=error.retryable and not isinstance(error, RateLimited))
        else:
            self.released()

    def released(self) -> None:
        """The attempt was abandoned and proves nothing."""
        self._end(failed=None)

    def _end(self, *, failed: bool | None) -> None:
        if self._open:
            self._open = False
            self._breakers._settle(self._provider, self._recipient, failed)  # pyright: ignore[reportPrivateUsage]


class Breakers:
    """All breakers of one kit, in bounded memory: the key untouched for longest is forgotten first."""

    def __init__(
        self,
        options: BreakerOptions | None = None,
        *,
        on_change: Callable[[BreakerChange], None] | None = None,
    ) -> None:
        """`on_change` is called once when a breaker opens and once when it closes, not at failed probes."""
        self._options = options or BreakerOptions()
        self._on_change = on_change
        self.circuits: OrderedDict[Key, _Circuit] = OrderedDict()
        """Who is in trouble, or was lately; empty means that every attempt may be made."""

    def __len__(self) -> int:
        return len(self.circuits)

    def acquire(self, provider: str, recipient: str | None = None) -> Permit:
        """Leave for one attempt, or `BreakerOpen` with the seconds to wait; after an open period one probe may pass."""
        if not self.circuits:  # Nobody is in trouble.
            return Permit(self, provider, recipient)
        now = monotonic()
        keys = _keys(provider, recipient)
        for key in keys:
            if (wait := self._wait(key, now)) > 0:
                raise BreakerOpen(provider, key[1], wait)
        for key in keys:
            circuit = self.circuits.get(key)
            if circuit is not None and circuit.open_until is not None:
                # A probe that never reports (its task died) blocks for one more period only.
                circuit.probing_until = now + self._options.open_s
        return Permit(self, provider, recipient)

    async def call(self, fn: Callable[[], Awaitable[T]], provider: str, recipient: str | None = None) -> T:
        """Await `fn()` under the breakers; raises its error, or `BreakerOpen` without calling it."""
        permit = self.acquire(provider, recipient)
        try:
            result = await fn()
        except BaseException as error:
            permit.failed(error)
            raise
        permit.succeeded()
        return result

    def state(self, provider: str, recipient: str | None = None) -> BreakerState:
        circuit = self.circuits.get((provider, recipient))
        return BreakerState.CLOSED if circuit is None else circuit.state(monotonic())

    def troubled(self) -> list[BreakerChange]:
        """Every breaker that is not closed, for status pages."""
        now = monotonic()
        states = ((key, circuit.state(now), circuit.failures) for key, circuit in self.circuits.items())
        return [BreakerChange(*key, state, failures) for key, state, failures in states if state != BreakerState.CLOSED]

    def reset(self, provider: str, recipient: str | None = None) -> None:
        """Close a breaker by hand, e.g. after the operator fixed the cause."""
        self._answered((provider, recipient))

    def _wait(self, key: Key, now: float) -> float:
        circuit = self.circuits.get(key)
        return 0.0 if circuit is None else circuit.wait(now)

    def _settle(self, provider: str, recipient: str | None, failed: bool | None) -> None:
        if not self.circuits and not failed:
            return
        own = self.circuits.get((provider, recipient)) if recipient is not None else None
        already_dead = own is not None and own.open_until is not None
        for key in _keys(provider, recipient):
            # A recipient known to be dead says nothing about its provider: leave that probe to somebody else.
            if failed is None or (failed and already_dead and key[1] is None):
                if (circuit := self.circuits.get(key)) is not None:
                    circuit.probing_until = 0.0
            elif failed:
                self._failed(key, recipient)
            else:
                self._answered(key)

    def _answered(self, key: Key) -> None:
        circuit = self.circuits.pop(key, None)
        if circuit is not None and circuit.open_until is not None:
            self._tell(key, BreakerState.CLOSED, 0)

    def _failed(self, key: Key, recipient: str | None) -> None:
        circuit = self.circuits.get(key)
        if circuit is None:
            circuit = self._insert(key)
        self.circuits.move_to_end(key)
        circuit.failures += 1
        spread = True
        if key[1] is None and recipient is not None:
            if len(circuit.recipients) < self._options.spread:
                circuit.recipients.add(recipient)
            spread = len(circuit.recipients) >= self._options.spread
        was_open = circuit.open_until is not None
        if was_open or (spread and circuit.failures >= self._options.failures):
            circuit.open_until = monotonic() + self._options.open_s
            circuit.probing_until = 0.0
            if not was_open:
                self._tell(key, BreakerState.OPEN, circuit.failures)

    def _insert(self, key: Key) -> _Circuit:
        while len(self.circuits) >= self._options.max_keys:
            oldest, circuit = self.circuits.popitem(last=False)
            if circuit.open_until is not None:
                self._tell(oldest, BreakerState.CLOSED, 0)
        return self.circuits.setdefault(key, _Circuit())

    def _tell(self, key: Key, state: BreakerState, failures: int) -> None:
        if self._on_change is not None:
            self._on_change(BreakerChange(key[0], key[1], state, failures))


def _keys(provider: str, recipient: str | None) -> tuple[Key, ...]:
    return ((provider, None),) if recipient is None else ((provider, None), (provider, recipient))
