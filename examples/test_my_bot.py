"""A bot's tests: say, expect, let time pass. Run them with pytest (they take no real time), or this file as it is."""

from __future__ import annotations

from roomkit import RoomKit
from roomkit.models.room import RoomStatus, RoomTimers
from roomkit.testing import Conversation, FakeChannel, VirtualClock, run


def make_kit() -> RoomKit:
    kit = RoomKit(clock=VirtualClock())
    kit.room_template(timers=RoomTimers(inactive_after_seconds=3600, closed_after_seconds=86_400))

    @kit.on_message
    async def reply(ctx, message):
        past = [event.text for event in await ctx.history(10) if event.source.channel_id != "app"]
        return f"{len(past)} so far, the first was: {past[0]}"

    return kit


async def test_it_remembers() -> None:
    async with Conversation(make_kit()) as chat:
        await chat.say("Hello")
        await chat.say("How are you?")
        chat.expect("2 so far, the first was: Hello")


async def test_a_silent_room_closes_after_a_day() -> None:
    async with Conversation(make_kit()) as chat:
        await chat.say("Hello")
        await chat.advance(3600 + 86_400 + 1)
        assert (await chat.kit.get_room(chat.room_id)).status is RoomStatus.CLOSED


async def test_a_phone_that_is_off_is_tried_again() -> None:
    phone = FakeChannel("sms", "sms", temper=lambda _, attempt: TimeoutError() if attempt == 0 else None)
    async with Conversation(make_kit(), channel=phone) as chat:
        await chat.say("Hello")
        chat.expect("1 so far")
        assert len(phone.attempts) == 2


if __name__ == "__main__":
    for test in (test_it_remembers, test_a_silent_room_closes_after_a_day, test_a_phone_that_is_off_is_tried_again):
        run(test())
        print(f"passed: {test.__name__}")
