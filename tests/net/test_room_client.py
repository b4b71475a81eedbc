"""The Python client against a scripted server: it comes back, renews, repeats, and gives up only when told to."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from roomkit.errors import AccessDenied, StateError
from roomkit.net.room_client import ClientOptions, Disconnected, NotSent, RoomClient
from roomkit.runtime import BlockingBuffer, BufferClosed
from roomkit.testing.clock import EPOCH

Script = Callable[["Line"], Awaitable[None]]


class Line:
    """A connection, seen from the server's side of a script."""

    def __init__(self) -> None:
        self.to_client: BlockingBuffer[str] = BlockingBuffer(1000)
        self.to_server: BlockingBuffer[dict[str, Any]] = BlockingBuffer(1000)
        self.end = Disconnected()

    async def send(self, text: str) -> None:
        try:
            await self.to_server.put(json.loads(text))
        except BufferClosed:
            raise self.end from None

    async def recv(self) -> str:
        try:
            return await self.to_client.get()
        except BufferClosed:
            raise self.end from None

    async def close(self) -> None:
        self.cut()

    def cut(self, code: int = 1006) -> None:
        if not self.to_client.closed:
            self.end = Disconnected(code)
            self.to_client.close()
            self.to_server.close()

    async def say(self, kind: str, /, **fields: Any) -> None:
        await self.to_client.put(json.dumps({"type": kind, **fields}))

    async def hear(self, kind: str) -> dict[str, Any]:
        while True:
            frame = await self.to_server.get()
            if frame["type"] == kind:
                return frame

    async def welcome(self, expires_at: float | None = None, index: int = 0) -> dict[str, Any]:
        """Lets the client in; returns its auth frame."""
        auth = await self.hear("auth")
        await self.say("welcome", v=1, principal={}, heartbeat_s=10, expires_at=expires_at, limits={})
        join = await self.hear("join")
        view = {
            "room_id": "r",
            "epoch": "e",
            "index": index,
            "room": {},
            "participants": [],
            "events": [],
            "streams": [],
        }
        if "resume" in join:
            await self.say("resumed", **view, **{"from": join["resume"]["index"]})
        else:
            await self.say("snapshot", **view)
        return auth


def client(*scripts: Script, token: Any = "t", refuse: int = 0) -> tuple[RoomClient, list[float]]:
    """A client whose n-th connection runs the n-th script; `refuse` connections fail first."""
    times: list[float] = []

    async def connect(url: str) -> Line:
        times.append(asyncio.get_running_loop().time())
        if len(times) <= refuse:
            raise OSError("refused")
        line = Line()
        script = scripts[min(len(times) - refuse, len(scripts)) - 1]
        made._scope.spawn(run(script, line), name="script")
        return line

    async def run(script: Script, line: Line) -> None:
        try:
            await script(line)
        except BufferClosed:
            pass

    made = RoomClient("ws://x", "r", token, ClientOptions(), connect=connect)
    return made, times


async def test_it_keeps_trying_with_growing_pauses() -> None:
    async def serve(line: Line) -> None:
        await line.welcome()
        await asyncio.sleep(3600)

    room, times = client(serve, refuse=6)
    async with room:
        async for frame in room:
            if frame.type == "snapshot":
                break
    pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
    for n, pause in enumerate(pauses):
        assert 0.15 * 2**n <= pause <= 0.3 * 2**n


async def test_a_good_connection_makes_the_next_pause_short_again() -> None:
    async def short(line: Line) -> None:
        await line.welcome()
        await asyncio.sleep(1)
        line.cut()

    room, times = client(short, refuse=5)
    async with room:
        await asyncio.sleep(30)
    pauses = [later - sooner for sooner, later in itertools.pairwise(times[5:])]
    assert len(pauses) > 5
    assert max(pauses) <= 1.7


async def test_a_message_is_sent_until_it_is_acknowledged() -> None:
    heard: list[tuple[int, str]] = []

    async def deaf(line: Line) -> None:
        await line.welcome()
        heard.append((1, (await line.hear("send"))["client_id"]))
        line.cut()

    async def busy(line: Line) -> None:
        await line.welcome()
        for n in range(2):
            send = await line.hear("send")
            heard.append((2, send["client_id"]))
            if n == 0:
                await line.say("nack", client_id=send["client_id"], code="overloaded", message="", retry_after=5)
        await line.say("ack", client_id=send["client_id"], index=7, event_id="e7", duplicate=True)
        await asyncio.sleep(3600)

    room, _ = client(deaf, busy)
    async with room:
        ack = await room.send("hi", client_id="c1")
        assert (ack.index, ack.duplicate) == (7, True)
    assert heard == [(1, "c1"), (2, "c1"), (2, "c1")]


async def test_a_refused_message_says_why() -> None:
    async def serve(line: Line) -> None:
        await line.welcome()
        send = await line.hear("send")
        await line.say("nack", client_id=send["client_id"], code="blocked", message="mind your words")
        await asyncio.sleep(3600)

    room, _ = client(serve)
    async with room:
        with pytest.raises(NotSent, match="mind your words") as caught:
            await room.send("damn")
        assert caught.value.code == "blocked"


async def test_silence_is_a_lost_connection_and_pings_keep_it() -> None:
    async def silent(line: Line) -> None:
        await line.welcome()
        await asyncio.sleep(3600)

    async def polite(line: Line) -> None:
        await line.welcome(index=4)
        while True:
            await line.hear("ping")
            await line.say("pong", t=None)

    room, times = client(silent, polite)
    async with room:
        await asyncio.sleep(300)
        assert len(times) == 2
        assert times[1] - times[0] >= 25
        assert (room.live, room.position, room.reconnections) == (True, 4, 1)


async def test_a_token_is_renewed_before_it_expires_and_after_it_was_refused() -> None:
    tokens = iter(["t1", "t2", "t3", "t4"])
    used: list[str] = []

    async def fresh() -> str:
        return next(tokens)

    async def expiring(line: Line) -> None:
        used.append((await line.welcome(expires_at=EPOCH.timestamp() - 1e9))["token"])
        used.append((await line.hear("auth"))["token"])
        line.cut(4401)

    async def lasting(line: Line) -> None:
        used.append((await line.welcome())["token"])
        while True:
            await line.hear("ping")
            await line.say("pong", t=None)

    room, _ = client(expiring, lasting, token=fresh)
    async with room:
        await asyncio.sleep(60)
    assert used == ["t1", "t2", "t3"]


@pytest.mark.parametrize("code", [4401, 4403, 4400])
async def test_a_final_no_ends_the_iteration_and_what_was_on_its_way(code: int) -> None:
    async def refuse(line: Line) -> None:
        await line.hear("auth")
        await asyncio.sleep(1)
        line.cut(code)

    room, times = client(refuse)
    async with room:
        with pytest.raises(AccessDenied):
            await room.send("hi")
        with pytest.raises(AccessDenied):
            async for _ in room:
                pass
        with pytest.raises(AccessDenied):
            await room.send("again")
    assert len(times) == 1


async def test_a_room_that_may_not_be_entered_is_a_final_no() -> None:
    async def refuse(line: Line) -> None:
        await line.hear("auth")
        await line.say("welcome", v=1, principal={}, heartbeat_s=10, limits={})
        await line.hear("join")
        await line.say("error", code="not_allowed", message="no", ref="join")
        await asyncio.sleep(3600)

    room, _ = client(refuse)
    async with room:
        with pytest.raises(AccessDenied, match="not_allowed"):
            async for _ in room:
                pass


async def test_closing_fails_what_was_not_acknowledged() -> None:
    async def deaf(line: Line) -> None:
        await line.welcome()
        await asyncio.sleep(3600)

    room, _ = client(deaf)
    async with room:
        outcome = asyncio.gather(room.send("hi"), return_exceptions=True)
        await asyncio.sleep(1)
    (error,) = await outcome
    assert isinstance(error, StateError)
    assert [frame.type async for frame in room] == ["welcome", "snapshot"]


async def test_a_reader_who_does_not_read_stops_the_socket_not_the_memory() -> None:
    async def flood(line: Line) -> None:
        await line.welcome()
        for n in range(5000):
            await line.say("ephemeral", room_id="r", kind="typing", sender="x", data={"n": n})

    room, _ = client(flood)
    async with room:
        await asyncio.sleep(5)
        assert len(room._frames) == 1000


@pytest.mark.real_time
async def test_a_server_that_dies_in_mid_handshake_is_tried_again() -> None:
    heard = 0

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += 1
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = ClientOptions(backoff_s=0.01, max_backoff_s=0.01)
    async with RoomClient(f"ws://127.0.0.1:{port}/socket", "r", "token", options) as client:
        while heard < 3:
            await asyncio.sleep(0.01)
        assert client.reconnections >= 2
    server.close()
    await server.wait_closed()
