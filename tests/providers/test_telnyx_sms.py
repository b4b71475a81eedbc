from __future__ import annotations

import base64
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from pydantic import TypeAdapter
from telnyx import PermissionDeniedError, Telnyx
from telnyx.lib.webhook_verification import WebhookVerificationError, verify_webhook_signature

from roomkit import SMSChannel
from roomkit.channels import RCSChannel
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
    AudioContent,
    Button,
    Card,
    CompositeContent,
    Content,
    LocationContent,
    MediaContent,
    RichContent,
    TextContent,
    UnknownContent,
)
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest, forward
from roomkit.providers.telnyx.rcs import TelnyxRCSProvider
from roomkit.providers.telnyx.sms import TelnyxSMSProvider, provider
from roomkit.runtime import SystemClock, monotonic
from roomkit.testing import VirtualClock, check_message_provider
from roomkit.testing.messages import message_to
from roomkit.testing.vendors.telnyx import FakeTelnyx
from tests.providers.exactly_once import GOLDEN, ONCE, exactly_once, golden
from tests.providers.vendor_calls import public

TO = "+15550123"
PICTURE = MediaContent(url="https://x.example/a.png", mime_type="image/png")


def made(fake: FakeTelnyx, kind: type[TelnyxSMSProvider] = TelnyxSMSProvider, **more: Any) -> Any:
    return kind(fake.options(**more), clock=VirtualClock(), transport=fake.transport(), resolver=public)


async def failing(fake: FakeTelnyx, recipient: str = TO, content: Any = "x", **more: Any) -> ProviderError:
    telnyx = made(fake, **more)
    with pytest.raises(ProviderError) as caught:
        await telnyx.send(message_to(recipient, content))
    await telnyx.aclose()
    return caught.value


def read(name: str) -> InboundMessage | DeliveryStatus:
    (item,) = made(FakeTelnyx()).parse(golden("telnyx", name)[0], "sms")
    return item


async def test_conformance():
    fake = FakeTelnyx()
    await check_message_provider(
        lambda: made(fake),
        inbound=golden("telnyx"),
        outgoing=message_to(TO),
        secrets=[fake.api_key, fake.options().signing_key or ""],
        without_secret=lambda: made(fake, public_keys=()),
    )


@ONCE
@pytest.mark.parametrize("kind, channel", [(TelnyxSMSProvider, SMSChannel), (TelnyxRCSProvider, RCSChannel)])
async def test_exactly_one_effect(tmp_path: Path, kind: Any, channel: Any):
    fake = FakeTelnyx()
    await exactly_once(
        lambda clock: kind(fake.options(), clock=clock, transport=fake.transport(), resolver=public),
        lambda cid, p: channel(cid, provider=p),
        golden("telnyx"),
        folder=tmp_path,
    )


async def test_a_message_arrives_with_sender_text_media_and_webhook():
    fake = FakeTelnyx()
    telnyx = made(fake, webhook_url="https://rooms.example/webhooks/sms")
    result = await telnyx.send(message_to(TO, CompositeContent(parts=(TextContent(text="look é"), PICTURE, PICTURE))))
    (sent,) = fake.messages
    assert sent.body == {
        "to": TO,
        "from": fake.number,
        "messaging_profile_id": fake.profile,
        "text": "look é",
        "media_urls": [PICTURE.url, PICTURE.url],
        "webhook_url": "https://rooms.example/webhooks/sms",
    }
    assert (result.success, result.state, result.provider_message_id) == (True, DeliveryState.SENT, sent.id)
    rich = RichContent(text="**Hi** [here](https://x.example)")
    await telnyx.send(message_to(TO, rich, extra={"from_": "12345"}, idempotency_key="r:1:c:0"))
    assert (fake.messages[1].sender, fake.messages[1].text) == ("12345", "Hi here (https://x.example)")
    await telnyx.aclose()


async def test_the_vendors_own_client_sends_the_same_request_and_reads_the_fakes_answers():
    fake = FakeTelnyx()
    theirs: list[httpx.Request] = []
    ours: list[httpx2.Request] = []

    def record(request: httpx.Request) -> httpx.Response:
        theirs.append(request)
        return httpx.Response(200, json={"data": {}})

    client = Telnyx(api_key=fake.api_key, http_client=httpx.Client(transport=httpx.MockTransport(record)))
    client.messages.send(to=TO, from_=fake.number, text="hi", media_urls=[PICTURE.url], idempotency_key="k")
    client.messages.rcs.send(
        to=TO,
        agent_id=fake.agent,
        messaging_profile_id=fake.profile,
        type="RCS",
        agent_message={"content_message": {"text": "hi"}},
    )

    def answer(request: httpx2.Request) -> httpx2.Response:
        ours.append(request)
        return httpx2.Response(200, json={"data": {"id": "1"}})

    network = httpx2.MockTransport(answer)
    mms = TelnyxSMSProvider(fake.options(messaging_profile_id=None), transport=network)
    await mms.send(message_to(TO, PICTURE.model_copy(update={"caption": "hi"})))
    await TelnyxRCSProvider(fake.options(), transport=network).send(message_to(TO, "hi"))
    for mine, yours in zip(ours, theirs, strict=True):
        assert (mine.method, str(mine.url)) == (yours.method, str(yours.url))
        assert json.loads(mine.content) == json.loads(yours.content)
        assert mine.headers["authorization"] == yours.headers["authorization"]
    assert "idempotency-key" in ours[0].headers
    assert "idempotency-key" in theirs[0].headers

    async with httpx2.AsyncClient(transport=fake.transport()) as http:
        fake.opted_out.add("+15550999")
        url, auth = "https://api.telnyx.com/v2/messages", {"authorization": f"Bearer {fake.api_key}"}
        good = await http.post(url, json={"to": TO, "from": fake.number, "text": "hi"}, headers=auth)
        bad = await http.post(url, json={"to": "+15550999", "from": fake.number, "text": "hi"}, headers=auth)

    def canned(response: httpx2.Response) -> Telnyx:
        transport = httpx.MockTransport(lambda _: httpx.Response(response.status_code, json=response.json()))
        return Telnyx(api_key="x", max_retries=0, http_client=httpx.Client(transport=transport))

    data = canned(good).messages.send(to=TO, from_=fake.number, text="hi").data
    assert data is not None
    assert (data.id, data.to and data.to[0].status, data.type) == (fake.messages[0].id, "queued", "SMS")
    with pytest.raises(PermissionDeniedError, match="40300"):
        canned(bad).messages.send(to=TO, from_=fake.number, text="hi")


def test_signatures_agree_with_the_vendors_own_code_in_both_directions():
    fake = FakeTelnyx(clock=SystemClock())
    telnyx = TelnyxSMSProvider(fake.options())
    rng = random.Random(3)
    client = Telnyx(api_key="x", public_key=fake.public_key)
    for _ in range(30):
        request = fake.text(TO, "".join(rng.choice("aZ é€😀+&=%\n\t'\"") for _ in range(rng.randrange(40))))
        bare = replace(request, headers={"content-type": "application/json"})
        ours = telnyx.sign(bare)
        verify_webhook_signature(ours.body, ours.headers, fake.public_key)
        event = client.webhooks.unwrap(request.body.decode(), headers=dict(request.headers))
        assert event.data.event_type == "message.received"
        telnyx.verify(request)
        forged = replace(ours, body=ours.body.replace(b"SMS", b"MMS"))
        with pytest.raises(WebhookVerificationError):
            verify_webhook_signature(forged.body, forged.headers, fake.public_key)
        with pytest.raises(AccessDenied):
            telnyx.verify(forged)


@pytest.mark.parametrize("path", sorted((GOLDEN / "telnyx").glob("*.json")), ids=lambda path: path.stem)
def test_the_goldens_are_what_the_vendors_own_types_read(path: Path):
    body = path.read_text()
    event = Telnyx(api_key="x").webhooks.unsafe_unwrap(body)
    told = json.loads(body)["data"]
    assert event.data.event_type == told["event_type"]
    if path.stem != "link_click":
        payload = event.data.payload
        TypeAdapter(type(payload)).validate_python(told["payload"])
        assert payload.id == told["payload"]["id"]
        assert payload.to[0].model_dump(exclude_unset=True, mode="json") == told["payload"]["to"][0]


async def test_a_stale_unsigned_or_foreign_webhook_is_refused():
    fake, other = FakeTelnyx(), FakeTelnyx()
    telnyx = made(fake)
    request = fake.text(TO, "hi")
    telnyx.verify(request)
    for name in request.headers:
        if name != "content-type":
            with pytest.raises(AccessDenied):
                telnyx.verify(replace(request, headers={k: v for k, v in request.headers.items() if k != name}))
    late = str(int(request.headers["telnyx-timestamp"]) + 301)
    with pytest.raises(AccessDenied, match="does not match"):
        telnyx.verify(replace(request, headers={**request.headers, "telnyx-timestamp": late}))
    old = replace(telnyx.options, freshness_s=300)
    with pytest.raises(AccessDenied, match="301 s old"):
        made(fake, freshness_s=old.freshness_s).verify(_aged(fake, request, 301))
    stranger = base64.b64encode(bytes(31) + b"1").decode()
    rotated = made(fake, public_keys=(fake.public_key, other.public_key))
    rotated.verify(request)
    with pytest.raises(ConfigError, match="32 bytes"):
        made(fake, public_keys=("no key",))
    with pytest.raises(AccessDenied, match="does not match"):
        telnyx.verify(made(fake, signing_key=stranger).sign(request))
    with pytest.raises(ConfigError, match="TELNYX_SIGNING_KEY"):
        made(fake, signing_key=None).sign(request)
    await telnyx.aclose()


def _aged(fake: FakeTelnyx, request: WebhookRequest, seconds: int) -> WebhookRequest:
    clock = VirtualClock()

    class Earlier:
        def now(self):
            return clock.now().fromtimestamp(clock.now().timestamp() - seconds, tz=clock.now().tzinfo)

    return TelnyxSMSProvider(fake.options(), clock=Earlier()).sign(request)


@pytest.mark.parametrize(
    "status, code, kind, retryable",
    [
        (403, "40300", Refused, False),
        (400, "40310", Refused, False),
        (422, "10015", Refused, False),
        (401, "10009", Unauthorized, False),
        (403, "10010", Unauthorized, False),
        (429, "10011", RateLimited, True),
        (429, "40318", RateLimited, True),
        (500, "10007", Unavailable, True),
        (503, "10007", Unavailable, True),
    ],
)
async def test_refusals_say_what_to_do(status: int, code: str, kind: type[ProviderError], retryable: bool):
    fake = FakeTelnyx()
    fake.fail(status, code, "scripted", retry_after=7)
    error = await failing(fake)
    assert (type(error), error.retryable, error.code, error.retry_after) == (kind, retryable, code, 7)
    assert error.ambiguous is (status == 500)
    assert "scripted" in str(error)


async def test_the_vendors_own_refusals():
    fake = FakeTelnyx()
    fake.opted_out.add("+15550999")
    assert (await failing(fake, "+15550999")).code == "40300"
    assert (await failing(fake, "nobody")).code == "40310"
    assert isinstance(await failing(fake, api_key="wrong-key-here"), Unauthorized)
    assert fake.messages == []


async def test_no_answer_is_ambiguous_and_a_repeated_key_is_taken_once():
    fake = FakeTelnyx()
    fake.hang()
    start = monotonic()
    error = await failing(fake)
    assert isinstance(error, ProviderTimeout)
    assert error.ambiguous
    assert monotonic() - start == pytest.approx(15)
    fake.lose_answer()
    error = await failing(fake)
    assert isinstance(error, Unavailable)
    assert error.ambiguous
    assert len(fake.messages) == 1, "the same key"
    bare = made(fake, idempotent=False)
    await bare.send(message_to(TO))
    assert fake.messages[1].key is None
    fake.delay_s = 14
    assert (await bare.send(message_to(TO))).success
    await bare.aclose()


async def test_what_cannot_be_sent_is_told_before_sending():
    fake = FakeTelnyx()
    telnyx = made(fake)
    for content, told in (
        (PICTURE.model_copy(update={"url": "blob:1"}), "public URL"),
        (UnknownContent(kind="poll"), "neither text nor media"),
        (CompositeContent(parts=(PICTURE,) * 11), "11 files"),
    ):
        with pytest.raises(Refused, match=told):
            await telnyx.send(message_to(TO, content))
    await telnyx.aclose()
    with pytest.raises(ConfigError, match="TELNYX_PHONE_NUMBER"):
        await made(fake, from_number=None, messaging_profile_id=None).send(message_to(TO))
    assert fake.messages == []


async def test_a_success_that_is_none_is_not_believed():
    def answering(payload: object) -> TelnyxSMSProvider:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=payload))
        return TelnyxSMSProvider(FakeTelnyx().options(), transport=transport)

    failed = {"id": "1", "to": [{"status": "sending_failed"}], "errors": [{"code": "40001", "title": "Not routable"}]}
    result = await answering({"data": failed}).send(message_to(TO))
    assert (result.success, result.code, result.error) == (False, "40001", "Not routable")
    for odd in ({"data": {}}, [], "x", {"data": []}):
        with pytest.raises(BadResponse):
            await answering(odd).send(message_to(TO))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TELNYX_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="TELNYX_API_KEY"):
        provider()
    fake = FakeTelnyx()
    for name, value in {
        "API_KEY": "planted-key",
        "PUBLIC_KEY": f"{fake.public_key}, {fake.public_key}",
        "PHONE_NUMBER": "+15550100",
        "SIGNING_KEY": "planted-signing-key",
    }.items():
        monkeypatch.setenv(f"TELNYX_{name}", value)
    found = provider("profile-1").options
    assert (found.from_number, found.messaging_profile_id, len(found.public_keys)) == ("+15550100", "profile-1", 2)
    assert "planted" not in repr(found)


def test_messages_are_read_whole():
    plain = read("sms")
    assert isinstance(plain, InboundMessage)
    assert (plain.sender_id, plain.recipient_id, plain.content) == (TO, "+15550100", TextContent(text="Hello, World!"))
    assert plain.sent_at is not None
    assert plain.raw_payload["data"]["payload"]["organization_id"]
    mms = read("mms")
    assert isinstance(mms, InboundMessage)
    assert isinstance(mms.content, CompositeContent)
    assert [part.type for part in mms.content.parts] == ["text", "media", "audio"]
    assert [(a.mime_type, a.size_bytes, a.needs_auth) for a in mms.attachments] == [
        ("image/jpeg", 1024, False),
        ("audio/amr", 64, False),
    ]
    stop = read("stop")
    assert isinstance(stop, InboundMessage)
    assert (stop.channel_data["telnyx"]["autoresponse_type"], stop.metadata["opt_out"]) == ("STOP", "stop")
    click = read("link_click")
    assert isinstance(click, InboundMessage)
    assert click.content == UnknownContent(kind="message.link_click")


def test_rcs_messages_are_read_whole():
    contents = {name: read(f"rcs_{name}") for name in ("text", "file", "location", "suggestion")}
    assert all(isinstance(one, InboundMessage) and one.sender_id == TO for one in contents.values())
    found: dict[str, Any] = {name: one.content for name, one in contents.items() if isinstance(one, InboundMessage)}
    assert found["text"] == TextContent(text="Hello from RCS")
    assert (found["file"].filename, found["file"].url) == ("cat.jpg", "https://rcs-content.example/cat.jpg")
    assert found["location"] == LocationContent(latitude=37.42, longitude=-122.08)
    assert found["suggestion"] == TextContent(text="Yes")
    assert contents["suggestion"].channel_data["telnyx"]["button"] == "eWVz"
    assert contents["text"].recipient_id == "fake-agent"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": 5}', b'{"data": {"event_type": "message.received"}}', b"\xff"])
def test_what_cannot_be_read_is_seen(body: bytes):
    telnyx = made(FakeTelnyx())
    (item,) = telnyx.parse(WebhookRequest("POST", "https://x.example/", {}, body), "sms")
    assert isinstance(item, InboundMessage)
    assert isinstance(item.content, UnknownContent)
    assert item.external_id


async def test_reports_move_a_delivery_forward_however_they_arrive():
    fake = FakeTelnyx()
    telnyx = made(fake)
    await telnyx.send(message_to(TO))
    for seed in range(20):
        state = DeliveryState.QUEUED
        for request in fake.disorder(fake.reports(fake.messages[0], "sent", "delivered"), random.Random(seed)):
            telnyx.verify(request)
            (item,) = telnyx.parse(request, "sms")
            assert item.provider_message_id == fake.messages[0].id
            state = forward(state, item.state)
        assert state is DeliveryState.DELIVERED
    (failed,) = telnyx.parse(fake.reports(fake.messages[0], "delivery_failed", error="40008")[0], "sms")
    assert (failed.state, failed.code, failed.error) == (DeliveryState.FAILED, "40008", "Undeliverable")
    unconfirmed = read("status_unconfirmed")
    assert isinstance(unconfirmed, DeliveryStatus)
    assert unconfirmed.state is DeliveryState.SENT
    await telnyx.aclose()


async def test_media_is_fetched_without_the_accounts_key():
    fake = FakeTelnyx()
    telnyx = made(fake)
    (message,) = telnyx.parse(fake.text(TO, "", media=[("audio/amr", b"amr bytes")]), "sms")
    assert isinstance(message.content, AudioContent)
    got = await telnyx.fetch_media(message.attachments[0])
    assert (got.body, got.content_type) == (b"amr bytes", "audio/amr")
    assert fake.leaks == []
    await telnyx.aclose()


CARD = Card(title="Lamp", text="Warm light", image_url="https://x.example/l.png", buttons=(Button(label="Buy"),))


@pytest.mark.parametrize(
    "content, kind, said",
    [
        (TextContent(text="hi"), "text", "hi"),
        (PICTURE, "content_info", PICTURE.url),
        (PICTURE.model_copy(update={"caption": "my cat"}), "rich_card", "my cat"),
        (RichContent(text="**Choose**", cards=(CARD,)), "standalone_card", "Choose\\n\\nWarm light"),
        (RichContent(text="", cards=(CARD, CARD)), "carousel_card", "Warm light"),
        (RichContent(text="Go?", buttons=(Button(label="Site", url="https://x.example"),)), "open_url_action", "Go?"),
        (RichContent(text="Go?", quick_replies=("Yes", "a very long answer, longer than fits")), "reply", "Yes"),
    ],
)
async def test_rcs_carries_what_it_can(content: Content, kind: str, said: str):
    fake = FakeTelnyx()
    telnyx = made(fake, TelnyxRCSProvider)
    result = await telnyx.send(message_to(TO, content))
    assert result.success
    (sent,) = fake.messages
    assert sent.kind == "RCS"
    told = json.dumps(sent.body)
    assert f'"{kind}"' in told
    assert said in told
    await telnyx.aclose()


@pytest.mark.parametrize(
    "content, told",
    [
        (TextContent(text="x" * 3073), "3072"),
        (RichContent(text="x", cards=(CARD,) * 11), "11 cards"),
        (RichContent(text="x", quick_replies=("y",) * 12), "12 buttons"),
        (CompositeContent(parts=(PICTURE, PICTURE)), "2 files"),
        (UnknownContent(kind="poll"), "nothing that RCS"),
        (RichContent(text="x", buttons=(Button(label="b", value="x" * 2000),)), "longer than RCS"),
    ],
)
async def test_rcs_limits_are_told_before_sending(content: Content, told: str):
    fake = FakeTelnyx()
    telnyx = made(fake, TelnyxRCSProvider)
    with pytest.raises(Refused, match=told):
        await telnyx.send(message_to(TO, content))
    assert fake.messages == []
    await telnyx.aclose()


async def test_rcs_is_sent_as_sms_where_the_channel_says_so_and_by_the_vendor_where_asked():
    fake = FakeTelnyx()
    telnyx = made(fake, TelnyxRCSProvider)
    await telnyx.send(message_to(TO, "hi", extra={"via": "sms"}))
    assert [(m.kind, m.sender, m.text) for m in fake.messages] == [("SMS", fake.number, "hi")]
    await telnyx.send(message_to("+15550124", "hi", extra={"fallback": "vendor"}, idempotency_key="r:1:c:0"))
    assert fake.messages[1].body["sms_fallback"] == {"from": fake.number, "text": "hi"}
    await telnyx.aclose()
    with pytest.raises(ConfigError, match="TELNYX_RCS_AGENT_ID"):
        await made(fake, TelnyxRCSProvider, agent_id=None).send(message_to(TO))
