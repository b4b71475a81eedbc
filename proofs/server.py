"""The server that gets killed: `python -m proofs.server DB PORT SINK_PORT LIFE ROOM...` (token secret in the
environment). It prints its port when it serves."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from roomkit import AIChannel, Channel, ChannelBinding, RoomContext, RoomEvent, RoomKit, WebSocketChannel
from roomkit.ai.tools import Toolbox, tool
from roomkit.cli.serving import Serving, listen
from roomkit.errors import RoomNotFound, Unavailable
from roomkit.models.ai import AIRequest
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.protocols.room_socket import Limits
from roomkit.servers import run  # noqa: F401 - loaded now, so that it does not stall the loop later
from roomkit.testing.ai import Item, ScriptedAI, call

SECRET = "ROOMKIT_PROOF_SECRET"
UNLIMITED = Limits(sends_per_s=1e6, sends_burst=1e6, frames_per_s=1e6, frames_burst=1e6)


class Sink(Channel):
    """Like SMS: hands each message to a vendor (another process), who keeps it before answering."""

    delivery_policy = DeliveryPolicy(max_retries=10, base_delay=0.05, max_delay=0.5)

    def __init__(self, port: int, life: int) -> None:
        super().__init__("sink", "sms")
        self._vendor = port
        self._life = life
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        room_id, index = event.room_id, event.index
        key = f"{room_id}:{index}:{self.channel_id}"
        line = {"key": key, "room": room_id, "index": index, "event_id": event.id, "life": self._life}
        async with self._lock:
            try:
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._vendor)
                reader, writer = self._streams
                writer.write(json.dumps(line).encode() + b"\n")
                answer = await reader.readline()
            except OSError as error:
                self._streams = None
                raise Unavailable("sink", f"the vendor does not answer: {error}") from error
        return DeliveryResult(success=True, provider_message_id=answer.decode().strip())


@tool
def lookup(number: int) -> str:
    """Looks an order up."""
    return f"order {number} is on its way"


def think(request: AIRequest) -> list[Item]:
    """Looks something up, then answers in twenty words."""
    if request.messages[-1].role == "tool":
        return [f"word{number} " for number in range(20)]
    return ["Let me see. ", call("lookup", number=1042)]


async def main(db: str, port: int, sink: int, life: int, rooms: list[str]) -> int:
    kit = RoomKit(f"sqlite:///{db}", token_secrets=[os.environ[SECRET]])
    brain = AIChannel("ai", ScriptedAI(think, repeat=True, delay=0.01))
    brain.configure(tools=[Toolbox([lookup])])
    for channel in (WebSocketChannel("web"), Sink(sink, life), brain):
        kit.register_channel(channel)
    app = kit.asgi(limits=UNLIMITED, pages=False)
    async with kit:
        for room_id in rooms:
            try:
                await kit.get_room(room_id)
            except RoomNotFound:
                await kit.create_room(room_id, channels=["web", "sink", "ai"])
        listener = listen("127.0.0.1", port)
        serving = Serving(app, listener)
        serving.quietly = True
        return await serving.run(lambda: print(listener.getsockname()[1], flush=True))


if __name__ == "__main__":
    database, own, vendor, number, *names = sys.argv[1:]
    sys.exit(asyncio.run(main(database, int(own), int(vendor), int(number), names)))
