"""A visit: somebody who came through another protocol's door, in a room. They say things and hear what their seat may
see: replies while they grow, then events, in log order and each once, also when the room moves between processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from roomkit.core.membership import GONE
from roomkit.core.streams import Viewer, ViewLost
from roomkit.errors import AccessDenied, Overloaded, RoomNotFound, StateError, UsageError
from roomkit.models.content import Content, TextContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import RoomEvent, who_left
from roomkit.models.room import Assurance
from roomkit.models.steering import Cancel
from roomkit.models.stream import Ephemeral, StreamChunk, StreamEnd, StreamError, StreamMessage, StreamStart
from roomkit.runtime import BufferClosed, CoalescingBuffer

if TYPE_CHECKING:
    from roomkit.core.results import InboundResult
    from roomkit.rooms import Rooms

Heard = RoomEvent | StreamMessage
BUFFER = 1_000_000
"""Characters kept for a visitor that is behind; then the visit ends."""
REOPEN_S = 0.1
GONE_WORDS = "you are not in this room any more"


class Visit:
    """One person in one room, by way of `channel_id` (a channel of reach "cursor"). Iterate it once; `close` ends it.

    `internal` visits hear the whole log as well: tool calls, notes and what was blocked. The door decides what of it
    goes out."""

    def __init__(self, rooms: Rooms, room_id: str, channel_id: str, person: str, *, name: str | None = None) -> None:
        self.rooms = rooms
        self.room_id = room_id
        self.channel_id = channel_id
        self.person = person
        self.name = name
        self.index = -1
        self._internal = False
        self._close: Any = None
        self._moved = False
        self._cut: Exception | None = None
        self._buffer: CoalescingBuffer[Heard | ViewLost] = CoalescingBuffer(BUFFER, merge=_merge, size=_size)

    async def enter(
        self, *, create: bool = True, metadata: dict[str, Any] | None = None, internal: bool = False, after: int = -2
    ) -> list[RoomEvent]:
        """Takes the seat, in a room of its own where there is none and `create` is true. Returns what came after event
        `after` (-1: everything, -2: nothing of the past). Raises `RoomNotFound`, `StateError` where the room or the
        seat is not to be had, and `AccessDenied` for somebody who was sent away."""
        self._internal = internal
        if create:
            try:
                await self.rooms.create_room(self.room_id, metadata=metadata)
            except StateError:
                pass  # It is there already.
        room = await self.rooms.get_room(self.room_id)
        person = next((one for one in await self.rooms.participants(self.room_id) if one.id == self.person), None)
        if person is not None and person.status in GONE:
            raise AccessDenied(GONE_WORDS)
        if self.channel_id not in {binding.channel_id for binding in await self.rooms.bindings(self.room_id)}:
            engine = self.rooms._engine  # pyright: ignore[reportPrivateUsage] - what was taken away has no surface
            state = await engine.table.look(self.rooms.tenant_id, self.room_id)
            if state is not None and self.channel_id in state.detached:
                raise StateError(f'the channel "{self.channel_id}" was taken away from this room')
            await self.rooms.attach_channel(self.room_id, self.channel_id, assurance=Assurance.AUTHENTICATED)
        if person is None:
            await self.rooms.add_member(self.room_id, self.person, display_name=self.name, channel_id=self.channel_id)
        return await self._open(room.latest_index if after == -2 else after)

    async def say(
        self,
        content: Content | str,
        *,
        external_id: str | None = None,
        addressed_to: tuple[str, ...] | None = None,
        metadata: dict[str, Any] | None = None,
        channel_data: dict[str, Any] | None = None,
    ) -> InboundResult:
        """Hands a message to the room; a repeated `external_id` has no second effect."""
        message = InboundMessage(
            channel_id=self.channel_id,
            sender_id=self.person,
            content=TextContent(text=content) if isinstance(content, str) else content,
            external_id=external_id,
            sender_name=self.name,
            participant_id=self.person,
            assurance=Assurance.AUTHENTICATED,
            addressed_to=addressed_to,
            metadata=metadata or {},
            channel_data=channel_data or {},
        )
        return await self.rooms.process_inbound(message, room_id=self.room_id)

    def sent_away(self, event: RoomEvent) -> bool:
        """Whether this event tells that the visitor has no business in the room any more."""
        return who_left(event) == self.person

    async def interrupt(self, reason: str = "interrupted") -> bool:
        """Stops the reply that is being made; False when there was none."""
        try:
            await self.rooms.steer(self.room_id, Cancel(reason))
        except (UsageError, RoomNotFound):
            return False
        return True

    async def __aiter__(self) -> AsyncIterator[Heard]:
        """What happens from now on. Raises `Overloaded` when the visitor took too little for too long."""
        while True:
            try:
                item = await self._buffer.take()
            except BufferClosed:
                if self._cut is not None:
                    raise self._cut from None
                return
            if isinstance(item, ViewLost):
                await asyncio.sleep(REOPEN_S)
                for event in await self._open(self.index):
                    yield event
                continue
            if isinstance(item, RoomEvent):
                if item.index <= self.index:
                    continue
                self.index = item.index
            elif isinstance(item, StreamEnd):
                self.index = max(self.index, item.event.index)
            yield item

    def post(self, item: Any) -> None:
        """Puts something of the door's own among what is heard."""
        self._buffer.offer(item)

    def finish(self) -> None:
        """Nothing more is heard after what is waiting now."""
        self.close()

    def close(self) -> None:
        """Ends the visit; the seat stays for the next one. May be called again."""
        close, self._close = self._close, None
        if close is not None:
            close()
        self._buffer.close()

    async def _open(self, after: int) -> list[RoomEvent]:
        viewer = Viewer(internal=True) if self._internal else Viewer(channel_id=self.channel_id, person=self.person)
        view = await self.rooms.open_view(self.room_id, viewer, self._deliver, after=after, tail=0)
        self._close = view.close
        self.index = max(view.index, after)
        for start, text in view.streams:
            self._deliver(start)
            self._deliver(StreamChunk(room_id=self.room_id, stream_id=start.stream_id, offset=0, delta=text))
        return view.events

    def _deliver(self, item: Any) -> None:
        if isinstance(item, Ephemeral):
            return
        if not self._buffer.offer(item) and self._cut is None:
            self._cut = Overloaded("this visitor takes too little of what happens in the room, and was let go")
            self.close()


def _merge(last: Heard | ViewLost, new: Heard | ViewLost) -> Heard | None:
    if isinstance(last, StreamChunk) and isinstance(new, StreamChunk) and last.stream_id == new.stream_id:
        return last.replaced(delta=last.delta + new.delta)
    return None


def _size(item: Heard | ViewLost) -> int:
    if isinstance(item, StreamChunk):
        return len(item.delta) + 50
    return 500


__all__ = ["GONE_WORDS", "Heard", "StreamChunk", "StreamEnd", "StreamError", "StreamStart", "Visit"]
