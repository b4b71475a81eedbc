"""A recipient that cannot be reached: retried with patience, given up in the open, sent again by hand. Nobody waits."""

from __future__ import annotations

from roomkit import InboundMessage, RoomKit
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.models.event import EventType
from roomkit.testing import FakeChannel, VirtualClock, run

off = {"ann"}


def temper(event, attempt):
    if event.room_id in off:
        return DeliveryResult(success=False, error="the phone is off", retryable=True)
    return None


phone = FakeChannel("sms", "sms", temper=temper, policy=DeliveryPolicy(max_retries=3, base_delay=1.0))
kit = RoomKit(clock=VirtualClock())
kit.register_channel(phone)


async def main() -> None:
    async with kit:
        for name, number in (("ann", "+15550101"), ("ben", "+15550102")):
            await kit.create_room(name, channels=[])
            await kit.process_inbound(InboundMessage.text("sms", number, "Hi"), room_id=name)
        results = [await kit.send(name, "Your table is ready", by="waiter") for name in ("ann", "ben")]
        for result in results:
            await result.settled()
        print("delivered:", phone.texts, "attempts for ann:", len([a for a in phone.attempts if a[0] == "ann"]))
        (letter,) = await kit.dead_letters()
        print(f"dead letter in {letter['room_id']}: {letter['error']}")
        told = [event for event in await kit.events("ann") if event.type is EventType.DELIVERY_FAILED]
        print("and the room knows:", told[0].content.data)

        off.clear()
        await kit.resend(letter["id"])
        await kit.drain(10)
        print("sent again:", phone.delivered, "letters left:", await kit.dead_letters())


if __name__ == "__main__":
    run(main())  # virtual time: the waiting costs none
