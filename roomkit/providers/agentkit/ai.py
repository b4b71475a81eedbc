"""Any AgentKit backend as the brain of an AI channel: the same protocol as `servers.agentkit`, from the other side.

A backend keeps its conversation itself, so that one stream stays open per room. It is told what was said since its last
answer; after a restart the stream begins anew, with the conversation so far as JSON in `args["history"]`. Needs the
[agentkit] extra. Calls and arguments of the backend's own tools do not come here: it has run them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from roomkit.errors import BadResponse, MissingExtra, ProviderError, ProviderTimeout, Refused, Unauthorized, Unavailable
from roomkit.models.ai import (
    AIEvent,
    AIMessage,
    AIProfile,
    AIRequest,
    Finished,
    TextChunk,
    ToolCallChunk,
    ToolCallPart,
)
from roomkit.net.redaction import register_secret
from roomkit.runtime import bounded

try:
    import grpc
    from grpc import aio

    from roomkit.protocols.agentkit.generated import agentkit_pb2 as pb
    from roomkit.protocols.agentkit.values import packed
except ImportError as error:
    raise MissingExtra("the AgentKit provider", "grpcio", "agentkit") from error

MOST_BYTES = 16 * 1024 * 1024
DIRECTIVES = {
    pb.TOOL_CALL_ACTION_END_CONVERSATION: "end_call",
    pb.TOOL_CALL_ACTION_TRANSFER_CONVERSATION: "transfer_call",
}


class AgentKitProvider:
    """`target` is "host:port". `token` goes into `header`, plain or with its own "Bearer "; `tls` is true for the
    system's authorities or the PEM bytes of another one. A frame may take `timeout_s`; of `conversations` open streams
    the one unused for longest is closed for the next.

    A directive to end or hand over the call becomes a call of the tool "end_call" or "transfer_call", where the channel
    offers it, and is left out otherwise."""

    name = "agentkit"
    profile = AIProfile(streaming=True)

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        header: str = "authorization",
        tls: bool | bytes = False,
        assistant_id: int = 0,
        timeout_s: float = 60.0,
        conversations: int = 1_000,
    ) -> None:
        self.target = target
        if token:
            register_secret(token, token.removeprefix("Bearer "))
        self._metadata = ((header.lower(), token),) if token else ()
        self._tls = tls
        self._assistant_id = assistant_id
        self._timeout_s = timeout_s
        self._most = conversations
        self._channel: Any = None
        self._open: OrderedDict[tuple[str, str], _Conversation] = OrderedDict()

    def __repr__(self) -> str:
        return f"AgentKitProvider({self.target!r}, tls={bool(self._tls)})"

    async def stream(self, request: AIRequest) -> AsyncGenerator[AIEvent]:
        """Raises `Unauthorized`, `Unavailable`, `ProviderTimeout`, `Refused` for an error frame, or `BadResponse`."""
        asked, before = _asked(request.messages)
        if not asked:  # A tool of ours has run for the backend, which waits for nothing.
            yield Finished("stop")
            return
        key = (str(request.metadata.get("tenant", "")), str(request.metadata.get("room_id", "")))
        conversation = self._open.get(key)
        try:
            if conversation is None:
                conversation = await self._begin(key, request, before)
            self._open.move_to_end(key)
            offered = {tool.name for tool in request.tools}
            async with aclosing(conversation.ask(asked, offered)) as events:
                async for event in events:
                    yield event
        except (ProviderError, aio.AioRpcError) as error:
            self._forget(key)
            raise error if isinstance(error, ProviderError) else _kind(error) from error
        finally:
            if conversation is not None and conversation.broken:
                self._forget(key)

    async def aclose(self) -> None:
        for key in tuple(self._open):
            self._forget(key)
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _begin(self, key: tuple[str, str], request: AIRequest, before: Sequence[AIMessage]) -> _Conversation:
        call = self._connect()(metadata=self._metadata)
        conversation = _Conversation(call, self._timeout_s)
        args: dict[str, Any] = {"room_id": key[1]}
        if request.system:
            args["system_prompt"] = request.system
        if before:
            args["history"] = json.dumps([{"role": one.role, "text": one.text} for one in before], ensure_ascii=False)
        # The same room is the same conversation, also after a restart.
        number = int.from_bytes(hashlib.sha256("\n".join(key).encode()).digest()[:6])
        await conversation.begin(
            pb.ConversationInitialization(
                assistantConversationId=number,
                assistant=pb.AssistantDefinition(assistantId=self._assistant_id),
                streamMode=pb.STREAM_MODE_TEXT,
                args=packed(args),
                web=pb.WebIdentity(userId=key[1]),
            )
        )
        self._open[key] = conversation
        while len(self._open) > self._most:
            self._forget(next(iter(self._open)))
        return conversation

    def _connect(self) -> Any:
        if self._channel is None:
            options = [("grpc.max_receive_message_length", MOST_BYTES), ("grpc.keepalive_time_ms", 30_000)]
            if self._tls:
                roots = self._tls if isinstance(self._tls, bytes) else None
                credentials = grpc.ssl_channel_credentials(root_certificates=roots)
                self._channel = aio.secure_channel(self.target, credentials, options=options)
            else:
                self._channel = aio.insecure_channel(self.target, options=options)
        return self._channel.stream_stream(
            "/talk_api.AgentKit/Talk",
            request_serializer=pb.TalkInput.SerializeToString,
            response_deserializer=pb.TalkOutput.FromString,
        )

    def _forget(self, key: tuple[str, str]) -> None:
        conversation = self._open.pop(key, None)
        if conversation is not None:
            conversation.call.cancel()


class _Conversation:
    """One open stream. One question at a time; what is left of an answer that nobody waited for is skipped."""

    def __init__(self, call: Any, timeout_s: float) -> None:
        self.call = call
        self.broken = False
        self._timeout_s = timeout_s

    async def begin(self, frame: pb.ConversationInitialization) -> None:
        await self._write(pb.TalkInput(initialization=frame))
        answer = await self._next()
        if answer.WhichOneof("data") == "error":
            raise _refused(answer)
        if answer.WhichOneof("data") != "initialization":
            raise BadResponse("agentkit", "the backend did not acknowledge the initialization")

    async def ask(self, text: str, offered: set[str]) -> AsyncGenerator[AIEvent]:
        asked = secrets.token_hex(8)
        self.broken = True  # Until it has come to its end.
        await self._write(pb.TalkInput(message=pb.ConversationUserMessage(id=asked, text=text, completed=True)))
        told: list[str] = []
        over = called = False
        try:
            while not over:
                frame = await self._next()
                for event in _events(frame, asked, told, offered):
                    called = called or isinstance(event, ToolCallChunk)
                    yield event
                said = frame.assistant
                over = frame.WhichOneof("data") == "assistant" and said.completed and said.id in ("", asked)
            self.broken = False
            yield Finished("tool_calls" if called else "stop")
        finally:
            if not over and not self.call.done():
                await self._interrupt(asked)

    async def _interrupt(self, asked: str) -> None:
        """Whoever asked has gone: the backend may stop, and this stream is not used again."""
        stop = pb.ConversationInterruption(id=asked, type=pb.INTERRUPTION_TYPE_WORD)
        try:
            await self._write(pb.TalkInput(interruption=stop))
        except (aio.AioRpcError, ProviderError):
            return

    async def _write(self, frame: pb.TalkInput) -> None:
        try:
            await self.call.write(frame)
        except asyncio.InvalidStateError:  # The backend has ended it already, and said why.
            raise _of_status(await self.call.code(), await self.call.details()) from None

    async def _next(self) -> pb.TalkOutput:
        try:
            frame = await bounded(self.call.read(), self._timeout_s, "an AgentKit backend")
        except TimeoutError as error:
            raise ProviderTimeout("agentkit", f"no answer in {self._timeout_s:g} s") from error
        if frame is aio.EOF:
            code = await self.call.code()
            if code is grpc.StatusCode.OK:
                raise BadResponse("agentkit", "the backend has ended the conversation")
            raise _of_status(code, await self.call.details())
        return frame


def _events(frame: pb.TalkOutput, asked: str, told: list[str], offered: set[str]) -> list[AIEvent]:
    match frame.WhichOneof("data"):
        case "assistant" if frame.assistant.id in ("", asked):
            text = frame.assistant.text
            rest = _rest("".join(told), text) if frame.assistant.completed else text
            told.append(rest)
            return [TextChunk(rest)] if rest else []
        case "toolCall" if DIRECTIVES.get(frame.toolCall.action) in offered:
            call, name = frame.toolCall, DIRECTIVES[frame.toolCall.action]
            return [ToolCallChunk(ToolCallPart(call_id=call.toolId or asked, name=name, arguments=dict(call.args)))]
        case "error":
            raise _refused(frame)
        case _:
            return []


def _rest(told: str, final: str) -> str:
    """What the last frame adds: it repeats the whole answer, or is the last part of it."""
    if final.startswith(told):
        return final[len(told) :]
    return "" if told.endswith(final) else final


def _asked(messages: Sequence[AIMessage]) -> tuple[str, Sequence[AIMessage]]:
    """What people have said since the last answer, and everything before."""
    at = len(messages)
    while at and messages[at - 1].role == "user":
        at -= 1
    said = [f"{one.name}: {one.text}" if one.name else one.text for one in messages[at:]]
    return "\n".join(filter(None, said)), messages[:at]


def _refused(frame: pb.TalkOutput) -> Refused:
    error = frame.error
    return Refused("agentkit", error.errorMessage or error.humanMessage or "the backend failed", code=str(frame.code))


def _kind(error: aio.AioRpcError) -> ProviderError:
    return _of_status(error.code(), error.details() or "")


_KINDS: Mapping[Any, type[ProviderError]] = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: Unauthorized,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: ProviderTimeout,
}


def _of_status(code: Any, details: str | None) -> ProviderError:
    return _KINDS.get(code, BadResponse)("agentkit", details or str(code))
