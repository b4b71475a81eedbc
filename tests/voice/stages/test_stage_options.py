"""What the options of the stages do to sound that is made for it."""

from __future__ import annotations

import numpy as np
import pytest

from roomkit.dsp.pcm import samples, to_pcm
from roomkit.models.audio import AudioFrame, SilenceLasted, SpeechStarted
from roomkit.voice.stages.agc import GainConfig, GainStage
from roomkit.voice.stages.vad import VADConfig, VadStage
from tests.voice.stages.test_vad import RATE, Scripted, run, script


def gained(config: GainConfig, *dbfs: float) -> float:
    """How loud, in dBFS, a tone is at the end that was as loud as told for 200 ms each."""
    stage, loudest = GainStage(RATE, config), 0
    wave = np.sin(np.arange(RATE // 50) * 2 * np.pi / 16)
    for level in dbfs:
        for _ in range(10):
            frame, _signals = stage.process(AudioFrame(to_pcm(wave * 32768 * 10 ** (level / 20)), RATE, 0))
            assert frame is not None
            loudest = int(np.abs(samples(frame.pcm).astype(np.int32)).max())
    return float(20 * np.log10(loudest / 32768))


@pytest.mark.parametrize(
    "config, spoken, heard",
    [
        (GainConfig(release_ms=20), -20, -3),
        (GainConfig(target_dbfs=-12, release_ms=20), -20, -12),
        (GainConfig(release_ms=20), -40, -10),
        (GainConfig(max_gain_db=6, release_ms=20), -40, -34),
        (GainConfig(gate_dbfs=-30, release_ms=20), -40, -40),
    ],
)
def test_how_loud_a_voice_becomes(config: GainConfig, spoken: float, heard: float) -> None:
    assert gained(config, spoken, spoken, spoken) == pytest.approx(heard, abs=0.5)


def test_how_soon_a_quiet_voice_is_raised_after_a_loud_one() -> None:
    slow, fast = gained(GainConfig(release_ms=2_000), -3, -23), gained(GainConfig(release_ms=20), -3, -23)
    assert slow < -15
    assert fast > -5


@pytest.mark.parametrize("pad_ms", [100, 300])
def test_how_much_before_the_first_sound_belongs_to_speech(pad_ms: int) -> None:
    stage = VadStage(Scripted(), RATE, VADConfig(pad_ms=pad_ms))
    ((_, began),) = run(stage, script((0, 800), (90, 400)))
    assert isinstance(began, SpeechStarted)
    assert len(began.pre_roll) / 32 == pytest.approx(pad_ms + 270, abs=40)


def test_how_often_silence_is_told() -> None:
    stage = VadStage(Scripted(), RATE, VADConfig(tell_silence_ms=400))
    assert [(ms, one) for ms, one in run(stage, script((0, 1_000)))] == [
        (400, SilenceLasted(400)),
        (800, SilenceLasted(400)),
    ]
