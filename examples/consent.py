"""STOP, START, a night, and a talkative room: who is written to, and when."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from roomkit import InboundMessage, KitOptions, RoomKit
from roomkit.models.consent import ConsentPolicy, QuietHours
from roomkit.models.redaction import Redaction
from roomkit.testing import FakeChannel

ANN = "+442079460101"


class HalfPastEleven:
    """A clock that stands still, late in the evening."""

    def now(self) -> datetime:
        return datetime(2026, 1, 10, 23, 30, tzinfo=UTC)


options = KitOptions(
    consent=ConsentPolicy(opt_in=frozenset({"marketing"})),
    quiet_hours=QuietHours(zone="Europe/London"),
    redaction=Redaction(store=True),
)
phone = FakeChannel("sms", "sms")
kit = RoomKit(options=options, clock=HalfPastEleven())
kit.register_channel(phone)


async def hears(text: str) -> str:
    result = await kit.process_inbound(InboundMessage.text("sms", ANN, text))
    await result.settled()
    return result.room_id or ""


async def main() -> None:
    async with kit:
        room = await kit.create_room(channels=[])
        await kit.attach_channel(room.id, "sms", metadata={"address": ANN})
        for text, purpose in (
            ("Your parcel is on its way", None),
            ("Your code is 4711", "security"),
            ("-20 %!", "marketing"),
        ):
            sent = await kit.send(room.id, text, metadata={"purpose": purpose} if purpose else None)
            await sent.settled()
        await hears("Sure, call me on oh seven seven double oh nine double oh one two three")
        await hears("STOP")
        await (await kit.send(room.id, "One more thing ...")).settled()
        await hears("Start!")
        await (await kit.send(room.id, "Welcome back")).settled()

        print("what the room says")
        for event in await kit.events(room.id):
            if event.text:
                print(f"  {event.source.channel_id:<7} {event.text}")
        print("\nwhat became of it")
        for record in await kit.deliveries(room.id):
            print(f"  #{record.index} {record.state:<8} {record.reason or ''}")
        print("\nthe ledger")
        for entry in await kit.consent.entries(ANN):
            print(f"  {entry.who} {'allowed' if entry.granted else 'stopped'} {entry.purpose}: {entry.evidence}")


if __name__ == "__main__":
    asyncio.run(main())
