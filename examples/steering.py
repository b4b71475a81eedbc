"""Steering: a supervisor tells a running AI something, between two of its rounds, and stops another one at once."""

from __future__ import annotations

import asyncio

from roomkit import AIChannel, Cancel, InjectMessage, RoomKit, tool
from roomkit.models.ai import AIRequest
from roomkit.testing import ScriptedAI, VirtualClock, run
from roomkit.testing.ai import call


@tool(idempotent=True)
async def search_stock(item: str) -> str:
    """Searches all warehouses; takes a while."""
    await asyncio.sleep(5)
    return f"3 of {item} in Bern"


def after_the_search(request: AIRequest) -> str:
    told = [message.text for message in request.messages if "discount" in message.text]
    return f"Three are left in Bern. {'And you get 10 % off.' if told else ''}"


brain = ScriptedAI([call("search_stock", item="lamp")], after_the_search, ["So, ", 60.0, "a very long story"])
kit = RoomKit(clock=VirtualClock())
kit.register_channel(AIChannel("assistant", brain).configure(tools=[search_stock]), default=True)


async def main() -> None:
    async with kit:
        room = await kit.create_room()
        question = await kit.send(room.id, "Have you got a desk lamp?", by="ann")
        await asyncio.sleep(1)  # the tool is running
        await kit.steer(room.id, InjectMessage("Offer a discount of 10 %.", role="system"))
        await question.settled()

        question = await kit.send(room.id, "Tell me a story", by="ann")
        await asyncio.sleep(1)  # it has begun to talk
        await kit.steer(room.id, Cancel("enough"))
        await question.settled()

        for event in await kit.events(room.id):
            if event.source.channel_id == "assistant" and event.text:
                print(f"{event.text.strip()}   ({event.metadata['end_reason']})")


if __name__ == "__main__":
    run(main())  # virtual time: the waiting costs none
