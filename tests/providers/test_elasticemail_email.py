from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ElasticEmail import (
    BodyContentType,
    BodyPart,
    EmailContent,
    EmailSend,
    EmailTransactionalMessageData,
    MessageAttachment,
    TransactionalRecipient,
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
from roomkit.models.content import CompositeContent, MediaContent, TemplateContent, TextContent
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.models.room import Assurance
from roomkit.providers.elasticemail.email import ElasticEmailProvider, provider
from roomkit.providers.elasticemail.inbound import ElasticEmailKeys
from roomkit.testing import VirtualClock, check_message_provider
from roomkit.testing.messages import message_to
from roomkit.testing.vendors.elasticemail import FakeElasticEmail
from tests.providers.exactly_once import ONCE, exactly_once, golden

ADA = "ada@x.example"


def made(fake: FakeElasticEmail, **more: Any) -> ElasticEmailProvider:
    return ElasticEmailProvider(fake.options(**more), clock=fake.clock, transport=fake.transport())


def one(provider: ElasticEmailProvider, request: WebhookRequest) -> InboundMessage:
    provider.verify(request)
    (item,) = provider.parse(request, "email")
    assert isinstance(item, InboundMessage)
    return item


async def send_failing(fake: FakeElasticEmail, content: Any = "x", **more: Any) -> ProviderError:
    mine = made(fake, **more)
    with pytest.raises(ProviderError) as caught:
        await mine.send(message_to(ADA, content))
    await mine.aclose()
    return caught.value


async def test_conformance():
    fake = FakeElasticEmail()
    bare = [
        replace(fake.letter(ADA, "hello é", signed=True), headers={"content-type": "application/x-www-form-urlencoded"})
    ]
    await check_message_provider(
        lambda: made(fake),
        inbound=[*golden("elasticemail"), *bare],
        outgoing=message_to(ADA),
        secrets=[fake.api_key, fake.secret, fake.token],
        without_secret=lambda: made(fake, signing_secrets=(), webhook_token=None),
    )


async def test_the_vendors_own_types_write_the_same_request_and_read_the_answer():
    fake = FakeElasticEmail()
    mine = made(fake, reply_to="help+{id}@in.shop.example")
    file = MediaContent(url="data:text/plain;base64,aGk=", mime_type="text/plain", filename="a.txt")
    content = CompositeContent(parts=(TextContent(text="hi é"), file))
    ours = await mine.body(message_to(ADA, content, extra={"subject": "S"}))
    theirs = EmailTransactionalMessageData(
        Recipients=TransactionalRecipient(To=[ADA]),
        Content=EmailContent(
            Body=[BodyPart(ContentType=BodyContentType.PLAINTEXT, Content="hi é", Charset="utf-8")],
            Attachments=[MessageAttachment(BinaryContent="aGk=", Name="a.txt", ContentType="text/plain", Size=2)],
            Headers=ours["Content"]["Headers"],
            From=f"Shop <{fake.address}>",
            ReplyTo=ours["Content"]["ReplyTo"],
            Subject="S",
        ),
    )
    assert json.loads(theirs.to_json()) == ours
    async with httpx2.AsyncClient(transport=fake.transport(), headers={"x-elasticemail-apikey": fake.api_key}) as http:
        answer = await http.post("https://api.elasticemail.com/v4/emails/transactional", json=ours)
    read = EmailSend.from_json(answer.text)
    assert read is not None
    assert (read.message_id, read.transaction_id) == (fake.letters[0].id, fake.letters[0].transaction)
    await mine.aclose()


async def test_templates_go_by_their_name():
    fake = FakeElasticEmail()
    mine = made(fake, pool="mine")
    assert EmailChannel("email", provider=mine).capabilities.templates
    await mine.send(message_to(ADA, TemplateContent(template_id="welcome", parameters={"name": "Ada"})))
    assert fake.letters[0].content["TemplateName"] == "welcome"
    assert fake.letters[0].content["Merge"] == {"name": "Ada"}
    assert fake.letters[0].body["Options"] == {"PoolName": "mine"}
    await mine.aclose()


@pytest.mark.parametrize(
    "status, kind, retryable",
    [
        (400, Refused, False),
        (401, Unauthorized, False),
        (402, Refused, False),
        (429, RateLimited, True),
        (500, Unavailable, True),
        (503, Unavailable, True),
    ],
)
async def test_refusals_say_who_must_act(status: int, kind: type[ProviderError], retryable: bool):
    fake = FakeElasticEmail()
    fake.mishaps.refuse(status, {"Error": "said so"}, retry_after=7)
    error = await send_failing(fake)
    assert (type(error), error.retryable, error.retry_after) == (kind, retryable, 7)
    assert "said so" in str(error)
    assert fake.letters == []


async def test_no_answer_is_ambiguous():
    fake = FakeElasticEmail()
    fake.mishaps.hang()
    error = await send_failing(fake)
    assert isinstance(error, ProviderTimeout)
    assert error.ambiguous
    fake.mishaps.lose_answer()
    assert (await send_failing(fake)).ambiguous
    assert len(fake.letters) == 2, "both were accepted"
    nameless = httpx2.MockTransport(lambda _: httpx2.Response(200, json=[]))
    mine = ElasticEmailProvider(fake.options(), transport=nameless)
    with pytest.raises(BadResponse):
        await mine.send(message_to(ADA))
    await mine.aclose()
    big = MediaContent(url="data:image/png;base64," + "A" * 4000, mime_type="image/png")
    assert (await send_failing(fake, big, max_bytes=100)).code == "too_large"
    assert isinstance(await send_failing(fake, api_key="a wrong key"), Unauthorized)


def test_configuration_errors_name_the_variables(monkeypatch: pytest.MonkeyPatch):
    for name in ("API_KEY", "FROM", "REPLY_TO", "WEBHOOK_TOKEN", "SIGNING_SECRET"):
        monkeypatch.delenv(f"ELASTICEMAIL_{name}", raising=False)
    with pytest.raises(ConfigError, match="ELASTICEMAIL_API_KEY"):
        provider()
    monkeypatch.setenv("ELASTICEMAIL_API_KEY", "a planted key")
    with pytest.raises(ConfigError, match="ELASTICEMAIL_WEBHOOK_TOKEN"):
        provider().sign(WebhookRequest("POST", "https://x.example/", {}, b""))
    monkeypatch.setenv("ELASTICEMAIL_WEBHOOK_TOKEN", "short")
    with pytest.raises(ConfigError, match="16 characters"):
        provider()
    monkeypatch.setenv("ELASTICEMAIL_WEBHOOK_TOKEN", "long enough for a token")
    assert "planted" not in repr(provider().options)
    assert "long enough" not in repr(provider().options)
    with pytest.raises(ConfigError, match="signed parts"):
        provider(signed=("timestamp",))


async def test_what_is_signed_can_be_told_where_the_vendor_does_not_say_it():
    fake = FakeElasticEmail()
    mine = made(fake, signed=("id", "body"), webhook_token=None)
    notice = fake.notice({"status": "Sent", "messageid": "m"})
    with pytest.raises(AccessDenied, match="signature"):
        mine.verify(notice)
    signature = hmac.new(fake.secret.encode(), b"1." + notice.body, hashlib.sha256).hexdigest()
    mine.verify(replace(notice, headers={**notice.headers, "x-elasticemail-signature": f"v1={signature}"}))


async def test_what_is_not_signed_needs_the_token_and_says_nothing_beside_it():
    fake = FakeElasticEmail()
    mine = made(fake)
    letter = fake.letter(ADA, "hello")
    mine.verify(letter)
    for url in (fake.webhook_url, f"{fake.webhook_url}?token=", f"{fake.webhook_url}?token=x", letter.url + "x"):
        with pytest.raises(AccessDenied, match="token"):
            mine.verify(replace(letter, url=url))
    with pytest.raises(AccessDenied):
        made(fake, webhook_token=None).verify(letter)
    event = fake.asked({"status": "Error", "messageid": "m", "category": "NoMailbox"})
    mine.verify(event)
    (status,) = mine.parse(event, "email")
    assert isinstance(status, DeliveryStatus)
    assert (status.state, status.code, status.provider_message_id) == (DeliveryState.FAILED, "NoMailbox", "m")
    assert fake.token not in status.model_dump_json()
    # What is signed is the body: a signed request made into another one says nothing of its query.
    notice = fake.notice({"status": "Sent", "messageid": "m"})
    turned = replace(notice, method="GET", url=f"{notice.url}?status=Error&messageid=other")
    mine.verify(turned)
    (status,) = mine.parse(turned, "email")
    assert isinstance(status, DeliveryStatus)
    assert (status.state, status.provider_message_id) == (DeliveryState.DELIVERED, "m")
    tried_out = fake.asked({})
    mine.verify(tried_out)
    assert mine.parse(tried_out, "email") == [], "the request with which a webhook is saved says nothing"


async def test_letters_are_read_whole():
    fake = FakeElasticEmail()
    mine = made(fake, trusted_servers=("mx.inbound.elasticemail.com",))
    headers = {"Authentication-Results": "mx.inbound.elasticemail.com; dmarc=pass header.from=x.example"}
    text = "Yes.\r\n\r\nOn Tue, Shop <help@shop.example> wrote:\r\n> well?"
    request = fake.letter(
        f'"Ada Byron" <{ADA}>', text, html="<p>Yes.</p>", files=[("bill.pdf", b"%PDF")], headers=headers
    )
    item = one(mine, request)
    assert (item.sender_id, item.sender_name, item.assurance) == (ADA, "Ada Byron", Assurance.VERIFIED)
    assert isinstance(item.content, CompositeContent)
    said, file = item.content.parts
    assert said == TextContent(text="Yes.")
    assert isinstance(file, MediaContent)
    assert (file.filename, file.mime_type, base64.b64decode(file.url.partition(",")[2])) == (
        "bill.pdf",
        "application/pdf",
        b"%PDF",
    )
    assert item.channel_data["html"] == "<p>Yes.</p>"
    assert "att1_content" not in item.raw_payload["fields"]
    bare = fake.tokened(
        "POST", b"from_email=ada%40x.example&from_name=Ada&body_text=hi", "application/x-www-form-urlencoded"
    )
    item = one(mine, bare)
    assert (item.sender_id, item.sender_name, item.content) == (ADA, "Ada", TextContent(text="hi"))
    assert item.assurance is Assurance.CLAIMED


async def test_notifications_move_states_and_the_rest_is_seen():
    mine = made(FakeElasticEmail())
    states = {
        "sent": DeliveryState.DELIVERED,
        "opened": DeliveryState.READ,
        "clicked": DeliveryState.READ,
        "error": DeliveryState.FAILED,
    }
    for name, state in states.items():
        (item,) = mine.parse(golden("elasticemail", name)[0], "email")
        assert isinstance(item, DeliveryStatus)
        assert item.state is state
    for name, said in (("abuse", "stop"), ("unsubscribed", "stop"), ("tomorrow", None)):
        (item,) = mine.parse(golden("elasticemail", name)[0], "email")
        assert isinstance(item, InboundMessage)
        assert (item.sender_id, item.metadata.get("opt_out"), item.content.type) == (ADA, said, "unknown")


@ONCE
async def test_exactly_one_effect(tmp_path: Path):
    fake = FakeElasticEmail()
    letters = [fake.letter(ADA, "one"), fake.letter("bob@y.example", html="<p>two</p>", files=[("a.txt", b"x")])]
    bare = [replace(one, url=fake.webhook_url, query={}) for one in letters]

    def make(clock: VirtualClock) -> ElasticEmailProvider:
        return ElasticEmailProvider(fake.options(), clock=clock, transport=fake.transport())

    hooks = [*golden("elasticemail"), *bare]
    await exactly_once(make, lambda cid, p: EmailChannel(cid, provider=p), hooks, folder=tmp_path)


async def test_an_answer_finds_its_room_though_the_vendor_names_the_letter():
    fake = FakeElasticEmail()
    mine = made(fake, reply_to="help+{id}@in.shop.example")
    kit = RoomKit(clock=fake.clock)
    kit.register_channel(EmailChannel("email", provider=mine))
    async with kit:
        for name in ("lamp", "bill"):
            await kit.create_room(name, channels=[])
            await kit.attach_channel(name, "email", metadata={"email_address": ADA, "address": ADA, "subject": name})
            await (await kit.send(name, f"about the {name}")).settled()
        lamp, bill = fake.letters
        for room, letter in (("lamp", lamp), ("bill", bill), ("lamp", lamp)):
            answer = fake.letter(ADA, f"the {room}, yes", to=letter.content["ReplyTo"])
            result = await kit.process_inbound(one(mine, answer))
            assert result.room_id == room
        for report in fake.reports(bill, "Sent", "Opened", "Sent"):
            for status in mine.parse(report, "email"):
                assert isinstance(status, DeliveryStatus)
                await kit.delivery_status(status)
        assert (await kit.deliveries("bill"))[0].state is DeliveryState.READ
        assert (await kit.deliveries("lamp"))[0].state is DeliveryState.SENT


async def test_an_empty_secret_opens_nothing():
    fake = FakeElasticEmail()
    notice = fake.notice({"status": "Sent", "messageid": "m"})
    stamp = notice.headers["x-elasticemail-timestamp"].encode()
    signature = hmac.new(b"", stamp + b"." + notice.body, hashlib.sha256).hexdigest()
    forged = replace(notice, headers={**notice.headers, "x-elasticemail-signature": f"v1={signature}"})
    with pytest.raises(AccessDenied, match="neither secret nor token"):
        made(fake, signing_secrets=("",), webhook_token=None).verify(forged)
    with pytest.raises(AccessDenied, match="signature does not match"):
        made(fake).verify(forged)
    with pytest.raises(AccessDenied, match="neither secret nor token"):
        ElasticEmailKeys((), "", ("timestamp", "body"), fake.clock, 300.0).verify(fake.letter(ADA, "hello"))
