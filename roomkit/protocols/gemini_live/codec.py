"""GeminiLiveCodec: one session's state machine. JSON objects in, events out, JSON objects to be sent.

The vendor has no names for what is said, so names are made here; it tells the caller's words in pieces that may come at
any time, so they are taken for whole when the model begins to answer; and a text would cut the model short, so it waits
until the turn is over.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from roomkit.errors import RemoteProtocolError
from roomkit.models import realtime as rt
from roomkit.models.ai import ToolCallPart, ToolSpec, Usage
from roomkit.models.audio import AudioFrame
from roomkit.models.realtime import PastTurn, RealtimeCommand, RealtimeConfig, RealtimeEvent

JSON = dict[str, Any]
INPUT_RATE = 16_000
OUTPUT_RATE = 24_000
_RATE = re.compile(r"rate=(\d+)")
_SESSIONS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class WireTools:
    """The tools of a session as the vendor takes them; `ours` and `wire` turn names into each other."""

    listed: Sequence[JSON]
    ours: Callable[[str], str]
    wire: Callable[[str], str]


class GeminiLiveCodec:
    """One session. `receive` takes a server message, `send` a command; both may leave messages in `to_send`.

    Of `config.extra` these are understood: `setup`, laid over the setup message, and `generation_config`."""

    def __init__(
        self,
        config: RealtimeConfig,
        *,
        model: str,
        tools: Callable[[Sequence[ToolSpec]], WireTools],
        resume: str | None = None,
    ) -> None:
        self._config = config
        self._tools = tools(config.tools)
        self._resume = resume
        self._prefix = f"g{next(_SESSIONS)}"
        self._numbers = itertools.count(1)
        self._out: list[JSON] = [{"setup": self._setup(model)}]
        self._ready = False
        self._reply = ""
        self._item = ""
        self._cut = False
        self._deaf = False
        """The vendor was told to stop, or has stopped by itself: nothing counts until its turn is over."""
        self._speech = ""
        self._words = ""
        self._position = 0
        self._asked: dict[str, str] = {}
        self._answers: list[JSON] = []
        self._batch: list[str] = []
        """Calls since the last answers: these go in the order of the calls."""
        self._loud = False
        self._waiting: list[JSON] = []
        self._usage = Usage()
        self._expecting = False

    # -- what the adapter asks ------------------------------------------------------------------------

    @property
    def owes(self) -> bool:
        """The vendor has something to tell."""
        return not self._ready or self._expecting or (bool(self._reply) and not self._asked)

    def to_send(self) -> list[str]:
        out, self._out = self._out, []
        return [json.dumps(message, ensure_ascii=False, separators=(",", ":")) for message in out]

    def _setup(self, model: str) -> JSON:
        config = self._config
        generation: JSON = {"responseModalities": ["AUDIO"]}
        if config.temperature is not None:
            generation["temperature"] = config.temperature
        speech: JSON = {}
        if config.voice is not None:
            speech["voiceConfig"] = {"prebuiltVoiceConfig": {"voiceName": config.voice}}
        if config.language is not None:
            speech["languageCode"] = config.language
        if speech:
            generation["speechConfig"] = speech
        hearing: JSON = {}
        if config.own_vad:
            hearing["automaticActivityDetection"] = {"disabled": True}
        if not config.interruptible:
            hearing["activityHandling"] = "NO_INTERRUPTION"
        setup: JSON = {
            "model": model if "/" in model else f"models/{model}",
            "generationConfig": {**generation, **config.extra.get("generation_config", {})},
            "inputAudioTranscription": {},
            "outputAudioTranscription": {},
            "sessionResumption": {"handle": self._resume} if self._resume else {},
            "contextWindowCompression": {"slidingWindow": {}},
        }
        if config.system_prompt is not None:
            setup["systemInstruction"] = {"parts": [{"text": config.system_prompt}]}
        if self._tools.listed:
            setup["tools"] = [{"functionDeclarations": list(self._tools.listed)}]
        if hearing:
            setup["realtimeInputConfig"] = hearing
        return {**setup, **config.extra.get("setup", {})}

    # -- commands -------------------------------------------------------------------------------------

    def send(self, command: RealtimeCommand) -> None:
        match command:
            case rt.AppendAudio(pcm=pcm):
                data = base64.b64encode(pcm).decode()
                self._hear(audio={"data": data, "mimeType": f"audio/pcm;rate={INPUT_RATE}"})
            case rt.UserSpeech(speaking=speaking):
                self._hear(**({"activityStart": {}} if speaking else {"activityEnd": {}}))
            case rt.InjectText(text=text, role=role, respond=respond):
                self._tell({"turns": [_content(PastTurn(role, text))], "turnComplete": respond})
            case rt.Respond():
                self._tell({"turnComplete": True})
            case rt.ToolAnswer():
                self._answer(command)
            case rt.CutReply():
                self._cut = bool(self._reply)
                self._next()
            case rt.ForgetInput() if not self._config.own_vad:
                self._hear(audioStreamEnd=True)
            case _:
                pass  # there is no word for it

    def _hear(self, **what: Any) -> None:
        self._out.append({"realtimeInput": what})

    def _tell(self, content: JSON) -> None:
        self._waiting.append(content)
        self._next()

    def _next(self) -> None:
        """A text cuts the model short: it waits for the end of the turn, unless that is cut already."""
        if not self._ready or self._asked or (self._reply and not self._cut) or self._expecting:
            return
        while self._waiting:
            content = self._waiting.pop(0)
            self._out.append({"clientContent": content})
            if content["turnComplete"]:
                self._expecting = True
                self._deaf = self._cut
                return

    def _answer(self, answer: rt.ToolAnswer) -> None:
        name = self._asked.pop(answer.call_id, None)
        if name is None:
            return
        response: JSON = {"error" if answer.is_error else "output": answer.output}
        self._answers.append({"id": answer.call_id, "name": name, "response": response})
        self._loud = self._loud or not answer.silent
        self._flush_answers()

    def _flush_answers(self) -> None:
        if self._asked or not self._answers:
            return
        order = {call_id: number for number, call_id in enumerate(self._batch)}
        answers = sorted(self._answers, key=lambda answer: order.get(answer["id"], 0))
        self._answers, self._batch = [], []
        if not self._loud:
            answers = [{**answer, "scheduling": "SILENT"} for answer in answers]
        self._expecting = self._expecting or self._loud
        self._loud = False
        self._out.append({"toolResponse": {"functionResponses": answers}})

    # -- server messages ------------------------------------------------------------------------------

    def receive(self, data: str | bytes) -> list[RealtimeEvent]:
        """Raises `RemoteProtocolError` for what is no message."""
        message = _read(data)
        events: list[RealtimeEvent] = []
        try:
            if (usage := _of(message, "usageMetadata")) is not None:
                self._usage = _usage(usage)
            if "setupComplete" in message or "setup_complete" in message:
                events += self._set_up()
            if (content := _of(message, "serverContent")) is not None:
                events += self._content(content)
            if (call := _of(message, "toolCall")) is not None:
                events += self._tool_call(call)
            if (cancelled := _of(message, "toolCallCancellation")) is not None:
                events += self._cancelled(tuple(str(each) for each in cancelled.get("ids") or ()))
            if (update := _of(message, "sessionResumptionUpdate")) is not None:
                handle = update.get("newHandle") or update.get("new_handle")
                events.append(rt.ResumeHandle(str(handle) if handle and update.get("resumable") else None))
            if (leaving := _of(message, "goAway")) is not None:
                left = str(leaving.get("timeLeft") or leaving.get("time_left") or "0s")
                events.append(rt.GoingAway(float(left.removesuffix("s"))))
            if (activity := _of(message, "voiceActivity")) is not None:
                events += self._activity(str(activity.get("voiceActivityType") or activity.get("type") or ""))
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            told = f"a message is not what the vendor documents ({error!r})"
            raise RemoteProtocolError(told, offending=data[:200]) from error
        return events

    def _set_up(self) -> list[RealtimeEvent]:
        if self._ready:
            return []
        self._ready = True
        history = [_content(turn) for turn in self._config.history]
        if history and not self._resume:
            self._out.append({"clientContent": {"turns": history, "turnComplete": False}})
        return [rt.SessionReady(self._prefix, resumed=self._resume is not None)]

    def _content(self, content: JSON) -> list[RealtimeEvent]:
        events: list[RealtimeEvent] = []
        heard = _of(content, "inputTranscription")
        if heard is not None:
            events += self._heard(str(heard.get("text") or ""), bool(heard.get("finished")))
        spoken = _of(content, "outputTranscription")
        turn = _of(content, "modelTurn")
        if (spoken is not None or turn is not None) and not self._deaf:
            events += self._begin()
            for part in cast("list[JSON]", (turn or {}).get("parts") or []):
                events += self._part(part)
            if spoken is not None and spoken.get("text"):
                events.append(rt.ReplyText(self._reply, self._item, str(spoken["text"])))
        if content.get("interrupted"):
            events.append(rt.Interrupted())
            events += self._end("cancelled")
            self._deaf = True
        if content.get("turnComplete") or content.get("turn_complete"):
            events += self._turn_over()
        return events

    def _heard(self, text: str, finished: bool) -> list[RealtimeEvent]:
        if not text and not finished:
            return []
        self._words += text
        if finished or self._asked:  # the model waits: nothing else would tell that they are whole
            return self._said()
        return [rt.UserText(self._name_speech(), self._words.strip(), final=False)]

    def _name_speech(self) -> str:
        self._speech = self._speech or self._name("user")
        return self._speech

    def _said(self) -> list[RealtimeEvent]:
        """What the caller has said is whole."""
        words, self._words = self._words.strip(), ""
        name, self._speech = self._speech, ""
        if not words:
            return [rt.UserTextFailed(name, "no words")] if name else []
        return [rt.UserText(name or self._name("user"), words)]

    def _begin(self) -> list[RealtimeEvent]:
        events: list[RealtimeEvent] = []
        self._expecting = False
        if not self._reply:  # a tail that comes when the model speaks already is whole at the end of the turn
            events += self._said() if self._words or self._speech else []
            self._reply, self._item = self._name("reply"), self._name("item")
            self._position, self._cut = 0, False
            events.append(rt.ReplyBegan(self._reply))
        return events

    def _part(self, part: JSON) -> list[RealtimeEvent]:
        blob = _of(part, "inlineData")
        if blob is None or part.get("thought"):
            return []
        found = _RATE.search(str(blob.get("mimeType") or blob.get("mime_type") or ""))
        pcm = base64.b64decode(blob["data"], validate=True)
        frame = AudioFrame(pcm, int(found[1]) if found else OUTPUT_RATE, self._position)
        self._position = frame.end
        return [rt.ReplyAudio(self._reply, self._item, frame)]

    def _end(self, status: str) -> list[RealtimeEvent]:
        if not self._reply:
            return []
        reply, item = self._reply, self._item
        self._reply = self._item = ""
        usage, self._usage = self._usage, Usage()
        said = [rt.ReplySaid(reply, item)] if self._position else []
        return [*said, rt.ReplyOver(reply, cast("Any", status), "", usage)]

    def _turn_over(self) -> list[RealtimeEvent]:
        events = self._said() if self._words and not self._deaf else []  # who interrupts goes on speaking
        if not self._deaf:
            self._expecting = False
            events += self._end("cancelled" if self._cut else "completed")
        elif self._reply:
            events += self._end("cancelled")
        self._deaf = self._cut = False
        self._next()
        return events

    def _tool_call(self, call: JSON) -> list[RealtimeEvent]:
        if self._deaf:
            return []  # of a turn that is over: its side effects are not wanted
        events = [*(self._said() if self._words else []), *self._begin()]
        for told in cast("list[JSON]", call.get("functionCalls") or call.get("function_calls") or []):
            call_id, name = str(told.get("id") or self._name("call")), str(told["name"])
            self._asked[call_id] = name
            self._batch.append(call_id)
            arguments: Any = told.get("args") or {}
            ours = self._tools.ours(name)
            events.append(rt.ToolAsked(self._reply, ToolCallPart(call_id=call_id, name=ours, arguments=arguments)))
        return events

    def _cancelled(self, ids: tuple[str, ...]) -> list[RealtimeEvent]:
        for call_id in ids:
            self._asked.pop(call_id, None)
        self._answers = [answer for answer in self._answers if answer["id"] not in ids]
        self._flush_answers()
        return [rt.ToolsCancelled(ids)]

    def _activity(self, kind: str) -> list[RealtimeEvent]:
        match kind:
            case "ACTIVITY_START":
                return [rt.SpeechBegan(self._name_speech())]
            case "ACTIVITY_END":
                return [rt.SpeechStopped(self._speech)]
            case _:
                return []

    def _name(self, kind: str) -> str:
        return f"{self._prefix}-{kind}-{next(self._numbers)}"


def _content(turn: PastTurn) -> JSON:
    """The vendor knows two roles: what guides the model is told as such by the user."""
    if turn.role == "assistant":
        return {"role": "model", "parts": [{"text": turn.text}]}
    text = f"(Instruction, not from the caller: {turn.text})" if turn.role == "system" else turn.text
    return {"role": "user", "parts": [{"text": text}]}


def _usage(told: JSON) -> Usage:
    def count(name: str) -> int:
        return int(told.get(name) or 0)

    return Usage(
        count("promptTokenCount"),
        count("responseTokenCount"),
        count("cachedContentTokenCount"),
        thinking_tokens=count("thoughtsTokenCount"),
    )


def _of(message: JSON, name: str) -> JSON | None:
    """A member by its name, or the same name with underscores: the vendor mixes them."""
    value: Any = message.get(name)
    if value is None:
        value = message.get(re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name))
    return cast("JSON", value) if isinstance(value, dict) else None


def _read(data: str | bytes) -> JSON:
    try:
        message: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("a server message is no JSON", offending=data[:200]) from error
    if not isinstance(message, dict):
        raise RemoteProtocolError("a server message is an object", offending=data[:200])
    return cast("JSON", message)
