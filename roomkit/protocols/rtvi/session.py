"""Session: one client of RTVI as a machine. It is told what the client sends and what the room says, and answers with
what to do and what to send. It waits for nothing."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any

from roomkit.protocols.rtvi.messages import (
    VERSION,
    AppendToContext,
    BadMessage,
    ClientMessage,
    ClientReady,
    Dtmf,
    FunctionResult,
    RawAudio,
    SendFile,
    SendText,
    message,
    parse,
    version_of,
)
from roomkit.protocols.rtvi.speech import Speech

_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+")


@dataclass(frozen=True, slots=True)
class Send:
    """To the client, as the text of one message."""

    text: str


@dataclass(frozen=True, slots=True)
class File:
    """A file of the person's: its bytes, or where it is."""

    mime: str
    name: str | None
    data: bytes | None = field(default=None, repr=False)
    url: str = ""


@dataclass(frozen=True, slots=True)
class Say:
    """The person has written. `now`: what is being said is interrupted; otherwise nobody is asked to answer yet.
    `aloud`: the answer may be spoken."""

    message_id: str
    text: str
    now: bool
    aloud: bool = True
    file: File | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A message of the app's own: answer it with `answer` or `refuse`, or not at all."""

    message_id: str
    kind: str
    data: Any


@dataclass(frozen=True, slots=True)
class Result:
    """The client has run a function."""

    call_id: str
    result: Any


@dataclass(frozen=True, slots=True)
class Pressed:
    buttons: str


@dataclass(frozen=True, slots=True)
class Sound:
    """The person speaks: 16-bit PCM."""

    message_id: str
    pcm: bytes = field(repr=False)
    rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class Shown:
    """What the client's page shows, or what was done there: "ui-event", "ui-snapshot" or "ui-cancel-job-group"."""

    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Leave:
    """The client wants the conversation to end."""


Act = Send | Say | Asked | Result | Pressed | Sound | Shown | Leave


class Session:
    """One connection. Replies to 1.x clients have the older shapes; others get the newest that all 2.x clients take."""

    def __init__(self, *, capabilities: dict[str, bool] | None = None) -> None:
        self.ready = False
        self.version: tuple[int, int, int] = (2, 0, 0)
        self._capabilities = capabilities or {"audio_in": False, "audio_out": False, "metrics": False}
        self._texts: dict[str, str] = {}
        self._held: list[tuple[str, str]] = []
        self._unspoken: set[str] = set()
        self._functions: set[str] = set()
        self._told: list[Act] = []
        self.speech = Speech(self._emit)

    def _emit(self, kind: str, data: Any = None) -> None:
        if self.ready:
            self._told.append(Send(message(kind, data)))

    def spoken(self) -> list[Act]:
        """What `speech` has had to say since the last time."""
        told, self._told = self._told, []
        return told

    @property
    def old(self) -> bool:
        return self.version[0] == 1

    # -- the client -----------------------------------------------------------------------------------------------

    def hear(self, text: str) -> list[Act]:
        try:
            found = parse(text)
        except BadMessage as error:
            told = Send(message("error", {"error": str(error), "fatal": False}))
            return [self.refuse(error.id, str(error)) if error.id else told]
        if found is None:
            return []
        kind, message_id, data = found
        if kind == "client-ready":
            return self._begin(message_id, data)
        if not self.ready:
            return []  # Too early is nobody's fault, and nothing to be told of.
        return self._take(kind, message_id, data)

    def _begin(self, message_id: str, data: ClientReady) -> list[Act]:
        if self.ready:
            return []
        acts: list[Act] = []
        found = version_of(data.version)
        if found is None or found[0] not in (1, 2):
            told = f"version {data.version[:20] or 'unknown'} is not one of 1.x and 2.x; it may work in part"
            acts.append(self.refuse(message_id, told))
        else:
            self.version = self.speech.version = found
        self.ready = True
        ready: dict[str, Any] = {"version": data.version if self.old else VERSION, "about": {"library": "roomkit"}}
        if not self.old:
            ready["capabilities"] = self._capabilities
        return [*acts, Send(message("bot-ready", ready, message_id=message_id))]

    def _take(self, kind: str, message_id: str, data: Any) -> list[Act]:
        match data:
            case ClientMessage():
                return [Asked(message_id, data.t, data.d)]
            case SendText():
                return self._said(message_id, data.content, data.options.run_immediately, data.options.audio_response)
            case SendFile():
                return self._sent(message_id, data)
            case RawAudio():
                return self._sounded(message_id, data)
            case AppendToContext() if data.role == "user":
                text = data.content if isinstance(data.content, str) else json.dumps(data.content)
                return self._said(message_id, text, data.run_immediately)
            case AppendToContext():
                return [self.refuse(message_id, "only words of the user are taken from a client")]
            case Dtmf():
                return [Pressed(data.pressed)] if data.pressed else []
            case FunctionResult():
                if data.tool_call_id not in self._functions:
                    return []
                self._functions.discard(data.tool_call_id)
                return [Result(data.tool_call_id, data.result)]
            case _:
                return self._others(kind, message_id, data)

    def _others(self, kind: str, message_id: str, data: Any) -> list[Act]:
        if kind == "disconnect-bot":
            return [Leave()]
        if kind in ("ui-event", "ui-snapshot", "ui-cancel-job-group"):
            return [Shown(kind, data.model_dump())]
        if not self.old:
            return [self.refuse(message_id, f"Unsupported type {kind}")]
        # Configuration and actions went with 1.0: older clients hear that there are none.
        empty: dict[str, tuple[str, dict[str, list[Any]]]] = {
            "describe-config": ("config-available", {"config": []}),
            "get-config": ("config", {"config": []}),
            "update-config": ("config", {"config": []}),
            "describe-actions": ("actions-available", {"actions": []}),
        }
        if kind in empty:
            name, body = empty[kind]
            return [Send(message(name, body, message_id=message_id))]
        return [self.refuse(message_id, "there are no actions; send a client-message")]

    def _said(self, message_id: str, text: str, now: bool, aloud: bool = True) -> list[Act]:
        if not text.strip():
            return [self.refuse(message_id, "Invalid message: the text is empty")]
        return [Say(message_id, text, now, aloud)]

    def _sent(self, message_id: str, sent: SendFile) -> list[Act]:
        source, options = sent.file.source, sent.options
        try:
            data = b64decode(source.bytes, validate=True) if source.type == "bytes" else None
        except ValueError:
            data = b""
        if not data and not source.url.startswith("https://"):
            return [self.refuse(message_id, "Invalid message: a file is base64, or an https URL")]
        file = File(sent.file.format, sent.file.name, data, source.url if data is None else "")
        return [Say(message_id, sent.content, options.run_immediately, options.audio_response, file)]

    def _sounded(self, message_id: str, data: RawAudio) -> list[Act]:
        try:
            return [Sound(message_id, data.pcm, data.sampleRate, data.numChannels)]
        except ValueError:
            return [self.refuse(message_id, "Invalid message: the sound is not base64")]

    # -- answers ----------------------------------------------------------------------------------------------------

    def answer(self, asked: Asked, data: Any) -> Send:
        return Send(message("server-response", {"t": asked.kind, "d": data}, message_id=asked.message_id))

    def refuse(self, message_id: str, why: str) -> Send:
        return Send(message("error-response", {"error": why}, message_id=message_id))

    def failed(self, why: str, *, fatal: bool = False) -> Send:
        return Send(message("error", {"error": why, "fatal": fatal}))

    def push(self, data: Any) -> list[Act]:
        """Anything of the app's own to the client."""
        return [Send(message("server-message", data))] if self.ready else []

    # -- the room ---------------------------------------------------------------------------------------------------

    def heard(self, text: str, user_id: str, timestamp: str, message_id: str) -> list[Act]:
        """The room has taken what the person said."""
        if not self.ready:
            return []
        acts: list[Act] = [Send(message("user-llm-text", {"text": text}))]
        if self.version >= (2, 2, 0):
            said = {"text": text, "input_type": "chat", "timestamp": timestamp, "final": True, "user_id": user_id}
            acts.append(Send(message("user-input", {**said, "msg_id": message_id})))
        return acts

    def starts(self, stream_id: str, *, aloud: bool = True) -> list[Act]:
        """Of several replies at once the first is told while it grows, the others whole when it has ended. `aloud`:
        where there is a call, it is spoken."""
        if not aloud:
            self._unspoken.add(stream_id)
        if not self.ready or self._texts:
            return []
        self._texts[stream_id] = ""
        self.speech.replying = True
        return [Send(message("bot-llm-started"))]

    def grows(self, stream_id: str, delta: str) -> list[Act]:
        """A part of the reply that is being told."""
        if not self.ready or stream_id not in self._texts or not delta:
            return []
        before = self._texts[stream_id]
        self._texts[stream_id] = text = before + delta
        done = [cut.end() for cut in _SENTENCE.finditer(text)]
        start = max((cut.end() for cut in _SENTENCE.finditer(before)), default=0)
        acts: list[Act] = [Send(message("bot-llm-text", {"text": delta}))]
        for end in done:
            if end > start:
                acts += self._output(stream_id, text[start:end].strip())
                start = end
        return acts

    def said(self, event_id: str, text: str, *, aloud: bool = True) -> list[Act]:
        """A whole message of somebody else's, the end of a growing one too."""
        if not self.ready:
            return []
        if not aloud:
            self._unspoken.add(event_id)
        told = self._texts.pop(event_id, None)
        if told is None and self._texts:
            self._held.append((event_id, text))  # A reply is being told: this one comes after it.
            return []
        if told is None:
            return self._whole(event_id, text)
        acts: list[Act] = []
        if text.startswith(told):
            if len(text) > len(told):
                acts.append(Send(message("bot-llm-text", {"text": text[len(told) :]})))
            start = max((cut.end() for cut in _SENTENCE.finditer(told)), default=0)
            acts += self._output(event_id, text[start:].strip())
            acts.append(Send(message("bot-llm-stopped")))
        else:  # What is stored is not what was told: it is said anew, and nothing of the other again.
            acts += [Send(message("bot-llm-stopped")), *self._whole(event_id, text)]
        self._unspoken.discard(event_id)
        return [*acts, *self._let_go()]

    def _let_go(self) -> list[Act]:
        held, self._held = self._held, []
        return [act for event_id, text in held for act in self._whole(event_id, text)]

    def _whole(self, event_id: str, text: str) -> list[Act]:
        acts: list[Act] = [Send(message("bot-llm-started")), Send(message("bot-llm-text", {"text": text}))]
        for sentence in filter(None, map(str.strip, _SENTENCE.split(text))):
            acts += self._output(event_id, sentence)
        self._unspoken.discard(event_id)
        return [*acts, Send(message("bot-llm-stopped"))]

    def withdrawn(self, stream_id: str) -> list[Act]:
        """The reply has come to nothing."""
        self._unspoken.discard(stream_id)
        if self._texts.pop(stream_id, None) is None or not self.ready:
            return []
        return [Send(message("bot-llm-stopped")), *self._let_go()]

    def interrupted(self) -> list[Act]:
        self.speech.replying = True
        self.speech.interrupted()
        return self.spoken()

    def function(self, call_id: str, name: str, arguments: dict[str, Any]) -> list[Act]:
        """The client is to run a function: it is told its name and arguments, which it needs."""
        self._functions.add(call_id)
        if self.old:
            body = {"function_name": name, "tool_call_id": call_id, "args": arguments}
            return [Send(message("llm-function-call", body))]
        body = {"tool_call_id": call_id, "function_name": name, "arguments": arguments}
        started = Send(message("llm-function-call-started", {"function_name": name}))
        return [started, Send(message("llm-function-call-in-progress", body))]

    def function_over(self, call_id: str, name: str, *, cancelled: bool) -> list[Act]:
        self._functions.discard(call_id)
        if self.old or not self.ready:
            return []
        body = {"tool_call_id": call_id, "cancelled": cancelled, "function_name": name}
        return [Send(message("llm-function-call-stopped", body))]

    def _output(self, event_id: str, sentence: str) -> list[Act]:
        if not sentence:
            return []
        if self.old:
            output: dict[str, Any] = {"text": sentence, "spoken": False, "aggregated_by": "sentence"}
            return [Send(message("bot-transcription", {"text": sentence})), Send(message("bot-output", output))]
        if self.speech.live and event_id not in self._unspoken:
            return []  # It is told as it is heard.
        names = dict.fromkeys(("output_type", "text_type", "aggregated_by"), "sentence")
        output = {"text": sentence, **names, "will_be_spoken": False, "spoken_status": "new"}
        return [Send(message("bot-output", output))]
