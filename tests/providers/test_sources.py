"""The WebSocket and the SSE source against real local servers, and the event stream format byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkit import InboundMessage, RoomKit
from roomkit.core.sources import SourceHandle
from roomkit.errors import (
    BadResponse,
    ConfigError,
    ProviderTimeout,
    RateLimited,
    RemoteProtocolError,
    Unauthorized,
    Unavailable,
)
from roomkit.ports.source import SourceDone
from roomkit.providers.sse.source import SSESource, SSESourceOptions
from roomkit.providers.sse.stream import EventStream, ServerEvent
from roomkit.providers.websocket.source import WebSocketSource, WebSocketSourceOptions
from tests.core.rooms import said
from tests.core.test_sources import FeedChannel

real = pytest.mark.real_time


def parse(data: str | bytes) -> InboundMessage | None:
    value = json.loads(data)
    if value.get("skip"):
        return None
    return InboundMessage.text("feed", "them", value["text"], external_id=value.get("id"))


class Taken:
    """What a source emits, when it is ready, and a way to wait for either."""

    def __init__(self) -> None:
        self.messages: list[InboundMessage] = []
        self.ready_count = 0
        self._news = asyncio.Condition()

    async def emit(self, message: InboundMessage) -> None:
        self.messages.append(message)
        async with self._news:
            self._news.notify_all()

    def ready(self) -> None:
        self.ready_count += 1

    @property
    def texts(self) -> list[str]:
        return [message.content.text for message in self.messages]  # type: ignore[union-attr]

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: len(self.messages) >= count)


# -- WebSocket -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def websocket_server(handler: Callable[[Any], Awaitable[None]], **options: Any) -> AsyncIterator[str]:
    from websockets.asyncio.server import serve

    async with serve(handler, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/feed"


@real
async def test_websocket_frames_become_messages_in_order_and_bad_ones_are_skipped() -> None:
    seen: dict[str, Any] = {}

    async def feed(socket: Any) -> None:
        seen["key"] = socket.request.headers["x-api-key"]
        seen["hello"] = await socket.recv()
        for frame in ('{"text": "one"}', "{broken", '{"skip": true}', b'{"text": "two"}', '{"text": "three"}'):
            await socket.send(frame)
        await socket.wait_closed()

    options = WebSocketSourceOptions(headers={"x-api-key": "k"}, hello=['{"subscribe": "all"}'])
    async with websocket_server(feed) as url:
        taken = Taken()
        source = WebSocketSource(url, parse, options=options)
        running = asyncio.ensure_future(source.run(taken.emit, taken.ready))
        await taken.wait(3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert taken.texts == ["one", "two", "three"]
    assert taken.ready_count == 1
    assert seen == {"key": "k", "hello": '{"subscribe": "all"}'}


@real
async def test_a_websocket_that_closes_or_is_cut_ends_the_run() -> None:
    async def closes(socket: Any) -> None:
        await socket.close(1000)

    async def cuts(socket: Any) -> None:
        socket.transport.abort()

    async with websocket_server(closes) as url:
        await WebSocketSource(url, parse).run(Taken().emit, Taken().ready)
    async with websocket_server(cuts) as url:
        with pytest.raises(Unavailable):
            await WebSocketSource(url, parse).run(Taken().emit, Taken().ready)


@real
async def test_a_websocket_that_cannot_be_opened_says_why() -> None:
    async def never(socket: Any) -> None:
        raise AssertionError("unreachable")

    for status, error in ((401, Unauthorized), (403, Unauthorized), (429, RateLimited), (503, Unavailable)):
        refuse = lambda connection, request, status=status: connection.respond(status, "no")  # noqa: E731
        async with websocket_server(never, process_request=refuse) as url:
            taken = Taken()
            with pytest.raises(error):
                await WebSocketSource(url, parse).run(taken.emit, taken.ready)
            assert taken.ready_count == 0
    with pytest.raises(Unavailable, match="no connection"):
        await WebSocketSource(url, parse).run(Taken().emit, Taken().ready)


@real
async def test_a_websocket_that_says_nothing_at_all_times_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        source = WebSocketSource(url, parse, options=WebSocketSourceOptions(open_timeout_s=0.1))
        with pytest.raises(ProviderTimeout):
            await source.run(Taken().emit, Taken().ready)


@real
async def test_a_message_over_the_limit_ends_the_connection() -> None:
    async def feed(socket: Any) -> None:
        await socket.send("x" * 2000)
        await socket.wait_closed()

    async with websocket_server(feed) as url:
        source = WebSocketSource(url, parse, options=WebSocketSourceOptions(max_bytes=1000))
        with pytest.raises(Unavailable):
            await source.run(Taken().emit, Taken().ready)


@real
async def test_a_kit_keeps_a_websocket_source_connected_and_stores_what_it_says_once(monkeypatch: Any) -> None:
    from roomkit.core import sources
    from roomkit.net.retry import RetryPolicy

    monkeypatch.setattr(sources, "BACK_OFF", RetryPolicy(base_delay=0.01))
    lives = 0

    async def feed(socket: Any) -> None:
        nonlocal lives
        lives += 1
        for n in range(lives * 2):
            await socket.send(json.dumps({"text": f"m{n}", "id": str(n)}))
        if lives < 3:
            socket.transport.abort()
        await socket.wait_closed()

    async with websocket_server(feed) as url, RoomKit() as kit:
        kit.register_channel(FeedChannel("feed"))
        handle: SourceHandle = await kit.attach_source(WebSocketSource(url, parse, name="feed"))
        texts: list[str] = []
        async with asyncio.timeout(10):
            while len(texts) < 6:
                await asyncio.sleep(0.01)
                for room in await kit.list_rooms():
                    texts = [text for _, text, _ in await said(kit, room.id)]
        assert texts == [f"m{n}" for n in range(6)]
        assert (handle.health.connected, handle.health.restarts) == (True, 2)


def test_a_url_of_another_kind_is_refused_without_its_secrets() -> None:
    with pytest.raises(ConfigError, match="ws://") as refused:
        WebSocketSource("http://example.test/?token=abcdef1234567890", parse)
    assert "abcdef1234567890" not in str(refused.value)
    with pytest.raises(ConfigError, match="http://"):
        SSESource("ws://example.test", parse)
    assert WebSocketSource("ws://example.test/feed?token=abc", parse).name == "ws://example.test/feed"
    assert "sesame" not in repr(WebSocketSourceOptions(headers={"authorization": "sesame"}))
    assert "sesame" not in repr(SSESourceOptions(headers={"authorization": "sesame"}))


# -- server-sent events ----------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n"


class Events:
    """A server of scripted answers, one for each request; the last one is repeated. A piece of None keeps the
    connection open."""

    def __init__(self, *answers: list[bytes | None]) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
            for piece in answer:
                if piece is None:
                    await reader.read()
                    break
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.005)
        except ConnectionError:
            pass  # The client has hung up, which some tests are about.
        writer.close()

    @asynccontextmanager
    async def url(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/events"

    def last_id(self, number: int) -> str | None:
        for line in self.requests[number].split("\r\n"):
            if line.startswith("last-event-id:"):
                return line.split(":", 1)[1].strip()
        return None


@real
async def test_events_become_messages_and_the_next_connection_resumes_after_the_last_one() -> None:
    server = Events(
        [
            HEAD,
            b'id: 7\ndata: {"text": "one"}\n\nid: 8\nda',
            b'ta: {"text":\ndata: "two"}\n\nid: 9\ndata: {"text": "cut',
        ],
        [HEAD, b'id: 9\ndata: {"text": "three"}\n\n'],
    )
    taken = Taken()
    async with server.url() as url:
        source = SSESource(url, parse)
        for _ in range(2):
            with pytest.raises(Unavailable, match="ended"):
                await source.run(taken.emit, taken.ready)
    assert taken.texts == ["one", "two", "three"]
    assert [message.external_id for message in taken.messages] == ["7", "8", "9"]
    assert (server.last_id(0), server.last_id(1)) == (None, "8")
    assert "accept: text/event-stream" in server.requests[0]
    assert taken.ready_count == 2


@real
async def test_an_event_that_was_not_taken_is_asked_for_again() -> None:
    server = Events([HEAD, b'id: 1\ndata: {"text": "one"}\n\nid: 2\ndata: {"text": "two"}\n\n', None])
    reached = asyncio.Event()

    async def emit(message: InboundMessage) -> None:
        if message.external_id == "2":
            reached.set()
            await asyncio.Event().wait()

    async with server.url() as url:
        source = SSESource(url, parse)
        running = asyncio.ensure_future(source.run(emit, Taken().ready))
        await reached.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert source.last_id == "1"


@real
async def test_names_comments_and_bad_events() -> None:
    body = b': hello\n\nevent: other\ndata: {"text": "no"}\n\n'
    body += b'event: news\ndata: {"text": "yes"}\n\nevent: news\ndata: {\n\n'
    taken = Taken()
    async with Events([HEAD, body]).url() as url:
        source = SSESource(url, parse, options=SSESourceOptions(events={"news"}))
        with pytest.raises(Unavailable):
            await source.run(taken.emit, taken.ready)
    assert taken.texts == ["yes"]


@real
async def test_an_id_of_the_source_stands_for_its_own_event_only() -> None:
    body = b'id: 1\ndata: {"text": "one"}\n\ndata: {"text": "two"}\n\nid: 3\ndata: {"text": "three", "id": "own"}\n\n'
    taken = Taken()
    async with Events([HEAD, body]).url() as url:
        with pytest.raises(Unavailable):
            await SSESource(url, parse).run(taken.emit, taken.ready)
    assert [message.external_id for message in taken.messages] == ["1", None, "own"]


@real
async def test_answers_that_are_no_stream() -> None:
    def answer(status: str, *headers: str) -> list[bytes | None]:
        lines = [f"HTTP/1.1 {status}", "content-length: 0", "connection: close", *headers]
        return ["\r\n".join([*lines, "", ""]).encode()]

    cases: list[tuple[list[bytes | None], type[Exception]]] = [
        (answer("204 No Content"), SourceDone),
        (answer("401 Unauthorized"), Unauthorized),
        (answer("429 Too Many Requests", "retry-after: 30"), RateLimited),
        (answer("503 Service Unavailable"), Unavailable),
        (answer("200 OK", "content-type: text/html"), BadResponse),
    ]
    for scripted, error in cases:
        taken = Taken()
        async with Events(scripted).url() as url:
            with pytest.raises(error) as raised:
                await SSESource(url, parse).run(taken.emit, taken.ready)
        assert taken.ready_count == 0
        if error is RateLimited:
            assert raised.value.retry_after == 30  # type: ignore[attr-defined]


@real
async def test_the_servers_retry_time_is_passed_on_and_silence_ends_the_connection() -> None:
    async with Events([HEAD, b"retry: 1500\n\n"]).url() as url:
        with pytest.raises(Unavailable) as ended:
            await SSESource(url, parse).run(Taken().emit, Taken().ready)
        assert ended.value.retry_after == 1.5
    async with Events([HEAD, None]).url() as url:
        source = SSESource(url, parse, options=SSESourceOptions(idle_s=0.1))
        with pytest.raises(ProviderTimeout):
            await source.run(Taken().emit, Taken().ready)


@real
async def test_an_endless_event_is_not_collected() -> None:
    async with Events([HEAD, *[b"data: " + b"x" * 500 + b"\n"] * 5, None]).url() as url:
        source = SSESource(url, parse, options=SSESourceOptions(max_chars=1000))
        with pytest.raises(BadResponse, match="longer than 1000"):
            await source.run(Taken().emit, Taken().ready)


CASES: list[tuple[bytes, list[ServerEvent]]] = [
    (b"data: x\n\n", [ServerEvent("x")]),
    (b"data:x\r\rdata:  y\r\n\r\n", [ServerEvent("x"), ServerEvent(" y")]),
    (b"data: a\r\ndata: b\r\n\r\n", [ServerEvent("a\nb")]),
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [ServerEvent("YHOO\n+2\n10")]),
    (b"data\n\ndata\ndata\n\ndata:", [ServerEvent(""), ServerEvent("\n")]),
    (b"event: a\n\ndata: x\n\n", [ServerEvent("x")]),
    (b"event: a\ndata: x\n\ndata: y\n\n", [ServerEvent("x", "a"), ServerEvent("y")]),
    (b"id: 1\ndata: x\n\ndata: y\n\n", [ServerEvent("x", id="1", own_id=True), ServerEvent("y", id="1")]),
    (b"id: 1\ndata: x\n\nid\ndata: y\n\n", [ServerEvent("x", id="1", own_id=True), ServerEvent("y", own_id=True)]),
    (b"id: a\x00b\ndata: x\n\n", [ServerEvent("x")]),
    (b"\xef\xbb\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\n", [ServerEvent("x")]),
    (b": c\nunknown: y\ndata: x\n\n", [ServerEvent("x")]),
    ("data: grüße 🎈\n\n".encode(), [ServerEvent("grüße 🎈")]),
    (b"data: \xff\n\n", [ServerEvent("\ufffd")]),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_format_as_the_standard_says(number: int) -> None:
    data, expected = CASES[number]
    assert EventStream().feed(data) == expected


@given(case=st.sampled_from(CASES), data=st.data())
@settings(max_examples=150, deadline=None)
def test_where_the_bytes_are_cut_makes_no_difference(
    case: tuple[bytes, list[ServerEvent]], data: st.DataObject
) -> None:
    raw, expected = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    stream = EventStream()
    got = [event for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) for event in stream.feed(raw[a:b])]
    assert got == expected


def test_what_outlives_a_connection() -> None:
    stream = EventStream()
    stream.feed(b"retry: 2500\nretry: 1x\nid: 4\ndata: x\n\nid: 5\ndata: cut")
    stream.restart()
    assert (stream.last_id, stream.retry_s) == ("4", 2.5)
    assert stream.feed(b"data: y\n\n") == [ServerEvent("y", id="4")]
    with pytest.raises(RemoteProtocolError):
        EventStream(max_chars=10).feed(b"data: 12345678901")
