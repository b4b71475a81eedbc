"""The audio of one call, frame by frame, in the order of the seed. Synchronous; an absent stage costs nothing.

In: resample, record (raw), DTMF, echo, gain, noise, speech, speaker. Out: post-processing, limiter, resample; and what
is really played is recorded and is the echo stage's reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from roomkit.dsp import pcm
from roomkit.dsp.resample import Resampler
from roomkit.errors import ConfigError
from roomkit.models.audio import AudioFrame, AudioSignal, Level, VoiceSession
from roomkit.ports.audio import AudioStage, AudioTap, BackendTraits, BesideEcho, Echoing, EchoStage
from roomkit.ports.speech import SpokenTurnDetector, TurnDetector

StageMaker = Callable[[int], AudioStage]
"""Makes one stage for one stream at a rate in Hz; a stage keeps the state of its stream."""
TapMaker = Callable[[VoiceSession, int], AudioTap]
"""Makes one tap for one call at a rate in Hz."""


@dataclass(frozen=True, slots=True)
class AudioPipelineConfig:
    """What happens to the audio of every call of a channel. A stage is given by name ("silero", "webrtc", "rnnoise"
    ...), by something that makes one for a rate, or left out (None).

    `rate` is the working rate in Hz. `post` are further stages on the way out. `taps` hear both ways, raw in and final
    out: the recorder is one. `debug` is a folder for one WAV file a stage. `levels_per_s` bounds how often loudness is
    told. `turn_detector` decides at a pause whether the caller has finished; None is silence and transcript.
    """

    rate: int = 16_000
    vad: str | StageMaker | None = "silero"
    dtmf: str | StageMaker | None = "goertzel"
    aec: str | Callable[[int], EchoStage] | None = None
    agc: str | StageMaker | None = None
    denoiser: str | StageMaker | None = None
    diarization: str | StageMaker | None = None
    limiter: str | StageMaker | None = "limiter"
    post: Sequence[str | StageMaker] = ()
    taps: Sequence[TapMaker] = field(default=())
    turn_detector: TurnDetector | SpokenTurnDetector | None = None
    levels_per_s: float = 10.0
    debug: str | None = None

    def __post_init__(self) -> None:
        if self.rate not in (8_000, 16_000, 24_000, 48_000):
            raise ConfigError(f"AudioPipelineConfig.rate is 8000, 16000, 24000 or 48000 Hz, not {self.rate}")
        if not 0 <= self.levels_per_s <= 50:
            raise ConfigError("AudioPipelineConfig.levels_per_s is 0 to 50; 0 tells no levels")


def _made(choice: str | StageMaker | None, kind: str, rate: int) -> AudioStage | None:
    if choice is None:
        return None
    if isinstance(choice, str):
        from roomkit.voice.stages import named

        return named(kind, choice, rate)
    return choice(rate)


class Pipeline:
    """One call's audio. `process` takes 20 ms frames at the transport's rate; nothing in here waits or makes a task."""

    def __init__(self, config: AudioPipelineConfig, session: VoiceSession, traits: BackendTraits) -> None:
        rate = config.rate
        self.config = config
        self.rate = rate
        self._up = Resampler(session.rate, rate)
        self._down = Resampler(rate, session.rate)
        self._session_rate = session.rate
        self.taps = tuple(make(session, rate) for make in config.taps)
        self._echo, *cleaners = _cleaners(config, traits, rate)
        inbound = (
            None if traits.native_dtmf else _made(config.dtmf, "dtmf", rate),
            self._echo,
            *cleaners,
            None if traits.detects_speech else _made(config.vad, "vad", rate),
            _made(config.diarization, "diarization", rate),
        )
        self._inbound = tuple(stage for stage in inbound if stage is not None)
        self._introduce()
        outbound = (*(_made(choice, "post", rate) for choice in config.post), _made(config.limiter, "limiter", rate))
        self._outbound = tuple(stage for stage in outbound if stage is not None)
        self._debug = _debug_taps(config, session, ("raw", *(stage.name for stage in self._inbound)))
        self._heard = self._said = 0
        self._level_every = int(rate / config.levels_per_s) if config.levels_per_s else 0
        self._level_at = {"inbound": 0, "outbound": 0}

    def _introduce(self) -> None:
        """The detector of speech listens otherwise while echo is taken out before it."""
        if isinstance(self._echo, Echoing):
            for stage in self._inbound:
                if isinstance(stage, BesideEcho):
                    stage.echo = self._echo

    @property
    def detects_speech(self) -> bool:
        return any(stage.name == "vad" for stage in self._inbound)

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, list[AudioSignal]]:
        """One frame from the transport: what goes to the recogniser, and what was noticed on the way."""
        data = self._up.process(frame.pcm) if frame.rate != self.rate else frame.pcm
        if not data:
            return None, []
        current: AudioFrame | None = AudioFrame(data, self.rate, self._heard)
        self._heard += len(data) // 2
        signals: list[AudioSignal] = []
        for tap in self.taps:
            tap.inbound(current)
        self._level(current, signals, "inbound")
        if self._debug:
            self._debug[0].inbound(current)
        for number, stage in enumerate(self._inbound, 1):
            current, noticed = stage.process(current)
            if noticed:
                signals.extend(noticed)
            if current is None:
                break
            if self._debug:
                self._debug[number].inbound(current)
        return current, signals

    def outbound(self, frame: AudioFrame) -> tuple[AudioFrame | None, list[AudioSignal]]:
        """One frame of speech at the working rate, made ready to be heard: still at the working rate. `to_transport`
        follows when it is sent."""
        current: AudioFrame | None = frame
        signals: list[AudioSignal] = []
        for stage in self._outbound:
            current, noticed = stage.process(current)
            signals.extend(noticed)
            if current is None:
                return None, signals
        self._level(current, signals, "outbound")
        return current, signals

    def to_transport(self, frame: AudioFrame) -> AudioFrame:
        """At the transport's rate."""
        if self._session_rate == self.rate:
            return frame
        data = self._down.process(frame.pcm)
        self._said += len(data) // 2
        return AudioFrame(data, self._session_rate, self._said - len(data) // 2)

    def played(self, frame: AudioFrame) -> None:
        """What sounds at the far end just now, at the working rate; the playout alone calls this."""
        for tap in self.taps:
            tap.outbound(frame)
        if self._echo is not None:
            self._echo.reference(frame)

    def reset(self) -> None:
        """After a gap: what the stages know of the sound before it misleads them."""
        self._up.reset()
        for stage in self._inbound:
            stage.reset()

    def close(self) -> None:
        for tap in (*self.taps, *self._debug):
            tap.close()

    def _level(self, frame: AudioFrame, signals: list[AudioSignal], direction: str) -> None:
        if not self._level_every or frame.position < self._level_at[direction]:
            return
        self._level_at[direction] = frame.position + self._level_every
        rms, peak = pcm.dbfs(frame.pcm)
        signals.append(Level(rms, peak, frame.position, "inbound" if direction == "inbound" else "outbound"))


def _cleaners(
    config: AudioPipelineConfig, traits: BackendTraits, rate: int
) -> tuple[EchoStage | None, AudioStage | None, AudioStage | None]:
    """Echo, gain and noise, without what the transport does itself. Where several say "apm" the first does it all."""
    choices = {
        "aec": None if traits.native_aec else config.aec,
        "agc": None if traits.native_agc else config.agc,
        "denoiser": None if traits.native_noise_suppression else config.denoiser,
    }
    shared = [kind for kind, choice in choices.items() if choice == "apm"]
    one: EchoStage | None = None
    if len(shared) > 1:
        from roomkit.voice.stages import joint

        one = joint("apm", shared, rate)
        choices.update(dict.fromkeys(shared))
    echo = _echo(config, rate) if choices["aec"] else None
    gain, noise = _made(choices["agc"], "agc", rate), _made(choices["denoiser"], "denoiser", rate)
    if one is None:
        return echo, gain, noise
    return (one, gain, noise) if shared[0] == "aec" else (echo, one, noise)


def _echo(config: AudioPipelineConfig, rate: int) -> EchoStage | None:
    if config.aec is None or not isinstance(config.aec, str):
        return None if config.aec is None else config.aec(rate)
    from roomkit.voice.stages import named_echo

    return named_echo(config.aec, rate)


def _debug_taps(config: AudioPipelineConfig, session: VoiceSession, names: Sequence[str]) -> tuple[AudioTap, ...]:
    if config.debug is None:
        return ()
    from roomkit.voice.stages import debug_tap

    return tuple(
        debug_tap(config.debug, f"{session.id}-{number}-{name}", config.rate) for number, name in enumerate(names)
    )
