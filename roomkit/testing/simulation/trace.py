"""What happened in one schedule: when, who, what. Two runs of one seed make the same trace, to the last line."""

from __future__ import annotations

import asyncio
import hashlib


class Trace:
    """Lines in the order of events; `digest` stands for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.lines: list[tuple[float, str, str]] = []

    def __call__(self, who: str, what: str) -> None:
        self.lines.append((self._loop.time(), who, what))

    def digest(self) -> str:
        joined = "\n".join(f"{at:.6f}|{who}|{what}" for at, who, what in self.lines)
        return hashlib.sha256(joined.encode()).hexdigest()[:16]

    def render(self, last: int | None = None) -> str:
        """Readable: time in seconds, who, what; only the `last` lines when given."""
        lines = self.lines if last is None else self.lines[-last:]
        cut = [f"... {len(self.lines) - len(lines)} lines before"] if len(lines) < len(self.lines) else []
        return "\n".join([*cut, *(f"{at:10.3f}  {who:<14} {what}" for at, who, what in lines)])
