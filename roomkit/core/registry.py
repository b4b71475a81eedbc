"""Registry: the channels of one kit, whose they are, and the seats they are given in rooms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from roomkit.core.hooks import Filter
from roomkit.errors import ChannelNotFound
from roomkit.models.content import DeleteContent, EditContent
from roomkit.models.event import EventType
from roomkit.models.hooks import Committed, PersonErased
from roomkit.models.room import Access, Assurance, ChannelBinding, ChannelType
from roomkit.ports.channel import Channel

if TYPE_CHECKING:
    from roomkit.core.engine import Engine


class Registry:
    """Channels by id. Ids are unique in a kit; a channel of the default tenant serves every tenant."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.channels: dict[str, Channel] = {}
        self.tenants: dict[str, str] = {}
        self.defaults: list[str] = []
        self._reach: dict[str, dict[str, str]] = {"default": {}}
        self._told: dict[str, tuple[Callable[[], None], ...]] = {}
        self.version = 0
        """Rises whenever a channel comes or goes: what was planned before no longer holds."""

    def register(self, channel: Channel, tenant: str, *, default: bool) -> None:
        self.channels[channel.channel_id] = channel
        self.tenants[channel.channel_id] = tenant
        self._changed()
        if channel.taken_back is not None and channel.channel_id not in self._told:
            where = Filter(types=frozenset({EventType.DELETE, EventType.EDIT}))
            name, hooks = f"taken back ({channel.channel_id})", self._engine.hooks
            self._told[channel.channel_id] = (
                hooks.on(Committed, partial(_tell, channel), name=name, where=where),
                hooks.on(PersonErased, partial(_tell_erased, channel), name=name),
            )
        if default:
            self.defaults.append(channel.channel_id)

    def unregister(self, channel_id: str) -> Channel:
        channel = self.channels.pop(channel_id)
        self.tenants.pop(channel_id, None)
        for unhook in self._told.pop(channel_id, ()):
            unhook()
        self._changed()
        if channel_id in self.defaults:
            self.defaults.remove(channel_id)
        return channel

    def require(self, channel_id: str, tenant: str) -> Channel:
        """A channel of the tenant's own, or one shared by the default tenant."""
        found = self.channels.get(channel_id)
        if found is None or self.tenants[channel_id] not in (tenant, "default"):
            raise ChannelNotFound(channel_id, [known for known in self.channels if self.serves(known, tenant)])
        return found

    def _changed(self) -> None:
        self.version += 1
        self._reach = {
            tenant: {name: channel.reach for name, channel in self.channels.items() if self.serves(name, tenant)}
            for tenant in {"default", *self.tenants.values()}
        }

    def reach(self, tenant: str) -> Mapping[str, str]:
        """How the core gets to each channel that serves the tenant: "outbox", "cursor" or "turn". A seat of another
        tenant's channel, as in a room that was imported, is one of a channel that is not there."""
        return self._reach.get(tenant) or self._reach["default"]

    def serves(self, channel_id: str, tenant: str) -> bool:
        return self.tenants.get(channel_id) in (tenant, "default")

    def seat(
        self,
        channel: Channel,
        room_id: str,
        tenant: str,
        *,
        metadata: dict[str, Any] | None = None,
        access: Access = Access.READ_WRITE,
        visibility: str = "all",
        participant_id: str | None = None,
        assurance: Assurance = Assurance.CLAIMED,
        fallback_after_s: float | None = None,
        at: datetime | None = None,
    ) -> ChannelBinding:
        metadata = dict(metadata or {})
        recipient_key = getattr(channel, "recipient_key", None)
        if recipient_key in metadata and "address" not in metadata:
            address = metadata[recipient_key]  # of an email the capital letters say nothing
            metadata["address"] = address.lower() if channel.channel_type == ChannelType.EMAIL else address
        return ChannelBinding(
            channel_id=channel.channel_id,
            room_id=room_id,
            channel_type=channel.channel_type,
            tenant=tenant,
            category=channel.category,
            direction=channel.direction,
            access=access,
            visibility=visibility,
            participant_id=participant_id,
            assurance=assurance,
            attached_at=at or self._engine.now(),
            capabilities=channel.capabilities,
            fallback_after_s=fallback_after_s,
            metadata=metadata,
        ).lean()


async def _tell(channel: Channel, notice: Committed) -> None:
    content = notice.event.content
    if (
        channel.taken_back is not None
        and isinstance(content, (DeleteContent, EditContent))
        and not notice.event.blocked
    ):
        await channel.taken_back(notice.tenant, notice.room_id, content.target_event_id)


async def _tell_erased(channel: Channel, notice: PersonErased) -> None:
    if channel.taken_back is not None:
        for event_id in notice.event_ids:
            await channel.taken_back(notice.tenant, notice.room_id, event_id)
