"""Keys in sound: every key, in noise and with twist; short clicks, single tones and music are none."""

from __future__ import annotations

import numpy as np
import pytest

from roomkit.dsp.dtmf import KEYS, KeyDetector
from roomkit.dsp.pcm import samples, silence, to_pcm
from roomkit.dsp.sound import KEYS as FREQUENCIES
from roomkit.dsp.sound import tone

EVERY = "".join(KEYS)


def heard(pcm: bytes, rate: int) -> list[str]:
    detector, size = KeyDetector(rate), rate // 50 * 2
    return [key for at in range(0, len(pcm), size) for key in detector.push(pcm[at : at + size])]


@pytest.mark.parametrize("rate", [8_000, 16_000])
@pytest.mark.parametrize("duration_ms", [50, 100, 400])
def test_every_key_is_told_once_in_noise_wherever_it_begins(rate: int, duration_ms: int) -> None:
    random = np.random.default_rng(7)
    for key in EVERY:
        pcm = silence(int(random.integers(0, 400))) + tone(key, duration_ms, rate) + silence(rate // 5)
        noisy = to_pcm(samples(pcm) + random.normal(0, 800, len(pcm) // 2))
        assert heard(noisy, rate) == [key]


def test_a_key_pressed_twice_is_two_keys() -> None:
    pcm = b"".join(tone("5", 80, 8_000) + silence(640) for _ in range(2)) + silence(1_600)
    assert heard(pcm, 8_000) == ["5", "5"]


@pytest.mark.parametrize("twist_db, there", [(-7, True), (3, True), (-12, False), (9, False)])
def test_twist_as_lines_have_it_is_heard_and_more_is_not(twist_db: float, there: bool) -> None:
    low, high = FREQUENCIES["8"]
    at = np.arange(1_600) / 8_000
    strength = 6_000 * np.array([1.0, 10 ** (twist_db / 20)])
    pcm = to_pcm(strength[0] * np.sin(2 * np.pi * low * at) + strength[1] * np.sin(2 * np.pi * high * at))
    assert heard(pcm + silence(1_600), 8_000) == (["8"] if there else [])


def test_what_is_no_key() -> None:
    at = np.arange(16_000) / 16_000
    random = np.random.default_rng(3)
    chord = sum(5_000 * np.sin(2 * np.pi * f * at) for f in (440, 554.4, 659.3, 880, 1318.5))
    for sound in (
        to_pcm(10_000 * np.sin(2 * np.pi * 770 * at)),
        to_pcm(random.normal(0, 8_000, 16_000)),
        to_pcm(np.asarray(chord)),
        tone("1", 15, 16_000) + silence(8_000),
        silence(16_000),
    ):
        assert heard(sound, 16_000) == []


def test_reset_forgets_half_a_key() -> None:
    detector = KeyDetector(8_000)
    detector.push(tone("1", 30, 8_000))
    detector.reset()
    assert detector.push(tone("1", 20, 8_000) + silence(800)) == []
