from __future__ import annotations

import asyncio
import json
import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pywa.errors import WhatsAppError
from pywa.utils import webhook_updates_validator

from roomkit import RoomKit
from roomkit.channels import WhatsAppChannel
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
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    ReactionContent,
    RichContent,
    TemplateContent,
    TextContent,
    UnknownContent,
    VideoContent,
)
from roomkit.models.delivery import Attachment, DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest, forward
from roomkit.models.event import EventType
from roomkit.providers.meta.whatsapp import MetaWhatsAppProvider, WhatsAppOptions, provider
from roomkit.providers.meta.whatsapp_outbound import LIMITS
from roomkit.testing import VirtualClock, check_message_provider, fuzz_signatures
from roomkit.testing.messages import message_to
from roomkit.testing.vendors.meta import FakeMeta
from tests.providers.exactly_once import GOLDEN, ONCE, exactly_once, golden
from tests.providers.vendor_calls import check_no_answer, public, send_own_files
from tests.servers.house import MemoryBlobs, house

TO = "+16505551234"
PUBLIC = "https://rooms.example"
VENDOR = "meta/whatsapp"
FILES = sorted((GOLDEN / VENDOR).glob("*.json"))
PICTURE = MediaContent(url="https://x.example/a.png", mime_type="image/png", caption="cap")
TEMPLATE = TemplateContent(template_id="hello_world", parameters={"1": "{text}"})


def made(fake: FakeMeta, more: WhatsAppOptions | None = None, **options: Any) -> MetaWhatsAppProvider:
    return MetaWhatsAppProvider(fake.whatsapp_options(**options), more, transport=fake.transport(), resolver=public)


async def sent(fake: FakeMeta, content: Content | str = "hi", to: str = TO, **more: Any) -> Any:
    whatsapp = made(fake)
    try:
        return await whatsapp.send(message_to(to, content, **more))
    finally:
        await whatsapp.aclose()


async def failing(fake: FakeMeta, content: Content | str = "hi", to: str = TO, **more: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await sent(fake, content, to, **more)
    return caught.value


def items(name: str) -> list[Any]:
    (request,) = golden(VENDOR, name)
    return made(FakeMeta()).parse(request, "wa")


def read(name: str) -> InboundMessage:
    (item,) = items(name)
    assert isinstance(item, InboundMessage)
    return item


async def test_conformance():
    fake = FakeMeta()
    await check_message_provider(
        lambda: made(fake),
        inbound=golden(VENDOR),
        outgoing=message_to(TO),
        secrets=[fake.token, fake.app_secret, fake.verify_token],
        without_secret=lambda: made(fake, app_secret=None),
    )


# -- sending --------------------------------------------------------------------------------------------


async def test_text_and_formatted_text():
    fake = FakeMeta()
    result = await sent(fake, "see https://x.example")
    (message,) = fake.messages
    assert message.body == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": TO,
        "type": "text",
        "text": {"body": "see https://x.example", "preview_url": True},
    }
    assert (result.success, result.provider_message_id) == (True, message.name)
    await sent(fake, RichContent(text="# Hi\n**bold** *soft* ~~no~~ [site](https://x.example) `code`"))
    shown = "*Hi*\n*bold* _soft_ ~no~ site (https://x.example) `code`"
    assert fake.messages[1].body["text"] == {"body": shown, "preview_url": True}


async def test_people_without_a_number_and_groups():
    fake = FakeMeta()
    await sent(fake, to="US.13491208655302741918")
    await sent(fake, to="US.ENT.11815799212886844830")
    await sent(fake, to="group:HBgNMTIwMzYz")
    told = [{name: m.body.get(name) for name in ("to", "recipient", "recipient_type")} for m in fake.messages]
    assert told == [
        {"to": None, "recipient": "US.13491208655302741918", "recipient_type": "individual"},
        {"to": None, "recipient": "US.ENT.11815799212886844830", "recipient_type": "individual"},
        {"to": "HBgNMTIwMzYz", "recipient": None, "recipient_type": "group"},
    ]


def choices(*labels: str, text: str = "Which?") -> RichContent:
    return RichContent(text=text, buttons=tuple(Button(label=label, value=f"v:{label[:5]}") for label in labels))


async def test_choices_are_buttons_a_list_or_a_link():
    fake = FakeMeta()
    await sent(fake, choices("Red", "Blue"))
    shown = fake.messages[0].body["interactive"]
    assert (shown["type"], shown["body"]) == ("button", {"text": "Which?"})
    assert [one["reply"] for one in shown["action"]["buttons"]] == [
        {"id": "v:Red", "title": "Red"},
        {"id": "v:Blue", "title": "Blue"},
    ]
    await sent(fake, choices("one", "two", "three", "four and then some more words"))
    rows = fake.messages[1].body["interactive"]["action"]["sections"][0]["rows"]
    assert rows[3] == {
        "id": "v:four ",
        "title": "four and then some more…",
        "description": "four and then some more words",
    }
    await sent(fake, choices("a", "b", text="x" * 1025))
    assert fake.messages[2].body["interactive"]["type"] == "list"
    site = Button(label="Site", url="https://x.example")
    await sent(fake, RichContent(text="Look", buttons=(site,)))
    parameters = {"display_text": "Site", "url": "https://x.example"}
    assert fake.messages[3].body["interactive"]["action"] == {"name": "cta_url", "parameters": parameters}
    await sent(fake, RichContent(text="Look", buttons=(site, Button(label="Yes"))))
    assert fake.messages[4].body["interactive"]["body"] == {"text": "Look\nSite: https://x.example"}
    assert "11 choices are too many" in str(await failing(fake, choices(*(str(n) for n in range(11)))))


@pytest.mark.parametrize(
    "content, kind, inner",
    [
        (PICTURE, "image", {"link": "https://x.example/a.png", "caption": "cap"}),
        (
            MediaContent(url="https://x.example/a.webp", mime_type="image/webp"),
            "sticker",
            {"link": "https://x.example/a.webp"},
        ),
        (
            MediaContent(url="https://x.example/a.pdf", mime_type="application/pdf", filename="a.pdf"),
            "document",
            {"link": "https://x.example/a.pdf", "filename": "a.pdf"},
        ),
        (
            MediaContent(url="https://x.example/a.gif", mime_type="image/gif", caption="c"),
            "document",
            {"link": "https://x.example/a.gif", "filename": "file", "caption": "c"},
        ),
        (
            VideoContent(url="https://x.example/a.mp4", caption="v"),
            "video",
            {"link": "https://x.example/a.mp4", "caption": "v"},
        ),
        (
            AudioContent(url="https://x.example/a.ogg", mime_type="audio/ogg; codecs=opus"),
            "audio",
            {"link": "https://x.example/a.ogg"},
        ),
        (
            AudioContent(url="https://x.example/a.wav", mime_type="audio/wav"),
            "document",
            {"link": "https://x.example/a.wav", "filename": "file"},
        ),
        (
            LocationContent(latitude=1.5, longitude=2.5, label="Shop"),
            "location",
            {"latitude": 1.5, "longitude": 2.5, "name": "Shop"},
        ),
    ],
)
async def test_files_and_places(content: Content, kind: str, inner: dict[str, Any]):
    fake = FakeMeta()
    await sent(fake, content)
    body = fake.messages[0].body
    assert (body["type"], body[kind]) == (kind, inner)


async def test_what_only_we_have_is_uploaded_and_what_meta_has_keeps_its_id():
    fake = FakeMeta()
    data = MediaContent(url="data:image/png;base64,aGVsbG8=", mime_type="image/png", caption="c")
    await sent(fake, data)
    image = fake.messages[0].body["image"]
    assert (fake.files[image["id"]], image["caption"]) == (("image/png", b"hello"), "c")
    await sent(fake, PICTURE.replaced(url=f"https://graph.facebook.com/v25.0/{image['id']}"))
    assert fake.messages[1].body["image"] == {"id": image["id"], "caption": "cap"}


async def test_what_we_bring_ourselves_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(LIMITS, "image", 4)
    fake = FakeMeta()
    assert "5 bytes" in str(await failing(fake, PICTURE.replaced(url="data:image/png;base64,aGVsbG8=")))
    assert (fake.files, fake.messages) == ({}, [])


async def test_templates_by_the_place_of_their_parameters():
    fake = FakeMeta()
    fake.templates |= {"order", "named"}
    order = TemplateContent(
        template_id="order",
        language="de",
        parameters={
            "2": "two\nlines",
            "1": "one",
            "header.image": "https://x.example/a.png",
            "button.0": "17",
            "button.1.payload": "P",
        },
    )
    await sent(fake, order)
    assert fake.messages[0].body["template"] == {
        "name": "order",
        "language": {"code": "de"},
        "components": [
            {"type": "body", "parameters": [{"type": "text", "text": "one"}, {"type": "text", "text": "two lines"}]},
            {"type": "header", "parameters": [{"type": "image", "image": {"link": "https://x.example/a.png"}}]},
            {"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "17"}]},
            {
                "type": "button",
                "sub_type": "quick_reply",
                "index": "1",
                "parameters": [{"type": "payload", "payload": "P"}],
            },
        ],
    }
    await sent(fake, TemplateContent(template_id="named", parameters={"header": "H", "name": "Ada"}))
    components = fake.messages[1].body["template"]["components"]
    assert components[0]["parameters"] == [{"type": "text", "parameter_name": "name", "text": "Ada"}]
    assert components[1] == {"type": "header", "parameters": [{"type": "text", "text": "H"}]}
    await sent(fake, TemplateContent(template_id="hello_world"))
    assert fake.messages[2].body["template"] == {"name": "hello_world", "language": {"code": "en_US"}}


async def test_only_what_meta_has_a_name_for_is_shown_as_read():
    fake = FakeMeta()
    whatsapp = made(fake, WhatsAppOptions(read_receipts=True))
    for name in ("template_status", "reaction", "edit"):
        await whatsapp.acknowledge(read(name))
    assert fake.actions == []
    await whatsapp.acknowledge(read("text"))
    assert fake.actions == [{"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.first"}]
    await whatsapp.aclose()


async def test_answers_and_reactions_name_the_message():
    fake = FakeMeta()
    await sent(fake, about_ids=("wamid.1", "wamid.2"))
    assert fake.messages[0].body["context"] == {"message_id": "wamid.2"}
    await sent(fake, about_ids=("wamid.1",), part=1, parts=2)
    assert "context" not in fake.messages[1].body
    await sent(fake, ReactionContent(target_event_id="e", emoji="👍"), about_ids=("wamid.1",))
    await sent(fake, ReactionContent(target_event_id="e", emoji="👍", removed=True), about_ids=("wamid.1",))
    assert [m.body["reaction"]["emoji"] for m in fake.messages[2:]] == ["👍", ""]
    assert fake.messages[2].body["reaction"]["message_id"] == "wamid.1"


async def test_what_cannot_be_sent_is_told_before_sending():
    fake = FakeMeta()
    edit = EditContent(target_event_id="e", new_content=TextContent(text="x"))
    for content, told in (
        (PICTURE.replaced(url="blob:1"), "public URL"),
        (PICTURE.replaced(size_bytes=5 * 1024 * 1024 + 1), "too large"),
        (PICTURE.replaced(caption="x" * 1025), "too long"),
        (PICTURE.replaced(url="data:image/png;base64,a"), "broken"),
        (UnknownContent(kind="poll"), "neither text nor media"),
        (TextContent(text="x" * 4097), "too long"),
        (ReactionContent(target_event_id="e", emoji="x"), "does not know"),
        (RichContent(text="x", buttons=(Button(label="a", value="x" * 257),)), "256"),
        (edit, "no edit"),
        (DeleteContent(target_event_id="e"), "no delete"),
    ):
        error = await failing(fake, content)
        assert isinstance(error, Refused)
        assert told in str(error)
    assert (fake.messages, fake.files) == ([], {})


# -- the 24-hour window ---------------------------------------------------------------------------------


async def test_outside_the_window_a_text_is_refused_with_the_template_to_use():
    fake = FakeMeta()
    whatsapp = made(fake, WhatsAppOptions(templates=("order_update", "hello_world")))
    result = await whatsapp.send(message_to(TO, window_open=False))
    assert (result.success, result.code, result.state) == (False, "131047", DeliveryState.FAILED)
    assert "24 hours" in str(result.error)
    assert "order_update, hello_world" in str(result.error)
    assert result.metadata == {"templates": ["order_update", "hello_world"]}
    assert fake.messages == []
    assert (await whatsapp.send(message_to(TO, TEMPLATE.replaced(parameters={}), window_open=False))).success
    assert (await whatsapp.send(message_to(TO, window_open=True))).success
    await whatsapp.aclose()


async def test_outside_the_window_the_configured_template_says_the_text():
    fake = FakeMeta()
    whatsapp = made(fake, WhatsAppOptions(window_template=TEMPLATE))
    assert (await whatsapp.send(message_to(TO, "your lamp\nis here", window_open=False))).success
    body = fake.messages[0].body["template"]["components"][0]["parameters"]
    assert body == [{"type": "text", "text": "your lamp is here"}]
    refused = await whatsapp.send(message_to(TO, PICTURE, window_open=False))
    assert (refused.success, "hello_world" in str(refused.error)) == (False, True)
    await whatsapp.aclose()
    with pytest.raises(ConfigError, match="text"):
        made(fake, WhatsAppOptions(window_template=TemplateContent(template_id="x")))


def kit_of(fake: FakeMeta, more: WhatsAppOptions | None = None, clock: VirtualClock | None = None) -> RoomKit:
    kit = RoomKit(clock=clock or VirtualClock(), token_secrets=["a secret for these tests only"], blobs=MemoryBlobs())
    kit.register_channel(WhatsAppChannel("wa", provider=made(fake, more)))
    return kit


async def post(h: Any, request: WebhookRequest) -> Any:
    url = request.url.replace("/whatsapp", "/wa").removeprefix(PUBLIC)
    return await h.http.request(request.method, url, content=request.body, headers=dict(request.headers))


async def outcome(kit: RoomKit, room: str) -> list[Any]:
    return [record for record in await kit.deliveries(room) if record.channel_id == "wa"]


async def test_the_window_is_known_from_the_rooms_own_log():
    fake = FakeMeta()
    async with house(kit_of(fake), public_url=PUBLIC) as h:
        await post(h, fake.text("16505551234", "hello"))
        (room,) = await h.kit.list_rooms()
        for _ in range(30):  # what others say does not open it
            await h.kit.send(room.id, "still here", visibility="internal")
        await asyncio.sleep(23.9 * 3600)
        await h.kit.send(room.id, "in time")
        await asyncio.sleep(3600)
        await h.kit.send(room.id, "too late")
        await asyncio.sleep(10)
        assert [message.body["text"]["body"] for message in fake.messages] == ["in time"]
        failed = [record for record in await outcome(h.kit, room.id) if record.state == "failed"]
        assert ["24 hours" in str(record.reason) for record in failed] == [True]
        await post(h, fake.text("16505551234", "I am back"))
        await h.kit.send(room.id, "welcome")
        await asyncio.sleep(10)
        assert [message.body["text"]["body"] for message in fake.messages] == ["in time", "welcome"]


async def test_a_room_that_never_heard_anybody_is_outside_the_window():
    fake = FakeMeta()
    async with kit_of(fake, WhatsAppOptions(window_template=TEMPLATE)) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "wa", metadata={"phone_number": TO})
        await kit.send("r", "we have news")
        await asyncio.sleep(10)
        assert fake.messages[0].body["type"] == "template"


# -- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, code, kind, retryable",
    [
        (401, 190, Unauthorized, False),
        (403, 10, Unauthorized, False),
        (403, 200, Unauthorized, False),
        (400, 131005, Unauthorized, False),
        (400, 131047, Refused, False),
        (400, 131026, Refused, False),
        (400, 131051, Refused, False),
        (400, 132001, Refused, False),
        (400, 100, Refused, False),
        (400, 368, Refused, False),
        (400, 131048, Refused, False),
        (429, 130429, RateLimited, True),
        (400, 131056, RateLimited, True),
        (400, 80007, RateLimited, True),
        (400, 4, RateLimited, True),
        (500, 131000, Unavailable, True),
        (503, 2, Unavailable, True),
        (500, 424242, Unavailable, True),
    ],
)
async def test_metas_errors_become_ours(status: int, code: int, kind: type[ProviderError], retryable: bool):
    fake = FakeMeta()
    fake.fail(status, code, "what Meta says", error_data={"details": "and why"})
    error = await failing(fake)
    assert (type(error), error.retryable, error.code) == (kind, retryable, str(code))
    assert "what Meta says: and why" in str(error)


def test_what_is_worth_another_try_is_so_for_another_implementation_too():
    from pywa import errors as theirs

    throttled = (theirs.ToManyAPICalls, theirs.RateLimitIssues, theirs.RateLimitHit, theirs.TooManyMessages)
    from roomkit.providers.meta.graph import _RETRYABLE

    for kind in throttled:
        assert issubclass(kind, WhatsAppError)
        for code in kind.__error_codes__:
            assert _RETRYABLE[code] is RateLimited


async def test_how_long_to_wait_is_told_in_two_ways():
    fake = FakeMeta()
    fake.fail(429, 130429, headers={"retry-after": "7"})
    assert (await failing(fake)).retry_after == 7
    usage = {"102290129340398": [{"type": "whatsapp", "estimated_time_to_regain_access": 2}]}
    fake.fail(400, 80007, headers={"x-business-use-case-usage": json.dumps(usage)})
    assert (await failing(fake)).retry_after == 120
    fake.fail(400, 80007, headers={"x-business-use-case-usage": "[1"})
    assert (await failing(fake)).retry_after is None


async def test_no_answer_is_ambiguous_and_a_strange_one_is_bad():
    fake = FakeMeta()
    await check_no_answer(lambda: made(fake), message_to(TO), hang=fake.hang, lose=fake.lose_answer)
    assert len(fake.messages) == 2, "both were accepted"
    for body in ("<html>", "[]", "{}", '{"messages": []}', '{"messages": [{"id": 5}]}'):
        transport = httpx2.MockTransport(lambda _, body=body: httpx2.Response(200, text=body))
        whatsapp = MetaWhatsAppProvider(fake.whatsapp_options(), transport=transport)
        with pytest.raises(BadResponse):
            await whatsapp.send(message_to(TO))
        await whatsapp.aclose()


async def test_requests_carry_the_proof_where_the_secret_is_known():
    from facebook_business.session import FacebookSession

    fake = FakeMeta()
    await sent(fake)
    assert fake.proofs == [FacebookSession("1", fake.app_secret, fake.token).appsecret_proof]
    bare = made(fake, app_secret=None)
    await bare.send(message_to(TO))
    await bare.aclose()
    assert fake.proofs[1] is None


async def test_secrets_are_in_no_error_repr_or_log(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    fake = FakeMeta()
    fake.fail(400, 100, f"bad token {fake.token}")
    error = await failing(fake)
    options = fake.whatsapp_options()
    for secret in (fake.token, fake.app_secret, fake.verify_token):
        assert secret not in str(error) + repr(options) + repr(vars(made(fake))) + caplog.text
    assert "graph.facebook.com" in caplog.text
    assert str(fake.proofs[0]) not in caplog.text


def test_configuration_errors_name_the_variables(monkeypatch: pytest.MonkeyPatch):
    for name in ("WHATSAPP_TOKEN", "WHATSAPP_PHONE_NUMBER_ID", "META_APP_SECRET", "WHATSAPP_WINDOW_TEMPLATE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="WHATSAPP_PHONE_NUMBER_ID"):
        provider()
    monkeypatch.setenv("WHATSAPP_TOKEN", "planted-token")
    monkeypatch.setenv("WHATSAPP_PHONE_NUMBER_ID", "1")
    monkeypatch.setenv("META_APP_SECRET", "planted-secret")
    monkeypatch.setenv("WHATSAPP_WINDOW_TEMPLATE", "news/de")
    found = provider(typing=True, timeout_s=3)
    assert (found.options.account, found.options.timeout_s, found.whatsapp.typing) == ("1", 3, True)
    assert found.whatsapp.window_template == TemplateContent(
        template_id="news", language="de", parameters={"1": "{text}"}
    )
    assert provider("2").options.account == "2"
    assert "planted" not in repr(found.options)
    with pytest.raises(ConfigError, match="version"):
        provider(version="25")


# -- webhooks -------------------------------------------------------------------------------------------


def test_signatures_agree_with_another_implementation_in_both_directions():
    fake = FakeMeta()
    whatsapp, dice = made(fake), random.Random(3)
    for _ in range(50):
        body = "".join(dice.choice("aZ é€😀+&=%\n\t'\"") for _ in range(dice.randrange(40)))
        theirs = fake.text("16505551234", body)
        whatsapp.verify(theirs)
        ours = whatsapp.sign(replace(theirs, headers={"content-type": "application/json"}))
        assert ours.headers["x-hub-signature-256"] == theirs.headers["x-hub-signature-256"]
        assert webhook_updates_validator(fake.app_secret, ours.body, ours.headers["x-hub-signature-256"])


def test_without_an_app_secret_nothing_is_believed_not_even_what_is_signed_with_nothing():
    fake = FakeMeta(app_secret="")
    for secret in (None, ""):
        with pytest.raises(AccessDenied, match="no app secret"):
            made(fake, app_secret=secret).verify(fake.text("16505551234", "forged"))


def test_mutants_of_signed_webhooks_do_not_pass():
    whatsapp = made(FakeMeta())
    report = fuzz_signatures(whatsapp, [whatsapp.sign(request) for request in golden(VENDOR)], n=4000, seed=11)
    assert report.ok, (report.forged[:3], report.crashed[:3])
    assert report.refused > 2500


def test_the_address_is_confirmed_only_to_who_knows_the_verify_token():
    fake = FakeMeta()
    whatsapp, request = made(fake), fake.challenge()
    whatsapp.verify(request)
    assert (whatsapp.parse(request, "wa"), whatsapp.reply(request).body) == ([], b"1158201444")
    for wrong in (
        fake.challenge("wrong"),
        fake.challenge(""),
        replace(request, query={**request.query, "hub.mode": "unsubscribe"}),
        replace(request, query={}),
    ):
        with pytest.raises(AccessDenied, match="verify token"):
            whatsapp.verify(wrong)
    with pytest.raises(AccessDenied):
        made(fake, verify_token=None).verify(fake.challenge(""))
    assert whatsapp.reply(fake.text("1", "x")).body == b""


async def test_meta_checks_the_address_at_the_door():
    fake = FakeMeta()
    async with house(kit_of(fake), public_url=PUBLIC) as h:
        answer = await post(h, fake.challenge())
        assert (answer.status_code, answer.text) == (200, "1158201444")
        assert (await post(h, fake.challenge("wrong"))).status_code == 403
        assert await h.kit.list_rooms() == []


def test_broken_webhooks_are_visible_and_break_nothing():
    fake, dice = FakeMeta(), random.Random(6)
    whatsapp = made(fake)
    odd: list[Any] = [None, 7, "x", [], {}, [1], {"id": {}}, True, -1, [[]], {"a": [{}]}]

    def spoil(value: Any, depth: int = 0) -> Any:
        if depth > 4 and dice.random() < 0.15:
            return dice.choice(odd)
        if isinstance(value, dict):
            return {name: spoil(one, depth + 1) for name, one in value.items()}
        return [spoil(one, depth + 1) for one in value] if isinstance(value, list) else value

    for path in FILES * 30:
        request = fake.json(spoil(json.loads(path.read_text())))
        whatsapp.verify(request)
        found = whatsapp.parse(request, "wa")
        assert all(isinstance(one, DeliveryStatus) or one.external_id for one in found)
    for body in (b"", b"[]", b"x", b"\xff", b"[" * 100_000):
        with pytest.raises(AccessDenied, match="no JSON object"):
            whatsapp.verify(whatsapp.sign(WebhookRequest("POST", PUBLIC, {}, body)))


def test_messages_are_read_whole():
    text = read("text")
    assert (text.sender_id, text.sender_name, text.recipient_id) == (TO, "Sheena Nelson", "15550783881")
    assert (text.content, text.external_id) == (TextContent(text="Does it come in another color? é 🙂"), "wamid.first")
    assert text.raw_payload["message"]["text"]
    assert text.sent_at is not None
    assert text.sent_at.year == 2025
    assert read("text_reply").about_id == "wamid.first"
    assert read("text_from_ad").channel_data["whatsapp"]["referral"]["source_type"] == "ad"
    image = read("image")
    assert isinstance(image.content, MediaContent)
    assert (image.content.url, image.content.caption) == (
        "https://graph.facebook.com/v25.0/1003383421387256",
        "My lamp",
    )
    assert [(a.url, a.needs_auth) for a in image.attachments] == [(image.content.url, True)]
    kinds = {name: read(name).content.type for name in ("video", "voice", "document", "sticker")}
    assert list(kinds.values()) == ["video", "audio", "media", "media"]
    assert read("document").content.filename == "invoice é.pdf"  # type: ignore[union-attr]
    place = read("location").content
    assert isinstance(place, LocationContent)
    assert (place.label, round(place.latitude, 2)) == ("Philz Coffee", 37.44)


def test_taps_say_their_label_and_keep_what_they_mean():
    names = ("button", "button_reply", "list_reply", "flow_reply")
    told = {name: (read(name).content, read(name).channel_data["whatsapp"]["reply"]) for name in names}
    assert told["button"] == (TextContent(text="Unsubscribe"), {"type": "button", "id": "UNSUBSCRIBE_PROMOS"})
    assert told["button_reply"] == (TextContent(text="Cancel"), {"type": "button_reply", "id": "cancel-button"})
    assert told["list_reply"][0] == TextContent(text="Priority Mail Express")
    assert told["list_reply"][1]["id"] == "priority_express"
    assert told["flow_reply"][0] == TextContent(text="Sent")
    assert json.loads(told["flow_reply"][1]["response_json"])["color"] == "red"
    assert read("button_reply").about_id == "wamid.first"


def test_edits_revocations_and_reactions_name_what_they_are_about():
    edit, gone = read("edit"), read("revoke")
    assert (edit.type, edit.about_id) == (EventType.EDIT, "wamid.first")
    assert isinstance(edit.content, EditContent)
    assert edit.content.new_content == TextContent(text="Does it come in red?")
    assert read("edit_caption").attachments
    assert (gone.type, gone.about_id, gone.content.type) == (EventType.DELETE, "wamid.lamp", "delete")
    put, taken = read("reaction"), read("reaction_removed")
    assert (put.content.emoji, put.content.removed, put.about_id) == ("👍", False, "wamid.lamp")  # type: ignore[union-attr]
    assert (taken.content.emoji, taken.content.removed) == ("", True)  # type: ignore[union-attr]


def test_people_groups_and_other_numbers():
    group, hidden, both = read("group_text"), read("username_text"), read("phone_and_username")
    assert (group.sender_id, group.address, group.group) == (TO, "group:HBgNMTIwMzYzNDE5MTk5Nzk2", True)
    assert (hidden.sender_id, hidden.sender_name) == ("US.13491208655302741918", "Pablo")
    assert (both.sender_id, both.channel_data["whatsapp"]["user_id"]) == (TO, "US.999")
    assert [(one.sender_id, one.sender_name) for one in items("several")[:3]] == [
        (TO, "Sheena Nelson"),
        ("+16505550000", "Bob"),
        (TO, "Sheena Nelson"),
    ]
    assert isinstance(items("several")[3], DeliveryStatus)


def test_news_for_another_number_is_not_taken_for_this_ones(caplog: pytest.LogCaptureFixture):
    fake = FakeMeta()
    other = made(fake, account="999")
    assert other.parse(fake.text("16505551234", "for the first"), "wa2") == []
    assert "override_callback_uri" in caplog.text


def test_what_there_is_no_content_for_is_visible():
    told = {path.stem: one for path in FILES for one in items(path.stem)[:1] if isinstance(one, InboundMessage)}
    unknown = {
        name: (m.content.kind, m.content.text) for name, m in told.items() if isinstance(m.content, UnknownContent)
    }
    assert unknown == {
        "contacts": ("contacts", "Barbara J. Johnson +1 (415) 555-0829"),
        "order": ("order", "Love these!\n2 x di9ozbzfi4\n1 x nqryix03ez"),
        "system_number_changed": ("system", "User Sheena Nelson changed from 16505551234 to 12195555358"),
        "unsupported": ("unsupported", "poll\nMessage type unknown"),
        "errors": ("errors", "Access denied"),
        "template_status": ("message_template_status_update", None),
        "account_update": ("account_update", None),
        "user_preferences": ("user_preferences", "User requested to stop marketing messages"),
        "app_echo": ("smb_message_echoes", None),
        "status_not_yet_known": ("status_levitating", None),
    }
    assert told["user_preferences"].metadata == {"opt_out": "stop", "opt_out_purpose": "marketing"}
    assert made(FakeMeta()).parse(FakeMeta().json({"object": "page", "entry": []}), "wa")[0].content.kind == "page"  # type: ignore[union-attr]


async def test_reports_move_a_delivery_forward_however_they_arrive():
    fake = FakeMeta()
    whatsapp = made(fake)
    await whatsapp.send(message_to(TO))
    for seed in range(20):
        state = DeliveryState.QUEUED
        for request in fake.disorder(fake.reports(fake.messages[0], "sent", "delivered", "read"), random.Random(seed)):
            (item,) = whatsapp.parse(request, "wa")
            assert isinstance(item, DeliveryStatus)
            assert item.provider_message_id == fake.messages[0].name
            state = forward(state, item.state)
        assert state is DeliveryState.READ
    (failed,) = items("status_failed")
    assert (failed.state, failed.code) == (DeliveryState.FAILED, "131047")
    assert "24 hours" in failed.error
    await whatsapp.aclose()


# -- media ----------------------------------------------------------------------------------------------


async def test_media_is_fetched_in_two_steps_and_the_token_goes_to_meta_only():
    fake = FakeMeta()
    whatsapp = made(fake)
    name = fake.file(b"jpeg bytes")
    got = await whatsapp.fetch_media(Attachment(url=f"https://graph.facebook.com/v25.0/{name}"))
    assert (got.body, got.content_type, got.url) == (
        b"jpeg bytes",
        "image/jpeg",
        f"https://graph.facebook.com/v25.0/{name}",
    )
    for url in (
        "https://graph.facebook.com/v25.0/../me",
        "https://graph.facebook.com/v25.0/a?b=c",
    ):
        with pytest.raises(Refused, match="no media id"):
            await whatsapp.fetch_media(Attachment(url=url))
    await whatsapp.aclose()

    def elsewhere(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "graph.facebook.com":
            return httpx2.Response(200, json={"url": f"https://cdn.example/elsewhere/{name}", "sha256": "0" * 64})
        assert "authorization" not in request.headers
        return httpx2.Response(200, content=b"other bytes", headers={"content-type": "image/jpeg"})

    whatsapp = MetaWhatsAppProvider(fake.whatsapp_options(), transport=httpx2.MockTransport(elsewhere), resolver=public)
    with pytest.raises(BadResponse, match="not the one"):
        await whatsapp.fetch_media(Attachment(url=f"https://graph.facebook.com/v25.0/{name}"))
    await whatsapp.aclose()


# -- in a room ------------------------------------------------------------------------------------------


async def test_a_file_of_the_kits_own_store_goes_out_without_a_public_address():
    fake = FakeMeta()
    async with kit_of(fake) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "wa", metadata={"phone_number": TO})
        kit.channels["wa"].provider.window_s = None  # type: ignore[attr-defined]
        await send_own_files(kit, "r")
        await asyncio.sleep(10)
        (message,) = fake.messages
        assert fake.files[message.body["document"]["id"]] == ("application/pdf", b"the bill")


async def test_a_conversation_with_receipts_reactions_replies_and_a_file():
    fake = FakeMeta()
    async with house(kit_of(fake, WhatsAppOptions(typing=True)), public_url=PUBLIC) as h:
        await post(h, fake.text("16505551234", "where is my lamp", name="wamid.one"))
        (room,) = await h.kit.list_rooms()
        read_it = {
            "messaging_product": "whatsapp",
            "status": "read",
            "message_id": "wamid.one",
            "typing_indicator": {"type": "text"},
        }
        assert fake.actions == [read_it]
        ours = await h.kit.send(room.id, "on its way")
        await asyncio.sleep(3)
        (message,) = fake.messages
        assert message.to == TO
        for emoji in ("👍", "❤", None):
            reaction = {"message_id": message.name, **({"emoji": emoji} if emoji else {})}
            await post(h, fake.message("16505551234", {"type": "reaction", "reaction": reaction}))
            (event,) = [e for e in await h.kit.events(room.id) if e.id == ours.event.id]
            assert list(event.metadata.get("reactions", {})) == ([emoji] if emoji else []), (
                "there is one of each person"
            )
        for request in fake.reports(message, "read", "delivered"):
            await post(h, request)
        assert [record.state for record in await outcome(h.kit, room.id)] == [DeliveryState.READ]
        file = {"id": fake.file(b"the bill", "application/pdf"), "mime_type": "application/pdf", "filename": "bill.pdf"}
        await post(
            h, fake.message("16505551234", {"type": "document", "document": file, "context": {"id": message.name}})
        )
        last = (await h.kit.events(room.id))[-1]
        assert isinstance(last.content, MediaContent)
        assert last.content.url.startswith("blob:")
        assert last.parent_event_id == ours.event.id
        edit = EditContent(target_event_id=ours.event.id, new_content=TextContent(text="it is here"))
        await h.kit.send(room.id, edit)
        await asyncio.sleep(3)
        assert fake.messages[-1].body["text"]["body"] == "Correction: it is here"


@ONCE
async def test_exactly_one_effect(tmp_path: Path):
    names = [path.stem for path in FILES]
    await exactly_once(
        lambda clock: made(FakeMeta()),
        lambda channel_id, whatsapp: WhatsAppChannel(channel_id, provider=whatsapp),
        golden(VENDOR, *(name for name in names if name not in ("text", "image", "revoke"))),
        before=golden(VENDOR, "text", "image"),
        folder=tmp_path,
    )
