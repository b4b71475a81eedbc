"""The rooms that wait for a person, to come or to say yes or no, as a live list (D27)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from roomkit.models.room import Room
from roomkit.ports.store import RecordQuery, Store

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor

EVERY = 10_000_000


class AttentionList:
    """Kept in memory beside the rooms' own durable state; `listeners` hear (tenant, room) of every change."""

    def __init__(self) -> None:
        self._waiting: set[tuple[str, str]] = set()
        self.listeners: list[Callable[[str, Room], None]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    async def load(self, store: Store) -> None:
        query = RecordQuery("room", None, terms=("attention:waiting",), limit=EVERY)
        self._waiting = {(record.tenant, record.key) for record in await store.records(query)}

    def ahead(self, tenant: str) -> int:
        """How many rooms of a tenant wait now."""
        return sum(1 for waiting, _ in self._waiting if waiting == tenant)

    def changed(self, actor: RoomActor) -> None:
        room = actor.state.snapshot()
        if room.waiting_since is None:
            self._waiting.discard((actor.tenant, actor.room_id))
        else:
            self._waiting.add((actor.tenant, actor.room_id))
        for listener in tuple(self.listeners):
            try:
                listener(actor.tenant, room)
            except Exception as error:  # noqa: BLE001 - a listener must not break what the room has done
                actor.engine.trouble(actor, "an attention listener", error)
