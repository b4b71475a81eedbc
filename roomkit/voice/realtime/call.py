"""RealtimeCall: one live conversation whose brain hears and speaks by itself.

It joins the parts of every call (pipeline, playout) to a model's connection: the caller's voice goes up through the
gates, the model's comes down at the pace of sound, and what both said goes to the room in the order it was said in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from roomkit.dsp.resample import Resampler
from roomkit.errors import ProviderError, SessionEnded
from roomkit.models import realtime as rt
from roomkit.models import voice as told
from roomkit.models.ai import ToolCallPart, Usage
from roomkit.models.audio import AudioFrame, AudioSignal, DtmfDigit, Level, SessionState, SpeechEnded, SpeechStarted
from roomkit.models.audio import VoiceSession as Session
from roomkit.models.realtime import PastTurn, RealtimeConfig, RealtimeEvent
from roomkit.models.room import Room
from roomkit.models.voice import CallNotice
from roomkit.ports.audio import LivePort, VoiceBackend
from roomkit.ports.realtime import RealtimeVoiceProvider
from roomkit.runtime import Scope, monotonic
from roomkit.voice.pipeline import AudioPipelineConfig, Pipeline
from roomkit.voice.playout import Playout
from roomkit.voice.realtime.link import How, Link, LinkOptions
from roomkit.voice.realtime.minutes import Entry, Minutes
from roomkit.voice.realtime.order import Placed
from roomkit.voice.realtime.toolruns import Ready, ToolOutput, ToolRuns
from roomkit.voice.realtime.voicing import Said, Voicing
from roomkit.voice.timeline import TurnClock

log = logging.getLogger(__name__)
_GRACE_S = 5.0
_AGAIN_S = 1.0
_AUDIBLE_S = 0.3
"""A caller of whom nothing has come for so long is not speaking, whatever a detector says that waits for sound."""


class RealtimeHost(Protocol):
    """What a call needs of its channel."""

    live: LivePort

    def room(self, room_id: str) -> Room: ...

    async def write(self, call: RealtimeCall, placed: Placed[Entry]) -> None:
        """Puts one entry into the room's log. Raises `RoomKitError` when the room does not take it."""
        ...

    async def run_tool(self, call: RealtimeCall, asked: ToolCallPart, ready: Ready) -> ToolOutput:
        """Through the gate; raises nothing but cancellation."""
        ...

    async def past(self, call: RealtimeCall) -> tuple[PastTurn, ...]: ...

    def sign(self, call: RealtimeCall, kind: str, data: dict[str, Any]) -> None:
        """A sign of life for the room's watchers."""
        ...

    def spent(self, call: RealtimeCall, usage: Usage) -> None: ...

    def overheard(self, call: RealtimeCall, frame: AudioFrame) -> None:
        """The caller's processed voice, for whoever else is on the line."""
        ...

    async def pressed(self, call: RealtimeCall, digit: str) -> None: ...

    def ended(self, call: RealtimeCall, reason: str) -> None:
        """The call cannot go on by itself."""
        ...


@dataclass(frozen=True, slots=True)
class RealtimeCallOptions:
    """Times in seconds. `transcript_wait_s` is how long the caller's words hold back what came after them."""

    mute_on_tool_call: bool = False
    transcript_wait_s: float = 3.0
    link: LinkOptions = field(default_factory=LinkOptions)


class RealtimeCall:
    """The driver of one speech-to-speech `VoiceSession`: `start`, then `run` until the far end hangs up; `aclose` ends
    it from here."""

    def __init__(
        self,
        session: Session,
        backend: VoiceBackend,
        provider: RealtimeVoiceProvider,
        host: RealtimeHost,
        config: RealtimeConfig,
        audio: AudioPipelineConfig,
        options: RealtimeCallOptions | None = None,
    ) -> None:
        self.session = session
        self.host = host
        self.options = options or RealtimeCallOptions()
        self.pipeline = Pipeline(audio, session, backend.traits)
        self.open = True
        """The gate of mute and access: the caller is heard."""
        self.held = False
        """A person has taken over: the model listens at most."""
        self.dropped = 0
        self.turns = 0
        self.times = TurnClock()
        self._backend = backend
        self._provider = provider
        self._scope = Scope(f"call {session.id}")
        self._began = monotonic()
        self.link = Link(provider, config, self._scope, self, self.options.link)
        self._up = Resampler(audio.rate, config.input_rate)
        self._own_vad = config.own_vad
        self._playout = Playout(session, backend, self.pipeline, moved=self._moved, played_out=self._played_out)
        self._voicing = Voicing(self._playout, self.pipeline, said=self._heard_out, noticed=self.noticed)
        self.minutes = Minutes(session.id, self._write, self.options.transcript_wait_s)
        self.tools = ToolRuns(self, mute=self.options.mute_on_tool_call)
        self._speech = 0
        self._speaking = False
        self._speech_name = ""
        self._speech_began = 0.0
        self._heard_at = 0.0
        self._replying = ""
        self._owed = False
        self._failed_before = False
        self._over = False

    # -- life -------------------------------------------------------------------------------------------------------

    @property
    def at_ms(self) -> float:
        """Milliseconds since the call began."""
        return (monotonic() - self._began) * 1000

    @property
    def config(self) -> RealtimeConfig:
        return self.link.config

    def configure(self, config: RealtimeConfig) -> None:
        """Before `start`: what the session is to be."""
        self.link.config = config

    async def start(self) -> None:
        """Connects to the model. Raises `ProviderError`, `SessionEnded` where it was closed meanwhile; then nothing is
        left open."""
        await self.link.open()
        self.session.state = SessionState.ACTIVE
        self.minutes.start(self._scope)
        self._scope.spawn(self._playout.run(), name="playout")
        self._scope.spawn(self._voicing.run(), name="voice of the model")
        self.link.start()

    async def run(self) -> None:
        """Lets the model hear the caller until the far end hangs up."""
        try:
            async for frame in self._backend.receive(self.session):
                self._hear(frame)
        except SessionEnded:
            pass

    async def aclose(self, reason: str = "hung_up") -> None:
        """Silence, what was heard written down, the line dropped, tools given a moment to finish, everything closed.
        Idempotent."""
        if self._over:
            return
        self._over = True
        self.session.state = SessionState.ENDED
        if self.minutes.begun:
            self._cut(reason)
        await self.link.aclose()
        self.minutes.flush()
        if self.minutes.begun:
            await self._backend.hang_up(self.session)  # nobody waits on a dead line for the tools
        await self.tools.aclose()
        await self.minutes.aclose(_GRACE_S)
        if self.minutes.begun:
            self.tell(told.SessionFinished, reason)
        await self._scope.aclose()
        self.pipeline.close()

    # -- the caller -------------------------------------------------------------------------------------------------

    def _hear(self, frame: AudioFrame) -> None:
        if self.session.listen_only or not self.open or self.tools.muted:
            self.dropped += 1
            return
        current, signals = self.pipeline.process(frame)
        for signal in signals:
            self.noticed(signal)
        if current is None:
            return
        self._heard_at = monotonic()
        self.host.overheard(self, current)
        if self.held and "responds" not in self._provider.traits.reconfigures:
            return
        if not self._own_vad or self._speaking:
            self._send_sound(current.pcm)

    def _send_sound(self, pcm: bytes) -> None:
        if pcm := self._up.process(pcm):
            self.link.hear(rt.AppendAudio(pcm))

    def noticed(self, signal: AudioSignal) -> None:
        """Something in the sound, from the pipeline or from a transport that looks for itself."""
        match signal:
            case SpeechStarted(pre_roll=pre_roll) if self._own_vad and not self._speaking:
                self._speech_on("")
                self.minutes.unnamed(self._speech_name)
                self.link.hear(rt.UserSpeech(True))
                self._send_sound(pre_roll)
            case SpeechEnded() if self._own_vad and self._speaking:
                self._speech_off("")
                self.link.hear(rt.UserSpeech(False))
            case DtmfDigit(digit=digit):
                self.tell(told.DTMFPressed, digit)
                self.spawn(self.host.pressed(self, digit), "key")
            case Level(rms_dbfs=rms, peak_dbfs=peak, direction=direction):
                self.tell(told.LevelHeard, rms, peak, direction)
                self.host.sign(self, "voice_level", {"dbfs": round(rms, 1), "direction": direction})
            case _:
                pass

    def gate(self, *, hears: bool, speaks: bool) -> None:
        """Mute and access, at once: whether the model hears the caller, and the caller the model."""
        if self.open and not hears:
            self._forget_input()
        self.open = hears
        if self._voicing.open and not speaks:
            self.interrupt("output_muted")
        self._voicing.open = speaks

    def _forget_input(self) -> None:
        if self._speaking:
            self._speech_off("")
            self.minutes.forget(self._speech_name)
        self.pipeline.reset()
        self.spawn(self.link.tell(rt.ForgetInput()), "forget input")

    def _speech_on(self, name: str) -> None:
        if self._speaking:
            if name and name != self._speech_name:
                self.minutes.rename(self._speech_name, name)
                self._speech_name = name
            return
        self._speaking = True
        self._speech += 1
        self._speech_name = name or f"speech-{self._speech}"
        self._speech_began = self.at_ms
        if self.config.interruptible:
            self.interrupt("barge_in")
        self.minutes.began(self._speech_name)
        self.tell(told.SpeechStart)
        self.host.sign(self, "voice_phase", {"phase": "hearing"})

    def _speech_off(self, name: str) -> None:
        if name and self._speech_name.startswith("speech-"):
            self.minutes.rename(self._speech_name, name)
            self._speech_name = name
        if not self._speaking:
            return
        self._speaking = False
        self._owed = self.config.responds and not self.held
        self.times.speech_ended(self.at_ms)
        self.tell(told.SpeechEnd, self.at_ms - self._speech_began)
        if self._provider.traits.writes_down:
            self.minutes.stopped(self._speech_name)
        else:
            self.minutes.said(self._speech_name, "")

    # -- what the model tells (LinkHost) -----------------------------------------------------------------------------

    def take(self, event: RealtimeEvent) -> None:
        """One event of the model's, in order; never waits."""
        match event:
            case rt.SpeechBegan(item_id=item_id) | rt.SpeechStopped(item_id=item_id) if self._own_vad:
                self.minutes.named(item_id)  # by now the caller may have begun again
            case rt.SpeechBegan(item_id=item_id):
                self._speech_on(item_id)
            case rt.SpeechStopped(item_id=item_id):
                self._speech_off(item_id)
            case rt.UserText():
                self._user_text(event)
            case rt.UserTextFailed(item_id=item_id, reason=reason):
                log.info("call %s: what was said could not be written down: %s", self.session.id, reason)
                self.minutes.said(item_id, "")
            case rt.ReplyBegan(reply_id=reply_id):
                self._reply_began(reply_id)
            case rt.ReplyAudio() | rt.ReplyText() | rt.ReplySaid():
                self._reply(event)
            case rt.ReplyOver():
                self._reply_over(event)
            case rt.Interrupted():
                if self.config.interruptible:
                    self._cut("barge_in")
            case _:
                self._take_aside(event)

    def _take_aside(self, event: RealtimeEvent) -> None:
        """What is not speech."""
        match event:
            case rt.ToolAsked(reply_id=reply_id, call=call):
                self.tools.asked(reply_id, call)
            case rt.ToolsCancelled(call_ids=call_ids):
                self.tools.taken_back(call_ids)
            case rt.LimitsTold(name=name, remaining=remaining, reset_s=reset_s):
                self.tell(rt.LimitNear, name, remaining, reset_s)
            case rt.Complaint(error=error):
                self._failed(error)
            case _:
                pass

    def _user_text(self, event: rt.UserText) -> None:
        if self._own_vad:
            self.minutes.named(event.item_id)
        self.minutes.began(event.item_id)
        if not event.final:
            endless = not self._own_vad and not self._provider.traits.marks_speech
            self.minutes.partly(event.item_id, event.text.strip(), endless=endless)
            self.tell(told.PartialTranscript, event.text)
            data = {"text": event.text, "participant": self.session.participant_id, "item": event.item_id}
            self.host.sign(self, "voice_partial", data)
            return
        if not self._own_vad and not self._provider.traits.marks_speech:
            self.times.speech_ended(self.at_ms)  # the nearest that such a provider lets us know
        self.times.stamp("transcript", self.at_ms)
        self.minutes.said(event.item_id, event.text.strip())

    def _reply_began(self, reply_id: str) -> None:
        if self.held:
            self.spawn(self.link.tell(rt.CutReply()), "cut")
            self._voicing.cut(reply_id=reply_id)
            return
        self._replying, self._owed = reply_id, False
        self.turns += 1
        self.times.stamp("decided", self.at_ms)
        talking = self._speaking and monotonic() - self._heard_at < _AUDIBLE_S
        if talking and self.config.interruptible:
            self._owed = True
            self.interrupt("barge_in")  # asked for before the caller began: the answer to all of it comes after
            return
        self.host.sign(self, "voice_phase", {"phase": "thinking"})

    def _reply(self, event: rt.ReplyAudio | rt.ReplyText | rt.ReplySaid) -> None:
        match event:
            case rt.ReplyAudio(reply_id=reply_id, item_id=item_id, frame=frame):
                self.times.stamp("tts_first_byte", self.at_ms)
                if not self._voicing.audio(reply_id, item_id, frame):
                    log.warning("call %s: a reply is too long to be kept and is cut off", self.session.id)
                    self.interrupt("too_long")
            case rt.ReplyText(reply_id=reply_id, item_id=item_id, delta=delta):
                self.times.stamp("first_token", self.at_ms)
                offset = self._voicing.words(reply_id, item_id, delta)
                if offset is not None:
                    self.host.sign(self, "voice_reply", {"item": item_id, "offset": offset, "delta": delta})
            case rt.ReplySaid(reply_id=reply_id, item_id=item_id, text=text):
                self._voicing.finish(reply_id, item_id, text)

    def _reply_over(self, event: rt.ReplyOver) -> None:
        self._voicing.reply_over(event.reply_id)
        if self._replying == event.reply_id:
            self._replying = ""
        if event.status == "failed":
            log.warning("call %s: a reply failed: %s", self.session.id, event.reason)
            self.host.sign(self, "voice_trouble", {"error": "reply_failed"})
            if not self._failed_before:
                self.spawn(_ask_again(self), "ask again")
        self._failed_before = event.status == "failed"
        self.host.spent(self, event.usage)

    def _failed(self, error: Exception) -> None:
        log.warning("call %s: %s", self.session.id, error)
        self.host.sign(self, "voice_trouble", {"error": type(error).__name__})

    def moved(self, how: How, reason: str) -> None:
        """A new connection: what the old one had not finished saying, or writing down, ends here."""
        self.tell(rt.SessionMoved, how, reason)
        self.host.sign(self, "voice_moved", {"how": how})
        if self._replying:
            self._voicing.reply_over(self._replying)
            self._owed, self._replying = self._owed or not self._voicing.busy, ""
        if self._speaking:
            self._speech_off(self._speech_name)
            self._owed = False  # the provider's own ears have the rest of it
        self.minutes.settle()
        if self._owed and how == "seeded" and not self.tools.running:
            self._owed = False
            self.spawn(self.link.tell(rt.Respond()), "answer what was asked")

    def lost(self, error: Exception) -> None:
        self._failed(error)
        self.host.ended(self, "provider_lost")

    @property
    def quiet(self) -> bool:
        return not (self._speaking or self._replying or self.tools.running or self._voicing.busy)

    async def past(self) -> tuple[PastTurn, ...]:
        return await self.host.past(self)

    # -- the model's voice -------------------------------------------------------------------------------------------

    def interrupt(self, reason: str = "explicit") -> bool:
        """Stops what is being said, here and at the model; False when nothing is."""
        busy = bool(self._replying) or self._voicing.busy
        said = self._cut(reason)
        if busy:
            first = said[0] if said else None
            command = rt.CutReply(first.item.item_id, first.played_ms) if first else rt.CutReply()
            self.spawn(self.link.tell(command, memory=self.link.memory), "cut")
            for later in said[1:]:
                self.spawn(self.link.tell(rt.CutReply(later.item.item_id, 0), memory=self.link.memory), "cut")
        return busy

    def _cut(self, reason: str) -> list[Said]:
        said = self._voicing.cut(reply_id=self._replying)
        self._replying = ""
        for each in said:
            self._assistant(each, reason)
        if said:
            heard = " ".join(each.text for each in said if each.text)
            self.tell(told.TTSCancelled, reason, heard, said[0].share)
            if reason == "barge_in":
                self.tell(told.BargeIn, heard, said[0].share)
        return said

    def _heard_out(self, said: Said) -> None:
        self.tell(told.AfterTTS, said.text)
        self._assistant(said, "")

    def _assistant(self, said: Said, reason: str) -> None:
        text = said.text.strip()
        if not text:
            return
        more = {} if said.whole else {"interrupted": reason, "played": round(said.share, 3)}
        self.minutes.add(Entry("assistant", text, said.item.item_id, metadata=more))

    def _played_out(self, generation: int) -> None:
        self._voicing.played_out(generation)

    def _moved(self, generation: int) -> None:
        if self.times.awaits_sound:
            self.times.stamp("first_audio", self.at_ms)
            late = self.times.late()
            self.tell(told.TurnTimes, self.turns, *late.values())
            self.host.sign(self, "voice_turn", {"turn": self.turns, **late})
            self.host.sign(self, "voice_phase", {"phase": "speaking"})

    async def sent(self) -> None:
        """Waits until everything that was said has been handed to the transport."""
        await self._voicing.handed()
        await self._playout.sent()

    def overhear(self, frame: AudioFrame) -> None:
        """What the others on the line say."""
        if self._voicing.open:
            self._playout.live(frame)

    # -- what the channel does ---------------------------------------------------------------------------------------

    async def inject(
        self, text: str, role: rt.InjectedRole, *, respond: bool, known: Callable[[], bool] = lambda: False
    ) -> None:
        """`known` says whether a model that was seeded meanwhile has read the text in the room's log."""
        respond = respond and not self.held
        self._owed = self._owed or respond
        said = rt.InjectText(text, role, respond)
        if await self.link.tell(said, memory=self.link.memory) or (not known() and await self.link.tell(said)):
            self.tell(rt.TextInjected, text, role)

    async def hold(self, held: bool) -> None:
        """A person takes the word from the model, or gives it back. Silence is immediate."""
        if held == self.held:
            return
        self.held = held
        if held:
            self.interrupt("take_over")
            self._owed = False
        if "responds" in self._provider.traits.reconfigures:
            await self.link.reconfigure(replace(self.config, responds=not held), frozenset({"responds"}))

    async def _write(self, placed: Placed[Entry]) -> None:
        await self.host.write(self, placed)

    def refuses(self, reply_id: str) -> bool:
        """Whether the tools of this reply are not to run: it was cut off, or a person has taken over."""
        return self.held or self._voicing.dropped(reply_id)

    # -- small things --------------------------------------------------------------------------------------------------

    def tell(self, kind: type[CallNotice], *values: Any) -> None:
        if self.host.live.wanted(kind):
            self.host.live.tell(kind(self.session.tenant, self.session.room_id, self.session, self.at_ms, *values))

    def room(self) -> Room:
        return self.host.room(self.session.room_id)

    def spawn(self, work: Any, name: str) -> None:
        if self._scope.closed:
            work.close()
        else:
            task = self._scope.spawn(_quietly(work), name=name)
            task.add_done_callback(lambda _: work.close())  # cancelled before it began, it is not missed


async def _ask_again(call: RealtimeCall) -> None:
    """After a reply that failed, once: the caller hears nothing and waits."""
    await asyncio.sleep(_AGAIN_S)
    if call.quiet and not call.held:
        await call.link.tell(rt.Respond())


async def _quietly(work: Awaitable[Any]) -> None:
    """What the model refuses in passing is told where it is noticed, and ends nothing."""
    try:
        await work
    except (ProviderError, SessionEnded) as error:
        log.info("a command to the model failed: %s", error)
