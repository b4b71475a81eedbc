"""Calls at the door: who is let in, to which room, and what ends a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from roomkit import RoomKit
from roomkit.channels.voice import VoiceChannel, VoiceOptions
from roomkit.channels.websocket import WebSocketChannel
from roomkit.net.room_client import Disconnected
from roomkit.providers.webaudio.audio import WebAudioBackend
from roomkit.runtime import Scope
from roomkit.testing.calls import ScriptedTTS
from roomkit.testing.clock import VirtualClock
from roomkit.testing.sockets import AsgiSocket
from roomkit.testing.voice import FakePage, sound
from tests.servers.house import SECRET, House, house


@asynccontextmanager
async def phones(**options: Any) -> AsyncIterator[tuple[House, VoiceChannel, str]]:
    kit = RoomKit(clock=VirtualClock(), token_secrets=[SECRET])
    kit.register_channel(WebSocketChannel("web"))
    channel = VoiceChannel(
        "voice",
        tts=ScriptedTTS(),
        backend=WebAudioBackend(),
        options=VoiceOptions(greeting="Good morning to you.", reprompt=None),
    )
    kit.register_channel(channel)
    async with house(kit, **options) as home:
        room = await kit.create_room(channels=["web"])
        yield home, channel, room.id


@asynccontextmanager
async def calling(home: House, token: str, room: str, **join: Any) -> AsyncIterator[tuple[AsgiSocket, FakePage]]:
    async with AsgiSocket(home.app, "/voice/voice") as socket, Scope("page") as scope:
        await socket.say("auth", token=token)
        await socket.say("join", room_id=room, **join)
        ready = json.loads(await socket.recv())
        assert ready["type"] == "ready"

        def put(message: str | bytes) -> None:
            if socket.code is None:
                socket._tell_app(
                    {"type": "websocket.receive", ("text" if isinstance(message, str) else "bytes"): message}
                )

        page = FakePage(put)
        page.session.id = ready["session"]

        async def hear() -> None:
            try:
                while True:
                    page.take(await socket.recv_any())
            except Disconnected:
                pass

        scope.spawn(hear(), name="hear")
        scope.spawn(page.report(), name="report")
        yield socket, page


async def test_a_guest_calls_its_room_and_is_greeted() -> None:
    async with phones() as (home, channel, room):
        told = (await home.http.get("/voice", headers={"authorization": f"Bearer {home.token('guest', room)}"})).json()
        assert told == {"channels": [{"id": "voice", "by": "socket"}]}
        async with calling(home, home.token("guest", room), room) as (_, page):
            await asyncio.sleep(3)
            (session,) = channel.sessions()
            assert (session.room_id, session.participant_id, session.id) == (room, "guest", page.session.id)
            assert page.heard() > 16_000
            for _ in range(50):
                await page.say(sound(320, 16_000))
                await asyncio.sleep(0.02)
            events = await home.kit.events(room)
            started = [event for event in events if getattr(event.content, "code", "") == "call_started"]
            assert [event.source.participant_id for event in started] == ["guest"]
        await asyncio.sleep(0.1)
        assert channel.sessions() == []


async def test_only_staff_may_listen_and_a_monitor_is_never_heard() -> None:
    async with phones() as (home, channel, room):
        with pytest.raises((Disconnected, AssertionError)):
            async with calling(home, home.token("guest", room), room, listen_only=True):
                pass
        async with calling(home, home.token("supervisor"), room, listen_only=True) as (_, page):
            await asyncio.sleep(0.1)
            (session,) = channel.sessions()
            assert session.listen_only
            heard: list[Any] = []
            channel._calls[session.id].pipeline.process = heard.append  # type: ignore[method-assign]
            for _ in range(20):
                await page.say(sound(320, 16_000))
                await asyncio.sleep(0.02)
            assert heard == []


async def refused(home: House, *frames: dict[str, Any], path: str = "/voice/voice", **more: Any) -> int:
    async with AsgiSocket(home.app, path, **more) as socket:
        for frame in frames:
            await socket.say(frame.pop("type"), **frame)
        return await socket.closed()


async def test_who_is_not_let_in() -> None:
    async with phones() as (home, channel, room):
        other = (await home.kit.create_room(channels=["web"])).id
        guest = home.token("guest", room)
        auth = {"type": "auth", "token": guest}
        assert await refused(home, {"type": "auth", "token": "wrong"}) == 4401
        assert await refused(home, {"type": "join", "room_id": room}) == 4400
        assert await refused(home, dict(auth), {"type": "join", "room_id": other}) == 4403
        assert await refused(home, {"type": "auth", "token": home.token("supervisor")}, {"type": "join"}) == 4404
        assert await refused(home) == 4401, "silence is no authentication"
        for path in ("/voice/nobody", "/voice/web", "/voice/"):
            with pytest.raises(Disconnected) as gone:
                await refused(home, path=path)
            assert gone.value.code == 4404
        with pytest.raises(Disconnected) as gone:
            await refused(home, headers=[("origin", "https://evil.example"), ("host", "testserver")])
        assert gone.value.code == 4403
        assert (await home.http.get("/voice")).status_code == 401
        assert (await home.http.post("/voice/voice")).status_code == 404
        assert channel.sessions() == []


async def test_a_call_ends_with_its_token_and_with_the_server() -> None:
    async with phones() as (home, channel, room):
        async with calling(home, home.token("guest", room, ttl=30.0), room) as (socket, page):
            for _ in range(40):
                await asyncio.sleep(1)
                if socket.code is None:
                    await page.say(sound(320, 16_000))
            assert socket.code == 4401
        async with calling(home, home.token("guest", room), room) as (socket, _):
            await home.app.drain(1)
            assert socket.code == 1001
        await asyncio.sleep(0.1)
        assert channel.sessions() == []


async def test_a_silent_line_is_cut() -> None:
    async with phones(heartbeat_s=4.0) as (home, channel, room):
        async with calling(home, home.token("guest", room), room) as (socket, _):
            await asyncio.sleep(20)
            assert socket.code == 4409
        assert channel.sessions() == []
