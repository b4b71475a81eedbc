"""The server that gets killed. `Plan` says what it serves; `proofs.nursery` runs it in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from roomkit import AIChannel, Channel, ChannelBinding, RoomContext, RoomEvent, RoomKit, WebSocketChannel
from roomkit.ai.tools import Toolbox, tool
from roomkit.cli.serving import Serving, listen
from roomkit.errors import RoomNotFound, Unavailable
from roomkit.models.ai import AIRequest
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.protocols.room_socket import Limits
from roomkit.servers import run  # noqa: F401 - loaded now, so that it does not stall the loop later
from roomkit.testing.ai import ScriptedAI, call

UNLIMITED = Limits(sends_per_s=1e6, sends_burst=1e6, frames_per_s=1e6, frames_burst=1e6)
ENDS = re.compile(r"end life (\d+) at chunk (\d+) after ([\d.]+) s")
"""What a question says to have the server end itself in the midst of the answer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one life of a server is: its file, its port (0: any), its vendor, its rooms and their channels, its brain.

    The brain looks an order up with a tool and answers in `words` words, one every `pause` seconds."""

    db: str
    secret: str = field(repr=False)
    rooms: tuple[str, ...]
    channels: tuple[str, ...] = ("web", "sink", "ai")
    port: int = 0
    life: int = 1
    sink_port: int = 0
    words: int = 20
    pause: float = 0.01
    tools: bool = True


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


def _brain(plan: Plan) -> AIChannel:
    def think(request: AIRequest) -> Any:
        if plan.tools and request.messages[-1].role != "tool":
            return ["Let me see. ", call("lookup", number=1042)]
        return _answer(plan, request)

    brain = AIChannel("ai", ScriptedAI(think, repeat=True, delay=plan.pause))
    if plan.tools:
        brain.configure(tools=[Toolbox([lookup])])
    return brain


def _answer(plan: Plan, request: AIRequest) -> Iterator[str | float]:
    asked = [found for message in request.messages for found in ENDS.findall(str(message))][-1:]
    for number in range(plan.words):
        for life, at, after in asked:
            if (int(life), int(at)) == (plan.life, number):
                yield float(after)
                os.kill(os.getpid(), signal.SIGKILL)
        yield f"word{number} "


async def serve(plan: Plan, ready: Callable[[int], None]) -> int:
    """Serves until it is told to stop, or killed; `ready` is told the port."""
    kit = RoomKit(f"sqlite:///{plan.db}", token_secrets=[plan.secret])
    for channel in (WebSocketChannel("web"), Sink(plan.sink_port, plan.life), _brain(plan)):
        kit.register_channel(channel)
    app = kit.asgi(limits=UNLIMITED, pages=False)
    async with kit:
        for room_id in plan.rooms:
            try:
                await kit.get_room(room_id)
            except RoomNotFound:
                await kit.create_room(room_id, channels=list(plan.channels))
        listener = listen("127.0.0.1", plan.port)
        serving = Serving(app, listener)
        serving.quietly = True
        return await serving.run(lambda: ready(listener.getsockname()[1]))
