"""TransportChannel: any messaging service, told apart by data alone (S13-S26)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from roomkit.channels.providers import find_provider
from roomkit.core.split import split_content
from roomkit.errors import Refused
from roomkit.models.content import Content, DeleteContent, EditContent, ReactionContent, TextContent
from roomkit.models.delivery import Attachment, DeliveryResult, DeliveryState, Outgoing
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding, ChannelCapabilities
from roomkit.net.redaction import redact
from roomkit.net.ssrf import Fetched, Fetcher, FetchPolicy
from roomkit.ports.channel import Channel, RoomContext, RoomPort


@dataclass(frozen=True, slots=True)
class StandIn:
    """A second way of the same provider: it finds `way` in `Outgoing.extra["via"]`, and carries this much."""

    way: str
    capabilities: ChannelCapabilities


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
    stand_in: StandIn | None = None
    """The way that takes what the vendor cannot deliver by the usual one."""
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

        Parts that an earlier attempt got through are listed in `context.state["parts"]` and not sent again. What the
        vendor refuses goes by the `stand_in`, once and whole (parts that were out already are told of as repeated); an
        attempt that begins there is told so by `context.state["via"]`. Retries are the caller's; a `ProviderError`
        passes.
        """
        if self.provider is None:
            return _failed("no_provider")
        recipient = binding.metadata.get(self.recipient_key) or self.default_recipient
        if not recipient:
            return _failed("no_recipient")
        about = await self._about(event)
        way: str | None = context.state.get("via")
        content = self._content(event, about, way, context)
        if content is None:
            if way is not None:
                return _failed("nothing_to_show_here")
            return DeliveryResult(success=True, state=DeliveryState.SKIPPED, error="target_not_here")
        extra = self._extra(binding) | ({"via": way} if way else {})
        if hasattr(self.provider, "continuing"):
            extra |= await self.provider.continuing(event, binding, context)
        capabilities = self.stand_in.capabilities if way and self.stand_in else self.capabilities
        draft = {
            "recipient": str(recipient),
            "channel_id": self.channel_id,
            "room_id": event.room_id,
            "event_id": event.id,
            "tenant": event.tenant,
            "about_ids": about,
            "window_open": await self._window(event),
            "extra": extra,
        }
        try:
            return await self._send_parts(split_content(content, capabilities), event, draft, context, capabilities)
        except _RefusedHere as refused:
            other = {"via": self.stand_in.way if self.stand_in else "", "instead_of": str(refused)[:500]}
            context.state.update(other, parts=())
            if part_done := context.state.get("part_done"):
                await part_done("", other)
        return await self.deliver(event, binding, context)

    async def _send_parts(
        self,
        parts: Sequence[Content],
        event: RoomEvent,
        draft: Mapping[str, Any],
        context: RoomContext,
        capabilities: ChannelCapabilities,
    ) -> DeliveryResult:
        state, way = context.state, draft["extra"].get("via")
        sent: list[str] = list(state.get("parts", ()))
        result = DeliveryResult(success=True, state=DeliveryState.SENT if sent else DeliveryState.SKIPPED)
        key = f"{event.room_id}:{event.index}:{self.channel_id}:" + (f"{way}:" if way else "")
        for number, content in enumerate(parts[len(sent) :], len(sent)):
            outgoing = Outgoing(
                **draft, content=content, idempotency_key=f"{key}{number}", part=number, parts=len(parts)
            )
            try:
                result = await self._send(outgoing, usual=way is None)
            except _RefusedHere as refused:
                if not sent:
                    raise
                raise _RefusedHere(
                    f"{refused} ({len(sent)} of {len(parts)} parts were out and are repeated)"
                ) from refused
            if not result.success:
                return result.model_copy(update={"parts": tuple(sent)})
            sent.append(result.reference or result.provider_message_id or outgoing.idempotency_key)
            if part_done := state.get("part_done"):
                await part_done(sent[-1])
        last = result.provider_message_id or (sent[-1] if sent else None)
        told: dict[str, Any] = {"parts": tuple(sent), "provider_message_id": last}
        if self.stand_in is not None or capabilities.max_segments is not None:
            told["metadata"] = result.metadata | self._details(parts, capabilities, state)
        return result.model_copy(update=told)

    async def _send(self, message: Outgoing, *, usual: bool) -> DeliveryResult:
        """Raises `_RefusedHere` where the stand-in's turn has come: for a plain no, but not to somebody who has opted
        out."""
        if self.stand_in is None or not usual:
            return await self.provider.send(message)
        opted_out = getattr(self.provider, "opt_out_codes", ())
        try:
            result: DeliveryResult = await self.provider.send(message)
        except Refused as error:
            if error.retryable or error.ambiguous or error.code in opted_out:
                raise
            raise _RefusedHere(redact(str(error))) from error
        if not result.success and not result.retryable and not result.ambiguous and result.code not in opted_out:
            raise _RefusedHere(result.error or result.code or "refused")
        return result

    def _content(
        self, event: RoomEvent, about: tuple[str, ...], way: str | None, context: RoomContext
    ) -> Content | None:
        """What is sent of the event; None where there is nothing to say here."""
        content: Content | None = event.content
        if isinstance(content, (EditContent, DeleteContent, ReactionContent)) and not about:
            content = _without_target(content, self.capabilities, context)
        if content is None or way is None or self.stand_in is None:
            return content
        from roomkit.core.transcode import transcode

        return transcode(content, self.stand_in.capabilities, language=context.room.language)

    def _details(
        self, parts: Sequence[Content], capabilities: ChannelCapabilities, state: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the record of the delivery shows: which way it went and why, and what the parts of an SMS cost."""
        details: dict[str, Any] = {}
        if self.stand_in is not None:
            details["via"] = state.get("via") or str(self.channel_type)
        if why := state.get("instead_of"):
            details["instead_of"] = why
        if capabilities.max_segments is not None:
            from roomkit.core.segments import segments

            counted = [segments(part.text) for part in parts if isinstance(part, TextContent)]
            details |= {"segments": [one.count for one in counted], "encodings": [one.encoding for one in counted]}
        return details

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


class _RefusedHere(Exception):
    """The vendor will not send it this way; nothing of it is out."""


def _failed(reason: str) -> DeliveryResult:
    return DeliveryResult(success=False, state=DeliveryState.FAILED, error=reason, code=reason)
