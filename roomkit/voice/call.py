"""Call: one live conversation. It joins audio, recogniser, turn machine, synthesiser and room; decisions are the
machine's, and everything that takes time is a task of the call's own scope."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from roomkit.errors import SessionEnded
from roomkit.models import voice as told
from roomkit.models.audio import (
    AudioFrame,
    SessionState,
    VoiceSession,
)
from roomkit.models.hooks import BeforeCommit, BeforeGeneration, Notice
from roomkit.models.room import Room
from roomkit.models.voice import CallNotice
from roomkit.ports.ai import Foresight
from roomkit.ports.audio import LivePort, VoiceBackend
from roomkit.ports.speech import STT, TTS, SpokenTurnDetector, TurnDetector, TurnVerdict
from roomkit.runtime import Scope, monotonic
from roomkit.voice.courtesy import HumanKey, clip_or_tones
from roomkit.voice.detector import PauseDetector
from roomkit.voice.hearing import Hearing
from roomkit.voice.mouth import Mouth, Utterance
from roomkit.voice.pipeline import AudioPipelineConfig, Pipeline
from roomkit.voice.playout import Playout
from roomkit.voice.progress import Progress
from roomkit.voice.recorder import Recorder
from roomkit.voice.sentences import FilterChoice
from roomkit.voice.speaker import Speaker
from roomkit.voice.timeline import TurnClock
from roomkit.voice.turn import (
    ROUNDING_MS,
    AudioMoved,
    Effect,
    EndSegment,
    HungUp,
    Interrupt,
    Judge,
    Judged,
    Pause,
    PlayedOut,
    ReplyFailed,
    ReplyStarted,
    Resume,
    Signal,
    Stop,
    Submit,
    Tick,
    Told,
    TurnMachine,
    TurnOptions,
)

log = logging.getLogger(__name__)
REMEMBERED_TURNS = 6
_GUARDS = (told.FinalTranscript, BeforeCommit, BeforeGeneration)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What a call is made of. `language` is a BCP 47 tag; `voice_for` maps the channel that speaks to a voice;
    `phrase` gives the words for "filler", "reprompt", "apology", None for none of them. `frames_per_s` drops audio
    beyond it, counted per second. `human_key` calls a person; `clip` is a WAV file for when no voice can be had."""

    turns: TurnOptions = field(default_factory=TurnOptions)
    streaming: bool = True
    batch: bool = False
    language: str | None = None
    voice_for: Callable[[str], str | None] = lambda _: None
    tts_filter: FilterChoice = None
    frames_per_s: int | None = None
    phrase: Callable[[str], str | None] = lambda _: None
    human_key: str | None = None
    clip: str | Path | None = None
    ahead: Foresight | None = None


class CallHost(Protocol):
    """What a call needs of its channel."""

    live: LivePort

    def room(self, room_id: str) -> Room:
        """The room as it is now."""
        ...

    async def submit(self, call: Call, text: str, generation: int) -> Any:
        """Makes a message of the caller's words; its InboundResult, None when the call is not in a room."""
        ...

    async def pressed(self, call: Call, digit: str) -> None:
        """The caller pressed a key."""
        ...

    def overheard(self, call: Call, frame: AudioFrame) -> None:
        """The caller's processed audio, for whoever else is on the line."""
        ...

    def alone(self, call: Call) -> bool:
        """Whether the caller has nobody but machines to talk to: only then are they asked whether they are there."""
        ...

    def sign(self, call: Call, kind: str, data: dict[str, Any]) -> None:
        """A sign of life for the room's watchers."""
        ...


class Call:
    """The driver of one `VoiceSession`. `run` listens until the far end hangs up; `aclose` ends it from here."""

    def __init__(
        self,
        session: VoiceSession,
        backend: VoiceBackend,
        host: CallHost,
        config: AudioPipelineConfig,
        options: CallOptions,
        *,
        stt: STT | None,
        tts: TTS | None,
    ) -> None:
        self.session = session
        self.options = options
        self.machine = TurnMachine(options.turns)
        self.pipeline = Pipeline(config, session, backend.traits)
        self._recorders = [tap for tap in self.pipeline.taps if isinstance(tap, Recorder)]
        for recorder in self._recorders:
            recorder.changed = lambda on, path: self.tell(told.RecordingChanged, on, str(path))
        self.open_out = True
        self.host = host
        self._backend = backend
        self._tts = tts
        self.detector: TurnDetector | SpokenTurnDetector = config.turn_detector or PauseDetector(options.language)
        self._scope = Scope(f"call {session.id}")
        self._began = monotonic()
        detects = self.pipeline.detects_speech or backend.traits.detects_speech
        self.hearing = Hearing(self, stt, self._scope, detects=detects)
        self.hearing.keep(getattr(self.detector, "hears_s", 0.0))
        self.playout = Playout(session, backend, self.pipeline, moved=self._moved, played_out=self._played_out)
        self.mouth = Mouth(
            self.playout,
            self.pipeline,
            self._scope,
            speaker_for=self._speaker_for,
            ended=self._said,
            failed=self.failed,
            noticed=self.hearing.noticed,
            clip=lambda: clip_or_tones(options.clip, self.pipeline.rate),
        )
        self._key = HumanKey(options.human_key, self._wants_human)
        self._heard_texts: deque[str] = deque(maxlen=REMEMBERED_TURNS)
        self._asked: dict[int, str] = {}
        """The event that each generation answers."""
        self._settling: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._spoke = ""
        """Who answered last: what the house adds is said in the same voice."""
        self.times = TurnClock()
        self.progress = Progress(lambda said: host.sign(self, "voice_spoken", said))
        self.turns = 0

    # -- life -------------------------------------------------------------------------------------------------------

    @property
    def at_ms(self) -> float:
        """Milliseconds since the call began."""
        return (monotonic() - self._began) * 1000

    async def run(self) -> None:
        """Listens until the far end hangs up."""
        self.session.state = SessionState.ACTIVE
        self._scope.spawn(self.playout.run(), name="playout")
        self._arm()
        self.hearing.begin()
        try:
            async for frame in self._backend.receive(self.session):
                self.hearing.take(frame)
        except SessionEnded:
            pass

    async def aclose(self, reason: str = "hung_up") -> None:
        """Ends the call: silence, the heard text written down, everything closed. Idempotent."""
        if self.session.state is SessionState.ENDED:
            return
        self.step(HungUp())
        self.session.state = SessionState.ENDED
        self.hearing.end()
        self._key.cancel()
        self.mouth.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._settling:
            await asyncio.wait(self._settling, timeout=5)
        await self._scope.aclose()
        self.pipeline.close()
        for recorder in self._recorders:
            await recorder.done()
        self.tell(told.SessionFinished, reason)

    def tell(self, kind: type[CallNotice], *values: Any) -> None:
        if self.host.live.wanted(kind):
            self.host.live.tell(self._notice(kind, *values))

    def _notice(self, kind: type[CallNotice], *values: Any) -> Notice:
        return kind(self.session.tenant, self.session.room_id, self.session, self.at_ms, *values)

    def step(self, signal: Signal) -> None:
        """Gives the machine one signal and does what it says."""
        before = self.machine.phase
        for effect in self.machine.step(signal, self.at_ms):
            self._do(effect)
        if self.machine.phase is not before:
            self.host.sign(self, "voice_phase", {"phase": self.machine.phase.value})
        self._arm()
        self._next()

    def _arm(self) -> None:
        """One timer: an earlier one that finds nothing to do looks again."""
        deadline = self.machine.deadline
        if deadline is None:
            return
        loop = asyncio.get_running_loop()
        due = self._began + deadline / 1000
        if self._timer is None or self._timer.when() > due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self.machine.deadline is not None and self.machine.deadline <= self.at_ms + ROUNDING_MS:
            self.step(Tick())
        else:
            self._arm()

    # -- what the machine decides -------------------------------------------------------------------------------------

    def _do(self, effect: Effect) -> None:
        match effect:
            case Judge():
                self.foresee(effect.text)
                self.spawn(self._judge(effect), "turn detector")
            case Submit(text=text, generation=generation):
                self.turns += 1
                self.stamp("decided")
                self.tell(told.TurnTaken, text, True)
                self._heard_texts.append(text)
                self.spawn(self._submit(text, generation), "submit")
            case Pause():
                self.playout.pause()
            case Resume():
                self.playout.resume()
            case Stop(generation=generation, reason=reason):
                self._silence(generation, reason)
            case EndSegment():
                self.hearing.cut()
            case Told(kind=kind, text=text):
                self._told(kind, text)

    def foresee(self, text: str) -> None:
        """The turn may end with this: whoever can begins to think about it. Not where a guard may still change it."""
        ahead = self.options.ahead
        if ahead is None or not text or any(self.host.live.wanted(kind) for kind in _GUARDS):
            return
        ahead.foresee(self.session.tenant, self.session.room_id, self.host.live.veil(text))

    def _told(self, kind: str, text: str) -> None:
        options = self.options
        match kind:
            case "turn_incomplete":
                self.tell(told.TurnTaken, text, False)
            case "backchannel":
                self.tell(told.BackchannelHeard, text)
            case "filler" if self._tts is not None and self.mouth.current is None and (words := options.phrase(kind)):
                self.mouth.fill(_text(self._spoke, words), self.machine.generation)
            case "reprompt" if self.host.alone(self) and (words := options.phrase(kind)):
                self.say(words)
            case "reply_timeout" if words := options.phrase("apology"):
                self.say(words)
            case _:
                pass

    def pressed(self, digit: str) -> None:
        """The caller pressed a key."""
        self.tell(told.DTMFPressed, digit)
        self.step(Interrupt("dtmf"))
        self.spawn(self.host.pressed(self, digit), "key")
        self._key.pressed(digit)

    def _wants_human(self) -> None:
        async def call_one() -> None:
            by = self.session.participant_id or self.session.id
            reason = f"the caller pressed {self.options.human_key}"
            live, language = self.host.live, self.options.language
            self.say(await live.request_human(self.session.room_id, reason, by=by, language=language))

        self.spawn(call_one(), "call a person")

    async def _judge(self, effect: Judge) -> None:
        try:
            verdict = await _verdict(self, effect, tuple(self._heard_texts))
        except Exception as error:  # noqa: BLE001 - a detector is a plug-in: its failure ends the turn, never the call
            self.failed(error)
            self.step(Judged(effect.number, complete=True))
        else:
            self.step(Judged(effect.number, verdict.complete, verdict.wait_ms))

    async def _submit(self, text: str, generation: int) -> None:
        if self._settling:  # what was heard of the last reply is written down before the question that follows it
            await asyncio.wait(self._settling)
        result = await self.host.submit(self, text, generation)
        event = result.event if result is not None else None
        if result is None or event is None or result.blocked:
            self.step(ReplyFailed(generation))
            return
        if generation == self.machine.generation and self.machine.replying:
            self._asked[generation] = event.id
            if not self.host.live.answering(self.session.room_id, event.id) and not self._bound(generation):
                self.step(ReplyFailed(generation))
                return
        else:  # the caller went on speaking meanwhile
            await self.host.live.silence(self.session.room_id, event.id, "barge_in")
            return
        await result.settled()
        self._asked.pop(generation, None)
        if not self._bound(generation):
            self.step(ReplyFailed(generation))

    def _bound(self, generation: int) -> bool:
        current = self.mouth.current
        return current is not None and current.generation == generation

    def _silence(self, generation: int, reason: str) -> None:
        utterance, heard = self.mouth.stop(generation)
        asked = self._asked.pop(generation, None)
        text = utterance.speaker.ledger.text if utterance is not None and utterance.speaker is not None else ""
        self.progress.over(utterance, heard.text)
        self.host.sign(self, "voice_cut", {"reason": reason})
        if text:
            self.tell(told.TTSCancelled, reason, heard.text, heard.share)
            if reason == "barge_in":
                self.tell(told.BargeIn, heard.text, heard.share)
        if utterance is not None and utterance.event_id is not None and not heard.whole:
            self._settle(
                self.host.live.silence(
                    self.session.room_id, utterance.event_id, reason, heard=heard.text, share=heard.share
                )
            )
        elif utterance is None and asked is not None:
            self._settle(self.host.live.silence(self.session.room_id, asked, reason))

    def _write_down_failed(self, utterance: Utterance) -> None:
        """A voice failed in the middle: the room remembers what of the reply there was to hear."""
        heard = Mouth.heard_of(utterance)
        if utterance.event_id is not None and not heard.whole:
            room, event = self.session.room_id, utterance.event_id
            self._settle(self.host.live.silence(room, event, "voice_failed", heard=heard.text, share=heard.share))

    def _settle(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = self._scope.spawn(run(), name="what was heard")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    # -- what the room says -----------------------------------------------------------------------------------------

    def answers(self) -> bool:
        """Whether the call waits for an answer that has not begun to be spoken."""
        return self.machine.replying and self.mouth.current is None

    def speak(self, utterance: Utterance, *, answer: bool) -> None:
        """Says it: at once if it is the awaited answer, else when nobody has the word."""
        if self._tts is None and utterance.frames is None:
            return
        if answer and self.answers():
            self.stamp("first_token")
            self._begin(utterance)
        elif not self.mouth.add(utterance):
            log.warning("call %s: too much waits to be said; an utterance was left out", self.session.id)
        else:
            self._next()

    def say(self, text: str, *, source: str = "", event_id: str | None = None) -> Utterance:
        """A whole text, said when nobody has the word."""
        utterance = _text(source or self._spoke or self.session.channel_id, text)
        utterance.event_id = event_id
        self.speak(utterance, answer=False)
        return utterance

    async def said(self, text: str) -> None:
        """Says a text and waits until it is over, was stopped, or the call has ended."""
        utterance = self.say(text)
        if utterance in self.mouth.waiting or self.mouth.current is utterance:
            await utterance.over.wait()

    def withdraw(self, utterance: Utterance, reason: str) -> None:
        """It is not to be said after all: what was not spoken yet stays unspoken."""
        utterance.withdrawn = True
        utterance.close()
        if utterance in self.mouth.waiting:
            self.mouth.waiting.remove(utterance)
            utterance.over.set()
        elif self.mouth.current is utterance:
            utterance.event_id = None
            self.interrupt(reason)

    def interrupt(self, reason: str = "explicit") -> bool:
        """Stops what is being said; False when nothing is."""
        speaking = self.machine.replying
        self.step(Interrupt(reason))
        return speaking

    def _next(self) -> None:
        if self.machine.free and self.mouth.waiting and self.open_out:
            utterance = self.mouth.waiting.popleft()
            self.step(ReplyStarted())
            self._begin(utterance)

    def _begin(self, utterance: Utterance) -> None:
        if utterance.event_id is not None and self.options.voice_for(utterance.source) is not None:
            self._spoke = utterance.source
        self.mouth.begin(utterance, self.machine.generation)

    def _moved(self, generation: int) -> None:
        if self.times.awaits_sound:
            self.stamp("first_audio")
            late = self.times.late()
            self.tell(told.TurnTimes, self.turns, *late.values())
            self.host.sign(self, "voice_turn", {"turn": self.turns, **late})
        self.step(AudioMoved(generation))
        self.progress.moved(self.mouth.current, self.playout.heard(generation), self.at_ms)

    def _said(self, generation: int, spoke: bool) -> None:
        if not spoke:
            self.mouth.drop()
            self.step(ReplyFailed(generation))

    def _played_out(self, generation: int) -> None:
        utterance = self.mouth.played_out(generation)
        if utterance is not None and utterance.speaker is not None:
            self.tell(told.AfterTTS, utterance.speaker.ledger.text)
            whole = utterance.failed_at is None
            self.progress.over(utterance, utterance.speaker.ledger.text if whole else Mouth.heard_of(utterance).text)
            self._write_down_failed(utterance)
        self.step(PlayedOut(generation))

    def _speaker_for(self, utterance: Utterance, put: Callable[[AudioFrame], Awaitable[None]]) -> Speaker:
        assert self._tts is not None, "without a synthesiser nothing is said"
        guard = self._judge_sentence if self.host.live.wanted(told.BeforeTTS) else None
        return Speaker(
            self._tts,
            self.pipeline.rate,
            put,
            guard=guard,
            tts_filter=self.options.tts_filter,
            voice=self.options.voice_for(utterance.source),
            language=self.options.language,
            on_stage=self.stamp,
        )

    async def _judge_sentence(self, sentence: str) -> str | None:
        moment = told.BeforeTTS(self.room, sentence, self.session, **self.where("outbound"))
        return await self.host.live.guard(moment)

    def overhear(self, frame: AudioFrame) -> None:
        """What the others on the line say."""
        if self.open_out:
            self.playout.live(frame)

    # -- small things -------------------------------------------------------------------------------------------------

    def room(self) -> Room:
        return self.host.room(self.session.room_id)

    def where(self, direction: str) -> dict[str, str]:
        return {"channel_id": self.session.channel_id, "channel_type": "voice", "direction": direction}

    def spawn(self, work: Any, name: str) -> None:
        if not self._scope.closed:
            self._scope.spawn(work, name=name)

    def stamp(self, stage: str) -> None:
        """A stage of the turn under way has come."""
        self.times.stamp(stage, self.at_ms)

    def failed(self, error: Exception) -> None:
        log.warning("call %s: %s", self.session.id, error)
        self.host.sign(self, "voice_trouble", {"error": type(error).__name__})


async def _verdict(call: Call, asked: Judge, history: tuple[str, ...]) -> TurnVerdict:
    spoken = getattr(call.detector, "evaluate_spoken", None)
    if spoken is not None:
        return await spoken(call.hearing.kept(), call.pipeline.rate, asked.text, asked.silence_ms, history)
    return await cast("TurnDetector", call.detector).evaluate(asked.text, asked.silence_ms, history)


def _text(source: str, text: str) -> Utterance:
    utterance = Utterance(source)
    utterance.write(text)
    utterance.close()
    return utterance
