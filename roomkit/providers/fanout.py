"""Fanout: what every bus between processes has in common: listeners here, and batches to and from the others. Pure."""

from __future__ import annotations

import json
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, cast

from pydantic import ValidationError

from roomkit.models.stream import Ephemeral

log = logging.getLogger(__name__)
WAITING = 10_000
"""So many signs wait for the wire; then the oldest are dropped."""
_WATCHERS = ("", "")
_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


class Fanout:
    """The half of an `EphemeralBus` that does no I/O. `ready` is called when there is something to send."""

    def __init__(self, largest: int, ready: Callable[[], None]) -> None:
        """`largest`: the most bytes that one payload may have."""
        self.origin = secrets.token_hex(8)
        self.counters: dict[str, float] = dict.fromkeys(("sent", "heard", "dropped", "oversize", "unreadable"), 0)
        self._largest = largest
        self._ready = ready
        self._numbers = count()
        self._listeners: dict[tuple[str, str], dict[int, Callable[..., None]]] = {}
        self._messages: deque[tuple[str, Ephemeral]] = deque()
        self._changes: dict[tuple[str, str], None] = {}
        self.closed = False

    def publish(self, tenant: str, message: Ephemeral) -> None:
        if self.closed:
            return
        self._tell((tenant, message.room_id), message)
        if len(self._messages) >= WAITING:
            self._messages.popleft()
            self.counters["dropped"] += 1
        self._messages.append((tenant, message))
        self._ready()

    def subscribe(self, tenant: str, room_id: str, deliver: Callable[[Ephemeral], None]) -> Callable[[], None]:
        return self._listen((tenant, room_id), deliver)

    def changed(self, tenant: str, room_id: str) -> None:
        if self.closed:
            return
        self._tell(_WATCHERS, tenant, room_id)
        if len(self._changes) >= WAITING:  # Whoever hears this looks at everything.
            self._changes.clear()
            self._changes["", ""] = None
        elif _WATCHERS not in self._changes:
            self._changes[tenant, room_id] = None
        self._ready()

    def watch(self, look: Callable[[str, str], None]) -> Callable[[], None]:
        return self._listen(_WATCHERS, look)

    def missed(self) -> None:
        """The wire was down or is new: the watchers have to look at everything."""
        self._tell(_WATCHERS, "", "")

    @property
    def waiting(self) -> bool:
        return bool(self._messages or self._changes)

    def close(self) -> None:
        self.closed = True
        self._listeners.clear()
        self._messages.clear()
        self._changes.clear()

    def payloads(self) -> list[str]:
        """Everything that waits, in as few payloads as it fits in; one that fits in none is dropped and counted."""
        found: list[str] = []
        head = f"{self.origin}\n"
        parts: list[str] = []
        size = room = self._largest - len(head)
        for text in self._items():
            length = len(text.encode()) + 1
            if length > room:
                self.counters["oversize"] += 1
                continue
            if length > size:
                found.append(head + "\n".join(parts))
                parts, size = [], room
            parts.append(text)
            size -= length
            self.counters["sent"] += 1
        if parts:
            found.append(head + "\n".join(parts))
        return found

    def hear(self, payload: str) -> None:
        """Tells the listeners here what another process sent. What cannot be read is dropped and counted."""
        head, _, rest = payload.partition("\n")
        if head == self.origin:
            return
        for line in rest.split("\n"):
            try:
                tenant, what = cast("tuple[str, Any]", json.loads(line))
                if isinstance(what, str):
                    self._tell(_WATCHERS, tenant, what)
                else:
                    message = Ephemeral.model_validate(what)
                    self._tell((tenant, message.room_id), message)
            except (ValueError, TypeError, ValidationError):  # From a newer version, or from somebody else.
                self.counters["unreadable"] += 1
            else:
                self.counters["heard"] += 1

    def _items(self) -> Iterator[str]:
        while self._changes:
            yield _encode(self._changes.popitem()[0])
        while self._messages:
            tenant, message = self._messages.popleft()
            try:
                yield _encode([tenant, message.model_dump(mode="json", exclude_defaults=True)])
            except ValueError:  # A sign with something inside that is no JSON stays in this process.
                self.counters["unreadable"] += 1

    def _tell(self, key: tuple[str, str], *what: Any) -> None:
        for deliver in tuple(self._listeners.get(key, {}).values()):
            try:
                deliver(*what)
            except Exception:  # one listener must not silence the others
                log.exception("a listener of the bus failed")

    def _listen(self, key: tuple[str, str], deliver: Callable[..., None]) -> Callable[[], None]:
        number = next(self._numbers)
        self._listeners.setdefault(key, {})[number] = deliver

        def leave() -> None:
            group = self._listeners.get(key, {})
            group.pop(number, None)
            if not group:
                self._listeners.pop(key, None)

        return leave
