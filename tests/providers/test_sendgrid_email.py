from __future__ import annotations

import base64
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sendgrid.helpers.eventwebhook import EventWebhook, EventWebhookHeader
from sendgrid.helpers.mail import (
    Attachment,
    Content,
    CustomArg,
    Disposition,
    FileContent,
    FileName,
    FileType,
    From,
    Header,
    Mail,
    ReplyTo,
    To,
)

from roomkit import RoomKit
from roomkit.channels import EmailChannel
from roomkit.errors import (
    AccessDenied,
    BadResponse,
    ConfigError,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.models.content import (
    CompositeContent,
    MediaContent,
    RichContent,
    TemplateContent,
    TextContent,
    UnknownContent,
)
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.models.room import Assurance
from roomkit.providers.sendgrid.email import SendGridProvider, provider
from roomkit.testing import VirtualClock, check_message_provider
from roomkit.testing.messages import message_to
from roomkit.testing.vendors.sendgrid import FakeSendGrid
from tests.providers.exactly_once import ONCE, exactly_once, golden

ADA = "ada@x.example"
PDF = b"%PDF-1.4\r\n\x00\x01\n--xYzZ\r\n\xff"


def made(fake: FakeSendGrid, **more: Any) -> SendGridProvider:
    return SendGridProvider(fake.options(**more), clock=fake.clock, transport=fake.transport())


def one(provider: SendGridProvider, request: WebhookRequest) -> InboundMessage:
    provider.verify(request)
    (item,) = provider.parse(request, "email")
    assert isinstance(item, InboundMessage)
    return item


async def send_failing(fake: FakeSendGrid, recipient: str = ADA, content: Any = "x", **more: Any) -> ProviderError:
    mine = made(fake, **more)
    with pytest.raises(ProviderError) as caught:
        await mine.send(message_to(recipient, content))
    await mine.aclose()
    return caught.value


async def test_conformance():
    fake = FakeSendGrid()
    inbound = [
        fake.letter(f"Ada <{ADA}>", "hello é"),
        fake.letter(ADA, html="<p>hi</p>", files=[("a.pdf", "application/pdf", PDF)]),
        *golden("sendgrid"),
    ]
    bare = [replace(r, headers={"content-type": r.headers["content-type"]}) for r in inbound]
    await check_message_provider(
        lambda: made(fake),
        inbound=bare,
        outgoing=message_to(ADA),
        secrets=[fake.api_key, fake.options().signing_key or ""],
        without_secret=lambda: made(fake, verification_keys=()),
    )


async def test_a_letter_arrives_with_thread_files_and_the_mark_of_its_events():
    fake = FakeSendGrid()
    mine = made(fake, reply_to="help+{id}@in.shop.example", list_unsubscribe="https://shop.example/u")
    picture = MediaContent(url="data:image/png;base64,iVBORw==", mime_type="image/png", filename="../a b.png")
    rich = RichContent(text="Hello **Ada** <script>x</script>")
    about = ("letter-1@x.example",)
    message = message_to(
        ADA, CompositeContent(parts=(rich, picture)), about_ids=about, extra={"subject": "Re: Lamp\nBcc: x@y"}
    )
    result = await mine.send(message)
    (letter,) = fake.letters
    mark = letter.message_id.partition("@")[0]
    assert (result.provider_message_id, result.reference) == (letter.id, letter.message_id)
    assert letter.body["from"] == {"email": fake.address, "name": "Shop"}
    assert letter.body["reply_to"] == {"email": f"help+{mark}@in.shop.example"}
    assert letter.body["subject"] == "Re: Lamp Bcc: x@y"
    assert letter.body["personalizations"][0]["custom_args"] == {"roomkit_id": mark}
    assert letter.headers["In-Reply-To"] == "<letter-1@x.example>"
    assert letter.headers["References"] == "<letter-1@x.example>"
    assert letter.headers["List-Unsubscribe"] == "<https://shop.example/u>"
    html = letter.body["content"][1]["value"]
    assert "<b>Ada</b>" in html
    assert "<script" not in html
    (file,) = letter.body["attachments"]
    assert (file["filename"], base64.b64decode(file["content"])) == ("a b.png", b"\x89PNG")
    again = await mine.send(message)
    assert again.reference == result.reference, "a repeated attempt is the same letter"
    for number in range(2):
        await mine.send(message_to(ADA, "news", idempotency_key=f"r:{number}:c:0"))
    begun = {one.headers["References"] for one in fake.letters[-2:]}
    assert len(begun) == 1, "letters that answer nothing are kept together"
    assert begun.pop().startswith("<rt")
    await mine.aclose()


async def test_the_vendors_own_package_writes_the_same_request():
    fake = FakeSendGrid()
    mine = made(fake, reply_to="in@shop.example")
    file = MediaContent(url="data:text/plain;base64,aGk=", mime_type="text/plain", filename="a.txt")
    ours = await mine.body(
        message_to(ADA, CompositeContent(parts=(TextContent(text="hi"), file)), extra={"subject": "S"})
    )
    theirs = Mail(From(fake.address, "Shop"), To(ADA), "S", Content("text/plain", "hi"))
    theirs.reply_to = ReplyTo("in@shop.example")
    theirs.attachment = Attachment(
        FileContent("aGk="), FileName("a.txt"), FileType("text/plain"), Disposition("attachment")
    )
    for name, value in ours["headers"].items():
        theirs.header = Header(name, value)
    theirs.personalizations[0].add_custom_arg(
        CustomArg("roomkit_id", ours["personalizations"][0]["custom_args"]["roomkit_id"])
    )
    written = theirs.get()
    headers = written["personalizations"][0].pop("headers", None) or written.pop("headers")
    assert {**written, "headers": headers} == ours
    await mine.aclose()


async def test_templates_go_by_their_id():
    fake = FakeSendGrid()
    mine = made(fake)
    assert EmailChannel("email", provider=mine).capabilities.templates
    await mine.send(message_to(ADA, TemplateContent(template_id="d-1", parameters={"name": "Ada"})))
    body = fake.letters[0].body
    assert body["template_id"] == "d-1"
    assert body["personalizations"][0]["dynamic_template_data"] == {"name": "Ada"}
    await mine.aclose()


@pytest.mark.parametrize(
    "status, kind, retryable",
    [
        (400, Refused, False),
        (401, Unauthorized, False),
        (403, Unauthorized, False),
        (413, Refused, False),
        (429, RateLimited, True),
        (500, Unavailable, True),
        (503, Unavailable, True),
    ],
)
async def test_refusals_say_who_must_act(status: int, kind: type[ProviderError], retryable: bool):
    fake = FakeSendGrid()
    fake.mishaps.refuse(status, {"errors": [{"message": "said so", "field": "from.email"}]}, retry_after=7)
    error = await send_failing(fake)
    assert (type(error), error.retryable, error.retry_after, error.code) == (kind, retryable, 7, "from.email")
    assert "said so" in str(error)
    assert fake.letters == []


async def test_a_rate_limit_is_waited_for_until_its_reset():
    fake = FakeSendGrid()
    reset = str(int(fake.clock.now().timestamp()) + 42)
    answer = httpx2.Response(429, json={"errors": []}, headers={"x-ratelimit-reset": reset})
    mine = SendGridProvider(fake.options(), clock=fake.clock, transport=httpx2.MockTransport(lambda _: answer))
    with pytest.raises(RateLimited) as caught:
        await mine.send(message_to(ADA))
    assert caught.value.retry_after == 42
    await mine.aclose()


async def test_no_answer_is_ambiguous():
    fake = FakeSendGrid()
    fake.mishaps.hang()
    error = await send_failing(fake)
    assert isinstance(error, ProviderTimeout)
    assert error.ambiguous
    fake.mishaps.lose_answer()
    error = await send_failing(fake)
    assert isinstance(error, Unavailable)
    assert error.ambiguous
    assert len(fake.letters) == 2, "both were accepted"
    nameless = SendGridProvider(fake.options(), transport=httpx2.MockTransport(lambda _: httpx2.Response(202)))
    with pytest.raises(BadResponse):
        await nameless.send(message_to(ADA))
    await nameless.aclose()


async def test_a_file_that_does_not_come_leaves_no_doubt_about_the_letter():
    fake = FakeSendGrid()

    async def public(host: str, port: int, /) -> list[str]:
        return ["93.184.215.14"]

    def broken(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("gone", request=request)

    mine = SendGridProvider(fake.options(), transport=httpx2.MockTransport(broken), resolver=public)
    with pytest.raises(ProviderError) as caught:
        await mine.send(message_to(ADA, MediaContent(url="https://files.example/a.png", mime_type="image/png")))
    assert (caught.value.retryable, caught.value.ambiguous) == (True, False)
    await mine.aclose()


async def test_what_cannot_be_sent_is_told_before_sending():
    fake = FakeSendGrid()
    big = MediaContent(url="data:image/png;base64," + "A" * 4000, mime_type="image/png")
    assert (await send_failing(fake, content=big, max_bytes=100)).code == "too_large"
    assert (await send_failing(fake, "nobody")).code == "invalid_address"
    assert (await send_failing(fake, "a@x.example\r\nBcc: b@y.example")).code == "invalid_address"
    assert (await send_failing(fake, content=UnknownContent(kind="poll"))).code is None
    gone = MediaContent(url="blob:gone", mime_type="image/png")
    assert (await send_failing(fake, content=gone)).code == "no_file"
    local = MediaContent(url="http://127.0.0.1/a.png", mime_type="image/png")
    assert isinstance(await send_failing(fake, content=local), Refused)
    nobody = made(fake, from_address=None)
    with pytest.raises(ConfigError, match="from_address"):
        await nobody.send(message_to(ADA))
    await nobody.aclose()
    assert fake.letters == []


def test_configuration_errors_name_the_variables(monkeypatch: pytest.MonkeyPatch):
    fake = FakeSendGrid()
    for name in ("API_KEY", "FROM", "REPLY_TO", "WEBHOOK_KEY", "PARSE_PASSWORD", "SIGNING_KEY"):
        monkeypatch.delenv(f"SENDGRID_{name}", raising=False)
    with pytest.raises(ConfigError, match="SENDGRID_API_KEY"):
        provider()
    monkeypatch.setenv("SENDGRID_API_KEY", "SG.planted-key")
    monkeypatch.setenv("SENDGRID_FROM", "help@shop.example")
    monkeypatch.setenv("SENDGRID_WEBHOOK_KEY", f"{fake.verification_key}, {fake.verification_key}")
    found = provider()
    assert (found.options.mail.from_address, len(found.options.verification_keys)) == ("help@shop.example", 2)
    assert "planted" not in repr(found.options)
    with pytest.raises(ConfigError, match="verification key"):
        provider(verification_keys=("bm8ga2V5",))


async def test_signatures_agree_with_the_vendors_own_code_in_both_directions():
    fake = FakeSendGrid()
    mine = made(fake)
    checker = EventWebhook(fake.verification_key)
    for text in ("hi", "é€😀", '"\\ + & =', ""):
        theirs = fake.events({"event": text})
        mine.verify(theirs)
        ours = mine.sign(replace(theirs, headers={"content-type": "application/json"}))
        header = (
            ours.headers[EventWebhookHeader.SIGNATURE.lower()],
            ours.headers[EventWebhookHeader.TIMESTAMP.lower()],
        )
        assert checker.verify_signature(ours.body.decode(), *header)
        assert not checker.verify_signature(ours.body.decode() + " ", *header)


async def test_a_letter_without_a_signature_needs_the_password_of_the_url():
    fake = FakeSendGrid()
    mine = made(fake, parse_password="sendgrid:a long password")
    letter, events = fake.letter(ADA, "hello"), fake.events({"event": "delivered"})
    token = base64.b64encode(b"sendgrid:a long password").decode()
    bare = {"content-type": letter.headers["content-type"]}
    mine.verify(replace(letter, headers={**bare, "authorization": f"Basic {token}"}))
    mine.verify(events)
    for headers in (bare, {**bare, "authorization": "Basic eA=="}, {**bare, "authorization": f"Basic {token}x"}):
        with pytest.raises(AccessDenied):
            mine.verify(replace(letter, headers=headers))
    with pytest.raises(AccessDenied, match="neither signed"):
        mine.verify(replace(events, headers={"content-type": "application/json", "authorization": f"Basic {token}"}))
    with pytest.raises(AccessDenied, match="signature"):
        mine.verify(replace(letter, body=letter.body + b" "))


async def test_letters_are_read_whole():
    fake = FakeSendGrid()
    mine = made(fake)
    text = "Danke schön.\r\n\r\nAm 01.01.2030 um 10:00 schrieb Shop <help@shop.example>:\r\n> Guten Tag"
    files = [("bill.pdf", "application/pdf", PDF)]
    headers = {"Subject": "=?utf-8?q?Re=3A_Lamp=C3=A9?=", "In-Reply-To": "<other@y.example>"}
    item = one(
        mine, fake.letter(f'"Byron, Ada" <{ADA.upper()}>', text, files=files, headers=headers, charset="iso-8859-1")
    )
    assert (item.sender_id, item.sender_name, item.recipient_id) == (ADA, "Byron, Ada", fake.address)
    assert isinstance(item.content, CompositeContent)
    said, file = item.content.parts
    assert said == TextContent(text="Danke schön.")
    assert isinstance(file, MediaContent)
    assert (file.filename, file.mime_type, base64.b64decode(file.url.partition(",")[2])) == (
        "bill.pdf",
        "application/pdf",
        PDF,
    )
    assert item.attachments[0].url == file.url
    assert item.channel_data["subject"] == "Re: Lampé"
    assert item.channel_data["quoted"].endswith("> Guten Tag")
    assert item.about_id == "other@y.example"
    assert item.raw_payload["fields"]["SPF"] == "pass"
    assert item.assurance is Assurance.VERIFIED


async def test_a_sender_is_only_as_sure_as_its_signature():
    fake = FakeSendGrid()
    mine = made(fake)
    assert one(mine, fake.letter(ADA, "x", proven=False)).assurance is Assurance.CLAIMED
    # The signature of one domain says nothing of an address in another.
    forged = fake.form(
        {
            "headers": b"From: ada@x.example\n",
            "text": b"x",
            "dkim": b"{@evil.example : pass}",
            "SPF": b"pass",
            "envelope": b'{"from": "a@evil.example"}',
        }
    )
    assert one(mine, forged).assurance is Assurance.CLAIMED


async def test_the_samples_of_the_vendors_package_are_read():
    found = find_spec("sendgrid")
    assert found is not None
    assert found.origin is not None
    samples = Path(found.origin).parent / "helpers/inbound/sample_data"
    fake = FakeSendGrid()
    mine = made(fake)
    for name in ("default_data.txt", "raw_data.txt", "raw_data_with_attachments.txt"):
        data = (samples / name).read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        boundary = data.partition(b"\r\n")[0].decode().removeprefix("--")
        item = one(mine, fake.signed(data, f"multipart/form-data; boundary={boundary}"))
        parts = item.content.parts if isinstance(item.content, CompositeContent) else (item.content,)
        assert (item.sender_id, parts[0].type) == ("test@example.com", "text"), name
        assert "SendGrid" in item.model_dump_json()
        if "attachments" in name:
            assert len(item.attachments) == 1


async def test_events_move_states_and_the_rest_is_seen():
    fake = FakeSendGrid()
    mine = made(fake)
    states = {
        "processed": DeliveryState.SENT,
        "deferred": DeliveryState.SENT,
        "delivered": DeliveryState.DELIVERED,
        "open": DeliveryState.READ,
        "click": DeliveryState.READ,
        "bounce": DeliveryState.FAILED,
        "dropped": DeliveryState.FAILED,
    }
    for name, state in states.items():
        (item,) = mine.parse(mine.sign(golden("sendgrid", name)[0]), "email")
        assert isinstance(item, DeliveryStatus)
        assert item.state is state
        assert item.provider_message_id in {"14c5d75ce93", "24c5d75ce93", "34c5d75ce93"}
    (bounce,) = mine.parse(golden("sendgrid", "bounce")[0], "email")
    assert isinstance(bounce, DeliveryStatus)
    assert (bounce.error, bounce.code) == ("500 unknown recipient", "5.0.0")
    for name, said in (
        ("spamreport", "stop"),
        ("unsubscribe", "stop"),
        ("group_resubscribe", None),
        ("account_status_change", None),
    ):
        (item,) = mine.parse(golden("sendgrid", name)[0], "email")
        assert isinstance(item, InboundMessage)
        assert (item.metadata.get("opt_out"), item.content.type, item.addressed_to) == (said, "unknown", ())
    batch = mine.parse(golden("sendgrid", "batch")[0], "email")
    assert [type(item) for item in batch] == [DeliveryStatus, DeliveryStatus, DeliveryStatus, InboundMessage]
    machine = {**json.loads(golden("sendgrid", "open")[0].body)[0], "sg_machine_open": True}
    (item,) = mine.parse(fake.events(machine), "email")
    assert isinstance(item, DeliveryStatus)
    assert item.state is DeliveryState.DELIVERED, "a mail server looked, not a person"


@ONCE
async def test_exactly_one_effect(tmp_path: Path):
    fake = FakeSendGrid()
    letters = [
        fake.letter(ADA, "one"),
        fake.letter("bob@y.example", html="<p>two</p>", files=[("a.txt", "text/plain", b"x")]),
        fake.letter(ADA, "I am away", headers={"Auto-Submitted": "auto-replied"}),
    ]
    bare = [replace(one, headers={"content-type": one.headers["content-type"]}) for one in letters]

    def make(clock: VirtualClock) -> SendGridProvider:
        return SendGridProvider(fake.options(), clock=clock, transport=fake.transport())

    await exactly_once(
        make, lambda cid, p: EmailChannel(cid, provider=p), [*golden("sendgrid"), *bare], folder=tmp_path
    )


async def test_an_answer_finds_its_room_and_events_their_letter():
    fake = FakeSendGrid()
    mine = made(fake, reply_to="help+{id}@in.shop.example")
    kit = RoomKit(clock=fake.clock)
    kit.register_channel(EmailChannel("email", provider=mine))

    @kit.on_message
    async def reply(ctx: Any, message: Any) -> str:
        return f"You said: {message.text}"

    async with kit:
        first = await kit.process_inbound(one(mine, fake.letter(ADA, "a lamp, please", headers={"Subject": "Lamp"})))
        await first.settled()
        (letter,) = fake.letters
        assert (letter.to, letter.body["subject"], letter.text) == (ADA, "Re: Lamp", "You said: a lamp, please")
        assert letter.headers["In-Reply-To"] == "<letter-1@x.example>"
        assert letter.headers["Auto-Submitted"] == "auto-replied"
        for report in fake.reports(letter, "processed", "delivered", "open"):
            for item in mine.parse(report, "email"):
                assert isinstance(item, DeliveryStatus)
                await kit.delivery_status(item)
        (record,) = [r for r in await kit.deliveries(first.room_id, 0, 50) if r.channel_id == "email"]
        assert record.state is DeliveryState.READ
        # A second conversation of the same person, begun by us.
        await kit.create_room("bill", channels=[])
        await kit.attach_channel(
            "bill", "email", metadata={"email_address": ADA, "address": ADA, "subject": "Your bill"}
        )
        sent = await kit.send("bill", "Here is your bill")
        await sent.settled()
        bill = fake.letters[-1]
        assert bill.body["subject"] == "Your bill"
        for number, how in enumerate(
            (
                {"In-Reply-To": f"<{bill.message_id}>"},
                {"References": f"<{letter.message_id}> <{bill.message_id}>"},
                {"To": bill.body["reply_to"]["email"]},
            )
        ):
            item = one(mine, fake.letter(ADA, f"about the bill {number}", headers=how))
            result = await kit.process_inbound(item)
            await result.settled()
            assert result.room_id == "bill", how
            assert result.event is not None
            assert result.event.parent_event_id is not None
        # Whoever else writes under the same thread opens a room of their own.
        stranger = one(mine, fake.letter("eve@z.example", "let me in", headers={"In-Reply-To": f"<{bill.message_id}>"}))
        result = await kit.process_inbound(stranger)
        assert result.room_id not in {"bill", first.room_id}
