"""WhatsAppPersonalProvider: a personal WhatsApp account, linked as a device."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from roomkit.errors import AccessDenied, ConfigError, ProviderError, Refused
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    ReactionContent,
    VideoContent,
    text_of,
)
from roomkit.models.delivery import (
    Attachment,
    DeliveryResult,
    DeliveryState,
    DeliveryStatus,
    InboundMessage,
    Outgoing,
    WebhookReply,
    WebhookRequest,
)
from roomkit.net.ssrf import Fetched, Fetcher, FetchPolicy, Resolver
from roomkit.providers.neonize.inbound import HELD, id_of
from roomkit.providers.neonize.wire import NeonizeWire

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
log = logging.getLogger(__name__)
_GROUP = "@g.us"
_MOST = 2000


@dataclass(frozen=True, slots=True)
class NeonizeOptions:
    """`database` is the file that keeps the link: guard it like a password. `show_qr` gets the code to scan with the
    phone as long as the account is not linked; without it one is printed. With `typing` the other side sees that an
    answer is being written. Times in seconds, sizes in bytes.
    """

    database: str = "whatsapp.db"
    show_qr: Callable[[bytes], Awaitable[None]] | None = field(default=None, repr=False)
    typing: bool = True
    max_media_bytes: int = 16 * 1024 * 1024
    timeout_s: float = 30.0


class WhatsAppPersonalProvider:
    """The `MessageProvider` of `WhatsAppPersonalChannel`. A recipient is a phone number, or a group (`...@g.us`).

    It has no webhooks: attach a `NeonizeSource`. WhatsApp does not allow programs on personal accounts and may end
    them; use it where you may. WhatsApp knows no idempotency keys: an attempt without an answer is ambiguous."""

    name = "neonize"
    webhooks = False
    """Nothing that is posted to its channel is believed."""

    def __init__(
        self,
        options: NeonizeOptions | None = None,
        *,
        wire: NeonizeWire | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`wire` takes the place of neonize; `transport` and `resolver` replace the network that files to be sent are
        fetched from."""
        self.options = options or NeonizeOptions()
        self.wire = wire or NeonizeWire(self.options.database, self.options.timeout_s)
        self._network = (resolver, transport)
        self._held: OrderedDict[str, Any] = OrderedDict()
        self._sent: OrderedDict[str, None] = OrderedDict()

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Sends one message or file, or edits, takes back or reacts to one; raises `Refused`, or an ambiguous error
        when no answer came."""
        chat, about = message.recipient, [_split(one) for one in message.about_ids]
        match message.content:
            case EditContent(new_content=content):
                (place, first), *rest = about
                await self.wire.edit(place, first, text_of(content))
                for place, other in rest:
                    await self.wire.revoke(place, other)
            case DeleteContent():
                for place, ident in about:
                    await self.wire.revoke(place, ident)
            case ReactionContent(emoji=emoji, removed=removed):
                place, ident = about[0]
                ours = message.about_ids[0] in self._sent
                if not ours and place.endswith(_GROUP):
                    why = "in a group it takes the author of the message, who is not known"
                    return DeliveryResult(success=True, state=DeliveryState.SKIPPED, error=why)
                await self.wire.react(place, None if ours else place, ident, "" if removed else emoji)
            case content:
                sent = id_of(chat, await self._say(chat, content))
                _keep(self._sent, sent, None)
                return DeliveryResult(success=True, provider_message_id=sent)
        return DeliveryResult(success=True, provider_message_id=f"{message.content.type}:{message.idempotency_key}")

    async def acknowledge(self, message: InboundMessage) -> None:
        """Shows us as writing. It is not worth losing the connection over."""
        if self.options.typing and message.type == "message" and message.addressed_to is None and not message.group:
            try:
                await self.wire.typing(message.address)
            except ProviderError as error:
                log.info("%s: typing could not be shown: %s", self.name, error)

    def hold(self, url: str, message: Any) -> None:
        """Keeps a message whose file is about to be fetched."""
        _keep(self._held, url, message)

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads and decrypts a file, within the size that `policy` allows."""
        message = self._held.pop(attachment.url, None)
        if message is None or not attachment.url.startswith(HELD):
            raise Refused(self.name, "this file is not one that has just arrived")
        limit = (policy or FetchPolicy()).max_bytes
        if attachment.size_bytes is not None and attachment.size_bytes > limit:
            raise Refused(self.name, f"the file has {attachment.size_bytes} bytes, {limit} are allowed")
        data = await self.wire.download(message)
        if len(data) > limit:
            raise Refused(self.name, f"the file has {len(data)} bytes, {limit} are allowed")
        return Fetched(attachment.url, 200, attachment.mime_type or "application/octet-stream", data, {})

    def verify(self, request: WebhookRequest) -> None:
        raise AccessDenied("neonize: there are no webhooks of a personal account")

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        raise AccessDenied("neonize: there are no webhooks of a personal account")

    def reply(self, request: WebhookRequest) -> WebhookReply:
        return WebhookReply(404)

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        raise ConfigError("neonize: a personal account has no webhooks that could be signed")

    async def aclose(self) -> None:
        await self.wire.disconnect()

    async def _say(self, chat: str, content: Content) -> str:
        match content:
            case LocationContent():
                place = (content.latitude, content.longitude)
                return await self.wire.send_place(chat, *place, content.label or "", content.address or "")
            case MediaContent() | AudioContent() | VideoContent():
                return await self._file(chat, content)
            case CompositeContent():
                raise Refused(self.name, "several things at once cannot be sent; send them one by one")
            case _ if text_of(content):
                return await self.wire.send_text(chat, text_of(content))
            case _:
                raise Refused(self.name, f"content of type {content.type} has neither text nor media to send")

    async def _file(self, chat: str, content: MediaContent | AudioContent | VideoContent) -> str:
        resolver, transport = self._network
        policy = FetchPolicy(max_bytes=self.options.max_media_bytes, total_s=self.options.timeout_s, https_only=True)
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self.name) as fetcher:
            found = await fetcher.fetch(content.url)
        kind = content.mime_type.partition("/")[0]
        kind = kind if kind in {"image", "video", "audio"} else "document"
        words = text_of(content) if not isinstance(content, AudioContent) else ""
        name = content.filename if isinstance(content, MediaContent) else None
        return await self.wire.send_file(chat, kind, found.body, words=words or None, name=name, mime=content.mime_type)


def provider(account: str | None = None, **options: Any) -> WhatsAppPersonalProvider:
    """The provider by name: the link in the file `account`, else in NEONIZE_DATABASE, else in whatsapp.db."""
    found: dict[str, Any] = {"database": account or os.environ.get("NEONIZE_DATABASE") or "whatsapp.db"}
    network = {name: options.pop(name) for name in ("wire", "transport", "resolver") if name in options}
    return WhatsAppPersonalProvider(NeonizeOptions(**{**found, **options}), **network)


def _split(about: str) -> tuple[str, str]:
    chat, _, ident = about.rpartition(":")
    return chat, ident


def _keep(among: OrderedDict[str, T], name: str, value: T) -> None:
    among[name] = value
    if len(among) > _MOST:
        among.popitem(last=False)
