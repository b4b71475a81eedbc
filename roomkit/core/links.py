"""Which event a vendor's message id stands for, and what a vendor calls an event: for edits, reactions and threads."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from roomkit.core.state import event_by_id, key
from roomkit.models.content import Content, DeleteContent, EditContent, ReactionContent, UnknownContent, text_of
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventType
from roomkit.ports.store import EventQuery, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine


async def resolved(engine: Engine, tenant: str, message: InboundMessage) -> InboundMessage:
    """The message with our id in place of the vendor's. An action on a message that is not known (older than the
    dedupe keys, or from before we were there) becomes a message that tells of it; an answer to one stands alone."""
    about = message.about_id or ""
    event_id, room_id = await event_of(engine, tenant, message.channel_id, about)
    content = message.content
    if isinstance(content, (EditContent, DeleteContent, ReactionContent)):
        if event_id is not None:
            return message.replaced(about_id=None, content=content.replaced(target_event_id=event_id))
        metadata = {**message.metadata, "unknown_target": about}
        told = UnknownContent(kind=content.type, text=_told(content))
        return message.replaced(about_id=None, type=EventType.MESSAGE, content=told, metadata=metadata)
    if event_id is not None:
        return message.replaced(about_id=None, about_room=room_id, parent_event_id=event_id)
    return message.replaced(about_id=None, metadata={**message.metadata, "unknown_parent": about})


async def event_of(engine: Engine, tenant: str, channel_id: str, vendor_id: str) -> tuple[str, str] | tuple[None, None]:
    """The event that came in, or went out, on this channel under the vendor's id, and its room."""
    query = RecordQuery("dedupe", tenant, key=f"{channel_id}\n{vendor_id}")
    found = await engine.store.records(query)
    if not found:
        engine.lanes.outcomes.hurry()
        terms = (f"pmid:{channel_id}:{vendor_id}",)
        found = await engine.store.records(RecordQuery("delivery", tenant, terms=terms, limit=1))
    return (str(found[0].value["event_id"]), str(found[0].value["room_id"])) if found else (None, None)


class Links:
    """Implements `ports.channel.LinkPort` for one channel of one tenant."""

    def __init__(self, engine: Engine, tenant: str, channel_id: str) -> None:
        self._engine = engine
        self._tenant = tenant
        self._channel_id = channel_id

    async def ids_of(self, room_id: str, event_id: str, *, sent: bool = False) -> tuple[str, ...]:
        store = self._engine.store
        event = await event_by_id(store, self._tenant, room_id, event_id)
        if event is None:
            return ()
        if event.source.channel_id == self._channel_id and event.source.direction == "inbound":
            own = event.source.provider_message_id
            return () if sent or own is None else (own,)
        record_key = key(room_id, event.index, self._channel_id)
        record = self._engine.lanes.outcomes.unwritten(self._tenant, record_key)
        if record is None:
            found = await store.records(RecordQuery("delivery", self._tenant, key=record_key))
            if not found:
                return ()
            record = found[0]
        parts = tuple(record.value.get("parts") or ())
        last = record.value.get("provider_message_id")
        return parts or ((last,) if last else ())

    async def heard_since(self, room_id: str, since: datetime) -> bool:
        stop: int | None = None
        while stop != 0:
            query = EventQuery(self._tenant, room_id, stop=stop, limit=200, newest_first=True)
            page = await self._engine.store.events(query)
            for event in page:
                if event.created_at <= since:
                    return False
                if event.source.channel_id == self._channel_id and event.source.direction == "inbound":
                    return True
            if not page:
                return False
            stop = page[-1].index
        return False


def _told(content: Content) -> str | None:
    return content.emoji if isinstance(content, ReactionContent) else text_of(content) or None
