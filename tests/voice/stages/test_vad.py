"""Speech begins and ends: the rules on a scripted detector, the detectors of the house on real speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roomkit.dsp.pcm import samples, to_pcm
from roomkit.dsp.sound import read_wav
from roomkit.errors import ConfigError
from roomkit.models.audio import AudioFrame, AudioSignal, SilenceLasted, SpeechEnded, SpeechStarted
from roomkit.ports.audio import AudioStage
from roomkit.voice.stages import named
from roomkit.voice.stages.vad import VADConfig, VadStage

RATE = 16_000
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")


class Scripted:
    """Takes the first sample of a window for its likelihood in percent; 10 ms windows."""

    window = 160

    def probability(self, pcm: bytes) -> float:
        return int(samples(pcm)[0]) / 100

    def reset(self) -> None: ...


def run(stage: AudioStage, pcm: bytes, rate: int = RATE) -> list[tuple[int, AudioSignal]]:
    """(ms, what was noticed) frame by frame."""
    size, noticed = rate // 50 * 2, []
    for at in range(0, len(pcm) - size + 1, size):
        _, signals = stage.process(AudioFrame(pcm[at : at + size], rate, at // 2))
        noticed += [((at + size) * 500 // rate, one) for one in signals]
    return noticed


def script(*parts: tuple[int, int], rate: int = RATE) -> bytes:
    """(likelihood in percent, ms) one after the other."""
    return b"".join(to_pcm(np.full(rate * ms // 1000, likely)) for likely, ms in parts)


def test_speech_begins_after_250_ms_and_ends_after_500_ms_without() -> None:
    noticed = run(VadStage(Scripted(), RATE), script((0, 400), (90, 1_000), (0, 700)))
    (began_ms, began), (ended_ms, ended) = noticed
    assert isinstance(began, SpeechStarted)
    assert isinstance(ended, SpeechEnded)
    assert (began_ms, ended_ms) == (pytest.approx(650, abs=20), pytest.approx(1_900, abs=20))
    assert began.position / 16 == pytest.approx(400, abs=20)
    assert ended.position / 16 == pytest.approx(1_400, abs=20)
    assert (ended.silence_ms, ended.duration_ms) == (500, pytest.approx(1_000, abs=20))
    # What the recogniser gets begins 300 ms before the first sound, as far as there is that much.
    assert len(began.pre_roll) / 32 == pytest.approx(570, abs=40)
    assert samples(began.pre_roll)[0] == 0


def test_a_cough_is_no_speech_and_a_breath_within_is_no_end() -> None:
    assert run(VadStage(Scripted(), RATE), script((0, 300), (90, 200), (0, 400))) == []
    noticed = run(VadStage(Scripted(), RATE), script((90, 600), (0, 450), (90, 600), (0, 600)))
    assert [type(one) for _, one in noticed] == [SpeechStarted, SpeechEnded]


def test_what_has_begun_goes_on_at_a_lower_likelihood() -> None:
    assert run(VadStage(Scripted(), RATE), script((40, 900))) == []
    noticed = run(VadStage(Scripted(), RATE), script((90, 300), (40, 2_000)))
    assert [type(one) for _, one in noticed] == [SpeechStarted]


def test_silence_is_told_once_a_second() -> None:
    noticed = run(VadStage(Scripted(), RATE), script((0, 3_500)))
    assert [(ms, one) for ms, one in noticed] == [(ms, SilenceLasted(1_000)) for ms in (1_000, 2_000, 3_000)]


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="release <= threshold"):
        VADConfig(threshold=0.3, release=0.6)


@pytest.mark.skipif(not PROMPTS.is_dir(), reason="no recorded speech is installed (.ci/voice)")
@pytest.mark.parametrize("name", ["silero", "webrtc", "energy"])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_real_speech_on_a_quiet_line(name: str, rate: int) -> None:
    spoken = samples(read_wav(PROMPTS / "vm-nobodyavail.wav", rate)).astype(float)
    loud = np.flatnonzero(np.abs(spoken) > 600)
    values = np.concatenate((np.zeros(rate), spoken, np.zeros(rate)))
    values += np.random.default_rng(1).normal(0, 8, len(values))
    noticed = [one for _, one in run(named("vad", name, rate), to_pcm(values), rate)]
    began = [one for one in noticed if isinstance(one, SpeechStarted)]
    ended = [one for one in noticed if isinstance(one, SpeechEnded)]
    assert len(began) == len(ended) >= 1
    assert began[0].position / rate == pytest.approx(1 + loud[0] / rate, abs=0.15)
    assert ended[-1].position / rate == pytest.approx(1 + loud[-1] / rate, abs=0.25)
    # The pre-roll has the first sound, and something before it.
    heard = samples(began[0].pre_roll)
    assert np.abs(heard).max() > 600
    assert np.abs(heard[: rate // 20]).max() < 600
