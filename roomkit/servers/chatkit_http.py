"""ChatKit's door over HTTP: who may come in, how often, and what goes wrong before an answer begins, as statuses."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from roomkit.errors import AccessDenied, RoomClosed, RoomKitError
from roomkit.models.access import Principal
from roomkit.models.event import RoomEvent
from roomkit.models.stream import StreamEnd
from roomkit.protocols.chatkit.package import NotFoundError, StreamingResult
from roomkit.runtime import Scope
from roomkit.servers.access import Action
from roomkit.servers.chatkit_files import BASE, FETCH
from roomkit.servers.door import Door
from roomkit.servers.options import ServerOptions
from roomkit.servers.problems import TooLarge, answer, problem
from roomkit.servers.rest.api import read_body
from roomkit.servers.rest.media import download, served

if TYPE_CHECKING:
    from roomkit.servers.chatkit import RoomChatKitServer
    from roomkit.servers.chatkit_files import RoomAttachments
    from roomkit.servers.visit import Visit

log = logging.getLogger(__name__)
MOST_BYTES = 1_000_000
SAYING = (
    *("threads.add_user_message", "threads.retry_after_item", "threads.add_client_tool_output"),
    *("threads.add_structured_input", "items.feedback"),
)
"""What a closed room does not take."""
Endpoint = Callable[[Request, Principal], Coroutine[Any, Any, Response]]


def chatkit_app(server: RoomChatKitServer, **options: Any) -> Starlette:
    """ChatKit's one endpoint as an app to mount: `POST /`; uploads at `POST /files`; `GET /changes?thread_id=` tells a
    page when to look again (`GET /refresh.js` does it). `options` are those of `kit.asgi()`: who may come in, how often
    and with what files is the same as everywhere. Behind a proxy `public_url` says where the world reaches this app."""
    door = Door(server.kit, ServerOptions(**options))
    if server.files is not None:
        server.files.door = door
    return Starlette(
        routes=[
            Route("/", _guarded(door, server, partial(_talk, door, server)), methods=["POST"]),
            Route("/changes", _guarded(door, server, partial(_changes, door, server))),
            Route("/refresh.js", _script),
            *(_files(door, server, server.files) if server.files is not None else ()),
        ],
        lifespan=partial(_lifespan, door),
    )


@asynccontextmanager
async def _lifespan(door: Door, _app: Starlette) -> AsyncGenerator[None]:
    """Run where the app stands alone; mounted, its streams end with their connections."""
    yield
    door.lobby.cut_all(1001, "going away")
    door.lobby.close()
    await door.scope.aclose()


def _guarded(door: Door, server: RoomChatKitServer, endpoint: Endpoint) -> Any:
    """An endpoint for those who have a right to it, as often as they may."""

    async def enter(request: Request) -> Response:
        principal = await door.authenticate(request)
        if principal.tenant != server.rooms.rooms.tenant_id:
            raise AccessDenied("this door is of another tenant")
        door.pace(principal.tenant, principal.id)
        return await endpoint(request, principal)

    return _told(door, enter)


def _told(door: Door, endpoint: Callable[[Request], Coroutine[Any, Any, Response]]) -> Any:
    async def run(request: Request) -> Response:
        base = f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}"
        BASE.set(door.options.base_url or base)
        try:
            if not door.origin_allowed(request.headers.get("origin"), request.headers.get("host")):
                raise AccessDenied("requests of this page's origin are not allowed; add it to allowed_origins")
            return await endpoint(request)
        except NotImplementedError:
            return answer(501, "not_implemented", "this server does not do that")
        except NotFoundError as error:
            return answer(404, "not_found", str(error))
        except RoomKitError as error:
            return problem(error)
        except (ValidationError, ValueError) as error:
            log.info("a ChatKit request was not understood: %s", type(error).__name__)
            return answer(400, "bad_request", "the request is not one of ChatKit's")

    return run


# -- the one endpoint ------------------------------------------------------------------------------------------------


async def _talk(door: Door, server: RoomChatKitServer, request: Request, principal: Principal) -> Response:
    body = await read_body(request, MOST_BYTES, door.options.request_s)
    asked = _asked(body)
    await _allowed(door, server, principal, asked)
    result = await server.process(body, principal)
    if not isinstance(result, StreamingResult):
        return Response(result.json, media_type="application/json", headers=_UNCACHED)
    events = result.json_events
    reader = Reader(door, principal)
    try:
        try:
            first = await anext(events)  # What is wrong with the request itself is said with a status.
        except StopAsyncIteration:
            first = b""
        thread_id = asked.thread_id or _created(first)
        if thread_id is not None:
            reader.sits(thread_id, lambda: _finish(server, thread_id))
    except BaseException:
        server.rooms.let_go(asyncio.current_task())
        reader.leave()
        raise

    def over(*tasks: asyncio.Task[Any] | None) -> None:
        for task in tasks:
            server.rooms.let_go(task)
        reader.leave()

    async def gone() -> None:
        if thread_id is not None:
            await server.stop(thread_id)

    return _Stream(_sse(first, events), over, gone)


class _Asked(NamedTuple):
    """What is looked at in a request before the package does; of one that it refuses there may be nothing."""

    kind: str = ""
    thread_id: str | None = None
    chars: int = 0
    attachments: tuple[str, ...] = ()


def _asked(body: bytes) -> _Asked:
    try:
        asked: Any = json.loads(body)
        params = asked["params"]
        thread_id = params.get("thread_id")
        said: Any = params.get("input") or {}
        chars = sum(len(str(part.get("text", ""))) for part in said.get("content", ()))
        names = tuple(str(one) for one in said.get("attachments", ()))
        return _Asked(str(asked["type"]), thread_id if isinstance(thread_id, str) else None, chars, names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _Asked()


async def _allowed(door: Door, server: RoomChatKitServer, principal: Principal, asked: _Asked) -> None:
    """Sizes, files, and what the host's own `authorize` says; everybody's threads are their own in any case."""
    if asked.chars > door.options.limits.text_chars:
        raise TooLarge(f"a message has at most {door.options.limits.text_chars} characters")
    if door.options.authorize is not None:
        await door.demand(principal, Action.WRITE, asked.thread_id)
    if asked.kind in SAYING and asked.thread_id is not None:
        room = await server.rooms.room(asked.thread_id, principal)
        if not room.open:
            raise RoomClosed(room.id, room.status)
    if asked.attachments and server.files is not None:
        user = server.options.user_of(principal)
        await server.files.files.sendable(asked.attachments, user, asked.thread_id)


def _created(first: bytes) -> str | None:
    """The thread that a stream's first event has made."""
    event: Any = json.loads(first[6:]) if first.startswith(b"data: ") else {}
    return event["thread"]["id"] if event.get("type") == "thread.created" else None


def _finish(server: RoomChatKitServer, thread_id: str) -> None:
    visit = server.rooms.live.get(thread_id)
    if visit is not None:
        visit.finish()


async def _sse(first: bytes, events: Any) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        if first:
            yield first
        async for event in events:
            yield event


# -- streams ---------------------------------------------------------------------------------------------------------

_UNCACHED = {"cache-control": "no-store", "x-accel-buffering": "no"}


class _Stream(StreamingResponse):
    """Ends with its page, also while nothing is said, and by one cancellation: who is cancelled has time to tell the
    room. `over` is called in every case, also when nobody has read a byte, with the tasks that it was; `gone` where the
    page has left before."""

    def __init__(
        self,
        content: AsyncGenerator[bytes],
        over: Callable[..., None],
        gone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._content = content
        super().__init__(content, media_type="text/event-stream", headers=_UNCACHED)
        self._over = over
        self._gone = gone
        self._whole = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del scope
        stream: asyncio.Task[None] | None = None
        try:
            async with Scope("chatkit stream") as tasks:
                stream = tasks.spawn(self._send(send), name="stream")
                tasks.spawn(_cut_off(receive, stream), name="page")
                try:
                    await asyncio.wait({stream})
                except asyncio.CancelledError:
                    if not stream.cancelling():
                        stream.cancel()
                    await asyncio.wait({stream})
                    raise
        finally:
            try:
                if not self._whole:
                    await self._content.aclose()
            finally:
                self._over(asyncio.current_task(), stream)
            if not self._whole and self._gone is not None:
                await self._gone()

    async def _send(self, send: Any) -> None:
        try:
            await self.stream_response(send)
            self._whole = True
        except OSError:
            pass  # The page has gone.


async def _cut_off(receive: Any, stream: asyncio.Task[None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.cancel()


class Reader:
    """A stream as a connection of the lobby: it counts, and ends with its principal's right to be there. Raises
    `Overloaded` where there are too many."""

    def __init__(self, door: Door, principal: Principal) -> None:
        door.admit(principal)
        self.principal: Principal | None = principal
        self.staff = False
        self._door = door
        self._who = principal
        self._key: tuple[str, str] | None = None
        self._end: Callable[[], None] | None = None
        door.lobby.add(self)

    def sits(self, room_id: str, end: Callable[[], None]) -> None:
        """It shows this room from now on, until `end` is called."""
        self._key, self._end = (self._who.tenant, room_id), end
        self._door.lobby.enter(self, self._key)

    def leave(self) -> None:
        if self._key is not None:
            self._door.lobby.leave(self, self._key)
        self._door.lobby.remove(self)

    def tell(self, kind: str, /, **fields: Any) -> None:
        """What is told of rooms here, ChatKit has no words for."""

    def cut(self, code: int, reason: str) -> None:
        log.info("a ChatKit stream is cut (%d): %s", code, reason)
        if self._end is not None:
            self._end()

    def check(self, now: float, stamp: float) -> None:
        del now
        if not self._door.alive(self._who, stamp):
            self.cut(4003, "the token has expired or was revoked")

    def expel(self) -> None:
        self.cut(4003, "removed from the room")


async def _changes(door: Door, server: RoomChatKitServer, request: Request, principal: Principal) -> Response:
    thread_id = request.query_params.get("thread_id", "")
    if door.options.authorize is not None:
        await door.demand(principal, Action.READ_ROOM, thread_id)
    reader = Reader(door, principal)
    try:
        visit = await server.rooms.visit(thread_id, principal)
    except BaseException:
        reader.leave()
        raise
    reader.sits(thread_id, visit.finish)

    def over(*_tasks: object) -> None:
        visit.close()
        reader.leave()

    return _Stream(_changed(visit), over)


async def _changed(visit: Visit) -> AsyncGenerator[bytes]:
    """One line for each message that others have written: the page then fetches the thread again."""
    yield b": hello\n\n"
    async for item in visit:
        event = item.event if isinstance(item, StreamEnd) else item
        if isinstance(event, RoomEvent) and event.source.participant_id != visit.person:
            yield f"data: {json.dumps({'thread_id': visit.room_id, 'index': event.index})}\n\n".encode()


# -- files -----------------------------------------------------------------------------------------------------------


def _files(door: Door, server: RoomChatKitServer, attachments: RoomAttachments) -> list[Route]:
    async def direct(request: Request, principal: Principal) -> Response:
        if door.options.authorize is not None:
            await door.demand(principal, Action.MEDIA)
        return _json(await attachments.direct(request, principal))

    async def upload(request: Request) -> Response:
        return _json(await attachments.upload(request, request.path_params["attachment"]))

    async def fetch(request: Request) -> Response:
        attachment_id = request.path_params["attachment"]
        owner = attachments.owner(FETCH, attachment_id, request)
        card = await attachments.files.card(attachment_id, owner)
        thread_id, url = card["attachment"].get("thread_id"), str(card.get("url", ""))
        if thread_id is not None:
            await server.rooms.room_of(thread_id, owner)  # Who was sent away has no use for older links.
        if not url.startswith("blob:"):
            raise NotFoundError("the file has not been uploaded yet")
        return await served(door, server.rooms.rooms.tenant_id, url.removeprefix("blob:"))

    return [
        Route("/files", _guarded(door, server, direct), methods=["POST"]),
        Route("/files/{attachment}", _told(door, upload), methods=["POST"]),
        Route("/files/{attachment}", _told(door, fetch)),
        Route("/media/{blob}", partial(download, door)),
    ]


def _json(attachment: Any) -> Response:
    data = attachment.model_dump_json(exclude_none=True, context={"exclude_metadata": True})
    return Response(data, media_type="application/json", headers=_UNCACHED)


async def _script(_request: Request) -> Response:
    return Response(REFRESH, media_type="text/javascript")


REFRESH = """// Fetches a thread again when somebody else has written in its room: watch(element, "/chatkit", token).
export function watch(element, url, token) {
  let stop = null;
  const follow = async (threadId) => {
    if (stop) stop.abort();
    if (!threadId) return;
    const here = (stop = new AbortController());
    while (!here.signal.aborted) {
      try {
        const answer = await fetch(`${url}/changes?thread_id=${encodeURIComponent(threadId)}`, {
          headers: { authorization: `Bearer ${token}` }, signal: here.signal });
        const reader = answer.body.getReader();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          if (new TextDecoder().decode(value).includes("data:")) await element.fetchUpdates();
        }
      } catch (error) {
        if (here.signal.aborted) return;
      }
      await new Promise((go) => setTimeout(go, 2000));
    }
  };
  element.addEventListener("chatkit.thread.change", (event) => follow(event.detail.threadId));
}
"""

__all__ = ["chatkit_app"]
