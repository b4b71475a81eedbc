"""VoiceChannel: calls in rooms. What a caller says becomes messages, what the room says is spoken (S75-S113)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from roomkit.channels.providers import find_provider
from roomkit.channels.voice_line import VoiceLine, key_of
from roomkit.errors import ConfigError, StateError, UsageError
from roomkit.models import voice as told
from roomkit.models.audio import AudioFrame, SessionState, SpeechEnded, SpeechStarted, VoiceSession
from roomkit.models.content import SystemContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventType
from roomkit.models.room import Assurance, ChannelBinding, ChannelCapabilities, ChannelType
from roomkit.ports.ai import Foresight
from roomkit.ports.audio import BackendEvent, VoiceBackend
from roomkit.ports.channel import Channel, RoomPort
from roomkit.ports.speech import STT, TTS
from roomkit.runtime import Scope
from roomkit.voice.bridge import MOST_CALLERS
from roomkit.voice.call import Call, CallOptions
from roomkit.voice.courtesy import turn_away
from roomkit.voice.interruption import Interruption
from roomkit.voice.mouth import Utterance
from roomkit.voice.pipeline import AudioPipelineConfig
from roomkit.voice.sentences import FilterChoice
from roomkit.voice.turn import TurnOptions

log = logging.getLogger(__name__)

SPOKEN = ChannelCapabilities(audio=True, max_length=None)


@dataclass(frozen=True, slots=True)
class VoiceOptions:
    """What the seed's constructor does not have. `greeting` is said when a call is in its room; `filler` when an answer
    is late, `reprompt` when nobody says anything, `apology` when no answer came, `again` instead of the greeting when a
    call was cut off and is back: True says it in the house's own words (English, German, French, Spanish), None
    nothing. `clip` is a WAV file for when no voice can be had (three notes without one). The key `human_key`, pressed
    alone, calls a person; None is no key. `language` is a BCP 47 tag, by default the room's. `turns` sets every limit
    of turn taking; `interruption` and the barge-in settings of the channel go before its `speaking`. `assurance` is how
    well callers are known (`answer` knows it of one call). `ahead` (`roomkit.ai.ahead.Ahead`) begins to think before
    the turn is over; not where a guard of transcripts, commits or generations might change what the model may see."""

    greeting: str | None = None
    filler: str | Literal[True] | None = True
    reprompt: str | Literal[True] | None = True
    apology: str | Literal[True] | None = True
    again: str | Literal[True] | None = True
    clip: str | Path | None = None
    ahead: Foresight | None = None
    human_key: str | None = "0"
    language: str | None = None
    turns: TurnOptions = field(default_factory=TurnOptions)
    assurance: Assurance = Assurance.CLAIMED


class VoiceChannel(Channel):
    """Real-time voice in rooms. One object carries many calls in many rooms.

    `stt`, `tts` and `backend` are objects or names ("sphinx", "espeak", "deepgram:nova-3", "webaudio"). Without
    `pipeline` the backend must detect speech by itself. `batch_mode` collects audio until `flush_stt`; it raises
    `ConfigError` together with a VAD or without `stt` (S91).
    """

    reach = "cursor"
    personal = True

    def __init__(
        self,
        channel_id: str,
        *,
        stt: STT | str | None = None,
        tts: TTS | str | None = None,
        backend: VoiceBackend | str | None = None,
        pipeline: AudioPipelineConfig | None = None,
        streaming: bool = True,
        enable_barge_in: bool = True,
        barge_in_threshold_ms: int = 200,
        interruption: Interruption | None = None,
        batch_mode: bool = False,
        voice_map: dict[str, str] | None = None,
        max_audio_frames_per_second: int | None = None,
        tts_filter: FilterChoice = None,
        options: VoiceOptions | None = None,
    ) -> None:
        super().__init__(channel_id, ChannelType.VOICE, capabilities=SPOKEN)
        if batch_mode and stt is None:
            raise ConfigError("batch_mode needs stt=: there is nothing to transcribe with")
        if batch_mode and pipeline is not None and pipeline.vad is not None:
            raise ConfigError("batch_mode hears everything until flush_stt: set AudioPipelineConfig(vad=None)")
        self.backend: VoiceBackend | None = find_provider(backend, "audio") if isinstance(backend, str) else backend
        self.stt: STT | None = find_provider(stt, "stt") if isinstance(stt, str) else stt
        self.tts: TTS | None = find_provider(tts, "tts") if isinstance(tts, str) else tts
        self.voice_map = dict(voice_map or {})
        self.options = options or VoiceOptions()
        self.greeting = self.options.greeting
        self._pipeline = pipeline or AudioPipelineConfig(vad=None, dtmf=None, limiter=None)
        self.keepers = tuple(tap for tap in self._pipeline.taps if hasattr(tap, "erase_person"))
        """Who keeps something of calls, and gives it up when somebody is erased."""
        self._tts_filter: FilterChoice = tts_filter
        self._streaming = streaming
        self._batch = batch_mode
        self._frames_per_s = max_audio_frames_per_second
        rule = interruption or _rule(enable_barge_in, barge_in_threshold_ms)
        self._turns = replace(self.options.turns, speaking=rule, language=self.options.language)
        self._scope = Scope(f"calls of {channel_id}")
        self._lines: dict[str, VoiceLine] = {}
        self._calls: dict[str, Call] = {}
        self._unhook: Callable[[], None] | None = None
        self._traces: list[Callable[[dict[str, Any]], None]] = []

    # -- the framework's side ---------------------------------------------------------------------

    @property
    def supports_streaming_delivery(self) -> bool:
        """Whether a reply can be spoken while it is written (S100)."""
        return self._streaming and self.tts is not None and self.backend is not None

    def set_framework(self, port: RoomPort) -> None:
        super().set_framework(port)
        if self.backend is not None and self._unhook is None:
            self._unhook = self.backend.on_event(self._backend_event)

    def on_trace(self, observer: Callable[[dict[str, Any]], None], *, protocols: tuple[str, ...] | None = None) -> None:
        """Tells `observer` every effect of every call and every event of the transport, as dictionaries (S102).
        `protocols` keeps to some: "turn", "transport"."""
        kinds = frozenset(protocols) if protocols else frozenset({"turn", "transport"})
        self._traces.append(lambda line: observer(line) if line["protocol"] in kinds else None)

    def update_binding(self, binding: ChannelBinding) -> None:
        """Mute, access and visibility reach the audio of every live call of the room at once (S106, S107)."""
        line = self._lines.get(key_of(binding.tenant, binding.room_id))
        if line is not None:
            line.gate(binding)

    def update_voice_map(self, voices: dict[str, str]) -> None:
        """Merges voices, by the id of the channel that speaks (S108)."""
        self.voice_map.update(voices)

    async def close(self) -> None:
        """Hangs up every call and closes the transport, the recogniser and the synthesiser."""
        for call in tuple(self._calls.values()):
            await self.disconnect_session(call.session, call.session.room_id)
        await self._scope.aclose()
        self._scope = Scope(f"calls of {self.channel_id}")
        if self._unhook is not None:
            self._unhook()
            self._unhook = None
        for part in (self.backend, self.stt, self.tts):
            if part is not None:
                await part.aclose()

    # -- calls come and go --------------------------------------------------------------------------

    async def answer(
        self,
        session: VoiceSession,
        *,
        room_id: str | None = None,
        sender_id: str | None = None,
        assurance: Assurance | None = None,
        briefing: str | None = None,
        **metadata: Any,
    ) -> str:
        """Takes a call into its room, the caller's own or `room_id`; the room's id. `assurance` is how well this caller
        is known, for all they say in this call; None is what the session says, or the channel. With `briefing` they are
        told that first, alone and without being heard, until it is over or they press a key, and then they are let in;
        it returns then. Raises `StateError` when the room does not take it: the caller has heard three falling notes
        then, and is hung up."""
        try:
            session.assurance = assurance or session.assurance or self.options.assurance
            port = self._port()
            message = InboundMessage(
                channel_id=self.channel_id,
                sender_id=sender_id or session.participant_id or session.id,
                participant_id=session.participant_id or None,
                content=SystemContent(code="call_started", data={"session": session.id, **metadata}),
                type=EventType.SYSTEM,
                external_id=f"call:{session.id}",
                assurance=session.assurance,
                metadata={"voice_session_id": session.id},
            )
            result = await port.process_inbound(message, room_id=room_id)
            if result.blocked or result.room_id is None:
                raise StateError(f"the call was not taken: {result.reason}")
            if not session.participant_id and result.event is not None:
                session.participant_id = result.event.source.participant_id or ""
            await self._bind(session, result.room_id, briefing=briefing)
            return result.room_id
        except BaseException as error:
            await turn_away(self._backend(), session, error)
            raise

    async def connect_session(self, session: Any, room_id: str, binding: ChannelBinding) -> None:
        """A session that came with an inbound message (S104)."""
        await self._bind(session, room_id, binding)

    def bind_session(self, session: VoiceSession, room_id: str, binding: ChannelBinding | None = None) -> None:
        """Binds a session to a room from anywhere on the loop; its audio flows as soon as the room is open (S103)."""
        self._scope.spawn(self._bind(session, room_id, binding), name=f"bind call {session.id}")

    async def disconnect_session(self, session: Any, room_id: str) -> None:
        """Cleans up when the far end has gone, or hangs up (S105). Idempotent, also before `bind_session` (rule 49)."""
        call = self._calls.pop(session.id, None)
        if call is None:
            session.state = SessionState.ENDED
            return
        line = self._lines.get(key_of(session.tenant, session.room_id))
        if line is not None:
            line.part(session)
            if not line.calls:
                line.close()
                self._lines.pop(line.key, None)
        await call.aclose()
        await self._backend().hang_up(session)

    async def _bind(
        self,
        session: VoiceSession,
        room_id: str,
        binding: ChannelBinding | None = None,
        *,
        briefing: str | None = None,
    ) -> None:
        """Whatever keeps the room from taking the call, and whichever way it came, the caller is turned away."""
        if session.state is SessionState.ENDED or session.id in self._calls:
            return
        try:
            port = self._port()
            session.room_id, session.channel_id, session.tenant = room_id, self.channel_id, port.tenant
            key = key_of(port.tenant, room_id)
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = VoiceLine(self, port, room_id)
            if line.bridge.full and not session.listen_only:
                raise StateError(f'room "{room_id}" has {MOST_CALLERS} callers; more are not mixed')
            options = CallOptions(
                turns=self._turns,
                streaming=self._streaming,
                batch=self._batch,
                language=self.options.language,
                voice_for=self.voice_map.get,
                tts_filter=self._tts_filter,
                frames_per_s=self._frames_per_s,
                phrase=line.phrase,
                human_key=self.options.human_key,
                clip=self.options.clip,
                ahead=self.options.ahead,
            )
            call = Call(session, self._backend(), line, self._pipeline, options, stt=self.stt, tts=self.tts)
            self._calls[session.id] = line.calls[session.id] = call
            for part in (self.stt, self.tts):
                # What has something to make ready does so behind the greeting, not behind the first words.
                begin = getattr(part, "start", None)
                if begin is not None:
                    self._scope.spawn(begin(), name="make speech ready")
            await line.opened()
        except BaseException as error:
            await turn_away(self._backend(), session, error)
            await self.disconnect_session(session, room_id)
            raise
        if briefing is None:
            line.welcome(call)
        else:
            call.hearing.open = False
        self._scope.spawn(self._listen(call), name=f"call {session.id}")
        call.tell(told.SessionStarted)
        if briefing is not None:
            await call.said(briefing)
            if session.id in self._calls:
                line.welcome(call)
            return
        words = line.phrase("again") if session.metadata.get("again") else self.greeting
        if words:
            call.say(words)

    async def _listen(self, call: Call) -> None:
        try:
            await call.run()
        finally:
            if call.session.id in self._calls:
                await self.disconnect_session(call.session, call.session.room_id)

    def _backend_event(self, event: BackendEvent) -> None:
        call = self._calls.get(event.session.id)
        self.trace("transport", event.session.id, event=event.kind, data=event.data)
        if call is None:
            if event.kind == "disconnected":
                event.session.state = SessionState.ENDED
            return
        match event.kind:
            case "disconnected":
                self._scope.spawn(self.disconnect_session(call.session, call.session.room_id), name="hang up")
            case "dtmf":
                call.hearing.noticed(event.data)
            case "speech_started":
                call.hearing.noticed(SpeechStarted(0))
            case "speech_ended":
                call.hearing.noticed(SpeechEnded(0))
            case _:
                pass

    # -- what the host does with calls --------------------------------------------------------------

    def sessions(self, room_id: str | None = None) -> list[VoiceSession]:
        """The live calls, of one room or all."""
        return [call.session for call in self._calls.values() if room_id in (None, call.session.room_id)]

    async def say(self, session: VoiceSession, text: str) -> None:
        """Says a text to one caller when nobody has the word. It is spoken, not written into the room."""
        self._call(session).say(text)

    async def play(self, session: VoiceSession, frames: AsyncIterator[AudioFrame]) -> None:
        """Plays a sound to one caller when nobody has the word: frames at the pipeline's rate
        (`roomkit.voice.sound.frames_of` reads WAV files)."""
        self._call(session).speak(Utterance(self.channel_id, frames=frames), answer=False)

    async def send_greeting(self, session: VoiceSession) -> None:
        if self.greeting:
            self._call(session).say(self.greeting)

    async def send_dtmf(self, session: VoiceSession, digits: str, *, duration_ms: int = 160) -> None:
        """Presses keys towards the far end: 0-9, *, #, A-D; 1 to 10,000 ms each, played as tones. Raises
        `UsageError` for other keys."""
        if not digits or any(digit not in "0123456789*#ABCD" for digit in digits) or not 1 <= duration_ms <= 10_000:
            raise UsageError(f"send_dtmf takes keys 0-9, *, #, A-D and 1 to 10000 ms, not {digits!r} for {duration_ms}")
        from roomkit.voice.sound import tones

        call = self._call(session)
        await self.play(session, tones(digits, duration_ms, call.pipeline.rate))

    async def interrupt(self, session: VoiceSession, *, reason: str = "explicit") -> bool:
        """Stops what is being said to one caller; False when nothing is (S109)."""
        return self._call(session).interrupt(reason)

    async def interrupt_all(self, room_id: str, *, reason: str = "explicit") -> int:
        """Stops what is being said to anybody in a room; to how many something was (S110)."""
        return sum(call.interrupt(reason) for call in self._in(room_id))

    async def wait_playback_done(self, room_id: str, timeout: float = 15.0) -> None:
        """Waits until everything said in a room has been handed to the transports, at most `timeout` seconds; at once
        when nothing plays. Echoes may still die away (S111-S113)."""
        calls = self._in(room_id)
        if calls:
            async with asyncio.timeout(timeout):
                for call in calls:
                    await call.playout.sent()

    async def flush_stt(self, session: VoiceSession) -> str:
        """Batch mode: the text of what came since the last flush (S92)."""
        return await self._call(session).hearing.flush()

    # -- small things -------------------------------------------------------------------------------

    @property
    def rate(self) -> int:
        """The working rate of the audio, in Hz."""
        return self._pipeline.rate

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A task that ends with the channel."""
        self._scope.spawn(work, name=name)

    def trace(self, protocol: str, session_id: str, **line: Any) -> None:
        for observer in self._traces:
            observer({"protocol": protocol, "session": session_id, **line})

    def _in(self, room_id: str) -> list[Call]:
        return [call for call in self._calls.values() if call.session.room_id == room_id]

    def _call(self, session: VoiceSession) -> Call:
        call = self._calls.get(session.id)
        if call is None:
            raise StateError(f"call {session.id} is not live on channel {self.channel_id}")
        return call

    def _backend(self) -> VoiceBackend:
        if self.backend is None:
            raise ConfigError(f'VoiceChannel "{self.channel_id}" has no backend=: there is no audio to carry')
        return self.backend

    def _port(self) -> RoomPort:
        if self.port is None:
            raise StateError(
                f'register VoiceChannel "{self.channel_id}" with a kit first: kit.register_channel(channel)'
            )
        return self.port


def _rule(enabled: bool, threshold_ms: int) -> Interruption:
    """The seed's two settings as a rule (D3)."""
    from roomkit.voice.interruption import Strategy

    return Interruption(Strategy.IMMEDIATE if enabled else Strategy.DISABLED, protect_ms=threshold_ms)
