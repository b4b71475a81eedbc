"""The loop of plain Python that tells how fast the machine is right now; needs nothing but the standard library."""

from __future__ import annotations

import json
import time

REFERENCE_MS = 2.5
"""What the calibration loop takes on a quiet core."""

_HEAP: list[object] = [f"{number}" for number in range(20_000)]


class _Box:
    __slots__ = ("at", "kept", "name")

    def __init__(self, name: str, at: float, kept: dict[str, object]) -> None:
        self.name = name
        self.at = at
        self.kept = kept

    async def look(self, depth: int) -> int:
        return len(self.kept) if depth == 0 else await self.look(depth - 1)


def calibrate() -> float:
    """Milliseconds of CPU for a fixed amount of plain Python of the kind that rooms are made of: small objects, wide
    dicts, coroutines, strings, JSON, spread over some megabytes, so that it suffers from neighbours as rooms do."""
    began = time.process_time()
    shape = {f"field_{number}": number for number in range(20)}
    total = 0
    for number in range(180):
        kept: dict[str, object] = {**shape, "id": f"{number:011x}", "text": f"Hello, this is {number}."}
        box = _Box(f"{number}\n{number:010d}", number * 0.5, kept)
        looking = box.look(4)
        try:
            looking.send(None)
        except StopIteration as done:
            total += done.value
        told = json.dumps({"id": box.name, "at": box.at, "text": kept["text"], "parts": [number, total]})
        total += len(json.loads(told)) + sum(1 for value in kept.values() if value is not None)
        _HEAP[(number * 7919) % len(_HEAP)] = box
    return (time.process_time() - began) * 1e3
