"""ChannelPort: the narrow way from one channel back to the rooms (D48)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from roomkit.core import messages, views
from roomkit.core.results import CURRENT, InboundResult, Settlement
from roomkit.core.streams import Deliver, View, Viewer
from roomkit.errors import ChannelNotFound, RoomNotFound, StateError
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventDraft, RoomEvent
from roomkit.models.room import RoomStatus
from roomkit.models.stream import Ephemeral, StreamChunk
from roomkit.ports.store import RecordQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine
    from roomkit.core.ledger import Vault
    from roomkit.core.links import Links
    from roomkit.ports.audio import LivePort


class ChannelPort:
    """Implements `ports.channel.RoomPort` for one channel of one tenant."""

    def __init__(self, engine: Engine, tenant: str, channel_id: str) -> None:
        self._engine = engine
        self._channel_id = channel_id
        self.tenant = tenant

    def of_tenant(self, tenant: str) -> ChannelPort:
        if tenant == self.tenant:
            return self
        if not self._engine.registry.serves(self._channel_id, tenant):
            raise ChannelNotFound(self._channel_id)
        return ChannelPort(self._engine, tenant, self._channel_id)

    @property
    def watch(self) -> ChannelPort:
        return self

    @property
    def vault(self) -> Vault:
        from roomkit.core.ledger import Vault

        return Vault(self._engine, self.tenant, self._channel_id)

    @property
    def links(self) -> Links:
        from roomkit.core.links import Links

        return Links(self._engine, self.tenant, self._channel_id)

    @property
    def live(self) -> LivePort:
        from roomkit.core.live import LiveRooms

        return LiveRooms(self._engine, self.tenant)

    async def process_inbound(self, message: InboundMessage, *, room_id: str | None = None) -> InboundResult:
        if self._engine.nodes is not None:
            return await self._engine.nodes.rooms(self.tenant).process_inbound(message, room_id=room_id)
        return await self._engine.inbound.process(message, self.tenant, room_id)

    async def submit(self, room_id: str, draft: EventDraft) -> RoomEvent:
        """Commits as this channel, whatever the draft claims. Raises `StateError` when the room does not take it."""
        if self._engine.nodes is not None:
            return await self._engine.nodes.calls.submit(self.tenant, room_id, self._channel_id, draft)
        return await submit_as(self._engine, self.tenant, room_id, self._channel_id, draft)

    def publish(self, message: Ephemeral) -> None:
        self._engine.publish(self.tenant, message)

    def subscribe(self, room_id: str, deliver: Callable[[Any], None], *, channel_id: str) -> Callable[[], None]:
        actor = self._engine.table.loaded(self.tenant, room_id)
        if (
            actor is None or self._engine.nodes is not None
        ):  # a room may go to another process: then `open_view` follows it
            raise RoomNotFound(room_id)
        viewer = Viewer(channel_id=channel_id)
        leave, growing = actor.hub.join(viewer, deliver, actor.state.bindings)
        for start, text in growing:
            deliver(start)
            deliver(StreamChunk.model_construct(room_id=room_id, stream_id=start.stream_id, offset=0, delta=text))
        return leave

    async def open_rooms(self, limit: int = 100) -> list[str]:
        found: list[str] = []
        for status in (RoomStatus.ACTIVE, RoomStatus.PAUSED):
            terms = (f"channel:{self._channel_id}", f"status:{status}")
            records = await self._engine.store.records(RecordQuery("room", self.tenant, terms=terms, limit=limit))
            found.extend(record.key for record in records)
        return found[:limit]

    def resident_rooms(self) -> list[str]:
        mine = [actor for actor in self._engine.table.actors() if actor.tenant == self.tenant and actor.state.room.open]
        return [actor.room_id for actor in mine if self._channel_id in actor.state.bindings]

    async def open_view(self, room_id: str, deliver: Deliver, *, after: int | None = None, tail: int = 0) -> View:
        viewer = Viewer(channel_id=self._channel_id)
        if self._engine.nodes is not None:
            return await self._engine.nodes.open_view(self.tenant, room_id, viewer, deliver, after, tail)
        actor = await self._engine.table.require(self.tenant, room_id)
        return await actor.call(views.open_view, viewer, deliver, after, tail)

    def now(self) -> datetime:
        return self._engine.now()


async def submit_as(engine: Engine, tenant: str, room_id: str, channel_id: str, draft: EventDraft) -> RoomEvent:
    """`ChannelPort.submit` where the room is: what kind of channel it is, its seat says."""
    actor = await engine.table.require(tenant, room_id)
    seat = actor.state.bindings.get(channel_id)
    if seat is None:
        raise RoomNotFound(room_id)
    own = messages.stamped(draft, channel_id, seat.channel_type)
    sub = messages.Submission(own, CURRENT.get() or Settlement())
    result = await actor.call(messages.submit, sub)
    if result.event is None:
        raise StateError(f'room "{room_id}" did not take the event: {result.reason}')
    return result.event
