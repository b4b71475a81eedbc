"""Who says what to whom: read-only, muted, seen by some. Muting silences the voice, not the brain."""

from __future__ import annotations

from roomkit import ChannelOutput, EventDraft, InboundMessage, RoomKit, TextContent
from roomkit.models.event import EventSource, EventType
from roomkit.models.room import Access, Task
from roomkit.testing import FakeChannel, VirtualClock, run

ann, ben = FakeChannel("ann", "sms"), FakeChannel("ben", "sms")
kit = RoomKit(clock=VirtualClock())
kit.register_channel(ann)
kit.register_channel(ben)


@kit.on_message
async def assistant(ctx, message):
    answer = EventDraft(
        source=EventSource(channel_id="app", channel_type="app"), content=TextContent(text=f"About {message.text!r}...")
    )
    task = Task(id=f"task-{message.index}", title=f"think about {message.text!r}")
    return ChannelOutput(response_events=(answer,), tasks=(task,))


async def say(channel: str, text: str) -> None:
    result = await kit.process_inbound(InboundMessage.text(channel, channel, text), room_id="lobby")
    await result.settled()


async def main() -> None:
    async with kit:
        await kit.create_room("lobby", channels=["ann", "ben", "app"])
        await say("ann", "one")
        await kit.mute("lobby", "app", by="eve")
        await say("ann", "two")
        await kit.set_access("lobby", "ben", Access.READ_ONLY)
        await say("ben", "three")
        await kit.set_visibility("lobby", "ann", "internal")
        await say("ann", "four")
        for event in await kit.events("lobby"):
            if event.type is EventType.MESSAGE:
                why = f"  not delivered: {event.blocked_by}" if event.blocked else f"  seen by: {event.visibility}"
                print(f"{event.index:>2}  {event.source.channel_id:<4} {event.text:<15}{why}")
        print("ben's phone:", ben.texts)
        print("kept although muted:", [task.title for task in await kit.tasks("lobby")])


if __name__ == "__main__":
    run(main())
