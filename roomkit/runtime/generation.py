"""Out-of-band cancellation: whatever was produced under an older number is dropped."""

from __future__ import annotations


class Generation:
    """A number that only grows. Producers remember it; consumers ask whether it is still current."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current = 0

    def bump(self) -> int:
        """Makes everything produced so far stale and returns the new number."""
        self.current += 1
        return self.current

    def is_current(self, number: int) -> bool:
        return number == self.current

    def __repr__(self) -> str:
        return f"Generation({self.current})"
