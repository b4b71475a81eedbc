"""A text comes in over Twilio, the room answers, and the vendor's bad days change nothing."""

from __future__ import annotations

import random

from roomkit import RoomKit
from roomkit.channels import SMSChannel
from roomkit.models.delivery import DeliveryState, DeliveryStatus
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.testing import FakeTwilio

ADA = "+15550123"


def made(fake: FakeTwilio) -> tuple[RoomKit, TwilioSMSProvider]:
    provider = TwilioSMSProvider(fake.options(), transport=fake.transport())
    kit = RoomKit()
    kit.register_channel(SMSChannel("sms", provider=provider))

    @kit.on_message
    async def reply(ctx, message):
        return f"You said: {message.text}"

    return kit, provider


async def test_a_text_is_answered_once_in_parts_however_often_it_arrives():
    fake = FakeTwilio()
    kit, provider = made(fake)
    requests = fake.disorder([fake.text(ADA, "word " * 400)], random.Random(2), repeats=3)
    async with kit:
        results = []
        for request in [*requests, *requests]:
            provider.verify(request)
            for message in provider.parse(request, "sms"):
                assert not isinstance(message, DeliveryStatus)
                results.append(await kit.process_inbound(message))
                await results[-1].settled()
        assert [result.duplicate for result in results] == [False, *(True for _ in results[1:])]
        assert len({result.room_id for result in results}) == 1
        assert [message.to for message in fake.messages] == [ADA, ADA]
        assert " ".join(message.body for message in fake.messages).startswith("You said: word word")
        assert all(len(message.body) <= 1600 for message in fake.messages)
        (record,) = [r for r in await kit.deliveries(results[0].room_id, 0, 50) if r.channel_id == "sms"]
        assert (record.state, record.parts) == (DeliveryState.SENT, tuple(m.sid for m in fake.messages))


async def test_a_rate_limit_is_waited_for_and_a_lost_answer_is_marked():
    fake = FakeTwilio()
    kit, provider = made(fake)
    async with kit:
        fake.fail(429, 20429, retry_after=20)
        fake.lose_answer()
        (message,) = provider.parse(fake.text(ADA, "hi"), "sms")
        assert not isinstance(message, DeliveryStatus)
        result = await kit.process_inbound(message)
        await result.settled()
        (record,) = [r for r in await kit.deliveries(result.room_id, 0, 50) if r.channel_id == "sms"]
        assert (record.state, record.maybe_duplicate) == (DeliveryState.SENT, True)
        assert len(fake.messages) == 2, "the lost one had been accepted"


async def test_a_person_who_opted_out_ends_in_the_dead_letters_at_once():
    fake = FakeTwilio()
    fake.opted_out.add(ADA)
    kit, provider = made(fake)
    async with kit:
        (message,) = provider.parse(fake.text(ADA, "hi"), "sms")
        assert not isinstance(message, DeliveryStatus)
        result = await kit.process_inbound(message)
        await result.settled()
        (record,) = [r for r in await kit.deliveries(result.room_id, 0, 50) if r.channel_id == "sms"]
        assert (record.state, record.attempts) == (DeliveryState.FAILED, 1)
        assert fake.messages == []
