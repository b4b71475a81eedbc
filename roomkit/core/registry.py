"""Registry: the channels of one kit, whose they are, and the seats they are given in rooms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from roomkit.errors import ChannelNotFound
from roomkit.models.room import Access, Assurance, ChannelBinding
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
        self._reach: dict[str, str] = {}
        self.version = 0
        """Rises whenever a channel comes or goes: what was planned before no longer holds."""

    def register(self, channel: Channel, tenant: str, *, default: bool) -> None:
        self.channels[channel.channel_id] = channel
        self.tenants[channel.channel_id] = tenant
        self._reach[channel.channel_id] = channel.reach
        self.version += 1
        if default:
            self.defaults.append(channel.channel_id)

    def unregister(self, channel_id: str) -> Channel:
        channel = self.channels.pop(channel_id)
        self.tenants.pop(channel_id, None)
        self._reach.pop(channel_id, None)
        self.version += 1
        if channel_id in self.defaults:
            self.defaults.remove(channel_id)
        return channel

    def require(self, channel_id: str, tenant: str) -> Channel:
        """A channel of the tenant's own, or one shared by the default tenant."""
        found = self.channels.get(channel_id)
        if found is None or self.tenants[channel_id] not in (tenant, "default"):
            raise ChannelNotFound(channel_id, [known for known in self.channels if self.serves(known, tenant)])
        return found

    @property
    def reach(self) -> Mapping[str, str]:
        """How the core gets to each channel: "outbox", "cursor" or "turn"."""
        return self._reach

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
    ) -> ChannelBinding:
        metadata = dict(metadata or {})
        recipient_key = getattr(channel, "recipient_key", None)
        if recipient_key in metadata and "address" not in metadata:
            metadata["address"] = metadata[recipient_key]
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
            attached_at=self._engine.now(),
            capabilities=channel.capabilities,
            fallback_after_s=fallback_after_s,
            metadata=metadata,
        ).lean()
