"""One person on two channels gets one copy, where she was last, and the other way when that fails."""

from __future__ import annotations

from roomkit import InboundMessage, RoomKit
from roomkit.models.delivery import DeliveryResult
from roomkit.testing import FakeChannel, VirtualClock, run

off: set[str] = set()


def temper(event, attempt):
    return DeliveryResult(success=False, error="unreachable", retryable=False) if "phone" in off else None


phone = FakeChannel("phone", "sms", temper=temper)
mail = FakeChannel("mail", "email")
kit = RoomKit(clock=VirtualClock())
kit.register_channel(phone)
kit.register_channel(mail)


async def main() -> None:
    async with kit:
        await kit.create_room("ann", channels=[])
        await kit.attach_channel("ann", "phone", participant_id="ann", metadata={"address": "+15550101"})
        await kit.attach_channel("ann", "mail", participant_id="ann", metadata={"address": "ann@example.com"})
        for channel, is_off in (("phone", False), ("mail", False), ("phone", True)):
            off.update({"phone"} if is_off else ())
            message = InboundMessage.text(channel, "ann", "a question", participant_id="ann")
            await kit.process_inbound(message, room_id="ann")
            phones, mails = len(phone.texts), len(mail.texts)
            answer = await kit.send("ann", "an answer", by="eve")
            await answer.settled()
            state = "off" if is_off else "on"
            print(f"she wrote from her {channel}, her phone is {state}: the answer reached", end=" ")
            print("her phone" if len(phone.texts) > phones else "her mail" if len(mail.texts) > mails else "nobody")
            for record in await kit.deliveries("ann", answer.event.index):
                print(f"   {record.channel_id}: {record.state} {record.reason or ''}")


if __name__ == "__main__":
    run(main())
