"""A client of RTVI in a room: text both ways, and a function that the client runs.

Run it: python examples/rtvi_client.py. A few lines play the client; Pipecat's own ones speak the same
(docs/guides/rtvi.md). Needs the [rtvi,server] extras.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

import uvicorn
import websockets

from roomkit import AIChannel, RoomKit
from roomkit.models.access import PrincipalRole
from roomkit.protocols.rtvi.frames import message_frame, read
from roomkit.runtime import Scope
from roomkit.servers.rtvi import Client, RTVIOptions, RTVIServer, rtvi_app


def answer(client: Client, kind: str, data: Any) -> Any:
    """What the app itself asks."""
    return {"room": client.room_id, "asked": data} if kind == "whereami" else None


async def main() -> None:
    kit = RoomKit(token_secrets=secrets.token_hex(32))
    kit.register_channel(AIChannel("assistant", "offline"), default=True)
    app = rtvi_app(RTVIServer(kit, RTVIOptions(on_message=answer)))
    web = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="websockets-sansio"))
    async with kit:
        await kit.create_room("r")
        token = kit.tokens.issue(PrincipalRole.GUEST, "r", id="ann").token
        async with Scope("web server") as scope:
            scope.spawn(web.serve(), name="uvicorn")
            await talk(await port_of(web), token)
            web.should_exit = True
            await scope.drain(5)


async def port_of(web: uvicorn.Server) -> int:
    while not web.started:  # noqa: ASYNC110 - uvicorn tells of its start in no other way
        await asyncio.sleep(0.01)
    return int(web.servers[0].sockets[0].getsockname()[1])


async def talk(port: int, token: str) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{port}/?token={token}") as socket:

        async def send(kind: str, data: Any) -> None:
            envelope = {"label": "rtvi-ai", "type": kind, "id": kind, "data": data}
            await socket.send(message_frame(json.dumps(envelope)))

        await send("client-ready", {"version": "2.1.0", "about": {"library": "example"}})
        await send("client-message", {"t": "whereami", "d": 1})
        await send("send-text", {"content": "Hello!"})
        async for frame in socket:
            told = json.loads(str(read(bytes(frame))))
            if told["type"] in ("bot-ready", "server-response", "bot-output"):
                print(told["type"], json.dumps(told["data"])[:100])
            if told["type"] == "bot-llm-stopped":
                return


if __name__ == "__main__":
    asyncio.run(main())
