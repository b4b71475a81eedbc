"""TransportChannel: any messaging service, told apart by data alone (S13-S26)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from roomkit.channels.providers import find_provider
from roomkit.core.split import split_content
from roomkit.models.content import Content, DeleteContent, EditContent, ReactionContent
from roomkit.models.delivery import Attachment, DeliveryResult, DeliveryState, Outgoing
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding, ChannelCapabilities
from roomkit.net.ssrf import Fetched, Fetcher, FetchPolicy
from roomkit.ports.channel import Channel, RoomContext, RoomPort


class TransportChannel(Channel):
    """Carries events to people through a `MessageProvider`, and people's messages into rooms.

    One object serves every room: who is at the other end stands in the binding's metadata under `recipient_key`.
    `defaults` are further arguments of a send: a value is passed on unchanged, None is looked up in the binding's
    metadata under the same name. `provider` is a `MessageProvider`, the name of one ("twilio"), or None: then
    deliveries are recorded as failed with the reason `no_provider`.
    """

    default_recipient: str | None = None
    """Where a binding without an address is delivered to; for channels with one far end only, such as a webhook."""
    answers_sender = True
    """Whether the address that a message came from can be delivered to; a webhook's sender is only a name."""
    takes_files = False
    """Whether files of the kit's own store go out as bytes instead of as links to them."""

    def __init__(
        self,
        channel_id: str,
        channel_type: str,
        *,
        provider: Any = None,
        capabilities: ChannelCapabilities | None = None,
        recipient_key: str = "recipient_id",
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.provider: Any = find_provider(provider, str(channel_type)) if isinstance(provider, str) else provider
        if hasattr(self.provider, "adapt"):  # one network by two vendors is not the same
            capabilities = self.provider.adapt(capabilities or ChannelCapabilities())
        super().__init__(channel_id, channel_type, capabilities=capabilities)
        self.recipient_key = recipient_key
        self.defaults = dict(defaults or {})

    @property
    def provider_name(self) -> str | None:
        return None if self.provider is None else str(self.provider.name)

    def set_framework(self, port: RoomPort) -> None:
        super().set_framework(port)
        if hasattr(self.provider, "keep_in"):
            self.provider.keep_in(port.vault)

    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        """One attempt to send `event`, already transcoded, in as many parts as its length needs.

        Parts that an earlier attempt got through are listed in `context.state["parts"]` and not sent again. Retries are
        the caller's; a `ProviderError` passes.
        """
        if self.provider is None:
            return _failed("no_provider")
        recipient = binding.metadata.get(self.recipient_key) or self.default_recipient
        if not recipient:
            return _failed("no_recipient")
        about, window = await self._about(event), await self._window(event)
        content = event.content
        if isinstance(content, (EditContent, DeleteContent, ReactionContent)) and not about:
            content = _without_target(content, self.capabilities, context)
            if content is None:
                return DeliveryResult(success=True, state=DeliveryState.SKIPPED, error="target_not_here")
        extra = self._extra(binding)
        if hasattr(self.provider, "continuing"):
            extra |= await self.provider.continuing(event, binding, context)
        parts = split_content(content, self.capabilities)
        sent: list[str] = list(context.state.get("parts", ()))
        result = DeliveryResult(success=True, state=DeliveryState.SENT if sent else DeliveryState.SKIPPED)
        for number, content in enumerate(parts[len(sent) :], len(sent)):
            outgoing = Outgoing(
                recipient=str(recipient),
                content=content,
                channel_id=self.channel_id,
                room_id=event.room_id,
                event_id=event.id,
                idempotency_key=f"{event.room_id}:{event.index}:{self.channel_id}:{number}",
                part=number,
                parts=len(parts),
                tenant=event.tenant,
                about_ids=about,
                window_open=window,
                extra=extra,
            )
            result = await self.provider.send(outgoing)
            if not result.success:
                return result.model_copy(update={"parts": tuple(sent)})
            sent.append(result.reference or result.provider_message_id or outgoing.idempotency_key)
            if part_done := context.state.get("part_done"):
                await part_done(sent[-1])
        last = result.provider_message_id or (sent[-1] if sent else None)
        return result.model_copy(update={"parts": tuple(sent), "provider_message_id": last})

    async def fetch(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads what came with a message, with the vendor's credentials where its own host asks for them."""
        if hasattr(self.provider, "fetch_media"):
            return await self.provider.fetch_media(attachment, policy)
        async with Fetcher(policy) as fetcher:
            return await fetcher.fetch(attachment.url)

    async def close(self) -> None:
        if hasattr(self.provider, "aclose"):
            await self.provider.aclose()

    async def _about(self, event: RoomEvent) -> tuple[str, ...]:
        """What the vendor calls the message that this one is about: only our own can be edited or deleted there."""
        content = event.content
        if isinstance(content, (EditContent, DeleteContent, ReactionContent)):
            target = content.target_event_id
        else:
            target = event.parent_event_id if self.capabilities.threading else None
        if target is None or self.port is None:
            return ()
        port = self.port if event.tenant == self.port.tenant else self.port.of_tenant(event.tenant)
        sent = isinstance(content, (EditContent, DeleteContent))
        return await port.links.ids_of(event.room_id, target, sent=sent)

    async def _window(self, event: RoomEvent) -> bool | None:
        """Whether they have written lately enough, where the network lets businesses only answer."""
        seconds: float | None = getattr(self.provider, "window_s", None)
        if seconds is None or self.port is None:
            return None
        port = self.port if event.tenant == self.port.tenant else self.port.of_tenant(event.tenant)
        return await port.links.heard_since(event.room_id, port.now() - timedelta(seconds=seconds))

    def _extra(self, binding: ChannelBinding) -> dict[str, Any]:
        resolved = {
            name: binding.metadata.get(name) if value is None else value for name, value in self.defaults.items()
        }
        return {name: value for name, value in resolved.items() if value is not None}


def _without_target(
    content: EditContent | DeleteContent | ReactionContent, capabilities: ChannelCapabilities, context: RoomContext
) -> Content | None:
    """An edit of what never went out here is told as a correction; of a deletion or a reaction there is nothing to
    tell."""
    if not isinstance(content, EditContent):
        return None
    from roomkit.core.transcode import transcode

    plain = capabilities.model_copy(update={"edit": False})
    return transcode(content, plain, language=context.room.language)


def _failed(reason: str) -> DeliveryResult:
    return DeliveryResult(success=False, state=DeliveryState.FAILED, error=reason, code=reason)
