"""ParrotRealtime: a model that says back what it hears. For trying a line, both ways, without a vendor."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

from roomkit.dsp.framing import Reblock
from roomkit.dsp.resample import Resampler
from roomkit.errors import Unavailable
from roomkit.models import realtime as rt
from roomkit.models.audio import FRAME_MS, AudioFrame, SpeechEnded, SpeechStarted
from roomkit.models.realtime import RealtimeCommand, RealtimeConfig, RealtimeEvent
from roomkit.ports.realtime import RealtimeTraits
from roomkit.runtime import BlockingBuffer, BufferClosed
from roomkit.voice.stages import named

LONGEST_S = 15


class ParrotRealtime:
    """A `RealtimeVoiceProvider`; at most `LONGEST_S` seconds at a time. A text is answered with a text."""

    name = "parrot"
    traits = RealtimeTraits(
        reconfigures=frozenset({"system_prompt", "voice", "tools", "temperature", "responds", "extra"})
    )

    async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> ParrotSession:
        return ParrotSession(config)

    async def aclose(self) -> None:
        """Nothing is held."""


class ParrotSession:
    """A `RealtimeConnection`."""

    _numbers = itertools.count(1)

    def __init__(self, config: RealtimeConfig) -> None:
        self._config = config
        self._events: BlockingBuffer[RealtimeEvent] = BlockingBuffer(10_000)
        self._vad = None if config.own_vad else named("vad", "energy", config.input_rate)
        self._blocks = Reblock(config.input_rate * FRAME_MS // 1000 * 2)
        self._heard = bytearray()
        self._item = ""
        self._position = 0
        self._emit(rt.SessionReady(f"parrot-{next(self._numbers)}"))

    async def send(self, command: RealtimeCommand) -> None:
        if self._events.closed:
            raise Unavailable("parrot", "the session is closed")
        match command:
            case rt.AppendAudio(pcm=pcm):
                for block in self._blocks.push(pcm):
                    self._listen(block)
            case rt.UserSpeech(speaking=speaking):
                self._begin(b"") if speaking else self._end()
            case rt.InjectText(text=text, respond=True):
                self._reply(text, b"")
            case rt.Reconfigure(config=config):
                self._config = config
            case _:
                pass

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        while True:
            try:
                yield await self._events.get()
            except BufferClosed:
                return

    async def aclose(self) -> None:
        self._events.clear()
        self._events.close()

    def _listen(self, block: bytes) -> None:
        frame = AudioFrame(block, self._config.input_rate, self._position)
        self._position += frame.samples
        if self._item:
            self._heard += block
        if self._vad is None:
            return
        for signal in self._vad.process(frame)[1]:
            if isinstance(signal, SpeechStarted):
                self._begin(signal.pre_roll)
            elif isinstance(signal, SpeechEnded):
                self._end()
        if len(self._heard) > LONGEST_S * self._config.input_rate * 2:
            self._end()

    def _begin(self, pre_roll: bytes) -> None:
        if not self._item:
            self._item = f"item-{next(self._numbers)}"
            self._heard = bytearray(pre_roll)
            self._emit(rt.SpeechBegan(self._item))

    def _end(self) -> None:
        if not self._item:
            return
        item, self._item = self._item, ""
        pcm, self._heard = bytes(self._heard), bytearray()
        seconds = len(pcm) / 2 / self._config.input_rate
        words = f"({seconds:.1f} s of sound)"
        self._emit(rt.SpeechStopped(item), rt.UserText(item, words))
        if self._config.responds:
            self._reply(words, pcm)

    def _reply(self, text: str, pcm: bytes) -> None:
        number = next(self._numbers)
        reply, item = f"reply-{number}", f"said-{number}"
        self._emit(rt.ReplyBegan(reply), rt.ReplyText(reply, item, text))
        rate = self._config.output_rate
        sound = Resampler(self._config.input_rate, rate).process(pcm)
        size = rate // 10 * 2
        for at in range(0, len(sound), size):
            self._emit(rt.ReplyAudio(reply, item, AudioFrame(sound[at : at + size], rate, at // 2)))
        self._emit(rt.ReplySaid(reply, item, text), rt.ReplyOver(reply))

    def _emit(self, *events: RealtimeEvent) -> None:
        for event in events:
            if not self._events.closed:
                self._events.try_put(event)
