"""Calls at the door: pages and phone companies by web socket, WebRTC by offer and answer, and who may call whom.

`GET /voice` tells a page which channels take its calls; `POST /voice/{channel}` is a phone company's webhook or an
offer of WebRTC; the web socket `/voice/{channel}` carries sound.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from roomkit.errors import AccessDenied, Overloaded, ProtocolError, RoomKitError, SessionEnded, StateError
from roomkit.models.access import Principal
from roomkit.models.audio import SessionState, VoiceSession
from roomkit.models.delivery import WebhookRequest
from roomkit.models.room import Assurance
from roomkit.ports.audio import OfferBackend, VendorSocketBackend, VoiceBackend
from roomkit.runtime import bounded, monotonic
from roomkit.servers.access import Action
from roomkit.servers.door import Door, Unauthenticated
from roomkit.servers.problems import Draining, NotFound, TooMany, answer, problem
from roomkit.servers.rest.api import read_body

if TYPE_CHECKING:
    from roomkit.channels.voice import VoiceChannel

log = logging.getLogger(__name__)
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
SEND_S = 5.0
"""A far end that takes nothing for so long is gone: sound is worth nothing by then."""
SILENCE = 2.5
WATCH_S = 1.0
MOST_SDP = 65_536


async def calls(door: Door, request: Request) -> Response:
    """The channels that take calls of whoever asks, and how: "socket" (`voice.js` does it) or "offer" (WebRTC)."""
    try:
        principal = await door.authenticate(request)
    except RoomKitError as error:
        return problem(error)
    found: list[dict[str, str]] = []
    for channel_id, channel in door.kit.engine.channels.items():
        backend = getattr(channel, "backend", None)
        if door.kit.channel_tenant(channel_id) != principal.tenant or backend is None:
            continue
        by = "socket" if getattr(backend, "entry", "") == "token" else "offer" if hasattr(backend, "offer") else None
        if by is not None:
            found.append({"id": channel_id, "by": by, **_hears(channel)})
    return JSONResponse({"channels": found}, headers={"cache-control": "no-store"})


async def call_posted(door: Door, request: Request) -> Response:
    """A phone company asks what to do with a call, or a page offers one."""
    channel_id = request.path_params["channel"]
    try:
        if door.draining:
            raise Draining("the server is going away; call again")
        channel, backend, tenant = _find(door, channel_id)
        if hasattr(backend, "offer"):
            return await _offered(door, channel, cast("OfferBackend", backend), tenant, request)
        if getattr(backend, "entry", "") != "vendor":
            raise NotFound("there is no such webhook")
        body = await read_body(request, door.options.webhook_bytes, door.options.request_s)
        asked = _webhook(request, f"{door.options.base_url or ''}/voice/{channel_id}", body)
        reply = cast("VendorSocketBackend", backend).reply(asked, _socket_url(door, channel_id))
        return Response(reply.body, reply.status, media_type=reply.content_type)
    except (ProtocolError, ValueError, RecursionError) as error:
        log.warning("what was posted to call channel %s cannot be read: %s", channel_id, error)
        return answer(400, "bad_request", "the request cannot be read")
    except RoomKitError as error:
        return problem(error)


async def serve_voice(door: Door, scope: MutableMapping[str, Any], receive: Receive, send: Send, path: str) -> None:
    """The web socket of `/voice/{channel}`."""
    await receive()
    connection = HTTPConnection(scope)
    channel_id = path.removeprefix("/voice/")
    try:
        channel, backend, tenant = _find(door, channel_id)
        vendor = getattr(backend, "entry", "token") == "vendor"
        if not hasattr(backend, "serve"):
            raise NotFound("there is no such web socket")
        if vendor:
            cast("VendorSocketBackend", backend).admit(_webhook(connection, _socket_url(door, channel_id), b""))
        elif not door.origin_allowed(connection.headers.get("origin"), connection.headers.get("host")):
            raise AccessDenied("origin not allowed")
    except NotFound:
        await send({"type": "websocket.close", "code": 4404})
        return
    except AccessDenied as error:
        log.warning("a web socket of call channel %s was refused: %s", channel_id, error)
        await send({"type": "websocket.close", "code": 4403})
        return
    await send({"type": "websocket.accept"})
    if door.draining or door.lobby.full:
        code = (1001, "going away") if door.draining else (1013, "too many connections")
        await send({"type": "websocket.close", "code": code[0], "reason": code[1]})
        return
    await Line(door, channel, tenant, scope, receive, send, vendor=vendor).run()


class Line:
    """One web socket with a call on it: a `SocketLine`, and a guest of the lobby, which sweeps out expired tokens."""

    def __init__(
        self,
        door: Door,
        channel: VoiceChannel,
        tenant: str,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
        *,
        vendor: bool,
    ) -> None:
        self._door = door
        self._channel = channel
        self._tenant = tenant
        self._scope = scope
        self._receive = receive
        self._send = send
        self._vendor = vendor
        self._cut: tuple[int, str] | None = None
        self._closed = False
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[Any] | None = None
        self._heard = monotonic()
        self.principal: Principal | None = None
        self.staff = False

    async def run(self) -> None:
        """Serves the call until it ends, whichever side ends it."""
        self._task = asyncio.current_task()
        self._door.lobby.add(self)
        key = None
        try:
            if self._vendor:
                await self._carry(VoiceSession(f"call-{secrets.token_hex(8)}", tenant=self._tenant), None)
            else:
                session, room_id = await self._enter()
                key = (self._tenant, room_id)
                self._door.lobby.enter(self, key)
                await self._carry(session, room_id)
        except (Unauthenticated, TimeoutError) as error:
            await self.close(4401, str(error)[:120])
        except Overloaded as error:
            await self.close(4429, str(error)[:120])
        except AccessDenied as error:
            await self.close(4403, str(error)[:120])
        except StateError as error:
            await self.close(4404, "there is no such room" if not isinstance(error, SessionEnded) else "")
        except ProtocolError as error:
            await self.close(4400, str(error)[:120])
        except asyncio.CancelledError:
            # `cut` cancels a reader that would not end by itself; any other cancellation is the server's.
            if self._cut is None or self._task is None or self._task.uncancel() > 0:
                raise
        finally:
            if key is not None:
                self._door.lobby.leave(self, key)
            self._door.lobby.remove(self)
        await self.close()

    async def _carry(self, session: VoiceSession, room_id: str | None) -> None:
        async def answered() -> None:
            caller = str(session.metadata.get("from", "")) or None
            await self._channel.answer(session, room_id=room_id, sender_id=caller)

        backend = cast("VendorSocketBackend", self._channel.backend)
        await backend.serve(self, session, answered)

    async def _enter(self) -> tuple[VoiceSession, str]:
        """The first two messages, as at the room socket: who it is, and which room. With `listen_only` staff hear the
        room and have no uplink."""
        auth = await self._frame("auth")
        token = str(auth.get("token", ""))
        headers = [(name, value) for name, value in self._scope.get("headers", ()) if name.lower() != b"authorization"]
        headers.append((b"authorization", b"Bearer " + token.encode("latin-1", "replace")))
        principal = await self._door.authenticate(HTTPConnection({**self._scope, "headers": headers}))
        self._door.admit(principal)
        self.principal, self.staff = principal, principal.sees_internal
        join = await self._frame("join")
        room_id, listens = str(join.get("room_id", "")), join.get("listen_only") is True
        session = await _admitted(self._door, principal, self._tenant, room_id, listens)
        if join.get("again") is True:
            session.metadata["again"] = True
        return session, room_id

    async def _frame(self, kind: str) -> dict[str, Any]:
        text = await bounded(self.receive(), self._door.options.auth_timeout_s, f"waiting for {kind}")
        if text is None:
            raise SessionEnded("the page has gone")
        try:
            told: Any = json.loads(text) if len(text) < 16_384 else None
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict) or cast("dict[str, Any]", told).get("type") != kind:
            raise ProtocolError(f"the page has to say {kind} first")
        return cast("dict[str, Any]", told)

    # -- SocketLine -----------------------------------------------------------------------------------------------

    async def receive(self) -> str | bytes | None:
        message = await self._receive()
        if message["type"] != "websocket.receive":
            self._closed = True
            return None
        self._heard = monotonic()
        text = message.get("text")
        return text if text is not None else message.get("bytes") or b""

    async def send(self, data: str | bytes) -> None:
        if self._closed or self._cut is not None:
            raise SessionEnded("the far end has gone")
        message = {"type": "websocket.send", ("text" if isinstance(data, str) else "bytes"): data}
        try:
            async with self._sending:
                await bounded(self._send(message), SEND_S, "sending sound")
        except (TimeoutError, OSError, RuntimeError) as error:
            self.cut(4408, "reading too slowly")
            raise SessionEnded("the far end has gone") from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await bounded(self._send({"type": "websocket.close", "code": code, "reason": reason}), 2.0, "closing")
        except (TimeoutError, OSError, RuntimeError):
            pass  # the peer has gone, or takes nothing any more

    # -- a guest of the lobby; never waits ------------------------------------------------------------------------

    def tell(self, kind: str, /, **fields: Any) -> None:
        """Rooms are shown elsewhere."""

    def cut(self, code: int, reason: str) -> None:
        """Ends the call with a close code. May be called from anywhere; only the first call counts."""
        if self._cut is None:
            self._cut = (code, reason)
            self._door.cuts.labels(str(code)).inc()
            self._door.scope.spawn(self._end(code, reason), name="close call socket")

    async def _end(self, code: int, reason: str) -> None:
        await self.close(code, reason)
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def check(self, now: float, stamp: float) -> None:
        """Cuts a call whose token has expired, or that has fallen silent. `now` is loop time, `stamp` Unix time."""
        if self.principal is not None and not self._door.alive(self.principal, stamp):
            self.cut(4401, "the token has expired or was revoked")
        elif now - self._heard > self._door.options.heartbeat_s * SILENCE:
            self.cut(4409, "silent for too long")

    def expel(self) -> None:
        if not self.staff:
            self.cut(4403, "you are not in this room any more")


async def _offered(
    door: Door, channel: VoiceChannel, backend: OfferBackend, tenant: str, request: Request
) -> JSONResponse:
    principal = await door.authenticate(request)
    if not door.writes.try_acquire((principal.tenant, principal.id)):
        raise TooMany("too many requests; slow down", retry_after=1.0)
    told: Any = json.loads(await read_body(request, MOST_SDP, door.options.request_s))
    if not isinstance(told, dict) or not isinstance(told.get("sdp"), str):  # pyright: ignore[reportUnknownMemberType]
        raise ProtocolError("an offer is a JSON object with type, sdp and room_id")
    told = cast("dict[str, Any]", told)
    room_id = str(told.get("room_id", ""))
    session = await _admitted(door, principal, tenant, room_id, told.get("listen_only") is True)

    async def answered() -> None:
        await channel.answer(session, room_id=room_id)
        door.scope.spawn(_watch(door, backend, session, principal), name="watch a call")

    reply = await backend.offer(session, {"type": "offer", "sdp": told["sdp"]}, answered)
    return JSONResponse({**reply, "session": session.id}, headers={"cache-control": "no-store"})


async def _watch(door: Door, backend: VoiceBackend, session: VoiceSession, principal: Principal) -> None:
    """Hangs up when the caller's token has expired or was revoked."""
    while session.state is not SessionState.ENDED:
        await asyncio.sleep(WATCH_S)
        if door.draining or not door.alive(principal, door.now()):
            await backend.hang_up(session)
            return


async def _admitted(door: Door, principal: Principal, tenant: str, room_id: str, listens: bool) -> VoiceSession:
    """The session of somebody who may call this room."""
    if principal.tenant != tenant:
        raise AccessDenied("this channel does not take your calls")
    if listens and not principal.sees_internal:
        raise AccessDenied("only staff may listen without being heard")
    await door.demand(principal, Action.READ_ROOM if listens else Action.WRITE, room_id)
    await door.rooms(principal).get_room(room_id)  # staff may go anywhere, but not nowhere
    return VoiceSession(
        f"call-{secrets.token_hex(8)}",
        participant_id=principal.id,
        tenant=tenant,
        listen_only=listens,
        metadata={"name": principal.display_name} if principal.display_name else {},
        assurance=Assurance.AUTHENTICATED,
    )


def _hears(channel: Any) -> dict[str, str]:
    """Which recogniser it is, where it is one of the house: pages say how good it is."""
    module = type(getattr(channel, "stt", None)).__module__.split(".")
    return {"hears": module[2]} if module[:2] == ["roomkit", "providers"] else {}


def _find(door: Door, channel_id: str) -> tuple[VoiceChannel, VoiceBackend, str]:
    channel, tenant = door.channel(channel_id)
    backend = getattr(channel, "backend", None)
    if channel is None or backend is None or not hasattr(channel, "answer"):
        raise NotFound("there is no such call channel")
    return cast("VoiceChannel", channel), backend, tenant


def _webhook(request: HTTPConnection, url: str, body: bytes) -> WebhookRequest:
    """As the vendor called it, by the configured URL: forwarded headers and Host never count."""
    query = request.url.query
    return WebhookRequest(
        method=request.method if isinstance(request, Request) else "GET",
        url=url + (f"?{query}" if query else ""),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        query=dict(request.query_params),
    )


def _socket_url(door: Door, channel_id: str) -> str:
    return f"{door.options.base_url or ''}/voice/{channel_id}".replace("http", "ws", 1)
