"""The endpoint through which the other nodes of a deployment ask this one: a WebSocket at `/nodes`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

from roomkit.errors import AccessDenied
from roomkit.net.node_link import SocketLink, place

if TYPE_CHECKING:
    from roomkit.core.nodes import Nodes


Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
PREFIX = "RoomKit-Node "


async def serve_node(
    nodes: Nodes, wires: set[Any], scope: MutableMapping[str, Any], receive: Receive, send: Send
) -> None:
    """Lets in who shows a fresh ticket for this node's address; nobody else hears more than a refusal. While it is
    served, its connection is one of `wires`."""
    await receive()
    link, address = nodes.link, nodes.address
    shown = Headers(scope=scope).get("authorization", "")
    try:
        if not isinstance(link, SocketLink) or not address or not shown.startswith(PREFIX):
            raise AccessDenied("no ticket")
        link.tickets.check(shown.removeprefix(PREFIX), place(address))
    except (AccessDenied, ValueError):
        await send({"type": "websocket.close", "code": 4401})
        return
    await send({"type": "websocket.accept"})
    wire = _Wire(receive, send)
    wires.add(wire)
    try:
        await link.answer(wire)
    finally:
        wires.discard(wire)


class _Wire:
    """An accepted ASGI WebSocket, as the link sees a connection."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._closed = False

    async def send(self, text: str) -> None:
        if self._closed:
            raise ConnectionError("the connection is closed")
        try:
            await self._send({"type": "websocket.send", "text": text})
        except RuntimeError as error:  # the server's word for a connection that is gone
            raise ConnectionError("the connection is closed") from error

    async def recv(self) -> str | None:
        if self._closed:
            return None
        message = await self._receive()
        if message["type"] != "websocket.receive":
            self._closed = True
            return None
        text = message.get("text")
        if not isinstance(text, str):
            raise ConnectionError("a node sends text")
        return text

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                await self._send({"type": "websocket.close", "code": 1001})
            except RuntimeError:
                pass
