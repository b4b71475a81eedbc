"""VadStage: starts and ends of speech out of any detector's guesses; and the simplest detector, loudness."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from roomkit.dsp.framing import Reblock
from roomkit.dsp.pcm import rms_dbfs
from roomkit.dsp.resample import Resampler
from roomkit.errors import ConfigError
from roomkit.models.audio import AudioFrame, AudioSignal, SilenceLasted, SpeechEnded, SpeechStarted
from roomkit.ports.audio import AudioStage, Echoing, SpeechDetector

DETECTOR_RATE = 16_000
_DIP_MS = 120.0
_ECHO_DIP_MS = 200.0
_OVER_ECHO_DB = 12.0
_STEP_DB = 0.5
_FIRST_ECHO_DBFS = -20.0
_LEARNING = 94
"""Windows of echo, three seconds: until then echo cancellation may let words of the reply through."""
_DOUBT_MS = 250.0
"""So much longer speech must last in these seconds: what is let through is short."""
_QUIETEST_DBFS, _LOUDEST_ROOM_DBFS = -70.0, -35.0


@dataclass(frozen=True, slots=True)
class VADConfig:
    """Times in ms. Sound is speech at a likelihood of `threshold` and stays it down to `release`. Speech begins after
    `min_speech_ms` of it and ends after `silence_ms` without; `pad_ms` before its first sound belong to it.
    `SilenceLasted` is told every `tell_silence_ms`."""

    threshold: float = 0.5
    release: float = 0.35
    min_speech_ms: float = 250.0
    silence_ms: float = 500.0
    pad_ms: float = 300.0
    tell_silence_ms: float = 1_000.0

    def __post_init__(self) -> None:
        if not 0 < self.release <= self.threshold < 1:
            raise ConfigError("VADConfig wants 0 < release <= threshold < 1")


class _Left:
    """How loud what echo cancellation leaves is: a slow median in dBFS. What is far louder is somebody at this end.
    It begins high and sinks as echo cancellation learns the room; in the first seconds nothing is far louder."""

    def __init__(self) -> None:
        self.level = _FIRST_ECHO_DBFS
        self._heard = 0

    @property
    def learning(self) -> bool:
        return self._heard <= _LEARNING

    def over(self, pcm: bytes) -> bool:
        level = rms_dbfs(pcm)
        self._heard += 1
        over = not self.learning and level > self.level + _OVER_ECHO_DB
        self.level += _STEP_DB if level > self.level else -_STEP_DB
        return over


class VadStage:
    """One stream's speech. Audio passes unchanged; positions are those of the stream at the stage's rate.

    `echo` tells whether echo is being taken out. What that leaves of a voice beside the echo is full of holes, and a
    model of voices is less sure of it; so then what is clearly louder than the rest of the echo is speech from the
    likelihood on that the detector calls `faint`, where it has one."""

    name = "vad"

    def __init__(self, detector: SpeechDetector, rate: int, config: VADConfig | None = None) -> None:
        self._detector = detector
        self._rate = rate
        self._config = config or VADConfig()
        self._resampler = Resampler(rate, DETECTOR_RATE) if rate != DETECTOR_RATE else None
        self._windows = Reblock(detector.window * 2)
        self._window_ms = detector.window / DETECTOR_RATE * 1000
        self._keep_ms = self._config.pad_ms + self._config.min_speech_ms + 2 * self._window_ms
        self.echo: Echoing | None = None
        self._faint: float | None = getattr(detector, "faint", None)
        self._left = _Left()
        self._dip_ms, self._least_ms = _DIP_MS, self._config.min_speech_ms
        self._before: deque[AudioFrame] = deque()
        self._before_ms = 0.0
        self._clear()

    def _clear(self) -> None:
        self.speech = False
        self._loud_ms = self._quiet_ms = self._spoken_ms = self._still_ms = 0.0

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        data = frame.pcm if self._resampler is None else self._resampler.process(frame.pcm)
        signals: list[AudioSignal] = []
        for window in self._windows.push(data):
            signal = self._judge(self._likely(window), frame)
            if signal is not None:
                signals.append(signal)
        self._remember(frame)
        return frame, tuple(signals)

    def reset(self) -> None:
        self._detector.reset()
        self._windows.reset()
        if self._resampler is not None:
            self._resampler.reset()
        self._before.clear()
        self._before_ms = 0.0
        self._left = _Left()
        self._clear()

    def _likely(self, window: bytes) -> float:
        likely = self._detector.probability(window)
        self._dip_ms, self._least_ms = _DIP_MS, self._config.min_speech_ms
        if self._faint is None or self.echo is None or not self.echo.echoing:
            return likely
        self._dip_ms = _ECHO_DIP_MS
        self._least_ms += _DOUBT_MS * self._left.learning
        if self._left.over(window):
            if likely >= self._faint:
                likely = max(likely, self._config.threshold)
            elif likely >= self._faint / 2:
                likely = max(likely, self._config.release)
        return likely

    def _judge(self, likely: float, frame: AudioFrame) -> AudioSignal | None:
        if self.speech:
            return self._still_speech(likely, frame)
        config = self._config
        if likely >= config.threshold:
            self._loud_ms += self._window_ms
            self._quiet_ms = 0.0
        elif likely < config.release:
            self._quiet_ms += self._window_ms
            if self._quiet_ms > self._dip_ms:
                self._loud_ms = 0.0
        if self._loud_ms >= self._least_ms:
            self.speech = True
            self._spoken_ms, self._quiet_ms, self._still_ms = self._loud_ms, 0.0, 0.0
            before = b"".join(kept.pcm for kept in self._before)
            onset = frame.position - int(self._loud_ms * self._rate / 1000)
            return SpeechStarted(max(onset, 0), before)
        self._still_ms += self._window_ms
        if self._still_ms >= config.tell_silence_ms and not self._loud_ms:
            self._still_ms -= config.tell_silence_ms
            return SilenceLasted(config.tell_silence_ms)
        return None

    def _still_speech(self, likely: float, frame: AudioFrame) -> AudioSignal | None:
        self._spoken_ms += self._window_ms
        self._quiet_ms = self._quiet_ms + self._window_ms if likely < self._config.release else 0.0
        if self._quiet_ms < self._config.silence_ms:
            return None
        silence, spoken = self._quiet_ms, self._spoken_ms - self._quiet_ms
        self._clear()
        return SpeechEnded(frame.end - int(silence * self._rate / 1000), silence, spoken)

    def _remember(self, frame: AudioFrame) -> None:
        self._before.append(frame)
        self._before_ms += frame.duration_ms
        while self._before_ms - self._before[0].duration_ms >= self._keep_ms:
            self._before_ms -= self._before.popleft().duration_ms


class EnergyDetector:
    """Speech is what is louder than `threshold_dbfs` and 9 dB louder than the room. Good enough for a quiet one."""

    window = 320

    def __init__(self, threshold_dbfs: float = -45.0) -> None:
        self._threshold = threshold_dbfs
        self.reset()

    def probability(self, pcm: bytes) -> float:
        level = rms_dbfs(pcm)
        if self._room is None:  # a call begins with the room, or with a voice that is louder than any room
            self._room = min(max(level, _QUIETEST_DBFS), _LOUDEST_ROOM_DBFS)
        # The room is heard quickly when it falls silent, and slowly when it gets louder: a talker is not the room.
        self._room += (level - self._room) * (0.2 if level < self._room else 0.002)
        over = min(level - self._threshold, level - self._room - 9.0)
        return min(max(0.5 + over / 12.0, 0.0), 1.0)

    def reset(self) -> None:
        self._room: float | None = None


def make(_kind: str, rate: int) -> AudioStage:
    return VadStage(EnergyDetector(), rate)
