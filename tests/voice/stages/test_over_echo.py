"""A voice over its own echo of the reply, through the whole pipeline: it is noticed, and what is no voice is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from roomkit.dsp.pcm import samples, to_pcm
from roomkit.dsp.sound import read_wav
from roomkit.models.audio import AudioFrame, SpeechStarted, VoiceSession
from roomkit.ports.audio import BackendTraits, BesideEcho
from roomkit.voice.pipeline import AudioPipelineConfig, Pipeline
from roomkit.voice.stages.vad import VadStage

RATE, SIZE = 16_000, 320
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
pytestmark = pytest.mark.skipif(not PROMPTS.is_dir(), reason="no recorded speech is installed (.ci/voice)")


def voice(name: str, level_dbfs: float = -20) -> NDArray[Any]:
    found = samples(read_wav(PROMPTS / f"{name}.wav", RATE)).astype(float)
    active = found[np.abs(found) > np.abs(found).max() * 0.03]
    return found * 32768 * 10 ** (level_dbfs / 20) / np.sqrt((active**2).mean())


def noticed(near: NDArray[Any], *, beside: bool = True) -> list[float]:
    """When speech was noticed, in seconds, while a reply plays all the time and comes back as loud as it is."""
    random = np.random.default_rng(7)
    reply = np.concatenate([voice(name) for name in ("demo-congrats", "demo-instruct", "demo-abouttotry")])[: len(near)]
    near = near[: len(reply)]
    count = RATE // 5
    room = np.concatenate((np.zeros(RATE // 50), random.normal(0, 1, count) * 10 ** (-3 * np.arange(count) / count)))
    heard = near + np.convolve(reply, 0.4 * room / np.sqrt((room**2).sum()))[: len(near)]
    heard += random.normal(0, 10, len(near))
    pipeline = Pipeline(AudioPipelineConfig(aec="apm", dtmf=None, levels_per_s=0), VoiceSession("s"), BackendTraits())
    if not beside:
        for stage in pipeline._inbound:
            if isinstance(stage, BesideEcho):
                stage.echo = None
    found: list[float] = []
    for at in range(0, len(near) - SIZE + 1, SIZE):
        pipeline.played(AudioFrame(to_pcm(reply[at : at + SIZE]), RATE, at))
        signals = pipeline.process(AudioFrame(to_pcm(heard[at : at + SIZE]), RATE, at))[1]
        found += [at / RATE for one in signals if isinstance(one, SpeechStarted)]
    return found


NAMES = ("vm-nobodyavail", "conf-getpin", "vm-options", "vm-msginstruct")


def test_voices_as_loud_as_the_echo_are_noticed_and_sooner_than_without_knowing_of_it() -> None:
    took, without = list[float](), list[float]()
    for name in NAMES:
        said = voice(name, -26)[: 3 * RATE]
        near = np.concatenate((np.zeros(5 * RATE), said, np.zeros(RATE)))
        ours, plain = noticed(near), noticed(near, beside=False)
        assert all(at >= 5 for at in ours), "the reply's own echo is nobody"
        took.append(ours[0] - 5 if ours else 9)
        without.append(plain[0] - 5 if plain else 9)
    assert max(took) < 2.5, (took, without)
    assert np.mean(took) < np.mean(without) - 0.3, (took, without)


def test_bursts_of_noise_over_the_echo_are_nobody() -> None:
    random = np.random.default_rng(8)
    near = np.zeros(14 * RATE)
    for at in range(4, 13):
        burst = random.normal(0, 4_000, RATE // 4) * np.exp(-12 * np.arange(RATE // 4) / RATE)
        near[at * RATE : at * RATE + len(burst)] += burst
    assert noticed(near) == []


class Sure:
    """A detector of voices that hears one in everything, with this likelihood."""

    window, faint = 320, 0.1

    def __init__(self, likely: float) -> None:
        self.likely = likely

    def probability(self, pcm: bytes) -> float:
        return self.likely

    def reset(self) -> None: ...


class Echo:
    echoing = True


def started(stage: VadStage, frames: int, level: int = 3_000) -> float | None:
    """After how many ms of sound at one level speech begins."""
    for number in range(frames):
        frame = AudioFrame(level.to_bytes(2, "little", signed=True) * SIZE, RATE, number * SIZE)
        if any(isinstance(one, SpeechStarted) for one in stage.process(frame)[1]):
            return (number + 1) * 20.0
    return None


def test_in_the_first_seconds_of_echo_speech_must_last_twice_as_long() -> None:
    stage = VadStage(Sure(0.9), RATE)
    assert started(stage, 100) == 260
    stage.reset()
    stage.echo = Echo()
    assert started(stage, 100) == 500


def test_faint_speech_counts_over_echo_only_later_and_only_where_it_is_far_louder() -> None:
    detector = Sure(0.0)
    stage = VadStage(detector, RATE)
    stage.echo = Echo()
    assert started(stage, 150, level=10) is None
    detector.likely = 0.2
    assert started(stage, 50, level=10) is None, "as loud as what is left of the echo"
    assert started(stage, 50) == 260
    stage.reset()
    assert started(stage, 50) is None, "in the first seconds"
    stage.echo = None
    assert started(stage, 100) is None, "without echo it is no speech"
