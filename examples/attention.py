"""Who needs me? An AI asks for a person, the queue has clocks, a lease that lapses puts the room back."""

from __future__ import annotations

import asyncio

from roomkit import AIChannel, RoomKit
from roomkit.testing import ScriptedAI, VirtualClock, run
from roomkit.testing.ai import call

brain = ScriptedAI(
    [call("request_human", reason="the customer wants to complain")], "A person will join us. It may take a while."
)
kit = RoomKit(clock=VirtualClock())
kit.register_channel(AIChannel("assistant", brain).configure(human_tool=True), default=True)


async def queue(moment: str) -> None:
    print(moment)
    for room in await kit.attention():
        waited = (kit.now() - room.attention.since).total_seconds()
        print(f"   {room.id}: {room.attention.reason}, waiting for {waited:.0f} s; floor: {room.floor.mode}")


async def main() -> None:
    async with kit:
        await kit.create_room("ann")
        await kit.create_room("ben")
        await (await kit.send("ann", "I want to complain!", by="ann")).settled()
        await asyncio.sleep(40)
        await kit.request_human("ben", "the payment failed twice", by="billing", priority=1)
        await asyncio.sleep(20)
        await queue("most urgent first, then the longest wait:")
        await kit.take_over("ben", "eve", lease_s=120)
        await queue("eve has taken ben's room:")
        await asyncio.sleep(121)  # she has gone to lunch
        await queue("her lease has lapsed:")


if __name__ == "__main__":
    run(main())  # virtual time: the waiting costs none
