"""AgentKit's door: calls of Rapida's voice platform, answered by a room or by an agent of your own.

    server = AgentKitServer(RoomAgent(kit), auth_config={"enabled": True, "token": token})
    await server.serve()                                    # on the kit's loop, until `aclose`

    server = AgentKitServer(agent=MyAgent(), port=50051)    # an agent written for AgentKit's own SDK
    server.start(); server.wait_for_termination()

Needs the [agentkit] extra. The platform is the gRPC client; one stream is one call.
"""

from __future__ import annotations

import asyncio
import hmac
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from roomkit.core.policy import may_see
from roomkit.errors import (
    AccessDenied,
    ConfigError,
    MissingExtra,
    Overloaded,
    RoomClosed,
    RoomKitError,
    RoomNotFound,
    StateError,
    UsageError,
)
from roomkit.models.content import ToolCallContent, text_of, valid_text
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.stream import StreamChunk, StreamEnd, StreamError, StreamStart
from roomkit.net.addresses import is_loopback
from roomkit.runtime import BlockingBuffer, BufferClosed, Scope
from roomkit.servers.problems import spoken
from roomkit.servers.visit import GONE_WORDS, Heard, Visit

try:
    import grpc

    from roomkit.protocols.agentkit.agent import AgentKitAgent
    from roomkit.protocols.agentkit.conversation import Act, Begin, Conversation, Interrupt, Say, Send
    from roomkit.protocols.agentkit.generated import agentkit_pb2 as pb
except ImportError as error:
    raise MissingExtra("AgentKit's door", "grpcio", "agentkit") from error

if TYPE_CHECKING:
    from roomkit.core.results import InboundResult
    from roomkit.kit import RoomKit

log = logging.getLogger(__name__)
SERVICE, METHOD = "talk_api.AgentKit", "Talk"
MOST_BYTES = 16 * 1024 * 1024
OPTIONS: tuple[tuple[str, Any], ...] = (
    # The platform pings an idle call every 10 s, which a gRPC server takes for an attack unless it is told otherwise.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_send_message_length", MOST_BYTES),
)
FRAMES = 1_000
"""Frames that wait for a platform which takes them slowly; then the call waits too, and in the end it is let go."""
_STATUSES = (
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (AccessDenied, grpc.StatusCode.PERMISSION_DENIED),
    (RoomNotFound, grpc.StatusCode.NOT_FOUND),
    (StateError, grpc.StatusCode.FAILED_PRECONDITION),
)
"""What ends a call that may not begin or go on: the room is closed, say, or the caller was sent away."""
TOOL_TYPES = (EventType.TOOL_CALL_START, EventType.TOOL_CALL_END)


@dataclass(frozen=True, slots=True)
class RoomAgentOptions:
    """`room_of(begin)` names the room of a call, "agentkit-" and the conversation's id by default. `directives` are the
    tools that end ("end") or hand over ("transfer") the call when they have run. With `show_tools` the platform is told
    of the tool calls of the room. At most `calls` calls are open at once, and a message has at most `text_chars`."""

    channel_id: str = "agentkit"
    room_of: Callable[[Begin], str] | None = None
    directives: Mapping[str, str] = field(default_factory=lambda: {"end_call": "end", "transfer_call": "transfer"})
    show_tools: bool = True
    calls: int = 1_000
    text_chars: int = 16_000


class RoomAgent:
    """Lets rooms answer: each conversation has one, whose AI, people and other channels the caller talks with.

    The channel `options.channel_id` is registered, as a `WebSocketChannel`, unless the kit has it."""

    def __init__(self, kit: RoomKit, options: RoomAgentOptions | None = None) -> None:
        self.options = options or RoomAgentOptions()
        for name, way in self.options.directives.items():
            if way not in ("end", "transfer"):
                raise ConfigError(f'directives: "{name}" is "{way}"; write "end" or "transfer"')
        self.kit = kit
        self.open_calls = 0
        if self.options.channel_id not in kit.engine.channels:
            from roomkit.channels.websocket import WebSocketChannel

            kit.register_channel(WebSocketChannel(self.options.channel_id))

    async def talk(self, frames: AsyncIterator[pb.TalkInput]) -> AsyncIterator[pb.TalkOutput]:
        """One call. Ends with the platform's frames; what the room still says then stays in the room."""
        if self.open_calls >= self.options.calls:
            raise Overloaded(f"{self.open_calls} calls are open already; call again later")
        self.open_calls += 1
        call = _Call(self)
        try:
            async for frame in call.run(frames):
                yield frame
        finally:
            self.open_calls -= 1
            await call.aclose()


class _Call:
    """One stream: what the platform sends and what the room says, through one machine."""

    def __init__(self, agent: RoomAgent) -> None:
        self._agent = agent
        self._rooms = agent.kit
        self._machine = Conversation(most_text=agent.options.text_chars)
        self._scope = Scope("agentkit call", on_failure=lambda failure: self._end(failure.error))
        self._out: BlockingBuffer[pb.TalkOutput] = BlockingBuffer(FRAMES)
        self._error: BaseException | None = None
        self._visit: Visit | None = None
        self._seen: set[str] = set()
        self._conversation = 0

    async def run(self, frames: AsyncIterator[pb.TalkInput]) -> AsyncIterator[pb.TalkOutput]:
        self._scope.spawn(self._read(frames), name="frames")
        while True:
            try:
                frame = await self._out.get()
            except BufferClosed:
                break
            yield frame
        if self._error is not None:
            raise self._error

    async def aclose(self) -> None:
        if self._visit is not None:
            self._visit.close()
        await self._scope.aclose()

    def _end(self, error: BaseException | None = None) -> None:
        self._error = self._error or error
        self._out.close()

    async def _read(self, frames: AsyncIterator[pb.TalkInput]) -> None:
        try:
            async for frame in frames:
                await self._do(self._machine.hear(frame))
        except (AccessDenied, StateError) as error:
            self._end(error)  # It may not begin, or not go on.
        self._end()

    async def _do(self, acts: Iterable[Act]) -> None:
        for act in acts:
            if isinstance(act, Send):
                try:
                    await self._out.put(act.frame)
                except BufferClosed:
                    return  # the call is over
            elif isinstance(act, Begin):
                await self._begin(act)
            elif isinstance(act, Interrupt):
                await self._interrupt()
            else:
                await self._say(act)

    async def _begin(self, begin: Begin) -> None:
        options = self._agent.options
        room_id = options.room_of(begin) if options.room_of is not None else f"agentkit-{begin.conversation_id}"
        who = begin.phone or begin.user_id or f"caller-{begin.conversation_id}"
        self._conversation = begin.conversation_id
        known = {"conversation_id": begin.conversation_id, "assistant_id": begin.assistant_id, **begin.details}
        self._visit = Visit(self._rooms, room_id, options.channel_id, f"agentkit:{who}", name=begin.phone)
        await self._visit.enter(metadata={"agentkit": known}, internal=True)
        room = await self._rooms.get_room(room_id)
        if not room.open:
            raise RoomClosed(room_id, room.status)
        self._scope.spawn(self._listen(self._visit), name="room")

    async def _say(self, act: Say) -> None:
        assert self._visit is not None
        if act.interrupts:
            await self._interrupt()
        external = f"{self._conversation}:{act.message_id}" if act.message_id else None
        try:
            result = await self._visit.say(valid_text(act.text), external_id=external)
        except RoomClosed:
            raise
        except RoomKitError as error:
            log.warning("what a caller of AgentKit has said was not taken: %s", error)
            await self._do(self._machine.settled(act.message_id, refused=True))
            return
        if result.reason == "room_closed":
            raise RoomClosed(self._visit.room_id)
        self._scope.spawn(self._settled(act.message_id, result), name="settled")

    async def _interrupt(self) -> None:
        if self._visit is not None:
            await self._visit.interrupt("the caller broke in")

    async def _settled(self, message_id: str, result: InboundResult) -> None:
        await result.settled()
        await asyncio.sleep(0)  # What the room has said by now goes out first.
        await self._do(self._machine.settled(message_id, refused=result.blocked))

    # -- what the room says -----------------------------------------------------------------------------------------

    async def _listen(self, visit: Visit) -> None:
        try:
            async for item in visit:
                await self._do(await self._heard(visit, item))
        except (AccessDenied, StateError) as error:
            self._end(error)

    async def _heard(self, visit: Visit, item: Heard) -> list[Act]:
        machine = self._machine
        if isinstance(item, StreamStart):
            if await self._may_hear(visit, item.source.channel_id):
                self._seen.add(item.stream_id)
            return []
        if isinstance(item, StreamChunk):
            return machine.grows(item.stream_id, item.delta) if item.stream_id in self._seen else []
        if isinstance(item, StreamError):
            self._seen.discard(item.stream_id)
            return machine.withdrawn(item.stream_id)
        event = item.event if isinstance(item, StreamEnd) else item
        if event.type in TOOL_TYPES:
            return self._tool(event)
        if visit.sent_away(event):
            raise AccessDenied(GONE_WORDS)
        grown = event.id in self._seen
        self._seen.discard(event.id)
        if event.type is not EventType.MESSAGE or event.source.participant_id == visit.person:
            return []
        if not await self._sees(visit, event):
            return machine.withdrawn(event.id) if grown else []
        return machine.said(event.id, text_of(event.content))

    async def _sees(self, visit: Visit, event: RoomEvent) -> bool:
        for seat in await self._rooms.bindings(visit.room_id):
            if seat.channel_id == visit.channel_id:
                return may_see(event, seat, visit.person) and not seat.output_muted
        return False

    async def _may_hear(self, visit: Visit, source_id: str) -> bool:
        """Whether a reply of this seat may be told while it grows: it is shown to all, and the caller may listen."""
        seats = {seat.channel_id: seat for seat in await self._rooms.bindings(visit.room_id)}
        own, source = seats.get(visit.channel_id), seats.get(source_id)
        return own is not None and own.can_read and not own.output_muted and (not source or source.visibility == "all")

    def _tool(self, event: RoomEvent) -> list[Act]:
        call, options, machine = event.content, self._agent.options, self._machine
        if not isinstance(call, ToolCallContent):
            return []
        way = options.directives.get(call.name)
        if way is not None:
            done = event.type is EventType.TOOL_CALL_END and call.status == "completed"
            return machine.direct(call.call_id, call.name, dict(call.arguments), end=way == "end") if done else []
        if not options.show_tools:
            return []
        if event.type is EventType.TOOL_CALL_START:
            return machine.tool(call.call_id, call.name, dict(call.arguments))
        good = call.status == "completed"
        return machine.tool_done(call.call_id, call.name, call.result if good else call.error, success=good)


class AgentKitServer:
    """Serves one agent over gRPC: a `RoomAgent` with `serve`, an `AgentKitAgent` with `serve` or `start`.

    `ssl_config` has "cert_path" and "key_path", and "ca_path" where clients must show a certificate of that authority.
    `auth_config` has "enabled", "token" and, if it is not "authorization", "header"; the token is taken plain and as
    "Bearer TOKEN". Off loopback rooms are served with a token, or to certificates of that authority, unless "enabled"
    is False. Of a synchronous `Talk` at most `max_workers` calls run at once. Port 0 takes a free one, see
    `port` once it serves."""

    def __init__(
        self,
        agent: AgentKitAgent | RoomAgent,
        host: str = "0.0.0.0",  # noqa: S104 - the SDK's own default: the platform calls from outside
        port: int = 50051,
        max_workers: int = 10,
        ssl_config: Mapping[str, str] | None = None,
        auth_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.agent = agent
        self.host = host
        self.port = port
        self._max_workers = max_workers
        self._ssl = dict(ssl_config or {})
        self._header, self._token = _auth(auth_config or {})
        self._open = (auth_config or {}).get("enabled") is False
        self._server: Any = None
        self._blocking: Any = None
        self._pool: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"AgentKitServer({self.host}:{self.port}, tls={bool(self._ssl)}, auth={self._token is not None})"

    # -- asyncio --------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Starts to serve on the running loop and returns. Raises `ConfigError` when the port is taken."""
        from grpc import aio

        self._pool = ThreadPoolExecutor(self._max_workers, thread_name_prefix="agentkit")
        server: Any = aio.server(migration_thread_pool=self._pool, options=OPTIONS)
        is_async = isinstance(self.agent, RoomAgent) or inspect.isasyncgenfunction(self.agent.Talk)
        server.add_generic_rpc_handlers((self._handler(self._answer if is_async else self._answer_blocking),))
        self.port = self._listen(server)
        await server.start()
        self._server = server

    async def aclose(self, grace_s: float = 5.0) -> None:
        """Takes no new calls, lets open ones end for `grace_s` seconds, then ends them."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        await self.serve()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _answer(self, frames: AsyncIterator[pb.TalkInput], context: Any) -> AsyncIterator[pb.TalkOutput]:
        if not self._authorized(context.invocation_metadata()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid authorization token")
        try:
            if isinstance(self.agent, RoomAgent):
                talk = self.agent.talk(frames)
            else:
                talk = cast("AsyncIterator[pb.TalkOutput]", self.agent.Talk(frames, context))
            async for frame in talk:
                yield frame
        except (Overloaded, AccessDenied, StateError) as error:
            await context.abort(_status(error), spoken(error))
        except asyncio.CancelledError:
            raise
        except Exception:  # a call must not take the others with it
            log.exception("a call of AgentKit broke")
            yield AgentKitAgent().error_response(500, "the agent failed")

    # -- threads, as the SDK has it -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Serves an agent with a synchronous `Talk` in threads and returns. A room needs `serve`."""
        if isinstance(self.agent, RoomAgent) or inspect.isasyncgenfunction(self.agent.Talk):
            raise UsageError("this agent lives on an event loop; use: await server.serve()")
        self._blocking = grpc.server(ThreadPoolExecutor(self._max_workers), options=OPTIONS)
        self._blocking.add_generic_rpc_handlers((self._handler(self._answer_blocking),))
        self.port = self._listen(self._blocking)
        self._blocking.start()

    def stop(self, grace: float | None = 5) -> None:
        """Ends what `start` began; open calls have `grace` seconds."""
        if self._blocking is not None:
            self._blocking.stop(grace).wait()

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Blocks until `stop` has ended the server, or for `timeout` seconds; true when these ran out."""
        return bool(self._blocking is not None and self._blocking.wait_for_termination(timeout))

    def _answer_blocking(self, frames: Iterator[pb.TalkInput], context: Any) -> Iterator[pb.TalkOutput]:
        if not self._authorized(context.invocation_metadata()):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid authorization token")
        assert isinstance(self.agent, AgentKitAgent)
        try:
            yield from cast("Iterator[pb.TalkOutput]", self.agent.Talk(frames, context))
        except Exception:  # as above
            log.exception("a call of AgentKit broke")
            yield self.agent.error_response(500, "the agent failed")

    # -- both -----------------------------------------------------------------------------------------------------

    def _handler(self, answer: Callable[..., Any]) -> Any:
        method = grpc.stream_stream_rpc_method_handler(
            answer,
            request_deserializer=pb.TalkInput.FromString,
            response_serializer=pb.TalkOutput.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    def _listen(self, server: Any) -> int:
        address = f"{self.host}:{self.port}"
        credentials = self._credentials() if self._ssl else None
        self._check_door()
        try:
            return int(
                server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
            )
        except RuntimeError as error:
            raise ConfigError(f"{address} cannot be listened at ({error}); choose another port") from error

    def _check_door(self) -> None:
        """Off loopback somebody must have decided who may come into the rooms. An agent written for the SDK is served
        as the SDK serves it."""
        if self._open or self._token is not None or "ca_path" in self._ssl or is_loopback(self.host.strip("[]")):
            return
        told = (
            f"{self.host} is reachable by others, and nothing says who may call: give AgentKitServer(auth_config="
            '{"token": ...}) or ssl_config "ca_path", listen at 127.0.0.1, or say auth_config={"enabled": False}'
        )
        if isinstance(self.agent, RoomAgent):
            raise ConfigError(told)
        log.warning("%s", told)

    def _credentials(self) -> Any:
        try:
            key, chain = (Path(self._ssl[name]).read_bytes() for name in ("key_path", "cert_path"))
            authority = Path(self._ssl["ca_path"]).read_bytes() if "ca_path" in self._ssl else None
        except KeyError as error:
            raise ConfigError(f"ssl_config needs {error}: the path of a PEM file") from None
        except OSError as error:
            raise ConfigError(f"ssl_config: {error}") from error
        return grpc.ssl_server_credentials(
            [(key, chain)], root_certificates=authority, require_client_auth=authority is not None
        )

    def _authorized(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
        if self._token is None:
            return True
        for name, value in metadata or ():
            if name.lower() == self._header:
                given = value if isinstance(value, bytes) else value.encode()
                if given[:7].lower() == b"bearer ":
                    given = given[7:]
                return hmac.compare_digest(given.strip(), self._token)
        return False


def _status(error: RoomKitError) -> grpc.StatusCode:
    return next(status for kind, status in _STATUSES if isinstance(error, kind))


def _auth(config: Mapping[str, Any]) -> tuple[str, bytes | None]:
    header = str(config.get("header") or "authorization").lower()
    if not config.get("enabled", bool(config.get("token"))):
        return header, None
    token = config.get("token")
    if not token:
        raise ConfigError('auth_config is enabled without a "token": every call would be refused, or none')
    return header, str(token).encode()
