"""Client: one client of RTVI, however it is joined: a person in a room, in text and, where there is a call, aloud."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

from roomkit.channels.voice_line import UNSPOKEN
from roomkit.errors import Overloaded, ProtocolError, RoomKitError
from roomkit.models.access import Principal
from roomkit.models.content import Content, MediaContent, TextContent, ToolCallContent, text_of, valid_text
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.stream import StreamChunk, StreamEnd, StreamError, StreamStart
from roomkit.protocols.rtvi.session import (
    Act,
    Asked,
    File,
    Leave,
    Pressed,
    Result,
    Say,
    Send,
    Session,
    Shown,
    Sound,
)
from roomkit.runtime import BlockingBuffer, Scope
from roomkit.servers.door import Door
from roomkit.servers.inbound import refusal_of
from roomkit.servers.rtvi.entry import gone
from roomkit.servers.rtvi.links import Link, SocketLink
from roomkit.servers.visit import Heard, Visit

if TYPE_CHECKING:
    from roomkit.core.results import InboundResult
    from roomkit.servers.rtvi.server import RTVIServer

log = logging.getLogger(__name__)
HANDLED = 32
WAITING = 100
LAST_S = 1.0
"""For the last words to a client that has ended, or is let go."""
LEFT_S = 10.0
"""For what a client has said that is gone."""
NOT_SENT = "this message could not be sent"


class Client:
    """One connection. `enter` takes the seat, `run` serves a link until one side ends it; `close` in any case."""

    def __init__(self, server: RTVIServer, door: Door, principal: Principal, room_id: str, *, by: str) -> None:
        self.principal: Principal | None = principal
        self.staff = False
        self.room_id = room_id
        self.who = principal
        self.server = server
        self.scope = Scope("rtvi client", on_failure=lambda failure: self._fail(failure.error))
        self.call = server.call_of(self, by)
        audio = self.call is not None
        self.session = Session(capabilities={"audio_in": audio, "audio_out": audio, "metrics": audio})
        self.link: Link | None = None
        self._door = door
        self._messages: BlockingBuffer[str] = BlockingBuffer(WAITING)
        self._handling = 0
        self._unspoken = ""
        """This person's last message, where its answer is wanted in writing alone."""
        self._limits = door.options.limits
        self._visit = Visit(
            door.rooms(principal), room_id, server.options.channel_id, principal.id, name=principal.display_name
        )

    @property
    def tenant(self) -> str:
        return self.who.tenant

    def stamp(self) -> str:
        return self._door.kit.now().isoformat()

    async def enter(self) -> None:
        """Raises `RoomKitError` when the room does not take it."""
        await self._visit.enter(create=self.who.room_id is None)
        self.server.clients[self] = None
        self._door.lobby.enter(self, (self.tenant, self.room_id))

    async def run(self, link: Link) -> None:
        """Serves the link until one side ends it."""
        self.link = link
        self.scope.spawn(self._listen(), name="room")
        writing = self.scope.spawn(link.write(), name="writer")
        reading = self.scope.spawn(self._read(link), name="reader")
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            self.finish()
            await asyncio.wait((writing,), timeout=LAST_S)
        finally:
            await self.close()

    async def close(self) -> None:
        """Idempotent."""
        self.server.clients.pop(self, None)
        self._door.lobby.leave(self, (self.tenant, self.room_id))
        self._visit.close()
        if self.call is not None:
            self.call.end()
        self._messages.close()
        self.finish()
        await self.scope.aclose()

    def post(self, acts: Iterable[Act]) -> None:
        """Sends without waiting; a client that takes nothing is cut."""
        if self.link is not None:
            for act in acts:
                if isinstance(act, Send):
                    self.link.post(act.text)

    def finish(self, code: int = 1000, reason: str = "") -> None:
        self._visit.finish()
        if self.link is not None:
            self.link.finish(code, reason)

    # -- as a connection of the lobby, which sweeps out who may stay no longer -----------------------------------------

    def tell(self, kind: str, /, **fields: Any) -> None:
        """What is told of rooms here, RTVI has no words for."""

    def cut(self, code: int, reason: str) -> None:
        log.info("an RTVI client of room %s is cut (%d): %s", self.room_id, code, reason)
        self.finish(code, reason)

    def check(self, now: float, stamp: float) -> None:
        del now
        if gone(self._door):
            self.cut(1001, "the server is going away")
        elif self.principal is not None and not self._door.alive(self.principal, stamp):
            self.cut(4003, "the token has expired or was revoked")

    def expel(self) -> None:
        self.cut(4003, "removed from the room")

    def _fail(self, error: BaseException) -> None:
        log.warning("an RTVI client of room %s was let go: %s", self.room_id, error)
        self.finish(1013 if isinstance(error, Overloaded) else 1011)

    # -- from the client ----------------------------------------------------------------------------------------------

    async def _read(self, link: Link) -> None:
        """Sound is heard at once; messages wait for each other, in their order, and what came is still done when the
        client has gone."""
        handling = self.scope.spawn(self._handle(link), name="messages")
        while True:
            try:
                came = await link.receive()
            except ProtocolError as error:
                self.post([self.session.failed(str(error))])
                continue
            if came is None:
                break
            if isinstance(came, str):
                await self._messages.put(came)
            else:
                self._sounded(Sound("", *came))
        self._messages.close()
        await asyncio.wait((handling,), timeout=LEFT_S)

    async def _handle(self, link: Link) -> None:
        async for text in self._messages:
            for act in self.session.hear(text):
                await self._do(act)
            if self.session.ready and self.call is not None:
                self.call.start(link if isinstance(link, SocketLink) else None)

    def _sounded(self, act: Sound) -> None:
        """Sound before the client is ready is nobody's fault, nor is sound where nobody listens."""
        if self.call is None or not self.session.ready:
            return
        try:
            self.call.hear(act.pcm, act.rate, act.channels)
        except ProtocolError as error:
            told = self.session.failed(str(error))
            self.post([self.session.refuse(act.message_id, str(error)) if act.message_id else told])

    async def _do(self, act: Act) -> None:
        match act:
            case Send():
                self.post([act])
            case Say():
                await self._say(act)
            case Sound():
                self._sounded(act)
            case Asked() if self._handling >= HANDLED:
                self.post([self.session.refuse(act.message_id, "too many messages are being answered; wait for some")])
            case Asked():
                self._handling += 1
                self.scope.spawn(self._answer(act), name="message")
            case Result(call_id=call_id, result=result):
                self.server.answered(self.who.tenant, self.room_id, call_id, result)
            case Pressed(buttons=buttons):
                await self._pressed(buttons)
            case Shown(kind=kind, data=data):
                if self.server.options.on_shown is not None:
                    self.scope.spawn(_called(self.server.options.on_shown, self, kind, data), name="page")
            case Leave():
                self.finish()

    async def _pressed(self, buttons: str) -> None:
        if self.call is not None and self.call.live:
            self.call.backend.pressed(self.call.session, buttons[:100])
        else:
            await self._say(Say("", buttons, now=True), metadata={"dtmf": buttons})

    async def _say(self, act: Say, metadata: dict[str, Any] | None = None) -> None:
        refused = self._unfit(act)
        if refused:
            self.post([self.session.refuse(act.message_id, refused)])
            return
        try:
            if act.now:
                await self._interrupt()
            if not self._door.writes.try_acquire((self.who.tenant, self.who.id)):
                self.post([self.session.refuse(act.message_id, "too many messages; slow down")])
                return
            result = await self._visit.say(
                await self._content(act),
                external_id=f"{self.who.id}:{act.message_id}" if act.message_id else None,
                addressed_to=None if act.now else (),
                metadata=(metadata or {}) | ({} if act.aloud else {UNSPOKEN: True}),
            )
        except RoomKitError as error:
            log.warning("what an RTVI client has said was not taken: %s", error)
            self.post([self.session.refuse(act.message_id, NOT_SENT)])
            return
        self._took(act, result)

    def _unfit(self, act: Say) -> str:
        options, file = self._door.options, act.file
        if len(act.text) > self._limits.text_chars:
            return f"at most {self._limits.text_chars} characters"
        if file is not None and file.mime not in options.media_types:
            return "files of this type are not accepted"
        if file is not None and file.data is not None and len(file.data) > options.media_bytes:
            return f"a file has at most {options.media_bytes} bytes"
        return ""

    async def _interrupt(self) -> None:
        """Whoever writes has the word: what is being made, or said, is over."""
        aloud = self.call is not None and await self.call.interrupt("the user spoke up")
        if await self._visit.interrupt("the user spoke up") and not aloud:
            self.post(self.session.interrupted())

    async def _content(self, act: Say) -> Content:
        text, file = valid_text(act.text), act.file
        if file is None:
            return TextContent(text=text)
        url, size = file.url, None
        if file.data is not None:
            info = await self._door.kit.blobs.put(
                self.tenant, _whole(file), mime_type=file.mime, filename=file.name, room_id=self.room_id
            )
            url, size = f"blob:{info.id}", len(file.data)
        return MediaContent(url=url, mime_type=file.mime, filename=file.name, caption=text or None, size_bytes=size)

    def _took(self, act: Say, result: InboundResult) -> None:
        if result.event is None or result.blocked:
            self.post([self.session.refuse(act.message_id, refusal_of(result, staff=False).message)])
            return
        stamp = result.event.created_at.isoformat()
        self.post(self.session.heard(act.text, self.who.id, stamp, act.message_id))

    async def _answer(self, asked: Asked) -> None:
        handler = self.server.options.on_message
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

    # -- from the room ------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            async for item in self._visit:
                self.post(self._heard(item))
        except Overloaded as error:
            self._fail(error)

    def _heard(self, item: Heard) -> list[Act]:
        session = self.session
        if isinstance(item, StreamStart):
            return session.starts(item.stream_id, aloud=not self._unspoken)
        if isinstance(item, StreamChunk):
            return session.grows(item.stream_id, item.delta)
        if isinstance(item, StreamError):
            return session.withdrawn(item.stream_id)
        event = item.event if isinstance(item, StreamEnd) else item
        assert isinstance(event, RoomEvent)
        if self.call is not None and self.call.told(event):
            self._unspoken = ""
            return []
        if isinstance(event.content, ToolCallContent):
            return []
        if event.type is not EventType.MESSAGE:
            return []
        if event.source.participant_id == self.who.id:
            self._unspoken = event.id if event.metadata.get(UNSPOKEN) else ""
            return []
        aloud = not self._unspoken or event.correlation_id != self._unspoken
        return session.said(event.id, text_of(event.content), aloud=aloud)


async def _whole(file: File) -> AsyncIterator[bytes]:
    yield file.data or b""


async def _called(handler: Callable[..., Any], *args: Any) -> None:
    try:
        found = handler(*args)
        if inspect.isawaitable(found):
            await found
    except Exception:  # as above
        log.exception("a handler of an RTVI client's page failed")
