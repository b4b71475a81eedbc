"""Line 17, through signed webhooks: after a stop nothing goes out any more, whatever already waits; who is not the
sender stops nobody; what a vendor has on its own list is not tried again. The corpus of keywords is in
tests/core/test_keywords.py, the nights of a year in ten zones in tests/core/test_quiet.py."""

from __future__ import annotations

import asyncio

import pytest

from roomkit import AIChannel, KitOptions, RoomKit, SMSChannel
from roomkit.channels import EmailChannel
from roomkit.models.consent import ConsentPolicy
from roomkit.models.delivery import DeliveryPolicy, WebhookRequest
from roomkit.providers.sendgrid.email import SendGridProvider
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.testing import VirtualClock
from roomkit.testing.ai import ScriptedAI
from roomkit.testing.vendors.sendgrid import FakeSendGrid
from roomkit.testing.vendors.twilio import FakeTwilio
from tests.security.adapters import HOOK, PUBLIC, WEBHOOKS, WebhookCase
from tests.servers.house import House, house

WHO = "+15550123"


ON = KitOptions(consent=ConsentPolicy())


def kit_with(fake: FakeTwilio, options: KitOptions | None = None) -> RoomKit:
    kit = RoomKit(clock=VirtualClock(), options=options)
    sms = SMSChannel("hook", provider=TwilioSMSProvider(fake.options(), transport=fake.transport()))
    sms.delivery_policy = DeliveryPolicy(max_retries=5, base_delay=1.0)
    kit.register_channel(sms)
    return kit


async def test_who_has_opted_out_is_tried_once_and_never_again() -> None:
    """A refusal of this kind is final: no retry, no resend by itself, also for what already waits in the outbox."""
    fake = FakeTwilio(webhook_url=HOOK)
    async with kit_with(fake) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "hook", metadata={"phone_number": WHO})
        fake.fail(503, 20503, "try later")
        waiting = [await kit.send("r", f"offer {n}") for n in range(3)]
        fake.opted_out.add(WHO)
        for sent in waiting:
            await sent.settled()
        await asyncio.sleep(3600)
        assert fake.messages == []
        records = await kit.deliveries("r")
        assert {record.state for record in records} == {"failed"}
        assert all(record.attempts <= 2 for record in records)
        assert len(await kit.dead_letters()) == 3


@pytest.mark.parametrize("word", ["STOP", "stop", "Stop!", "UNSUBSCRIBE", "START", "HELP"])
async def test_a_forged_stop_has_no_effect(word: str) -> None:
    fake = FakeTwilio(webhook_url=HOOK)
    async with house(kit_with(fake), public_url=PUBLIC) as h:
        request = fake.text(WHO, word, OptOutType="STOP")
        forged = {**request.headers, "x-twilio-signature": "AAAA"}
        answer = await h.http.post("/webhooks/hook", content=request.body, headers=forged)
        assert answer.status_code == 403
        assert await h.kit.list_rooms() == []


async def test_a_stop_is_kept_as_the_vendor_tells_it() -> None:
    """What a later ledger is made from: the words, and what the vendor made of them."""
    fake = FakeTwilio(webhook_url=HOOK)
    async with house(kit_with(fake), public_url=PUBLIC) as h:
        request = fake.text(WHO, "STOP", OptOutType="STOP")
        assert (await h.http.post("/webhooks/hook", content=request.body, headers=request.headers)).status_code == 200
        (room,) = await h.kit.list_rooms()
        event = next(e for e in await h.kit.events(room.id) if e.text == "STOP")
        assert event.channel_data["twilio"]["OptOutType"] == "STOP"


async def heard(house: House, request: WebhookRequest) -> None:
    answer = await house.http.post("/webhooks/hook", content=request.body, headers=request.headers)
    assert answer.status_code == 200


async def test_after_a_stop_nothing_goes_out_whatever_waits() -> None:
    """Under way and refused for now, in the outbox behind it, sent later, by the host, by an AI, in another room."""
    fake = FakeTwilio(webhook_url=HOOK)
    kit = kit_with(fake, ON)
    brain = ScriptedAI("answer", repeat=True)
    kit.register_channel(AIChannel("ai", brain), default=True)
    async with house(kit, public_url=PUBLIC) as h:
        await heard(h, fake.text(WHO, "hello"))
        await asyncio.sleep(30)
        (room,) = await kit.list_rooms()
        before = len(fake.messages)
        for _ in range(5):
            fake.fail(503, 20503, "try later")
        waiting = [await kit.send(room.id, f"offer {n}", addressed_to=()) for n in range(3)]
        await heard(h, fake.text(WHO, "Stop."))
        await kit.create_room("other", channels=[])
        await kit.attach_channel("other", "hook", metadata={"phone_number": WHO, "address": WHO})
        waiting += [await kit.send("other", "elsewhere"), await kit.send(room.id, "and now?")]
        for sent in waiting:
            await sent.settled()
        await asyncio.sleep(7 * 86_400)
        assert [m.body for m in fake.messages[before:]] == [
            "You will get no more messages from us here. Reply START to get them again."
        ]
        await heard(h, fake.text(WHO, "START"))
        await (await kit.send("other", "welcome")).settled()
        assert fake.messages[-1].body == "welcome"


async def test_a_vendor_that_answers_by_itself_is_left_to_it() -> None:
    fake = FakeTwilio(webhook_url=HOOK)
    async with house(kit_with(fake, ON), public_url=PUBLIC) as h:
        await heard(h, fake.text(WHO, "QUIT", OptOutType="STOP"))
        await asyncio.sleep(5)
        assert fake.messages == []
        assert not await h.kit.consent.may("sms", WHO)


async def test_who_unsubscribes_at_the_vendor_is_left_alone() -> None:
    """A signed report of the vendor is as good as the person's word."""
    clock = VirtualClock()
    fake = FakeSendGrid(webhook_url=HOOK, clock=clock)
    kit = RoomKit(clock=clock, options=ON)
    mail = EmailChannel("hook", provider=SendGridProvider(fake.options(), transport=fake.transport(), clock=clock))
    kit.register_channel(mail)
    async with house(kit, public_url=PUBLIC) as h:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "hook", metadata={"email_address": "ann@x.example", "address": "ann@x.example"})
        await (await kit.send("r", "news")).settled()
        (letter,) = fake.letters
        for request in fake.reports(letter, "unsubscribe"):
            await heard(h, request)
        await (await kit.send("r", "more news")).settled()
        assert len(fake.letters) == 1
        assert [(e.source, e.address) for e in await kit.consent.entries()] == [("vendor", "ann@x.example")]


async def test_what_the_vendor_refuses_for_good_is_in_the_ledger() -> None:
    fake = FakeTwilio(webhook_url=HOOK)
    async with kit_with(fake, ON) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "hook", metadata={"phone_number": WHO, "address": WHO})
        fake.opted_out.add(WHO)
        await (await kit.send("r", "one")).settled()
        assert [(e.source, e.evidence, e.granted) for e in await kit.consent.entries(WHO)] == [
            ("vendor", "21610", False)
        ]
        fake.opted_out.clear()
        await (await kit.send("r", "two")).settled()
        assert fake.messages == []


@pytest.mark.parametrize("case", WEBHOOKS.values(), ids=WEBHOOKS)
async def test_no_forged_keyword_reaches_the_ledger(case: WebhookCase) -> None:
    """At every door: without what proves that the vendor sent it, and with that of another account. (Bodies that were
    altered after they were signed: line 2.)"""
    clock = VirtualClock()
    kit = case.kit(clock)
    async with house(kit, public_url=PUBLIC) as h:
        request = case.signed(clock, sender=WHO, text="STOP")
        kept = ("content-type", "content-length")
        bare = {name: value for name, value in request.headers.items() if name in kept}
        wrong = {name: value if name in kept else value[::-1] for name, value in request.headers.items()}
        for headers in (bare, wrong):
            answer = await h.http.post("/webhooks/hook", content=request.body, headers=headers)
            assert answer.status_code in (400, 401, 403)
        assert await kit.list_rooms() == []
