"""What happened in one schedule: when, who, what. Two runs of one seed make the same trace, to the last line."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

Later = tuple[Callable[..., str], tuple[Any, ...]]
"""A line that is put into words when somebody reads it, out of things that do not change."""


class Trace:
    """Lines in the order of events; `digest` stands for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lines: list[tuple[float, str, str | Later]] = []

    def __call__(self, who: str, what: str) -> None:
        self._lines.append((self._loop.time(), who, what))

    def later(self, who: str, say: Callable[..., str], *told: Any) -> None:
        """Adds the line `say(*told)`, which most schedules never need."""
        self._lines.append((self._loop.time(), who, (say, told)))

    @property
    def lines(self) -> list[tuple[float, str, str]]:
        return [(at, who, what if isinstance(what, str) else what[0](*what[1])) for at, who, what in self._lines]

    def first(self, who: str, beginnings: tuple[str, ...]) -> float | None:
        """When somebody first did what begins like one of these."""
        return next(
            (
                at
                for at, one, what in self._lines
                if one == who and isinstance(what, str) and what.startswith(beginnings)
            ),
            None,
        )

    def digest(self) -> str:
        joined = "\n".join(f"{at:.6f}|{who}|{what}" for at, who, what in self.lines)
        return hashlib.sha256(joined.encode()).hexdigest()[:16]

    def render(self, last: int | None = None) -> str:
        """Readable: time in seconds, who, what; only the `last` lines when given."""
        every = self.lines
        lines = every if last is None else every[-last:]
        cut = [f"... {len(every) - len(lines)} lines before"] if len(lines) < len(every) else []
        return "\n".join([*cut, *(f"{at:10.3f}  {who:<14} {what}" for at, who, what in lines)])
