"""A fake Anthropic: the Messages API, checked with the SDK's own types in both directions.

fake = FakeAnthropic()
fake.reply(Think("hmm"), "Hello there!")
provider = AnthropicProvider("claude-any", api_key=fake.key, transport=fake.transport())
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from anthropic.types import ModelInfo, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roomkit.models.ai import Usage
from roomkit.testing.vendors.script import (
    JSON,
    Call,
    EventStream,
    Failure,
    FakeVendor,
    Pause,
    Refuse,
    Reply,
    Say,
    Step,
    Think,
    Trouble,
    Vanish,
    read_json,
    stumble,
    tool_problems,
    typed_problems,
)

_REQUEST: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsStreaming)
_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
_MODEL: TypeAdapter[Any] = TypeAdapter(ModelInfo)
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


class FakeAnthropic(FakeVendor):
    """See `FakeVendor`. `unsupported` names parameters to refuse; `thinking.type.enabled` refuses budgets only."""

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/messages", self._messages, methods=["POST"]),
                Route("/v1/models/{model}", self._model, methods=["GET"]),
            ]
        )

    def overflow(self) -> None:
        self.fail(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")

    async def _messages(self, request: Request) -> Any:
        body = await read_json(request)
        if (refused := self._unauthorized(request)) is not None:
            return refused
        answer = self.next(body, typed_problems(_REQUEST, body) or self._problems(body))
        if isinstance(answer, Failure):
            return _refusal(answer)
        return EventStream(self.tracked(_Writer(self, body).events(answer)))

    async def _model(self, request: Request) -> Any:
        if (refused := self._unauthorized(request)) is not None:
            return refused
        info = _model_info(request.path_params["model"], self.unsupported)
        _MODEL.validate_python(info)
        return JSONResponse(info)

    def _unauthorized(self, request: Request) -> Response | None:
        sent = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if sent == self.key and "anthropic-version" in request.headers:
            return None
        return _refusal(Failure(401, "authentication_error", f"invalid x-api-key: {sent}"))

    def _problems(self, body: JSON) -> list[str]:
        """The rules which no type expresses."""
        problems: list[str] = []
        called: set[str] = set()
        previous = None
        for at, message in enumerate(body["messages"]):
            blocks = message["content"]
            blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks
            if message["role"] == previous or (at == 0 and message["role"] != "user"):
                problems.append(f"messages.{at}: roles must alternate and begin with the user")
            previous = message["role"]
            answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
            if set(answered) != called or len(answered) != len(set(answered)):
                problems.append(f"messages.{at}: `tool_use` and `tool_result` ids do not match")
            if [block["type"] for block in blocks[: len(answered)]] != ["tool_result"] * len(answered):
                problems.append(f"messages.{at}: `tool_result` blocks must come first")
            called = {block["id"] for block in blocks if block["type"] == "tool_use"}
            problems += [f"messages.{at}: {told}" for block in blocks if (told := self._block_problem(block))]
        if previous != "user":
            problems.append("This model does not support assistant message prefill.")
        return problems + _parameter_problems(body)

    def _block_problem(self, block: JSON) -> str | None:
        match block["type"]:
            case "text" if not block["text"].strip():
                return "text content blocks must be non-empty"
            case "tool_use" if not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]):
                return "tool_use.id does not match ^[a-zA-Z0-9_-]+$"
            case "thinking" if block["signature"] not in self.signatures:
                return "Invalid `signature` in `thinking` block"
            case "redacted_thinking" if block["data"] not in self.signatures:
                return "Invalid `data` in `redacted_thinking` block"
            case "image" if block["source"]["type"] == "base64" and block["source"]["media_type"] not in _IMAGES:
                return "image media type is not supported"
            case _:
                return None


class _Writer:
    """Plays a script as the events of one message."""

    def __init__(self, vendor: FakeVendor, body: JSON) -> None:
        self._vendor = vendor
        self._body = body
        self._index = 0
        self._called = False
        self._refused = False

    async def events(self, reply: Reply) -> AsyncGenerator[bytes]:
        yield self._event(
            "message_start",
            message={
                "id": self._vendor.new_id("msg"),
                "type": "message",
                "role": "assistant",
                "model": self._body["model"],
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {**_input_usage(reply.usage), "output_tokens": 1},
            },
        )
        yield b'event: ping\ndata: {"type": "ping"}\n\n'
        for step in reply.steps:
            if (garbage := await stumble(step)) is not None:
                yield garbage
            if isinstance(step, Vanish):
                return
            if isinstance(step, Trouble):
                error = {"type": "error", "error": {"type": step.code, "message": step.message}}
                yield f"event: error\ndata: {json.dumps(error)}\n\n".encode()
                return
            async for event in self._block(step):
                yield event
        yield self._event("message_delta", delta=self._stop(reply), usage=_output_usage(reply.usage))
        yield self._event("message_stop")

    def _stop(self, reply: Reply) -> JSON:
        if self._refused:
            details = {"type": "refusal", "category": "general_harms", "explanation": "refused by script"}
            return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
        reason = "max_tokens" if reply.stop else "tool_use" if self._called else "end_turn"
        return {"stop_reason": reason, "stop_sequence": None}

    async def _block(self, step: Step) -> AsyncGenerator[bytes]:
        if isinstance(step, Say | Refuse):
            self._refused |= isinstance(step, Refuse)
            say = step if isinstance(step, Say) else Say(step.text)
            yield self._start({"type": "text", "text": ""})
            for word in say.words:
                await stumble(Pause(say.every))
                yield self._delta({"type": "text_delta", "text": word})
        elif isinstance(step, Think):
            for event in self._thinking(step):
                yield event
        elif isinstance(step, Call):
            self._called = True
            call_id = step.call_id or self._vendor.new_id("toolu")
            yield self._start({"type": "tool_use", "id": call_id, "name": step.name, "input": {}})
            for fragment in step.fragments:
                yield self._delta({"type": "input_json_delta", "partial_json": fragment})
        else:
            return
        yield self._event("content_block_stop", index=self._index)
        self._index += 1

    def _thinking(self, think: Think) -> Iterator[bytes]:
        proof = self._vendor.new_signature()
        if think.redacted:
            yield self._start({"type": "redacted_thinking", "data": proof})
            return
        yield self._start({"type": "thinking", "thinking": "", "signature": ""})
        for word in Say(think.text).words:
            yield self._delta({"type": "thinking_delta", "thinking": word})
        yield self._delta({"type": "signature_delta", "signature": proof})

    def _start(self, block: JSON) -> bytes:
        return self._event("content_block_start", index=self._index, content_block=block)

    def _delta(self, delta: JSON) -> bytes:
        return self._event("content_block_delta", index=self._index, delta=delta)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, **fields}
        _EVENT.validate_python(data)
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def _parameter_problems(body: JSON) -> list[str]:
    problems: list[str] = []
    thinking = body.get("thinking", {})
    if thinking.get("type") == "enabled" and not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
        problems.append("thinking.budget_tokens: must be at least 1024 and less than max_tokens")
    if thinking and body.get("tool_choice", {}).get("type") == "any":
        problems.append("Thinking may not be enabled when tool_choice forces tool use.")
    used = any(
        block["type"] == "tool_use"
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
    )
    if used and not body.get("tools"):
        problems.append("Requests which include `tool_use` or `tool_result` blocks must define tools.")
    for tool in body.get("tools", []):
        problems += tool_problems(tool["name"], tool["input_schema"], 128)
    return problems


def _refusal(failure: Failure) -> Response:
    kind = "invalid_request_error" if failure.code == "unsupported_parameter" else failure.code
    error = {"type": "error", "error": {"type": kind, "message": failure.message}, "request_id": "req_1"}
    return JSONResponse(error, failure.status, headers=dict(failure.headers))


def _input_usage(usage: Usage) -> JSON:
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
    }


def _output_usage(usage: Usage) -> JSON:
    details = {"thinking_tokens": usage.thinking_tokens}
    return {**_input_usage(usage), "output_tokens": usage.output_tokens, "output_tokens_details": details}


def _model_info(model: str, unsupported: set[str]) -> JSON:
    yes, no = {"supported": True}, {"supported": False}
    enabled = no if {"thinking", "thinking.type.enabled"} & unsupported else yes
    levels = dict.fromkeys(("low", "medium", "high", "xhigh", "max"), yes)
    return {
        "id": model,
        "type": "model",
        "display_name": model,
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
        "capabilities": {
            **dict.fromkeys(("batch", "citations", "code_execution", "pdf_input", "structured_outputs"), yes),
            "image_input": yes,
            "effort": {"supported": True, **levels},
            "server_tools": {"supported": True, "web_search": yes, "code_execution": yes},
            "context_management": {"supported": False},
            "thinking": {
                "supported": "thinking" not in unsupported,
                "types": {"enabled": enabled, "adaptive": yes, "disabled": yes, "between_tools": no},
            },
        },
    }
