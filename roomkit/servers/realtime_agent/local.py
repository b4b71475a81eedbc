"""LocalRtcEngine: channels that really run here, without a vendor: users come by web socket, or by WebRTC.

A web socket `/rtc/{channel}`: the first message is `{"type": "join", "uid": 7, "token": ...}`; then binary messages are
sound (16-bit mono at the channel's rate), both ways, and text is JSON: `chat` both ways, `clear` from here. With
`"audio": false` it carries texts only, beside a call by WebRTC, whose offer goes to `POST /rtc/{channel}/offer`.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from roomkit.dsp.resample import Resampler
from roomkit.errors import MissingExtra, ProtocolError, SessionEnded
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.ports.audio import BackendEvent, OfferBackend
from roomkit.ports.rtc import ChatMessage, RtcEvent, RtcOptions
from roomkit.runtime import DropOldestBuffer, Scope, bounded
from roomkit.runtime.observers import Observers

log = logging.getLogger(__name__)
JOIN_S = 5.0
SEND_S = 5.0
MOST_FRAMES = 250
MOST_BYTES = 64_000
MOST_SDP = 65_536
Send = Callable[[str | bytes], Awaitable[None]]
Play = Callable[[bytes], Awaitable[None]]


@dataclass(eq=False)
class _User:
    uid: int
    frames: DropOldestBuffer[bytes] = field(default_factory=lambda: DropOldestBuffer[bytes](MOST_FRAMES))
    play: Play | None = None
    clear: Callable[[], Awaitable[None]] | None = None
    texts: Send | None = None


class LocalRtcChannel:
    """An `RtcChannel` whose users come to this process."""

    def __init__(self, engine: LocalRtcEngine, options: RtcOptions) -> None:
        self.options = options
        self._engine = engine
        self._users: dict[int, _User] = {}
        self._observers = Observers[RtcEvent]()
        self._over = False

    @property
    def remote_users(self) -> Mapping[int, Any]:
        return {uid: user for uid, user in self._users.items() if user.play is not None}

    def observe(self, observer: Callable[[RtcEvent], None]) -> Callable[[], None]:
        return self._observers.join(observer)

    async def connect(self) -> None:
        await self._engine.open(self)
        self.tell(RtcEvent("connection_state_changed", data="connected"))

    async def disconnect(self) -> None:
        if not self._over:
            self._over = True
            for user in tuple(self._users.values()):
                user.frames.close()
            await self._engine.left(self)

    async def subscribe_audio(self, uid: int) -> None:
        """Everybody's sound comes anyway."""

    async def get_audio_frames(self, uid: int) -> AsyncIterator[bytes]:
        user = self._users.get(uid)
        if user is not None:
            async for frame in user.frames:
                yield frame

    async def push_audio_frame(self, frame: bytes) -> None:
        for user in tuple(self._users.values()):
            if user.play is not None:
                await self._reach(user, user.play(frame))

    async def clear_sender_audio_buffer(self) -> None:
        for user in tuple(self._users.values()):
            if user.clear is not None:
                await self._reach(user, user.clear())

    async def send_message(self, message: ChatMessage) -> None:
        text = json.dumps({"type": "chat", "msg_id": message.msg_id, "message": message.message})
        for user in tuple(self._users.values()):
            if user.texts is not None:
                await self._reach(user, user.texts(text))

    async def _reach(self, user: _User, sending: Awaitable[None]) -> None:
        """Whoever cannot be reached has gone, unless come again meanwhile."""
        play = user.play
        try:
            await bounded(sending, SEND_S, "sending")
        except (TimeoutError, OSError, RuntimeError, WebSocketDisconnect, SessionEnded):
            if user.play is play:
                self.gone(user.uid)

    # -- users come and go ----------------------------------------------------------------------------

    def user(self, uid: int) -> _User:
        return self._users.setdefault(uid, _User(uid))

    def arrived(self, user: _User) -> None:
        self.tell(RtcEvent("user_joined", user.uid))

    def gone(self, uid: int) -> None:
        user = self._users.pop(uid, None)
        if user is not None:
            user.frames.close()
            if user.play is not None:
                self.tell(RtcEvent("user_left", uid))

    def tell(self, event: RtcEvent) -> None:
        self._observers.tell(event)

    @property
    def open(self) -> bool:
        return not self._over


class LocalRtcEngine:
    """Serves its channels at `host` and `port` (0: any); `token` is what users must show, None makes one. Pages of the
    `origins` may post their offers here."""

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, token: str | None = None, origins: Sequence[str] = ()
    ) -> None:
        self.token = token or secrets.token_urlsafe(24)
        self.origins = tuple(origins)
        self.host = host
        self.port = port
        self._channels: dict[str, LocalRtcChannel] = {}
        self._scope = Scope("rtc engine")
        self._server: uvicorn.Server | None = None
        self._webrtc: OfferBackend | None = None
        self._calls: dict[str, tuple[LocalRtcChannel, int, Play]] = {}

    @property
    def app(self) -> Starlette:
        """Mountable by itself."""
        return Starlette(
            routes=[
                WebSocketRoute("/rtc/{channel}", self._socket),
                Route("/rtc/{channel}/offer", self._offer, methods=["POST"]),
            ],
            middleware=[
                Middleware(
                    CORSMiddleware,
                    allow_origins=self.origins,
                    allow_methods=["POST"],
                    allow_headers=["authorization", "content-type"],
                )
            ],
        )

    def urls(self, channel_name: str) -> dict[str, str]:
        """Where users of a channel come to."""
        where = f"{self.host}:{self.port}/rtc/{channel_name}"
        return {"socket": f"ws://{where}", "offer": f"http://{where}/offer"}

    def create_channel(self, options: RtcOptions) -> LocalRtcChannel:
        channel = self._channels[options.channel_name] = LocalRtcChannel(self, options)
        return channel

    async def open(self, channel: LocalRtcChannel) -> None:
        """Listens, once."""
        if self._server is not None:
            return
        listener = socket.create_server((self.host, self.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self.app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
        self._scope.spawn(self._serve(self._server, listener), name="serve")

    async def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        try:
            await server._serve([listener])  # pyright: ignore[reportPrivateUsage] - `serve` takes over the process's signals
        finally:
            listener.close()

    async def left(self, channel: LocalRtcChannel) -> None:
        self._channels.pop(channel.options.channel_name, None)
        if self._webrtc is not None:
            for session_id, (at, _, _) in tuple(self._calls.items()):
                if at is channel:
                    await self._webrtc.hang_up(VoiceSession(session_id))

    async def aclose(self) -> None:
        for channel in tuple(self._channels.values()):
            await channel.disconnect()
        if self._webrtc is not None:
            await self._webrtc.aclose()
        if self._server is not None:
            self._server.should_exit = True
            await self._scope.drain(3.0)
        await self._scope.aclose()

    def _known(self, token: Any) -> bool:
        return isinstance(token, str) and hmac.compare_digest(token.encode(), self.token.encode())

    # -- web sockets ------------------------------------------------------------------------------------

    async def _socket(self, socket_: WebSocket) -> None:
        channel = self._channels.get(socket_.path_params["channel"])
        await socket_.accept()
        joined = await self._joined(socket_)
        if channel is None or joined is None:
            await socket_.close(4404 if channel is None else 4401)
            return
        uid, sound = joined
        user = channel.user(uid)

        async def send(data: str | bytes) -> None:
            await (socket_.send_text(data) if isinstance(data, str) else socket_.send_bytes(data))

        async def clear() -> None:
            await send('{"type": "clear"}')

        user.texts = send
        await send(json.dumps({"type": "joined", "uid": uid, "sample_rate": channel.options.sample_rate}))
        if sound:
            user.play, user.clear = send, clear
            channel.arrived(user)
        try:
            await self._hear(socket_, channel, user, sound=sound)
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            if sound and user.play is send:  # else the user has come again meanwhile
                channel.gone(uid)
            elif user.texts is send:
                user.texts = None

    async def _joined(self, socket_: WebSocket) -> tuple[int, bool] | None:
        try:
            told = json.loads(await bounded(socket_.receive_text(), JOIN_S, "waiting for join"))
            if told["type"] == "join" and self._known(told.get("token")):
                return int(told["uid"]), told.get("audio") is not False
        except (TimeoutError, ValueError, KeyError, TypeError, OverflowError, RecursionError, WebSocketDisconnect):
            pass
        return None

    async def _hear(self, socket_: WebSocket, channel: LocalRtcChannel, user: _User, *, sound: bool) -> None:
        while channel.open:
            message = await socket_.receive()
            if message["type"] != "websocket.receive":
                return
            data = message.get("bytes")
            if data is not None:
                if sound and len(data) <= MOST_BYTES and len(data) % 2 == 0:
                    user.frames.push(data)
                continue
            try:
                told = json.loads(message.get("text") or "")
            except (ValueError, RecursionError):
                continue
            if isinstance(told, dict) and cast("dict[str, Any]", told).get("type") == "chat":
                text = str(cast("dict[str, Any]", told).get("message", ""))
                channel.tell(RtcEvent("chat_message", user.uid, text))

    # -- WebRTC -----------------------------------------------------------------------------------------

    async def _offer(self, request: Request) -> JSONResponse:
        channel = self._channels.get(request.path_params["channel"])
        if channel is None:
            return JSONResponse({"error": "no such channel"}, 404)
        if not self._known(request.headers.get("authorization", "").removeprefix("Bearer ")):
            return JSONResponse({"error": "not allowed"}, 401)
        body = await request.body()
        try:
            told: Any = json.loads(body) if len(body) <= MOST_SDP else None
            uid, sdp = int(told["uid"]), str(told["sdp"])
            backend = self._backend()
            session = VoiceSession(f"rtc-{secrets.token_hex(6)}", participant_id=str(uid))

            async def answered() -> None:
                await self._carry(channel, session, uid)

            reply = await backend.offer(session, {"type": "offer", "sdp": sdp}, answered)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, ProtocolError):
            return JSONResponse({"error": "the offer cannot be read"}, 400)
        except MissingExtra as error:
            return JSONResponse({"error": str(error)}, 501)
        return JSONResponse({**reply, "session": session.id})

    def _backend(self) -> OfferBackend:
        if self._webrtc is None:
            from roomkit.channels.providers import find_provider

            self._webrtc = cast("OfferBackend", find_provider("webrtc", "audio"))
            self._webrtc.on_event(self._webrtc_event)
        return self._webrtc

    def _webrtc_event(self, event: BackendEvent) -> None:
        at = self._calls.pop(event.session.id, None) if event.kind == "disconnected" else None
        if at is None:
            return
        channel, uid, play = at
        if channel.user(uid).play is play:
            channel.gone(uid)

    async def _carry(self, channel: LocalRtcChannel, session: VoiceSession, uid: int) -> None:
        backend = self._backend()
        rate = channel.options.sample_rate
        user = channel.user(uid)
        out = Resampler(rate, session.rate)
        position = 0

        async def play(pcm: bytes) -> None:
            nonlocal position
            data = out.process(pcm)
            if data:
                await backend.send_audio(session, AudioFrame(data, session.rate, position))
                position += len(data) // 2

        async def clear() -> None:
            await backend.clear(session)

        user.play, user.clear = play, clear
        self._calls[session.id] = (channel, uid, play)
        self._scope.spawn(self._receive(session, user, rate), name="hear a user")
        channel.arrived(user)

    async def _receive(self, session: VoiceSession, user: _User, rate: int) -> None:
        into = Resampler(session.rate, rate)
        async for frame in self._backend().receive(session):
            if pcm := into.process(frame.pcm):
                user.frames.push(pcm)
