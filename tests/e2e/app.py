"""A real server for the browser tests: `python -m tests.e2e.app DB PORT PREFIX`; prints its tokens when it listens.

Its brain is scripted by what the customer writes: "count 40" counts slowly, "order" calls a tool, "refund" asks for
approval, "forbidden" is stopped by a guard, anything else is repeated.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import Mount

from roomkit import AIChannel, BeforeCommit, Block, InboundMessage, RoomKit, WebSocketChannel
from roomkit.ai.tools import Toolbox, tool
from roomkit.channels import SMSChannel
from roomkit.core.courtesy import Courtesy
from roomkit.core.engine import KitOptions
from roomkit.models.ai import AIRequest, ThinkingChunk
from roomkit.servers.run import server
from roomkit.testing.ai import Item, ScriptedAI, call
from tests.e2e.cast import LONG, ROOMS, STAFF

PACE_S = 0.04


@tool
def order_lookup(order: str) -> dict[str, object]:
    """Looks an order up."""
    return {"order": order, "status": "in transit", "items": [{"name": "Keyboard, quiet", "qty": 1}]}


@tool(needs_approval=True)
def refund_order(order: str, amount: float) -> str:
    """Pays money back."""
    return f"refunded {amount:.2f} for {order}"


def words(text: str) -> list[Item]:
    return re.findall(r"\S+\s*", text)


def think(request: AIRequest) -> list[Item]:
    """What the brain answers to the last message."""
    last = request.messages[-1]
    if last.role == "tool":
        return words(f"Done: {last.parts[-1].output}")  # type: ignore[union-attr]
    text = next((message.text for message in reversed(request.messages) if message.role == "user"), "")
    if found := re.search(r"count (\d+)", text):
        return [f"{n} " for n in range(1, int(found[1]) + 1)]
    if "order" in text:
        return [ThinkingChunk("They ask about an order. "), "Let me see. ", call("order_lookup", order="1042")]
    if "refund" in text:
        return [call("refund_order", order="1042", amount=12.9)]
    return words(f"You said: {text}. This answer is written word by word, as a person would.")


def build(database: str) -> RoomKit:
    options = KitOptions(courtesy=Courtesy())
    secret = "only for the browser tests, never anywhere else"
    kit = RoomKit(f"sqlite:///{database}", options=options, token_secrets=(secret,))
    kit.register_channel(WebSocketChannel("web"))
    kit.register_channel(SMSChannel("sms"))
    brain = ScriptedAI(think, delay=PACE_S, repeat=True)
    kit.register_channel(AIChannel("assistant", brain, tool_handler=Toolbox([order_lookup, refund_order])))

    @kit.before(BeforeCommit, name="no secrets")
    async def no_secrets(moment: BeforeCommit) -> Block | None:
        return Block("secrets stay in the house") if "forbidden" in moment.value.text else None

    return kit


async def serve(kit: RoomKit, port: int, prefix: str, guests: Sequence[str] = (*ROOMS, "long")) -> None:
    """Serves until it is told to stop, with a token for each guest (of the room of that name) and for the staff."""
    app = kit.asgi()
    mint = kit.tokens.mint
    tokens = {who: mint("guest", who, 3600, id=who, display_name=who.title()) for who in guests}
    tokens |= {who: mint("supervisor", None, 3600, id=who, display_name=who.title()) for who in STAFF}
    tokens["root"] = mint("admin", None, 3600, id="root")
    serving = server(app, port=port)
    if prefix != "/":
        serving.config.app = Starlette(routes=[Mount(prefix, app=app)])
    task = asyncio.ensure_future(serving.serve())
    while not serving.started and not task.done():
        await asyncio.sleep(0.01)
    print(json.dumps({"tokens": tokens}), flush=True)
    await task


async def main(database: str, port: int, prefix: str) -> None:
    kit = build(database)
    async with kit:
        if not await kit.list_rooms():
            for name in ROOMS:
                await kit.create_room(name, channels=["web", "assistant"], metadata={"title": f"Support for {name}"})
            await kit.create_room("long", channels=["web"])
            for n in range(LONG):
                await kit.process_inbound(InboundMessage.text("web", "long", f"number {n}"), room_id="long")
        await serve(kit, port, prefix)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
