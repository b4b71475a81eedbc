"""A WebSocket without a network: drives an ASGI app directly, so that sockets run in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from roomkit.net.room_client import Disconnected
from roomkit.runtime import Scope, Wakeup


class AsgiSocket:
    """One client connection to an ASGI app. A `Wire` for `RoomClient`, and a plain client for tests.

    While `stalled` is true the client takes nothing: the app's sends wait, as with a full network buffer. What was
    received stays in `seen`.
    """

    def __init__(
        self, app: Any, path: str = "/socket", *, headers: Sequence[tuple[str, str]] = (), root_path: str = ""
    ) -> None:
        self._app = app
        self._scope = Scope("asgi socket")
        self._to_app: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self._app_wakes = Wakeup()
        self._wakes = Wakeup()
        self._frames: deque[str | bytes] = deque()
        self._writable = asyncio.Event()
        self._writable.set()
        self.accepted = False
        self.code: int | None = None
        self.reason = ""
        self.seen: list[dict[str, Any]] = []
        self.asgi_scope: dict[str, Any] = {
            "type": "websocket",
            "path": root_path + path,
            "root_path": root_path,
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "scheme": "ws",
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
            "subprotocols": [],
        }

    @classmethod
    def connector(cls, app: Any, **options: Any) -> Callable[[str], Any]:
        """What `RoomClient(connect=...)` takes."""

        async def connect(_url: str) -> AsgiSocket:
            return await cls(app, **options).open()

        return connect

    async def open(self) -> Self:
        """Connects. Raises `Disconnected` when the app refuses the handshake."""
        self._scope.spawn(self._drive(), name="asgi app")
        while not self.accepted and self.code is None:
            await self._wakes.wait()
        if not self.accepted:
            await self._scope.aclose()
            raise Disconnected(self.code or 1006, self.reason)
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def stalled(self) -> bool:
        return not self._writable.is_set()

    @stalled.setter
    def stalled(self, on: bool) -> None:
        if on:
            self._writable.clear()
        else:
            self._writable.set()

    async def send(self, text: str | bytes) -> None:
        if self.code is not None:
            raise Disconnected(self.code, self.reason)
        self._tell_app({"type": "websocket.receive", ("text" if isinstance(text, str) else "bytes"): text})

    async def say(self, kind: str, /, **fields: Any) -> None:
        """Sends a frame of the room socket."""
        await self.send(json.dumps({"type": kind, **fields}))

    async def recv(self) -> str:
        """The next text message, passing over others. Raises `Disconnected` after the last one."""
        while not isinstance(message := await self.recv_any(), str):
            pass
        return message

    async def recv_any(self) -> str | bytes:
        """The next message. Raises `Disconnected` after the last one."""
        while not self._frames:
            if self.code is not None:
                raise Disconnected(self.code, self.reason)
            await self._wakes.wait()
        return self._frames.popleft()

    async def get(self, kind: str | None = None) -> dict[str, Any]:
        """The next frame (of this type: those before it are passed over, but stay in `seen`)."""
        while True:
            frame: dict[str, Any] = json.loads(await self.recv())
            self.seen.append(frame)
            if kind in (None, frame["type"]):
                return frame

    def waiting(self) -> list[dict[str, Any]]:
        """The frames that have come and were not read yet."""
        return [json.loads(text) for text in self._frames if isinstance(text, str)]

    async def closed(self) -> int:
        """Waits for the app to close and returns the code; frames before it are passed over."""
        try:
            while True:
                await self.get()
        except Disconnected as end:
            return end.code

    async def close(self) -> None:
        """Goes away as a browser does."""
        if self.code is None:
            self.code = 1005
        self._tell_app({"type": "websocket.disconnect", "code": 1001})
        self._writable.set()
        if not await self._scope.drain(30.0):
            await self._scope.aclose()

    async def vanish(self) -> None:
        """Breaks without a word: the app finds out by its own means."""
        self.code = 1006
        await self.close()

    def _tell_app(self, message: dict[str, Any]) -> None:
        self._to_app.append(message)
        self._app_wakes.set()

    async def _drive(self) -> None:
        try:
            await self._app(self.asgi_scope, self._receive, self._take)
        finally:
            if self.code is None:
                self.code = 1006
            self._wakes.set()

    async def _receive(self) -> dict[str, Any]:
        while not self._to_app:
            await self._app_wakes.wait()
        return self._to_app.popleft()

    async def _take(self, message: dict[str, Any]) -> None:
        await self._writable.wait()
        if self.code is not None:
            raise OSError("the client has gone")
        match message["type"]:
            case "websocket.accept":
                self.accepted = True
            case "websocket.send":
                text = message.get("text")
                self._frames.append(text if text is not None else message["bytes"])
            case "websocket.close":
                self.code = message.get("code", 1000)
                self.reason = message.get("reason") or ""
                self._tell_app({"type": "websocket.disconnect", "code": self.code})
            case other:
                raise RuntimeError(f"an app may not send {other}")
        self._wakes.set()
