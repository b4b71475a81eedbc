"""TelnyxRCSProvider: RCS through an agent, with buttons, cards and files; SMS where the channel asks for it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from roomkit.errors import ConfigError, Refused
from roomkit.models.content import Button, Card, CompositeContent, Content, RichContent
from roomkit.models.delivery import DeliveryResult, DeliveryStatus, InboundMessage, Outgoing, WebhookRequest
from roomkit.models.room import ChannelCapabilities
from roomkit.providers.telnyx.sms import TelnyxSMSProvider, options_from_env
from roomkit.providers.text_media import File, files_to_send, text_to_send
from roomkit.providers.vendor_json import table

MAX_TEXT = 3072
MAX_LABEL = 25
MAX_TITLE = 200
MAX_DESCRIPTION = 2000
MAX_CARDS = 10
MAX_SUGGESTIONS = 11
_SMS = "sms"


class TelnyxRCSProvider(TelnyxSMSProvider):
    """Sends as the agent of `agent_id`. What goes by SMS instead is sent as `TelnyxSMSProvider` sends it."""

    other_ways = frozenset({"sms"})
    adapt_sms = TelnyxSMSProvider.adapt

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        return capabilities.model_copy(
            update={"max_length": MAX_TEXT, "buttons": MAX_SUGGESTIONS, "audio": True, "video": True}
        )

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Queues one message at Telnyx; raises `Refused` for what RCS cannot carry."""
        if message.extra.get("via") == _SMS:
            return await self._post("/messages", self.fields(message), message.idempotency_key)
        return await self._post("/messages/rcs", self.rcs_fields(message), message.idempotency_key)

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        """A report says which way its message went: `vendor` fallbacks are seen by that."""
        found = super().parse(request, channel_id)
        return [_with_way(one) if isinstance(one, DeliveryStatus) else one for one in found]

    def rcs_fields(self, message: Outgoing) -> dict[str, Any]:
        """The JSON of an RCS message. Raises `ConfigError` without agent and profile."""
        options = self.options
        agent, profile = message.extra.get("agent_id") or options.agent_id, options.messaging_profile_id
        if not agent or not profile:
            raise ConfigError(
                "telnyx: RCS needs an agent and a messaging profile; "
                "set TELNYX_RCS_AGENT_ID and TELNYX_MESSAGING_PROFILE_ID"
            )
        fields: dict[str, Any] = {
            "agent_id": agent,
            "to": message.recipient,
            "messaging_profile_id": profile,
            "type": "RCS",
            "agent_message": {"content_message": content_message(message.content)},
        }
        if callback := message.extra.get("status_callback") or options.webhook_url:
            fields["webhook_url"] = str(callback)
        if message.extra.get("fallback") == "vendor":
            fields["sms_fallback"] = self._stand_in(message)
        return fields

    def _stand_in(self, message: Outgoing) -> dict[str, str]:
        sender, text = message.extra.get("from_") or self.options.from_number, text_to_send(message.content)
        if not sender or not text:
            raise ConfigError("telnyx: the fallback needs a number and a text; set TELNYX_PHONE_NUMBER")
        return {"from": str(sender), "text": text[:MAX_TEXT]}


def provider(account: str | None = None, **options: Any) -> TelnyxRCSProvider:
    """The provider by name, with Telnyx's environment variables for what `options` leave out."""
    return TelnyxRCSProvider(options_from_env(account, **options))


def content_message(content: Content) -> dict[str, Any]:
    """The `content_message` of an agent's message. A message is a text, a file or cards, never two of them: a text with
    a file or a card becomes the text of the card."""
    text = text_to_send(content)
    files = files_to_send(content, "telnyx")
    rich = _rich(content)
    suggestions = _suggestions(rich)
    if len(files) > 1:
        raise Refused("telnyx", f"{len(files)} files in one RCS message, one is possible; send them one by one")
    cards = list(rich.cards) if rich else []
    if cards:
        body: dict[str, Any] = {"rich_card": _rich_card(cards, text)}
    elif files and text:
        body = {"rich_card": _standalone(_card_content(Card(title="", text=text), files[0]))}
    elif files:
        body = {"content_info": _info(files[0])}
    elif text:
        body = {"text": _within(text, MAX_TEXT, "text")}
    else:
        raise Refused("telnyx", f"content of type {content.type} has nothing that RCS can carry")
    return {**body, "suggestions": suggestions} if suggestions else body


def _with_way(status: DeliveryStatus) -> DeliveryStatus:
    kind = table(table(table(status.raw_payload).get("data")).get("payload")).get("type")
    way = {"RCS": "rcs", "SMS": _SMS, "MMS": _SMS}.get(str(kind))
    return status.model_copy(update={"via": way})


def _rich(content: Content) -> RichContent | None:
    if isinstance(content, CompositeContent):
        return next((part for part in content.parts if isinstance(part, RichContent)), None)
    return content if isinstance(content, RichContent) else None


def _suggestions(rich: RichContent | None) -> list[dict[str, Any]]:
    if rich is None:
        return []
    found = [_suggestion(button) for button in rich.buttons]
    found += [_suggestion(Button(label=words)) for words in rich.quick_replies]
    if len(found) > MAX_SUGGESTIONS:
        raise Refused("telnyx", f"{len(found)} buttons in one RCS message, {MAX_SUGGESTIONS} are possible; use fewer")
    return found


def _suggestion(button: Button) -> dict[str, Any]:
    """A label that is too long is cut: what it means travels beside it, whole."""
    data = base64.b64encode((button.value or button.label).encode()).decode()
    if len(data) > 2048:
        raise Refused("telnyx", f'the value of button "{button.label[:40]}" is longer than RCS allows')
    label = button.label if len(button.label) <= MAX_LABEL else f"{button.label[: MAX_LABEL - 1]}…"
    if button.url:
        where = {"url": button.url, "application": "BROWSER", "webview_view_mode": "WEBVIEW_VIEW_MODE_UNSPECIFIED"}
        return {"action": {"text": label, "postback_data": data, "open_url_action": where}}
    return {"reply": {"text": label, "postback_data": data}}


def _rich_card(cards: Sequence[Card], text: str) -> dict[str, Any]:
    """One card alone, more as a carousel; the message's own text begins the first."""
    if len(cards) > MAX_CARDS:
        raise Refused("telnyx", f"{len(cards)} cards in one RCS message, {MAX_CARDS} are possible; send fewer")
    first = cards[0].model_copy(update={"text": "\n\n".join(filter(None, (text, cards[0].text))) or None})
    contents = [_card_content(card) for card in (first, *cards[1:])]
    if len(contents) == 1:
        return _standalone(contents[0])
    return {"carousel_card": {"card_width": "MEDIUM", "card_contents": contents}}


def _standalone(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "standalone_card": {
            "card_orientation": "VERTICAL",
            "thumbnail_image_alignment": "THUMBNAIL_IMAGE_ALIGNMENT_UNSPECIFIED",
            "card_content": content,
        }
    }


def _card_content(card: Card, file: File | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if card.title:
        found["title"] = _within(card.title, MAX_TITLE, "card's title")
    if card.text:
        found["description"] = _within(card.text, MAX_DESCRIPTION, "card's text")
    if file is not None or card.image_url:
        info = _info(file) if file is not None else {"file_url": card.image_url}
        found["media"] = {"height": "MEDIUM", "content_info": info}
    if card.buttons:
        found["suggestions"] = [_suggestion(button) for button in card.buttons]
    return found


def _info(file: File) -> dict[str, Any]:
    return {"file_url": file.url}


def _within(text: str, most: int, what: str) -> str:
    if len(text) > most:
        raise Refused("telnyx", f"the {what} has {len(text)} characters, RCS carries {most}; shorten it")
    return text
