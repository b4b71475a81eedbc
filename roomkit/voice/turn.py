"""TurnMachine: who has the word in a call. Pure: signals and the time go in, effects come out.

    listening --speech--> hearing --pause--> deciding --complete--> thinking --audio--> speaking --played--> listening
    deciding, thinking or speaking --speech--> hearing, or first doubting: is it meant? If not, back to where it was.

Every phase has a wall-clock limit, so that no lost signal can leave a call mute or deaf. Whatever belongs to a reply
carries its generation; what comes from an older one is ignored. Times are milliseconds of one clock that never runs
backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from roomkit.voice.interruption import Interruption, Strategy

ROUNDING_MS = 0.01
"""A timer may ring this much before its limit, by the clock that it was computed from."""

LATER = 4
"""How many times as long it takes until a second filler for the same reply."""


class Phase(StrEnum):
    LISTENING = "listening"
    HEARING = "hearing"
    DECIDING = "deciding"
    THINKING = "thinking"
    SPEAKING = "speaking"
    DOUBTING = "doubting"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """Times in ms. `speaking` and `thinking` say what may interrupt in either phase. None turns a courtesy off:
    `filler_ms` of thinking without a sound (four times that for another one), `reprompt_ms` of nobody speaking, at most
    `reprompts` times in a row."""

    speaking: Interruption = field(default_factory=Interruption)
    thinking: Interruption = field(default_factory=lambda: Interruption(protect_ms=0))
    transcript_ms: float = 5_000.0
    decide_ms: float = 6_000.0
    hearing_ms: float = 60_000.0
    thinking_ms: float = 30_000.0
    stall_ms: float = 500.0
    filler_ms: float | None = 2_000.0
    reprompt_ms: float | None = 10_000.0
    reprompts: int = 2
    language: str | None = None


# -- what goes in -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeechOn:
    """The caller makes the sound of speech."""


@dataclass(frozen=True, slots=True)
class SpeechOff:
    """The caller fell silent `silence_ms` ago."""

    silence_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Heard:
    """A recogniser's guess, or with `final` its last word on a segment: exactly one, empty when nothing was said."""

    text: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A turn detector's answer to `Judge` number `number`: finished, or look again after `wait_ms`."""

    number: int
    complete: bool
    wait_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """Something that answers no turn will be spoken: a greeting, an announcement. It gets the next generation and
    takes the place of a reply under way. While the caller has the word it is stopped at once: send it when `free`."""


@dataclass(frozen=True, slots=True)
class AudioMoved:
    """Samples of this generation have been played."""

    generation: int


@dataclass(frozen=True, slots=True)
class PlayedOut:
    """Everything of this generation has been played."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    """This generation ends without (further) audio: nobody answers, an error, a reply without words."""

    generation: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Somebody stops the reply from outside: a key, a supervisor, `channel.interrupt`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The time of `deadline` has come."""


@dataclass(frozen=True, slots=True)
class HungUp:
    """The call is over."""


Signal = (
    SpeechOn
    | SpeechOff
    | Heard
    | Judged
    | ReplyStarted
    | AudioMoved
    | PlayedOut
    | ReplyFailed
    | Interrupt
    | Tick
    | HungUp
)


# -- what comes out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judge:
    """Ask the turn detector whether `text` is a whole turn; answer with `Judged(number, ...)`."""

    number: int
    text: str
    silence_ms: float


@dataclass(frozen=True, slots=True)
class Submit:
    """The turn is complete: `text` becomes a message of the caller's, and its answer is spoken as `generation`."""

    text: str
    generation: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence the playout within a frame, and keep what is not played."""

    generation: int


@dataclass(frozen=True, slots=True)
class Resume:
    """It was a false alarm: go on where the playout stopped."""

    generation: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Silence this generation for good, cancel its reply, and write down what of it was heard."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class EndSegment:
    """Cut the recogniser's segment here: the caller speaks without an end."""


@dataclass(frozen=True, slots=True)
class Told:
    """Something for the hooks and the time line: "backchannel", "false_alarm", "turn_incomplete", "filler", "reprompt",
    "reply_timeout", "transcript_timeout", "stalled", "queue_full"."""

    kind: str
    text: str = ""


Effect = Judge | Submit | Pause | Resume | Stop | EndSegment | Told


class TurnMachine:
    """One call's turns. `step` is the whole interface: it never raises on a signal at the wrong moment."""

    def __init__(self, options: TurnOptions | None = None) -> None:
        self.options = options or TurnOptions()
        self.phase = Phase.LISTENING
        self.generation = 0
        """Of the reply under way, or of the last one."""
        self.replying = False
        """A reply of this generation is awaited, plays, or is paused: in the phases thinking, speaking and doubting."""
        self.speech = False
        """The caller speaks just now."""
        self._out: list[Effect] = []
        self._now = 0.0
        self._texts: list[str] = []
        self._queued: list[str] = []
        self._silence = 0.0
        self._pending_final = 0
        self._judging = 0
        self._wait_until: float | None = None
        self._entered = 0.0
        self._speech_since = 0.0
        self._audible_since: float | None = None
        self._moved = 0.0
        self._resume_to = Phase.LISTENING
        self._doubted = False
        self._courteous = False
        self._reprompted = 0
        self._filled = 0
        """The last generation that a filler was asked for."""

    @property
    def free(self) -> bool:
        """Nobody has the word, and nobody is about to have it: something may be said."""
        return self.phase is Phase.LISTENING

    def so_far(self, more: str = "") -> str:
        """The caller's turn as it would be if it ended after `more`; "" while it is not known to be one."""
        if self.phase not in (Phase.HEARING, Phase.DECIDING):
            return ""
        return " ".join(filter(None, (*self._texts, more.strip())))

    @property
    def deadline(self) -> float | None:
        """When `Tick` is due; None when nothing but a signal can change anything."""
        return min((at for at, _ in self._limits()), default=None)

    def step(self, signal: Signal, now: float) -> list[Effect]:
        """Takes one signal at `now`; limits that were passed before it take effect first."""
        self._out = []
        if self.phase is Phase.ENDED:
            return []
        self._advance(now)
        self._now = now
        match signal:
            case SpeechOn():
                self._speech_on()
            case SpeechOff(silence_ms=silence):
                self._speech_off(silence)
            case Heard(text=text, final=final):
                self._heard(text.strip(), final)
            case Judged():
                self._judged(signal)
            case ReplyStarted():
                self._reply_started()
            case AudioMoved(generation=generation):
                self._audio_moved(generation)
            case PlayedOut(generation=generation) | ReplyFailed(generation=generation):
                self._reply_over(generation)
            case Interrupt(reason=reason):
                self._interrupted(reason)
            case Tick():
                pass
            case HungUp():
                self._end()
        return self._out

    # -- time -------------------------------------------------------------------------------------------------------

    def _limits(self) -> list[tuple[float, Callable[[], None]]]:
        """What comes by itself in this phase, and when."""
        options, entered = self.options, self._entered
        limits: list[tuple[float, Callable[[], None]]] = []
        match self.phase:
            case Phase.LISTENING:
                if options.reprompt_ms is not None and not self._courteous and self._reprompted < options.reprompts:
                    limits.append((entered + options.reprompt_ms, lambda: self._courtesy("reprompt")))
            case Phase.HEARING:
                limits.append((entered + options.hearing_ms, self._too_long))
            case Phase.DECIDING:
                if self._wait_until is not None:
                    limits.append((self._wait_until, self._submit))
                elif self._pending_final:
                    limits.append((entered + options.transcript_ms, self._no_transcript))
                limits.append((entered + options.decide_ms, self._submit))
            case Phase.THINKING:
                if options.filler_ms is not None and not self._courteous:
                    patience = options.filler_ms * (LATER if self._filled == self.generation else 1)
                    limits.append((entered + patience, lambda: self._courtesy("filler")))
                limits.append((entered + options.thinking_ms, self._no_reply))
                self._doubt_limits(limits)
            case Phase.SPEAKING:
                limits.append((max(self._moved, entered) + options.stall_ms, self._stalled))
                self._doubt_limits(limits)
            case Phase.DOUBTING:
                self._doubt_limits(limits)
            case Phase.ENDED:
                pass
        return limits

    def _doubt_limits(self, limits: list[tuple[float, Callable[[], None]]]) -> None:
        rule = self._rule()
        if self.phase is not Phase.DOUBTING:
            if self.speech and self._doubted and rule.strategy is not Strategy.DISABLED:
                limits.append((self._protected_until(rule), self._doubt))
            return
        if self.speech and rule.strategy is Strategy.CONFIRMED:
            limits.append((self._speech_since + rule.min_speech_ms, self._barge_in))
        limits.append((self._entered + rule.doubt_ms, self._doubt_over))

    def _advance(self, now: float) -> None:
        """Does what was due before `now`, in its order and at its own time."""
        for _ in range(64):
            due = min(self._limits(), key=lambda limit: limit[0], default=None)
            if due is None or due[0] > now + ROUNDING_MS:
                return
            self._now = max(due[0], self._now)
            due[1]()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._entered = self._now
        self._wait_until = None
        self._courteous = False

    # -- the caller -------------------------------------------------------------------------------------------------

    def _speech_on(self) -> None:
        if self.speech:
            return
        self.speech = True
        self._speech_since = self._now
        self._reprompted = 0
        match self.phase:
            case Phase.LISTENING | Phase.DECIDING:
                self._enter(Phase.HEARING)
            case Phase.THINKING | Phase.SPEAKING:
                self._doubted = True
                rule = self._rule()
                if rule.strategy is not Strategy.DISABLED and self._now >= self._protected_until(rule):
                    self._doubt()
            case _:
                pass

    def _speech_off(self, silence_ms: float) -> None:
        if not self.speech:
            return
        self.speech = False
        self._doubted = False
        self._silence = silence_ms
        self._pending_final += 1
        match self.phase:
            case Phase.HEARING:
                self._enter(Phase.DECIDING)
            case Phase.DOUBTING if self._rule().strategy is Strategy.CONFIRMED:
                # Too short to be meant; should words come of it all the same, they interrupt then.
                self._false_alarm()
            case _:
                pass

    def _heard(self, text: str, final: bool) -> None:
        if final:
            self._pending_final = max(self._pending_final - 1, 0)
        match self.phase:
            case Phase.HEARING if final and text:
                self._texts.append(text)
            case Phase.DECIDING if final:
                if text:
                    self._texts.append(text)
                self._decide()
            case Phase.LISTENING if final and text:
                # The transcript is later than the limit, or the transport told of no speech.
                self._texts.append(text)
                self._enter(Phase.DECIDING)
                self._decide()
            case Phase.THINKING | Phase.SPEAKING | Phase.DOUBTING if text:
                self._heard_over_reply(text, final)
            case Phase.DOUBTING if final and not self.speech:
                self._false_alarm()
            case _:
                pass

    def _heard_over_reply(self, text: str, final: bool) -> None:
        rule = self._rule()
        if rule.strategy is Strategy.DISABLED:
            if final:
                self._queue(text, rule)
            return
        if rule.backchannels.holds(text, self.options.language) and rule.strategy is not Strategy.IMMEDIATE:
            if final:
                self._out.append(Told("backchannel", text))
                if self.phase is Phase.DOUBTING and not self.speech:
                    self._false_alarm()
            return
        if not final and (rule.strategy is not Strategy.SEMANTIC or self._now < self._protected_until(rule)):
            return
        self._barge_in()
        if final:
            self._texts.append(text)
            if self.phase is Phase.DECIDING:
                self._decide()

    def _queue(self, text: str, rule: Interruption) -> None:
        if len(self._queued) < rule.queue_segments:
            self._queued.append(text)
        else:
            self._out.append(Told("queue_full", text))

    # -- is the turn over? ------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        if self._pending_final:
            return
        if not self._texts:
            self._enter(Phase.LISTENING)
            return
        self._judging += 1
        self._wait_until = None
        self._out.append(Judge(self._judging, " ".join(self._texts), self._silence))

    def _judged(self, verdict: Judged) -> None:
        if self.phase is not Phase.DECIDING or verdict.number != self._judging:
            return
        if verdict.complete:
            self._submit()
        else:
            self._out.append(Told("turn_incomplete", " ".join(self._texts)))
            self._wait_until = self._now + verdict.wait_ms

    def _submit(self) -> None:
        text, self._texts = " ".join(self._texts), []
        self._judging += 1
        if not text:
            self._enter(Phase.LISTENING)
            return
        self._begin()
        self._enter(Phase.THINKING)
        self._out.append(Submit(text, self.generation))

    def _no_transcript(self) -> None:
        self._pending_final = 0
        self._out.append(Told("transcript_timeout"))
        self._decide() if self._texts else self._enter(Phase.LISTENING)

    def _too_long(self) -> None:
        """Music on hold, or a monologue: what is heard so far is a turn of its own."""
        self._out.append(EndSegment())
        self._pending_final += 1
        self.speech = False
        self._enter(Phase.DECIDING)

    # -- the reply --------------------------------------------------------------------------------------------------

    def _reply_started(self) -> None:
        self._drop("new_tts")
        self._begin()
        if self.phase is Phase.DOUBTING:
            self._resume_to = Phase.THINKING
            self._out.append(Pause(self.generation))
        elif self.phase in (Phase.LISTENING, Phase.SPEAKING):
            self._enter(Phase.THINKING)
        elif self.phase in (Phase.HEARING, Phase.DECIDING):
            self._drop("caller_speaks")

    def _begin(self) -> None:
        self.generation += 1
        self.replying = True
        self._audible_since = None

    def _audio_moved(self, generation: int) -> None:
        if generation != self.generation or not self.replying:
            return
        self._moved = self._now
        if self._audible_since is None:
            self._audible_since = self._now
        if self.phase is Phase.THINKING:
            self._enter(Phase.SPEAKING)
        elif self.phase is Phase.DOUBTING:
            self._resume_to = Phase.SPEAKING

    def _reply_over(self, generation: int) -> None:
        if generation != self.generation or not self.replying:
            return
        self.replying = False
        self._audible_since = None
        match self.phase:
            case Phase.THINKING | Phase.SPEAKING:
                self._after_reply()
            case Phase.DOUBTING:
                self._enter(Phase.HEARING if self.speech else Phase.DECIDING)
            case _:
                pass

    def _after_reply(self) -> None:
        """The word goes back to the caller, who may have used the time."""
        self._texts, self._queued = self._queued, []
        self._doubted = False
        if self.speech:
            self._enter(Phase.HEARING)
        elif self._pending_final or self._texts:
            self._enter(Phase.DECIDING)
            self._decide()
        else:
            self._enter(Phase.LISTENING)

    def _drop(self, reason: str) -> None:
        if self.replying:
            self.replying = False
            self._audible_since = None
            self._out.append(Stop(self.generation, reason))

    def _no_reply(self) -> None:
        self._out.append(Told("reply_timeout"))
        self._drop("timeout")
        self._after_reply()

    def _stalled(self) -> None:
        """Speaking means that samples move: a reply that waits for a tool or a slow voice thinks again."""
        self._out.append(Told("stalled"))
        self._enter(Phase.THINKING)

    def _courtesy(self, kind: str) -> None:
        self._courteous = True
        if kind == "reprompt":
            self._reprompted += 1
        else:
            self._filled = self.generation
        self._out.append(Told(kind))

    # -- interruption -----------------------------------------------------------------------------------------------

    def _rule(self) -> Interruption:
        return self.options.thinking if self._audible_since is None else self.options.speaking

    def _protected_until(self, rule: Interruption) -> float:
        since = self._entered if self._audible_since is None else self._audible_since
        return since + rule.protect_ms

    def _doubt(self) -> None:
        """The caller speaks over the reply: silence first, and then find out whether it is meant."""
        if self._rule().strategy is Strategy.IMMEDIATE:
            self._barge_in()
            return
        self._doubted = False
        self._resume_to = self.phase
        self._enter(Phase.DOUBTING)
        if self.replying:
            self._out.append(Pause(self.generation))

    def _doubt_over(self) -> None:
        self._barge_in() if self.speech else self._false_alarm()

    def _false_alarm(self) -> None:
        self._out.append(Told("false_alarm"))
        if self.replying:
            self._out.append(Resume(self.generation))
        self._enter(self._resume_to)

    def _barge_in(self) -> None:
        self._drop("barge_in")
        self._texts, self._queued = self._queued, []
        self._doubted = False
        self._enter(Phase.HEARING if self.speech else Phase.DECIDING)

    def _interrupted(self, reason: str) -> None:
        self._reprompted = 0
        if self.phase in (Phase.THINKING, Phase.SPEAKING, Phase.DOUBTING):
            self._drop(reason)
            self._after_reply()
        else:
            self._drop(reason)

    def _end(self) -> None:
        self._drop("hung_up")
        self.phase = Phase.ENDED


def describe(effect: Effect) -> dict[str, Any]:
    """An effect as a line of the call's time line."""
    return {"effect": type(effect).__name__, **{name: getattr(effect, name) for name in effect.__slots__}}
