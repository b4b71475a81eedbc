"""Discord's rate limits, as its answers tell them: so that they are kept and not run into."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import TypeVar

from roomkit.errors import RateLimited
from roomkit.runtime import monotonic

K = TypeVar("K")
V = TypeVar("V")
SHORT_S = 5.0
"""Longest that a call waits for its turn; with more to wait for it fails, and is for the outbox to repeat."""
_MOST = 5000


class Limits:
    """What is left of each bucket. A bucket is shared by routes, and counts for one channel or token at a time."""

    def __init__(self) -> None:
        self._bucket_of: OrderedDict[str, str] = OrderedDict()
        self._free_at: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._everything_at = 0.0

    async def turn(self, route: str, major: str) -> None:
        """Waits until a call may be made. Raises `RateLimited` when that takes long."""
        while (wait := self._wait(route, major)) > 0:
            if wait > SHORT_S:
                raise RateLimited("discord", f"nothing is taken for {wait:.1f} s", retry_after=wait, status=429)
            await asyncio.sleep(wait)

    def heard(self, route: str, major: str, headers: Mapping[str, str]) -> None:
        """Notes what an answer says of its bucket."""
        bucket = headers.get("x-ratelimit-bucket")
        after = _number(headers.get("x-ratelimit-reset-after"))
        if bucket is None or after is None:
            return
        _put(self._bucket_of, route, bucket)
        left = _number(headers.get("x-ratelimit-remaining"))
        _put(self._free_at, (bucket, major), monotonic() + after if left == 0 else 0.0)

    def refused(self, route: str, major: str, retry_after: float, *, everywhere: bool) -> None:
        """Notes a 429."""
        if everywhere:
            self._everything_at = monotonic() + retry_after
        else:
            _put(self._free_at, (self._bucket_of.get(route, route), major), monotonic() + retry_after)

    def _wait(self, route: str, major: str) -> float:
        bucket = self._bucket_of.get(route, route)
        return max(self._everything_at, self._free_at.get((bucket, major), 0.0)) - monotonic()


def _put(among: OrderedDict[K, V], name: K, value: V) -> None:
    among[name] = value
    among.move_to_end(name)
    if len(among) > _MOST:
        among.popitem(last=False)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
