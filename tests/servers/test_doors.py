"""One room behind four doors at once: a web socket, RTVI, ChatKit and AgentKit show the same replies in one order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import uvicorn
import websockets
from chatkit.types import ThreadStreamEvent
from grpc import aio
from pydantic import TypeAdapter
from rapida.clients.protos import agentkit_pb2 as rapida
from rapida.clients.protos import talk_api_pb2 as talk
from rapida.clients.protos.agentkit_pb2_grpc import AgentKitStub

from roomkit import AIChannel, RoomKit, WebSocketChannel
from roomkit.models.access import Principal, PrincipalRole
from roomkit.models.content import text_of
from roomkit.models.event import EventType, RoomEvent
from roomkit.protocols.rtvi.generated import frames_pb2 as pb
from roomkit.servers.agentkit import AgentKitServer, RoomAgent, RoomAgentOptions
from roomkit.servers.chatkit import RoomChatKitServer
from roomkit.servers.rtvi import RTVIServer, rtvi_app
from roomkit.testing import ScriptedAI

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]
EVENTS: TypeAdapter[Any] = TypeAdapter(ThreadStreamEvent)
SAID = ["One, two, three.", "Four, five, six.", "Seven."]


class Asks:
    """A ChatKit page that asks through the package's own server."""

    def __init__(self, server: RoomChatKitServer) -> None:
        self.server = server
        self.user = Principal(id="cara", role=PrincipalRole.GUEST)

    async def say(self, text: str, thread: str | None = None) -> list[Any]:
        said = {"content": [{"type": "input_text", "text": text}], "attachments": [], "inference_options": {}}
        params = {"input": said} if thread is None else {"input": said, "thread_id": thread}
        kind = "threads.create" if thread is None else "threads.add_user_message"
        stream = await self.server.process(json.dumps({"type": kind, "params": params}), self.user)
        return [EVENTS.validate_json(line[6:].strip()) async for line in stream]  # type: ignore[union-attr]


async def test_four_doors_onto_one_room() -> None:
    model = ScriptedAI()
    for text in SAID:
        model.add([text[:5], text[5:]])
    kit = RoomKit(token_secrets="a secret of the tests, long enough for a key")
    kit.register_channel(AIChannel("assistant", model), default=True)
    web = WebSocketChannel("web")
    kit.register_channel(web)
    page, doors = Asks(RoomChatKitServer(kit)), RTVIServer(kit)
    config = uvicorn.Config(rtvi_app(doors), host="127.0.0.1", port=0, log_level="error", ws="websockets-sansio")
    served = uvicorn.Server(config)
    async with kit:
        first = await page.say("Count.")
        room = first[0].thread.id
        agent = RoomAgent(kit, RoomAgentOptions(room_of=lambda _: room))
        running = asyncio.ensure_future(served.serve())
        while not served.started:
            await asyncio.sleep(0.01)
        port = served.servers[0].sockets[0].getsockname()[1]
        token = kit.tokens.issue(PrincipalRole.GUEST, room, id="rita").token
        await kit.attach_channel(room, "web")
        heard: list[str] = []

        async def take(_: str, event: RoomEvent) -> None:
            if event.type is EventType.MESSAGE and event.source.channel_id == "assistant":
                heard.append(text_of(event.content))

        web.register_connection("w1", take, room_id=room)
        async with (
            AgentKitServer(agent, host="127.0.0.1", port=0) as calls,
            websockets.connect(f"ws://127.0.0.1:{port}/?token={token}") as socket,
            aio.insecure_channel(f"127.0.0.1:{calls.port}") as channel,
        ):
            rtvi = _RTVI(socket)
            await rtvi.send("client-ready", {"version": "2.1.0", "about": {"library": "test"}})
            caller = AgentKitStub(channel).Talk()
            begin = talk.ConversationInitialization(assistantConversationId=1)
            await caller.write(rapida.TalkInput(initialization=begin))
            assert (await caller.read()).code == 200
            reading = asyncio.ensure_future(rtvi.replies(2))
            second = await page.say("Go on.", room)
            finals = [await _final(caller)]
            await caller.write(
                rapida.TalkInput(message=talk.ConversationUserMessage(id="m1", text="And on.", completed=True))
            )
            finals.append(await _final(caller))
            async with asyncio.timeout(10):
                assert await reading == SAID[1:]
            assert finals == SAID[1:]
            assert second[-1].item.content[0].text == SAID[1]
            items = await page.server.rooms.items(room, page.user)
            assert [i.content[0].text for i in items if i.content[0].text in SAID] == SAID
            while len(heard) < 2:
                await asyncio.sleep(0.01)
            assert heard == SAID[1:]
            caller.cancel()
        log = [text_of(e.content) for e in await kit.events(room) if e.type is EventType.MESSAGE]
        assert log == ["Count.", SAID[0], "Go on.", SAID[1], "And on.", SAID[2]]
        served.should_exit = True
        await running


class _RTVI:
    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def send(self, kind: str, data: Any) -> None:
        text = json.dumps({"label": "rtvi-ai", "type": kind, "id": "i", "data": data})
        await self.socket.send(pb.Frame(message=pb.MessageFrame(data=text)).SerializeToString())

    async def replies(self, count: int) -> list[str]:
        found: list[str] = []
        said: list[str] = []
        async for data in self.socket:
            envelope = json.loads(pb.Frame.FromString(data).message.data)
            if envelope["type"] == "bot-llm-text":
                said.append(envelope["data"]["text"])
            elif envelope["type"] == "bot-llm-stopped":
                if (text := "".join(said)) in SAID:
                    found.append(text)
                said.clear()
                if len(found) == count:
                    break
        return found


async def _final(caller: Any) -> str:
    """The next whole answer of the assistant's that the caller hears."""
    async with asyncio.timeout(10):
        while True:
            frame = await caller.read()
            if frame.assistant.completed and frame.assistant.text in SAID:
                return frame.assistant.text
