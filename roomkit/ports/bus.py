"""EphemeralBus: typing, presence and other signs of life between the processes of one deployment (at most once)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from roomkit.models.stream import Ephemeral


class EphemeralBus(Protocol):
    def publish(self, tenant: str, message: Ephemeral) -> None:
        """Never waits and never raises for a slow listener."""
        ...

    def subscribe(self, tenant: str, room_id: str, deliver: Callable[[Ephemeral], None]) -> Callable[[], None]:
        """Returns the way out."""
        ...

    async def aclose(self) -> None: ...
