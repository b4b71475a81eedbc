from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roomkit.channels import RCSChannel
from roomkit.errors import ConfigError, Refused
from roomkit.models.content import Button, Card, MediaContent, RichContent, TemplateContent, TextContent
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage
from roomkit.providers.twilio.rcs import TwilioRCSProvider, provider
from roomkit.testing import FakeTwilio, check_message_provider
from roomkit.testing.messages import binding_of, context_of, event_of, message_to
from tests.providers.exactly_once import ONCE, exactly_once, golden_form
from tests.providers.vendor_calls import public

TO = "+15550123"
AGENT = "rcs:fake_brand_agent"
SERVICE = "MG" + "1" * 32


def made(fake: FakeTwilio, **more: Any) -> TwilioRCSProvider:
    options = fake.options(**{"rcs_sender": AGENT, **more})
    return TwilioRCSProvider(options, transport=fake.transport(), resolver=public)


def read(name: str) -> Any:
    twilio = made(FakeTwilio())
    request = twilio.sign(golden_form("twilio_rcs", name)[0])
    twilio.verify(request)
    (item,) = twilio.parse(request, "rcs")
    return item


async def test_conformance():
    fake = FakeTwilio()
    await check_message_provider(
        lambda: made(fake),
        inbound=golden_form("twilio_rcs"),
        outgoing=message_to(TO),
        secrets=[fake.auth_token],
    )


@ONCE
async def test_exactly_one_effect(tmp_path: Path):
    fake = FakeTwilio()
    channel = lambda cid, p: RCSChannel(cid, provider=p)  # noqa: E731 - short
    await exactly_once(lambda _: made(fake), channel, golden_form("twilio_rcs"), folder=tmp_path)


@pytest.mark.parametrize(
    "extra, more, to, sender",
    [
        ({"fallback": True}, {}, f"rcs:{TO}", AGENT),
        ({"fallback": False}, {"rcs_sender": None, "messaging_service_sid": SERVICE}, f"rcs:{TO}", SERVICE),
        ({"fallback": "vendor"}, {"messaging_service_sid": SERVICE}, TO, SERVICE),
        ({"fallback": True, "via": "sms"}, {}, TO, "+15550100"),
        ({"fallback": True, "via": "sms"}, {"from_number": None, "messaging_service_sid": SERVICE}, TO, SERVICE),
    ],
)
async def test_who_sends_and_by_which_way(extra: Any, more: Any, to: str, sender: str):
    fake = FakeTwilio()
    rcs = made(fake, **more)
    await rcs.send(message_to(TO, extra=extra))
    assert [(m.to, m.sender) for m in fake.messages] == [(to, sender)]
    await rcs.aclose()


async def test_what_only_templates_can_carry_is_written_out():
    fake = FakeTwilio()
    channel = RCSChannel("rcs", provider=made(fake))
    assert channel.capabilities.templates
    binding = binding_of(channel, "r", phone_number=TO)
    card = Card(title="Lamp", text="Warm", buttons=(Button(label="Buy", url="https://x.example"),))
    from roomkit.core.transcode import transcode

    shown = transcode(RichContent(text="**Choose**", cards=(card,), quick_replies=("Yes", "No")), channel.capabilities)
    assert shown is not None
    result = await channel.deliver(event_of("r", shown), binding, context_of(binding))
    assert result.success
    assert fake.messages[0].body == "Choose\n\nLamp\n\nWarm\n\nBuy: https://x.example\n\nYes / No"
    template = TemplateContent(template_id="HX" + "a" * 32, parameters={"1": "Ada"})
    await channel.provider.send(message_to(TO, template))
    assert (fake.messages[1].template, fake.messages[1].variables) == ("HX" + "a" * 32, {"1": "Ada"})
    await channel.provider.send(message_to(TO, TemplateContent(template_id="welcome", fallback="Welcome!")))
    assert (fake.messages[2].template, fake.messages[2].body) == (None, "Welcome!")
    with pytest.raises(Refused, match="ContentSid"):
        await channel.provider.send(message_to(TO, TemplateContent(template_id="welcome")))
    await channel.close()


async def test_messages_and_reports_are_read_whole():
    text = read("text")
    assert isinstance(text, InboundMessage)
    assert (text.sender_id, text.recipient_id, text.content) == (
        TO,
        "fake_brand_agent",
        TextContent(text="Hello from RCS"),
    )
    assert read("button").channel_data["twilio"]["ButtonPayload"] == "yes"
    assert isinstance(read("file").content, MediaContent)
    refused, by_sms = read("status_no_rcs"), read("status_sms_delivered")
    assert isinstance(refused, DeliveryStatus)
    assert (refused.state, refused.code, refused.error, refused.via) == (
        DeliveryState.FAILED,
        "63036",
        "the handset has no RCS",
        "rcs",
    )
    assert (by_sms.state, by_sms.via) == (DeliveryState.DELIVERED, "sms")
    assert read("status_read").state is DeliveryState.READ


async def test_the_sender_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"ACCOUNT_SID": "AC1", "AUTH_TOKEN": "planted-token", "RCS_SENDER": AGENT}.items():
        monkeypatch.setenv(f"TWILIO_{name}", value)
    found = provider()
    assert found.options.rcs_sender == AGENT
    await found.aclose()
    fake = FakeTwilio()
    with pytest.raises(ConfigError, match="sender"):
        await made(fake, rcs_sender=None, from_number=None).send(message_to(TO))
    with pytest.raises(ConfigError, match="messaging service"):
        await made(fake).send(message_to(TO, extra={"fallback": "vendor"}))
