"""RealtimeVoiceChannel: calls with a model that hears and speaks by itself, in rooms (S114-S147)."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from roomkit.ai.tools import Tool, Toolbox, ToolSource
from roomkit.channels.live_tools import LiveTools, ToolRules, spec_of
from roomkit.channels.providers import find_provider
from roomkit.channels.realtime_room import RealtimeRoom
from roomkit.errors import ConfigError, RoomKitError, StateError, UsageError
from roomkit.models import voice as told
from roomkit.models.ai import ToolSpec
from roomkit.models.audio import SessionState, SpeechEnded, SpeechStarted, VoiceSession
from roomkit.models.content import SystemContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.realtime import InjectedRole, RealtimeConfig
from roomkit.models.room import Assurance, ChannelBinding, ChannelCapabilities, ChannelType
from roomkit.ports.ai import ToolHandler
from roomkit.ports.audio import BackendEvent, VoiceBackend
from roomkit.ports.channel import Channel, ChannelOutput, RoomContext, RoomPort
from roomkit.ports.realtime import RealtimeVoiceProvider
from roomkit.runtime import Scope
from roomkit.voice.bridge import MOST_CALLERS
from roomkit.voice.courtesy import turn_away
from roomkit.voice.pipeline import AudioPipelineConfig
from roomkit.voice.realtime.call import RealtimeCall, RealtimeCallOptions
from roomkit.voice.realtime.link import LinkOptions
from roomkit.voice.realtime.nobody import NoModel

log = logging.getLogger(__name__)
SPOKEN = ChannelCapabilities(audio=True, max_length=None)
_OVERRIDES = ("system_prompt", "voice", "temperature")


@dataclass(frozen=True, slots=True)
class RealtimeOptions:
    """What the seed's constructor does not have. Times in seconds.

    `greeting`: the model begins the call with these words. `language` is a BCP 47 tag. `pipeline` cleans the caller's
    voice; with a VAD in it we tell the model where speech begins and ends, else it finds that itself. `interruptible`
    False lets the model finish. `supervisors` are participants whose texts guide the model as "system" (D10).
    `history_events` of the room are what a new session knows. `addressed_to` says which AIs of the room are asked by
    what is said: nobody by default, the model answers already; None asks as usual. `provider_config` is the vendor's
    own. `transcripts_to` is who sees what was said, a visibility: "all", "internal", names. `transcript_wait_s` is how
    long the caller's words hold back what comes after them in the log.
    """

    greeting: str | None = None
    language: str | None = None
    pipeline: AudioPipelineConfig | None = None
    interruptible: bool = True
    supervisors: frozenset[str] = frozenset()
    history_events: int = 40
    addressed_to: tuple[str, ...] | None = ()
    provider_config: Mapping[str, Any] = field(default_factory=lambda: {})
    tools: ToolRules = field(default_factory=ToolRules)
    transcripts_to: str = "all"
    transcript_wait_s: float = 3.0
    link: LinkOptions = field(default_factory=LinkOptions)
    assurance: Assurance = Assurance.CLAIMED


class RealtimeVoiceChannel(Channel):
    """Speech-to-speech in rooms. One object carries many calls in many rooms.

    `provider` and `transport` are objects; a provider may be a name ("openai", "gemini:MODEL"), or "offline": the parts
    of the house, which need no key. `tools` are dictionaries as vendors write them or `ToolSpec`s, served by
    `tool_handler`, an async function (name, arguments) or a `Toolbox`.
    `input_sample_rate` and `output_sample_rate` are the provider's, in Hz, `transport_sample_rate` the transport's;
    without it the transport says its own. Sound is resampled wherever two of them differ.
    """

    reach = "cursor"
    personal = True

    def __init__(
        self,
        channel_id: str,
        *,
        provider: RealtimeVoiceProvider | str,
        transport: VoiceBackend,
        system_prompt: str | None = None,
        voice: str | None = None,
        tools: Sequence[Mapping[str, Any] | ToolSpec] | None = None,
        temperature: float | None = None,
        input_sample_rate: int = 16_000,
        output_sample_rate: int = 24_000,
        transport_sample_rate: int | None = None,
        emit_transcription_events: bool = True,
        tool_handler: ToolHandler | ToolSource | None = None,
        mute_on_tool_call: bool = False,
        tool_result_max_length: int = 16_384,
        options: RealtimeOptions | None = None,
    ) -> None:
        super().__init__(channel_id, ChannelType.REALTIME_VOICE, capabilities=SPOKEN)
        if tool_result_max_length < 1 or min(input_sample_rate, output_sample_rate, transport_sample_rate or 1) < 1:
            raise ConfigError("sample rates (in Hz) and tool_result_max_length (in characters) are positive")
        self.provider: RealtimeVoiceProvider = model_named(provider) if isinstance(provider, str) else provider
        self.backend = transport
        self.options = options or RealtimeOptions()
        self.emits_transcripts = emit_transcription_events
        self.tool_handler = tool_handler
        self.tool_result_max_length = tool_result_max_length
        self._specs = tuple(spec_of(each) for each in tools or ())
        if self.options.tools.budget is not None:
            self.options.tools.budget.serve(channel_id)
        functions = [each for each in self.options.tools.functions if not isinstance(each, ToolSource)]
        self._functions = Toolbox([each for each in functions if isinstance(each, Tool) or callable(each)])
        self._transport_rate = transport_sample_rate
        self._config = RealtimeConfig(
            system_prompt=system_prompt,
            voice=voice,
            temperature=temperature,
            language=self.options.language,
            input_rate=_fitting(input_sample_rate, self.provider.traits.input_rates),
            output_rate=_fitting(output_sample_rate, self.provider.traits.output_rates),
            own_vad=self.options.pipeline is not None and self.options.pipeline.vad is not None,
            interruptible=self.options.interruptible,
            extra=dict(self.options.provider_config),
        )
        self._call_options = RealtimeCallOptions(mute_on_tool_call, self.options.transcript_wait_s, self.options.link)
        self._scope = Scope(f"calls of {channel_id}")
        self._endings = Scope(f"ends of calls of {channel_id}")
        self._rooms: dict[str, RealtimeRoom] = {}
        self._calls: dict[str, RealtimeCall] = {}
        self._unhook: Callable[[], None] | None = None
        self._traces: list[Callable[[dict[str, Any]], None]] = []

    # -- the framework's side -------------------------------------------------------------------------

    def set_framework(self, port: RoomPort) -> None:
        super().set_framework(port)
        if self._unhook is None:
            self._unhook = self.backend.on_event(self._backend_event)

    def on_trace(self, observer: Callable[[dict[str, Any]], None], *, protocols: tuple[str, ...] | None = None) -> None:
        """Tells `observer` what happens on every call and every event of the transport, as dictionaries (S132).
        `protocols` keeps to some: "realtime", "usage", "transport"."""
        kinds = frozenset(protocols) if protocols else frozenset({"realtime", "usage", "transport"})
        self._traces.append(lambda line: observer(line) if line["protocol"] in kinds else None)

    def update_binding(self, binding: ChannelBinding) -> None:
        """Mute, access and visibility reach the sound of every live call of the room at once (S142)."""
        room = self._rooms.get(_key(binding.tenant, binding.room_id))
        if room is not None:
            room.gate(binding)

    async def on_event(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> ChannelOutput:
        """Words of other channels go into the sessions of the room (S144). Live rooms are heard without it."""
        room = self._rooms.get(_key(binding.tenant, binding.room_id))
        if room is not None:
            room.event(event)
        return ChannelOutput()

    async def close(self) -> None:
        """Ends every call and closes the transport and the provider."""
        for call in tuple(self._calls.values()):
            self.spawn(self.finish(call.session, "closed"), "end a call")
        await asyncio.sleep(0)  # each has begun to end
        await self._endings.drain()
        await self._scope.aclose()
        self._scope = Scope(f"calls of {self.channel_id}")
        if self._unhook is not None:
            self._unhook()
            self._unhook = None
        sources = (self.tool_handler, *self.options.tools.functions, self._functions)
        for source in sources:
            if isinstance(source, ToolSource):
                await source.aclose()
        await self.backend.aclose()
        await self.provider.aclose()

    # -- calls come and go ------------------------------------------------------------------------------

    async def start_session(
        self, room_id: str, participant_id: str, connection: Any, *, metadata: dict[str, Any] | None = None
    ) -> VoiceSession:
        """Connects a caller and the model, and takes them into a room (S134). `metadata` may override `system_prompt`,
        `voice`, `tools`, `temperature` and `provider_config` for this session; with `model: False` it is a person's
        own line, who hears the callers and is heard by them. `connection` is the transport's own, or a `VoiceSession`
        that is live on it.

        Raises `StateError` when the room does not take it, `ProviderError` when the model does not; then nothing is
        left open."""
        if isinstance(connection, VoiceSession):
            session = connection
            session.participant_id = session.participant_id or participant_id
            session.metadata.update(metadata or {})
        else:
            session = VoiceSession(
                f"call-{secrets.token_hex(8)}", participant_id=participant_id, metadata=dict(metadata or {})
            )
        try:
            if session is not connection:
                await _accept(self.backend, session, connection)
            await self.answer(session, room_id=room_id)
        except BaseException as error:
            await self._abandon(session, error)
            raise
        return session

    async def answer(
        self, session: VoiceSession, *, room_id: str | None = None, sender_id: str | None = None, **metadata: Any
    ) -> str:
        """Takes a call that is live on the transport into its room, the caller's own or `room_id`; the room's id.
        Raises as `start_session`."""
        try:
            message = InboundMessage(
                channel_id=self.channel_id,
                sender_id=sender_id or session.participant_id or session.id,
                participant_id=session.participant_id or None,
                content=SystemContent(code="call_started", data={"session": session.id, **metadata}),
                type=EventType.SYSTEM,
                external_id=f"call:{session.id}",
                assurance=session.assurance or self.options.assurance,
                metadata={"voice_session_id": session.id},
            )
            result = await self._port().process_inbound(message, room_id=room_id)
            if result.blocked or result.room_id is None:
                raise StateError(f"the call was not taken: {result.reason}")
            if not session.participant_id and result.event is not None:
                session.participant_id = result.event.source.participant_id or ""
            await self._begin(session, result.room_id, result.event)
        except BaseException as error:
            await self._abandon(session, error)
            raise
        return result.room_id

    async def connect_session(self, session: Any, room_id: str, binding: ChannelBinding) -> None:
        """A session that came with an inbound message (S140)."""
        if isinstance(session, VoiceSession):
            try:
                await self._begin(session, room_id)
            except BaseException as error:
                await self._abandon(session, error)
                raise
        else:
            await self.start_session(room_id, binding.participant_id or "", session)

    async def disconnect_session(self, session: Any, room_id: str) -> None:
        """Cleans up when the far end has gone (S141). Idempotent."""
        await self.finish(session, "disconnected")

    async def end_session(self, session: VoiceSession) -> None:
        """Hangs up, at the model and at the caller (S137). Idempotent."""
        await self.finish(session, "ended")

    async def finish(self, session: VoiceSession, reason: str) -> None:
        """Ends a call for a reason; what was heard of it stands in the room. Idempotent. It goes on to its end when the
        caller is cancelled; a tool of the call is not kept waiting, since the call waits for its tools."""
        call = self._calls.pop(session.id, None)
        if call is None:
            session.state = SessionState.ENDED
            return
        ending = self._endings.spawn(self._part(call, reason), name=f"end call {session.id}")
        if not call.tools.inside:
            await asyncio.shield(ending)

    async def _part(self, call: RealtimeCall, reason: str) -> None:
        session = call.session
        room = self._rooms.get(_key(session.tenant, session.room_id))
        if room is not None:
            room.bridge.leave(session.id)
        await call.aclose(reason)
        if room is not None:
            room.part(session.id)
            self._tidy(room)
        await self.backend.hang_up(session)

    def _tidy(self, room: RealtimeRoom) -> None:
        """A room without calls is heard no more."""
        if not room.calls and self._rooms.get(room.key) is room:
            del self._rooms[room.key]
            room.close()

    async def _begin(self, session: VoiceSession, room_id: str, asked: RoomEvent | None = None) -> None:
        if session.state is SessionState.ENDED:
            raise StateError(f"call {session.id} has ended")
        if session.id in self._calls:
            return
        port = self._port()
        session.room_id, session.channel_id, session.tenant = room_id, self.channel_id, port.tenant
        if self._transport_rate is not None:
            session.rate = self._transport_rate
        key = _key(port.tenant, room_id)
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = RealtimeRoom(self, port, room_id, key)
        if room.bridge.full and not session.listen_only:
            self._tidy(room)
            raise StateError(f'room "{room_id}" has {MOST_CALLERS} callers; more are not mixed')
        brain = session.metadata.get("model", True) and not session.listen_only
        provider = self.provider if brain else NoModel()
        audio = self.options.pipeline or AudioPipelineConfig(rate=self.rate, vad=None, dtmf=None, limiter=None)
        call = RealtimeCall(session, self.backend, provider, room, self._config, audio, self._call_options)
        self._calls[session.id] = room.calls[session.id] = call
        room.tools[session.id] = self._tools(session.metadata.get("tools"))
        if asked is not None:
            room.asked[session.id].caller = asked
        await room.opened()
        await self._prepare(call, room)
        await call.start()
        if session.id not in self._calls:  # it has gone meanwhile
            raise StateError(f"call {session.id} has ended")
        room.welcome(call)
        self._scope.spawn(self._listen(call), name=f"call {session.id}")
        session.started_at = port.now()
        call.tell(told.SessionStarted)
        if self.options.greeting and brain:
            self.spawn(
                call.inject(f"Begin the conversation with: {self.options.greeting}", "system", respond=True), "greet"
            )

    async def _prepare(self, call: RealtimeCall, room: RealtimeRoom) -> None:
        """The session as its metadata wants it, with the tools that it could run."""
        asked, tools = call.session.metadata, room.tools[call.session.id]
        await tools.open(self._port())
        context, turn = await room.context(call)
        await room.account.admit(call, turn)
        overrides = {name: asked[name] for name in _OVERRIDES if asked.get(name) is not None}
        extra = {**self._config.extra, **asked.get("provider_config", {})}
        call.configure(replace(self._config, tools=tools.offered(context, turn), extra=extra, **overrides))

    def _tools(self, override: Sequence[Mapping[str, Any] | ToolSpec] | None) -> LiveTools:
        specs = self._specs if override is None else tuple(spec_of(each) for each in override)
        tools = LiveTools(self.tool_handler, specs, self.options.tools, self._functions)
        if override is not None:
            tools.only = frozenset(spec.name for spec in specs)
        return tools

    async def _abandon(self, session: VoiceSession, why: BaseException) -> None:
        """A call that could not begin: the caller hears so, everything is let go, the reason is the host's."""
        await turn_away(self.backend, session, why)
        await self.finish(session, "not_started")

    async def _listen(self, call: RealtimeCall) -> None:
        await call.run()
        if call.session.id in self._calls:
            await self.finish(call.session, "hung_up")

    def _backend_event(self, event: BackendEvent) -> None:
        call = self._calls.get(event.session.id)
        self.trace("transport", event.session.id, event=event.kind, data=event.data)
        if call is None:
            if event.kind == "disconnected":
                event.session.state = SessionState.ENDED
            return
        match event.kind:
            case "disconnected":
                self.spawn(self.finish(call.session, "disconnected"), "hang up")
            case "dtmf":
                call.noticed(event.data)
            case "speech_started":
                call.noticed(SpeechStarted(0))
            case "speech_ended":
                call.noticed(SpeechEnded(0))
            case _:
                pass

    # -- what the host does with calls ------------------------------------------------------------------

    def sessions(self, room_id: str | None = None) -> list[VoiceSession]:
        """The live calls, of one room or all."""
        return [call.session for call in self._calls.values() if room_id in (None, call.session.room_id)]

    async def inject_text(self, session: VoiceSession, text: str, *, role: InjectedRole = "user") -> None:
        """A text turn that the model answers: nudges a provider whose ears have stalled (S133)."""
        await self._call(session).inject(text, role, respond=True)

    async def reconfigure_session(
        self,
        session: VoiceSession,
        *,
        system_prompt: str | None = None,
        voice: str | None = None,
        tools: Sequence[Mapping[str, Any] | ToolSpec] | None = None,
        temperature: float | None = None,
        provider_config: dict[str, Any] | None = None,
    ) -> None:
        """Changes this session, and no other (D12); None keeps what there is. What a provider cannot change within a
        session moves the call to a new one that remembers the conversation; the caller's line stays up. Raises
        `ProviderError`, then the session is as it was; `StateError` when the call is over."""
        call = self._call(session)
        room = self._rooms[_key(session.tenant, session.room_id)]
        given = {"system_prompt": system_prompt, "voice": voice, "temperature": temperature}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        before = room.tools[session.id]
        if tools is not None:
            after = self._tools(tools)
            await after.open(self._port())
            context, turn = await room.context(call)
            changes["tools"] = after.offered(context, turn)
            room.tools[session.id] = after
        if provider_config is not None:
            changes["extra"] = {**call.config.extra, **provider_config}
        changed = frozenset(name for name, value in changes.items() if getattr(call.config, name) != value)
        if changed:
            try:
                await call.link.reconfigure(replace(call.config, **changes), changed)
            except RoomKitError:
                room.tools[session.id] = before
                raise

    async def interrupt(self, session: VoiceSession, *, reason: str = "explicit") -> bool:
        """Stops what the model says; False when it says nothing."""
        return self._call(session).interrupt(reason)

    async def wait_playback_done(self, session: VoiceSession) -> None:
        """Waits until what was said has been handed to the transport."""
        await self._call(session).sent()

    @property
    def rate(self) -> int:
        """The working rate of the audio, in Hz."""
        if self.options.pipeline is not None:
            return self.options.pipeline.rate
        rate = self._transport_rate or self.backend.traits.rate
        return rate if rate in (8_000, 16_000, 24_000, 48_000) else 16_000

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """A task that ends with the channel; what the model or the room refuses is logged."""
        task = self._scope.spawn(_logged(work), name=name)
        task.add_done_callback(lambda _: work.close())  # cancelled before it began, it is not missed

    def trace(self, protocol: str, session_id: str, **line: Any) -> None:
        for observer in self._traces:
            observer({"protocol": protocol, "session": session_id, **line})

    def _call(self, session: VoiceSession) -> RealtimeCall:
        call = self._calls.get(session.id)
        if call is None:
            raise StateError(f"call {session.id} is not live on channel {self.channel_id}")
        return call

    def _port(self) -> RoomPort:
        if self.port is None:
            raise StateError(
                f'register RealtimeVoiceChannel "{self.channel_id}" with a kit first: kit.register_channel(channel)'
            )
        return self.port


async def _accept(backend: VoiceBackend, session: VoiceSession, connection: Any) -> None:
    accept: Callable[[VoiceSession, Any], Awaitable[None]] | None = getattr(backend, "accept", None)
    if accept is None:
        raise UsageError(
            f"{type(backend).__name__} takes calls by itself: call answer(session), or pass the VoiceSession as "
            "connection"
        )
    await accept(session, connection)


async def _logged(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except RoomKitError as error:
        log.warning("%s", error)


def model_named(name: str) -> RealtimeVoiceProvider:
    """A vendor's ("openai", "gemini:MODEL"); "offline": the recogniser, the demo brain and the synthesiser of the
    house, which need no key; "parrot": says what it hears, for trying lines."""
    if name == "parrot":
        from roomkit.voice.realtime.parrot import ParrotRealtime

        return ParrotRealtime()
    if name != "offline":
        return find_provider(name, "realtime")
    from roomkit.ai.named import provider_named
    from roomkit.voice.realtime.cascade import CascadeRealtime

    stt, tts = find_provider("sphinx", "stt"), find_provider("espeak", "tts")
    return CascadeRealtime(stt, provider_named("offline"), tts, owns=True)


def _fitting(rate: int, known: Sequence[int]) -> int:
    """The rate that was asked for where the provider knows it, else the provider's own: sound is resampled to it."""
    return rate if not known or rate in known else known[0]


def _key(tenant: str, room_id: str) -> str:
    return f"{tenant}\n{room_id}"
