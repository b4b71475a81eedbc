"""Offers: Pipecat's SmallWebRTC: a session description for an answer, candidates that come later, and how to begin.

Whoever offers is somebody who might as well have come by the web socket: the same tokens, rooms, origins and limits.
"""

from __future__ import annotations

import json
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from roomkit.errors import AccessDenied, Overloaded, ProtocolError, RoomKitError
from roomkit.models.access import Principal
from roomkit.servers.door import Door
from roomkit.servers.problems import Draining, NotFound, answer, problem
from roomkit.servers.rest.api import read_body
from roomkit.servers.rtvi.client import Client
from roomkit.servers.rtvi.entry import admitted, gone, may_enter, who
from roomkit.servers.rtvi.links import PeerLink

if TYPE_CHECKING:
    from roomkit.ports.rtvi import Peer, PeerSound
    from roomkit.servers.rtvi.server import RTVIServer

log = logging.getLogger(__name__)
MOST_BODY = 131_072
SESSION_S = 86_400.0
PURPOSE = "rtvi session"
NO_STORE = {"cache-control": "no-store"}
Work = Callable[[Request], Awaitable[Response]]


class Offers:
    """The requests of one door."""

    def __init__(self, server: RTVIServer, door: Door) -> None:
        self._server = server
        self._door = door

    async def start(self, request: Request) -> Response:
        """How to connect: `{"transport": "webrtc" | "websocket", "body": {...}}`. A session is the name of a room, and
        no secret: every offer is judged anew."""
        return await self._answered(request, self._start)

    async def offer(self, request: Request) -> Response:
        return await self._answered(request, self._offer)

    async def candidates(self, request: Request) -> Response:
        return await self._answered(request, self._candidates)

    async def _answered(self, request: Request, work: Work) -> Response:
        door = self._door
        try:
            if not door.origin_allowed(request.headers.get("origin"), request.headers.get("host")):
                raise AccessDenied("origin not allowed")
            if gone(door):
                raise Draining("the server is going away; come again")
            return await work(request)
        except (ProtocolError, ValueError, RecursionError) as error:
            log.info("what was sent to RTVI's door cannot be read: %s", error)
            told = str(error) if isinstance(error, ProtocolError) else "the request cannot be read"
            return answer(400, "bad_request", told)
        except RoomKitError as error:
            told = problem(error)
            body: dict[str, Any] = json.loads(bytes(told.body))
            headers = {name: told.headers[name] for name in ("retry-after", "www-authenticate") if name in told.headers}
            # The clients show `detail`.
            return JSONResponse({**body, "detail": body["error"]["message"]}, told.status_code, headers=headers)

    # -- the three requests -----------------------------------------------------------------------------------------

    async def _start(self, request: Request) -> Response:
        body = await self._body(request)
        told = _object(body.get("body") or {}, "body")
        query = {**request.query_params, **{name: str(value) for name, value in told.items()}}
        principal, room_id = await admitted(self._server, self._door, request, query)
        if body.get("transport") == "websocket":
            here = request.url.replace(path=request.scope.get("root_path", ""), query="")
            base = self._door.options.base_url or str(here)
            token = request.headers.get("authorization", "").partition(" ")[2] or request.query_params.get("token")
            url = base.replace("http", "ws", 1).rstrip("/") + "/"
            return JSONResponse({"wsUrl": url} | ({"token": token} if token else {}), headers=NO_STORE)
        self._peers()
        reply: dict[str, Any] = {"sessionId": self._session(principal, room_id)}
        if body.get("enableDefaultIceServers"):
            reply["iceConfig"] = {"iceServers": self._ice()}
        return JSONResponse(reply, headers=NO_STORE)

    async def _offer(self, request: Request) -> Response:
        body = await self._body(request)
        principal, room_id = await self._entering(request, body)
        sdp, pc_id = body.get("sdp"), body.get("pc_id")
        if not isinstance(sdp, str) or body.get("type") != "offer":
            raise ProtocolError("an offer has sdp and the type offer")
        if not self._door.writes.try_acquire((principal.tenant, principal.id)):
            raise Overloaded("too many requests; slow down", retry_after=1.0)
        peers = self._peers()
        if pc_id is None:
            peer, reply = await self._enter(peers, principal, room_id, sdp)
        else:
            peer, reply = await self._again(peers, principal, str(pc_id), sdp, restart=body.get("restart_pc") is True)
        return JSONResponse({"type": "answer", "sdp": reply, "pc_id": peer.id}, headers=NO_STORE)

    async def _candidates(self, request: Request) -> Response:
        body = await self._body(request)
        principal = await who(self._door, request)
        peers = self._peers()
        peer = _owned(peers, principal, str(body.get("pc_id")))
        for one in _list(body.get("candidates")):
            told = _object(one, "a candidate")
            mid, line = told.get("sdp_mid"), told.get("sdp_mline_index")
            if not isinstance(told.get("candidate"), str) or not isinstance(line, int | None):
                raise ProtocolError("a candidate has a candidate, sdp_mid and sdp_mline_index")
            await peers.candidate(peer, told["candidate"], None if mid is None else str(mid), line)
        return JSONResponse({"status": "success"}, headers=NO_STORE)

    # -- clients ----------------------------------------------------------------------------------------------------

    async def _enter(self, peers: PeerSound, principal: Principal, room_id: str, sdp: str) -> tuple[Peer, str]:
        """A new client; it lives as long as its peer, or the one that takes its place."""
        door = self._door
        if door.lobby.full or not door.lobby.admit(principal):
            raise Overloaded("too many connections", retry_after=5.0)
        client = Client(self._server, door, principal, room_id, by="webrtc")
        door.lobby.add(client)
        try:
            if client.call is None:
                raise NotFound("there is no voice here")
            link = PeerLink(client)
            client.link = link
            await client.enter()
            link.peer, reply = await peers.connect(client.call.session, sdp, client.call.answered, link)
        except BaseException:
            await client.close()
            door.lobby.remove(client)
            raise
        door.scope.spawn(self._run(client, link), name="rtvi client")
        return link.peer, reply

    async def _run(self, client: Client, link: PeerLink) -> None:
        try:
            await client.run(link)
        finally:
            if client.call is not None:
                await client.call.hang_up()
            self._door.lobby.remove(client)

    async def _again(
        self, peers: PeerSound, principal: Principal, pc_id: str, sdp: str, *, restart: bool
    ) -> tuple[Peer, str]:
        """A further offer of a client that is there: for the same peer, or for one that takes its place."""
        peer = _owned(peers, principal, pc_id)
        link = cast("PeerLink", peer.hearer)
        call = cast("Client", link.client).call
        if not restart or call is None:
            return peer, await peers.renegotiate(peer, sdp)
        old = call.session
        call.renewed()
        try:
            link.peer, reply = await peers.connect(call.session, sdp, call.answered, link)
        finally:
            await call.backend.hang_up(old)
        return link.peer, reply

    # -- small things -----------------------------------------------------------------------------------------------

    async def _body(self, request: Request) -> dict[str, Any]:
        body = await read_body(request, MOST_BODY, self._door.options.request_s)
        return _object(json.loads(body or b"{}"), "the body")

    async def _entering(self, request: Request, body: dict[str, Any]) -> tuple[Principal, str]:
        """Who offers, and the room: of the session that was begun for them, or as by the web socket."""
        if "session" not in request.path_params:
            data = _object(body.get("requestData") or body.get("request_data") or {}, "requestData")
            query = {**request.query_params, **{name: str(value) for name, value in data.items()}}
            return await admitted(self._server, self._door, request, query)
        principal = await who(self._door, request)
        room_id = self._room_of(principal, request.path_params["session"])
        await may_enter(self._door, principal, room_id)
        return principal, room_id

    def _session(self, principal: Principal, room_id: str) -> str:
        """A name for what was begun: it holds the room and our word for it, and is good for this person alone."""
        until = int(self._door.now() + SESSION_S)
        proof = self._door.kit.tokens.sign(PURPOSE, _claim(principal, room_id), float(until))
        return urlsafe_b64encode(json.dumps([until, proof, room_id]).encode()).decode().rstrip("=")

    def _room_of(self, principal: Principal, session: str) -> str:
        told = _list(json.loads(urlsafe_b64decode(session[:4_000] + "=" * (-len(session) % 4))))
        if len(told) != 3 or not isinstance(told[0], int) or not all(isinstance(one, str) for one in told[1:]):
            raise ProtocolError("there is no such session")
        until, proof, room_id = told
        self._door.kit.tokens.check(PURPOSE, _claim(principal, room_id), float(until), proof)
        return room_id

    def _peers(self) -> PeerSound:
        voice = self._server.voice
        if voice is None or voice.backend.peers is None:
            raise NotFound("nobody is heard by WebRTC here: RTVIOptions(voice=...) with RTVIBackend(peers=...) does it")
        return voice.backend.peers

    def _ice(self) -> list[dict[str, Any]]:
        return [{"urls": url} for url in self._peers().ice()]


def _owned(peers: PeerSound, principal: Principal, pc_id: str) -> Peer:
    """A peer of this person's. Somebody else's is none."""
    peer = peers.peers.get(pc_id)
    client = None if peer is None else cast("Client", cast("PeerLink", peer.hearer).client)
    if peer is None or client is None or (client.who.tenant, client.who.id) != (principal.tenant, principal.id):
        raise NotFound("there is no such peer connection")
    return peer


def _claim(principal: Principal, room_id: str) -> str:
    return json.dumps([principal.tenant, principal.id, room_id])


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} has to be a JSON object")
    return cast("dict[str, Any]", value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ProtocolError("a JSON list was expected")
    return cast("list[Any]", value)
