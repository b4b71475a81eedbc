"""The room socket over ASGI: one task per connection reads, everything else is told by plain calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from roomkit.core.outlet import Outlet
from roomkit.core.streams import View, ViewLost
from roomkit.errors import AccessDenied, Overloaded, RoomClosed, RoomKitError, RoomNotFound, StoreError, UsageError
from roomkit.models.access import Principal
from roomkit.models.content import TextContent
from roomkit.models.event import RoomEvent, who_left
from roomkit.models.stream import Ephemeral, StreamChunk, StreamEnd, StreamError
from roomkit.protocols.room_socket.codec import Close, Outgoing, Refused, ServerSession, wire
from roomkit.protocols.room_socket.messages import (
    Auth,
    ClientFrame,
    History,
    Join,
    Leave,
    Ping,
    Presence,
    Read,
    Send,
    Typing,
    Watch,
)
from roomkit.runtime import bounded, monotonic
from roomkit.servers import views
from roomkit.servers.access import Action
from roomkit.servers.door import Door, Unauthenticated
from roomkit.servers.inbound import refusal_of, write
from roomkit.servers.problems import spoken

if TYPE_CHECKING:
    from roomkit.core.results import InboundResult

log = logging.getLogger(__name__)
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send_ = Callable[[MutableMapping[str, Any]], Awaitable[None]]
CLOSE_S = 2.0
RETRY_S = 2.0
SILENCE = 2.5
"""A connection is cut when it was silent for this many heartbeats."""


class SocketDoor:
    """The ASGI endpoint."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send_) -> None:
        door = self._door
        connection = HTTPConnection(scope)
        await receive()
        if not door.origin_allowed(connection.headers.get("origin"), connection.headers.get("host")):
            await send({"type": "websocket.close", "code": 4403, "reason": "origin not allowed"})
            return
        await send({"type": "websocket.accept"})
        if door.draining or door.lobby.full:
            code = (1001, "going away") if door.draining else (1013, "too many connections")
            await send({"type": "websocket.close", "code": code[0], "reason": code[1]})
            return
        await Connection(door, scope, receive, send).run()


class Connection:
    """One client. Its reader runs in the server's task; what it is told goes through its writer."""

    __slots__ = (
        "__weakref__",
        "_cut",
        "_door",
        "_heard",
        "_held",
        "_out",
        "_receive",
        "_scope",
        "_send",
        "_session",
        "_task",
        "_view",
        "principal",
        "staff",
    )

    def __init__(self, door: Door, scope: MutableMapping[str, Any], receive: Receive, send: Send_) -> None:
        self._door = door
        self._scope = scope
        self._receive = receive
        self._send = send
        self._session = ServerSession(door.options.limits)
        self._out: Outlet[Outgoing] = Outlet(door.outlets, self._write_out, self._not_taken)
        self._view: View | None = None
        self._held: list[Any] | None = None
        self._cut: tuple[int, str] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._heard = monotonic()
        self.principal: Principal | None = None
        self.staff = False

    async def run(self) -> None:
        """Serves the connection until it ends, whichever side ends it."""
        self._task = asyncio.current_task()
        self._door.lobby.add(self)
        try:
            if HTTPConnection(self._scope).headers.get("authorization"):
                await self._identify(HTTPConnection(self._scope))
            while True:
                message = await self._receive()
                if message["type"] != "websocket.receive":
                    return
                self._heard = monotonic()
                await self._hear(message)
        except asyncio.CancelledError:
            # `cut` cancels a reader that would not end by itself; any other cancellation is the server's.
            if self._cut is None or self._task is None or self._task.uncancel() > 0:
                raise
        finally:
            self._out.close()
            self._leave()
            self._door.lobby.remove(self)

    # -- called from elsewhere; never waits -----------------------------------------------------------------------

    def tell(self, kind: str, /, **fields: Any) -> None:
        """A frame without a position, dropped for a connection that is behind."""
        if self._session.authenticated:
            self._sign_of_life(self._session.say(kind, **fields))

    def cut(self, code: int, reason: str) -> None:
        """Ends the connection with a close code. May be called from anywhere; only the first call counts."""
        if self._cut is None:
            self._cut = (code, reason)
            self._door.cuts.labels(str(code)).inc()
            self._out.close()
            self._door.scope.spawn(self._end(code, reason), name="close socket")

    def check(self, now: float, stamp: float) -> None:
        """Cuts a connection that is late to authenticate, expired or silent. `now` is loop time, `stamp` Unix time."""
        options = self._door.options
        if self.principal is None:
            if now - self._heard > options.auth_timeout_s:
                self.cut(4401, "no authentication in time")
        elif not self._door.alive(self.principal, stamp):
            self.cut(4401, "the token has expired or was revoked")
        elif now - self._heard > options.heartbeat_s * SILENCE:
            self.cut(4409, "silent for too long")

    # -- the client speaks ----------------------------------------------------------------------------------------

    async def _hear(self, message: MutableMapping[str, Any]) -> None:
        if self._cut is not None:
            return
        text = message.get("text")
        verdict = self._session.receive(text if text is not None else message.get("bytes") or b"", monotonic())
        match verdict:
            case Close(code, reason):
                self.cut(code, reason)
            case Refused(reply=reply):
                self._out.push(reply)
            case _:
                await self._answer(verdict)

    async def _answer(self, frame: ClientFrame) -> None:
        try:
            await self._act(frame)
        except AccessDenied as error:
            self._refuse(frame, "not_allowed", str(error))
        except RoomNotFound as error:
            self._refuse(frame, "room_not_found", spoken(error))
        except RoomClosed as error:
            self._refuse(frame, "room_closed", spoken(error))
        except Overloaded as error:
            self._refuse(frame, "overloaded", str(error), error.retry_after)
        except StoreError:
            self._refuse(frame, "unavailable", "messages cannot be stored at the moment; try again", RETRY_S)
        except UsageError as error:
            self._refuse(frame, "invalid" if isinstance(frame, Send) else "bad_frame", spoken(error))
        except RoomKitError:
            log.exception("a %s frame failed", frame.type)
            self._refuse(frame, "internal", "something went wrong on the server")

    def _refuse(self, frame: ClientFrame, code: str, message: str, retry_after: float | None = None) -> None:
        if isinstance(frame, Send):
            self._out.push(self._session.nack(frame.client_id, code, message, retry_after))
        else:
            self._out.push(self._session.error(code, message, frame.type, retry_after))

    async def _act(self, frame: ClientFrame) -> None:
        if isinstance(frame, Auth):
            await self._identify(_with_token(self._scope, frame.token))
            return
        principal = self.principal
        assert principal is not None, "the session lets nothing but auth through before"
        match frame:
            case Ping():
                self._out.push(self._session.say("pong", t=frame.t))
            case Join():
                await self._join(principal, frame)
            case Leave():
                self._leave()
            case Send():
                await self._write(principal, frame)
            case Watch():
                if frame.on:
                    await self._door.demand(principal, Action.LIST_ROOMS)
                self._door.lobby.watch(self, on=frame.on)
            case History():
                await self._history(principal, frame)
            case _:
                await self._sign(principal, frame)

    async def _identify(self, connection: HTTPConnection) -> None:
        try:
            principal = await self._door.authenticate(connection)
        except Unauthenticated as error:
            self.cut(4401, str(error)[:120])
            return
        except Overloaded as error:
            self.cut(4429, str(error)[:120])
            return
        before = self.principal
        if before is None and not self._door.lobby.admit(principal):
            self.cut(1013, "too many connections of this principal")
            return
        if before is not None and _who(before) != _who(principal):
            self.cut(4401, "the session belongs to somebody else")
            return
        self.principal, self.staff = principal, principal.sees_internal
        self._out.push(
            self._session.welcome(
                self._door.views.principal(principal),
                heartbeat_s=self._door.options.heartbeat_s,
                expires_at=principal.expires_at,
            )
        )

    # -- the room -------------------------------------------------------------------------------------------------

    async def _join(self, principal: Principal, frame: Join) -> None:
        await self._door.demand(principal, Action.READ_ROOM, frame.room_id)
        if not self.staff:
            await self._door.seat(principal, frame.room_id)
        self._leave()
        self._held = []
        try:
            view, refusal = await self._open(principal, frame)
        except BaseException:
            self._held = None
            raise
        self._view = view
        self._session.left()
        if refusal:
            self._out.push(self._session.resync_required(frame.room_id, refusal))
        resumed = frame.resume.index if frame.resume is not None and not refusal else None
        self._door.meet(view.participants)
        texts = [self._door.views.text(event, staff=self.staff) for event in view.events]
        key = (principal.tenant, frame.room_id)
        self._door.lobby.enter(self, key)
        self._out.push(self._session.view(self._fields(view, key), events=texts, resumed_from=resumed))
        held, self._held = self._held, None
        for item in held:
            self._deliver(item)

    async def _open(self, principal: Principal, frame: Join) -> tuple[View, str]:
        """A view from where the client is, or, with the reason, from the tail."""
        rooms, viewer, resume = self._door.rooms(principal), self._door.viewer(principal), frame.resume
        refusal = ""
        if resume is not None:
            view: View = await rooms.open_view(
                frame.room_id, viewer, self._deliver, after=resume.index, tail=frame.tail
            )
            if view.epoch == resume.epoch:
                reason = "ahead" if resume.index > view.index else "too_far"
                return view, reason if view.resync else ""
            refusal = "epoch"
            view.close()
            self._held = []
        return await rooms.open_view(frame.room_id, viewer, self._deliver, after=None, tail=frame.tail), refusal

    def _fields(self, view: View, key: tuple[str, str]) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "room_id": view.room.id,
            "epoch": view.epoch,
            "index": view.index,
            "room": self._door.views.room(view.room, staff=self.staff),
            "participants": [self._door.views.participant(person, staff=self.staff) for person in view.participants],
            "more": view.start > 0,
            "streams": [views.stream_view(start, text) for start, text in view.streams],
        }
        if self.staff:
            fields["bindings"] = [views.binding_view(binding) for binding in view.bindings]
            fields["viewers"] = self._door.lobby.viewers(key)
        return fields

    def _leave(self) -> None:
        view, self._view = self._view, None
        if view is not None and self.principal is not None:
            view.close()
            self._session.left()
            self._door.lobby.leave(self, (self.principal.tenant, view.room.id))

    def _deliver(self, item: Any) -> None:
        """Takes one item of the room's hub, in log order."""
        if self._held is not None:
            self._held.append(item)
            return
        door, session = self._door, self._session
        frame: Outgoing | None
        if isinstance(item, StreamChunk):
            frame = door.views.chunk(item)
        elif isinstance(item, RoomEvent):
            frame = session.event(item.index, door.views.text(item, staff=self.staff))
        elif isinstance(item, StreamEnd):
            frame = session.stream_end(item.stream_id, item.event.index, door.views.text(item.event, staff=self.staff))
        elif isinstance(item, Ephemeral):
            if self.principal is None or item.sender != self.principal.id:
                tenant = self.principal.tenant if self.principal is not None else ""
                self._sign_of_life(session.say("ephemeral", **door.views.sign(tenant, item, staff=self.staff)))
            return
        elif isinstance(item, ViewLost):
            self.cut(1012, "the room has moved; come back")
            return
        elif isinstance(item, StreamError) and not self.staff:
            # Why it was taken back may be a guard's name; the client only has to take it back.
            frame = session.stream(item.model_copy(update={"error": "withheld"}))
        else:
            frame = session.stream(item)
        if frame is not None:
            self._out.push(frame)
        if isinstance(item, RoomEvent) and self.principal is not None and who_left(item) == self.principal.id:
            self.expel()  # with the notice

    def expel(self) -> None:
        """Ends the session of a guest who is not in the room any more. Staff come and go by their role."""
        if not self.staff:
            self.cut(4403, "you are not in this room any more")

    def _sign_of_life(self, frame: str) -> None:
        """Dropped while the connection is behind (R12)."""
        if self._out.idle:
            self._out.push(frame)

    async def _write(self, principal: Principal, frame: Send) -> None:
        room_id = self._session.room_id or ""
        if self._door.draining:
            raise Overloaded("the server is going away; send it again in a moment")
        await self._door.demand(principal, Action.WRITE, room_id)
        content = frame.content if frame.content is not None else TextContent(text=frame.text or "")
        result = await write(self._door, principal, room_id, content, client_id=frame.client_id, parent=frame.parent)
        self._out.push(self._receipt(frame.client_id, result))

    def _receipt(self, client_id: str, result: InboundResult) -> str:
        if result.event is None or result.blocked:
            refusal = refusal_of(result, staff=self.staff)
            return self._session.nack(client_id, refusal.code, refusal.message, refusal.retry_after)
        return self._session.ack(client_id, result.event.index, result.event.id, duplicate=result.duplicate)

    async def _history(self, principal: Principal, frame: History) -> None:
        room_id = self._session.room_id or ""
        await self._door.demand(principal, Action.READ_ROOM, room_id)
        events, more = await self._door.page(principal, room_id, before=frame.before, limit=frame.limit)
        texts = [self._door.views.text(event, staff=self.staff) for event in events]
        self._out.push(self._session.history(room_id, texts, more=more))

    async def _sign(self, principal: Principal, frame: ClientFrame) -> None:
        room_id = self._session.room_id or ""
        match frame:
            case Typing():
                await self._door.sign(principal, room_id, "typing", {"on": frame.on})
            case Presence():
                await self._door.sign(principal, room_id, "presence", {"state": frame.state})
            case Read():
                await self._door.mark_read(principal, room_id, frame.index)
            case _:
                raise UsageError(f"{frame.type} is not handled")

    # -- the wire -------------------------------------------------------------------------------------------------

    async def _write_out(self, item: Outgoing) -> None:
        await self._send({"type": "websocket.send", "text": wire(item)})

    def _not_taken(self, reason: str, unsent: list[Outgoing]) -> None:
        # A failed write means that the client has gone: the reading side ends the connection.
        if not reason.startswith("failed"):
            self.cut(4408, f"reading too slowly: {len(unsent)} frames were not taken")

    async def _end(self, code: int, reason: str) -> None:
        try:
            await bounded(self._send({"type": "websocket.close", "code": code, "reason": reason}), CLOSE_S, "closing")
        except (TimeoutError, OSError, RuntimeError):
            # The peer takes nothing any more, not even a good-bye: do not keep its buffers for ever.
            abort = getattr(getattr(getattr(self._send, "__self__", None), "transport", None), "abort", None)
            if abort is not None:
                abort()
        if self._task is not None and not self._task.done():
            self._task.cancel()


def _with_token(scope: MutableMapping[str, Any], token: str) -> HTTPConnection:
    """The handshake as if it had carried the token, so that hosts need one `authenticate` only."""
    headers = [(name, value) for name, value in scope.get("headers", ()) if name.lower() != b"authorization"]
    headers.append((b"authorization", b"Bearer " + token.encode("latin-1", "replace")))
    return HTTPConnection({**scope, "headers": headers})


def _who(principal: Principal) -> tuple[Any, ...]:
    return principal.id, principal.tenant, principal.role, principal.room_id
