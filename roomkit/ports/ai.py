"""AIProvider: one language model vendor. Streaming only: a vendor that cannot stream yields one chunk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from roomkit.models.ai import AIEvent, AIMessage, AIProfile, AIRequest
from roomkit.models.event import RoomEvent


@runtime_checkable
class AIProvider(Protocol):
    """Streams one generation. Raises `ProviderError` kinds; the SDK's own retries are off, ours count."""

    name: str
    profile: AIProfile

    def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
        """Yields chunks and, last, `Finished`. Closing the iterator closes the vendor connection."""
        ...

    async def aclose(self) -> None: ...


class Foresight(Protocol):
    """What begins to answer before the turn of a call is over (`roomkit.ai.ahead.Ahead`)."""

    def attend(self, tenant: str, room_id: str) -> None:
        """A call is in the room."""
        ...

    def leave(self, tenant: str, room_id: str) -> None:
        """It is not any more. Idempotent."""
        ...

    def foresee(self, tenant: str, room_id: str, text: str) -> None:
        """The caller's turn will probably be `text`. Returns at once and has no effect that anybody can see."""
        ...


class MemoryProvider(Protocol):
    """Chooses what of a room's past a model is shown."""

    async def retrieve(self, room_id: str, events: Sequence[RoomEvent], limit: int) -> list[AIMessage | RoomEvent]:
        """`events` are those the channel may see, oldest first; returns what goes into the prompt, in order."""
        ...

    async def ingest(self, room_id: str, event: RoomEvent) -> None: ...

    async def close(self) -> None: ...


ToolHandler = Callable[[str, dict[str, Any]], Awaitable[Any]]
"""async (name, arguments) -> str, or content parts, or anything JSON can hold."""
