"""RealtimeCall: one live conversation whose brain hears and speaks by itself.

It joins the parts of every call (pipeline, playout) to a model's connection: the caller's voice goes up through the
gates, the model's comes down at the pace of sound, and what both said goes to the room in the order of the conversation.
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
from roomkit.models.content import ToolCallContent
from roomkit.models.realtime import PastTurn, RealtimeConfig, RealtimeEvent
from roomkit.models.room import Room
from roomkit.models.voice import CallNotice
from roomkit.ports.audio import LivePort, VoiceBackend
from roomkit.ports.realtime import RealtimeVoiceProvider
from roomkit.runtime import BlockingBuffer, BufferClosed, Scope, monotonic
from roomkit.voice.pipeline import AudioPipelineConfig, Pipeline
from roomkit.voice.playout import Playout
from roomkit.voice.realtime.link import How, Link, LinkOptions
from roomkit.voice.realtime.order import Order, Placed
from roomkit.voice.realtime.voicing import Said, Voicing
from roomkit.voice.timeline import TurnClock

log = logging.getLogger(__name__)
MOST_ENTRIES = 1_000
_GRACE_S = 5.0


@dataclass(eq=False, slots=True)
class Entry:
    """One thing for the room's log. `kind`: "user", "assistant", "tool_start", "tool_end". `done` is set when it is in
    the log."""

    kind: str
    text: str = ""
    item_id: str = ""
    call: ToolCallContent | None = None
    metadata: dict[str, Any] = field(default_factory=lambda: {})
    done: asyncio.Future[None] | None = None


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool call came to: its record for the log, and the words for the model."""

    record: ToolCallContent
    output: str
    is_error: bool = False


Ready = Callable[[ToolCallContent], Awaitable[None]]
"""Returns once the intent to run a call is in the log."""


class RealtimeHost(Protocol):
    """What a call needs of its channel."""

    live: LivePort

    def room(self, room_id: str) -> Room: ...

    async def write(self, call: RealtimeCall, placed: Placed[Entry]) -> None:
        """Puts one entry into the room's log. An error is the room's refusal; the call goes on."""
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
        self._tools = Scope(f"tools of call {session.id}")
        self._link = Link(provider, config, self._scope, self, self.options.link)
        self._up = Resampler(audio.rate, config.input_rate)
        self._own_vad = config.own_vad
        self._playout = Playout(
            session, backend, self.pipeline, moved=self._moved, played_out=lambda gen: self._voicing.played_out(gen)
        )
        self._voicing = Voicing(self._playout, self.pipeline, said=self._heard_out, noticed=self._noticed)
        self._order: Order[Entry] = Order(self.options.transcript_wait_s)
        self._entries: BlockingBuffer[Placed[Entry]] = BlockingBuffer(MOST_ENTRIES)
        self._writing: asyncio.Task[None] | None = None
        self._running: dict[str, ToolCallContent] = {}
        self._unwanted: set[str] = set()
        self._tool_mutes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._speech = 0
        self._speaking = False
        self._speech_name = ""
        self._speech_began = 0.0
        self._replying = ""
        self._owed = False

    # -- life -------------------------------------------------------------------------------------------------------

    @property
    def at_ms(self) -> float:
        """Milliseconds since the call began."""
        return (monotonic() - self._began) * 1000

    @property
    def config(self) -> RealtimeConfig:
        return self._link.config

    async def start(self) -> None:
        """Connects to the model. Raises `ProviderError`; then nothing is left open."""
        await self._link.open()
        self.session.state = SessionState.ACTIVE
        self._writing = self._scope.spawn(self._write(), name="write down")
        self._scope.spawn(self._playout.run(), name="playout")
        self._scope.spawn(self._voicing.run(), name="voice of the model")
        self._link.start()

    async def run(self) -> None:
        """Lets the model hear the caller until the far end hangs up."""
        try:
            async for frame in self._backend.receive(self.session):
                self._hear(frame)
        except SessionEnded:
            pass

    async def aclose(self, reason: str = "hung_up") -> None:
        """Silence, what was heard written down, tools given a moment to finish, everything closed. Idempotent."""
        if self.session.state is SessionState.ENDED:
            return
        self.session.state = SessionState.ENDED
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            self._cut(reason)
        await self._link.aclose()
        self._place(self._order.flush())
        if self._running:  # what has begun is given time to end; what only waits for a person is not
            await self._tools.drain(_GRACE_S)
        await self._tools.aclose(_GRACE_S)
        for left in tuple(self._running.values()):
            self._end_tool(left.model_copy(update={"status": "unknown_outcome", "error": "the call ended"}))
        self._entries.close()
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=_GRACE_S)
            self.tell(told.SessionFinished, reason)
        await self._scope.aclose()
        self.pipeline.close()

    # -- the caller -------------------------------------------------------------------------------------------------

    def _hear(self, frame: AudioFrame) -> None:
        if self.session.listen_only or not self.open or self._tool_mutes:
            self.dropped += 1
            return
        current, signals = self.pipeline.process(frame)
        for signal in signals:
            self._noticed(signal)
        if current is None:
            return
        self.host.overheard(self, current)
        if self.held and "responds" not in self._provider.traits.reconfigures:
            return
        if not self._own_vad or self._speaking:
            self._send_sound(current.pcm)

    def _send_sound(self, pcm: bytes) -> None:
        if pcm := self._up.process(pcm):
            self._link.hear(rt.AppendAudio(pcm))

    def _noticed(self, signal: AudioSignal) -> None:
        match signal:
            case SpeechStarted(pre_roll=pre_roll) if self._own_vad:
                self._speech_on("")
                self._link.hear(rt.UserSpeech(True))
                self._send_sound(pre_roll)
            case SpeechEnded() if self._own_vad and self._speaking:
                self._speech_off("")
                self._link.hear(rt.UserSpeech(False))
            case DtmfDigit(digit=digit):
                self.tell(told.DTMFPressed, digit)
                self.spawn(self.host.pressed(self, digit), "key")
            case Level(rms_dbfs=rms, peak_dbfs=peak, direction=direction):
                self.tell(told.LevelHeard, rms, peak, direction)
                self.host.sign(self, "voice_level", {"dbfs": round(rms, 1), "direction": direction})
            case _:
                pass

    def noticed(self, signal: AudioSignal) -> None:
        """What a transport that looks for itself has noticed."""
        self._noticed(signal)

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
            self._speech_off(self._speech_name)
        self.pipeline.reset()
        self.spawn(self._link.tell(rt.ForgetInput()), "forget input")

    def _speech_on(self, name: str) -> None:
        if self._speaking:
            if name and name != self._speech_name:
                self._order.rename(self._speech_name, name)
                self._speech_name = name
            return
        self._speaking = True
        self._speech += 1
        self._speech_name = name or f"speech-{self._speech}"
        self._speech_began = self.at_ms
        if self.config.interruptible:
            self.interrupt("barge_in")
        self._order.began(self._speech_name, monotonic())
        self.tell(told.SpeechStart)
        self.host.sign(self, "voice_phase", {"phase": "hearing"})

    def _speech_off(self, name: str) -> None:
        if name and self._speech_name.startswith("speech-"):
            self._order.rename(self._speech_name, name)
            self._speech_name = name
        if not self._speaking:
            return
        self._speaking = False
        self._owed = self.config.responds and not self.held
        self.times.speech_ended(self.at_ms)
        self.tell(told.SpeechEnd, self.at_ms - self._speech_began)
        if self._provider.traits.writes_down:
            self._order.stopped(self._speech_name, monotonic())
            self._arm()
        else:
            self._place(self._order.said(self._speech_name, None, monotonic()))

    # -- what the model tells (LinkHost) -----------------------------------------------------------------------------

    def take(self, event: RealtimeEvent) -> None:
        """One event of the model's, in order; never waits."""
        match event:
            case rt.SpeechBegan(item_id=item_id):
                self._speech_on(item_id)
            case rt.SpeechStopped(item_id=item_id):
                self._speech_off(item_id)
            case rt.UserText():
                self._user_text(event)
            case rt.UserTextFailed(item_id=item_id, reason=reason):
                log.info("call %s: what was said could not be written down: %s", self.session.id, reason)
                self._place(self._order.said(item_id, None, monotonic()))
            case rt.ReplyBegan(reply_id=reply_id):
                self._reply_began(reply_id)
            case rt.ReplyAudio() | rt.ReplyText() | rt.ReplySaid():
                self._reply(event)
            case rt.ReplyOver():
                self._reply_over(event)
            case rt.Interrupted():
                if self.config.interruptible:
                    self._cut("barge_in")
            case rt.ToolAsked(reply_id=reply_id, call=call):
                self._tools.spawn(self._run_tool(reply_id, call), name=f"tool {call.name}")
            case rt.ToolsCancelled(call_ids=call_ids):
                self._unwanted.update(call_ids)
            case rt.LimitsTold(name=name, remaining=remaining, reset_s=reset_s):
                self.tell(rt.LimitNear, name, remaining, reset_s)
            case rt.Complaint(error=error):
                self._failed(error)
            case _:
                pass

    def _user_text(self, event: rt.UserText) -> None:
        now = monotonic()
        self._order.began(event.item_id, now)
        if not event.final:
            self.tell(told.PartialTranscript, event.text)
            data = {"text": event.text, "participant": self.session.participant_id, "item": event.item_id}
            self.host.sign(self, "voice_partial", data)
            return
        self.times.stamp("transcript", self.at_ms)
        text = event.text.strip()
        entry = Entry("user", text, event.item_id) if text else None
        self._place(self._order.said(event.item_id, entry, now))

    def _reply_began(self, reply_id: str) -> None:
        if self.held:
            self.spawn(self._link.tell(rt.CutReply()), "cut")
            self._voicing.cut(reply_id=reply_id)
            return
        self._replying, self._owed = reply_id, False
        self.turns += 1
        self.times.stamp("decided", self.at_ms)
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
        self.host.spent(self, event.usage)

    def _failed(self, error: Exception) -> None:
        log.warning("call %s: %s", self.session.id, error)
        self.host.sign(self, "voice_trouble", {"error": type(error).__name__})

    def moved(self, how: How, reason: str) -> None:
        """A new connection: what the old one had not finished saying ends here."""
        self.tell(rt.SessionMoved, how, reason)
        self.host.sign(self, "voice_moved", {"how": how})
        if self._replying:
            self._voicing.reply_over(self._replying)
            self._owed, self._replying = self._owed or not self._voicing.busy, ""
        if self._speaking:
            self._speech_off(self._speech_name)
            self._owed = False  # the provider's own ears have the rest of it
        if self._owed and how == "seeded" and not self._running:
            self._owed = False
            self.spawn(self._link.tell(rt.Respond()), "answer what was asked")

    def lost(self, error: Exception) -> None:
        self._failed(error)
        self.host.ended(self, "provider_lost")

    @property
    def quiet(self) -> bool:
        return not (self._speaking or self._replying or self._running or self._voicing.busy)

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
            self.spawn(self._link.tell(command, memory=self._link.memory), "cut")
            for later in said[1:]:
                self.spawn(self._link.tell(rt.CutReply(later.item.item_id, 0), memory=self._link.memory), "cut")
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
        self._place(self._order.add(Entry("assistant", text, said.item.item_id, metadata=more), monotonic()))

    def _moved(self, generation: int) -> None:
        if self.times.awaits_sound:
            self.times.stamp("first_audio", self.at_ms)
            late = self.times.late()
            self.tell(told.TurnTimes, self.turns, *late.values())
            self.host.sign(self, "voice_turn", {"turn": self.turns, **late})
            self.host.sign(self, "voice_phase", {"phase": "speaking"})

    async def sent(self) -> None:
        """Waits until everything that was said has been handed to the transport."""
        while self._voicing.busy and not self._playout.active:
            await asyncio.sleep(0.02)
        await self._playout.sent()

    def overhear(self, frame: AudioFrame) -> None:
        """What the others on the line say."""
        if self._voicing.open:
            self._playout.live(frame)

    # -- what the channel does ---------------------------------------------------------------------------------------

    async def inject(self, text: str, role: rt.InjectedRole, *, respond: bool) -> None:
        respond = respond and not self.held
        if await self._link.tell(rt.InjectText(text, role, respond)):
            self.tell(rt.TextInjected, text, role)

    async def reconfigure(self, config: RealtimeConfig, changed: frozenset[str]) -> None:
        """Raises `ProviderError`, then the session is as it was."""
        await self._link.reconfigure(config, changed)

    async def hold(self, held: bool) -> None:
        """A person takes the word from the model, or gives it back. Silence is immediate."""
        if held == self.held:
            return
        self.held = held
        if held:
            self.interrupt("take_over")
            self._owed = False
        if "responds" in self._provider.traits.reconfigures:
            await self._link.reconfigure(replace(self.config, responds=not held), frozenset({"responds"}))

    async def move(self, reason: str) -> None:
        """Goes over to a new connection now."""
        await self._link.move(reason)

    # -- tools -------------------------------------------------------------------------------------------------------

    async def _run_tool(self, reply_id: str, asked: ToolCallPart) -> None:
        memory = self._link.memory
        if self._voicing.dropped(reply_id) or self.held:
            output = "Not run: the caller interrupted, or a person has taken over."
            await self._link.tell(rt.ToolAnswer(asked.call_id, asked.name, output, True, silent=True), memory=memory)
            return
        if self.options.mute_on_tool_call:
            self._tool_mutes += 1
        try:
            result = await self.host.run_tool(self, asked, self._ready)
        finally:
            if self.options.mute_on_tool_call:
                self._tool_mutes -= 1
        self._end_tool(result.record)
        if asked.call_id in self._unwanted:
            self._unwanted.discard(asked.call_id)
            return
        answer = rt.ToolAnswer(asked.call_id, asked.name, result.output, result.is_error, silent=self.held)
        if not await self._link.tell(answer, memory=memory) and self.session.state is not SessionState.ENDED:
            await self._link.tell(rt.InjectText(f"{asked.name} gave: {result.output}", "system", not self.held))

    async def _ready(self, call: ToolCallContent) -> None:
        self._running[call.call_id] = call
        entry = Entry("tool_start", call=call, done=asyncio.get_running_loop().create_future())
        self._place(self._order.add(entry, monotonic()))
        assert entry.done is not None
        await entry.done

    def _end_tool(self, record: ToolCallContent) -> None:
        self._running.pop(record.call_id, None)
        entry = Placed(Entry("tool_end", call=record), monotonic())
        if not self._entries.closed:
            self._place([entry])

    # -- the log -----------------------------------------------------------------------------------------------------

    def _place(self, ready: list[Placed[Entry]]) -> None:
        for placed in ready:
            if not self._entries.closed and not self._entries.try_put(placed):
                log.error("call %s: the room does not keep up; something said is not written down", self.session.id)
        self._arm()

    def _arm(self) -> None:
        """One timer for words that are overdue."""
        due = self._order.deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None and self.session.state is not SessionState.ENDED:
            self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._place(self._order.tick(monotonic() + 0.001))

    async def _write(self) -> None:
        while True:
            try:
                placed = await self._entries.get()
            except BufferClosed:
                return
            await self.host.write(self, placed)
            done = placed.item.done
            if done is not None and not done.done():
                done.set_result(None)

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
            self._scope.spawn(_quietly(work), name=name)


async def _quietly(work: Awaitable[Any]) -> None:
    """What the model refuses in passing is told where it is noticed, and ends nothing."""
    try:
        await work
    except (ProviderError, SessionEnded) as error:
        log.info("a command to the model failed: %s", error)
