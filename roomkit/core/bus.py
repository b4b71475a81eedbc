"""MemoryBus: signs of life within one process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from roomkit.models.stream import Ephemeral

_log = logging.getLogger("roomkit.core")
_WATCHERS = ("", "")
"""No tenant has an empty name."""


class MemoryBus:
    """An `EphemeralBus` for one process: `publish` calls the listeners of the room, in the order they came."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, str], tuple[Callable[..., None], ...]] = {}

    def publish(self, tenant: str, message: Ephemeral) -> None:
        """Never waits. A listener that raises is logged and does not keep the others from hearing."""
        self._tell((tenant, message.room_id), message)

    def subscribe(self, tenant: str, room_id: str, deliver: Callable[[Ephemeral], None]) -> Callable[[], None]:
        """Hears the room from now on; returns the way out, which may be called again."""
        return self._listen((tenant, room_id), deliver)

    def changed(self, tenant: str, room_id: str) -> None:
        self._tell(_WATCHERS, tenant, room_id)

    def watch(self, look: Callable[[str, str], None]) -> Callable[[], None]:
        return self._listen(_WATCHERS, look)

    async def aclose(self) -> None:
        self._listeners.clear()

    def _tell(self, key: tuple[str, str], *what: Any) -> None:
        for deliver in self._listeners.get(key, ()):
            try:
                deliver(*what)
            except Exception:  # noqa: BLE001 - one listener must not silence the others
                _log.exception("a listener failed on %s", what[0].kind if isinstance(what[0], Ephemeral) else what)

    def _listen(self, key: tuple[str, str], deliver: Callable[..., None]) -> Callable[[], None]:
        entry = [deliver]  # Tells two subscriptions of the same function apart.

        def hear(*what: Any) -> None:
            if entry:
                entry[0](*what)

        def leave() -> None:
            entry.clear()
            left = tuple(other for other in self._listeners.get(key, ()) if other is not hear)
            if left:
                self._listeners[key] = left
            else:
                self._listeners.pop(key, None)

        self._listeners[key] = (*self._listeners.get(key, ()), hear)
        return leave
