"""The messaging channels as data (S1-S12): what each can carry, and where its recipient stands.

Every factory returns a `TransportChannel`. `provider` is a `MessageProvider`, or the name of a vendor ("twilio").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from roomkit.channels.providers import find_provider
from roomkit.channels.transport import StandIn, TransportChannel
from roomkit.models.delivery import DeliveryPolicy
from roomkit.models.room import ChannelCapabilities, ChannelType

_MB = 1024 * 1024
_QUIET_S = 1.5  # people send a thought in several messages; an AI waits this long for the next one (D17)

SMS = ChannelCapabilities(
    media=True,
    read_receipts=True,
    max_length=1600,
    max_segments=10,
    media_per_message=10,
    max_media_bytes=5 * _MB,
    quiet_window_s=_QUIET_S,
)
RCS = ChannelCapabilities(
    rich=True,
    media=True,
    typing=True,
    buttons=4,
    cards=True,
    quick_replies=True,
    read_receipts=True,
    max_length=8000,
    quiet_window_s=_QUIET_S,
)
EMAIL = ChannelCapabilities(rich=True, media=True, threading=True, media_per_message=20, max_media_bytes=20 * _MB)
WHATSAPP = ChannelCapabilities(
    rich=True,
    media=True,
    location=True,
    templates=True,
    buttons=3,
    reactions=True,
    edit=True,
    delete=True,
    read_receipts=True,
    max_length=4096,
    quiet_window_s=_QUIET_S,
)
WHATSAPP_PERSONAL = ChannelCapabilities(
    media=True,
    audio=True,
    video=True,
    location=True,
    reactions=True,
    edit=True,
    delete=True,
    typing=True,
    read_receipts=True,
    max_length=4096,
    media_types=("image/jpeg", "image/png", "image/webp", "audio/ogg", "audio/mp4", "video/mp4"),
    quiet_window_s=_QUIET_S,
)
MESSENGER = ChannelCapabilities(rich=True, media=True, buttons=3, delete=True, max_length=2000, quiet_window_s=_QUIET_S)
TEAMS = ChannelCapabilities(
    rich=True, media=True, threading=True, reactions=True, edit=True, delete=True, max_length=28_000
)
TELEGRAM = ChannelCapabilities(
    rich=True,
    media=True,
    location=True,
    buttons=8,
    reactions=True,
    edit=True,
    delete=True,
    typing=True,
    max_length=4096,
    quiet_window_s=_QUIET_S,
)
SLACK = ChannelCapabilities(
    rich=True,
    media=True,
    audio=True,
    video=True,
    buttons=25,
    cards=True,
    quick_replies=True,
    threading=True,
    reactions=True,
    edit=True,
    delete=True,
    max_length=4000,
)
DISCORD = ChannelCapabilities(
    rich=True,
    media=True,
    audio=True,
    video=True,
    buttons=25,
    cards=True,
    quick_replies=True,
    threading=True,
    reactions=True,
    edit=True,
    delete=True,
    max_length=2000,
    media_per_message=10,
)
HTTP = ChannelCapabilities(rich=True)


def SMSChannel(channel_id: str, *, provider: Any = None, from_number: str | None = None) -> TransportChannel:
    """SMS and MMS to `binding.metadata["phone_number"]`, from `from_number` or the binding's `from_`."""
    return TransportChannel(
        channel_id,
        ChannelType.SMS,
        provider=provider,
        capabilities=SMS,
        recipient_key="phone_number",
        defaults={"from_": from_number},
    )


def RCSChannel(channel_id: str, *, provider: Any = None, fallback: bool | Literal["vendor"] = True) -> TransportChannel:
    """RCS to `binding.metadata["phone_number"]`.

    With `fallback` what the vendor refuses to send by RCS, or reports as failed (of a long message any part), is sent
    as SMS through the same provider, once; the delivery's `details` show `via` and `instead_of`. The reports come by
    the vendor's webhook. With "vendor" it is left to the vendor, where that knows how; False is RCS or nothing.
    """
    channel = TransportChannel(
        channel_id,
        ChannelType.RCS,
        provider=provider,
        capabilities=RCS,
        recipient_key="phone_number",
        defaults={"fallback": fallback},
    )
    if fallback is True and "sms" in getattr(channel.provider, "other_ways", ()):
        channel.stand_in = StandIn("sms", channel.provider.adapt_sms(SMS))
    return channel


def EmailChannel(channel_id: str, *, provider: Any = None, from_address: str | None = None) -> TransportChannel:
    """Email to `binding.metadata["email_address"]`. The subject comes from the binding; an answer keeps the subject of
    what it answers, and a message that carries one in its own metadata has that."""
    channel = TransportChannel(
        channel_id,
        ChannelType.EMAIL,
        provider=provider,
        capabilities=EMAIL,
        recipient_key="email_address",
        defaults={"from_": from_address, "subject": None},
    )
    channel.takes_files = True
    return channel


def WhatsAppChannel(channel_id: str, *, provider: Any = None) -> TransportChannel:
    """WhatsApp Business to `binding.metadata["phone_number"]`."""
    return TransportChannel(
        channel_id, ChannelType.WHATSAPP, provider=provider, capabilities=WHATSAPP, recipient_key="phone_number"
    )


def WhatsAppPersonalChannel(channel_id: str, *, provider: Any = None) -> TransportChannel:
    """A personal WhatsApp account, linked as a device, to `binding.metadata["phone_number"]`."""
    return TransportChannel(
        channel_id,
        ChannelType.WHATSAPP_PERSONAL,
        provider=provider,
        capabilities=WHATSAPP_PERSONAL,
        recipient_key="phone_number",
    )


def MessengerChannel(channel_id: str, *, provider: Any = None) -> TransportChannel:
    """Facebook Messenger to `binding.metadata["facebook_user_id"]`."""
    return TransportChannel(
        channel_id, ChannelType.MESSENGER, provider=provider, capabilities=MESSENGER, recipient_key="facebook_user_id"
    )


def TeamsChannel(channel_id: str, *, provider: Any = None) -> TransportChannel:
    """Microsoft Teams to `binding.metadata["teams_conversation_id"]`."""
    return TransportChannel(
        channel_id, ChannelType.TEAMS, provider=provider, capabilities=TEAMS, recipient_key="teams_conversation_id"
    )


def TelegramChannel(channel_id: str, *, provider: Any = None) -> TransportChannel:
    """A Telegram bot to `binding.metadata["telegram_chat_id"]`."""
    return TransportChannel(
        channel_id, ChannelType.TELEGRAM, provider=provider, capabilities=TELEGRAM, recipient_key="telegram_chat_id"
    )


def SlackChannel(channel_id: str, *, provider: Any = None) -> TransportChannel:
    """A Slack app to `binding.metadata["slack_channel_id"]`: a channel, or a person for direct messages."""
    return TransportChannel(
        channel_id, ChannelType.SLACK, provider=provider, capabilities=SLACK, recipient_key="slack_channel_id"
    )


def DiscordChannel(channel_id: str, *, provider: Any = None) -> TransportChannel:
    """A Discord app to `binding.metadata["discord_channel_id"]`."""
    return TransportChannel(
        channel_id, ChannelType.DISCORD, provider=provider, capabilities=DISCORD, recipient_key="discord_channel_id"
    )


def HTTPChannel(
    channel_id: str, *, provider: Any = None, url: str | None = None, secret: str | Sequence[str] | None = None
) -> TransportChannel:
    """Signed webhooks in and out, to `binding.metadata["webhook_url"]` or else to `url`.

    With `secret` (or several, for rotation: the first signs, all are accepted) the built-in provider is used. Receivers
    recognise a repeated delivery by its `webhook-id`.
    """
    if provider is None and secret is not None:
        provider = find_provider("http", "http", secrets=(secret,) if isinstance(secret, str) else tuple(secret))
    channel = TransportChannel(
        channel_id, ChannelType.HTTP, provider=provider, capabilities=HTTP, recipient_key="webhook_url"
    )
    channel.default_recipient = url
    channel.answers_sender = False
    channel.delivery_policy = DeliveryPolicy(idempotent=True)
    return channel
