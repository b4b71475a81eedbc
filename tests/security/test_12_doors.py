"""Line 12, at the doors of other protocols: strangers of every kind hear nothing, say nothing and leave no trace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx2
import pytest
from grpc import aio
from rapida.clients.protos import agentkit_pb2 as rapida
from rapida.clients.protos import talk_api_pb2 as talk
from rapida.clients.protos.agentkit_pb2_grpc import AgentKitStub

from roomkit import AIChannel, RoomKit
from roomkit.models.content import text_of
from roomkit.net.room_client import Disconnected
from roomkit.protocols.rtvi.frames import message_frame
from roomkit.servers.agentkit import AgentKitServer, RoomAgent, RoomAgentOptions
from roomkit.servers.chatkit import RoomChatKitServer, chatkit_app
from roomkit.servers.rtvi import RTVIServer, rtvi_app
from roomkit.testing import ScriptedAI, VirtualClock
from roomkit.testing.asgi import StreamingASGITransport
from roomkit.testing.sockets import AsgiSocket

pytestmark = pytest.mark.may_block  # the package makes its models on first use
SECRET, SAID = "a secret of these tests, long enough", "the word is swordfish"
ROOM = "r"


@dataclass
class Doors:
    kit: RoomKit
    rtvi: Any
    chatkit: Any

    def token(self, person: str, room: str | None = ROOM, **more: Any) -> str:
        return self.kit.tokens.mint("guest", room, id=person, **more)

    def page(self, headers: dict[str, str]) -> httpx2.AsyncClient:
        transport = StreamingASGITransport(self.chatkit)
        return httpx2.AsyncClient(transport=transport, base_url="http://rooms.example", headers=headers)

    async def knock(self, door: str, token: str | None) -> str:
        """Asks to hear the room and to say something in it. Returns all that comes back."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await (self._by_rtvi(headers) if door == "rtvi" else self._by_chatkit(headers))

    async def _by_rtvi(self, headers: dict[str, str]) -> str:
        socket = AsgiSocket(self.rtvi, "/", headers=[*headers.items()])
        heard: list[str] = []
        try:
            async with socket, asyncio.timeout(10):
                for kind, data in (("client-ready", {"version": "2.0.0"}), ("send-text", {"content": "let me in"})):
                    told = {"label": "rtvi-ai", "type": kind, "id": "1", "data": data}
                    await socket.send(message_frame(json.dumps(told)))
                while True:
                    heard.append(str(await socket.recv_any()))
        except Disconnected:
            pass
        assert socket.code in (1008, 4003), (socket.code, heard)
        return "".join(heard) + socket.reason

    async def _by_chatkit(self, headers: dict[str, str]) -> str:
        heard: list[str] = []
        text = {"content": [{"type": "input_text", "text": "let me in"}], "attachments": [], "inference_options": {}}
        async with self.page(headers) as page:
            for kind, params in (
                ("threads.get_by_id", {}),
                ("items.list", {}),
                ("threads.update", {"title": "mine"}),
                ("items.feedback", {"item_ids": ["x"], "kind": "negative"}),
                ("threads.add_user_message", {"input": text}),
                ("threads.retry_after_item", {"item_id": "x"}),
                ("threads.delete", {}),
            ):
                answer = await page.post("/", json={"type": kind, "params": {"thread_id": ROOM, **params}})
                empty = kind == "items.list" and answer.json().get("data") == []
                assert answer.status_code in (401, 403, 404, 409) or empty, (kind, answer.text)
                heard.append(answer.text)
            answer = await page.get("/changes", params={"thread_id": ROOM})
            assert answer.status_code in (401, 403, 404, 409), answer.text
            files = {"file": ("a.txt", b"let me in", "text/plain")}
            assert (await page.post("/files/atc_x?e=9999999999&s=k.forged", files=files)).status_code == 403
        return "".join(heard)


@asynccontextmanager
async def house(owner: str = "ann") -> AsyncIterator[Doors]:
    """A room that is a thread of its owner's in ChatKit."""
    clock = VirtualClock()
    kit = RoomKit(token_secrets=SECRET, clock=clock)
    kit.register_channel(AIChannel("assistant", ScriptedAI("swordfish", repeat=True)), default=True)
    doors = Doors(kit, rtvi_app(RTVIServer(kit)), chatkit_app(RoomChatKitServer(kit)))
    async with kit:
        await kit.create_room(ROOM, channels=["rtvi", "chatkit", "assistant"], metadata={"chatkit_owner": owner})
        await kit.create_room("other")
        for person in ("ann", "bob", "cid"):
            await kit.add_member(ROOM, person)
        await kit.send(ROOM, SAID, by="sam", addressed_to=())
        await kit.remove_member(ROOM, "bob", ban=True)
        await kit.remove_member(ROOM, "cid")
        yield doors


Stranger = Callable[[Doors], str | None]
STRANGERS: dict[str, Stranger] = {
    "nobody": lambda doors: None,
    "a wrong token": lambda doors: doors.token("ann")[:-3] + "xyz",
    "a token of another house": lambda doors: RoomKit(token_secrets=SECRET[::-1]).tokens.mint("guest", ROOM, id="ann"),
    "somebody of another tenant": lambda doors: doors.token("ann", tenant="acme"),
    "a token that has ended": lambda doors: doors.token("ann", ttl=1),
    "somebody who was banned": lambda doors: doors.token("bob"),
    "somebody who was sent away": lambda doors: doors.token("cid"),
}


@pytest.mark.parametrize("door", ["rtvi", "chatkit"])
@pytest.mark.parametrize("stranger", STRANGERS)
async def test_strangers_hear_and_leave_nothing(door: str, stranger: str) -> None:
    """Also who was the thread's owner, and was sent away."""
    owner = {"somebody who was banned": "bob", "somebody who was sent away": "cid"}.get(stranger, "ann")
    async with house(owner) as doors:
        token = STRANGERS[stranger](doors)
        await asyncio.sleep(5)
        before = await _traces(doors.kit)
        assert "swordfish" not in await doors.knock(door, token)
        assert await _traces(doors.kit) == before


@pytest.mark.parametrize("door", ["rtvi", "chatkit"])
async def test_a_seat_that_was_taken_away_is_not_taken_again(door: str) -> None:
    async with house() as doors:
        if door == "rtvi":
            assert "swordfish" not in await _leaves(doors)  # while it has its seat, it comes in
        await doors.kit.detach_channel(ROOM, door)
        before = await _traces(doors.kit)
        if door == "rtvi":
            assert "swordfish" not in await doors.knock(door, doors.token("ann"))
        else:
            headers = {"authorization": f"Bearer {doors.token('ann')}"}
            transport = StreamingASGITransport(doors.chatkit)
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://rooms.example", headers=headers
            ) as page:
                answer = await page.get("/changes", params={"thread_id": ROOM})
                assert answer.status_code == 409
        assert await _traces(doors.kit) == before


async def _leaves(doors: Doors) -> str:
    async with AsgiSocket(doors.rtvi, "/", headers=[("authorization", f"Bearer {doors.token('ann')}")]) as socket:
        told = {"label": "rtvi-ai", "type": "client-ready", "id": "1", "data": {"version": "2.0.0"}}
        await socket.send(message_frame(json.dumps(told)))
        return str(await socket.recv_any())


async def _traces(kit: RoomKit) -> Any:
    """All that a visit could leave: words, people, seats, rooms, here and in another tenant."""
    rooms = [room.id for tenant in (kit, kit.tenant("acme")) for room in await tenant.list_rooms()]
    log = [(event.type, text_of(event.content)) for event in await kit.events(ROOM, limit=1_000, raw=True)]
    people = [(one.id, one.status) for one in await kit.participants(ROOM)]
    return (
        rooms,
        log,
        people,
        [seat.channel_id for seat in await kit.bindings(ROOM)],
        (await kit.get_room(ROOM)).metadata,
    )


CALLER = "agentkit:+441"


@pytest.mark.real_time
@pytest.mark.may_block
@pytest.mark.parametrize(
    "stranger, status",
    [
        ("nobody", grpc.StatusCode.UNAUTHENTICATED),
        ("wrong", grpc.StatusCode.UNAUTHENTICATED),
        ("banned", grpc.StatusCode.PERMISSION_DENIED),
        ("sent away", grpc.StatusCode.PERMISSION_DENIED),
        ("no seat", grpc.StatusCode.FAILED_PRECONDITION),
        ("closed", grpc.StatusCode.FAILED_PRECONDITION),
        ("another tenant's room", None),
    ],
)
async def test_strangers_on_the_phone_hear_and_leave_nothing(stranger: str, status: Any) -> None:
    kit = RoomKit()
    kit.register_channel(AIChannel("assistant", ScriptedAI("swordfish", repeat=True)), default=True)
    acme = kit.tenant("acme")
    async with kit:
        agent = RoomAgent(kit, RoomAgentOptions(room_of=lambda _: ROOM))
        theirs = acme if status is None else kit
        await theirs.create_room(ROOM, channels=["assistant"] if status is None else ["agentkit", "assistant"])
        await theirs.add_member(ROOM, CALLER)
        await theirs.send(ROOM, SAID, by="sam", addressed_to=())
        if stranger in ("banned", "sent away"):
            await kit.remove_member(ROOM, CALLER, ban=stranger == "banned")
        elif stranger == "no seat":
            await kit.detach_channel(ROOM, "agentkit")
        elif stranger == "closed":
            await kit.close_room(ROOM)
        before = [(e.type, text_of(e.content)) for e in await theirs.events(ROOM, raw=True)]
        config = {"token": "the platform's own token"}
        metadata = {"nobody": (), "wrong": (("authorization", "Bearer another"),)}
        good = (("authorization", "Bearer the platform's own token"),)
        async with (
            AgentKitServer(agent, host="127.0.0.1", port=0, auth_config=config) as server,
            aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
            asyncio.timeout(20),
        ):
            call = AgentKitStub(channel).Talk(metadata=metadata.get(stranger, good))
            hello = talk.ConversationInitialization(
                assistantConversationId=1, phone=talk.PhoneIdentity(phoneNumber="+441")
            )
            try:
                await call.write(rapida.TalkInput(initialization=hello))
                frame = await call.read()
            except (aio.AioRpcError, asyncio.InvalidStateError):
                frame = None
            assert "swordfish" not in str(frame)
            if status is not None:
                assert await call.code() is status
            call.cancel()
            await server.aclose(0)
        assert [(e.type, text_of(e.content)) for e in await theirs.events(ROOM, raw=True)] == before
