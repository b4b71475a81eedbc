"""Links: what a client and we are joined by: a web socket with protobuf frames, or a peer's data channel."""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast

from starlette.websockets import WebSocket, WebSocketDisconnect

from roomkit.errors import MissingExtra, RemoteProtocolError
from roomkit.runtime import BlockingBuffer, BufferClosed, bounded

try:
    from roomkit.protocols.rtvi.frames import audio_frame, message_frame, read
except ImportError as error:
    raise MissingExtra("RTVI's door", "protobuf", "rtvi") from error

if TYPE_CHECKING:
    from roomkit.ports.rtvi import Peer

log = logging.getLogger(__name__)
FRAMES = 1_000
LATE = 25
"""Frames of sound that wait for a slow link: half a second; older ones are not worth hearing."""
Came = str | tuple[bytes, int, int]
"""The text of a message, or sound: its samples, their rate in Hz, and channels."""


class Link(Protocol):
    """`post` and `finish` never wait."""

    def post(self, text: str) -> None:
        """Sends a message; a client that takes nothing is let go."""
        ...

    def finish(self, code: int = 1000, reason: str = "") -> None:
        """Ends the link when what was posted has gone out. Only the first call counts."""
        ...

    async def write(self) -> None:
        """Sends what is posted until the link ends."""
        ...

    async def receive(self) -> Came | None:
        """The next thing the client has sent; None when it has gone. Raises `RemoteProtocolError` for what is none."""
        ...


class SocketLink:
    """A web socket."""

    def __init__(self, socket: WebSocket, *, frame_bytes: int, send_s: float, player_rate: int = 24_000) -> None:
        self._socket = socket
        self._frame_bytes = frame_bytes
        self._send_s = send_s
        self._rate = player_rate
        self._out: BlockingBuffer[str | None] = BlockingBuffer(FRAMES)
        """Messages; None stands for a frame of sound."""
        self._sound: deque[bytes] = deque(maxlen=LATE)
        self._code = (1000, "")

    def post(self, text: str) -> None:
        self._put(text)

    def _put(self, item: str | None) -> None:
        try:
            if not self._out.try_put(item):
                self.finish(1013, "reading too slowly")
        except BufferClosed:
            pass

    def finish(self, code: int = 1000, reason: str = "") -> None:
        if not self._out.closed:
            self._code = (code, reason)
            self._out.close()

    async def write(self) -> None:
        try:
            while True:
                item = await self._out.get()
                if item is not None:
                    await bounded(self._socket.send_bytes(message_frame(item)), self._send_s, "a client")
                elif self._sound:
                    sound = audio_frame(self._sound.popleft(), self._rate)
                    await bounded(self._socket.send_bytes(sound), self._send_s, "a client")
        except BufferClosed:
            await self._close()
        except (WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            return  # It has gone, or takes nothing any more.

    async def _close(self) -> None:
        try:
            await bounded(self._socket.close(*self._code), self._send_s, "closing")
        except (WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            return

    async def receive(self) -> Came | None:
        while True:
            frame = await self._socket.receive()
            if frame["type"] != "websocket.receive":
                return None
            data = frame.get("bytes")
            if data is None:
                raise RemoteProtocolError("frames are binary: one protobuf Frame in each")
            if len(data) > self._frame_bytes:
                raise RemoteProtocolError("the frame is too large")
            found = read(data)
            if found is not None:
                return found

    def play(self, pcm: bytes) -> None:
        """Sends a frame of sound, or, where too many wait, leaves out the oldest."""
        if len(self._sound) < LATE:
            self._put(None)
        self._sound.append(pcm)

    def forget(self) -> None:
        """What waits of sound is not sent."""
        self._sound.clear()


class PeerLink:
    """A peer's data channel: messages as they are, beside the transport's own of type "signalling". The peer may be
    replaced by another one of the same client, which goes on where the first one stopped."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.peer: Peer | None = None
        self._in: BlockingBuffer[str] = BlockingBuffer(FRAMES)
        self._over: BlockingBuffer[None] = BlockingBuffer(1)

    def post(self, text: str) -> None:
        if self.peer is not None and not self.peer.send(text):
            self.finish(1013, "reading too slowly")

    def finish(self, code: int = 1000, reason: str = "") -> None:
        del code, reason  # A data channel has no words for it; the peer hears that we leave when it is hung up.
        self._in.close()
        self._over.close()

    async def write(self) -> None:
        try:
            await self._over.get()
        except BufferClosed:
            return

    async def receive(self) -> Came | None:
        try:
            return await self._in.get()
        except BufferClosed:
            return None

    # -- of its peers ---------------------------------------------------------------------------------------------

    def told(self, peer: Peer, text: str) -> None:
        if peer is not self.peer or _signals(text):
            return
        try:
            if not self._in.try_put(text):
                self.finish()
        except BufferClosed:
            pass

    def gone(self, peer: Peer) -> None:
        if peer is self.peer:
            self.peer = None
            self.finish()


def _signals(text: str) -> bool:
    """Whether it is a message of the transport's own: which tracks are on, which the sound itself tells better."""
    if '"signalling"' not in text[:200]:
        return False
    try:
        told: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and cast("dict[str, Any]", told).get("type") == "signalling"
