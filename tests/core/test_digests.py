"""A flood reaches a phone as one message; nothing of it is lost, and nothing else waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from roomkit import InboundMessage, KitOptions, RoomKit
from roomkit.models.consent import ConsentPolicy, Digests, QuietHours
from roomkit.models.content import MediaContent
from roomkit.models.delivery import DeliveryState
from roomkit.testing import FakeChannel, VirtualClock

ANN = "+15550123"


def make(options: KitOptions, store: str | None = None, start: datetime | None = None) -> tuple[RoomKit, FakeChannel]:
    clock = VirtualClock(start=start) if start else VirtualClock()
    kit, sms = RoomKit(store, clock=clock, options=options), FakeChannel()
    kit.register_channel(sms)
    kit.register_channel(FakeChannel("web", "web"))
    return kit, sms


async def furnish(kit: RoomKit) -> None:
    await kit.create_room("r", channels=["web"])
    await kit.attach_channel("r", "sms", metadata={"address": ANN, "timezone": "UTC"}, participant_id="ann")
    await kit.add_member("r", "ann", display_name="Ann")


async def chat(kit: RoomKit, *texts: str) -> None:
    for text in texts:
        message = InboundMessage.text("web", "bob", text, participant_id="bob", sender_name="Bob")
        await (await kit.process_inbound(message, room_id="r")).settled()


async def test_what_comes_after_the_first_few_comes_as_one(tmp_path: Path) -> None:
    options = KitOptions(digests=Digests(over=3, window_s=60, lines=4))
    path = f"sqlite:///{tmp_path / 'rooms.db'}"
    kit, sms = make(options, path)
    async with kit:
        await furnish(kit)
        await chat(kit, *(f"line {n}" for n in range(9)))
        await (await kit.send("r", "from the host")).settled()
        picture = MediaContent(url="https://x.example/a.png", mime_type="image/png", caption="a picture")
        shown = InboundMessage(channel_id="web", sender_id="bob", content=picture, participant_id="bob")
        await (await kit.process_inbound(shown, room_id="r")).settled()
        assert sms.texts[:4] == ["Bob: line 0", "Bob: line 1", "Bob: line 2", "from the host"]
        assert len(sms.texts) == 5
        await asyncio.sleep(30)
    kit, sms = make(options, path)
    async with kit:
        await asyncio.sleep(31)
        assert sms.texts == [
            "6 messages while you were away:\nBob: line 3\nBob: line 4\nBob: line 5\nBob: line 6\n… and 2 more"
        ]
        records = {r.index: r for r in await kit.deliveries("r") if r.channel_id == "sms"}
        assert [r.reason for r in records.values() if r.state is DeliveryState.SKIPPED] == ["in_digest"] * 6
        assert not [r for r in records.values() if r.state is DeliveryState.HELD]
        await chat(kit, "later")
        assert sms.texts[-1] == "Bob: later"
        await asyncio.sleep(3600)
        assert len(sms.texts) == 2


async def test_a_few_that_waited_come_as_they_are() -> None:
    kit, sms = make(KitOptions(digests=Digests(over=3, window_s=60)))
    async with kit:
        await furnish(kit)
        await chat(kit, *"abcde")
        await asyncio.sleep(61)
        assert sms.texts == ["Bob: a", "Bob: b", "Bob: c", "Bob: d", "Bob: e"]


async def test_a_night_of_talk_is_one_message_in_the_morning_unless_stopped() -> None:
    night = datetime(2026, 1, 10, 23, 0, tzinfo=UTC)
    options = KitOptions(digests=Digests(over=3), quiet_hours=QuietHours(), consent=ConsentPolicy(confirm=False))
    for stopped in (False, True):
        start = night - (
            datetime.fromtimestamp(asyncio.get_running_loop().time(), UTC) - datetime.fromtimestamp(0, UTC)
        )
        kit, sms = make(options, start=start)
        async with kit:
            await furnish(kit)
            await chat(kit, *"abcdefgh")
            if stopped:
                await kit.consent.stop("sms", ANN)
            await asyncio.sleep(9 * 3600 + 5)
            assert len(sms.texts) == (0 if stopped else 1)
            assert stopped or sms.texts[0].startswith("8 messages while you were away:\nBob: a\n")
