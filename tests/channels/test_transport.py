from __future__ import annotations

from typing import Any

import pytest

from roomkit.channels import TransportChannel
from roomkit.channels.providers import find_provider
from roomkit.errors import ConfigError, Unavailable
from roomkit.models.content import CompositeContent, MediaContent, TextContent
from roomkit.models.delivery import Attachment, DeliveryState, InboundMessage
from roomkit.models.room import Category, ChannelCapabilities, ChannelType
from roomkit.net import Fetched
from roomkit.testing import FakeMessages, FakeTwilio, check_channel
from roomkit.testing.messages import binding_of, context_of, event_of


def channel(provider: Any = None, **more: Any) -> TransportChannel:
    return TransportChannel("c", ChannelType.SMS, provider=provider, recipient_key="phone", **more)


async def deliver(channel: TransportChannel, content: Any = "hi", **metadata: Any):
    binding = binding_of(channel, "room", **{"phone": "+1", **metadata})
    return await channel.deliver(event_of("room", content), binding, context_of(binding))


async def test_conformance():
    await check_channel(lambda p: channel(p, capabilities=ChannelCapabilities(max_length=40)), recipient_key="phone")


def test_s13_s20_one_class_configured_by_data_alone():
    plain = TransportChannel("mail", "email")
    assert (plain.channel_id, plain.channel_type) == ("mail", "email")
    assert (plain.provider, plain.recipient_key, plain.defaults) == (None, "recipient_id", {})
    assert plain.capabilities == ChannelCapabilities()
    assert plain.category is Category.TRANSPORT
    assert plain.provider_name is None
    with pytest.raises(TypeError):
        TransportChannel("mail", "email", None)  # type: ignore[misc]


async def test_s21_inbound_becomes_an_event_with_its_source_whole():
    message = InboundMessage.text(
        "c", "+1", "hi", external_id="SM1", provider="fake", raw_payload={"a": 1}, channel_data={"fake": {"x": 1}}
    )
    draft = await channel(FakeMessages()).handle_inbound(message)
    assert draft.content == TextContent(text="hi")
    source = draft.source
    assert (source.channel_id, source.channel_type, source.external_id) == ("c", "sms", "+1")
    assert (source.provider, source.provider_message_id, source.raw_payload) == ("fake", "SM1", {"a": 1})
    assert (draft.idempotency_key, draft.channel_data) == ("SM1", {"fake": {"x": 1}})


async def test_s22_s23_delivered_to_the_recipient_in_the_bindings_metadata():
    fake = FakeMessages()
    result = await deliver(channel(fake), "hi", phone="+15550123")
    (sent,) = fake.sent
    assert (sent.recipient, sent.text, sent.idempotency_key) == ("+15550123", "hi", "room:0:c:0")
    assert (result.success, result.provider_message_id, result.parts) == (True, "fake-1", ("fake-1",))


async def test_s24_s25_defaults_are_fixed_or_looked_up_in_the_binding():
    fake = FakeMessages()
    mail = channel(fake, defaults={"from_": "house@x.example", "subject": None, "cc": None})
    await deliver(mail, subject="About room 12", from_="ignored")
    assert fake.sent[0].extra == {"from_": "house@x.example", "subject": "About room 12"}
    await deliver(mail, subject="Another")
    assert fake.sent[1].extra["subject"] == "Another"


async def test_s26_without_a_provider_the_delivery_fails_with_a_reason():
    result = await deliver(channel())
    assert (result.success, result.state, result.error) == (False, DeliveryState.FAILED, "no_provider")


async def test_without_an_address_it_fails_with_a_reason():
    result = await deliver(channel(FakeMessages()), phone="")
    assert (result.success, result.error) == (False, "no_recipient")


async def test_provider_errors_pass_for_the_lane_to_judge():
    fake = FakeMessages()
    fake.fail(Unavailable("fake", "down", retry_after=3))
    with pytest.raises(Unavailable) as caught:
        await deliver(channel(fake))
    assert caught.value.retry_after == 3


async def test_parts_already_sent_are_not_sent_again_after_an_error():
    fake = FakeMessages()
    short = channel(fake, capabilities=ChannelCapabilities(max_length=9))
    binding = binding_of(short, "room", phone="+1")
    event = event_of("room", "one two three four five six")
    done: list[str] = []

    async def part_done(provider_message_id: str) -> None:
        done.append(provider_message_id)
        if len(done) == 2:
            fake.fail(Unavailable("fake", "down"))

    with pytest.raises(Unavailable):
        await short.deliver(event, binding, context_of(binding, part_done=part_done))
    result = await short.deliver(event, binding, context_of(binding, parts=tuple(done), part_done=part_done))
    assert [m.text for m in fake.sent] == ["one two", "three", "four five", "six"]
    assert [(m.part, m.parts, m.idempotency_key[-2:]) for m in fake.sent] == [(n, 4, f":{n}") for n in range(4)]
    assert result.parts == tuple(done) == ("fake-1", "fake-2", "fake-3", "fake-4")
    again = await short.deliver(event, binding, context_of(binding, parts=tuple(done)))
    assert (again.success, again.state, len(fake.sent)) == (True, DeliveryState.SENT, 4)


async def test_a_message_of_nothing_is_skipped():
    result = await deliver(channel(FakeMessages()), "   ")
    assert (result.success, result.state) == (True, DeliveryState.SKIPPED)


async def test_text_and_pictures_go_as_one_message_where_the_channel_can():
    fake = FakeMessages()
    picture = MediaContent(url="https://x.example/a", mime_type="image/png")
    content = CompositeContent(parts=(TextContent(text="look"), picture))
    await deliver(channel(fake, capabilities=ChannelCapabilities(media=True, media_per_message=10)), content)
    await deliver(channel(fake, capabilities=ChannelCapabilities(media=True)), content)
    assert [m.content for m in fake.sent] == [content, TextContent(text="look"), picture]


async def test_close_reaches_the_provider_and_may_be_repeated():
    fake = FakeMessages()
    open_channel = channel(fake)
    await open_channel.close()
    await open_channel.close()
    assert fake.closed
    await channel().close()


async def test_attachments_are_fetched_by_the_provider_that_knows_their_host():
    class Vendor(FakeMessages):
        async def fetch_media(self, attachment: Attachment, policy: object = None) -> Fetched:
            return Fetched(attachment.url, 200, "image/png", b"data", {})

    got = await channel(Vendor()).fetch(Attachment(url="https://vendor.example/1"))
    assert got.body == b"data"


def test_providers_are_found_by_name(monkeypatch: pytest.MonkeyPatch):
    fake = FakeTwilio()
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", fake.account_sid)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", fake.auth_token)
    assert TransportChannel("c", "sms", provider="twilio").provider_name == "twilio"
    assert find_provider(f"twilio:{fake.account_sid}", "rcs").options.account_sid == fake.account_sid
    for name, kind, told in (
        ("nobody", "sms", '"nobody" is not known'),
        ("twilio", "teams", "nothing for teams"),
        ("../etc", "sms", "is not known"),
    ):
        with pytest.raises(ConfigError, match=told):
            find_provider(name, kind)


async def test_a_provider_refines_what_the_channel_can_carry():
    class Narrow(FakeMessages):
        def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
            return capabilities.replaced(edit=False, max_caption=5)

    both = ChannelCapabilities(edit=True, media=True, max_length=100)
    assert not channel(Narrow(), capabilities=both).capabilities.edit
    assert channel(FakeMessages(), capabilities=both).capabilities.edit
    assert both.edit
    fake = Narrow()
    picture = MediaContent(url="https://x.example/a.png", mime_type="image/png", caption="longer than five")
    await deliver(channel(fake, capabilities=both), picture)
    assert [message.content.type for message in fake.sent] == ["text", "media"]
    await deliver(channel(fake, capabilities=both), picture.replaced(caption="five!"))
    assert fake.sent[-1].text == "five!"
