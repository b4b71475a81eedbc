"""The resampler: as many samples out as due, a short lag, no aliases, no clicks at the borders of frames."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from roomkit.dsp import pcm
from roomkit.dsp.resample import SPAN_MS, Resampler

PAIRS = [
    (48_000, 16_000),
    (16_000, 48_000),
    (8_000, 16_000),
    (16_000, 8_000),
    (24_000, 16_000),
    (44_100, 16_000),
    (48_000, 8_000),
]


def sine(frequency: float, rate: int) -> bytes:
    return pcm.to_pcm(20_000 * np.sin(2 * np.pi * frequency * np.arange(rate) / rate))


def run(rate_in: int, rate_out: int, audio: bytes) -> NDArray[np.float64]:
    """The middle of what comes out of 20 ms frames."""
    resampler, size = Resampler(rate_in, rate_out), rate_in // 50 * 2
    out = [resampler.process(audio[at : at + size]) for at in range(0, len(audio), size)]
    assert {len(frame) // 2 for frame in out} == {rate_out // 50}
    return pcm.samples(b"".join(out)).astype(np.float64)[rate_out // 10 : -rate_out // 10]


def rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.parametrize("pair", PAIRS)
def test_what_both_rates_carry_passes_unchanged(pair: tuple[int, int]) -> None:
    for frequency in (100, 1000, 2500, 0.37 * min(pair)):
        assert pcm.decibels(rms(run(*pair, sine(frequency, pair[0]))) / (20_000 / 2**0.5)) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[0] > pair[1]])
def test_what_the_lower_rate_cannot_carry_is_70_db_down(pair: tuple[int, int]) -> None:
    rate_in, rate_out = pair
    for frequency in np.linspace(rate_out / 2 + 20, rate_in / 2 - 20, 12):
        assert pcm.decibels(rms(run(rate_in, rate_out, sine(float(frequency), rate_in))) / (20_000 / 2**0.5)) <= -70


@pytest.mark.parametrize("pair", PAIRS)
def test_borders_of_frames_do_not_click(pair: tuple[int, int]) -> None:
    heard = run(*pair, sine(1000, pair[0]))
    at = 2 * np.pi * 1000 * np.arange(len(heard)) / pair[1]
    basis = np.stack([np.sin(at), np.cos(at)], axis=1)
    noise = heard - basis @ np.linalg.lstsq(basis, heard, rcond=None)[0]
    assert pcm.decibels(rms(heard) / rms(noise)) >= 70


@pytest.mark.parametrize("pair", PAIRS)
def test_the_lag_is_what_it_says_and_at_most_3_ms(pair: tuple[int, int]) -> None:
    rate_in, rate_out = pair
    click = np.zeros(rate_in, dtype="<i2")
    click[rate_in // 2] = 30_000
    resampler = Resampler(rate_in, rate_out)
    heard = np.abs(pcm.samples(resampler.process(click.tobytes())).astype(np.int32))
    late_ms = (int(heard.argmax()) / rate_out - (rate_in // 2) / rate_in) * 1000
    assert resampler.lag_ms == SPAN_MS / 2 <= 3
    assert late_ms == pytest.approx(resampler.lag_ms, abs=1000 / rate_out)


def test_odd_pieces_come_out_as_one_stream() -> None:
    audio = sine(440, 48_000)
    whole, pieces = Resampler(48_000, 16_000), Resampler(48_000, 16_000)
    cuts = [*range(0, len(audio), 2 * 777), len(audio)]
    out = b"".join(pieces.process(audio[a:b]) for a, b in pairwise(cuts))
    expected = whole.process(audio)
    assert out == expected[: len(out)]
    assert len(expected) - len(out) < 2 * 320


def test_the_same_rate_is_left_alone_and_reset_forgets() -> None:
    assert Resampler(16_000, 16_000).process(b"\x01\x02") == b"\x01\x02"
    resampler = Resampler(8_000, 16_000)
    first = resampler.process(sine(440, 8_000))
    resampler.reset()
    assert resampler.process(sine(440, 8_000)) == first


@pytest.mark.parametrize("rates", [(0, 8000), (8000, -1)])
def test_a_rate_is_positive(rates: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Resampler(*rates)
