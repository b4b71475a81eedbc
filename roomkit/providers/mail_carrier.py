"""What every email provider has, whichever way its letters go: the desk that reads and writes them, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from roomkit.models.delivery import Attachment, DeliveryStatus, InboundMessage, Outgoing, WebhookReply, WebhookRequest
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding
from roomkit.net.ssrf import Fetched, Fetcher, FetchPolicy, Resolver
from roomkit.ports.channel import RoomContext
from roomkit.protocols.mail.compose import Mail
from roomkit.providers.mail import WEBHOOK_BYTES, MailDesk, MailSettings, fetched

if TYPE_CHECKING:
    import httpx2

Network = tuple[Resolver | None, "httpx2.AsyncBaseTransport | None"]
"""What replaces the network where files of a letter are fetched: names, and connections."""


class MailCarrier:
    """The part of a `MessageProvider` for email that no vendor does otherwise."""

    name = "mail"
    webhook_bytes = WEBHOOK_BYTES

    def __init__(self, settings: MailSettings, key: str, network: Network) -> None:
        """`key` makes the secret of the threads where `settings` have none."""
        self._desk = MailDesk(self.name, settings, key)
        self._network = network

    async def continuing(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> Mapping[str, Any]:
        return await self._desk.continuing(event, binding, context)

    async def read_ahead(self, data: bytes) -> None:
        await self._desk.read_ahead(data)

    def take(self, data: bytes, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        """What a letter means that came from a mailbox or a mail server of one's own."""
        return self._desk.take(data, channel_id)

    def reply(self, request: WebhookRequest) -> WebhookReply:
        return WebhookReply(200)

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Files come with the letter itself: only what a letter points at is fetched."""
        return fetched(attachment) or await self._fetch(attachment.url, policy)

    async def aclose(self) -> None:
        self._desk.close()

    async def _mail(self, message: Outgoing) -> Mail:
        return await self._desk.mail(message, self._fetch)

    async def _fetch(self, url: str, policy: FetchPolicy | None = None) -> Fetched:
        resolver, transport = self._network
        policy = policy or FetchPolicy(max_bytes=self._desk.settings.max_bytes)
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self.name) as fetcher:
            return await fetcher.fetch(url)
