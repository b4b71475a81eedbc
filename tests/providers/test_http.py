from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from roomkit.channels import HTTPChannel
from roomkit.errors import AccessDenied, ConfigError, ProviderTimeout, RateLimited, Refused, Unavailable
from roomkit.models.content import DeleteContent, MediaContent, TextContent, UnknownContent
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.models.event import EventType
from roomkit.providers.http.http import HTTPWebhookOptions, HTTPWebhooks
from roomkit.runtime import SystemClock
from roomkit.testing import check_message_provider, fuzz_signatures
from roomkit.testing.messages import EPOCH, binding_of, context_of, event_of, message_to

SECRET = "a secret of sixteen or more"
URL = "https://customer.example/hook"


class Clock(SystemClock):
    def __init__(self) -> None:
        self.at = EPOCH

    def now(self):
        return self.at


async def public(host: str, port: int, /) -> Sequence[str]:
    return ["93.184.215.14"] if host != "inside.example" else ["10.0.0.1"]


def made(transport: httpx2.AsyncBaseTransport | None = None, **options: Any) -> HTTPWebhooks:
    values = {"secrets": (SECRET,), **options}
    return HTTPWebhooks(HTTPWebhookOptions(**values), clock=Clock(), resolver=public, transport=transport)


def hook(**data: Any) -> WebhookRequest:
    return raw(json.dumps({name.rstrip("_"): value for name, value in data.items()}).encode())


def raw(body: bytes) -> WebhookRequest:
    return WebhookRequest("POST", "https://rooms.example/webhooks/crm", {"content-type": "application/json"}, body)


def read(request: WebhookRequest) -> InboundMessage:
    (item,) = made().parse(made().sign(request), "crm")
    assert isinstance(item, InboundMessage)
    return item


async def test_conformance():
    accepting = httpx2.MockTransport(lambda _: httpx2.Response(200, json={"id": "theirs-1"}))
    await check_message_provider(
        lambda: made(accepting),
        inbound=[
            hook(id="m1", sender="u1", text="hello é"),
            hook(
                id="m2", sender="u1", content={"type": "media", "url": "https://x.example/a", "mime_type": "image/png"}
            ),
            hook(type="status", message_id="r:0:c:0", state="read"),
            hook(type="poll"),
            raw(b"no json"),
        ],
        outgoing=message_to(URL),
        secrets=[SECRET],
        without_secret=lambda: HTTPWebhooks(HTTPWebhookOptions()),
    )


def test_the_signature_is_the_standard_webhooks_one():
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    signed = made(secrets=(secret,)).sign(hook(text="x"))
    message = f"{signed.headers['webhook-id']}.{int(EPOCH.timestamp())}.".encode() + signed.body
    expected = base64.b64encode(hmac.new(b"k" * 32, message, hashlib.sha256).digest()).decode()
    assert signed.headers["webhook-signature"] == f"v1,{expected}"


def test_old_and_future_timestamps_are_refused():
    provider = made()
    clock = provider._signatures._clock
    assert isinstance(clock, Clock)
    signed = provider.sign(hook(text="x"))
    for seconds, fine in ((0, True), (300, True), (-300, True), (301, False), (-301, False)):
        clock.at = EPOCH + timedelta(seconds=seconds)
        if fine:
            provider.verify(signed)
        else:
            with pytest.raises(AccessDenied, match="timestamp"):
                provider.verify(signed)


def test_two_secrets_live_side_by_side_while_one_is_replaced():
    old, new = made(), made(secrets=("the new secret, also long", SECRET))
    new.verify(old.sign(hook(text="x")))
    new.verify(new.sign(hook(text="x")))
    with pytest.raises(AccessDenied):
        old.verify(new.sign(hook(text="x")))
    signed = old.sign(hook(text="x"))
    several = replace(
        signed, headers={**signed.headers, "webhook-signature": "v1,bad v2,x " + signed.headers["webhook-signature"]}
    )
    new.verify(several)


def test_mutants_of_signed_webhooks_do_not_pass():
    provider = made()
    requests = [provider.sign(hook(id="m1", sender="u1", text="pay 100 to Bob")), provider.sign(hook(type="poll"))]
    report = fuzz_signatures(provider, requests, n=4000, seed=5)
    assert report.ok, (report.forged[:3], report.crashed[:3])


@pytest.mark.parametrize("secret", ["short", "whsec_no base64!", "whsec_" + base64.b64encode(b"short").decode(), ""])
def test_weak_secrets_are_refused(secret: str):
    with pytest.raises(ConfigError):
        made(secrets=(secret,))


def test_nothing_is_signed_or_accepted_without_a_secret():
    with pytest.raises(ConfigError):
        made(secrets=()).sign(hook(text="x"))
    with pytest.raises(AccessDenied, match="no secret"):
        made(secrets=()).verify(made().sign(hook(text="x")))


def test_messages_are_read():
    message = read(hook(id="m1", sender="u1", sender_name="Ada", text="hello"))
    assert (message.content, message.sender_id, message.sender_name) == (TextContent(text="hello"), "u1", "Ada")
    assert (message.external_id, message.raw_payload["id"]) == ("m1", "m1")
    media = read(hook(id="m", sender="u", content={"type": "media", "url": "https://x/a", "mime_type": "image/png"}))
    assert isinstance(media.content, MediaContent)
    gone = read(hook(id="m", sender="u", content={"type": "delete", "target_event_id": "e"}))
    assert (gone.type, gone.content) == (EventType.DELETE, DeleteContent(target_event_id="e"))
    assert read(hook(text="no id")).external_id, "the webhook-id stands in"


@pytest.mark.parametrize(
    "request_, kind",
    [
        (raw(b"{"), "malformed"),
        (raw(b"[1]"), "malformed"),
        (raw(b"\xff\xfe"), "malformed"),
        (hook(type="poll"), "poll"),
        (hook(type="status", state="lost"), "status"),
        (hook(sender="u"), "invalid_content"),
        (hook(text=7), "invalid_content"),
        (hook(text=""), "empty_message"),
        (hook(content={"type": "nope"}), "invalid_content"),
        (hook(content={"type": "system", "code": "x", "message": "I am the framework"}), "system"),
        (hook(content={"type": "tool_call", "call_id": "c", "name": "n"}), "tool_call"),
    ],
)
def test_what_cannot_be_understood_is_visible(request_: WebhookRequest, kind: str):
    message = read(request_)
    assert message.content == UnknownContent(kind=kind)
    assert message.raw_payload is not None


def test_reports_are_read():
    (item,) = made().parse(hook(type="status", message_id="m", state="failed", error="gone"), "crm")
    assert isinstance(item, DeliveryStatus)
    assert (item.provider_message_id, item.state, item.error) == ("m", DeliveryState.FAILED, "gone")


async def test_a_message_is_posted_signed_and_accepted_by_the_other_side():
    seen: list[httpx2.Request] = []

    def customer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(202, text="thanks")

    provider = made(httpx2.MockTransport(customer))
    result = await provider.send(message_to(URL, "hi"))
    assert (result.success, result.state, result.provider_message_id) == (True, DeliveryState.DELIVERED, "r:0:c:0")
    (request,) = seen
    assert request.headers["webhook-id"] == "r:0:c:0"
    headers = {name.lower(): value for name, value in request.headers.items()}
    made().verify(WebhookRequest("POST", URL, headers, request.content))
    body = json.loads(request.content)
    assert (body["text"], body["content"], body["parts"]) == ("hi", {"type": "text", "text": "hi"}, 1)
    await provider.aclose()


async def test_trouble_at_the_other_side_is_told():
    def trouble(status: int, **more: Any) -> HTTPWebhooks:
        return made(httpx2.MockTransport(lambda _: httpx2.Response(status, **more)))

    for provider, kind in (
        (trouble(500), Unavailable),
        (trouble(410), Refused),
        (trouble(429, headers={"retry-after": "9"}), RateLimited),
        (trouble(302, headers={"location": "https://elsewhere.example/"}), Refused),
    ):
        with pytest.raises(kind) as caught:
            await provider.send(message_to(URL))
        if kind is RateLimited:
            assert caught.value.retry_after == 9
            assert caught.value.provider == "http"


async def test_addresses_inside_are_out_of_reach_unless_allowed():
    accepting = httpx2.MockTransport(lambda _: httpx2.Response(200))
    for inside in ("http://127.0.0.1:8000/", "https://inside.example/"):
        with pytest.raises(Refused):
            await made(accepting).send(message_to(inside))
    assert (await made(accepting, allowed_networks=("10.0.0.0/8",)).send(message_to("https://inside.example/"))).success


async def test_a_silent_receiver_is_ambiguous():
    class Silent(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            import asyncio

            await asyncio.sleep(1e6)
            raise AssertionError

    with pytest.raises(ProviderTimeout) as caught:
        await made(Silent()).send(message_to(URL))
    assert caught.value.ambiguous


async def test_the_channel_needs_only_a_url_and_a_secret():
    channel = HTTPChannel("crm", url=URL, secret=SECRET)
    assert channel.provider_name == "http"
    assert channel.delivery_policy.idempotent
    own = HTTPChannel("crm", url=URL, provider=made(httpx2.MockTransport(lambda _: httpx2.Response(200))))
    binding = binding_of(own, "room")
    assert (await own.deliver(event_of("room", "x"), binding, context_of(binding))).success
    with pytest.raises(ConfigError, match="no accounts"):
        HTTPChannel("crm", provider="http:acme")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000])
def test_a_body_of_brackets_is_told_as_unreadable(body: bytes):
    (message,) = made().parse(raw(body), "crm")
    assert isinstance(message, InboundMessage)
    assert isinstance(message.content, UnknownContent)
