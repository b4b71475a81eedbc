"""Source: a persistent inbound connection (a socket, an event stream) that the kit keeps alive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from roomkit.errors import StateError
from roomkit.models.delivery import DeliveryStatus, InboundMessage


class SourceDone(StateError):
    """Raised by a source that will never have anything more: it is not started again."""


Emit = Callable[[InboundMessage | DeliveryStatus], Awaitable[object]]
"""Takes a message into its room, or news of one of ours to it; False when it could not be taken, which is logged."""


class Source(Protocol):
    name: str

    async def run(self, emit: Emit, ready: Callable[[], None]) -> None:
        """Connects, calls `ready()` once connected, then `await emit(message)` for each message until the connection
        ends or breaks (raise). The kit restarts it with back-off and reports its health. Cancellation must close the
        connection."""
        ...
