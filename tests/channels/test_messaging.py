from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import roomkit.channels
from roomkit.channels import (
    DiscordChannel,
    EmailChannel,
    HTTPChannel,
    MessengerChannel,
    RCSChannel,
    SlackChannel,
    SMSChannel,
    TeamsChannel,
    TelegramChannel,
    TransportChannel,
    WhatsAppChannel,
    WhatsAppPersonalChannel,
)
from roomkit.testing import FakeMessages, check_channel
from roomkit.testing.messages import binding_of, context_of, event_of

Factory = Callable[..., TransportChannel]
KEYS: dict[Factory, tuple[str, str]] = {
    SMSChannel: ("sms", "phone_number"),
    RCSChannel: ("rcs", "phone_number"),
    EmailChannel: ("email", "email_address"),
    WhatsAppChannel: ("whatsapp", "phone_number"),
    WhatsAppPersonalChannel: ("whatsapp_personal", "phone_number"),
    MessengerChannel: ("messenger", "facebook_user_id"),
    TeamsChannel: ("teams", "teams_conversation_id"),
    SlackChannel: ("slack", "slack_channel_id"),
    DiscordChannel: ("discord", "discord_channel_id"),
    TelegramChannel: ("telegram", "telegram_chat_id"),
    HTTPChannel: ("http", "webhook_url"),
}


@pytest.mark.parametrize("factory", KEYS)
async def test_s1_s11_every_factory_makes_a_transport_channel_that_conforms(factory: Factory):
    kind, key = KEYS[factory]
    channel = factory("c", provider=FakeMessages())
    assert type(channel) is TransportChannel
    assert (channel.channel_id, channel.channel_type, channel.recipient_key) == ("c", kind, key)
    await check_channel(lambda provider: factory("c", provider=provider), recipient_key=key)


def test_s2_s12_signatures_and_import_path():
    def parameters(factory: Factory) -> dict[str, Any]:
        return {name: p.default for name, p in inspect.signature(factory).parameters.items() if name != "channel_id"}

    assert parameters(SMSChannel) == {"provider": None, "from_number": None}
    assert parameters(RCSChannel) == {"provider": None, "fallback": True}
    assert parameters(EmailChannel) == {"provider": None, "from_address": None}
    for factory in (WhatsAppChannel, WhatsAppPersonalChannel, MessengerChannel, TeamsChannel, TelegramChannel):
        assert parameters(factory) == {"provider": None}
    for factory in KEYS:
        first = next(iter(inspect.signature(factory).parameters.values()))
        assert (first.name, first.default) == ("channel_id", inspect.Parameter.empty)
        assert inspect.signature(factory).return_annotation == "TransportChannel"
        assert getattr(roomkit.channels, factory.__name__) is factory


async def extra(channel: TransportChannel, fake: FakeMessages, **metadata: Any) -> dict[str, Any]:
    binding = binding_of(channel, "room", **{channel.recipient_key: "x", **metadata})
    await channel.deliver(event_of("room", "hi"), binding, context_of(binding))
    return fake.sent[-1].extra


async def test_what_a_send_is_given_beside_the_recipient():
    fake = FakeMessages()
    assert await extra(SMSChannel("c", provider=fake, from_number="+1"), fake) == {"from_": "+1"}
    assert await extra(SMSChannel("c", provider=fake), fake, from_="+2") == {"from_": "+2"}
    assert await extra(RCSChannel("c", provider=fake), fake) == {"fallback": True}
    assert await extra(RCSChannel("c", provider=fake, fallback=False), fake) == {"fallback": False}
    mail = EmailChannel("c", provider=fake, from_address="a@x.example")
    assert await extra(mail, fake, subject="Hi") == {"from_": "a@x.example", "subject": "Hi"}


def test_capabilities_are_those_of_the_networks():
    def of(factory: Factory):
        return factory("c").capabilities

    lengths = {factory: of(factory).max_length for factory in KEYS}
    assert list(lengths.values()) == [1600, 8000, None, 4096, 4096, 2000, 28_000, 4000, 2000, 4096, None]
    assert not of(SMSChannel).rich
    assert of(SMSChannel).media
    assert of(RCSChannel).cards
    assert of(RCSChannel).quick_replies
    assert of(EmailChannel).threading
    assert (of(WhatsAppChannel).buttons, of(WhatsAppChannel).templates, of(WhatsAppChannel).video) == (3, True, False)
    assert of(WhatsAppPersonalChannel).video
    assert "audio/ogg" in of(WhatsAppPersonalChannel).media_types
    assert (of(MessengerChannel).buttons, of(MessengerChannel).delete, of(MessengerChannel).edit) == (3, True, False)
    assert of(TeamsChannel).threading
    assert of(TelegramChannel).typing
    assert not of(HTTPChannel).media
    assert [of(f).quiet_window_s for f in (SMSChannel, WhatsAppChannel, EmailChannel, HTTPChannel)] == [1.5, 1.5, 0, 0]
