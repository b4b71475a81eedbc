"""Observers: callbacks that come and go, also while they are being told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

E = TypeVar("E")


class Observers(Generic[E]):
    """Tells everybody who watches, in the order in which they came, on the caller's own turn of the loop."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: list[Callable[[E], None]] = []

    def join(self, observer: Callable[[E], None]) -> Callable[[], None]:
        """Returns the way out, which may be taken twice."""
        self._all.append(observer)

        def leave() -> None:
            if observer in self._all:
                self._all.remove(observer)

        return leave

    def tell(self, event: E) -> None:
        for observer in tuple(self._all):
            observer(event)
