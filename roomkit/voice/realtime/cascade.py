"""CascadeRealtime: a recogniser, a language model and a synthesiser behind the port of a speech-to-speech model.

It answers later than a model that hears by itself, and needs none: with the parts of the house everything about
speech-to-speech can be tried without a key.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from roomkit.dsp.framing import Reblock
from roomkit.errors import ProviderError, Unavailable
from roomkit.models import realtime as rt
from roomkit.models.ai import (
    AIMessage,
    AIRequest,
    Finished,
    Part,
    TextChunk,
    TextPart,
    ToolCallChunk,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from roomkit.models.audio import FRAME_MS, AudioFrame, SpeechEnded, SpeechStarted, Transcript
from roomkit.models.realtime import RealtimeCommand, RealtimeConfig, RealtimeEvent
from roomkit.ports.ai import AIProvider
from roomkit.ports.audio import AudioStage
from roomkit.ports.realtime import RealtimeTraits
from roomkit.ports.speech import STT, TTS
from roomkit.runtime import BlockingBuffer, BufferClosed, CoalescingBuffer, Scope
from roomkit.voice.ear import Ear, Segment
from roomkit.voice.speaker import Speaker

VadChoice = str | Callable[[int], AudioStage]
_MOST_EVENTS = 20_000
_MOST_TURNS = 200
_ANY = frozenset({"system_prompt", "voice", "tools", "temperature", "responds", "extra", "language"})


class CascadeRealtime:
    """A `RealtimeVoiceProvider`. `vad` is the name of a detector or makes one for a rate. The parts stay their owner's
    unless `owns`."""

    name = "cascade"
    traits = RealtimeTraits(reconfigures=_ANY)

    def __init__(self, stt: STT, brain: AIProvider, tts: TTS, *, vad: VadChoice = "silero", owns: bool = False) -> None:
        self._parts = (stt, brain, tts)
        self._vad = vad
        self._owns = owns
        self._sessions: set[CascadeSession] = set()

    async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> CascadeSession:
        for part in self._parts:
            begin = getattr(part, "start", None)
            if begin is not None:
                await begin()
        session = CascadeSession(config, *self._parts, vad=None if config.own_vad else self._detector(config))
        self._sessions.add(session)
        session.closing = self._sessions.discard
        return session

    def _detector(self, config: RealtimeConfig) -> AudioStage:
        if isinstance(self._vad, str):
            from roomkit.voice.stages import named

            return named("vad", self._vad, config.input_rate)
        return self._vad(config.input_rate)

    async def aclose(self) -> None:
        for session in tuple(self._sessions):
            await session.aclose()
        if self._owns:
            for part in self._parts:
                await part.aclose()


class CascadeSession:
    """One conversation; a `RealtimeConnection`."""

    _numbers = itertools.count(1)

    def __init__(self, config: RealtimeConfig, stt: STT, brain: AIProvider, tts: TTS, *, vad: AudioStage | None):
        self._config = config
        self._brain = brain
        self._tts = tts
        self._vad = vad
        self._events: BlockingBuffer[RealtimeEvent] = BlockingBuffer(_MOST_EVENTS)
        self._scope = Scope("cascade")
        self._ear = Ear(stt, config.input_rate, self._scope, continuous=False, failed=self._deaf)
        self._blocks = Reblock(config.input_rate * FRAME_MS // 1000 * 2)
        self._heard = 0
        self._segment: Segment | None = None
        self._item = ""
        self._turns: list[AIMessage] = [_message(turn.role, turn.text) for turn in config.history]
        self._open: dict[str, ToolCallPart] = {}
        self._owed = False
        self._reply: Any = None
        self._speaker: Speaker | None = None
        self._saying = ""
        self._stopped = False
        self._over = False
        self.closing: Callable[[CascadeSession], object] = _nobody
        self._emit(rt.SessionReady(f"cascade-{next(self._numbers)}"))

    # -- RealtimeConnection ---------------------------------------------------------------------------

    async def send(self, command: RealtimeCommand) -> None:
        if self._over:
            raise Unavailable("cascade", "the session is closed")
        match command:
            case rt.AppendAudio(pcm=pcm):
                self._listen(pcm)
            case rt.UserSpeech(speaking=speaking):
                self._begin(b"") if speaking else self._end()
            case rt.InjectText(text=text, role=role, respond=respond):
                self._remember(_message(role, text))
                if respond:
                    self._respond()
            case rt.ToolAnswer():
                self._answered(command)
            case rt.CutReply(item_id=item_id, played_ms=played_ms):
                self._cut(item_id, played_ms)
            case rt.Respond():
                self._respond()
            case rt.ForgetInput():
                self._forget()
            case rt.Reconfigure(config=config):
                self._config = replace(config, history=())

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        while True:
            try:
                yield await self._events.get()
            except BufferClosed:
                return

    async def aclose(self) -> None:
        if not self._over:
            self._over = True
            self._events.clear()
            self._events.close()
            self.closing(self)
            await self._scope.aclose()

    # -- hearing --------------------------------------------------------------------------------------

    def _listen(self, pcm: bytes) -> None:
        for block in self._blocks.push(pcm):
            frame = AudioFrame(block, self._config.input_rate, self._heard)
            self._heard += frame.samples
            if self._vad is None:
                self._hear(block)
                continue
            current, signals = self._vad.process(frame)
            for signal in signals:
                if isinstance(signal, SpeechStarted):
                    self._begin(signal.pre_roll)
                elif isinstance(signal, SpeechEnded):
                    self._end()
            if current is not None:
                self._hear(current.pcm)

    def _hear(self, pcm: bytes) -> None:
        if self._segment is not None:
            self._segment.push(pcm)

    def _begin(self, pre_roll: bytes) -> None:
        if self._segment is not None:
            return
        item = self._item = f"item-{next(self._numbers)}"
        self._emit(rt.SpeechBegan(item))
        if self._config.interruptible and self._reply is not None:
            self._stop()

        def partly(transcript: Transcript) -> None:
            self._emit(rt.UserText(item, transcript.text, final=False))

        def wholly(transcript: Transcript) -> None:
            self._words(item, transcript.text.strip())

        self._segment = self._ear.begin(language=self._config.language, told=partly, done=wholly)
        self._segment.push(pre_roll)

    def _end(self) -> None:
        if self._segment is not None:
            self._segment.end()
            self._segment = None
            self._emit(rt.SpeechStopped(self._item))

    def _forget(self) -> None:
        self._end()
        self._blocks.reset()
        if self._vad is not None:
            self._vad.reset()

    def _words(self, item: str, text: str) -> None:
        if self._over:
            return
        self._emit(rt.UserText(item, text))
        if text:
            self._remember(_message("user", text))
            if self._config.responds:
                self._respond()

    def _deaf(self, error: Exception) -> None:
        if isinstance(error, ProviderError):
            self._emit(rt.UserTextFailed(self._item, str(error)), rt.Complaint(error))

    # -- answering ------------------------------------------------------------------------------------

    def _respond(self) -> None:
        if self._open or self._reply is not None:
            self._owed = True
        elif not self._over:
            self._owed = False
            self._reply = self._scope.spawn(self._answer(), name="answer")

    async def _answer(self) -> None:
        number = next(self._numbers)
        reply, item = f"reply-{number}", f"said-{number}"
        self._emit(rt.ReplyBegan(reply))
        calls: list[ToolCallPart] = []
        usage = Usage()
        status, reason = "completed", ""
        text: CoalescingBuffer[str] = CoalescingBuffer(1_000_000, merge=_joined, size=len)
        speaker = self._speaker = self._voice(reply, item)
        self._saying, self._stopped = item, False
        said: list[str] = []
        try:
            async with Scope("say") as scope:
                speaking = scope.spawn(speaker.speak(_deltas(text)), name="say", awaited=True)
                async with aclosing(cast("Any", self._brain.stream(self._request()))) as events:
                    async for event in events:
                        match event:
                            case TextChunk(text=delta):
                                said.append(delta)
                                text.offer(delta)
                                self._emit(rt.ReplyText(reply, item, delta))
                            case ToolCallChunk(call=call):
                                calls.append(call if call.call_id else self._named(call))
                            case Finished(usage=usage):
                                pass
                            case _:
                                pass
                text.close()
                await speaking
        except ProviderError as error:
            status, reason = "failed", str(error)
            calls = []
            self._emit(rt.Complaint(error))
        whole = "".join(said)
        self._reply = None
        self._said(whole, calls)
        if whole:
            self._emit(rt.ReplySaid(reply, item, whole))
        self._open = {call.call_id: call for call in calls}
        self._emit(*(rt.ToolAsked(reply, call) for call in calls))
        self._emit(rt.ReplyOver(reply, cast("Any", status), reason, usage))
        if self._owed:
            self._respond()

    def _named(self, call: ToolCallPart) -> ToolCallPart:
        return call.model_copy(update={"call_id": f"call-{next(self._numbers)}"})

    def _request(self) -> AIRequest:
        config = self._config
        return AIRequest(
            messages=tuple(self._turns), system=config.system_prompt, tools=config.tools, temperature=config.temperature
        )

    def _voice(self, reply: str, item: str) -> Speaker:
        async def put(frame: AudioFrame) -> None:
            self._emit(rt.ReplyAudio(reply, item, frame))

        config = self._config
        return Speaker(self._tts, config.output_rate, put, voice=config.voice, language=config.language)

    def _said(self, text: str, calls: list[ToolCallPart]) -> None:
        parts: list[Part] = [TextPart(text=text)] if text else []
        if parts or calls:
            self._remember(AIMessage(role="assistant", parts=(*parts, *calls)))

    def _answered(self, answer: rt.ToolAnswer) -> None:
        if self._open.pop(answer.call_id, None) is None:
            return
        result = ToolResultPart(
            call_id=answer.call_id, name=answer.name, output=answer.output, is_error=answer.is_error
        )
        at = next(
            (n for n, turn in enumerate(self._turns) if any(_is_call(part, answer.call_id) for part in turn.parts)), -1
        )
        while at + 1 < len(self._turns) and self._turns[at + 1].role == "tool":
            at += 1
        self._turns.insert(at + 1, AIMessage(role="tool", parts=(result,)))
        if not self._open and (self._owed or not answer.silent):
            self._respond()

    def _cut(self, item_id: str | None, played_ms: int) -> None:
        """Of what was said only what was heard is remembered."""
        speaker = self._speaker
        if speaker is None or item_id not in (None, self._saying):
            return
        heard = speaker.ledger.heard(played_ms * self._config.output_rate // 1000).text
        if self._reply is not None:
            self._stop()
        if self._stopped:
            self._stopped = False
            self._said(heard, [])
        elif self._turns and self._turns[-1].role == "assistant" and not _calls(self._turns[-1]):
            self._turns[-1] = _message("assistant", heard or "...")

    def _stop(self) -> None:
        task, self._reply = self._reply, None
        if task is not None:
            task.cancel()
            self._owed = False
            self._stopped = True
            self._emit(rt.ReplyOver(self._saying.replace("said", "reply"), "cancelled"))

    def _remember(self, message: AIMessage) -> None:
        self._turns.append(message)
        if len(self._turns) > _MOST_TURNS:
            del self._turns[0]

    def _emit(self, *events: RealtimeEvent) -> None:
        for event in events:
            if not self._events.closed:
                self._events.try_put(event)


def _message(role: str, text: str) -> AIMessage:
    return AIMessage(role=cast("Any", role), parts=(TextPart(text=text),))


def _is_call(part: Part, call_id: str) -> bool:
    return isinstance(part, ToolCallPart) and part.call_id == call_id


def _calls(message: AIMessage) -> bool:
    return any(isinstance(part, ToolCallPart) for part in message.parts)


def _nobody(_: object) -> None: ...


def _joined(last: str, new: str) -> str:
    return last + new


async def _deltas(text: CoalescingBuffer[str]) -> AsyncIterator[str]:
    while True:
        try:
            yield await text.take()
        except BufferClosed:
            return
