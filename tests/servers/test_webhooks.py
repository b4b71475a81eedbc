"""Webhooks at the door: fail closed, verified over the raw body and the configured URL, one effect, never lost."""

from __future__ import annotations

import asyncio

import pytest

from roomkit.channels.messaging import SMSChannel
from roomkit.channels.transport import TransportChannel
from roomkit.core.memory import MemoryStore
from roomkit.errors import Overloaded, StoreUnavailable, Unavailable
from roomkit.kit import RoomKit
from roomkit.models.content import MediaContent
from roomkit.models.delivery import InboundMessage, WebhookRequest
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.testing import FakeMessages, VirtualClock
from roomkit.testing.vendors.twilio import FakeTwilio
from tests.servers.house import SECRET, House, MemoryBlobs, house

PUBLIC = "https://rooms.example"


def sms_kit(fake: FakeTwilio, store: MemoryStore | None = None) -> RoomKit:
    kit = RoomKit(store, token_secrets=[SECRET])
    provider = TwilioSMSProvider(fake.options(), transport=fake.transport())
    kit.register_channel(SMSChannel("sms", provider=provider, from_number=fake.number))
    return kit


async def deliver(h: House, request: WebhookRequest, **headers: str):
    path = "/" + request.url.split("/", 3)[3]
    return await h.http.post(path, content=request.body, headers={**request.headers, **headers})


async def test_a_text_message_becomes_a_room_once_however_often_it_comes() -> None:
    fake = FakeTwilio()
    async with house(sms_kit(fake), public_url=PUBLIC) as h:
        request = fake.text("+15550123", "héllo 🙂 there")
        answers = await asyncio.gather(*(deliver(h, request) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
        assert "<Response" in answers[0].text
        assert (await deliver(h, request)).status_code == 200
        (room,) = await h.kit.list_rooms()
        messages = [event for event in await h.kit.events(room.id) if event.type == "message"]
        assert [event.text for event in messages] == ["héllo 🙂 there"]


async def test_status_callbacks_move_the_delivery() -> None:
    fake = FakeTwilio()
    async with house(sms_kit(fake), public_url=PUBLIC) as h:
        await h.kit.create_room("r1", channels=[])
        await h.kit.attach_channel("r1", "sms", metadata={"phone_number": "+15550123"})
        sent = await h.kit.send("r1", "hello")
        await sent.settled()
        for report in fake.reports(fake.messages[0], "delivered", "sent"):
            assert (await deliver(h, report)).status_code == 200
        (record,) = await h.kit.deliveries("r1")
        assert record.state == "delivered"


async def test_a_vendor_gets_a_link_to_a_stored_file_that_it_can_fetch() -> None:
    fake = FakeTwilio()
    kit = sms_kit(fake)
    kit._blobs = MemoryBlobs()
    async with house(kit, public_url=PUBLIC) as h:
        await kit.create_room("r1", channels=[])
        await kit.attach_channel("r1", "sms", metadata={"phone_number": "+15550123"})

        async def body():
            yield b"picture"

        info = await kit.blobs.put("default", body(), mime_type="image/png", room_id="r1")
        sent = await kit.send("r1", MediaContent(url=f"blob:{info.id}", mime_type="image/png", caption="look"))
        await sent.settled()
        (url,) = fake.messages[0].media
        assert url.startswith(f"{PUBLIC}/media/")
        assert (await h.http.get(url.removeprefix(PUBLIC))).content == b"picture"


@pytest.mark.parametrize("spoil", ["body", "signature", "none", "path"])
async def test_what_is_not_signed_is_refused_and_stores_nothing(spoil: str) -> None:
    fake = FakeTwilio()
    async with house(sms_kit(fake), public_url=PUBLIC) as h:
        request = fake.text("+15550123", "hello")
        headers = dict(request.headers)
        name = next(name for name in headers if "signature" in name.lower())
        body, path = request.body, "/webhooks/sms"
        if spoil == "body":
            body = body.replace(b"hello", b"hallo")
        elif spoil == "signature":
            headers[name] = headers[name][:-2] + "A="
        elif spoil == "none":
            del headers[name]
        else:
            path = "/webhooks/sms?extra=1"
        refused = await h.http.post(path, content=body, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
        assert await h.kit.list_rooms() == []


async def test_only_the_configured_url_counts_whatever_the_headers_claim() -> None:
    fake = FakeTwilio()
    spoofed = {
        "host": "evil.example",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "http",
        "forwarded": "host=evil.example;proto=http",
        "x-original-url": "/webhooks/other",
    }
    async with house(sms_kit(fake), public_url=PUBLIC) as h:
        for n, (name, value) in enumerate(spoofed.items()):
            request = fake.text("+15550123", f"m{n}")
            assert (await deliver(h, request, **{name: value})).status_code == 200, name
    elsewhere = FakeTwilio(webhook_url="https://evil.example/webhooks/sms")
    async with house(sms_kit(elsewhere), public_url=PUBLIC) as h:
        request = elsewhere.text("+15550123", "hi")
        assert (await deliver(h, request, host="evil.example")).status_code == 403
    async with house(sms_kit(fake)) as h:
        assert (await deliver(h, fake.text("+15550123", "hi"), host="rooms.example")).status_code == 403


async def test_a_channel_that_cannot_verify_takes_nothing() -> None:
    kit = RoomKit()
    kit.register_channel(TransportChannel("bare", "sms"))
    async with house(kit) as h:
        for channel, status in (("bare", 403), ("web", 403), ("none", 404)):
            assert (await h.http.post(f"/webhooks/{channel}", content=b"{}")).status_code == status
        assert (await h.http.get("/webhooks/bare")).status_code == 403
        assert await kit.list_rooms() == []


async def test_what_cannot_be_stored_is_not_acknowledged() -> None:
    class Broken(MemoryStore):
        error: Exception | None = None

        async def commit(self, batch):
            if self.error is not None:
                raise self.error
            return await super().commit(batch)

    fake, store = FakeTwilio(), Broken()
    async with house(sms_kit(fake, store), public_url=PUBLIC) as h:
        request = fake.text("+15550123", "hello")
        for error, status in ((StoreUnavailable("disk full"), 503), (Overloaded("full", retry_after=3), 429)):
            store.error = error
            refused = await deliver(h, request)
            assert refused.status_code == status
            assert refused.headers["retry-after"]
        store.error = None
        assert (await deliver(h, request)).status_code == 200
        h.app.door.draining = True
        assert (await deliver(h, fake.text("+15550123", "later"))).status_code == 503


async def test_bodies_have_a_limit() -> None:
    fake = FakeTwilio()
    async with house(sms_kit(fake), public_url=PUBLIC, webhook_bytes=100) as h:
        assert (await deliver(h, fake.text("+15550123", "x" * 200))).status_code == 413


async def test_a_tenants_webhook_makes_the_tenants_room() -> None:
    fake = FakeTwilio()
    kit = RoomKit()
    provider = TwilioSMSProvider(fake.options(), transport=fake.transport())
    kit.tenant("acme").register_channel(SMSChannel("sms", provider=provider, from_number=fake.number))
    async with house(kit, public_url=PUBLIC) as h:
        assert (await deliver(h, fake.text("+15550123", "hi"))).status_code == 200
        assert len(await kit.tenant("acme").list_rooms()) == 1
        assert await kit.list_rooms() == []


async def test_what_was_taken_in_is_acknowledged_once_and_costs_nothing_when_that_fails() -> None:
    class Polite(FakeMessages):
        def __init__(self) -> None:
            super().__init__("polite")
            self.told: list[str | None] = []

        async def acknowledge(self, message: InboundMessage) -> None:
            self.told.append(message.external_id)
            if message.external_id == "m2":
                raise Unavailable("polite", "gone")
            if message.external_id == "m3":
                await asyncio.sleep(1e6)

    polite, kit = Polite(), RoomKit(clock=VirtualClock())
    kit.register_channel(TransportChannel("polite", "sms", provider=polite))
    async with house(kit, public_url=PUBLIC) as h:
        for name in ("m1", "m1", "m2", "m3"):
            request = polite.webhook(id=name, from_="+1", text="hi")
            answer = await h.http.post("/webhooks/polite", content=request.body, headers=dict(request.headers))
            assert answer.status_code == 200
        assert polite.told == ["m1", "m2", "m3"]
