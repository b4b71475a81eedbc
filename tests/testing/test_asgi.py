"""The streaming ASGI transport: what an app does reaches the client at once, and the other way round."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx2
import pytest

from roomkit.testing.asgi import ConnectionCut, StreamingASGITransport

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def client(app: Callable[[Message, Receive, Send], Awaitable[None]]) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=StreamingASGITransport(app), base_url="http://app.test", timeout=60)


async def start(send: Send, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-a", b"1")]})


async def body(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def test_a_whole_exchange() -> None:
    async def echo(scope: Message, receive: Receive, send: Send) -> None:
        assert (scope["path"], scope["query_string"], scope["method"]) == ("/a b", b"q=1", "POST")
        message = await receive()
        await start(send, 201)
        await body(send, message["body"], more=False)

    async with client(echo) as http:
        answer = await http.post("/a%20b?q=1", content=b"hello")
    assert (answer.status_code, answer.headers["x-a"], answer.content) == (201, "1", b"hello")


async def test_chunks_arrive_as_they_are_sent() -> None:
    async def drip(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        for number in range(3):
            await asyncio.sleep(10)
            await body(send, b"%d" % number)
        await body(send, b"", more=False)

    loop = asyncio.get_running_loop()
    began = loop.time()
    async with client(drip) as http, http.stream("GET", "/") as answer:
        arrived = [(chunk, loop.time() - began) async for chunk in answer.aiter_raw()]
    assert arrived == [(b"0", 10), (b"1", 20), (b"2", 30)]


async def test_a_reader_who_waits_makes_the_app_wait() -> None:
    sent = 0

    async def flood(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal sent
        await start(send)
        for _ in range(100):
            await body(send, b"x")
            sent += 1
        await body(send, b"", more=False)

    async with client(flood) as http, http.stream("GET", "/") as answer:
        await asyncio.sleep(5)
        assert sent < 5
        assert await answer.aread() == b"x" * 100


async def test_an_app_hears_that_its_client_left() -> None:
    heard: list[str] = []

    async def listen(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await start(send)
        await body(send, b"x")
        heard.append((await receive())["type"])
        await asyncio.sleep(3600)  # It does not leave by itself.

    http = client(listen)
    async with http, http.stream("GET", "/"):
        pass
    assert heard == ["http.disconnect"]
    assert http._transport.running == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("before", [True, False])
async def test_a_cut_is_a_broken_connection(before: bool) -> None:
    async def cut(scope: Message, receive: Receive, send: Send) -> None:
        if not before:
            await start(send)
            await body(send, b"half")
        raise ConnectionCut

    async with client(cut) as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get("/")


async def test_an_app_that_stops_short_breaks_the_connection() -> None:
    async def short(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await body(send, b"half")

    async with client(short) as http:
        with pytest.raises(httpx2.RemoteProtocolError, match="before its answer was complete"):
            await http.get("/")


@pytest.mark.parametrize("before", [True, False])
async def test_a_broken_app_is_not_mistaken_for_a_broken_network(before: bool) -> None:
    async def broken(scope: Message, receive: Receive, send: Send) -> None:
        if not before:
            await start(send)
        raise LookupError("a bug in the fake")

    async with client(broken) as http:
        with pytest.raises(LookupError):
            await http.get("/")


async def test_silence_is_a_read_timeout() -> None:
    async def silent(scope: Message, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3600)

    loop = asyncio.get_running_loop()
    began = loop.time()
    http = client(silent)
    async with http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.get("/")
        assert loop.time() - began == 60
        assert http._transport.running == 0  # type: ignore[attr-defined]


async def test_work_after_the_answer_goes_on_until_the_transport_closes() -> None:
    done: list[str] = []

    async def background(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await body(send, b"ok", more=False)
        await asyncio.sleep(1)
        done.append("after")

    async with client(background) as http:
        assert (await http.get("/")).content == b"ok"
        assert done == []
        await asyncio.sleep(2)
        assert done == ["after"]
