"""TwilioRCSProvider: RCS through the same Messages API, with or without SMS for handsets that have no RCS."""

from __future__ import annotations

from typing import Any

from roomkit.models.delivery import Outgoing
from roomkit.providers.twilio.sms import TwilioSMSProvider, options_from_env


class TwilioRCSProvider(TwilioSMSProvider):
    """Sends by a messaging service with an RCS sender; the channel's `fallback` decides whether SMS may stand in."""

    def address(self, message: Outgoing) -> str:
        """Twilio reads `rcs:` as "RCS or not at all", and a bare number as "whatever the handset has"."""
        return message.recipient if message.extra.get("fallback", True) else f"rcs:{message.recipient}"


def provider(account: str | None = None, **options: Any) -> TwilioRCSProvider:
    """The provider by name, with Twilio's own environment variables for what `options` leave out."""
    return TwilioRCSProvider(options_from_env(account, **options))
