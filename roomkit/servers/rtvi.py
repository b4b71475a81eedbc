"""RTVI's door: Pipecat's clients in a room, over WebSocket with protobuf frames.

    server = RTVIServer(kit)
    app = rtvi_app(server)        # a WebSocket at /, to be mounted: ws://host/rtvi/?token=TOKEN

Text, app messages, functions that the client runs, what its page shows. Sound is not carried here yet: a browser's
microphone has the voice page or WebRTC. Needs the [rtvi] extra.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from roomkit.ai.tools import Tool
from roomkit.channels.websocket import WebSocketChannel
from roomkit.errors import AccessDenied, MissingExtra, Overloaded, RemoteProtocolError, RoomKitError
from roomkit.models.access import Principal
from roomkit.models.content import ToolCallContent, text_of, valid_text
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.stream import StreamChunk, StreamEnd, StreamError, StreamStart
from roomkit.protocols.rtvi.session import (
    Act,
    Asked,
    Leave,
    Pressed,
    Result,
    Say,
    Send,
    Session,
    Shown,
)
from roomkit.runtime import BlockingBuffer, BufferClosed, Scope
from roomkit.servers.access import Action
from roomkit.servers.client_tools import ClientTools
from roomkit.servers.door import Door, Unauthenticated
from roomkit.servers.options import ServerOptions
from roomkit.servers.visit import Heard, Visit

try:
    from roomkit.protocols.rtvi.frames import message_frame, read
except ImportError as error:
    raise MissingExtra("RTVI's door", "protobuf", "rtvi") from error

if TYPE_CHECKING:
    from roomkit.core.results import InboundResult
    from roomkit.kit import RoomKit

log = logging.getLogger(__name__)
FRAMES, HANDLED = 1_000, 32
NOT_SENT = "this message could not be sent"
OnMessage = Callable[["Client", str, Any], Any]
"""(client, type, data) -> what to answer; None answers nothing, and an exception refuses."""


@dataclass(frozen=True, slots=True)
class RTVIOptions:
    """`room_of(principal, query)` names the room: by default the token's own, else the query's `room`, else one for the
    person. `on_message` answers the app's own messages; `on_shown(client, kind, data)` hears of the client's page. A
    function of the client's has `tool_s` seconds."""

    channel_id: str = "rtvi"
    room_of: Callable[[Principal, dict[str, str]], str] | None = None
    on_message: OnMessage | None = None
    on_shown: Callable[[Client, str, dict[str, Any]], Any] | None = None
    tool_s: float = 60.0


class RTVIServer:
    """All clients of one kit. The channel `options.channel_id` is registered unless the kit has it."""

    def __init__(self, kit: RoomKit, options: RTVIOptions | None = None) -> None:
        self.kit = kit
        self.options = options or RTVIOptions()
        if self.options.channel_id not in kit.engine.channels:
            kit.register_channel(WebSocketChannel(self.options.channel_id))
        self.clients: dict[Client, None] = {}
        self._tools = ClientTools(self._ask, self.options.tool_s)

    def client_tool(self, function: Callable[..., Any]) -> Tool:
        """Makes a tool of a typed function whose body the client has (`registerFunctionCallHandler` there)."""
        return self._tools.tool(function)

    def push(self, room_id: str, data: Any, *, tenant: str = "default") -> int:
        """Sends a message of the app's own to every client in the room; returns how many there are."""
        here = [client for client in self.clients if (client.tenant, client.room_id) == (tenant, room_id)]
        for client in here:
            client.post(client.session.push(data))
        return len(here)

    def answered(self, tenant: str, room_id: str, call_id: str, result: Any) -> None:
        self._tools.answered(tenant, room_id, call_id, result)

    def _ask(self, tenant: str, room_id: str, call_id: str, name: str, arguments: dict[str, Any]) -> bool:
        """Of several clients in a room the one that came first is asked."""
        here = [
            client
            for client in self.clients
            if (client.tenant, client.room_id) == (tenant, room_id) and client.session.ready
        ]
        for client in here[:1]:
            client.post(client.session.function(call_id, name, arguments))
        return bool(here)


class Client:
    """One connection."""

    def __init__(self, server: RTVIServer, door: Door, principal: Principal, room_id: str) -> None:
        self.principal: Principal | None = principal
        self.staff = False
        self.room_id = room_id
        self.session = Session()
        self._door = door
        self._who = principal
        self._handling = 0
        self._code = (1000, "")
        self._server = server
        self._rooms = door.rooms(principal)
        self._out: BlockingBuffer[bytes] = BlockingBuffer(FRAMES)
        self._scope = Scope("rtvi client", on_failure=lambda failure: self._fail(failure.error))
        self._limits = door.options.limits
        self._visit = Visit(self._rooms, room_id, server.options.channel_id, principal.id, name=principal.display_name)

    @property
    def tenant(self) -> str:
        return self._who.tenant

    async def run(self, socket: WebSocket) -> None:
        """Serves the connection until one side ends it."""
        server = self._server
        try:
            await self._visit.enter(create=self._who.room_id is None)
            server.clients[self] = None
            self._door.lobby.enter(self, (self.tenant, self.room_id))
            self._scope.spawn(self._listen(), name="room")
            self._scope.spawn(self._write(socket), name="writer")
            while True:
                frame = await socket.receive()
                if frame["type"] != "websocket.receive":
                    return
                await self._hear(frame)
        finally:
            server.clients.pop(self, None)
            self._door.lobby.leave(self, (self.tenant, self.room_id))
            self._door.lobby.remove(self)
            self._visit.close()
            self._out.close()
            await self._scope.aclose()

    def post(self, acts: Iterable[Act]) -> None:
        """Sends without waiting; a client that takes nothing is cut."""
        for act in acts:
            if not isinstance(act, Send):
                continue
            try:
                if not self._out.try_put(message_frame(act.text)):
                    self._out.close()
            except BufferClosed:
                return

    # -- as a connection of the lobby, which sweeps out who may stay no longer -----------------------------------------

    def tell(self, kind: str, /, **fields: Any) -> None:
        """What is told of rooms here, RTVI has no words for."""

    def cut(self, code: int, reason: str) -> None:
        log.info("an RTVI client of room %s is cut (%d): %s", self.room_id, code, reason)
        self._code = (code, reason)
        self._visit.finish()
        self._out.close()

    def check(self, now: float, stamp: float) -> None:
        del now
        if self.principal is not None and not self._door.alive(self.principal, stamp):
            self.cut(4003, "the token has expired or was revoked")

    def expel(self) -> None:
        self.cut(4003, "removed from the room")

    def _fail(self, error: BaseException) -> None:
        log.warning("an RTVI client of room %s was let go: %s", self.room_id, error)
        self._out.close()

    # -- from the client ----------------------------------------------------------------------------------------------

    async def _hear(self, frame: Any) -> None:
        data = frame.get("bytes")
        if data is None:
            self.post([self.session.failed("frames are binary: one protobuf Frame in each")])
            return
        if len(data) > 4 * self._limits.frame_bytes:
            self.post([self.session.failed("the frame is too large")])
            return
        try:
            found = read(data)
        except RemoteProtocolError as error:
            self.post([self.session.failed(str(error))])
            return
        if isinstance(found, str):  # Sound has no way from here; it is nobody's fault that it comes.
            for act in self.session.hear(found):
                await self._do(act)

    async def _do(self, act: Act) -> None:
        match act:
            case Send():
                self.post([act])
            case Say():
                await self._say(act)
            case Asked() if self._handling >= HANDLED:
                self.post([self.session.refuse(act.message_id, "too many messages are being answered; wait for some")])
            case Asked():
                self._handling += 1
                self._scope.spawn(self._answer(act), name="message")
            case Result(call_id=call_id, result=result):
                self._server.answered(self._who.tenant, self.room_id, call_id, result)
            case Pressed(buttons=buttons):
                await self._say(Say("", buttons, now=True), metadata={"dtmf": buttons})
            case Shown(kind=kind, data=data):
                if self._server.options.on_shown is not None:
                    self._scope.spawn(_called(self._server.options.on_shown, self, kind, data), name="page")
            case Leave():
                self._visit.finish()
                self._out.close()

    async def _say(self, act: Say, metadata: dict[str, Any] | None = None) -> None:
        if len(act.text) > self._limits.text_chars:
            self.post([self.session.refuse(act.message_id, f"at most {self._limits.text_chars} characters")])
            return
        try:
            if act.now and await self._visit.interrupt("the user spoke up"):
                self.post(self.session.interrupted())
            if not self._door.writes.try_acquire((self._who.tenant, self._who.id)):
                self.post([self.session.refuse(act.message_id, "too many messages; slow down")])
                return
            external = f"{self._who.id}:{act.message_id}" if act.message_id else None
            result = await self._visit.say(
                valid_text(act.text),
                external_id=external,
                addressed_to=None if act.now else (),
                metadata=metadata,
            )
        except RoomKitError as error:
            log.warning("what an RTVI client has said was not taken: %s", error)
            self.post([self.session.refuse(act.message_id, NOT_SENT)])
            return
        self._took(act, result)

    def _took(self, act: Say, result: InboundResult) -> None:
        if result.event is None or result.blocked:
            self.post([self.session.refuse(act.message_id, NOT_SENT)])
            return
        stamp = result.event.created_at.isoformat()
        self.post(self.session.heard(act.text, self._who.id, stamp, act.message_id))

    async def _answer(self, asked: Asked) -> None:
        handler = self._server.options.on_message
        try:
            if handler is None:
                self.post([self.session.refuse(asked.message_id, f"nobody here answers {asked.kind[:100]!r}")])
                return
            data = handler(self, asked.kind, asked.data)
            if inspect.isawaitable(data):
                data = await data
        except Exception:  # the app's own code: one message of it must not end the connection
            log.exception("the handler of an app's message failed")
            self.post([self.session.refuse(asked.message_id, "Exception processing message")])
            return
        finally:
            self._handling -= 1
        if data is not None:
            self.post([self.session.answer(asked, data)])

    # -- to the client ------------------------------------------------------------------------------------------------

    async def _write(self, socket: WebSocket) -> None:
        try:
            while True:
                await socket.send_bytes(await self._out.get())
        except BufferClosed:
            await socket.close(*self._code)
        except (WebSocketDisconnect, RuntimeError, OSError):
            return  # It has gone; the reader hears of it.

    async def _listen(self) -> None:
        try:
            async for item in self._visit:
                self.post(self._heard(item))
        except Overloaded as error:
            self._fail(error)

    def _heard(self, item: Heard) -> list[Act]:
        session = self.session
        if isinstance(item, StreamStart):
            return session.starts(item.stream_id)
        if isinstance(item, StreamChunk):
            return session.grows(item.stream_id, item.delta)
        if isinstance(item, StreamError):
            return session.withdrawn(item.stream_id)
        event = item.event if isinstance(item, StreamEnd) else item
        assert isinstance(event, RoomEvent)
        if isinstance(event.content, ToolCallContent):
            return []
        if event.type is not EventType.MESSAGE or event.source.participant_id == self._who.id:
            return []
        return session.said(event.id, text_of(event.content))


async def _called(handler: Callable[..., Any], *args: Any) -> None:
    try:
        found = handler(*args)
        if inspect.isawaitable(found):
            await found
    except Exception:  # as above
        log.exception("a handler of an RTVI client's page failed")


def rtvi_app(server: RTVIServer, **options: Any) -> Starlette:
    """The door as an app to mount. `options` are those of `kit.asgi()`: tokens, allowed origins and limits are the same
    as everywhere. A client that may not come in is closed with 4003, one from a foreign page with 4403."""
    door = Door(server.kit, ServerOptions(**options))

    async def endpoint(socket: WebSocket) -> None:
        if not door.origin_allowed(socket.headers.get("origin"), socket.headers.get("host")):
            await _refuse(socket, 4403, "origin not allowed")
            return
        if door.draining or door.lobby.full:
            await _refuse(socket, 1013, "too many connections")
            return
        try:
            principal = await _who(door, socket)
            room_id = _room(server, principal, dict(socket.query_params))
            if principal.room_id is not None or not await door.may(principal, Action.WRITE, room_id):
                await door.demand(principal, Action.WRITE, room_id)
        except RoomKitError as error:
            reason = str(error) if isinstance(error, (Unauthenticated, AccessDenied, Overloaded)) else "no such room"
            await _refuse(socket, 4003, reason)
            return
        if not door.lobby.admit(principal):
            await _refuse(socket, 1013, "too many connections of yours")
            return
        await socket.accept()
        try:
            client = Client(server, door, principal, room_id)
            door.lobby.add(client)
            await client.run(socket)
        except RoomKitError as error:
            log.info("an RTVI client could not come in: %s", error)
            await _close(socket, 1008)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        """Run where the app stands alone; mounted, its clients end with their connections."""
        del app
        yield
        door.lobby.cut_all(1001, "going away")
        door.lobby.close()
        await door.scope.aclose()

    return Starlette(routes=[WebSocketRoute("/", endpoint)], lifespan=lifespan)


async def _who(door: Door, socket: WebSocket) -> Principal:
    token = socket.query_params.get("token")
    if not token:
        return await door.authenticate(HTTPConnection(socket.scope))
    headers = [(name, value) for name, value in socket.scope["headers"] if name != b"authorization"]
    scope = {**socket.scope, "headers": [*headers, (b"authorization", b"Bearer " + token.encode("latin-1", "replace"))]}
    return await door.authenticate(HTTPConnection(scope))


def _room(server: RTVIServer, principal: Principal, query: dict[str, str]) -> str:
    if principal.room_id is not None:
        return principal.room_id
    if server.options.room_of is not None:
        return server.options.room_of(principal, query)
    return query.get("room") or f"rtvi-{principal.id}"


async def _refuse(socket: WebSocket, code: int, reason: str) -> None:
    await socket.accept()  # Before it is accepted a browser hears no code.
    await socket.close(code, reason[:100])


async def _close(socket: WebSocket, code: int) -> None:
    try:
        await socket.close(code)
    except (RuntimeError, OSError):
        return


__all__ = ["Client", "RTVIOptions", "RTVIServer", "rtvi_app"]
