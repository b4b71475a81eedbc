"""LiveRoom: what the calls of one room know of it, from one view that stands as long as there are any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from roomkit.errors import StateError
from roomkit.models.room import ChannelBinding, FloorMode, Room
from roomkit.ports.channel import RoomPort


class LiveRoom:
    """The room and the channel's own binding to it; `take` gets everything that happens there."""

    def __init__(self, port: RoomPort, room_id: str, channel_id: str, take: Callable[[Any], None]) -> None:
        self.room: Room | None = None
        self.binding: ChannelBinding | None = None
        self._port, self._room_id, self._channel_id, self._take = port, room_id, channel_id, take
        self._leave: Callable[[], None] | None = None
        self._opening = asyncio.Lock()

    async def opened(self) -> Room | None:
        """The room where this opened it, None where it was open."""
        async with self._opening:
            if self._leave is not None:
                return None
            view = await self._port.watch.open_view(self._room_id, self._take, tail=0)
            self._leave, self.room = view.close, view.room
            self.binding = next((one for one in view.bindings if one.channel_id == self._channel_id), None)
            return view.room

    def close(self) -> bool:
        """Whether it was open."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()
        return leave is not None

    def known(self) -> Room:
        if self.room is None:
            raise StateError(f'room "{self._room_id}" is not open yet')
        return self.room

    def floor_changed(self, data: dict[str, Any]) -> Room | None:
        """The room with the floor that an event tells of; None where the room is not open or the event tells none."""
        if self.room is None or not data.get("mode"):
            return None
        floor = self.room.floor.replaced(mode=FloorMode(data["mode"]), holder=data.get("holder"))
        self.room = self.room.replaced(floor=floor)
        return self.room
