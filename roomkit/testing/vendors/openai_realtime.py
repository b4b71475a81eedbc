"""A fake OpenAI Realtime API: every client event is validated by the `openai` package's own types with unknown keys
refused, everything it says by the same types, and the documented state machine is kept.

    fake = FakeOpenAIRealtime()
    fake.script(Spoken("It is on its way.", ms=900))
    provider = OpenAIRealtime(api_key=fake.key, connect=fake.connect)
    sound = fake.lexicon.speech("where is my order", 24_000)
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import numpy as np

from roomkit.net.redial import Data
from roomkit.net.room_client import Disconnected
from roomkit.runtime import Scope, Wakeup
from roomkit.testing.vendors.lines import JSON, FakeSpeech, Lexicon, Line

RATE = 24_000
SILENCE_MS = 500
DELTA_MS = 100
MIN_COMMIT_MS = 100


@dataclass(frozen=True, slots=True)
class Spoken:
    """One reply: `text` spoken for `ms`, and tools asked for. `fails` ends it as failed with this code."""

    text: str = ""
    ms: int = 500
    calls: tuple[tuple[str, JSON], ...] = ()
    fails: str = ""
    value: int = 2_000
    """The samples of its sound."""


@dataclass(slots=True)
class Manners:
    """How the vendor behaves. `speed` is how much faster than sound it speaks; `twice` repeats every event; `late`
    sends two more pieces of a reply after it was cut; `transcript_s` is how late the caller's words come; `old_names`
    uses the names of the beta; `limit_s` ends a session as expired."""

    speed: float = 8.0
    twice: bool = False
    late: bool = False
    transcript_s: float = 0.3
    transcript_fails: bool = False
    old_names: bool = False
    limit_s: float | None = None
    rate_limits: bool = False


class FakeOpenAIRealtime(FakeSpeech):
    """See `FakeSpeech`. `script` says what comes next; without one it says "Yes." `heard` are final transcripts, `told`
    the texts injected (role, text), `results` the outputs of tools, `truncated` (item, ms), `sessions` the effective
    settings of every session, newest last; `seeds` what each session was seeded with."""

    def __init__(self, *, key: str = "fake-openai-key", azure: bool = False) -> None:
        super().__init__(key=key)
        self.azure = azure
        self.lexicon = Lexicon()
        self.manners = Manners()
        self.heard: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.results: list[tuple[str, str]] = []
        self.truncated: list[tuple[str, int]] = []
        self.sessions: list[JSON] = []
        self.seeds: list[list[tuple[str, str]]] = []
        self.lines: list[Line] = []
        self.replies = 0
        self._script: deque[Spoken] = deque()
        self.numbers = itertools.count(1)

    def script(self, *replies: Spoken) -> None:
        self._script.extend(replies)

    def next(self) -> Spoken:
        self.replies += 1
        return self._script.popleft() if self._script else Spoken("Yes.")

    def problems(self, path: str, query: JSON, headers: Mapping[str, str]) -> tuple[int, str] | None:
        given = headers.get("api-key") if self.azure else headers.get("authorization", "").removeprefix("Bearer ")
        if given != self.key:
            return 401, "Incorrect API key provided"
        if not path.endswith("/realtime"):
            return 404, "no such endpoint"
        if set(query) != {"model"} or "openai-beta" in headers:
            return 400, f"unknown parameters {sorted(query)}"
        return None

    async def serve(self, line: Line, path: str, query: JSON) -> None:
        self.lines.append(line)
        await _Session(self, line, query["model"][0]).run()

    def cut(self) -> None:
        """Breaks every connection."""
        for line in self.lines:
            try:
                line.cut()
            except Disconnected:
                pass
        self.lines.clear()


@dataclass(slots=True)
class _Reply:
    id: str
    item_id: str
    spoken: Spoken
    sent_ms: int = 0
    cancelled: str = ""
    items: list[JSON] = field(default_factory=lambda: [])


class _Session:
    """One connection's state machine."""

    def __init__(self, vendor: FakeOpenAIRealtime, line: Line, model: str) -> None:
        self.vendor = vendor
        self.line = line
        self.session: JSON = {
            "type": "realtime",
            "model": model,
            "output_modalities": ["audio"],
            "audio": {
                "input": {"format": {"type": "audio/pcm", "rate": RATE}, "turn_detection": {"type": "server_vad"}},
                "output": {"format": {"type": "audio/pcm", "rate": RATE}, "voice": "alloy"},
            },
            "tools": [],
        }
        self.items: dict[str, JSON] = {}
        self.spoken_ms: dict[str, int] = {}
        self.calls: dict[str, str] = {}
        """Calls without an output, and the response that asked for them."""
        self.asked = ""
        self.excused = False
        """Since the last calls were asked for, all of another reply were answered, or a text came or speech: worth
        a reply."""
        self.seed: list[tuple[str, str]] = []
        self.scope = Scope("fake session")
        self.reply: _Reply | None = None
        self.stopped = Wakeup()
        self.audible = False
        self.buffer = bytearray()
        self.words: list[int] = []
        self.silent_ms = 0
        self.speech_item = ""
        self.at_ms = 0
        self.talked = False
        self._sending = asyncio.Lock()

    def name(self, kind: str) -> str:
        return f"{kind}_{next(self.vendor.numbers)}"

    async def run(self) -> None:
        self.vendor.seeds.append(self.seed)
        self.vendor.sessions.append(self.session)
        try:
            await self.say("session.created", session=self.session)
            if self.vendor.manners.limit_s is not None:
                self.scope.spawn(self._expire(self.vendor.manners.limit_s), name="expire", awaited=True)
            while True:
                await self._take(await self.line.recv())
        finally:
            await self.scope.aclose()

    async def _expire(self, after: float) -> None:
        await asyncio.sleep(after)
        await self.refuse("session_expired", "Your session hit the maximum duration.")
        await self.line.close(1001, "expired")

    async def say(self, kind: str, **fields: Any) -> None:
        message = {"type": kind, "event_id": self.name("event"), **fields}
        _check_server(message)
        if self.vendor.manners.old_names:
            message["type"] = kind.replace("output_audio", "audio").replace("output_text", "text")
        async with self._sending:
            await self.line.answer(message)
            if self.vendor.manners.twice:
                await self.line.answer(message)

    async def refuse(
        self, code: str, message: str, about: str | None = None, kind: str = "invalid_request_error"
    ) -> None:
        await self.say(
            "error", error={"type": kind, "code": code, "message": message, "param": None, "event_id": about}
        )

    async def _take(self, data: Data) -> None:
        message: Any = json.loads(data)
        about = message.get("event_id")
        problem = _client_problem(message)
        if problem:
            self.vendor.wrong(problem)
            await self.refuse("unknown_parameter" if "unknown" in problem else "invalid_value", problem, about)
            return
        kind: str = message["type"]
        match kind:
            case "session.update":
                await self._update(message["session"], about)
            case "input_audio_buffer.append":
                await self._append(base64.b64decode(message["audio"], validate=True))
            case "input_audio_buffer.commit":
                await self._commit(about)
            case "input_audio_buffer.clear":
                self.buffer.clear()
                self.words.clear()
                await self.say("input_audio_buffer.cleared")
            case "conversation.item.create":
                await self._create_item(message["item"], about)
            case "conversation.item.truncate":
                await self._truncate(message, about)
            case "response.create":
                await self._respond(about)
            case "response.cancel":
                await self._cancel(message.get("response_id"), about)
            case _:
                self.vendor.wrong(f"{kind} is not played by this fake")

    async def _update(self, session: JSON, about: str | None) -> None:
        voice = session.get("audio", {}).get("output", {}).get("voice")
        if self.talked and voice is not None and voice != self.session["audio"]["output"]["voice"]:
            self.vendor.wrong("the voice changed after the model had spoken")
            await self.refuse("cannot_update_voice", "Cannot update a conversation's voice", about)
            return
        for name, value in session.items():
            if name == "audio":
                for side in ("input", "output"):
                    self.session["audio"][side] = {**self.session["audio"][side], **value.get(side, {})}
            else:
                self.session[name] = value
        await self.say("session.updated", session=self.session)

    # -- hearing ----------------------------------------------------------------------------------------

    @property
    def detection(self) -> JSON | None:
        return self.session["audio"]["input"].get("turn_detection")

    async def _append(self, pcm: bytes) -> None:
        if not pcm or len(pcm) % 2:
            self.vendor.wrong("audio that is empty or cuts a sample")
            return
        self.buffer += pcm
        ms = len(pcm) * 500 // RATE
        self.at_ms += ms
        values = [int(value) for value in np.frombuffer(pcm, "<i2")[:: RATE // 100]]
        spoken = [value for value in values if abs(value) > 0]
        for value in spoken:
            if 0 < value <= len(self.vendor.lexicon.words) and (not self.words or self.words[-1] != value):
                self.words.append(value)
        if self.detection is None:
            return
        if spoken:
            self.silent_ms = 0
            if not self.speech_item:
                await self._speech_started()
        elif self.speech_item:
            self.silent_ms += ms
            if self.silent_ms >= int(self.detection.get("silence_duration_ms") or SILENCE_MS):
                item, self.speech_item = self.speech_item, ""
                await self.say("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=self.at_ms)
                await self._committed(item)
                if self.detection.get("create_response", True):
                    await self._respond(None, forced=True)

    async def _speech_started(self) -> None:
        assert self.detection is not None, "there is a detector"
        self.speech_item = self.name("item")
        await self.say("input_audio_buffer.speech_started", item_id=self.speech_item, audio_start_ms=self.at_ms)
        if self.reply is not None and self.detection.get("interrupt_response", True):
            self._stop("turn_detected")

    async def _commit(self, about: str | None) -> None:
        if len(self.buffer) * 500 / RATE < MIN_COMMIT_MS:
            self.vendor.wrong("a commit of too little sound")
            await self.refuse("input_audio_buffer_commit_empty", "the buffer is too small", about)
            return
        await self._committed(self.name("item"))

    async def _committed(self, item_id: str) -> None:
        words = " ".join(self.vendor.lexicon.word(value) for value in self.words)
        self.words, self.buffer = [], bytearray()
        self.excused = True
        await self.say("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": item_id, "type": "message", "role": "user", "status": "completed", "content": content}
        await self._added(item)
        if self.session["audio"]["input"].get("transcription") is not None:
            self.scope.spawn(self._transcribe(item_id, words), name="transcribe")

    async def _transcribe(self, item_id: str, words: str) -> None:
        await asyncio.sleep(self.vendor.manners.transcript_s)
        base: JSON = {"item_id": item_id, "content_index": 0}
        prefix = "conversation.item.input_audio_transcription"
        try:
            if self.vendor.manners.transcript_fails:
                error = {"type": "transcription_error", "code": "audio_unintelligible", "message": "no words"}
                await self.say(f"{prefix}.failed", **base, error=error)
                return
            for number, word in enumerate(words.split()):
                await self.say(f"{prefix}.delta", **base, delta=word if number == 0 else f" {word}")
            self.vendor.heard.append(words)
            usage = {"type": "duration", "seconds": 1.0}
            await self.say(f"{prefix}.completed", **base, transcript=words, usage=usage)
        except Disconnected:
            pass

    # -- the conversation -------------------------------------------------------------------------------

    async def _added(self, item: JSON) -> None:
        self.items[item["id"]] = item
        await self.say("conversation.item.added", item=item, previous_item_id=None)
        await self.say("conversation.item.done", item=item, previous_item_id=None)

    async def _create_item(self, item: JSON, about: str | None) -> None:
        item = {"id": self.name("item"), "status": "completed", **item}
        if item["type"] == "function_call_output":
            if item["call_id"] not in self.calls:
                self.vendor.wrong(f"an output for the unknown call {item['call_id']}")
                await self.refuse("invalid_tool_call_id", "Tool call ID not found in conversation", about)
                return
            reply = self.calls.pop(item["call_id"])
            self.excused = self.excused or reply not in self.calls.values()
            self.vendor.results.append((item["call_id"], item["output"]))
        elif item["type"] == "message":
            self.excused = True
            kinds = {"assistant": "output_text"}
            for part in item["content"]:
                if part["type"] != kinds.get(item["role"], "input_text"):
                    self.vendor.wrong(f"a part {part['type']} in a message of {item['role']}")
            text = "".join(part.get("text") or "" for part in item["content"])
            (self.vendor.told if self.talked or self.replies else self.seed).append((item["role"], text))
        await self._added(item)

    @property
    def replies(self) -> bool:
        return self.reply is not None or self.talked or self.at_ms > 0

    async def _truncate(self, message: JSON, about: str | None) -> None:
        item_id, end = message["item_id"], message["audio_end_ms"]
        if item_id not in self.spoken_ms:
            self.vendor.wrong(f"a truncate of the unknown item {item_id}")
            await self.refuse("item_truncate_invalid_item_id", "no such item", about)
        elif end > self.spoken_ms[item_id]:
            self.vendor.wrong(f"a truncate at {end} ms of {self.spoken_ms[item_id]}")
            await self.refuse("invalid_value", "audio content is shorter than that", about)
        else:
            self.vendor.truncated.append((item_id, end))
            base = {"item_id": item_id, "content_index": message["content_index"]}
            await self.say("conversation.item.truncated", **base, audio_end_ms=end)

    # -- replies ----------------------------------------------------------------------------------------

    async def _respond(self, about: str | None, *, forced: bool = False) -> None:
        if self.reply is not None:
            if not forced:
                self.vendor.wrong("a response was asked for while one is under way")
            await self.refuse(
                "conversation_already_has_active_response", "Conversation already has an active response", about
            )
            return
        missing = sorted(call for call, reply in self.calls.items() if reply == self.asked)
        if missing and not forced and not self.excused:
            self.vendor.wrong(f"a response was asked for before the outputs of {missing}")
        self.reply = _Reply(self.name("resp"), self.name("item"), self.vendor.next())
        self.scope.spawn(self._speak(self.reply), name="reply")

    async def _cancel(self, response_id: str | None, about: str | None) -> None:
        if self.reply is None or response_id not in (None, self.reply.id):
            await self.refuse("response_cancel_not_active", "Cancellation failed: no active response found", about)
        else:
            self._stop("client_cancelled")

    def _stop(self, reason: str) -> None:
        if self.reply is not None:
            self.reply.cancelled = reason

    async def _speak(self, reply: _Reply) -> None:
        try:
            await self._speaking(reply)
        except Disconnected:
            pass

    async def _speaking(self, reply: _Reply) -> None:
        await self.say("response.created", response=self._response(reply, "in_progress"))
        spoken = reply.spoken
        where: JSON = {"response_id": reply.id, "output_index": 0}
        if spoken.text:
            await self._voice(reply, {**where, "item_id": reply.item_id, "content_index": 0})
        if not reply.cancelled and not spoken.fails:
            for number, (name, arguments) in enumerate(spoken.calls, 1):
                await self._ask(reply, name, arguments, {**where, "output_index": number})
        status = "cancelled" if reply.cancelled else "failed" if spoken.fails else "completed"
        self.reply = None
        if self.vendor.manners.rate_limits:
            limit = {"name": "tokens", "limit": 1000, "remaining": 900, "reset_seconds": 6.0}
            await self.say("rate_limits.updated", rate_limits=[limit])
        await self.say("response.done", response=self._response(reply, status))

    async def _voice(self, reply: _Reply, at: JSON) -> None:
        spoken = reply.spoken
        item: JSON = {
            "id": reply.item_id,
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        where = {"response_id": reply.id, "output_index": 0}
        await self.say("response.output_item.added", **where, item=item)
        await self.say("conversation.item.added", item=item, previous_item_id=None)
        self.items[reply.item_id] = item
        self.spoken_ms[reply.item_id] = 0
        await self.say("response.content_part.added", **at, part={"type": "audio", "transcript": ""})
        words = spoken.text.split(" ")
        steps = max(1, -(-spoken.ms // DELTA_MS))
        late = 2 if self.vendor.manners.late else 0
        for step in range(steps):
            if reply.cancelled:
                if not late:
                    break
                late -= 1
            first, last = step * len(words) // steps, (step + 1) * len(words) // steps
            for number in range(first, last):
                delta = words[number] if number == 0 else f" {words[number]}"
                await self.say("response.output_audio_transcript.delta", **at, delta=delta)
            ms = min(DELTA_MS, spoken.ms - step * DELTA_MS)
            pcm = spoken.value.to_bytes(2, "little", signed=True) * (RATE * ms // 1000)
            self.spoken_ms[reply.item_id] += ms
            self.talked = True
            await self.say("response.output_audio.delta", **at, delta=base64.b64encode(pcm).decode())
            await asyncio.sleep(DELTA_MS / 1000 / self.vendor.manners.speed)
        whole = not reply.cancelled
        await self.say("response.output_audio.done", **at)
        await self.say("response.output_audio_transcript.done", **at, transcript=spoken.text)
        part = {"type": "audio", "transcript": spoken.text}
        await self.say("response.content_part.done", **at, part=part)
        content = [{"type": "output_audio", "transcript": spoken.text}]
        done = {**item, "status": "completed" if whole else "incomplete", "content": content}
        reply.items.append(done)
        self.items[reply.item_id] = done
        await self.say("response.output_item.done", **where, item=done)

    async def _ask(self, reply: _Reply, name: str, arguments: JSON, at: JSON) -> None:
        item_id, call_id, raw = self.name("item"), self.name("call"), json.dumps(arguments)
        self.calls[call_id] = reply.id
        self.asked, self.excused = reply.id, False
        item = {"id": item_id, "type": "function_call", "call_id": call_id, "name": name, "arguments": raw}
        await self.say("response.output_item.added", **at, item={**item, "status": "in_progress", "arguments": ""})
        base = {**at, "item_id": item_id, "call_id": call_id}
        await self.say("response.function_call_arguments.delta", **base, delta=raw)
        await self.say("response.function_call_arguments.done", **base, name=name, arguments=raw)
        done = {**item, "status": "completed"}
        reply.items.append(done)
        await self.say("response.output_item.done", **at, item=done)

    def _response(self, reply: _Reply, status: str) -> JSON:
        details: JSON | None = None
        if status == "cancelled":
            details = {"type": "cancelled", "reason": reply.cancelled}
        elif status == "failed":
            error = {"type": "server_error", "code": reply.spoken.fails}
            details = {"type": "failed", "error": error}
        usage = {"total_tokens": 30, "input_tokens": 10, "output_tokens": 20} if status != "in_progress" else None
        return {
            "id": reply.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": reply.items if status != "in_progress" else [],
            "usage": usage,
        }


def _client_problem(message: JSON) -> str:
    """What is wrong with a client event by the vendor's own types; "" when nothing is."""
    from pydantic import ValidationError

    try:
        event = _types("RealtimeClientEvent").validate_python(message)
    except ValidationError as error:
        return f"{message.get('type')}: {error.errors(include_url=False)[0]}"
    if event.type != message.get("type"):
        return f"invalid type {message.get('type')!r}"
    extra = _extras(event)
    return f"unknown parameters of {event.type}: {extra}" if extra else ""


def _check_server(message: JSON) -> None:
    """The fake itself may not drift from the vendor's types."""
    event = _types("RealtimeServerEvent").validate_python(message)
    assert event.type == message["type"], f"{message['type']} is read as {event.type}"
    extra = _extras(event)
    assert not extra, f"{event.type} has keys that the vendor does not document: {extra}"


@lru_cache
def _types(name: str) -> Any:
    """Building a validator costs more than using it a thousand times."""
    from openai.types import realtime
    from pydantic import TypeAdapter

    return TypeAdapter(getattr(realtime, name))


def _extras(value: Any, path: str = "") -> list[str]:
    from pydantic import BaseModel

    found: list[str] = []
    if isinstance(value, BaseModel):
        found += [f"{path}{name}" for name in value.model_extra or {}]
        for name in type(value).model_fields:
            found += _extras(getattr(value, name, None), f"{path}{name}.")
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            found += _extras(item, path)
    return found
