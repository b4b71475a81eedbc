"""An AI with tools: typed functions, called in parallel, journaled in the room before and after they run.

The model is a script here, so that no key is needed; `AIChannel("assistant", "openai:gpt-4.1")` is the same line.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from roomkit import AIChannel, RoomKit, tool
from roomkit.models.content import ToolCallContent
from roomkit.testing import ScriptedAI
from roomkit.testing.ai import call


@tool(idempotent=True)
def find_order(number: int) -> dict[str, str]:
    """Finds an order by its number."""
    return {"number": str(number), "item": "desk lamp", "status": "on its way"}


@tool(idempotent=True, timeout_s=5)
async def weather(city: str, unit: Literal["C", "F"] = "C") -> str:
    """The weather in a city, now."""
    return f"17 degrees {unit} in {city}, dry"


brain = ScriptedAI(
    ["Let me look. ", call("find_order", number=1042), call("weather", city="Bern")],
    "Your lamp is on its way, and the courier will stay dry.",
)
kit = RoomKit()
kit.register_channel(AIChannel("assistant", brain).configure(tools=[find_order, weather]), default=True)


async def main() -> None:
    async with kit:
        room = await kit.create_room()
        question = await kit.send(room.id, "Where is order 1042, and will it rain in Bern?", by="ann")
        await question.settled()
        for event in await kit.events(room.id):
            if isinstance(event.content, ToolCallContent):
                step = event.content
                print(f"{event.index:>2}  {step.name}({step.arguments}) {step.status} {step.result or ''}")
            elif event.text:
                print(f"{event.index:>2}  {event.source.channel_id}: {event.text}")
        print("tokens:", (await kit.events(room.id))[-1].metadata["usage"])


if __name__ == "__main__":
    asyncio.run(main())
