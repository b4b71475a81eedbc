"""Owners: which node has which room, as far as this one knows, and what is to be told when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

from roomkit.errors import Elsewhere
from roomkit.runtime import monotonic

RoomKey = tuple[str, str]
AGAIN_S = 0.05
AGAIN_LATER_S = 1.0
"""How soon somebody who waits for an owner asks again without any news: of one who gives the room away, of one who is
silent."""
MOST = 100_000
INHERITING_S = 2.0


class Owners:
    def __init__(self) -> None:
        self._owners: dict[RoomKey, str] = {}
        self._heir: str | None = None
        self._dead = ""
        self._inheriting = 0.0
        self._news: asyncio.Future[None] | None = None
        self._asked: dict[str, dict[Callable[[], object], None]] = {}  # In the order in which they asked.

    @property
    def inheriting(self) -> bool:
        """Somebody has gone lately, and it is not known yet who has taken over."""
        return self._heir is None and monotonic() < self._inheriting

    def of(self, tenant: str, room_id: str) -> str | None:
        """Where the room is most likely. Who has taken over lately has got all rooms of who has gone; a node that does
        not have the room says so."""
        found = self._owners.get((tenant, room_id))
        if found is None and self._heir is not None and monotonic() < self._inheriting:
            found = self._owners[tenant, room_id] = self._heir
        return found

    def learn(self, tenant: str, room_id: str, address: str) -> None:
        while len(self._owners) >= MOST:
            del self._owners[next(iter(self._owners))]
        self._owners[tenant, room_id] = address
        if monotonic() < self._inheriting and address != self._dead:
            self._heir = address

    def forget(self, elsewhere: Elsewhere) -> None:
        """It was not there: the next one who asks looks for the owner again."""
        self._owners.pop((elsewhere.tenant, elsewhere.room_id), None)
        self._heir = None

    async def news(self, elsewhere: Elsewhere) -> None:
        """Waits until the owner of this room may be another one."""
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._news], timeout=AGAIN_LATER_S if elsewhere.address else AGAIN_S)

    def changed(self) -> None:
        """Whoever waits for an owner may ask again."""
        news, self._news = self._news, None
        if news is not None:
            news.set_result(None)

    @contextmanager
    def asking(self, address: str, cut: Callable[[], object]) -> Generator[None]:
        """While the node there is asked: `cut` is called as soon as it is known to be gone."""
        waiting = self._asked.setdefault(address, {})
        waiting[cut] = None
        try:
            yield
        finally:
            waiting.pop(cut, None)
            if not waiting and self._asked.get(address) is waiting:
                del self._asked[address]

    def gone(self, address: str) -> None:
        """The node there is silent or has left: whoever waits for its answer hears of it."""
        for key in [key for key, owner in self._owners.items() if owner == address]:
            del self._owners[key]
        self._heir, self._dead, self._inheriting = None, address, monotonic() + INHERITING_S
        for cut in tuple(self._asked.get(address, ())):
            cut()
        self.changed()
