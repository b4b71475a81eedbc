"""Hearing: a call's audio on its way in: gates, pipeline, what is noticed, and what the recogniser makes of it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from roomkit.models import voice as told
from roomkit.models.audio import (
    FRAME_MS,
    AudioFrame,
    AudioSignal,
    DtmfDigit,
    Level,
    SessionState,
    SilenceLasted,
    SpeakerChanged,
    SpeechEnded,
    SpeechStarted,
    Transcript,
)
from roomkit.runtime import monotonic
from roomkit.voice.ear import Ear, Segment
from roomkit.voice.turn import Heard, SpeechOff, SpeechOn

if TYPE_CHECKING:
    from roomkit.ports.speech import STT
    from roomkit.runtime import Scope
    from roomkit.voice.call import Call

SETTLED_S = 0.25
MOST_BATCHED = 3_000
"""Frames that batch mode keeps: a minute."""


class Hearing:
    """One call's ear. `open` is the audio gate of mute and access; `dropped` counts frames that did not pass."""

    def __init__(self, call: Call, stt: STT | None, scope: Scope, *, detects: bool) -> None:
        self.open = True
        self.dropped = 0
        self._call = call
        self._batch_mode = call.options.batch
        self._continuous = stt is not None and not detects and not self._batch_mode
        rate = call.pipeline.rate
        self._ear = Ear(stt, rate, scope, continuous=self._continuous, failed=call.failed) if stt else None
        self._segment: Segment | None = None
        self._batch: list[bytes] = []
        self._second = self._frames = 0
        self._speech_began = 0.0
        self._settling: asyncio.TimerHandle | None = None
        self._kept: deque[bytes] = deque(maxlen=0)

    def keep(self, seconds: float) -> None:
        """Keeps the last so many seconds of what the caller says; at most 30."""
        self._kept = deque(maxlen=int(min(seconds, 30.0) * 1000 / FRAME_MS))

    def kept(self) -> bytes:
        return b"".join(self._kept)

    def begin(self) -> None:
        """The call is there. Without anything that detects speech, the recogniser hears everything."""
        if self._continuous:
            self._listen()

    def end(self) -> None:
        self.cut()
        if self._settling is not None:
            self._settling.cancel()
        if self._segment is not None:
            self._segment.end()

    def cut(self) -> None:
        """Ends the segment under way: the caller speaks without an end."""
        if self._segment is not None and not self._continuous:
            self._segment.end()
            self._segment = None

    def _listen(self) -> Segment | None:
        if self._ear is not None:
            language = self._call.options.language
            self._segment = self._ear.begin(language=language, told=self._partial, done=self._final)
        return self._segment

    def take(self, frame: AudioFrame) -> None:
        if self._call.session.listen_only or not self.open or self._too_many():
            self.dropped += 1
            return
        current, signals = self._call.pipeline.process(frame)
        for signal in signals:
            self.noticed(signal)
        if current is None:
            return
        self._kept.append(current.pcm)
        if self._batch_mode:
            self._batch.append(current.pcm)
            if len(self._batch) > MOST_BATCHED:
                del self._batch[0]
        elif self._segment is not None:
            self._segment.push(current.pcm)
        self._call.host.overheard(self._call, current)

    def _too_many(self) -> bool:
        most = self._call.options.frames_per_s
        if most is None:
            return False
        second = int(monotonic())
        if second != self._second:
            self._second, self._frames = second, 0
        self._frames += 1
        return self._frames > most

    def noticed(self, signal: AudioSignal) -> None:
        """Something in the audio, from the pipeline or from a transport that looks for itself."""
        match signal:
            case SpeechStarted(pre_roll=pre_roll):
                self._speech_on(pre_roll)
            case SpeechEnded(silence_ms=silence, duration_ms=duration):
                self._speech_off(silence, duration)
            case DtmfDigit(digit=digit):
                self._call.pressed(digit)
            case Level(rms_dbfs=rms, peak_dbfs=peak, direction=direction):
                self._call.tell(told.LevelHeard, rms, peak, direction)
                self._call.host.sign(self._call, "voice_level", {"dbfs": round(rms, 1), "direction": direction})
            case SilenceLasted(duration_ms=duration):
                self._call.tell(told.SilenceHeard, duration)
            case SpeakerChanged(speaker_id=speaker, score=score):
                self._call.tell(told.SpeakerChange, speaker, score)

    def _speech_on(self, pre_roll: bytes) -> None:
        self._speech_began = self._call.at_ms
        self._call.tell(told.SpeechStart)
        if not self._continuous and not self._batch_mode and (segment := self._listen()) is not None:
            segment.push(pre_roll)
        self._call.step(SpeechOn())

    def _speech_off(self, silence_ms: float, duration_ms: float) -> None:
        self._call.times.speech_ended(self._call.at_ms)
        self._call.tell(told.SpeechEnd, duration_ms or self._call.at_ms - self._speech_began)
        self.cut()
        self._call.step(SpeechOff(silence_ms))

    def _partial(self, transcript: Transcript) -> None:
        if self._continuous and transcript.text and not self._call.machine.speech:
            self._call.step(SpeechOn())
        self._call.tell(told.PartialTranscript, transcript.text)
        self._call.host.sign(
            self._call, "voice_partial", {"text": transcript.text, "participant": self._call.session.participant_id}
        )
        self._call.step(Heard(transcript.text))
        self._settle(transcript.text)

    def _settle(self, text: str) -> None:
        """Words that stay as they are for a moment are probably the last ones."""
        if self._call.options.ahead is None:
            return
        if self._settling is not None:
            self._settling.cancel()
        foresee = self._call.foresee
        self._settling = asyncio.get_running_loop().call_later(
            SETTLED_S, lambda: foresee(self._call.machine.so_far(text))
        )

    def _final(self, transcript: Transcript) -> None:
        if self._settling is not None:
            self._settling.cancel()
        if self._call.session.state is SessionState.ENDED:
            return
        if self._continuous and transcript.text:
            if not self._call.machine.speech:
                self._call.step(SpeechOn())
            self._call.times.speech_ended(self._call.at_ms)
            self._call.step(SpeechOff(0))
        self._call.times.stamp("transcript", self._call.at_ms)
        if transcript.text and self._call.host.live.wanted(told.FinalTranscript):
            self._call.spawn(self._judge_transcript(transcript), "transcript guards")
        else:
            self._call.step(Heard(transcript.text, final=True))

    async def _judge_transcript(self, transcript: Transcript) -> None:
        moment = told.FinalTranscript(self._call.room, transcript, self._call.session, **self._call.where("inbound"))
        kept = await self._call.host.live.guard(moment)
        self._call.step(Heard(kept.text if kept is not None else "", final=True))

    async def flush(self) -> str:
        """Batch mode: transcribes what has come since the last time."""
        if self._ear is None:
            return ""
        pcm, self._batch = b"".join(self._batch), []
        return await self._ear.once(pcm, self._call.options.language) if pcm else ""
