"""Rooms inside an app of your own: mounted under a prefix, with your own login, and a client that follows a room.

Nothing listens here: the client drives the app directly. In production the same app is what uvicorn serves.
"""

from __future__ import annotations

import asyncio

import httpx2
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from roomkit import Principal, RoomKit
from roomkit.net.room_client import RoomClient
from roomkit.testing.sockets import AsgiSocket

kit = RoomKit()
SESSIONS = {"session-of-ann": "ann"}  # your own login


@kit.on_message
async def reply(ctx, message):
    for word in ("Welcome", " to", " the shop."):  # an async generator streams
        await asyncio.sleep(0.01)
        yield word


async def chat_token(request):
    """Your own route: whoever is logged in gets a room and a short-lived token for it."""
    user = SESSIONS.get(request.cookies.get("session", ""))
    if user is None:
        return JSONResponse({"error": "log in first"}, 401)
    known = await kit.list_rooms(external_id=f"user:{user}")
    room = known[0] if known else await kit.create_room(external_id=f"user:{user}")
    return JSONResponse({"room": room.id, "token": kit.tokens.mint("guest", room.id, 900, id=user)})


rooms = kit.asgi(pages=False)
app = Starlette(routes=[Route("/chat-token", chat_token), Mount("/rooms", rooms)])


async def main() -> None:
    async with kit, httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop.example") as web:
        print("without a login:", (await web.get("/chat-token")).status_code)
        got = (await web.get("/chat-token", headers={"cookie": "session=session-of-ann"})).json()
        me = await web.get("/rooms/api/me", headers={"authorization": f"Bearer {got['token']}"})
        print("the API knows:", Principal.model_validate(me.json()["principal"]).id)

        connect = AsgiSocket.connector(app, path="/rooms/socket")
        async with RoomClient("ws://shop.example/rooms/socket", got["room"], got["token"], connect=connect) as room:
            await room.send("Hello")
            async for frame in room:
                if frame.type.startswith("stream"):
                    print("  ", frame.type, getattr(frame, "delta", ""))
                if frame.type == "stream_end":
                    break
        await rooms.aclose()


if __name__ == "__main__":
    asyncio.run(main())
