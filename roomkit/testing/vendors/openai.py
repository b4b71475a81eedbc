"""A fake OpenAI: Responses API and Chat Completions, checked with the SDK's own types in both directions.

fake = FakeOpenAI()
fake.reply("Hello there!")
provider = OpenAIProvider("gpt-any", api_key=fake.key, transport=fake.transport())
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from openai.types.chat import ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
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

_NOW = 1_790_000_000
_RESPONSES: TypeAdapter[Any] = TypeAdapter(ResponseCreateParamsStreaming)
_CHAT: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsStreaming)
_RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_CHUNK: TypeAdapter[Any] = TypeAdapter(ChatCompletionChunk)


class FakeOpenAI(FakeVendor):
    """See `FakeVendor`. `unsupported` names parameters to refuse as a model does that does not know them."""

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/responses", self._responses, methods=["POST"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    def overflow(self) -> None:
        self.fail(400, "context_length_exceeded", "Your input exceeds the context window of this model.")

    async def _responses(self, request: Request) -> Any:
        body = await read_json(request)
        answer = self._answer(request, body, typed_problems(_RESPONSES, body) or self._input_problems(body))
        if isinstance(answer, Failure):
            return _refusal(answer)
        return EventStream(self.tracked(_ResponseWriter(self, body).events(answer)))

    async def _chat(self, request: Request) -> Any:
        body = await read_json(request)
        answer = self._answer(request, body, typed_problems(_CHAT, body) or _message_problems(body))
        if isinstance(answer, Failure):
            return _refusal(answer)
        return EventStream(self.tracked(_ChatWriter(self, body).events(answer)))

    def _answer(self, request: Request, body: JSON, problems: list[str]) -> Reply | Failure:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            told = request.headers.get("authorization", "").removeprefix("Bearer ")
            return Failure(401, "invalid_api_key", f"Incorrect API key provided: {told}.")
        return self.next(body, problems)

    def _input_problems(self, body: JSON) -> list[str]:
        """The rules of a stateless conversation which no type expresses."""
        problems: list[str] = []
        items: list[JSON] = body["input"]
        called = [item["call_id"] for item in items if item.get("type") == "function_call"]
        answered = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
        problems += [f"No tool output found for function call {one}." for one in called if one not in answered]
        problems += [f"No tool call found for function call output {one}." for one in answered if one not in called]
        problems += [f"input: call_id {one!r} is longer than 64" for one in called if len(one) > 64]
        for item, after in zip(items, [*items[1:], None], strict=True):
            if item.get("type") != "reasoning":
                continue
            if item.get("encrypted_content") not in self.signatures:
                problems.append("The encrypted content could not be verified.")
            if after is None or after.get("type", "message") == "function_call_output" or after.get("role") == "user":
                problems.append(f"Item '{item['id']}' of type 'reasoning' was provided without its following item.")
        for tool in body.get("tools", []):
            problems += tool_problems(tool["name"], tool["parameters"], 64)
        return problems


class _ResponseWriter:
    """Plays a script as the events of one response."""

    def __init__(self, vendor: FakeVendor, body: JSON) -> None:
        self._vendor = vendor
        self._body = body
        self._sequence = 0
        self._output: list[JSON] = []
        self._id = vendor.new_id("resp")

    async def events(self, reply: Reply) -> AsyncGenerator[bytes]:
        yield self._event("response.created", response=self._response("in_progress"))
        for step in reply.steps:
            if (garbage := await stumble(step)) is not None:
                yield garbage
            if isinstance(step, Vanish):
                return
            if isinstance(step, Trouble):
                yield self._event("error", code=step.code, message=step.message, param=None)
                return
            if isinstance(step, Say):
                async for event in self._message(step):
                    yield event
            else:
                for event in self._item(step):
                    yield event
        status, why = ("incomplete", {"reason": "max_output_tokens"}) if reply.stop else ("completed", None)
        done = self._response(status, incomplete_details=why, usage=_response_usage(reply.usage))
        yield self._event(f"response.{status}", response=done)

    async def _message(self, say: Say) -> AsyncGenerator[bytes]:
        item: JSON = {"type": "message", "id": self._vendor.new_id("msg"), "role": "assistant", "content": []}
        at = {"item_id": item["id"], "output_index": len(self._output)}
        yield self._event("response.output_item.added", item={**item, "status": "in_progress"}, **_index(at))
        part: JSON = {"type": "output_text", "text": "", "annotations": []}
        yield self._event("response.content_part.added", part=part, content_index=0, **at)
        for word in say.words:
            await stumble(Pause(say.every))
            yield self._event("response.output_text.delta", delta=word, logprobs=[], content_index=0, **at)
        yield self._event("response.output_text.done", text=say.text, logprobs=[], content_index=0, **at)
        part = {**part, "text": say.text}
        yield self._event("response.content_part.done", part=part, content_index=0, **at)
        yield self._done({**item, "content": [part], "status": "completed"}, at)

    def _item(self, step: Step) -> Iterator[bytes]:
        if isinstance(step, Think):
            yield from self._reasoning(step)
        elif isinstance(step, Call):
            yield from self._call(step)
        elif isinstance(step, Refuse):
            item: JSON = {"type": "message", "id": self._vendor.new_id("msg"), "role": "assistant"}
            at = {"item_id": item["id"], "output_index": len(self._output)}
            yield self._event("response.refusal.delta", delta=step.text, content_index=0, **at)
            yield self._event("response.refusal.done", refusal=step.text, content_index=0, **at)
            content = [{"type": "refusal", "refusal": step.text}]
            yield self._done({**item, "content": content, "status": "completed"}, at)

    def _reasoning(self, think: Think) -> Iterator[bytes]:
        item: JSON = {"type": "reasoning", "id": self._vendor.new_id("rs"), "summary": []}
        at = {"item_id": item["id"], "output_index": len(self._output)}
        yield self._event("response.output_item.added", item=item, **_index(at))
        if "summary" in self._body.get("reasoning", {}) and not think.redacted:
            for number, text in enumerate(think.text.split("\n\n")):
                empty, full = ({"type": "summary_text", "text": t} for t in ("", text))
                yield self._event("response.reasoning_summary_part.added", part=empty, summary_index=number, **at)
                for word in Say(text).words:
                    yield self._event("response.reasoning_summary_text.delta", delta=word, summary_index=number, **at)
                yield self._event("response.reasoning_summary_text.done", text=text, summary_index=number, **at)
                yield self._event("response.reasoning_summary_part.done", part=full, summary_index=number, **at)
                item["summary"].append(full)
        if "reasoning.encrypted_content" in self._body.get("include", []):
            item["encrypted_content"] = self._vendor.new_signature()
        yield self._done(item, at)

    def _call(self, call: Call) -> Iterator[bytes]:
        item: JSON = {
            "type": "function_call",
            "id": self._vendor.new_id("fc"),
            "call_id": call.call_id or self._vendor.new_id("call"),
            "name": call.name,
            "arguments": "",
        }
        at = {"item_id": item["id"], "output_index": len(self._output)}
        yield self._event("response.output_item.added", item={**item, "status": "in_progress"}, **_index(at))
        for fragment in call.fragments:
            yield self._event("response.function_call_arguments.delta", delta=fragment, **at)
        yield self._event("response.function_call_arguments.done", arguments=call.raw, name=call.name, **at)
        yield self._done({**item, "arguments": call.raw, "status": "completed"}, at)

    def _done(self, item: JSON, at: JSON) -> bytes:
        self._output.append(item)
        return self._event("response.output_item.done", item=item, **_index(at))

    def _response(self, status: str, **more: Any) -> JSON:
        echo = {key: self._body[key] for key in ("temperature", "max_output_tokens") if key in self._body}
        return {
            "id": self._id,
            "object": "response",
            "created_at": _NOW,
            "status": status,
            "model": self._body["model"],
            "output": self._output,
            "parallel_tool_calls": True,
            "tool_choice": self._body.get("tool_choice", "auto"),
            "tools": self._body.get("tools", []),
            **echo,
            **more,
        }

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        data = {"type": kind, "sequence_number": self._sequence, **fields}
        _RESPONSE_EVENT.validate_python(data)
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


class _ChatWriter:
    """Plays a script as the chunks of one completion."""

    def __init__(self, vendor: FakeVendor, body: JSON) -> None:
        self._vendor = vendor
        self._body = body
        self._calls = 0
        self._id = vendor.new_id("chatcmpl")

    async def events(self, reply: Reply) -> AsyncGenerator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})
        for step in reply.steps:
            if (garbage := await stumble(step)) is not None:
                yield garbage
            if isinstance(step, Vanish):
                return
            if isinstance(step, Trouble):
                error = {"message": step.message, "type": step.code, "code": step.code, "param": None}
                yield f"data: {json.dumps({'error': error})}\n\n".encode()
                return
            if isinstance(step, Say):
                for word in step.words:
                    await stumble(Pause(step.every))
                    yield self._chunk({"content": word})
            for delta in self._deltas(step):
                yield self._chunk(delta)
        reason = "length" if reply.stop else "tool_calls" if self._calls else "stop"
        yield self._chunk({}, finish_reason=reason)
        if self._body.get("stream_options", {}).get("include_usage"):
            yield self._chunk(None, usage=_chat_usage(reply.usage))
        yield b"data: [DONE]\n\n"

    def _deltas(self, step: Step) -> Iterator[JSON]:
        if isinstance(step, Think):
            for word in Say(step.text).words:
                yield {"reasoning_content": word}
        elif isinstance(step, Refuse):
            yield {"refusal": step.text}
        elif isinstance(step, Call):
            index, self._calls = self._calls, self._calls + 1
            call_id = step.call_id or self._vendor.new_id("call")
            start = {"name": step.name, "arguments": ""}
            yield {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": start}]}
            for fragment in step.fragments:
                yield {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}

    def _chunk(self, delta: JSON | None, *, finish_reason: str | None = None, usage: JSON | None = None) -> bytes:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
        data: JSON = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": _NOW,
            "model": self._body["model"],
            "choices": choices,
            "usage": usage,
        }
        _CHUNK.validate_python(data)
        return f"data: {json.dumps(data)}\n\n".encode()


def _message_problems(body: JSON) -> list[str]:
    """Tool results answer the calls of the assistant message right before them, all of them."""
    problems: list[str] = []
    open_calls: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                problems.append("messages with role 'tool' must follow a message with 'tool_calls'")
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            problems.append(f"these tool_call_ids have no response messages: {sorted(open_calls)}")
        open_calls = {call["id"] for call in message.get("tool_calls", [])}
    if open_calls:
        problems.append(f"these tool_call_ids have no response messages: {sorted(open_calls)}")
    for tool in body.get("tools", []):
        problems += tool_problems(tool["function"]["name"], tool["function"]["parameters"], 64)
    return problems


def _refusal(failure: Failure) -> Response:
    error = {"message": failure.message, "type": failure.code, "code": failure.code, "param": failure.param}
    return JSONResponse({"error": error}, failure.status, headers=dict(failure.headers))


def _index(at: JSON) -> JSON:
    return {"output_index": at["output_index"]}


def _response_usage(usage: Usage) -> JSON:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _chat_usage(usage: Usage) -> JSON:
    return {
        "prompt_tokens": usage.input_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens": usage.output_tokens,
        "completion_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
