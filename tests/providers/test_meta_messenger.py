from __future__ import annotations

import asyncio
import json
import logging
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from roomkit import RoomKit
from roomkit.channels import MessengerChannel
from roomkit.errors import (
    AccessDenied,
    BadResponse,
    ConfigError,
    ProviderError,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.models.content import (
    AudioContent,
    Button,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    RichContent,
    TextContent,
    UnknownContent,
    VideoContent,
)
from roomkit.models.delivery import Attachment, DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.models.event import EventType
from roomkit.providers.meta.messenger import MAX_FILE, MessengerOptions, MessengerProvider, provider
from roomkit.testing import VirtualClock, check_message_provider, fuzz_signatures
from roomkit.testing.messages import message_to
from roomkit.testing.vendors.meta import FakeMeta
from tests.providers.exactly_once import GOLDEN, ONCE, exactly_once, golden
from tests.providers.vendor_calls import check_no_answer, public, send_own_files
from tests.servers.house import MemoryBlobs, house

TO = "24000000000001"
PUBLIC = "https://rooms.example"
VENDOR = "meta/messenger"
FILES = sorted((GOLDEN / VENDOR).glob("*.json"))
PICTURE = MediaContent(url="https://x.example/a.png", mime_type="image/png")


def made(fake: FakeMeta, more: MessengerOptions | None = None, **options: Any) -> MessengerProvider:
    return MessengerProvider(fake.messenger_options(**options), more, transport=fake.transport(), resolver=public)


async def sent(fake: FakeMeta, content: Content | str = "hi", to: str = TO, **more: Any) -> Any:
    messenger = made(fake)
    try:
        return await messenger.send(message_to(to, content, **more))
    finally:
        await messenger.aclose()


async def failing(fake: FakeMeta, content: Content | str = "hi", to: str = TO, **more: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await sent(fake, content, to, **more)
    return caught.value


def items(name: str, vendor: str = VENDOR) -> list[Any]:
    (request,) = golden(vendor, name)
    return made(FakeMeta()).parse(request, "ms")


def read(name: str) -> InboundMessage:
    (item,) = items(name)
    assert isinstance(item, InboundMessage)
    return item


async def test_conformance():
    fake = FakeMeta()
    await check_message_provider(
        lambda: made(fake),
        inbound=[*golden(VENDOR), *golden("meta/messenger_marks")],
        outgoing=message_to(TO),
        secrets=[fake.token, fake.app_secret, fake.verify_token],
        without_secret=lambda: made(fake, app_secret=None),
    )


# -- sending --------------------------------------------------------------------------------------------


async def test_text_goes_out_as_an_answer():
    fake = FakeMeta()
    result = await sent(fake, RichContent(text="**Hello** [site](https://x.example)"))
    (message,) = fake.messages
    assert message.body == {
        "recipient": {"id": TO},
        "messaging_type": "RESPONSE",
        "message": {"text": "Hello site (https://x.example)"},
    }
    assert result.provider_message_id == message.name


async def test_choices_are_buttons_or_replies():
    fake = FakeMeta()
    yes, site = Button(label="Yes", value="ORDER:1"), Button(label="Site", url="https://x.example")
    await sent(fake, RichContent(text="Order?", buttons=(yes, site), quick_replies=("Later",)))
    assert fake.messages[0].body["message"] == {
        "attachment": {
            "type": "template",
            "payload": {
                "template_type": "button",
                "text": "Order?",
                "buttons": [
                    {"type": "postback", "title": "Yes", "payload": "ORDER:1"},
                    {"type": "web_url", "url": "https://x.example", "title": "Site"},
                ],
            },
        },
        "quick_replies": [{"content_type": "text", "title": "Later", "payload": "Later"}],
    }
    await sent(fake, RichContent(text="x" * 641, buttons=(yes, site)))
    message = fake.messages[1].body["message"]
    assert message["text"].endswith("Site: https://x.example")
    assert message["quick_replies"] == [{"content_type": "text", "title": "Yes", "payload": "ORDER:1"}]
    long = Button(label="a label that is too long for them")
    await sent(fake, RichContent(text="?", buttons=(long,)))
    (choice,) = fake.messages[2].body["message"]["quick_replies"]
    assert (choice["title"], choice["payload"]) == ("a label that is too…", long.label)
    many = RichContent(text="?", quick_replies=tuple(str(n) for n in range(14)))
    assert "14 choices are too many" in str(await failing(fake, many))


@pytest.mark.parametrize(
    "content, kind",
    [
        (PICTURE, "image"),
        (VideoContent(url="https://x.example/a"), "video"),
        (AudioContent(url="https://x.example/a", mime_type="audio/mpeg"), "audio"),
        (PICTURE.replaced(mime_type="application/pdf"), "file"),
    ],
)
async def test_files(content: Any, kind: str):
    fake = FakeMeta()
    await sent(fake, content)
    attachment = {"type": kind, "payload": {"url": content.url}}
    assert fake.messages[0].body["message"] == {"attachment": attachment}
    await sent(fake, content.replaced(url="data:x/y;base64,aGVsbG8="))
    assert (fake.messages[1].file, fake.messages[1].body["message"]["attachment"]["type"]) == (b"hello", kind)


async def test_what_cannot_be_sent_is_told_before_sending():
    fake = FakeMeta()
    for content, told in (
        (PICTURE.replaced(url="blob:1"), "public URL"),
        (PICTURE.replaced(size_bytes=MAX_FILE + 1), "too large"),
        (UnknownContent(kind="poll"), "neither text nor media"),
        (TextContent(text="x" * 2001), "too long"),
        (RichContent(text="x", buttons=(Button(label="a", value="x" * 1001),)), "1000"),
        (EditContent(target_event_id="e", new_content=TextContent(text="x")), "no edit"),
        (DeleteContent(target_event_id="e"), "no delete"),
    ):
        error = await failing(fake, content)
        assert isinstance(error, Refused)
        assert told in str(error)
    assert fake.messages == []


async def test_what_we_bring_ourselves_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("roomkit.providers.meta.messenger.MAX_FILE", 4)
    fake = FakeMeta()
    assert "5 bytes" in str(await failing(fake, PICTURE.replaced(url="data:image/png;base64,aGVsbG8=")))
    assert fake.messages == []


async def test_outside_the_window_only_what_is_tagged_goes_out():
    fake = FakeMeta()
    fake.closed.add(TO)
    result = await sent(fake, window_open=False)
    assert (result.success, result.code, "24 hours" in str(result.error)) == (False, "131047", True)
    assert fake.messages == []
    late = await failing(fake)
    assert (type(late), late.code, late.retryable) == (Refused, "131047", False)
    people = made(fake, MessengerOptions(window_tag="HUMAN_AGENT"))
    await people.send(message_to(TO, window_open=False))
    await people.aclose()
    assert (fake.messages[0].body["messaging_type"], fake.messages[0].body["tag"]) == ("MESSAGE_TAG", "HUMAN_AGENT")


@pytest.mark.parametrize(
    "status, code, subcode, kind, retryable",
    [
        (400, 190, None, Unauthorized, False),
        (403, 200, None, Unauthorized, False),
        (400, 10, 2018278, Refused, False),
        (400, 200, 1545041, Refused, False),
        (400, 551, None, Refused, False),
        (400, 100, 2018001, Refused, False),
        (400, 613, None, RateLimited, True),
        (400, 4, None, RateLimited, True),
        (500, 1200, None, Unavailable, True),
        (500, 2, None, Unavailable, True),
    ],
)
async def test_metas_errors_become_ours(
    status: int, code: int, subcode: int | None, kind: type[ProviderError], retryable: bool
):
    fake = FakeMeta()
    fake.fail(status, code, "what Meta says", **({"error_subcode": subcode} if subcode else {}))
    error = await failing(fake)
    assert (type(error), error.retryable) == (kind, retryable)


async def test_no_answer_is_ambiguous_and_a_strange_one_is_bad():
    import httpx2

    fake = FakeMeta()
    await check_no_answer(lambda: made(fake), message_to(TO), hang=fake.hang, lose=fake.lose_answer)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json={"recipient_id": "1"}))
    messenger = MessengerProvider(fake.messenger_options(), transport=transport)
    with pytest.raises(BadResponse):
        await messenger.send(message_to(TO))
    await messenger.aclose()


async def test_secrets_are_in_no_error_repr_or_log(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    fake = FakeMeta()
    fake.fail(400, 100, f"bad token {fake.token}")
    told = str(await failing(fake)) + repr(fake.messenger_options()) + caplog.text
    for secret in (fake.token, fake.app_secret, fake.verify_token, str(fake.proofs[0])):
        assert secret not in told


def test_configuration_errors_name_the_variables(monkeypatch: pytest.MonkeyPatch):
    for name in ("MESSENGER_PAGE_TOKEN", "MESSENGER_PAGE_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="MESSENGER_PAGE_TOKEN"):
        provider()
    monkeypatch.setenv("MESSENGER_PAGE_TOKEN", "planted-token")
    monkeypatch.setenv("MESSENGER_PAGE_ID", "1")
    found = provider(read_receipts=True)
    assert (found.options.account, found.messenger.read_receipts) == ("1", True)
    assert "planted" not in repr(found.options)


# -- webhooks -------------------------------------------------------------------------------------------


def test_mutants_of_signed_webhooks_do_not_pass():
    messenger = made(FakeMeta())
    report = fuzz_signatures(messenger, [messenger.sign(request) for request in golden(VENDOR)], n=3000, seed=11)
    assert report.ok, (report.forged[:3], report.crashed[:3])
    assert report.refused > 2000
    with pytest.raises(AccessDenied):
        messenger.verify(FakeMeta().challenge("wrong"))
    messenger.verify(FakeMeta().challenge())


def test_broken_webhooks_are_visible_and_break_nothing():
    fake, dice = FakeMeta(), random.Random(6)
    messenger = made(fake)
    odd: list[Any] = [None, 7, "x", [], {}, [1], {"id": {}}, True, -1, 10**20, [[]], {"a": [{}]}]

    def spoil(value: Any, depth: int = 0) -> Any:
        if depth > 3 and dice.random() < 0.15:
            return dice.choice(odd)
        if isinstance(value, dict):
            return {name: spoil(one, depth + 1) for name, one in value.items()}
        return [spoil(one, depth + 1) for one in value] if isinstance(value, list) else value

    for path in FILES * 30:
        found = messenger.parse(fake.json(spoil(json.loads(path.read_text()))), "ms")
        assert all(isinstance(one, DeliveryStatus) or one.external_id for one in found)


def test_messages_are_read_whole():
    text = read("text")
    assert (text.sender_id, text.recipient_id, text.external_id) == (TO, "1234567890", "m_first")
    assert text.content == TextContent(text="hello, world! é 🙂")
    assert text.sent_at is not None
    assert text.sent_at.year == 2016
    assert read("reply").about_id == "m_first"
    quick = read("quick_reply")
    assert (quick.content, quick.channel_data["messenger"]["payload"]) == (TextContent(text="Red"), "COLOR_RED")
    image, two = read("image"), read("images_with_text")
    assert isinstance(image.content, MediaContent)
    assert [one.url for one in image.attachments] == [image.content.url]
    assert isinstance(two.content, CompositeContent)
    assert [part.type for part in two.content.parts] == ["text", "media", "media"]
    assert len(two.attachments) == 2
    assert [read(name).content.type for name in ("audio", "video", "file", "like_sticker")] == [
        "audio", "video", "media", "media",
    ]  # fmt: skip
    assert read("location").content == LocationContent(latitude=47.37, longitude=8.54, label="Home")
    assert read("link").content == CompositeContent(
        parts=(TextContent(text="https://x.example/lamp"), TextContent(text="A lamp"))
    )
    tap = read("postback")
    assert (tap.content, tap.channel_data["messenger"]["payload"]) == (TextContent(text="Get Started"), "GET_STARTED")
    assert read("postback_old").external_id.startswith("sha256:")  # type: ignore[union-attr]
    assert [one.sender_id for one in items("several")] == [TO, "24000000000002"]


def test_reactions_and_edits_name_what_they_are_about():
    put, taken, edit = read("reaction"), read("unreaction"), read("edit")
    assert (put.content.emoji, put.content.removed, put.about_id) == ("❤", False, "m_first")  # type: ignore[union-attr]
    assert (taken.content.emoji, taken.content.removed) == ("", True)  # type: ignore[union-attr]
    assert (edit.type, edit.about_id, edit.external_id) == (EventType.EDIT, "m_first", "m_first:edit:1")


def test_an_echo_is_no_message_and_reports_are_by_name_or_by_moment():
    (echo,) = items("echo")
    assert isinstance(echo, DeliveryStatus)
    assert (echo.provider_message_id, echo.state) == ("m_out", DeliveryState.SENT)
    assert [(one.provider_message_id, one.state) for one in items("delivery")] == [
        ("m_out", DeliveryState.DELIVERED),
        ("m_out_2", DeliveryState.DELIVERED),
    ]
    (seen,) = items("read", "meta/messenger_marks")
    assert (seen.state, seen.recipient, seen.until.year) == (DeliveryState.READ, TO, 2016)
    (arrived,) = items("delivered", "meta/messenger_marks")
    assert (arrived.state, arrived.recipient) == (DeliveryState.DELIVERED, TO)


def test_what_there_is_no_content_for_is_visible():
    told = {path.stem: one for path in FILES for one in items(path.stem)[:1] if isinstance(one, InboundMessage)}
    unknown = {
        name: (m.content.kind, m.content.text) for name, m in told.items() if isinstance(m.content, UnknownContent)
    }
    assert unknown == {
        "reel": ("reel", "Lamps"),
        "unsupported": ("is_unsupported", None),
        "optin": ("optin", None),
        "referral": ("referral", None),
        "account_linking": ("account_linking", None),
        "handover": ("pass_thread_control", None),
        "standby": ("standby", None),
        "page_feed": ("feed", None),
    }


def test_news_for_another_page_is_not_taken_for_this_ones(caplog: pytest.LogCaptureFixture):
    fake = FakeMeta()
    assert made(fake, account="999").parse(fake.event({"message": {"mid": "m", "text": "x"}}), "ms") == []
    assert "subscribe one page" in caplog.text


async def test_the_token_does_not_go_where_files_are():
    fake = FakeMeta()
    name = fake.file(b"jpeg bytes")
    messenger = made(fake)
    got = await messenger.fetch_media(Attachment(url=f"https://scontent.xx.fbcdn.net/elsewhere/{name}"))
    assert (got.body, fake.leaks) == (b"jpeg bytes", [])
    await messenger.aclose()


# -- in a room ------------------------------------------------------------------------------------------


def kit_of(fake: FakeMeta, more: MessengerOptions | None = None) -> RoomKit:
    kit = RoomKit(clock=VirtualClock(), token_secrets=["a secret for these tests only"], blobs=MemoryBlobs())
    kit.register_channel(MessengerChannel("ms", provider=made(fake, more)))
    return kit


async def post(h: Any, request: WebhookRequest) -> Any:
    return await h.http.post("/webhooks/ms", content=request.body, headers=dict(request.headers))


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


async def states(kit: RoomKit, room: str) -> list[str]:
    return [str(record.state) for record in sorted(await kit.deliveries(room), key=lambda one: one.index)]


async def test_what_was_read_is_known_by_a_moment_and_never_goes_back():
    fake = FakeMeta()
    async with house(kit_of(fake), public_url=PUBLIC) as h:
        await post(h, fake.event({"message": {"mid": "m1", "text": "hi"}}, sender=TO))
        await post(h, fake.event({"message": {"mid": "m2", "text": "hi"}}, sender="24000000000002"))
        rooms = {}
        for one in await h.kit.list_rooms():
            binding = next(b for b in await h.kit.bindings(one.id) if b.channel_id == "ms")
            rooms[binding.metadata["facebook_user_id"]] = one.id
        mine, other = rooms[TO], rooms["24000000000002"]
        await h.kit.send(mine, "first")
        await h.kit.send(other, "elsewhere")
        await asyncio.sleep(60)
        first = fake.messages[0].name
        between = ms(h.kit.engine.now())
        await asyncio.sleep(60)
        await h.kit.send(mine, "second " * 400)  # in two parts, of which the moment names neither
        await asyncio.sleep(60)
        seen = fake.event({"read": {"watermark": between}}, sender=TO)
        assert (await post(h, seen)).status_code == 200
        assert (await states(h.kit, mine), await states(h.kit, other)) == (["read", "sent"], ["sent"])
        await post(h, fake.event({"delivery": {"mids": [first], "watermark": between}}, sender=TO))
        await post(h, fake.event({"delivery": {"watermark": ms(h.kit.engine.now())}}, sender=TO))
        assert await states(h.kit, mine) == ["read", "delivered"]
        await post(h, seen)
        assert await states(h.kit, mine) == ["read", "delivered"], "the second was delivered after that moment"
        await post(h, fake.event({"read": {"watermark": ms(h.kit.engine.now())}}, sender=TO))
        assert await states(h.kit, mine) == ["read", "read"]
        await h.kit.send(mine, "third")
        await asyncio.sleep(60)
        arrived = ms(h.kit.engine.now())
        await asyncio.sleep(60)
        await post(h, fake.event({"delivery": {"mids": [fake.messages[-1].name], "watermark": arrived}}, sender=TO))
        await post(h, fake.event({"read": {"watermark": arrived}}, sender=TO))
        assert await states(h.kit, mine) == ["read", "read", "read"], "its delivery was heard of after that moment"


async def test_what_a_file_cannot_say_is_said_before_it():
    fake = FakeMeta()
    async with kit_of(fake) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "ms", metadata={"facebook_user_id": TO})
        kit.channels["ms"].provider.window_s = None  # type: ignore[attr-defined]
        await kit.send("r", PICTURE.replaced(caption="this lamp"))
        await asyncio.sleep(10)
        said = [message.body["message"] for message in fake.messages]
        assert said == [{"text": "this lamp"}, {"attachment": {"type": "image", "payload": {"url": PICTURE.url}}}]


async def test_a_file_of_the_kits_own_store_goes_out_without_a_public_address():
    fake = FakeMeta()
    async with kit_of(fake) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "ms", metadata={"facebook_user_id": TO})
        kit.channels["ms"].provider.window_s = None  # type: ignore[attr-defined]
        await send_own_files(kit, "r")
        await asyncio.sleep(10)
        (message,) = fake.messages
        assert message.file == b"the bill"


async def test_a_conversation_with_an_echo_a_tap_and_a_file():
    fake = FakeMeta()
    async with house(kit_of(fake, MessengerOptions(read_receipts=True, typing=True)), public_url=PUBLIC) as h:
        await post(h, fake.event({"message": {"mid": "m1", "text": "where is my lamp"}}, sender=TO))
        assert [action["sender_action"] for action in fake.actions] == ["mark_seen", "typing_on"]
        (room,) = await h.kit.list_rooms()
        ours = await h.kit.send(room.id, RichContent(text="Red?", buttons=(Button(label="Yes", value="Y"),)))
        await asyncio.sleep(3)
        (message,) = fake.messages
        echo = {"sender": {"id": fake.page_id}, "recipient": {"id": TO}}
        await post(h, fake.event({**echo, "message": {"mid": message.name, "is_echo": True, "text": "Red?"}}))
        await post(h, fake.event({"postback": {"mid": "m2", "title": "Yes", "payload": "Y"}}, sender=TO))
        await post(h, fake.event({"reaction": {"action": "react", "emoji": "👍", "mid": message.name}}, sender=TO))
        url = f"https://scontent.xx.fbcdn.net/elsewhere/{fake.file(b'jpeg bytes')}"
        picture = {"type": "image", "payload": {"url": url}}
        await post(h, fake.event({"message": {"mid": "m3", "attachments": [picture]}}, sender=TO))
        events = [e for e in await h.kit.events(room.id, raw=True) if e.type in ("message", "reaction")]
        assert [e.text for e in events if e.type == "message"] == ["where is my lamp", "Red?", "Yes", ""]
        assert events[-1].content.url.startswith("blob:")  # type: ignore[union-attr]
        (reaction,) = [e for e in events if e.type == "reaction"]
        assert reaction.content.target_event_id == ours.event.id  # type: ignore[union-attr]
        assert len(await h.kit.list_rooms()) == 1


@ONCE
async def test_exactly_one_effect(tmp_path: Path):
    names = [path.stem for path in FILES]
    await exactly_once(
        lambda clock: made(FakeMeta()),
        lambda channel_id, messenger: MessengerChannel(channel_id, provider=messenger),
        golden(VENDOR, *(name for name in names if name != "text")),
        before=golden(VENDOR, "text"),
        folder=tmp_path,
    )
