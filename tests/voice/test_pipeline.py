"""One call's audio: the order of the stages, what is left out, both rates, and what is recorded of each step."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roomkit.dsp.pcm import samples, to_pcm
from roomkit.errors import ConfigError
from roomkit.models.audio import AudioFrame, AudioSignal, DtmfDigit, Level, SpeakerChanged, VoiceSession
from roomkit.ports.audio import BackendTraits
from roomkit.voice.pipeline import AudioPipelineConfig, Pipeline
from roomkit.voice.stages.diarization import LineSpeakers

RATE, SIZE = 16_000, 320
BARE: dict[str, Any] = {"vad": None, "dtmf": None, "limiter": None, "levels_per_s": 0}


def frames(seconds: float, rate: int = RATE, level: float = 8_000, hertz: float = 400) -> list[AudioFrame]:
    size = rate // 50
    pcm = to_pcm(level * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate))
    return [AudioFrame(pcm[2 * at : 2 * (at + size)], rate, at) for at in range(0, len(pcm) // 2, size)]


def pipeline(traits: BackendTraits | None = None, rate: int = RATE, **config: Any) -> Pipeline:
    return Pipeline(
        AudioPipelineConfig(**{**BARE, **config}), VoiceSession("s/1", rate=rate), traits or BackendTraits()
    )


def always(stage: Any) -> Callable[[int], Any]:
    return lambda _rate: stage


class Adds:
    """Adds its number to every sample, and says that it was there."""

    def __init__(self, name: str, number: int, seen: list[str]) -> None:
        self.name, self._number, self._seen = name, number, seen
        self.resets = 0

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        self._seen.append(self.name)
        return AudioFrame(to_pcm(samples(frame.pcm) + self._number), frame.rate, frame.position), (
            DtmfDigit(self.name),
        )

    def reference(self, frame: AudioFrame) -> None: ...

    def reset(self) -> None:
        self.resets += 1


def test_the_stages_stand_in_the_order_of_the_seed_and_each_hears_the_one_before() -> None:
    seen: list[str] = []
    kinds = ("dtmf", "aec", "agc", "denoiser", "vad", "diarization")
    made = {kind: Adds(kind, 10**number, seen) for number, kind in enumerate(kinds[:4])}
    made |= {kind: Adds(kind, 0, seen) for kind in kinds[4:]}
    line = pipeline(**{kind: always(stage) for kind, stage in made.items()})
    out, signals = line.process(AudioFrame(bytes(640), RATE, 0))
    assert seen == ["dtmf", "aec", "agc", "denoiser", "vad", "diarization"]
    assert out is not None
    assert set(samples(out.pcm)) == {1111}
    assert [one.digit for one in signals if isinstance(one, DtmfDigit)] == seen
    line.reset()
    assert [stage.resets for stage in made.values()] == [1] * 6


def test_what_the_transport_does_itself_is_left_out() -> None:
    seen: list[str] = []
    stages = {kind: always(Adds(kind, 0, seen)) for kind in ("dtmf", "aec", "agc", "denoiser")}
    traits = BackendTraits(
        native_aec=True, native_agc=True, native_noise_suppression=True, native_dtmf=True, detects_speech=True
    )
    line = pipeline(traits, **stages, vad=lambda _rate: Adds("vad", 0, seen))
    frame = AudioFrame(bytes(640), RATE, 0)
    assert line.process(frame)[0] is not None
    assert seen == []
    assert not line.detects_speech


def test_a_stage_that_holds_a_frame_back_ends_its_way() -> None:
    seen: list[str] = []

    class Holds(Adds):
        def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
            return None, (DtmfDigit("held"),)

    line = pipeline(agc=lambda _rate: Holds("agc", 0, seen), denoiser=lambda _rate: Adds("denoiser", 0, seen))
    out, signals = line.process(AudioFrame(bytes(640), RATE, 0))
    assert (out, seen) == (None, [])
    assert signals == [DtmfDigit("held")]


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
def test_a_line_of_another_rate_is_heard_and_answered_at_its_own(rate: int) -> None:
    line = pipeline(rate=rate)
    heard = [line.process(frame)[0] for frame in frames(1.0, rate)]
    assert all(one is not None and (one.rate, one.samples) == (RATE, SIZE) for one in heard)
    assert [one.position for one in heard if one is not None] == [SIZE * number for number in range(50)]
    loud = np.concatenate([samples(one.pcm) for one in heard if one is not None])[RATE // 2 :]
    assert np.sqrt((loud.astype(float) ** 2).mean()) == pytest.approx(8_000 / np.sqrt(2), rel=0.02)
    sent = [line.to_transport(frame) for frame in frames(1.0)]
    assert all((one.rate, one.samples) == (rate, rate // 50) for one in sent)
    assert [one.position for one in sent] == [rate // 50 * number for number in range(50)]


def test_stages_of_ones_own_come_before_the_limiter() -> None:
    class Loud(Adds):
        def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
            return AudioFrame(to_pcm(samples(frame.pcm).astype(float) * 10), frame.rate, frame.position), ()

    line = pipeline(post=[lambda _rate: Loud("loud", 0, [])], limiter="limiter")
    out, _ = line.outbound(frames(0.02)[0])
    assert out is not None
    assert 20_000 < np.abs(samples(out.pcm)).max() <= 32768 * 10 ** (-1 / 20)


def test_loudness_is_told_as_often_as_asked_for() -> None:
    line = pipeline(levels_per_s=5)
    told = [one for frame in frames(2.0) for one in line.process(frame)[1] if isinstance(one, Level)]
    assert len(told) == 10
    assert told[-1].rms_dbfs == pytest.approx(-15.3, abs=0.2)
    assert told[-1].peak_dbfs == pytest.approx(-12.2, abs=0.2)
    assert [one for frame in frames(1.0) for one in pipeline().process(frame)[1]] == []


def test_a_folder_for_debugging_gets_a_file_of_what_comes_out_of_each_stage(tmp_path: Path) -> None:
    line = pipeline(
        debug=str(tmp_path / "taps"),
        agc=lambda _rate: Adds("agc", 5, []),
        denoiser=lambda _rate: Adds("denoiser", 50, []),
    )
    for _ in range(10):
        line.process(AudioFrame(bytes(640), RATE, 0))
    line.close()
    found: dict[str, set[int]] = {}
    for path in (tmp_path / "taps").iterdir():
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnframes()) == (RATE, 10 * SIZE)
            found[path.name] = set(samples(file.readframes(10 * SIZE)).tolist())
    assert found == {"s_1-0-raw.wav": {0}, "s_1-1-agc.wav": {5}, "s_1-2-denoiser.wav": {55}}


def test_who_speaks_is_told_by_the_line_when_the_word_changes_hands() -> None:
    lines = LineSpeakers(("ada",))
    ada, bob = (pipeline(diarization=lines) for _ in range(2))
    told: list[str] = []
    for line, level in ((ada, 8_000), (bob, 20), (bob, 8_000), (bob, 8_000), (ada, 8_000)):
        for frame in frames(0.5, level=level):
            told += [one.speaker_id for one in line.process(frame)[1] if isinstance(one, SpeakerChanged)]
    assert told == ["ada", "speaker-2", "ada"]


def test_wrong_settings_are_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="8000, 16000, 24000 or 48000 Hz, not 44100"):
        AudioPipelineConfig(rate=44_100)
    with pytest.raises(ConfigError, match="0 to 50"):
        AudioPipelineConfig(levels_per_s=51)
    with pytest.raises(ConfigError, match='no vad stage "sliero"; there are: energy, silero, webrtc'):
        pipeline(vad="sliero")
    with pytest.raises(ConfigError, match='no aec stage "x"; there are: apm, speex'):
        pipeline(aec="x")
