"""RealtimeKitAgent: a speech-to-speech model as one more user of a real-time channel."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from roomkit.dsp.framing import Reblock
from roomkit.dsp.resample import Resampler
from roomkit.models import realtime as rt
from roomkit.models.ai import ToolCallPart
from roomkit.models.audio import FRAME_MS
from roomkit.models.realtime import PastTurn, RealtimeConfig, RealtimeEvent
from roomkit.ports.realtime import RealtimeVoiceProvider
from roomkit.ports.rtc import ChatMessage, RtcChannel, RtcEngine, RtcEvent, RtcOptions
from roomkit.runtime import BlockingBuffer, BufferClosed, Scope, bounded, monotonic
from roomkit.servers.realtime_agent.pcm import PCMWriter
from roomkit.servers.realtime_agent.tools import (
    ClientToolCallResponse,
    LocalToolCallExecuted,
    ShouldPassThroughToolCall,
    ToolContext,
)
from roomkit.voice.realtime.link import How, Link

log = logging.getLogger(__name__)
USER_S = 30.0
"""How long a user is waited for."""
CLIENT_TOOL_S = 30.0
LEAD_MS = 100.0
"""How far ahead of the sound frames are pushed."""
MOST_FRAMES = 30_000
LONG_QUEUE = 3_000
"""Frames of 20 ms; a model that is a minute ahead says too much at once."""
PAST_TURNS = 40
AUDIBLE_S = 0.3
"""A user of whom nothing has come for so long is not speaking."""


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """What the model is to be. `turn_detection` is the vendor's own settings of its speech detection."""

    system_message: str | None = None
    turn_detection: dict[str, Any] | None = None
    voice: str | None = None
    language: str | None = None


def _monitor_queue_size(size: int, queue_name: str, threshold: int = LONG_QUEUE) -> None:
    """Warns where a queue has grown to a multiple of `threshold`."""
    if size and size % threshold == 0:
        log.warning("queue %s has grown to %d", queue_name, size)


async def wait_for_remote_user(channel: RtcChannel, timeout: float = USER_S) -> int:
    """The first user there is, or comes. Raises `TimeoutError` after `timeout` seconds."""
    for uid in channel.remote_users:
        return uid
    joined: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def note(event: RtcEvent) -> None:
        if event.kind == "user_joined" and not joined.done():
            joined.set_result(event.uid)

    leave = channel.observe(note)
    try:
        return await bounded(joined, timeout, "waiting for a user")
    finally:
        leave()


@dataclass(eq=False, slots=True)
class _Item:
    """One thing that the model says, and how much of it has been pushed."""

    reply_id: str
    item_id: str
    words: str = ""
    pushed_ms: float = 0.0
    frames: Reblock | None = None
    cut: bool = False
    said: bool = False


@dataclass(slots=True)
class _Turns:
    """What was said, for a new connection."""

    past: deque[PastTurn] = field(default_factory=lambda: deque[PastTurn](maxlen=PAST_TURNS))


class RealtimeKitAgent:
    """One agent in one channel: `run` serves the first user until either side leaves. `user_s` is how long the user is
    waited for."""

    def __init__(
        self,
        connection: RealtimeVoiceProvider,
        tools: ToolContext | None,
        channel: RtcChannel,
        *,
        config: RealtimeConfig | None = None,
        options: RtcOptions | None = None,
        user_s: float = USER_S,
        joined: Callable[[], None] | None = None,
    ) -> None:
        self.channel = channel
        self.tools = tools
        self.subscribe_user: int | None = None
        self.write_pcm = os.environ.get("WRITE_AGENT_PCM", "false") == "true" or bool(
            options and options.enable_pcm_dump
        )
        self._joined = joined
        self.audio_queue: BlockingBuffer[tuple[_Item, bytes]] = BlockingBuffer(MOST_FRAMES)
        self.message_queue: BlockingBuffer[ChatMessage] = BlockingBuffer(1_000)
        self._rate = options.sample_rate if options is not None else 24_000
        self._user_s = user_s
        self._scope = Scope("realtime agent", on_failure=lambda _: self._end("failed"))
        self._link = Link(connection, config or RealtimeConfig(), self._scope, self)
        self._down: dict[int, Resampler] = {}
        self._items: dict[str, _Item] = {}
        self._turns = _Turns()
        self._cut: deque[str] = deque(maxlen=64)
        self._client_tool_futures: dict[str, asyncio.Future[ClientToolCallResponse]] = {}
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._clock_at = 0.0
        self._clock_ms = 0.0
        self._replying = ""
        self._speaking = False
        self._heard_at = 0.0
        self._owed = False
        self._running = 0

    @classmethod
    async def setup_and_run_agent(
        cls,
        engine: RtcEngine,
        options: RtcOptions,
        inference_config: InferenceConfig,
        tools: ToolContext | None,
        *,
        provider: RealtimeVoiceProvider,
        user_s: float = USER_S,
        joined: Callable[[], None] | None = None,
    ) -> str:
        """Joins the channel, serves its first user and leaves again; why it ended. `joined` hears when the agent is
        there, and its model. Raises `TimeoutError` when nobody comes, `ProviderError` when the network or the model
        cannot be reached."""
        channel = engine.create_channel(options)
        await channel.connect()
        try:
            traits = provider.traits
            extra: dict[str, Any] = {}
            if inference_config.turn_detection is not None and provider.name == "openai":
                extra["turn_detection"] = inference_config.turn_detection
            config = RealtimeConfig(
                system_prompt=inference_config.system_message,
                voice=inference_config.voice,
                language=inference_config.language,
                tools=tools.specs if tools is not None else (),
                input_rate=_fitting(options.sample_rate, traits.input_rates),
                output_rate=_fitting(options.sample_rate, traits.output_rates),
                extra=extra,
            )
            agent = cls(provider, tools, channel, config=config, options=options, user_s=user_s, joined=joined)
            return await agent.run()
        finally:
            await channel.disconnect()
            await provider.aclose()

    async def run(self) -> str:
        """Serves one user; why it ended: "user_left", "disconnected", "model_lost" or "failed" (the network takes or
        gives no sound any more)."""
        leave = self.channel.observe(self._note)
        try:
            await self._link.open()
            if self._joined is not None:
                self._joined()
            log.info("waiting for a user")
            self.subscribe_user = await wait_for_remote_user(self.channel, self._user_s)
            await self.channel.subscribe_audio(self.subscribe_user)
            log.info("user %d is heard", self.subscribe_user)
            self._link.start()
            for name, work in (
                ("rtc_to_model", self.rtc_to_model()),
                ("model_to_rtc", self.model_to_rtc()),
                ("messages", self._send_messages()),
            ):
                self._scope.spawn(work, name=name)
            return await self._over
        finally:
            leave()
            await self._link.aclose()
            self.message_queue.close()
            await self._scope.drain(1.0)
            await self._scope.aclose()
            if self.tools is not None:
                self.tools.close()

    def _note(self, event: RtcEvent) -> None:
        match event.kind:
            case "user_left" if event.uid == self.subscribe_user:
                self._end("user_left")
            case "connection_state_changed" if event.data == "disconnected":
                self._end("disconnected")
            case "chat_message":
                self._client_said(str(event.data))
            case _:
                pass

    def _end(self, why: str) -> None:
        log.info("the agent ends: %s", why)
        self.audio_queue.close()
        if not self._over.done():
            self._over.set_result(why)

    # -- sound ----------------------------------------------------------------------------------------

    async def rtc_to_model(self) -> None:
        """The user's voice to the model."""
        assert self.subscribe_user is not None, "a user is there"
        up = Resampler(self._rate, self._link.config.input_rate)
        writer = PCMWriter("rtc_to_model", self.write_pcm)
        try:
            async for frame in self.channel.get_audio_frames(self.subscribe_user):
                await writer.write(frame)
                self._heard_at = monotonic()
                if pcm := up.process(frame):
                    self._link.hear(rt.AppendAudio(pcm))
        finally:
            await writer.aclose()

    async def model_to_rtc(self) -> None:
        """The model's voice to the user, at the pace of sound: what came too early can still be taken back."""
        writer = PCMWriter("model_to_rtc", self.write_pcm)
        try:
            while True:
                try:
                    item, frame = await self.audio_queue.get()
                except BufferClosed:
                    return
                delay = self._ahead_ms() - LEAD_MS
                if delay > 0:
                    await asyncio.sleep(delay / 1000)
                if item.cut:
                    continue
                ms = len(frame) * 500 / self._rate
                if self._ahead_ms() <= 0:
                    self._clock_at, self._clock_ms = monotonic(), 0.0
                self._clock_ms += ms
                item.pushed_ms += ms
                await writer.write(frame)
                await self.channel.push_audio_frame(frame)
        finally:
            await writer.aclose()

    def _ahead_ms(self) -> float:
        """How much was pushed and has not sounded yet."""
        return max(0.0, self._clock_ms - (monotonic() - self._clock_at) * 1000)

    # -- what the model tells (LinkHost) --------------------------------------------------------------

    def take(self, event: RealtimeEvent) -> None:
        match event:
            case rt.SpeechBegan():
                self._speaking = True
                self._interrupt()
            case rt.SpeechStopped():
                self._speaking, self._owed = False, True
            case rt.Interrupted():
                self._interrupt()
            case rt.ReplyBegan(reply_id=reply_id):
                self._replying, self._owed = reply_id, False
                if self._speaking and monotonic() - self._heard_at < AUDIBLE_S:
                    self._interrupt()  # asked for before the user began
            case rt.ReplyOver(reply_id=reply_id) if reply_id == self._replying:
                self._replying = ""
            case rt.ReplyAudio():
                self._audio(event)
            case rt.ReplyText() | rt.ReplySaid() | rt.UserText():
                self._words(event)
            case rt.ToolAsked(call=call):
                self._scope.spawn(self._run_tool(call), name=f"tool {call.name}")
            case rt.Complaint(error=error):
                log.warning("the model complains: %s", error)
            case _:
                pass

    def _audio(self, event: rt.ReplyAudio) -> None:
        if event.reply_id in self._cut:
            return
        item = self._item(event.reply_id, event.item_id)
        pcm, rate = event.frame.pcm, event.frame.rate
        if rate != self._rate:
            pcm = self._down.setdefault(rate, Resampler(rate, self._rate)).process(pcm)
        if item.frames is None:
            item.frames = Reblock(self._rate * FRAME_MS // 1000 * 2)
        for block in item.frames.push(pcm):
            if not self.audio_queue.closed and not self.audio_queue.try_put((item, block)):
                log.warning("the model says too much at once: a piece is left out")
            _monitor_queue_size(len(self.audio_queue), "audio_queue")

    def _words(self, event: rt.ReplyText | rt.ReplySaid | rt.UserText) -> None:
        match event:
            case rt.ReplyText(reply_id=reply_id, item_id=item_id, delta=delta) if reply_id not in self._cut:
                self._item(reply_id, item_id).words += delta
                self._chat(item_id, "response.output_audio_transcript.delta", item_id=item_id, delta=delta)
            case rt.ReplySaid(item_id=item_id, text=text) if item_id in self._items:
                whole = text or self._items[item_id].words
                self._items[item_id].said = True
                self._turns.past.append(PastTurn("assistant", whole))
                self._chat(item_id, "response.output_audio_transcript.done", item_id=item_id, transcript=whole)
            case rt.UserText(item_id=item_id, text=text, final=True) if text:
                self._turns.past.append(PastTurn("user", text))
                kind = "conversation.item.input_audio_transcription.completed"
                self._chat(item_id, kind, item_id=item_id, transcript=text)
            case _:
                pass

    def _item(self, reply_id: str, item_id: str) -> _Item:
        item = self._items.get(item_id)
        if item is None:
            item = self._items[item_id] = _Item(reply_id, item_id)
            if len(self._items) > PAST_TURNS:
                del self._items[next(iter(self._items))]
        return item

    def _interrupt(self) -> None:
        """The user speaks: the queue is cleared here and at the network, and the model told what was heard."""
        ahead = self._ahead_ms()
        unheard = ahead > 0 or len(self.audio_queue) > 0
        current = next((one for one in reversed(self._items.values()) if one.pushed_ms and not one.cut), None)
        if not unheard and not self._replying:
            return
        for item in self._items.values():
            item.cut = True
            if item.reply_id not in self._cut:
                self._cut.append(item.reply_id)
        self.audio_queue.clear()
        self._clock_ms = 0.0
        self._scope.spawn(self.channel.clear_sender_audio_buffer(), name="clear")
        if current is not None:
            played = max(0, int(current.pushed_ms - ahead))
            self._scope.spawn(self._link.tell(rt.CutReply(current.item_id, played)), name="cut")
        elif self._replying:
            self._scope.spawn(self._link.tell(rt.CutReply()), name="cut")

    def moved(self, how: How, reason: str) -> None:
        log.info("the model's session goes on, %s: %s", how, reason)
        begun = any(item.reply_id == self._replying for item in self._items.values())
        self._owed = self._owed or bool(self._replying and not begun)
        self._replying, self._speaking = "", False
        if self._owed and how == "seeded" and not self._running:
            self._owed = False
            self._scope.spawn(self._link.tell(rt.Respond()), name="answer what was asked")

    def lost(self, error: Exception) -> None:
        log.error("the model is lost: %s", error)
        self._end("model_lost")

    @property
    def quiet(self) -> bool:
        return not (self._replying or self._speaking or self._running or len(self.audio_queue))

    async def past(self) -> tuple[PastTurn, ...]:
        begun = (item for item in self._items.values() if item.reply_id == self._replying and not item.said)
        return (*self._turns.past, *(PastTurn("assistant", item.words) for item in begun if item.words))

    # -- texts and tools ------------------------------------------------------------------------------

    def _chat(self, msg_id: str, kind: str, **fields: Any) -> None:
        message = ChatMessage(json.dumps({"type": kind, **fields}, ensure_ascii=False), msg_id)
        if not self.message_queue.closed and not self.message_queue.try_put(message):
            log.warning("the channel takes no messages: one is left out")

    async def _send_messages(self) -> None:
        async for message in self.message_queue:
            await self.channel.send_message(message)

    async def _run_tool(self, call: ToolCallPart) -> None:
        memory = self._link.memory
        self._running += 1
        try:
            output, failed = await self._executed(call)
        finally:
            self._running -= 1
        if not await self._link.tell(rt.ToolAnswer(call.call_id, call.name, output, failed), memory=memory):
            await self._link.tell(rt.InjectText(f"{call.name} gave: {output}", "system"))  # to the model that follows

    async def _executed(self, call: ToolCallPart) -> tuple[str, bool]:
        if self.tools is None or call.malformed is not None:
            return "Not run: the arguments are no JSON object.", True
        try:
            result = await self.tools.execute_tool(call.name, json.dumps(call.arguments))
        except Exception as error:  # noqa: BLE001 - tools are other people's code; the model is told, the call goes on
            log.warning("the tool %s failed: %s", call.name, type(error).__name__)
            reason = str(error) if isinstance(error, ValueError) else type(error).__name__
            return f"The tool failed: {reason}", True
        match result:
            case LocalToolCallExecuted(json_encoded_output=output):
                return output, False
            case ShouldPassThroughToolCall(decoded_function_args=arguments):
                return await self._passed_through(call, arguments)
            case _:
                return f'Not run: there is no tool "{call.name}".', True

    async def _passed_through(self, call: ToolCallPart, arguments: dict[str, Any]) -> tuple[str, bool]:
        answer: asyncio.Future[ClientToolCallResponse] = asyncio.get_running_loop().create_future()
        self._client_tool_futures[call.call_id] = answer
        kind = "response.function_call_arguments.done"
        self._chat(call.call_id, kind, call_id=call.call_id, name=call.name, arguments=json.dumps(arguments))
        try:
            told = await bounded(answer, CLIENT_TOOL_S, "waiting for the client")
        except TimeoutError:
            return "The client did not answer in time.", True
        finally:
            del self._client_tool_futures[call.call_id]
        return json.dumps(told.result, ensure_ascii=False), False

    def _client_said(self, text: str) -> None:
        try:
            told = ClientToolCallResponse.model_validate_json(text)
        except ValidationError:
            return  # a text between users
        waiting = self._client_tool_futures.get(told.tool_call_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(told)


def _fitting(rate: int, known: tuple[int, ...]) -> int:
    return rate if not known or rate in known else known[0]
