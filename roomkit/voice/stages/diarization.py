"""Who speaks, told by the line: every caller of a call has one of their own. To tell voices on one line apart takes a
model of speakers; such a one is an `AudioStage` that gives `SpeakerChanged`."""

from __future__ import annotations

from roomkit.dsp.pcm import dbfs
from roomkit.models.audio import AudioFrame, AudioSignal, SpeakerChanged
from roomkit.ports.audio import AudioStage

_LOUD_DBFS = -45.0
_SUSTAINED_MS = 200.0
_DIP_MS = 120.0


class LineSpeakers:
    """The lines that share a conversation: `AudioPipelineConfig(diarization=LineSpeakers())` makes one stage for each,
    in the order of their calls, named "speaker-1" and so on."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self._names = names
        self._lines = 0
        self.speaker = ""
        """Who spoke last."""

    def __call__(self, rate: int) -> AudioStage:
        self._lines += 1
        given = self._lines <= len(self._names)
        return LineStage(self, self._names[self._lines - 1] if given else f"speaker-{self._lines}", rate)


class LineStage:
    """One line: the speaker changes when 200 ms of sound come from here and somebody else spoke before."""

    name = "diarization"

    def __init__(self, lines: LineSpeakers, speaker_id: str, rate: int) -> None:
        self._lines = lines
        self._speaker_id = speaker_id
        self._rate = rate
        self.reset()

    def reset(self) -> None:
        self._loud_ms = self._quiet_ms = 0.0
        self._onset = 0
        if self._lines.speaker == self._speaker_id:
            self._lines.speaker = ""

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        if dbfs(frame.pcm)[0] < _LOUD_DBFS:
            self._quiet_ms += frame.duration_ms
            if self._quiet_ms > _DIP_MS:
                self._loud_ms = 0.0
            return frame, ()
        if not self._loud_ms:
            self._onset = frame.position
        self._loud_ms += frame.duration_ms
        self._quiet_ms = 0.0
        if self._loud_ms < _SUSTAINED_MS or self._lines.speaker == self._speaker_id:
            return frame, ()
        self._lines.speaker = self._speaker_id
        return frame, (SpeakerChanged(self._speaker_id, self._onset),)


def make(_kind: str, rate: int) -> AudioStage:
    return LineSpeakers()(rate)
