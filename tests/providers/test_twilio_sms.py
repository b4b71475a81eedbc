from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import httpx2
import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http import HttpClient
from twilio.http.response import Response as TwilioResponse
from twilio.request_validator import RequestValidator
from twilio.rest import Client

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
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    LocationContent,
    MediaContent,
    TextContent,
    UnknownContent,
)
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest, forward
from roomkit.providers.twilio.signature import TwilioKeys
from roomkit.providers.twilio.sms import TwilioSMSProvider, provider
from roomkit.runtime import monotonic
from roomkit.testing import FakeTwilio, check_message_provider, fuzz_signatures
from roomkit.testing.messages import message_to
from tests.providers.exactly_once import ONCE, exactly_once, golden_form
from tests.providers.vendor_calls import public

TO = "+15550123"
PICTURE = MediaContent(url="https://x.example/a.png", mime_type="image/png")


def made(fake: FakeTwilio, **more: object) -> TwilioSMSProvider:
    return TwilioSMSProvider(fake.options(**more), transport=fake.transport(), resolver=public)


async def send_failing(fake: FakeTwilio, recipient: str = TO, content: object = "x", **more: object) -> ProviderError:
    twilio = made(fake, **more)
    with pytest.raises(ProviderError) as caught:
        await twilio.send(message_to(recipient, content))
    await twilio.aclose()
    return caught.value


async def test_conformance():
    fake = FakeTwilio()
    inbound = [
        fake.text(TO, "hello é 😀"),
        fake.text(TO, "", media=[("image/png", b"1"), ("audio/ogg", b"2")]),
        fake.form({"AccountSid": fake.account_sid, "MessageSid": "SM" + "a" * 32, "MessageStatus": "sent"}),
        fake.json([{"type": "com.twilio.messaging.message.delivered", "data": {"messageSid": "SM" + "b" * 32}}]),
    ]
    unsigned = [replace(r, headers={"content-type": r.headers["content-type"]}) for r in inbound]
    await check_message_provider(
        lambda: made(fake),
        inbound=unsigned,
        outgoing=message_to(TO),
        secrets=[fake.auth_token],
        without_secret=lambda: TwilioSMSProvider(
            fake.options(auth_token=None, api_key="SK1", api_secret="planted-secret"), transport=fake.transport()
        ),
    )


async def test_a_message_arrives_with_sender_text_media_and_callback():
    fake = FakeTwilio()
    callback = "https://rooms.example/webhooks/sms"
    twilio = made(fake, status_callback=callback)
    result = await twilio.send(message_to(TO, CompositeContent(parts=(TextContent(text="look +&é"), PICTURE, PICTURE))))
    (sent,) = fake.messages
    assert (sent.to, sent.sender, sent.body, sent.status_callback) == (TO, fake.number, "look +&é", callback)
    assert sent.media == (PICTURE.url, PICTURE.url)
    assert (result.success, result.state, result.provider_message_id) == (True, DeliveryState.SENT, sent.sid)
    await twilio.send(message_to(TO, extra={"from_": "12345"}))
    await twilio.send(message_to(TO, extra={"from_": "MG" + "1" * 32}))
    assert [m.sender for m in fake.messages[1:]] == ["12345", "MG" + "1" * 32]
    await twilio.aclose()


async def test_the_vendors_own_client_sends_the_same_request():
    fake = FakeTwilio()
    requests: list[dict[str, str]] = []

    class Recorder(HttpClient):
        def request(
            self, method, url, params=None, data=None, headers=None, auth=None, timeout=None, allow_redirects=False
        ):
            requests.append({"method": method, "url": url, "auth": ":".join(auth), **data})
            return TwilioResponse(201, "{}")

    client = Client(fake.account_sid, fake.auth_token, http_client=Recorder(LOG, is_async=False))
    client.messages.create(to=TO, from_=fake.number, body="hi", status_callback="https://s.example/")
    theirs = requests[0]
    twilio = made(fake, status_callback="https://s.example/")
    ours = dict(twilio.fields(message_to(TO, "hi")))
    assert theirs.pop("auth") == f"{fake.account_sid}:{fake.auth_token}"
    assert theirs.pop("url") == f"https://api.twilio.com/2010-04-01/Accounts/{fake.account_sid}/Messages.json"
    assert theirs.pop("method") == "POST"
    assert ours == {name: value for name, value in theirs.items() if value is not None}
    await twilio.aclose()


async def test_the_fake_answers_what_the_vendors_own_types_read():
    fake = FakeTwilio()

    async with httpx2.AsyncClient(transport=fake.transport(), auth=(fake.account_sid, fake.auth_token)) as http:
        url = f"https://api.twilio.com/2010-04-01/Accounts/{fake.account_sid}/Messages.json"
        answer = await http.post(url, data={"To": TO, "From": fake.number, "Body": "hi"})
        refusal = await http.post(url, data={"To": "nobody", "From": fake.number, "Body": "hi"})

    class Canned(HttpClient):
        def __init__(self, response: httpx2.Response) -> None:
            super().__init__(LOG, is_async=False)
            self.response = response

        def request(self, *args, **kwargs):
            return TwilioResponse(self.response.status_code, self.response.text)

    message = Client("a", "b", http_client=Canned(answer)).messages.create(to=TO, from_=fake.number, body="hi")
    assert (message.sid, message.status, message.to, message.body) == (fake.messages[0].sid, "queued", TO, "hi")
    assert message.date_created.year == 2030
    with pytest.raises(TwilioRestException) as caught:
        Client("a", "b", http_client=Canned(refusal)).messages.create(to="nobody", from_=fake.number, body="hi")
    assert caught.value.code == 21211


@pytest.mark.parametrize(
    "status, code, kind, retryable",
    [
        (400, 21610, Refused, False),
        (400, 21211, Refused, False),
        (400, 21614, Refused, False),
        (401, 20003, Unauthorized, False),
        (429, 20429, RateLimited, True),
        (400, 21611, RateLimited, True),
        (500, 20500, Unavailable, True),
        (503, 20503, Unavailable, True),
        (400, 99999, Refused, False),
        (502, 0, Unavailable, True),
    ],
)
async def test_error_codes_say_who_must_act(status: int, code: int, kind: type[ProviderError], retryable: bool):
    fake = FakeTwilio()
    fake.fail(status, code, "said so", retry_after=7)
    error = await send_failing(fake)
    assert (type(error), error.retryable, error.retry_after, error.status) == (kind, retryable, 7, status)
    assert error.code == (str(code) if code else None)
    assert "said so" in str(error)
    assert fake.messages == []


async def test_refusals_of_the_account():
    fake = FakeTwilio()
    fake.opted_out.add("+15550999")
    assert (await send_failing(fake, "+15550999")).code == "21610"
    assert (await send_failing(fake, "not a number")).code == "21211"
    assert isinstance(await send_failing(fake, auth_token="wrong-token"), Unauthorized)
    assert (await send_failing(fake, content="x" * 1601)).code == "21617"


async def test_no_answer_is_ambiguous_and_comes_in_time():
    fake = FakeTwilio()
    fake.hang()
    start = monotonic()
    error = await send_failing(fake)
    assert isinstance(error, ProviderTimeout)
    assert error.ambiguous
    assert error.retryable
    assert monotonic() - start == pytest.approx(15)
    fake.lose_answer()
    error = await send_failing(fake)
    assert isinstance(error, Unavailable)
    assert error.ambiguous
    assert len(fake.messages) == 2, "both were accepted"
    fake.delay_s = 14
    twilio = made(fake)
    assert (await twilio.send(message_to(TO))).success
    await twilio.aclose()


async def test_an_answer_that_drips_is_cut_at_the_total_time():
    class Drip(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(10)
                yield b" "

    transport = httpx2.MockTransport(lambda _: httpx2.Response(201, stream=Drip()))
    start = monotonic()
    with pytest.raises(ProviderTimeout):
        await TwilioSMSProvider(FakeTwilio().options(), transport=transport).send(message_to(TO))
    assert monotonic() - start == pytest.approx(15)


async def test_a_failed_status_in_a_success_is_no_success():
    body = {"sid": "SM1", "status": "failed", "error_code": 30007, "error_message": "filtered"}

    def answering(payload: object) -> TwilioSMSProvider:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(201, json=payload))
        return TwilioSMSProvider(FakeTwilio().options(), transport=transport)

    result = await answering(body).send(message_to(TO))
    assert (result.success, result.code, result.error) == (False, "30007", "filtered")
    for odd in ({"status": "queued"}, [], "x"):
        with pytest.raises(BadResponse):
            await answering(odd).send(message_to(TO))


async def test_what_cannot_be_sent_is_told_before_sending():
    fake = FakeTwilio()
    twilio = made(fake)
    with pytest.raises(Refused, match="public URL"):
        await twilio.send(message_to(TO, PICTURE.model_copy(update={"url": "blob:1"})))
    with pytest.raises(Refused, match="neither text nor media"):
        await twilio.send(message_to(TO, UnknownContent(kind="poll")))
    await twilio.aclose()
    nobody = made(fake, from_number=None)
    with pytest.raises(ConfigError, match="from_number"):
        await nobody.send(message_to(TO))
    await nobody.aclose()
    assert fake.messages == []


def test_configuration_errors_name_the_variables(monkeypatch: pytest.MonkeyPatch):
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_API_KEY", "TWILIO_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="TWILIO_ACCOUNT_SID"):
        provider()
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC1")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "planted-token")
    monkeypatch.setenv("TWILIO_PHONE_NUMBER", "+15550100")
    found = provider()
    assert (found.options.account_sid, found.options.from_number) == ("AC1", "+15550100")
    assert "planted" not in repr(found.options)


def test_signatures_agree_with_the_vendors_own_code_in_both_directions():
    fake = FakeTwilio()
    twilio = made(fake)
    rng = random.Random(3)
    for _ in range(50):
        body = "".join(rng.choice("aZ é€😀+&=%\n\t'\"") for _ in range(rng.randrange(40)))
        theirs = fake.text(TO, body)
        twilio.verify(theirs)
        ours = twilio.sign(replace(theirs, headers={"content-type": theirs.headers["content-type"]}))
        assert ours.headers["x-twilio-signature"] == theirs.headers["x-twilio-signature"]
        data = fake.json({"messageSid": body})
        twilio.verify(data)
        mine = twilio.sign(WebhookRequest("POST", fake.webhook_url, {"content-type": "application/json"}, data.body))
        assert RequestValidator(fake.auth_token).validate(
            mine.url, data.body.decode(), mine.headers["x-twilio-signature"]
        )


def test_shared_keys_sign_with_sha256_and_do_not_mix_with_the_auth_token():
    fake = FakeTwilio()
    twilio = made(fake, shared_keys={"key_one": "a-shared-secret"})
    bare = fake.text(TO, "hi")
    params = dict(parse_qsl(bare.body.decode(), keep_blank_values=True))

    def signed(secret: str, settings: str | None, algorithm: str) -> WebhookRequest:
        signature = RequestValidator(secret).compute_signature(bare.url, params, algorithm)
        headers = {**bare.headers, "x-twilio-signature": signature}
        return replace(bare, headers=headers if settings is None else {**headers, SETTINGS: settings})

    twilio.verify(signed("a-shared-secret", "key=key_one,algorithm=HMAC_SHA256", "HMAC_SHA256"))
    for secret, settings, algorithm in (
        ("a-shared-secret", None, "HMAC_SHA1"),
        ("a-shared-secret", "key=key_one,algorithm=HMAC_SHA1", "HMAC_SHA1"),
        ("a-shared-secret", "key=key_two,algorithm=HMAC_SHA256", "HMAC_SHA256"),
        (fake.auth_token, "key=key_one,algorithm=HMAC_SHA256", "HMAC_SHA256"),
        (fake.auth_token, "algorithm=HMAC_SHA256", "HMAC_SHA256"),
        ("a-shared-secret", "key=key_one,algorithm=HMAC_MD5", "HMAC_SHA256"),
    ):
        with pytest.raises(AccessDenied):
            twilio.verify(signed(secret, settings, algorithm))
    only = TwilioSMSProvider(
        fake.options(auth_token=None, api_key="SK1", api_secret="s3cr3t", shared_keys={"k": "a-shared-secret"}),
        transport=fake.transport(),
    )
    only.verify(only.sign(replace(bare, headers={"content-type": bare.headers["content-type"]})))


LOG = logging.getLogger("twilio-test")
SETTINGS = "x-twilio-webhooks-signature-settings"


def test_the_port_may_be_signed_or_not_but_only_of_the_configured_url():
    fake = FakeTwilio()
    twilio = made(fake)
    bare = fake.text(TO, "hi")
    for configured, signed, fine in (
        ("https://rooms.example/sms?x=1", "https://rooms.example:443/sms?x=1", True),
        ("https://rooms.example:443/sms", "https://rooms.example/sms", True),
        ("https://rooms.example:8443/sms", "https://rooms.example/sms", True),
        ("https://rooms.example/sms", "https://rooms.example:8443/sms", False),
        ("https://rooms.example/sms", "http://rooms.example/sms", False),
        ("https://rooms.example/sms", "https://rooms.example/sms/", False),
    ):
        params = dict(parse_qsl(bare.body.decode(), keep_blank_values=True))
        signature = RequestValidator(fake.auth_token).compute_signature(signed, params)
        request = replace(bare, url=configured, headers={**bare.headers, "x-twilio-signature": signature})
        if fine:
            twilio.verify(request)
        else:
            with pytest.raises(AccessDenied):
                twilio.verify(request)


def test_json_whose_body_is_not_signed_is_refused():
    fake = FakeTwilio()
    signature = RequestValidator(fake.auth_token).compute_signature(fake.webhook_url, {})
    headers = {"content-type": "application/json", "x-twilio-signature": signature}
    with pytest.raises(AccessDenied, match="the body is not the one"):
        made(fake).verify(WebhookRequest("POST", fake.webhook_url, headers, b'{"messageSid": "forged"}'))


def test_headers_of_proxies_change_nothing():
    fake = FakeTwilio()
    twilio = made(fake)
    evil = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "http", "host": "evil.example"}
    request = fake.text(TO, "hi")
    twilio.verify(replace(request, headers={**request.headers, **evil}))
    forged = fake.form({"Body": "x"}, url="https://evil.example/webhooks/sms")
    with pytest.raises(AccessDenied):
        twilio.verify(replace(forged, url=fake.webhook_url, headers={**forged.headers, **evil}))


@pytest.mark.parametrize(
    "change",
    [
        {"AccountSid": "AC" + "1" * 32},
        {"MessageSid": "SM" + "g" * 32},
        {"MessageSid": ""},
        {"From": "+1555From+1999"},
        {"From": "evil\n+1555"},
        {"NumMedia": "-1"},
        {"bad name": "x"},
        {"OptOutType": "STO", "P": ""},
    ],
)
def test_signed_forms_which_twilio_would_not_make_are_refused(change: dict[str, str]):
    fake = FakeTwilio()
    params = dict(parse_qsl(fake.text(TO, "hi").body.decode(), keep_blank_values=True))
    with pytest.raises(AccessDenied):
        made(fake).verify(fake.form({**params, **change}))


def test_a_text_cannot_be_cut_anew_into_another_sender():
    # The signature has no separators: this body and the forged parameters below make the same signed text.
    fake = FakeTwilio()
    twilio = made(fake)
    honest = fake.text("+15550666", "hiFrom+15550001")
    params = dict(parse_qsl(honest.body.decode(), keep_blank_values=True))
    forged = [(n, v) for n, v in params.items() if n not in {"Body", "From"}]
    forged += [("Body", "hi"), ("From", "+15550666"), ("From", "+15550001")]
    request = replace(honest, body=urlencode(forged).encode())
    theirs = sorted(set(forged))
    assert "".join(n + v for n, v in theirs) == "".join(n + v for n, v in sorted(params.items()))
    with pytest.raises(AccessDenied, match="no message of the configured account"):
        twilio.verify(request)


@pytest.mark.parametrize(
    "name, cut, value",
    [
        ("From", "Fromr", "cs:+15550123"),
        ("ProfileName", "Profile", "NameAda Byron"),
        ("OptOutType", "OptOutTypeS", "TOP"),
        ("To", "T", "o+15550777"),
        ("Latitude", "Latitude1", ".5"),
    ],
)
def test_a_name_cannot_take_letters_from_its_value_nor_lose_them(name: str, cut: str, value: str):
    fake = FakeTwilio()
    twilio = made(fake)
    more = {"ProfileName": "Ada Byron", "OptOutType": "STOP", "Latitude": "1.5", "Longitude": "2"}
    honest = fake.text("rcs:+15550123", "hi", **more)
    pairs = dict(parse_qsl(honest.body.decode(), keep_blank_values=True))
    pairs["To"] = "+15550777"
    honest = fake.form(pairs)
    twilio.verify(honest)
    pairs = {(cut if key == name else key): (value if key == name else one) for key, one in pairs.items()}
    with pytest.raises(AccessDenied, match="no message of the configured account"):
        twilio.verify(replace(honest, body=urlencode(pairs).encode()))


def test_mutants_of_signed_webhooks_do_not_pass():
    fake = FakeTwilio()
    requests = [
        fake.text(TO, "order 12 pizzas for ada & bob, thanks é"),
        fake.text(TO, "", media=[("image/png", b"x")]),
        fake.form({"AccountSid": fake.account_sid, "MessageSid": "SM" + "a" * 32, "MessageStatus": "delivered"}),
        fake.json([{"type": "com.twilio.messaging.message.sent", "data": {"messageSid": "SM" + "a" * 32}}]),
    ]
    report = fuzz_signatures(made(fake), requests, n=4000, seed=11)
    assert report.ok, (report.forged[:3], report.crashed[:3])
    assert report.refused > 2500


async def test_messages_are_read_whole():
    fake = FakeTwilio()
    twilio = made(fake)

    def read(request: WebhookRequest) -> InboundMessage:
        (item,) = twilio.parse(request, "sms")
        assert isinstance(item, InboundMessage)
        return item

    plain = read(fake.text(TO, "hello", ProfileName="Ada", OptOutType="STOP", sid="SM" + "9" * 32))
    assert (plain.sender_id, plain.recipient_id, plain.sender_name) == (TO, fake.number, "Ada")
    assert (plain.content, plain.external_id) == (TextContent(text="hello"), "SM" + "9" * 32)
    assert plain.channel_data["twilio"]["OptOutType"] == "STOP"
    assert plain.raw_payload["Body"] == "hello"
    one = read(fake.text(TO, "my cat", media=[("image/png", b"png")]))
    assert isinstance(one.content, MediaContent)
    assert (one.content.caption, one.content.mime_type) == ("my cat", "image/png")
    assert [(a.url, a.needs_auth) for a in one.attachments] == [(one.content.url, True)]
    many = read(fake.text(TO, "all", media=[("image/png", b"png"), ("audio/ogg", b"ogg"), ("video/mp4", b"mp4")]))
    assert isinstance(many.content, CompositeContent)
    assert [part.type for part in many.content.parts] == ["text", "media", "audio", "video"]
    voice = read(fake.text(TO, "", media=[("audio/ogg", b"ogg")]))
    assert isinstance(voice.content, AudioContent)
    place = read(fake.text("whatsapp:+15550123", "", Latitude="1.5", Longitude="2.5", Label="Here"))
    assert place.content == LocationContent(latitude=1.5, longitude=2.5, label="Here")
    assert place.sender_id == TO
    assert read(fake.text(TO, "")).content == UnknownContent(kind="empty_message")
    odd = read(fake.json({"type": "com.twilio.messaging.poll.created", "data": {"messageSid": "SM1", "from": TO}}))
    assert odd.content == UnknownContent(kind="com.twilio.messaging.poll.created")
    assert odd.raw_payload
    await twilio.aclose()


async def test_reports_move_a_delivery_forward_however_they_arrive():
    fake = FakeTwilio()
    twilio = made(fake)
    await twilio.send(message_to(TO))
    message = fake.messages[0]
    for seed in range(20):
        state = DeliveryState.QUEUED
        for request in fake.disorder(fake.reports(message, "queued", "sent", "delivered"), random.Random(seed)):
            twilio.verify(request)
            (item,) = twilio.parse(request, "sms")
            assert isinstance(item, DeliveryStatus)
            assert item.provider_message_id == message.sid
            state = forward(state, item.state)
        assert state is DeliveryState.DELIVERED
    (failed,) = twilio.parse(fake.reports(message, "undelivered", error=30003)[0], "sms")
    assert isinstance(failed, DeliveryStatus)
    assert (failed.state, failed.code) == (DeliveryState.FAILED, "30003")
    await twilio.aclose()


async def test_media_is_fetched_with_credentials_for_twilio_only():
    fake = FakeTwilio()
    twilio = made(fake)
    (message,) = twilio.parse(fake.text(TO, "", media=[("image/png", b"png bytes")]), "sms")
    assert isinstance(message, InboundMessage)
    got = await twilio.fetch_media(message.attachments[0])
    assert (got.body, got.content_type) == (b"png bytes", "image/png")
    assert fake.leaks == [], "the credentials followed the redirect"
    await twilio.aclose()


def test_the_answer_is_empty_twiml():
    fake = FakeTwilio()
    reply = made(fake).reply(fake.text(TO, "x"))
    assert (reply.status, reply.body, reply.content_type) == (200, b"<Response/>", "application/xml")


@ONCE
async def test_exactly_one_effect(tmp_path: Path):
    fake = FakeTwilio()
    webhooks = golden_form("twilio")
    await exactly_once(lambda _: made(fake), lambda cid, p: SMSChannel(cid, provider=p), webhooks, folder=tmp_path)


def test_an_empty_key_opens_nothing():
    form = {"content-type": "application/x-www-form-urlencoded"}
    request = WebhookRequest("POST", "https://x.example/webhooks/sms", form, b"Body=a")
    for algorithm, settings in (("sha1", {}), ("sha256", {SETTINGS: "key=one,algorithm=HMAC_SHA256"})):
        signature = base64.b64encode(hmac.new(b"", request.url.encode() + b"Bodya", algorithm).digest()).decode()
        forged = replace(request, headers={**form, **settings, "x-twilio-signature": signature})
        with pytest.raises(AccessDenied, match="configured"):
            TwilioKeys(("",), {"one": ""}).verify(forged)
