"""MemoryBus: signs of life within one process."""

from __future__ import annotations

import logging
from collections.abc import Callable

from roomkit.models.stream import Ephemeral

_log = logging.getLogger("roomkit.core")


class MemoryBus:
    """An `EphemeralBus` for one process: `publish` calls the listeners of the room, in the order they came."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, str], tuple[Callable[[Ephemeral], None], ...]] = {}

    def publish(self, tenant: str, message: Ephemeral) -> None:
        """Never waits. A listener that raises is logged and does not keep the others from hearing."""
        for deliver in self._listeners.get((tenant, message.room_id), ()):
            try:
                deliver(message)
            except Exception:  # noqa: BLE001 - one listener must not silence the others
                _log.exception("a listener of room %s failed on %s", message.room_id, message.kind)

    def subscribe(self, tenant: str, room_id: str, deliver: Callable[[Ephemeral], None]) -> Callable[[], None]:
        """Hears the room from now on; returns the way out, which may be called again."""
        key = (tenant, room_id)
        entry = [deliver]  # Tells two subscriptions of the same function apart.

        def hear(message: Ephemeral) -> None:
            if entry:
                entry[0](message)

        def leave() -> None:
            entry.clear()
            left = tuple(other for other in self._listeners.get(key, ()) if other is not hear)
            if left:
                self._listeners[key] = left
            else:
                self._listeners.pop(key, None)

        self._listeners[key] = (*self._listeners.get(key, ()), hear)
        return leave

    async def aclose(self) -> None:
        self._listeners.clear()
