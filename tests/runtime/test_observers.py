"""Observers: who watches is told, whoever leaves meanwhile."""

from __future__ import annotations

from roomkit.runtime.observers import Observers


def test_all_are_told_in_order_and_leaving_twice_harms_nobody() -> None:
    told: list[str] = []
    observers = Observers[str]()

    def first(event: str) -> None:
        told.append(f"first {event}")
        leave_first()

    leave_first = observers.join(first)
    leave_second = observers.join(lambda event: told.append(f"second {event}"))
    observers.tell("a")
    leave_first()
    observers.tell("b")
    leave_second()
    observers.tell("c")
    assert told == ["first a", "second a", "second b"]
