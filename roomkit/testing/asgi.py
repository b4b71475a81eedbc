"""An HTTP transport that calls an ASGI app directly and streams its answer: fake vendors need no socket.

Unlike `httpx2.ASGITransport` it hands each chunk over as the app sends it, waits for the reader (back-pressure), obeys
read time-outs, tells the app when the client goes away, and can break a connection in the middle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import httpx2

from roomkit.runtime import BlockingBuffer, BufferClosed, Scope, TaskFailure, bounded

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_MOMENT = 5  # turns of the loop


class ConnectionCut(Exception):
    """Raised by an app to drop the connection: before an answer, or in the middle of it."""


class StreamingASGITransport(httpx2.AsyncBaseTransport):
    """Give it to an HTTP client as `transport=`. `aclose()` ends every request still running in the app.

    An app's own exception is raised in the client, so that a broken fake is not mistaken for a broken network.
    """

    def __init__(self, app: ASGIApp, *, client: tuple[str, int] = ("127.0.0.1", 123)) -> None:
        self.app = app
        self.client = client
        self._scope = Scope("asgi transport", on_failure=_told)

    @property
    def running(self) -> int:
        """Requests the app is still working on."""
        return len(self._scope)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        exchange = _Exchange(b"".join([part async for part in request.stream]), _read_limit(request))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(key.lower(), value) for key, value in request.headers.raw],
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.split(b"?")[0],
            "query_string": request.url.query,
            "server": (request.url.host, request.url.port),
            "client": self.client,
            "root_path": "",
            "state": {},
        }
        exchange.task = self._scope.spawn(exchange.run(self.app, scope), name=f"{request.method} {request.url.path}")
        try:
            status, headers = await exchange.head()
        except BaseException:
            await exchange.aclose()
            raise
        return httpx2.Response(status, headers=headers, stream=exchange, request=request)

    async def aclose(self) -> None:
        await self._scope.aclose()


class _Exchange(httpx2.AsyncByteStream):
    """One request and its answer; as the answer's stream it is what the client reads and closes."""

    def __init__(self, body: bytes, read_limit: float | None) -> None:
        self.task: asyncio.Task[None] | None = None
        self._body: bytes | None = body
        self._limit = read_limit
        self._started: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]] = (
            asyncio.get_running_loop().create_future()
        )
        self._chunks: BlockingBuffer[bytes] = BlockingBuffer(1)
        self._gone = asyncio.Event()
        self._complete = False
        self._error: BaseException | None = None

    async def run(self, app: ASGIApp, scope: Message) -> None:
        try:
            await app(scope, self._receive, self._send)
            if not self._complete:
                self._error = httpx2.RemoteProtocolError("the app returned before its answer was complete")
        except ConnectionCut:
            self._error = httpx2.RemoteProtocolError("peer closed connection without sending complete message body")
        except Exception as error:  # noqa: BLE001 - the app is a boundary; its failure belongs to the client
            self._error = error
        finally:
            if not self._started.done():
                self._started.set_exception(self._error or httpx2.RemoteProtocolError("the request was cancelled"))
                self._started.exception()  # Seen: the client may have gone away already.
            self._chunks.close()

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        return await self._in_time(asyncio.shield(self._started))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                chunk = await self._in_time(self._chunks.get())
            except BufferClosed:
                break
            yield chunk
        if self._error is not None:
            raise self._error

    async def aclose(self) -> None:
        """The client reads no further. The app is told so, gets a moment to leave by itself, and is then cancelled."""
        self._gone.set()
        self._chunks.close()
        task = self.task
        if self._complete or task is None:
            return
        try:
            for _ in range(_MOMENT):
                await asyncio.sleep(0)
        finally:
            task.cancel()
        await asyncio.wait({task})

    async def _in_time(self, awaitable: Awaitable[Any]) -> Any:
        try:
            return await bounded(awaitable, self._limit, "the answer")
        except TimeoutError as error:
            raise httpx2.ReadTimeout("no answer in time") from error

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._gone.is_set():
            raise OSError("the client has disconnected")
        if message["type"] == "http.response.start":
            if not self._started.done():
                self._started.set_result((message["status"], list(message.get("headers", []))))
            return
        if body := message.get("body", b""):
            try:
                await self._chunks.put(body)
            except BufferClosed as error:
                raise OSError("the client has disconnected") from error
        if not message.get("more_body", False):
            self._complete = True
            self._gone.set()
            self._chunks.close()


def _told(failure: TaskFailure) -> None:
    """Nothing to do: the scope has logged it, and the client has been given the error."""


def _read_limit(request: httpx2.Request) -> float | None:
    limits: dict[str, float | None] = request.extensions.get("timeout", {})
    return limits.get("read")
