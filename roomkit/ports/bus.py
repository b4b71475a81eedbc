"""EphemeralBus: typing, presence and other signs of life between the processes of one deployment (at most once)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from roomkit.models.stream import Ephemeral


class EphemeralBus(Protocol):
    """What is on it may be lost, never repeated, and is never the only word of anything that matters."""

    def publish(self, tenant: str, message: Ephemeral) -> None:
        """Never waits and never raises for a slow listener."""
        ...

    def subscribe(self, tenant: str, room_id: str, deliver: Callable[[Ephemeral], None]) -> Callable[[], None]:
        """Hears the room, whichever process publishes (this one at once, as a plain call). Returns the way out."""
        ...

    def changed(self, tenant: str, room_id: str) -> None:
        """Says that lists of rooms should look at this room again. Never waits; repeated signs become one."""
        ...

    def watch(self, look: Callable[[str, str], None]) -> Callable[[], None]:
        """Calls `look(tenant, room id)` when a room has changed, in this process or another; with two empty texts when
        signs may have been missed, so that everything has to be looked at again. Returns the way out."""
        ...

    async def aclose(self) -> None: ...
