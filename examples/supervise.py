"""A person takes over in the middle of an AI's reply, answers herself, and hands back with a note that the AI reads."""

from __future__ import annotations

import asyncio

from roomkit import AIChannel, EventType, RoomKit
from roomkit.errors import FloorTaken
from roomkit.models.ai import AIRequest
from roomkit.testing import ScriptedAI, VirtualClock, run


def second_answer(request: AIRequest) -> str:
    note = next(message.text for message in request.messages if "Refunded" in message.text)
    return f"Nothing. (I have read: {note})"


talker = ScriptedAI([f"word{n} " for n in range(100)], second_answer, delay=0.1)
kit = RoomKit(clock=VirtualClock())
kit.register_channel(AIChannel("assistant", talker), default=True)


async def main() -> None:
    async with kit:
        room = await kit.create_room()
        await kit.send(room.id, "Tell me everything about your refund rules", by="ann")
        await asyncio.sleep(1.0)

        await kit.take_over(room.id, "eve")  # the running reply ends in the same step
        cut = (await kit.events(room.id, newest_first=True, limit=2))[-1]
        print(f"the AI was stopped after {cut.text.split()[-1]} ({cut.metadata['end_reason']})")
        try:
            await kit.take_over(room.id, "bob")
        except FloorTaken as error:
            print(error)

        await kit.send(room.id, "Eve here. I refund it right now.", by="eve")
        await kit.release(room.id, "eve", note="Refunded by hand; do not offer it again.")
        question = await kit.send(room.id, "Thanks! Anything else I should do?", by="ann")
        await question.settled()

        for event in await kit.events(room.id):
            if event.type in (EventType.MESSAGE, EventType.NOTE, EventType.FLOOR_CHANGED):
                print(f"{event.index:>2}  {event.type:<13} {event.source.participant_id or '':<5} {event.text[:90]}")


if __name__ == "__main__":
    run(main())  # virtual time: the waiting costs none
