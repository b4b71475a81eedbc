from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel
from sinch.domains.sms.models.v1.shared.media_request import MediaRequest
from sinch.domains.sms.models.v1.shared.text_request import TextRequest
from sinch.domains.sms.models.v1.shared.text_response import TextResponse
from sinch.domains.sms.sinch_events.v1 import SmsSinchEvent

from roomkit import SMSChannel
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
from roomkit.models.content import CompositeContent, MediaContent, RichContent, TextContent, UnknownContent
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest, forward
from roomkit.providers.sinch.sms import SinchSMSProvider, provider
from roomkit.runtime import monotonic
from roomkit.testing import VirtualClock, check_message_provider
from roomkit.testing.messages import binding_of, context_of, event_of, message_to
from roomkit.testing.vendors.sinch import FakeSinch
from tests.providers.exactly_once import GOLDEN, ONCE, exactly_once, golden
from tests.providers.vendor_calls import public

TO = "+15550123"
PICTURE = MediaContent(url="https://x.example/a.png", mime_type="image/png")


def made(fake: FakeSinch, **more: Any) -> SinchSMSProvider:
    return SinchSMSProvider(fake.options(**more), clock=VirtualClock(), transport=fake.transport(), resolver=public)


async def failing(fake: FakeSinch, recipient: str = TO, content: Any = "x", **more: Any) -> ProviderError:
    sinch = made(fake, **more)
    with pytest.raises(ProviderError) as caught:
        await sinch.send(message_to(recipient, content))
    await sinch.aclose()
    return caught.value


def read(name: str) -> Any:
    (item,) = made(FakeSinch()).parse(golden("sinch", name)[0], "sms")
    return item


async def test_conformance():
    fake = FakeSinch()
    await check_message_provider(
        lambda: made(fake),
        inbound=golden("sinch"),
        outgoing=message_to(TO),
        secrets=[fake.token, fake.secret],
        without_secret=lambda: made(fake, webhook_secrets=()),
    )


@ONCE
async def test_exactly_one_effect(tmp_path: Path):
    fake = FakeSinch()
    await exactly_once(
        lambda clock: SinchSMSProvider(fake.options(), clock=clock, transport=fake.transport(), resolver=public),
        lambda cid, p: SMSChannel(cid, provider=p),
        golden("sinch"),
        folder=tmp_path,
    )


def checked_by(model: type[BaseModel], body: Any) -> dict[str, Any]:
    """The vendor's own model takes the body and writes the same again."""
    return model.model_validate(body).model_dump(mode="json", by_alias=True, exclude_none=True)


async def test_a_text_arrives_as_the_vendors_own_type():
    fake = FakeSinch()
    sinch = made(fake, callback_url="https://rooms.example/webhooks/sms")
    result = await sinch.send(message_to(TO, RichContent(text="**look** é")))
    (sent,) = fake.messages
    assert (sent.to, sent.sender, sent.text, sent.media) == (TO, fake.number, "look é", None)
    assert checked_by(TextRequest, sent.body) == sent.body
    assert sent.body["callback_url"] == "https://rooms.example/webhooks/sms"
    assert (result.success, result.state, result.provider_message_id) == (True, DeliveryState.SENT, sent.id)
    await sinch.aclose()


async def test_files_go_one_by_one_with_the_vendors_own_type():
    fake = FakeSinch()
    sinch = made(fake)
    channel = SMSChannel("sms", provider=sinch)
    binding = binding_of(channel, "r", phone_number=TO)
    content = CompositeContent(parts=(TextContent(text="two cats"), PICTURE, PICTURE))
    result = await channel.deliver(event_of("r", content), binding, context_of(binding))
    assert result.success
    assert [(m.text, m.media) for m in fake.messages] == [("two cats", None), ("", PICTURE.url), ("", PICTURE.url)]
    assert checked_by(MediaRequest, fake.messages[1].body) == fake.messages[1].body
    await sinch.send(message_to(TO, PICTURE.model_copy(update={"caption": "cat"}), extra={"from_": "54321"}))
    assert fake.messages[3].body["body"] == {"url": PICTURE.url, "message": "cat"}
    assert fake.messages[3].sender == "54321"
    await channel.close()


async def test_the_fake_answers_what_the_vendors_own_types_read():
    fake = FakeSinch()
    async with httpx2.AsyncClient(transport=fake.transport()) as http:
        url = f"https://us.sms.api.sinch.com/xms/v1/{fake.plan}/batches"
        told = await http.post(
            url, json={"to": [TO], "type": "mt_text", "body": "hi"}, headers={"authorization": f"Bearer {fake.token}"}
        )
    answer = TextResponse.model_validate(told.json())
    assert (answer.id, answer.body, answer.canceled) == (fake.messages[0].id, "hi", False)


@pytest.mark.parametrize("region", ["us", "eu", "au", "br", "ca"])
async def test_each_region_has_its_host(region: str):
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return httpx2.Response(201, json={"id": "1"})

    sinch = SinchSMSProvider(FakeSinch().options(region=region), transport=httpx2.MockTransport(answer))
    await sinch.send(message_to(TO))
    assert asked == [f"https://{region}.sms.api.sinch.com/xms/v1/fakeplan0000/batches"]
    await sinch.aclose()


async def test_signatures_agree_with_the_vendors_own_code_in_both_directions():
    fake = FakeSinch()
    sinch, theirs = made(fake), SmsSinchEvent(fake.secret)
    rng = random.Random(3)
    for _ in range(50):
        request = fake.text(TO, "".join(rng.choice("aZ é€😀+&=%\n\t'\".") for _ in range(rng.randrange(40))))
        sinch.verify(request)
        assert theirs.validate_authentication_header(dict(request.headers), request.body)
        ours = sinch.sign(replace(request, headers={"content-type": "application/json"}))
        assert theirs.validate_authentication_header(dict(ours.headers), ours.body)
        forged = replace(ours, body=ours.body + b" ")
        assert not theirs.validate_authentication_header(dict(forged.headers), forged.body)
        with pytest.raises(AccessDenied):
            sinch.verify(forged)


@pytest.mark.parametrize("name", [path.stem for path in sorted((GOLDEN / "sinch").glob("*.json"))])
def test_the_goldens_are_what_the_vendors_own_package_reads(name: str):
    event = SmsSinchEvent("x")
    body = golden("sinch", name)[0].body
    if name == "unheard_of":
        with pytest.raises(ValueError, match="Unknown SMS event"):
            event.parse_event(body)
    else:
        assert event.parse_event(body).type == json.loads(body)["type"]


async def test_the_end_of_a_body_is_no_nonce():
    # The signed text has no other border than a dot: this body and nonce make the same as the honest ones.
    fake = FakeSinch()
    request = fake.text(TO, "Pay 1.00 to Bob")
    body, _, rest = request.body.partition(b".")
    nonce = f"{rest.decode()}.{request.headers['x-sinch-webhook-signature-nonce']}"
    forged = replace(request, body=body, headers={**request.headers, "x-sinch-webhook-signature-nonce": nonce})
    assert SmsSinchEvent(fake.secret).validate_authentication_header(dict(forged.headers), forged.body)
    with pytest.raises(AccessDenied, match="nonce"):
        made(fake).verify(forged)


async def test_a_stale_unsigned_or_foreign_callback_is_refused():
    fake = FakeSinch()
    sinch = made(fake)
    request = fake.text(TO, "hi")
    for name in ("", "-nonce", "-timestamp"):
        bare = {k: v for k, v in request.headers.items() if k != f"x-sinch-webhook-signature{name}"}
        with pytest.raises(AccessDenied):
            sinch.verify(replace(request, headers=bare))
    for changed in ({"-algorithm": "HmacSHA1"}, {"-timestamp": "1" * 10}):
        headers = {f"x-sinch-webhook-signature{k}": v for k, v in changed.items()}
        with pytest.raises(AccessDenied):
            sinch.verify(replace(request, headers={**request.headers, **headers}))
    rotated = made(fake, webhook_secrets=("a newer secret", fake.secret))
    rotated.verify(request)
    with pytest.raises(AccessDenied, match="does not match"):
        sinch.verify(rotated.sign(request))
    with pytest.raises(ConfigError, match="SINCH_WEBHOOK_SECRET"):
        made(fake, webhook_secrets=()).sign(request)


@pytest.mark.parametrize(
    "status, code, kind, retryable",
    [
        (400, "syntax_constraint_violation", Refused, False),
        (403, "unknown_group", Refused, False),
        (403, "", Unauthorized, False),
        (401, "", Unauthorized, False),
        (429, "too_many_requests", RateLimited, True),
        (500, "", Unavailable, True),
        (503, "", Unavailable, True),
    ],
)
async def test_refusals_say_what_to_do(status: int, code: str, kind: type[ProviderError], retryable: bool):
    fake = FakeSinch()
    fake.fail(status, code, "scripted", retry_after=None if status == 403 else 7)
    error = await failing(fake)
    assert (type(error), error.retryable, error.code) == (kind, retryable, code or None)
    assert error.retry_after == (None if status == 403 else 7)
    assert error.ambiguous is (status == 500)
    assert "scripted" in str(error)


async def test_no_answer_is_ambiguous_and_comes_in_time():
    fake = FakeSinch()
    fake.hang()
    start = monotonic()
    error = await failing(fake)
    assert isinstance(error, ProviderTimeout)
    assert error.ambiguous
    assert monotonic() - start == pytest.approx(15)
    fake.lose_answer()
    assert (await failing(fake)).ambiguous
    assert len(fake.messages) == 2, "both were accepted"
    with pytest.raises(BadResponse):
        await SinchSMSProvider(
            fake.options(), transport=httpx2.MockTransport(lambda _: httpx2.Response(201, json=[]))
        ).send(message_to(TO))


async def test_what_cannot_be_sent_is_told():
    fake = FakeSinch()
    assert isinstance(await failing(fake, "nobody"), Refused)
    assert isinstance(await failing(fake, api_token="a-wrong-token"), Unauthorized)
    assert "public URL" in str(await failing(fake, content=PICTURE.model_copy(update={"url": "blob:1"})))
    assert "neither text nor media" in str(await failing(fake, content=UnknownContent(kind="poll")))
    assert "2 files" in str(await failing(fake, content=CompositeContent(parts=(PICTURE, PICTURE))))
    assert fake.messages == []


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SINCH_SERVICE_PLAN_ID", raising=False)
    with pytest.raises(ConfigError, match="SINCH_SERVICE_PLAN_ID"):
        provider()
    monkeypatch.setenv("SINCH_API_TOKEN", "planted-token")
    monkeypatch.setenv("SINCH_WEBHOOK_SECRET", "planted-one, planted-two")
    monkeypatch.setenv("SINCH_REGION", "mars")
    with pytest.raises(ConfigError, match="us, eu"):
        provider("plan")
    monkeypatch.setenv("SINCH_REGION", "eu")
    found = provider("plan").options
    assert (found.service_plan_id, found.webhook_secrets) == ("plan", ("planted-one", "planted-two"))
    assert "planted" not in repr(found)


def test_messages_are_read_whole():
    plain = read("mo_text")
    assert (plain.sender_id, plain.recipient_id) == ("+16051234567", "+15550100999")
    assert plain.content == TextContent(text="This is a test message.")
    assert (plain.sent_at.second, plain.raw_payload["operator_id"]) == (10, "310260")
    assert read("mo_text_short_code").recipient_id == "54321"
    media = read("mo_media")
    assert isinstance(media.content, MediaContent)
    assert (media.content.caption, media.channel_data["sinch"]["subject"]) == ("Look at my cat", "Hey")
    assert [one.url for one in media.attachments] == ["https://us.sms.api.sinch.com/media/cat"]
    assert read("mo_binary").content == UnknownContent(kind="mo_binary")
    assert read("unheard_of").content == UnknownContent(kind="feedback_sms")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"type": 5}', b'{"type": "mo_text"}', b"\xff"])
def test_what_cannot_be_read_is_seen(body: bytes):
    (item,) = made(FakeSinch()).parse(WebhookRequest("POST", "https://x.example/", {}, body), "sms")
    assert isinstance(item, InboundMessage)
    assert isinstance(item.content, UnknownContent)
    assert item.external_id


async def test_reports_move_a_delivery_forward_however_they_arrive():
    fake = FakeSinch()
    sinch = made(fake)
    await sinch.send(message_to(TO))
    for seed in range(20):
        state = DeliveryState.QUEUED
        requests = fake.reports(fake.messages[0], "Queued", "Dispatched", "Delivered")
        for request in fake.disorder(requests, random.Random(seed)):
            sinch.verify(request)
            (item,) = sinch.parse(request, "sms")
            assert isinstance(item, DeliveryStatus)
            assert item.provider_message_id == fake.messages[0].id
            state = forward(state, item.state)
        assert state is DeliveryState.DELIVERED
    assert (read("recipient_aborted").state, read("recipient_aborted").code) == (DeliveryState.FAILED, "412")
    assert "not provisioned" in read("recipient_aborted").error
    assert read("recipient_mms_expired").state is DeliveryState.FAILED
    assert (read("batch_delivered").state, read("batch_failed").code) == (DeliveryState.DELIVERED, "402")
    await sinch.aclose()


async def test_media_is_fetched_without_credentials():
    fake = FakeSinch()
    sinch = made(fake)
    (message,) = sinch.parse(fake.text(TO, "", media=[("image/png", b"png bytes")]), "sms")
    assert isinstance(message, InboundMessage)
    got = await sinch.fetch_media(message.attachments[0])
    assert (got.body, got.content_type) == (b"png bytes", "image/png")
    assert fake.leaks == []
    await sinch.aclose()


async def test_an_empty_secret_opens_nothing():
    fake = FakeSinch()
    request = WebhookRequest("POST", "https://x.example/", {}, b"{}")
    stamp = str(int(VirtualClock().now().timestamp()))
    signature = base64.b64encode(hmac.new(b"", request.body + f".n.{stamp}".encode(), hashlib.sha256).digest()).decode()
    name = "x-sinch-webhook-signature"
    forged = replace(request, headers={name: signature, f"{name}-nonce": "n", f"{name}-timestamp": stamp})
    with pytest.raises(AccessDenied, match="no secret"):
        made(fake, webhook_secrets=("",)).verify(forged)
