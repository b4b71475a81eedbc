"""Running the app with uvicorn, so that a stop is a drain."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from roomkit.servers.asgi import RoomApp

if TYPE_CHECKING:
    from types import FrameType


class DrainingServer(uvicorn.Server):
    """On the first SIGTERM or SIGINT the app drains; a second one forces the end (R11)."""

    def __init__(self, config: uvicorn.Config, app: RoomApp) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if not self.force_exit:
            await self._app.drain()
        await super().shutdown(sockets=sockets)


def server(app: RoomApp, host: str = "127.0.0.1", port: int = 8000, **more: Any) -> DrainingServer:
    """A uvicorn server with our limits: `await server(app).serve()`. `more` are fields of `uvicorn.Config`."""
    limits = app.door.options.limits
    settings: dict[str, Any] = {
        "host": host,
        "port": port,
        "ws_max_size": limits.frame_bytes * 2,
        "ws_per_message_deflate": False,
        "ws_ping_interval": 30.0,
        "ws_ping_timeout": 30.0,
        "timeout_graceful_shutdown": 5,
        "proxy_headers": False,
        "server_header": False,
        "log_level": "warning",
        "access_log": False,
        **more,
    }
    return DrainingServer(uvicorn.Config(app, **settings), app)
