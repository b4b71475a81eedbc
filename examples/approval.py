"""A tool that a person must approve: the question is durable, bound to the arguments, and expires."""

from __future__ import annotations

import asyncio

from roomkit import AIChannel, RoomKit, tool
from roomkit.models.ai import AIRequest
from roomkit.testing import ScriptedAI, VirtualClock, run
from roomkit.testing.ai import call


@tool(needs_approval=True)
def refund(order: int, amount: float) -> str:
    """Pays money back."""
    print(f"   (paying {amount:.2f} back for order {order})")
    return "done"


def tell(request: AIRequest) -> str:
    return f"The tool answered: {request.messages[-1].parts[-1].output}"


brain = ScriptedAI(*2 * ([call("refund", order=7, amount=49.9)], tell))
kit = RoomKit(clock=VirtualClock())
kit.register_channel(AIChannel("assistant", brain).configure(tools=[refund], approval_expires_s=600), default=True)


async def main() -> None:
    async with kit:
        room = await kit.create_room()
        for granted in (True, False):
            question = await kit.send(room.id, "I want my money back", by="ann")
            await asyncio.sleep(30)  # the reply waits; its clock stands still
            (asked,) = await kit.approvals(room.id)
            print(f"{asked['name']}({asked['arguments']}) waits for an answer until {asked['expires_at'][11:16]}")
            reason = None if granted else "twice is enough"
            await kit.answer_approval(asked["id"], granted, by="eve", reason=reason)
            await question.settled()
            print("  ", (await kit.events(room.id))[-1].text)


if __name__ == "__main__":
    run(main())  # virtual time: the waiting costs none
