"""Our reading of the Silero model says what the model says, and leaving it alone in silence loses no quiet voice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roomkit.dsp.pcm import samples, to_pcm
from roomkit.dsp.sound import read_wav
from roomkit.models.audio import AudioFrame, SpeechEnded, SpeechStarted
from roomkit.voice.stages.silero import SileroDetector
from roomkit.voice.stages.vad import VadStage

RATE, WINDOW = 16_000, 512
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
needs_speech = pytest.mark.skipif(not PROMPTS.is_dir(), reason="no recorded speech is installed (.ci/voice)")


class Original:
    """The model as it was published, in the runtime that it was published for."""

    def __init__(self) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(Path(__file__).with_name("silero_vad.onnx")))
        self._input = np.zeros((1, 576), dtype=np.float32)
        self._state = np.zeros((2, 1, 128), dtype=np.float32)

    def probability(self, pcm: bytes) -> float:
        self._input[0, :64] = self._input[0, -64:]
        self._input[0, 64:] = samples(pcm) / np.float32(32768)
        given = {"input": self._input, "state": self._state, "sr": np.array(RATE)}
        likely, self._state = self._session.run(None, given)
        return float(likely[0, 0])


def windows(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + 2 * WINDOW] for at in range(0, len(pcm) - 2 * WINDOW + 1, 2 * WINDOW)]


@needs_speech
def test_the_same_likelihoods_as_the_original_on_speech_noise_tones_and_silence() -> None:
    spoken = samples(read_wav(PROMPTS / "vm-nobodyavail.wav", RATE)).astype(float)
    noise = np.random.default_rng(1).normal(0, 900, len(spoken))
    tone = 9_000 * np.sin(np.arange(RATE) / 7)
    full = np.where(np.arange(RATE) % 90 < 45, 32767, -32768)
    sound = np.concatenate((np.zeros(RATE), spoken, spoken + noise, noise, tone, full, np.zeros(3 * RATE), spoken / 50))
    original, ours = Original(), SileroDetector(gate=False)
    both = np.array([(original.probability(one), ours.probability(one)) for one in windows(to_pcm(sound))])
    assert both[:, 0].max() > 0.95
    assert both[:, 0].min() < 0.05
    assert np.abs(both[:, 0] - both[:, 1]).max() < 1e-4


def test_after_a_reset_it_is_as_new() -> None:
    sound = windows(to_pcm(np.random.default_rng(2).normal(0, 5_000, RATE)))
    used = SileroDetector()
    first = [used.probability(one) for one in sound]
    used.reset()
    assert [used.probability(one) for one in sound] == first


def test_silence_is_not_looked_at_and_what_follows_it_is() -> None:
    looked: list[None] = []

    class Counts(SileroDetector):
        def _features(self) -> None:
            looked.append(None)
            super()._features()

    detector = Counts()
    for _ in range(200):
        assert detector.probability(bytes(2 * WINDOW)) < 0.5
    assert len(looked) == 31
    detector.probability(to_pcm(np.full(WINDOW, 40)))
    assert len(looked) == 31 + 10 + 1  # what was missed is made up for
    detector.probability(bytes(2 * WINDOW))
    assert len(looked) == 31 + 10 + 2


@needs_speech
def test_a_room_that_only_hums_is_left_alone_until_somebody_speaks_in_it() -> None:
    looked: list[None] = []

    class Counts(SileroDetector):
        def _features(self) -> None:
            looked.append(None)
            super()._features()

    random = np.random.default_rng(4)
    spoken = samples(read_wav(PROMPTS / "demo-abouttotry.wav", RATE)).astype(float)[: 4 * RATE]
    active = spoken[np.abs(spoken) > np.abs(spoken).max() * 0.03]
    spoken *= 32768 * 10 ** (-36 / 20) / np.sqrt((active**2).mean())
    values = np.concatenate((np.zeros(20 * RATE), spoken, np.zeros(RATE)))
    pcm = to_pcm(values + random.normal(0, 32768 * 10 ** (-55 / 20), len(values)))
    plain, gated = _noticed(pcm, SileroDetector(gate=False)), _noticed(pcm, Counts())
    assert len(looked) < 0.4 * len(pcm) / 1024
    assert len(plain) == len(gated) >= 2
    assert all(ours <= theirs + 16 * 40 for ours, theirs in zip(gated[::2], plain[::2], strict=True))  # no later


@needs_speech
@pytest.mark.parametrize("level_dbfs", [-30, -46, -56])
def test_no_quiet_voice_is_lost_to_the_gate(level_dbfs: int) -> None:
    """A voice at -56 dBFS is a whisper on the other side of a room."""
    random = np.random.default_rng(3)
    for name in ("vm-nobodyavail", "demo-abouttotry", "conf-getpin", "vm-review"):
        spoken = samples(read_wav(PROMPTS / f"{name}.wav", RATE)).astype(float)
        active = spoken[np.abs(spoken) > np.abs(spoken).max() * 0.03]
        spoken *= 32768 * 10 ** (level_dbfs / 20) / np.sqrt((active**2).mean())
        values = np.concatenate((np.zeros(5 * RATE), spoken, np.zeros(RATE)))
        pcm = to_pcm(values + random.normal(0, 1, len(values)))
        plain, gated = _noticed(pcm, SileroDetector(gate=False)), _noticed(pcm, SileroDetector())
        assert len(plain) == len(gated) >= 2
        # In ms; half of the pre-roll, so that no first sound is lost.
        assert np.abs(np.array(plain) - np.array(gated)).max() / 16 <= 150


def _noticed(pcm: bytes, detector: Any) -> list[int]:
    stage, found = VadStage(detector, RATE), list[int]()
    for at in range(0, len(pcm) - 639, 640):
        signals = stage.process(AudioFrame(pcm[at : at + 640], RATE, at // 2))[1]
        found += [one.position for one in signals if isinstance(one, SpeechStarted | SpeechEnded)]
    return found
