"""RTVI's door on a real WebSocket, and the real client of Pipecat in Node where it can be installed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkit import AIChannel, RoomKit
from roomkit.channels.voice import VoiceChannel
from roomkit.errors import RemoteProtocolError
from roomkit.models.access import PrincipalRole
from roomkit.models.content import text_of
from roomkit.models.event import EventType
from roomkit.protocols.rtvi.frames import read
from roomkit.protocols.rtvi.generated import frames_pb2 as pb
from roomkit.providers.rtvi.audio import RTVIBackend
from roomkit.servers.rtvi import RTVIOptions, RTVIServer, rtvi_app
from roomkit.testing import ScriptedAI
from roomkit.testing.ai import call
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.voice.pipeline import AudioPipelineConfig

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]
SECRET = "a secret of the tests, long enough for a key"
NODE = Path(__file__).parents[1] / "node"


@asynccontextmanager
async def served(
    model: ScriptedAI, options: RTVIOptions | None = None, *, voice: VoiceChannel | None = None, **configure: Any
) -> AsyncIterator[Any]:
    kit = RoomKit(token_secrets=SECRET)
    if voice is not None:
        kit.register_channel(voice)
    brain = AIChannel("assistant", model)
    kit.register_channel(brain, default=True)
    server = RTVIServer(kit, options)
    if configure.pop("page_tool", False):

        @server.client_tool
        async def where(precise: bool) -> str:
            """Tells where the user is."""
            return ""

        configure["tools"] = [where]
    if configure:
        brain.configure(**configure)
    config = uvicorn.Config(rtvi_app(server), host="127.0.0.1", port=0, log_level="error", ws="websockets-sansio")
    web = uvicorn.Server(config)
    async with kit:
        await kit.create_room("r")
        running = asyncio.ensure_future(web.serve())
        while not web.started:
            await asyncio.sleep(0.01)
        port = web.servers[0].sockets[0].getsockname()[1]
        try:
            yield kit, server, f"ws://127.0.0.1:{port}/"
        finally:
            web.should_exit = True
            await running


def token(kit: RoomKit, person: str = "ann", room: str = "r") -> str:
    return kit.tokens.issue(PrincipalRole.GUEST, room, id=person, display_name=person.title()).token


class Client:
    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def send(self, kind: str, data: Any = None, message_id: str = "i1") -> None:
        text = json.dumps({"label": "rtvi-ai", "type": kind, "id": message_id, "data": data})
        await self.socket.send(pb.Frame(message=pb.MessageFrame(data=text)).SerializeToString())

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            frame = pb.Frame.FromString(await self.socket.recv())
        return json.loads(frame.message.data)

    async def until(self, kind: str) -> list[dict[str, Any]]:
        found = [await self.next()]
        while found[-1]["type"] != kind:
            found.append(await self.next())
        return found

    async def ready(self) -> None:
        await self.send("client-ready", {"version": "2.2.0", "about": {"library": "test"}}, "r")
        assert (await self.next())["type"] == "bot-ready"


async def test_a_conversation_in_text() -> None:
    model = ScriptedAI()
    model.add(["Hello ", "Ann. ", "How are you?"])
    async with served(model) as (kit, server, url), websockets.connect(f"{url}?token={token(kit)}") as socket:
        client = Client(socket)
        await client.ready()
        await client.send("send-text", {"content": "hi"}, "m1")
        frames = await client.until("bot-llm-stopped")
        kinds = [frame["type"] for frame in frames]
        assert set(kinds[:2]) == {"user-llm-text", "user-input"} or "bot-llm-started" in kinds[:3]
        text = "".join(frame["data"]["text"] for frame in frames if frame["type"] == "bot-llm-text")
        assert text == "Hello Ann. How are you?"
        assert [f["data"]["text"] for f in frames if f["type"] == "bot-output"] == ["Hello Ann.", "How are you?"]
        await kit.take_over("r", "sam")
        await kit.note("r", "a secret", "sam")
        await kit.send("r", "Sam here.", by="sam")
        frames = await client.until("bot-llm-stopped")
        assert "a secret" not in str(frames)
        assert "Sam here." in str(frames)
        assert server.push("r", {"toast": 1}) == 1
        assert (await client.next())["data"] == {"toast": 1}
        await client.send("send-text", {"content": "hi"}, "m1")
        await client.until("user-input")
        said = [text_of(e.content) for e in await kit.events("r") if e.type is EventType.MESSAGE]
        assert said.count("hi") == 1, "the same message has one effect"
        await client.send("disconnect-bot", {})
        with pytest.raises(websockets.ConnectionClosed):
            await client.until("never")


async def test_functions_and_messages_of_the_app() -> None:
    def answered(client: Any, kind: str, data: Any) -> Any:
        if kind == "boom":
            raise RuntimeError("secret-key")
        return {"room": client.room_id, "got": data} if kind == "ask" else None

    model = ScriptedAI()
    model.add([call("where", "c1", precise=True)])
    model.add("You are in Graz.")
    options = RTVIOptions(on_message=answered)
    async with served(model, options, page_tool=True) as (kit, _, url):  # noqa: SIM117 - the second needs the first
        async with websockets.connect(f"{url}?token={token(kit)}") as socket:
            client = Client(socket)
            await client.ready()
            await client.send("client-message", {"t": "ask", "d": 3}, "q1")
            assert await client.next() == {
                "label": "rtvi-ai",
                "type": "server-response",
                "id": "q1",
                "data": {"t": "ask", "d": {"room": "r", "got": 3}},
            }
            await client.send("client-message", {"t": "boom"}, "q2")
            refused = await client.next()
            assert (refused["type"], refused["id"]) == ("error-response", "q2")
            assert "secret-key" not in str(refused)
            await client.send("send-text", {"content": "Where am I?"}, "m1")
            (*_, asked) = await client.until("llm-function-call-in-progress")
            assert asked["data"]["arguments"] == {"precise": True}
            result = {"function_name": "where", "tool_call_id": "c1", "arguments": {}, "result": {"city": "Graz"}}
            await client.send("llm-function-call-result", result, "f1")
            assert "You are in Graz." in str(await client.until("bot-llm-stopped"))
            ends = [e.content for e in await kit.events("r") if e.type is EventType.TOOL_CALL_END]
            assert "Graz" in str(ends)


async def test_who_may_not_come_in_and_what_is_no_frame() -> None:
    async with served(ScriptedAI("ok")) as (kit, _, url):
        for query, origin, code in (
            ("", None, 4003),
            ("?token=wrong", None, 4003),
            (f"?token={token(kit)}", "https://evil.example", 4403),
        ):
            async with websockets.connect(url + query, origin=origin) as socket:
                with pytest.raises(websockets.ConnectionClosed):
                    await socket.recv()
                assert socket.close_code == code
        async with websockets.connect(f"{url}?token={token(kit)}") as socket:
            client = Client(socket)
            await client.ready()
            for bad in ("text", b"\xff\xff\xff", b"\x22\x01"):
                await socket.send(bad)
                assert (await client.next())["data"]["fatal"] is False
            await socket.send(pb.Frame(audio=pb.AudioRawFrame(audio=b"\0" * 512)).SerializeToString())
            await client.send("send-text", {"content": "still here"})
            await client.until("bot-llm-stopped")


async def test_a_closed_room_says_so() -> None:
    async with served(ScriptedAI("never")) as (kit, _, url):
        async with websockets.connect(f"{url}?token={token(kit)}") as socket:
            client = Client(socket)
            await client.ready()
            await kit.close_room("r")
            await client.send("send-text", {"content": "hi"}, "m1")
            assert (await client.until("error-response"))[-1]["data"]["error"] == "the room is closed"
        async with websockets.connect(f"{url}?token={token(kit, 'bob')}") as socket:
            with pytest.raises(websockets.ConnectionClosed, match="is closed and takes no more events"):
                await socket.recv()


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.builds(
        lambda tag, rest: bytes([tag, len(rest)]) + rest, st.sampled_from([10, 18, 26, 34, 42]), st.binary(max_size=100)
    )
)
def test_any_frame_is_read_or_refused(data: bytes) -> None:
    try:
        found = read(data)
    except RemoteProtocolError:
        return
    assert found is None or isinstance(found, (str, tuple))


async def test_who_is_removed_or_expired_is_cut_at_once() -> None:
    async with served(ScriptedAI("ok", repeat=True)) as (kit, server, url):
        async with websockets.connect(f"{url}?token={token(kit, 'eve')}") as socket:
            client = Client(socket)
            await client.ready()
            await kit.send("r", "hello eve", by="sam", addressed_to=())
            await client.until("bot-llm-stopped")
            await kit.remove_member("r", "eve", ban=True)
            with pytest.raises(websockets.ConnectionClosed):
                await client.until("never")
            assert socket.close_code == 4003
        short = kit.tokens.issue(PrincipalRole.GUEST, "r", 0.5, id="bob").token
        async with websockets.connect(f"{url}?token={short}") as socket:
            await Client(socket).ready()
            with pytest.raises(websockets.ConnectionClosed):
                await Client(socket).until("never")
        assert server.push("r", {"a": 1}, tenant="acme") == 0
        nowhere = kit.tokens.issue(PrincipalRole.GUEST, "nope", id="bob").token
        async with websockets.connect(f"{url}?token={nowhere}") as socket:
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 4003


async def in_node(script: str, url: str, token: str) -> Any:
    """What the real client saw."""
    node = shutil.which("node")
    if node is None or not (NODE / "node_modules" / "@pipecat-ai").is_dir():
        pytest.skip("the client's packages are not installed (.ci/node does it)")
    pipe = asyncio.subprocess.PIPE
    run = await asyncio.create_subprocess_exec(node, str(NODE / script), url, token, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(50):
        out, err = await run.communicate()
    assert run.returncode == 0, err.decode()[-3000:]
    return json.loads(out.decode().strip().splitlines()[-1])


async def test_the_real_client_speaks_and_hears_in_node() -> None:
    script = ScriptedBackend()
    script.speaks(script.call(), "what time is it", 0, 0)
    voice = VoiceChannel(
        "voice",
        stt=ScriptedSTT(script),
        tts=ScriptedTTS(),
        backend=RTVIBackend(),
        pipeline=AudioPipelineConfig(vad=ScriptedVad, limiter=None),
    )
    model = ScriptedAI(["It is noon."])
    async with served(model, RTVIOptions(voice="voice"), voice=voice) as (kit, _, url):
        seen = await in_node("sound.cjs", url, token(kit))
        said = [text_of(e.content) for e in await kit.events("r") if e.type is EventType.MESSAGE]
    assert said == ["what time is it", "It is noon."]
    assert [one["text"] for one in seen["transcripts"] if one["final"]] == ["what time is it"]
    assert seen["outputs"] == ["It is noon."]
    assert list(dict.fromkeys(seen["events"])) == [
        "UserStartedSpeaking",
        "UserStoppedSpeaking",
        "BotStartedSpeaking",
        "BotStoppedSpeaking",
    ]
    assert 0.6 < seen["loud"] / 24_000 < 0.9, "the answer takes 0.73 s to say"


async def test_the_real_client_talks_in_node() -> None:
    model = ScriptedAI()
    model.add(["Hello ", "from the room."])
    model.add([call("where", "c1", precise=True)])
    model.add("Graz it is.")

    def answered(client: Any, kind: str, data: Any) -> Any:
        if kind == "refuse":
            raise RuntimeError("no")
        return {"echo": data, "person": client.principal.id}

    async with served(model, RTVIOptions(on_message=answered), page_tool=True) as (kit, _, url):
        seen = await in_node("rtvi.cjs", url, token(kit))
        assert seen["ready"] == "2.2.0"
        assert seen["text"] == "Hello from the room.Graz it is."
        assert seen["answer"] == {"echo": {"a": 1}, "person": "ann"}
        assert seen["refused"]
        assert seen["called"] == {"functionName": "where", "arguments": {"precise": True}}
        said = [text_of(e.content) for e in await kit.events("r") if e.type is EventType.MESSAGE]
        assert said == ["Hello?", "Hello from the room.", "Where am I?", "Graz it is."]
