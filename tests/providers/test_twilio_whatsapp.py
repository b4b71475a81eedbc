from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from twilio.http import HttpClient
from twilio.http.response import Response as TwilioResponse
from twilio.rest import Client

from roomkit import RoomKit
from roomkit.channels import WhatsAppChannel
from roomkit.errors import Refused
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    LocationContent,
    MediaContent,
    RichContent,
    TemplateContent,
    TextContent,
)
from roomkit.models.delivery import DeliveryState, InboundMessage
from roomkit.providers.twilio.whatsapp import TwilioWhatsAppProvider, provider
from roomkit.testing import FakeTwilio, VirtualClock, check_message_provider
from roomkit.testing.messages import message_to
from tests.providers.exactly_once import ONCE, exactly_once, golden_form
from tests.providers.vendor_calls import public

TO = "+15550123"
HELLO = TemplateContent(template_id="HX" + "b" * 32, parameters={"1": "Ada"}, fallback="Hello Ada")


def made(fake: FakeTwilio, **more: Any) -> TwilioWhatsAppProvider:
    return TwilioWhatsAppProvider(fake.options(**more), transport=fake.transport(), resolver=public)


def read(name: str) -> Any:
    twilio = made(FakeTwilio())
    request = twilio.sign(golden_form("twilio_whatsapp", name)[0])
    twilio.verify(request)
    (item,) = twilio.parse(request, "whatsapp")
    return item


async def test_conformance():
    fake = FakeTwilio()
    await check_message_provider(
        lambda: made(fake),
        inbound=golden_form("twilio_whatsapp"),
        outgoing=message_to(TO),
        secrets=[fake.auth_token],
    )


@ONCE
async def test_exactly_one_effect(tmp_path: Path):
    fake = FakeTwilio()
    channel = lambda cid, p: WhatsAppChannel(cid, provider=p)  # noqa: E731 - short
    await exactly_once(lambda _: made(fake), channel, golden_form("twilio_whatsapp"), folder=tmp_path)


async def test_text_media_template_and_place_go_out():
    fake = FakeTwilio()
    twilio = made(fake)
    picture = MediaContent(url="https://x.example/a.png", mime_type="image/png", caption="my cat")
    place = LocationContent(latitude=37.78789, longitude=-122.391664, label="375 Beale St", address="San Francisco")
    for content in (RichContent(text="**Hi** *you*"), picture, HELLO, place):
        assert (await twilio.send(message_to(TO, content))).success
    text, media, template, location = fake.messages
    assert {(m.to, m.sender) for m in fake.messages} == {(f"whatsapp:{TO}", f"whatsapp:{fake.number}")}
    assert text.body == "*Hi* _you_"
    assert (media.body, media.media) == ("my cat", (picture.url,))
    assert (template.template, template.variables, template.body) == (HELLO.template_id, {"1": "Ada"}, "")
    assert location.place == "geo:37.78789,-122.391664|375 Beale St"
    assert location.body == "375 Beale St\nSan Francisco"
    await twilio.aclose()


async def test_the_vendors_own_client_sends_the_same_requests():
    theirs: list[dict[str, str]] = []

    class Recorder(HttpClient):
        def request(
            self, method, url, params=None, data=None, headers=None, auth=None, timeout=None, allow_redirects=False
        ):
            theirs.append({name: value for name, value in data.items() if value is not None})
            return TwilioResponse(201, "{}")

    fake = FakeTwilio()
    recorder = Recorder(logging.getLogger("twilio-test"), is_async=False)
    messages = Client(fake.account_sid, fake.auth_token, http_client=recorder).messages
    who = {"to": f"whatsapp:{TO}", "from_": f"whatsapp:{fake.number}"}
    messages.create(**who, content_sid=HELLO.template_id, content_variables='{"1": "Ada"}')
    messages.create(**who, body="Here", persistent_action=["geo:1.0,2.0|Here"])
    twilio = made(fake)
    place = LocationContent(latitude=1, longitude=2, label="Here")
    ours = [dict(twilio.fields(message_to(TO, content))) for content in (HELLO, place)]
    theirs[1]["PersistentAction"] = theirs[1]["PersistentAction"][0]
    assert ours == theirs
    await twilio.aclose()


async def test_what_cannot_be_sent_is_told_before_sending():
    fake = FakeTwilio()
    twilio = made(fake)
    picture = MediaContent(url="https://x.example/a.png", mime_type="image/png")
    place = LocationContent(latitude=1, longitude=2)
    for content, told in (
        (CompositeContent(parts=(picture, picture)), "2 files"),
        (CompositeContent(parts=(TextContent(text="here"), place)), "by itself"),
        (TemplateContent(template_id="hello"), "ContentSid"),
    ):
        with pytest.raises(Refused, match=told):
            await twilio.send(message_to(TO, content))
    assert fake.messages == []
    await twilio.aclose()


async def test_outside_the_window_only_templates_go_and_the_reason_says_so():
    fake = FakeTwilio(webhook_url="https://rooms.example/webhooks/whatsapp")
    kit = RoomKit(clock=VirtualClock(), token_secrets=["a secret for these tests only"])
    kit.register_channel(WhatsAppChannel("whatsapp", provider=made(fake)))
    async with kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "whatsapp", metadata={"address": TO, "phone_number": TO})
        await kit.send("r", "hello?")
        await kit.send("r", HELLO)
        await kit.send("r", TemplateContent(template_id="of_another_vendor", fallback="hello?"))
        await asyncio.sleep(60)
        await (await kit.process_inbound(read("text").model_copy(update={"sender_id": TO}), room_id="r")).settled()
        await kit.send("r", "good to hear from you")
        await asyncio.sleep(23 * 3600)
        await kit.send("r", "still there?")
        await asyncio.sleep(2 * 3600)
        await kit.send("r", "too late")
        await asyncio.sleep(60)
        assert [m.template or m.body for m in fake.messages] == [
            HELLO.template_id,
            "good to hear from you",
            "still there?",
        ]
        records = [record for record in await kit.deliveries("r") if record.state is DeliveryState.FAILED]
        events = {event.id: event.text for event in await kit.events("r")}
        assert [events[record.event_id] for record in records] == ["hello?", "hello?", "too late"]
        assert all("24 hours" in (r.reason or "") and "template" in (r.reason or "") for r in records)


async def test_messages_are_read_whole():
    text = read("text")
    assert isinstance(text, InboundMessage)
    assert (text.sender_id, text.recipient_id, text.sender_name) == (TO, "+15550100", "Ada")
    button = read("button")
    assert (button.content, button.channel_data["twilio"]["ButtonPayload"]) == (TextContent(text="Yes"), "confirm_yes")
    assert button.about_id == "SM" + "4" * 32
    assert read("list").channel_data["twilio"]["ListId"] == "size_l"
    place = read("location").content
    assert (place.label, place.latitude) == ("375 Beale St", 37.78789)
    assert isinstance(read("voice").content, AudioContent)
    window = read("status_window")
    assert (window.state, window.code) == (DeliveryState.FAILED, "63016")
    assert "template" in window.error


async def test_the_number_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("ACCOUNT_SID", "AUTH_TOKEN", "PHONE_NUMBER", "WHATSAPP_NUMBER"):
        monkeypatch.setenv(f"TWILIO_{name}", f"planted-{name}")
    found = provider()
    assert found.options.from_number == "planted-WHATSAPP_NUMBER"
    await found.aclose()
    channel = WhatsAppChannel("whatsapp", provider="twilio")
    assert isinstance(channel.provider, TwilioWhatsAppProvider)
    assert not channel.capabilities.reactions
    await channel.close()
