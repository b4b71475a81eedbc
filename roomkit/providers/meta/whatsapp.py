"""MetaWhatsAppProvider: WhatsApp Business through Meta's Cloud API."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from roomkit.errors import BadResponse, ConfigError, Refused
from roomkit.models.content import (
    AudioContent,
    Content,
    DeleteContent,
    EditContent,
    MediaContent,
    ReactionContent,
    TemplateContent,
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
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import ChannelBinding, ChannelCapabilities
from roomkit.net.ssrf import Fetched, FetchPolicy, Resolver
from roomkit.ports.channel import RoomContext
from roomkit.providers.meta.graph import (
    GRAPH_VERSION,
    MEDIA_HOST,
    WINDOW_CLOSED,
    Graph,
    MetaOptions,
    Webhooks,
)
from roomkit.providers.meta.whatsapp_inbound import others, read
from roomkit.providers.meta.whatsapp_outbound import (
    LIMITS,
    MAX_CAPTION,
    ROWS,
    File,
    body,
    check_size,
    kind_of,
)
from roomkit.providers.stored_files import bytes_of, name_of, stored_files
from roomkit.providers.vendor_json import rows

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)
TEXT = "{text}"


@dataclass(frozen=True, slots=True)
class WhatsAppOptions:
    """What goes beyond the account.

    Outside the 24 hours after somebody's last message WhatsApp takes templates only. `window_template` is sent then
    instead of a text, which stands where one of its parameters says `{text}`; without it such a message is refused, and
    the refusal names `templates`. `list_button` opens a list of more than three choices. With `read_receipts` people
    see their messages as read when they have been taken in, with `typing` that an answer is being written as well.
    """

    window_template: TemplateContent | None = None
    templates: tuple[str, ...] = ()
    list_button: str = "☰"
    read_receipts: bool = False
    typing: bool = False


class MetaWhatsAppProvider:
    """The `MessageProvider` for WhatsApp. Meta knows no idempotency keys: an attempt without an answer is ambiguous."""

    name = "meta"
    window_s = 24 * 3600.0
    """How long after somebody's last message they may be sent anything."""
    opt_out_codes: Mapping[str, str] = {"131050": "marketing"}

    def __init__(
        self,
        options: MetaOptions,
        whatsapp: WhatsAppOptions | None = None,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeMeta().transport()`. Raises `ConfigError`."""
        if not options.token or not options.account:
            raise ConfigError(
                "meta: an access token and the phone number's id are needed; set WHATSAPP_TOKEN and "
                "WHATSAPP_PHONE_NUMBER_ID"
            )
        self.options = options
        self.whatsapp = whatsapp or WhatsAppOptions()
        window = self.whatsapp.window_template
        if window is not None and not any(TEXT in value for value in window.parameters.values()):
            raise ConfigError(f'meta: window_template "{window.template_id}" needs a parameter with {TEXT} in it')
        self._webhooks = Webhooks(self.name, options)
        self._graph = Graph(self.name, options, transport=transport, resolver=resolver)
        self._media = f"{options.base_url}/{options.version}/"

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        """Businesses can neither edit nor delete what they have sent."""
        more = {"audio": True, "video": True, "threading": True, "buttons": ROWS, "max_caption": MAX_CAPTION}
        return capabilities.replaced(**more, edit=False, delete=False)

    async def continuing(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> Mapping[str, Any]:
        """Files that have no public address go along as bytes."""
        return await stored_files(event, context, LIMITS["document"])

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Sends one message, or reacts to one; raises `Refused`, or an ambiguous `ProviderTimeout`."""
        content = message.content
        if isinstance(content, EditContent | DeleteContent):
            raise Refused(self.name, f"WhatsApp has no {content.type} for businesses")
        if message.window_open is False and not isinstance(content, TemplateContent):
            reopened = self._reopened(content)
            if reopened is None:
                return self._refused_by_window(content)
            message = message.replaced(content=reopened)
        media = (
            await self._uploaded(content, message)
            if isinstance(content, MediaContent | AudioContent | VideoContent)
            else None
        )
        request = body(message, list_button=self.whatsapp.list_button, media=media)
        answer = await self._graph.post(f"{self.options.account}/messages", request)
        accepted = rows(answer.get("messages"))
        if not accepted or not isinstance(name := accepted[0].get("id"), str):
            raise BadResponse(self.name, "accepted a message without naming it")
        status = accepted[0].get("message_status")
        metadata = {"message_status": status} if status and status != "accepted" else {}
        return DeliveryResult(success=True, state=DeliveryState.SENT, provider_message_id=name, metadata=metadata)

    def verify(self, request: WebhookRequest) -> None:
        self._webhooks.verify(request)
        if request.method != "GET":
            self._webhooks.read(request)

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        """Nothing comes of Meta's check of the address, nor of news for another number of the same account."""
        if request.method == "GET":
            return []
        data = self._webhooks.read(request)
        if strangers := others(data, self.options.account):
            log.warning(
                "meta: news for number %s came to channel %s, which is number %s; give each number its own address "
                "(override_callback_uri)",
                ", ".join(sorted(strangers))[:200],
                channel_id,
                self.options.account,
            )
        return list(read(data, channel_id, self._media, self.options.account))

    def reply(self, request: WebhookRequest) -> WebhookReply:
        return self._webhooks.reply(request)

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return self._webhooks.sign(request)

    async def acknowledge(self, message: InboundMessage) -> None:
        """A message has been taken in: shows it as read, and that an answer is being written, where that is wanted."""
        more = self.whatsapp
        if not (more.read_receipts or more.typing) or message.type is not EventType.MESSAGE or not message.external_id:
            return
        if message.external_id.startswith("sha256:"):
            return  # it has no name that Meta knows
        fields: dict[str, Any] = {"messaging_product": "whatsapp", "status": "read", "message_id": message.external_id}
        if more.typing:
            fields["typing_indicator"] = {"type": "text"}
        await self._graph.post(f"{self.options.account}/messages", fields)

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads a file by its id: Meta first says where it is, and how it has to look."""
        if not attachment.url.startswith(self._media):
            return await self._graph.fetch(attachment.url, policy, key_host=MEDIA_HOST)
        media_id = attachment.url.removeprefix(self._media)
        if not media_id.isalnum():
            raise Refused(self.name, "this is no media id of WhatsApp's")
        found = await self._graph.get(media_id)
        url, digest = found.get("url"), found.get("sha256")
        if not isinstance(url, str):
            raise BadResponse(self.name, "the file cannot be had")
        got = await self._graph.fetch(url, policy, key_host=MEDIA_HOST)
        if (
            isinstance(digest, str)
            and len(digest) == 64
            and not hmac.compare_digest(hashlib.sha256(got.body).hexdigest(), digest.lower())
        ):
            raise BadResponse(self.name, "the file is not the one that was sent")
        return replace(got, url=attachment.url)

    async def aclose(self) -> None:
        await self._graph.aclose()

    async def _uploaded(self, file: File, message: Outgoing) -> dict[str, str] | None:
        """What only we have is brought to Meta; what Meta has keeps its id."""
        if file.url.startswith(self._media):
            return {"id": file.url.removeprefix(self._media)}
        data = bytes_of(file, message, self.name)
        if data is None:
            return None
        check_size(kind_of(file), len(data))
        form = {"messaging_product": "whatsapp", "type": file.mime_type}
        upload = (name_of(file), data, file.mime_type)
        made = await self._graph.upload(f"{self.options.account}/media", form, "file", upload)
        if not isinstance(media_id := made.get("id"), str):
            raise BadResponse(self.name, "took a file without naming it")
        return {"id": media_id}

    def _reopened(self, content: Content) -> TemplateContent | None:
        """The same words in the template that may go out any time; None where there is none, or it says too little."""
        window, text = self.whatsapp.window_template, text_of(content)
        if window is None or not text or isinstance(content, MediaContent | VideoContent | ReactionContent):
            return None
        filled = {name: value.replace(TEXT, text) for name, value in window.parameters.items()}
        return window.replaced(parameters=filled)

    def _refused_by_window(self, content: Content) -> DeliveryResult:
        window = self.whatsapp.window_template
        names = tuple(dict.fromkeys((*self.whatsapp.templates, *((window.template_id,) if window else ()))))
        offered = f": {', '.join(names)}" if names else ", by TemplateContent(template_id=...)"
        error = (
            f"they have written nothing in the last 24 hours, so WhatsApp takes no {content.type} to them; send one of "
            f"your approved templates{offered}"
        )
        metadata: Mapping[str, Any] = {"templates": list(names)}
        return DeliveryResult(
            success=False, state=DeliveryState.FAILED, error=error, code=WINDOW_CLOSED, metadata=dict(metadata)
        )


def provider(account: str | None = None, **options: Any) -> MetaWhatsAppProvider:
    """The provider by name; `account` is the phone number's id. From the environment, unless given in `options`:
    WHATSAPP_TOKEN, WHATSAPP_PHONE_NUMBER_ID, META_APP_SECRET, META_VERIFY_TOKEN, META_GRAPH_VERSION, and
    WHATSAPP_WINDOW_TEMPLATE ("name/language": a template whose one parameter is the text)."""
    own = {name: options.pop(name) for name in WhatsAppOptions.__slots__ if name in options}
    named, _, language = os.environ.get("WHATSAPP_WINDOW_TEMPLATE", "").partition("/")
    if named and "window_template" not in own:
        own["window_template"] = TemplateContent(template_id=named, language=language or None, parameters={"1": TEXT})
    return MetaWhatsAppProvider(
        options_from_env("WHATSAPP_TOKEN", "WHATSAPP_PHONE_NUMBER_ID", account, **options), WhatsAppOptions(**own)
    )


def options_from_env(token: str, account_id: str, account: str | None, **options: Any) -> MetaOptions:
    """What all of Meta's channels read from the environment."""
    found: dict[str, Any] = {
        "token": os.environ.get(token) or "",
        "account": account or os.environ.get(account_id) or "",
        "app_secret": os.environ.get("META_APP_SECRET") or None,
        "verify_token": os.environ.get("META_VERIFY_TOKEN") or None,
        "version": os.environ.get("META_GRAPH_VERSION") or GRAPH_VERSION,
    }
    return MetaOptions(**{**found, **options})


__all__ = ["MetaOptions", "MetaWhatsAppProvider", "WhatsAppOptions", "options_from_env", "provider"]
