"""TwilioWhatsAppProvider: WhatsApp through the same Messages API, with templates, places and the 24-hour window."""

from __future__ import annotations

from typing import Any

from roomkit.errors import Refused
from roomkit.models.content import CompositeContent, Content, LocationContent
from roomkit.models.delivery import DeliveryResult, Outgoing
from roomkit.models.room import ChannelCapabilities
from roomkit.providers.chat_text import WHATSAPP
from roomkit.providers.twilio.sms import TwilioSMSProvider, is_template, options_from_env

_MB = 1024 * 1024
_PREFIX = "whatsapp:"


class TwilioWhatsAppProvider(TwilioSMSProvider):
    """Sends from the WhatsApp sender `from_number`, or by a messaging service that has one.

    Outside the 24 hours after somebody's last message WhatsApp takes templates only: anything else is refused before it
    is sent. Twilio sends buttons and lists as templates of the Content API (`TemplateContent` with a ContentSid); of
    other content they are written out. Reactions, edits and deletions it does not pass on.
    """

    dialect = WHATSAPP
    most_files = 1
    window_s = 24 * 3600.0

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        cannot = {"buttons": 0, "reactions": False, "edit": False, "delete": False}
        can = {"templates": True, "location": True, "audio": True, "video": True, "media_per_message": 1}
        return capabilities.model_copy(update={**cannot, **can, "max_length": 1600, "max_media_bytes": 16 * _MB})

    async def send(self, message: Outgoing) -> DeliveryResult:
        """As by SMS; raises `Refused` outside the window."""
        if message.window_open is False and not is_template(message.content):
            raise Refused(
                self.name,
                f"they have written nothing in the last 24 hours, so WhatsApp takes no {message.content.type} to them; "
                "send an approved template (TemplateContent with its ContentSid)",
                code="63016",
            )
        return await super().send(message)

    def sender(self, message: Outgoing) -> str | None:
        sender = super().sender(message)
        return sender if not sender or sender.startswith((_PREFIX, "MG")) else f"{_PREFIX}{sender}"

    def address(self, message: Outgoing) -> str:
        return f"{_PREFIX}{message.recipient}"

    def content_fields(self, content: Content) -> list[tuple[str, str]]:
        if isinstance(content, LocationContent):
            words = "\n".join(filter(None, (content.label, content.address))) or "\U0001f4cd"
            place = f"geo:{content.latitude},{content.longitude}"
            # What stands after the bar is the name of the place.
            named = f"{place}|{content.label.replace('|', ' ')[:100]}" if content.label else place
            return [("Body", words), ("PersistentAction", named)]
        if isinstance(content, CompositeContent) and any(isinstance(part, LocationContent) for part in content.parts):
            raise Refused(self.name, "a place goes alone; send it by itself")
        return super().content_fields(content)


def provider(account: str | None = None, **options: Any) -> TwilioWhatsAppProvider:
    """The provider by name, with Twilio's own environment variables for what `options` leave out;
    TWILIO_WHATSAPP_NUMBER goes before TWILIO_PHONE_NUMBER."""
    import os

    if number := os.environ.get("TWILIO_WHATSAPP_NUMBER"):
        options = {"from_number": number, **options}
    return TwilioWhatsAppProvider(options_from_env(account, **options))
