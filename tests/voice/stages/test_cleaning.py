"""Gain, limiter and echo: what they do to sound, and that one pass serves several kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from roomkit.dsp.pcm import dbfs, samples, to_pcm
from roomkit.dsp.sound import read_wav
from roomkit.errors import ConfigError
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.ports.audio import BackendTraits
from roomkit.voice.pipeline import AudioPipelineConfig, Pipeline
from roomkit.voice.stages import apm, named, named_echo
from roomkit.voice.stages.agc import GainConfig, GainStage
from roomkit.voice.stages.apm import ApmStage
from roomkit.voice.stages.blocks import Reference
from roomkit.voice.stages.limiter import CEILING

RATE, SIZE = 16_000, 320
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")


def sine(level_dbfs: float, seconds: float, hertz: float = 440) -> NDArray[Any]:
    return 32768 * 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE)


def through(stage: Any, values: NDArray[Any], far: NDArray[Any] | None = None) -> NDArray[Any]:
    out = b""
    for at in range(0, len(values) - SIZE + 1, SIZE):
        if far is not None:
            stage.reference(AudioFrame(to_pcm(far[at : at + SIZE]), RATE, at))
        frame, _ = stage.process(AudioFrame(to_pcm(values[at : at + SIZE]), RATE, at))
        out += frame.pcm if frame is not None else b""
    return samples(out).astype(float)


@pytest.mark.parametrize("level, wanted", [(-30, -3), (-12, -3), (0, -3), (-45, -15)])
def test_gain_brings_voices_to_one_level_by_at_most_30_db(level: float, wanted: float) -> None:
    out = through(named("agc", "builtin", RATE), sine(level, 2.0))
    assert dbfs(to_pcm(out[RATE:]))[1] == pytest.approx(wanted, abs=0.3)


def test_gain_leaves_the_room_alone() -> None:
    hiss = np.random.default_rng(1).normal(0, 20, 2 * RATE)
    stage = GainStage(RATE)
    through(stage, sine(-12, 1.0))
    before = stage.gain
    out = through(stage, hiss)
    assert stage.gain == before
    assert dbfs(to_pcm(out))[0] < dbfs(to_pcm(hiss))[0] + 10


def test_gain_falls_at_once_when_a_shout_follows_a_whisper() -> None:
    out = through(named("agc", "builtin", RATE), np.concatenate((sine(-30, 1.0), sine(-1, 1.0))))
    cut = np.count_nonzero(np.abs(out) >= 32_767)
    assert cut < RATE * 0.005
    with pytest.raises(ConfigError, match="GainConfig wants"):
        GainConfig(attack_ms=0)


def test_the_limiter_keeps_its_ceiling_and_leaves_the_rest_alone() -> None:
    limiter = named("limiter", "limiter", RATE)
    frame = AudioFrame(to_pcm(sine(-6, 0.02)), RATE)
    assert limiter.process(frame)[0] is frame
    out = through(limiter, np.random.default_rng(2).integers(-32768, 32768, 4 * RATE))
    assert np.abs(out).max() <= CEILING


def test_the_limiter_makes_no_click_where_frames_meet() -> None:
    out = through(named("limiter", "limiter", RATE), sine(0, 2.0, 300))[SIZE:]
    steepest = CEILING * 2 * np.pi * 300 / RATE
    assert np.abs(np.diff(out)).max() <= steepest + 2
    spectrum = np.abs(np.fft.rfft(out[-RATE:] * np.hanning(RATE)))
    assert 20 * np.log10(spectrum[600:].max() / spectrum.max()) < -60


def _spoken(first: int, seconds: int) -> NDArray[Any]:
    found = np.concatenate([samples(read_wav(p, RATE)) for p in sorted(PROMPTS.glob("*.wav"))[first : first + 30]])
    return found[: seconds * RATE].astype(float)


def _room(seed: int, length_ms: int) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    count = RATE * length_ms // 1000
    fading = random.normal(0, 1, count) * 10 ** (-3 * np.arange(count) / count)
    late = np.concatenate((np.zeros(int(RATE * random.uniform(0.01, 0.08))), fading))
    return 0.4 * late / np.sqrt((late**2).sum())


def _power(values: NDArray[Any]) -> float:
    return 10 * float(np.log10((values**2).mean() + 1e-9))


@pytest.mark.skipif(not PROMPTS.is_dir(), reason="no recorded speech is installed (.ci/voice)")
@pytest.mark.parametrize("name, erle", [("apm", 30), ("speex", 12)])
@pytest.mark.parametrize("length_ms", [120, 250])
def test_the_echo_goes_and_the_caller_stays(name: str, erle: float, length_ms: int) -> None:
    far, near = _spoken(60, 14), _spoken(200, 4)
    echo = np.convolve(far, _room(length_ms, length_ms))[: len(far)] + np.random.default_rng(5).normal(0, 10, len(far))
    mic = echo.copy()
    mic[10 * RATE :] += near
    out = through(named_echo(name, RATE), mic, far)
    alone = slice(3 * RATE, 10 * RATE)
    assert _power(mic[alone]) - _power(out[alone]) >= erle
    both = slice(10 * RATE, 14 * RATE)
    assert _power(out[both]) > _power(near) - 6


def test_one_pass_of_webrtc_does_everything_that_asks_for_it() -> None:
    config = AudioPipelineConfig(vad=None, dtmf=None, aec="apm", agc="apm", denoiser="apm")
    assert _names(config) == ["apm"]
    assert _kinds(config) == {"aec", "agc", "denoiser"}
    assert _names(AudioPipelineConfig(vad=None, dtmf=None, aec="speex", agc="apm", denoiser="apm")) == ["speex", "apm"]
    mixed = AudioPipelineConfig(vad=None, dtmf=None, aec="apm", agc="builtin", denoiser="apm")
    assert (_names(mixed), _kinds(mixed)) == (["apm", "agc"], {"aec", "denoiser"})
    browser = BackendTraits(native_aec=True, native_noise_suppression=True)
    assert _kinds(config, browser) == {"agc"}
    everything = BackendTraits(native_aec=True, native_agc=True, native_noise_suppression=True)
    assert _names(config, everything) == []


def _names(config: AudioPipelineConfig, traits: BackendTraits | None = None) -> list[str]:
    pipeline = Pipeline(config, VoiceSession("s"), traits or BackendTraits())
    return [stage.name for stage in pipeline._inbound]


def _kinds(config: AudioPipelineConfig, traits: BackendTraits | None = None) -> set[str]:
    pipeline = Pipeline(config, VoiceSession("s"), traits or BackendTraits())
    return {kind for stage in pipeline._inbound for kind in getattr(stage, "_kinds", ())}


class Heard:
    """An echo stage and a tap that note what reaches them."""

    name = "heard"

    def __init__(self) -> None:
        self.references: list[AudioFrame] = []
        self.taps: list[tuple[str, AudioFrame]] = []

    def reference(self, frame: AudioFrame) -> None:
        self.references.append(frame)

    def process(self, frame: AudioFrame) -> tuple[AudioFrame, tuple[()]]:
        return frame, ()

    def reset(self) -> None: ...

    def inbound(self, frame: AudioFrame) -> None:
        self.taps.append(("in", frame))

    def outbound(self, frame: AudioFrame) -> None:
        self.taps.append(("out", frame))

    def close(self) -> None: ...


def test_only_what_is_played_is_recorded_and_is_the_reference_each_once() -> None:
    heard = Heard()
    config = AudioPipelineConfig(vad=None, dtmf=None, aec=lambda _: heard, taps=[lambda _session, _rate: heard])
    pipeline = Pipeline(config, VoiceSession("s"), BackendTraits())
    frames = [AudioFrame(to_pcm(sine(-10, 0.02)), RATE, at * SIZE) for at in range(3)]
    for frame in frames:
        pipeline.outbound(frame)  # made ready; the caller interrupts before the third sounds
    for frame in frames[:2]:
        pipeline.played(frame)
    assert heard.references == frames[:2]
    assert heard.taps == [("out", frame) for frame in frames[:2]]


def test_the_reference_waits_beside_the_line_and_is_bounded() -> None:
    reference = Reference(160, RATE)
    reference.push(b"\x01\x00" * 320)
    assert [reference.take()[:1] for _ in range(3)] == [b"\x01", b"\x01", b"\x00"]
    for at in range(1_000):
        reference.push(bytes([at % 7, 0]) * 160)
    waiting = 0
    while reference.take() != bytes(320) or waiting < 30:
        waiting += 1
        assert waiting < 60


def test_the_short_way_into_the_library_does_what_its_public_way_does() -> None:
    random = np.random.default_rng(5)
    near, far = random.normal(0, 3_000, 2 * RATE), random.normal(0, 3_000, 2 * RATE)
    short, plain = ApmStage(RATE), ApmStage(RATE)
    asked: list[str] = []

    def publicly(apm: Any, name: str, frame: Any) -> Callable[[], None]:
        def call() -> None:
            asked.append(name)
            getattr(apm, name)(frame)

        return call

    for module in (plain._echo, plain._rest):
        assert module is not None
        module._clean = publicly(module._apm, "process_stream", module._frames[0])
        module._play = publicly(module._apm, "process_reverse_stream", module._frames[1])
    fast = short._echo
    assert fast is not None
    assert fast._clean.__name__ == "directly", "the package has changed inside: see roomkit.voice.stages.apm._directly"
    assert np.array_equal(through(plain, near, far), through(short, near, far))
    assert (asked.count("process_stream"), asked.count("process_reverse_stream")) == (400, 200)


def test_echo_is_looked_for_while_there_can_be_any_and_its_room_is_remembered() -> None:
    random = np.random.default_rng(6)
    near, far = random.normal(0, 300, 12 * RATE), random.normal(0, 3_000, 12 * RATE)
    far[: 2 * RATE] = far[6 * RATE : 10 * RATE] = 0
    echo = np.convolve(far, _room(6, 150))[: len(far)]
    stage = named_echo("apm", RATE)
    out = through(stage, near + echo, far)
    # Nothing is played at first, and nothing from a second after the fourth second of speech: the caller is untouched.
    assert np.array_equal(out[: 2 * RATE - SIZE], np.rint(near[: 2 * RATE - SIZE]))
    assert np.array_equal(out[int(7.1 * RATE) : 10 * RATE - SIZE], np.rint(near[int(7.1 * RATE) : 10 * RATE - SIZE]))
    assert not np.array_equal(out[6 * RATE : int(6.9 * RATE)], np.rint(near[6 * RATE : int(6.9 * RATE)]))
    again = slice(int(10.2 * RATE), int(11.2 * RATE))  # before a room could be learned anew
    assert _power((near + echo)[again]) - _power(out[again]) > 10


@pytest.mark.skipif(not PROMPTS.is_dir(), reason="no recorded speech is installed (.ci/voice)")
def test_a_quiet_line_is_left_alone_and_the_first_echo_after_that_goes_as_those_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody listens to the bot with a headset on; then it is taken off, and then they speak."""
    random = np.random.default_rng(7)
    far, near = _spoken(60, 12), random.normal(0, 5, 12 * RATE)
    echo = np.convolve(far, _room(0, 150))[: len(far)]
    echo[4 * RATE : 9 * RATE] = 0
    mic = near + echo
    mic[11 * RATE :] += random.normal(0, 2_000, RATE)
    asked: list[str] = []

    def hear(module: Any, name: str) -> Callable[[], None]:
        clean = module._clean

        def counted() -> None:
            asked.append(name)
            clean()

        return counted

    stage = ApmStage(RATE, ("aec", "denoiser"))
    assert stage._echo is not None
    assert stage._rest is not None
    stage._echo._clean, stage._rest._clean = hear(stage._echo, "echo"), hear(stage._rest, "rest")
    out = through(stage, mic, far)
    # Four and a half seconds of hush, of which echo cancellation makes up for 0.4 s.
    assert asked.count("echo") == 1_200 - 450 + 40
    assert asked.count("rest") <= 1_200 - 400
    monkeypatch.setattr(apm, "_NOTHING", -1.0)
    always = through(ApmStage(RATE, ("aec", "denoiser")), mic, far)
    hush, both = slice(5 * RATE, 9 * RATE), slice(11 * RATE, 12 * RATE)
    again = slice(int(9.25 * RATE), 11 * RATE)
    assert _power(out[hush]) < _power(near[hush]) + 1
    assert _power(out[hush]) == pytest.approx(_power(always[hush]), abs=5)
    assert _power(mic[again]) - _power(out[again]) > 30
    assert _power(out[again]) < _power(always[again]), "the room was forgotten meanwhile"
    assert _power(out[both]) == pytest.approx(_power(always[both]), abs=3)


def test_digital_silence_stays_digital_silence() -> None:
    out = through(ApmStage(RATE), np.zeros(3 * RATE))
    assert not out.any()
