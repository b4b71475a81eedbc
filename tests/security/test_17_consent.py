"""Line 17, as far as it exists today: whoever a vendor has taken off its list is not written to again, and nobody takes
somebody else off it. Keywords, quiet hours and a ledger of consent come with issue 5, and with them the rest of this
line: a corpus of STOP, and quiet hours over the change of clocks in ten zones."""

from __future__ import annotations

import asyncio

import pytest

from roomkit import RoomKit, SMSChannel
from roomkit.models.delivery import DeliveryPolicy
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.testing import VirtualClock
from roomkit.testing.vendors.twilio import FakeTwilio
from tests.security.adapters import HOOK, PUBLIC
from tests.servers.house import house

WHO = "+15550123"


def kit_with(fake: FakeTwilio) -> RoomKit:
    kit = RoomKit(clock=VirtualClock())
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
