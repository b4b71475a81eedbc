"""TwilioRCSProvider: RCS through the same Messages API; SMS where the channel asks for it, or left to Twilio."""

from __future__ import annotations

from typing import Any

from roomkit.errors import ConfigError
from roomkit.models.delivery import DeliveryStatus, InboundMessage, Outgoing, WebhookRequest
from roomkit.models.room import ChannelCapabilities
from roomkit.providers.twilio.sms import TwilioSMSProvider, options_from_env


class TwilioRCSProvider(TwilioSMSProvider):
    """Sends from the RCS sender, or by a messaging service that has one. Buttons and cards are templates of the Content
    API here (`TemplateContent`); of other content they are written out.

    With the channel's `fallback="vendor"` Twilio itself sends SMS to handsets without RCS, by the messaging service.
    """

    other_ways = frozenset({"sms"})
    adapt_sms = TwilioSMSProvider.adapt

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        can = {"templates": True, "buttons": 0, "cards": False, "quick_replies": False, "max_length": 1600}
        return capabilities.model_copy(update={**can, "audio": True, "video": True})

    def address(self, message: Outgoing) -> str:
        """Twilio reads `rcs:` as "RCS or not at all", and a bare number as "whatever the handset has"."""
        bare = message.extra.get("via") == "sms" or message.extra.get("fallback") == "vendor"
        return message.recipient if bare else f"rcs:{message.recipient}"

    def sender(self, message: Outgoing) -> str | None:
        options = self.options
        if message.extra.get("via") == "sms":
            return super().sender(message)
        if message.extra.get("fallback") == "vendor":
            if not options.messaging_service_sid:
                raise ConfigError(
                    "twilio: only a messaging service falls back by itself; set TWILIO_MESSAGING_SERVICE_SID"
                )
            return options.messaging_service_sid
        return message.extra.get("from_") or options.rcs_sender or options.messaging_service_sid

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        """A report says which way its message went."""
        return [
            _with_way(one) if isinstance(one, DeliveryStatus) else one for one in super().parse(request, channel_id)
        ]


def provider(account: str | None = None, **options: Any) -> TwilioRCSProvider:
    """The provider by name, with Twilio's own environment variables for what `options` leave out."""
    return TwilioRCSProvider(options_from_env(account, **options))


def _with_way(status: DeliveryStatus) -> DeliveryStatus:
    told = f"{status.raw_payload.get('From', '')} {status.raw_payload.get('To', '')}"
    return status.model_copy(update={"via": "rcs" if "rcs:" in told else "sms"})
