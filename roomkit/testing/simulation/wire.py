"""A simulated socket between a client and a process: in order, sometimes slow, sometimes gone without a word."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from roomkit.testing.simulation.process import Process

if TYPE_CHECKING:
    from roomkit.models.access import Principal


class Wire:
    """`hear` takes what the server says. While stalled the client takes nothing and the server's sends wait."""

    def __init__(
        self,
        process: Process,
        principal: Principal,
        dice: random.Random,
        hear: Callable[[str], None],
    ) -> None:
        self.process = process
        self.open = True
        self.code: int | None = None
        self._dice = dice
        self._hear = hear
        self._loop = process.world.loop
        self._to_server: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self._server_waits: asyncio.Future[None] | None = None
        self._to_client: deque[str] = deque()
        self._arriving = False
        self._free: asyncio.Future[None] | None = None
        self._scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/socket",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"authorization", b"x"), (b"host", b"sim")],
            "scheme": "ws",
            "client": ("127.0.0.1", 1),
            "server": ("sim", 80),
            "subprotocols": [],
            "principal": principal,
        }
        process.cuts[self] = self._died
        process.spawn(self._serve(), "socket")

    async def _serve(self) -> None:
        try:
            await self.process.world.door_of(self.process)(self._scope, self._receive, self._send)
        finally:
            self.close()

    # -- the server's side ------------------------------------------------------------------------------------------

    async def _receive(self) -> dict[str, Any]:
        while not self._to_server:
            self._server_waits = self._loop.create_future()
            await self._server_waits
        return self._to_server.popleft()

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        while self._free is not None:
            await asyncio.shield(self._free)
        if not self.open:
            raise OSError("the client has gone")
        if not self.process.alive:
            return
        if message["type"] == "websocket.close":
            self.code = message.get("code", 1000)
            self.close()
        elif message["type"] == "websocket.send":
            self._to_client.append(message["text"])
            if not self._arriving:
                self._arriving = True
                calm = self.process.world.calm
                self._loop.call_later(0.0 if calm else self._dice.choice((0.0, 0.0, 0.001, 0.05)), self._arrive)

    def _arrive(self) -> None:
        self._arriving = False
        while self._to_client and self.open:
            self._hear(self._to_client.popleft())

    # -- the client's side ------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        if self.open and self.process.alive:
            self._tell({"type": "websocket.receive", "text": text})

    def stall(self, on: bool) -> None:
        if on and self._free is None:
            self._free = self._loop.create_future()
        elif not on and self._free is not None:
            self._free.set_result(None)
            self._free = None

    def close(self) -> None:
        """The line is gone; each side finds out for itself."""
        if not self.open or self._loop.is_closed():
            return
        self.open = False
        self.process.cuts.pop(self, None)
        self.stall(False)
        self._tell({"type": "websocket.disconnect", "code": 1006})

    def _died(self) -> None:
        self.close()

    def _tell(self, message: dict[str, Any]) -> None:
        self._to_server.append(message)
        if self._server_waits is not None and not self._server_waits.done():
            self._server_waits.set_result(None)
