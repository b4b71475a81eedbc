"""Order: in which order what happens on a speech-to-speech call goes into the room's log. Pure.

Providers tell things late: the caller's words may come after the reply to them has begun. So the caller's speech takes
its place when it begins, and what comes after it waits for its words, for a limited time. The model's words take their
place when they have been heard, or cut off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
REMEMBERED = 512


@dataclass(slots=True)
class _Slot(Generic[T]):
    """A place in the order. `item` None is still awaited; `until` is None while the caller speaks."""

    name: str
    item: T | None = None
    until: float | None = None
    spoken_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """An item whose turn has come. `spoken_at` is when it began to be said; `late` says that its place had passed."""

    item: T
    spoken_at: float
    late: bool = False


class Order(Generic[T]):
    """One call's order; times in seconds of any one clock. `wait_s` is how long the caller's words are waited for after
    the end of their speech. Each method gives what may go into the log now, in order."""

    def __init__(self, wait_s: float = 3.0) -> None:
        self.wait_s = wait_s
        self._slots: deque[_Slot[T]] = deque()
        self._missed: dict[str, float] = {}
        self._seen: dict[Hashable, None] = {}

    @property
    def deadline(self) -> float | None:
        """When `tick` is due; None when nothing is waited for."""
        return min((slot.until for slot in self._slots if slot.item is None and slot.until is not None), default=None)

    def began(self, name: str, now: float) -> None:
        """The caller begins to say what will be told as `name`."""
        if name not in self._seen and name not in self._missed and self._slot(name) is None:
            self._slots.append(_Slot(name, spoken_at=now))

    def stopped(self, name: str, now: float) -> None:
        """The caller has stopped; the words are awaited from now on."""
        slot = self._slot(name)
        if slot is not None and slot.until is None:
            slot.until = now + self.wait_s

    def heard(self, name: str, now: float) -> None:
        """More of the words is there, of a provider that does not tell when speech ends: the rest is awaited anew."""
        slot = self._slot(name)
        if slot is not None:
            slot.until = now + self.wait_s

    def rename(self, name: str, to: str) -> bool:
        """The provider has a name for speech that it had none for. False when nothing is awaited as `name`."""
        slot = self._slot(name)
        if slot is None or self._slot(to) is not None:
            return False
        slot.name = to
        return True

    def said(self, name: str, item: T | None, now: float) -> list[Placed[T]]:
        """The caller's words; None: there are none. Told twice, they count once."""
        if name in self._seen:
            return []
        self._remember(name)
        missed = self._missed.pop(name, None)
        if missed is not None:
            return [] if item is None else [Placed(item, missed, late=True)]
        slot = self._slot(name)
        if slot is None:
            slot = _Slot[T](name, spoken_at=now)
            self._slots.append(slot)
        if item is None:
            self._slots.remove(slot)
        else:
            slot.item = item
        return self._ready()

    def add(self, item: T, now: float, *, spoken_at: float | None = None) -> list[Placed[T]]:
        """Something that has its place here and now."""
        self._slots.append(_Slot("", item, spoken_at=now if spoken_at is None else spoken_at))
        return self._ready()

    def tick(self, now: float) -> list[Placed[T]]:
        """Gives up waiting for words that are overdue."""
        for slot in [one for one in self._slots if one.item is None and one.until is not None and one.until <= now]:
            self._slots.remove(slot)
            self._missed[slot.name] = slot.spoken_at
            if len(self._missed) > REMEMBERED:
                del self._missed[next(iter(self._missed))]
        return self._ready()

    def flush(self) -> list[Placed[T]]:
        """The call is over: everything that is there, in order."""
        for slot in [one for one in self._slots if one.item is None]:
            self._slots.remove(slot)
        return self._ready()

    def _ready(self) -> list[Placed[T]]:
        out: list[Placed[T]] = []
        while self._slots and (item := self._slots[0].item) is not None:
            out.append(Placed(item, self._slots.popleft().spoken_at))
        return out

    def _slot(self, name: str) -> _Slot[T] | None:
        return next((slot for slot in self._slots if slot.name == name and name), None)

    def _remember(self, name: str) -> None:
        self._seen[name] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
