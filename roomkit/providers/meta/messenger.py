"""MessengerProvider: a page's conversations through the Messenger Platform."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roomkit.errors import BadResponse, ConfigError, Refused
from roomkit.models.content import (
    AudioContent,
    Button,
    Content,
    DeleteContent,
    EditContent,
    MediaContent,
    ReactionContent,
    RichContent,
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
from roomkit.providers.chat_text import PLAIN, chat_text
from roomkit.providers.meta.graph import WINDOW_CLOSED, Graph, MetaOptions, Webhooks
from roomkit.providers.meta.messenger_inbound import others, read
from roomkit.providers.meta.whatsapp import options_from_env
from roomkit.providers.stored_files import bytes_of, name_of, stored_files

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)
MAX_TEXT, MAX_BESIDE_BUTTONS, MAX_TITLE, MAX_PAYLOAD = 2000, 640, 20, 1000
MAX_BUTTONS, MAX_REPLIES = 3, 13
MAX_FILE = 25 * 1024 * 1024
File = MediaContent | AudioContent | VideoContent


@dataclass(frozen=True, slots=True)
class MessengerOptions:
    """What goes beyond the page.

    Outside the 24 hours after somebody's last message Messenger takes tagged messages only: `window_tag` is used then
    ("HUMAN_AGENT" gives people seven days, and needs Meta's permission); without it such a message is refused. With
    `read_receipts` people see their messages as seen when they have been taken in, with `typing` that an answer is
    being written.
    """

    window_tag: str | None = None
    read_receipts: bool = False
    typing: bool = False


class MessengerProvider:
    """The `MessageProvider` for Messenger. Meta knows no idempotency keys: without an answer an attempt is
    ambiguous."""

    name = "meta"
    window_s = 24 * 3600.0
    """How long after somebody's last message they may be sent anything."""

    def __init__(
        self,
        options: MetaOptions,
        messenger: MessengerOptions | None = None,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeMeta().transport()`. Raises `ConfigError`."""
        if not options.token or not options.account:
            raise ConfigError(
                "meta: a page access token and the page's id are needed; set MESSENGER_PAGE_TOKEN and MESSENGER_PAGE_ID"
            )
        self.options = options
        self.messenger = messenger or MessengerOptions()
        self._webhooks = Webhooks(self.name, options)
        self._graph = Graph(self.name, options, transport=transport, resolver=resolver)

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        """A file has no caption, and pages cannot take back what they have said."""
        more = {"audio": True, "video": True, "quick_replies": True, "max_caption": 0, "max_media_bytes": MAX_FILE}
        return capabilities.replaced(**more, delete=False)

    async def continuing(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> Mapping[str, Any]:
        """Files that have no public address go along as bytes."""
        return await stored_files(event, context, MAX_FILE)

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Sends one message; raises `Refused`, or an ambiguous `ProviderTimeout` when no answer came."""
        content = message.content
        fields: dict[str, Any] = {"recipient": {"id": message.recipient}, "messaging_type": "RESPONSE"}
        if message.window_open is False:
            if self.messenger.window_tag is None:
                return _refused_by_window(content)
            fields |= {"messaging_type": "MESSAGE_TAG", "tag": self.messenger.window_tag}
        path = f"{self.options.account}/messages"
        file = content if isinstance(content, MediaContent | AudioContent | VideoContent) else None
        data = bytes_of(file, message, self.name) if file is not None else None
        if file is not None and data is not None:
            _check_size(len(data))
            form: dict[str, Any] = {**fields, "message": {"attachment": {"type": _kind(file), "payload": {}}}}
            texts = {name: one if isinstance(one, str) else json.dumps(one) for name, one in form.items()}
            answer = await self._graph.upload(path, texts, "filedata", (name_of(file), data, file.mime_type))
        else:
            answer = await self._graph.post(path, {**fields, "message": body(content)})
        if not isinstance(named := answer.get("message_id"), str):
            raise BadResponse(self.name, "accepted a message without naming it")
        return DeliveryResult(success=True, state=DeliveryState.SENT, provider_message_id=named)

    def verify(self, request: WebhookRequest) -> None:
        self._webhooks.verify(request)
        if request.method != "GET":
            self._webhooks.read(request)

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        """Nothing comes of Meta's check of the address, nor of news for another page of the same app."""
        if request.method == "GET":
            return []
        data = self._webhooks.read(request)
        if strangers := others(data, self.options.account):
            log.warning(
                "meta: news for page %s came to channel %s, which is page %s; subscribe one page only to this app",
                ", ".join(sorted(strangers))[:200],
                channel_id,
                self.options.account,
            )
        return list(read(data, channel_id, self.options.account))

    def reply(self, request: WebhookRequest) -> WebhookReply:
        return self._webhooks.reply(request)

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return self._webhooks.sign(request)

    async def acknowledge(self, message: InboundMessage) -> None:
        """A message has been taken in: shows it as seen, and that an answer is being written, where that is wanted."""
        if message.type is not EventType.MESSAGE or not message.sender_id.isdecimal():
            return
        wanted = (("mark_seen", self.messenger.read_receipts), ("typing_on", self.messenger.typing))
        for action in (action for action, on in wanted if on):
            fields = {"recipient": {"id": message.sender_id}, "sender_action": action}
            await self._graph.post(f"{self.options.account}/messages", fields)

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads a file; its address is its own permission."""
        return await self._graph.fetch(attachment.url, policy)

    async def aclose(self) -> None:
        await self._graph.aclose()


def provider(account: str | None = None, **options: Any) -> MessengerProvider:
    """The provider by name; `account` is the page's id. From the environment, unless given in `options`:
    MESSENGER_PAGE_TOKEN, MESSENGER_PAGE_ID, META_APP_SECRET, META_VERIFY_TOKEN, META_GRAPH_VERSION."""
    own = {name: options.pop(name) for name in MessengerOptions.__slots__ if name in options}
    found = options_from_env("MESSENGER_PAGE_TOKEN", "MESSENGER_PAGE_ID", account, **options)
    return MessengerProvider(found, MessengerOptions(**own))


def body(content: Content) -> dict[str, Any]:
    """The message object of the Send API. Raises `Refused` for what cannot be sent."""
    match content:
        case EditContent() | DeleteContent() | ReactionContent():
            raise Refused("meta", f"Messenger has no {content.type} for pages")
        case MediaContent() | AudioContent() | VideoContent():
            _check_size(content.size_bytes)
            if not content.url.startswith(("https://", "http://")):
                raise Refused(
                    "meta", "media must have a public URL that Meta can fetch; configure the kit's public URL"
                )
            return {"attachment": {"type": _kind(content), "payload": {"url": content.url}}}
        case RichContent():
            return _rich(content)
        case _:
            return {"text": _fits(text_of(content), content)}


def _rich(content: RichContent) -> dict[str, Any]:
    """Buttons under a short text, replies to choose from under a longer one; links have no other place than text."""
    text = chat_text(content, PLAIN)
    links = [button for button in content.buttons if button.url]
    replies = [button for button in content.buttons if not button.url]
    named = all(len(button.label) <= MAX_TITLE for button in content.buttons)
    if content.buttons and named and len(text) <= MAX_BESIDE_BUTTONS and len(content.buttons) <= MAX_BUTTONS:
        buttons = [_button(button) for button in content.buttons]
        template = {"template_type": "button", "text": _fits(text, content), "buttons": buttons}
        return {"attachment": {"type": "template", "payload": template}, **_replies(content.quick_replies, ())}
    text = "\n".join([text, *(f"{link.label}: {link.url}" for link in links)])
    return {"text": _fits(text, content), **_replies(content.quick_replies, replies)}


def _button(button: Button) -> dict[str, str]:
    if button.url:
        return {"type": "web_url", "url": button.url, "title": button.label}
    return {"type": "postback", "title": button.label, "payload": _payload(button.label, button.value)}


def _replies(words: tuple[str, ...], buttons: list[Button] | tuple[()]) -> dict[str, Any]:
    choices = [*((button.label, button.value) for button in buttons), *((word, None) for word in words)]
    if not choices:
        return {}
    if len(choices) > MAX_REPLIES:
        raise Refused("meta", f"{len(choices)} choices are too many; Messenger shows {MAX_REPLIES}")
    made = [
        {
            "content_type": "text",
            "title": label if len(label) <= MAX_TITLE else label[: MAX_TITLE - 1] + "…",
            "payload": _payload(label, value),
        }
        for label, value in choices
    ]
    return {"quick_replies": made}


def _payload(label: str, value: str | None) -> str:
    if len(value or label) > MAX_PAYLOAD:
        raise Refused("meta", f'the value of button "{label[:40]}" is longer than {MAX_PAYLOAD} characters')
    return value or label


def _fits(text: str, content: Content) -> str:
    if not text.strip():
        raise Refused("meta", f"content of type {content.type} has neither text nor media to send")
    if len(text) > MAX_TEXT:
        raise Refused("meta", f"a text of {len(text)} characters is too long; Messenger takes {MAX_TEXT}")
    return text


def _kind(file: File) -> str:
    kind = file.mime_type.partition("/")[0]
    return kind if kind in ("image", "audio", "video") else "file"


def _check_size(size: int | None) -> None:
    if size is not None and size > MAX_FILE:
        raise Refused("meta", f"a file of {size} bytes is too large; Messenger takes {MAX_FILE}")


def _refused_by_window(content: Content) -> DeliveryResult:
    error = (
        f"they have written nothing in the last 24 hours, so Messenger takes no {content.type} to them; wait for them, "
        'or where people answer set MessengerOptions(window_tag="HUMAN_AGENT") for seven days'
    )
    return DeliveryResult(success=False, state=DeliveryState.FAILED, error=error, code=WINDOW_CLOSED)


__all__ = ["MessengerOptions", "MessengerProvider", "MetaOptions", "body", "provider"]
