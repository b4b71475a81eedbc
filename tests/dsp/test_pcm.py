"""Levels, mixing and framing of 16-bit samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.dsp import pcm
from roomkit.dsp.framing import Reblock


def sine(frequency: float, rate: int, seconds: float, peak: float) -> bytes:
    return pcm.to_pcm(peak * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate))


def test_a_full_sine_is_three_decibels_under_its_peak() -> None:
    rms, peak = pcm.dbfs(sine(1000, 16_000, 1, 32767))
    assert rms == pytest.approx(-3.01, abs=0.01)
    assert peak == pytest.approx(0, abs=0.01)


def test_silence_and_nothing_are_minus_100() -> None:
    assert pcm.dbfs(pcm.silence(320)) == (-100.0, -100.0)
    assert pcm.dbfs(b"") == (-100.0, -100.0)


def test_a_mix_clips_once_at_its_end() -> None:
    loud, low = np.array([30_000, -30_000], "<i2").tobytes(), np.array([-20_000, 20_000], "<i2").tobytes()
    assert pcm.mix([loud, loud, low]) == np.array([32767, -32768], "<i2").tobytes()
    assert pcm.mix([loud, low]) == np.array([10_000, -10_000], "<i2").tobytes()
    assert pcm.mix([]) == b""


def test_rounding_clips_and_does_not_wrap() -> None:
    assert np.frombuffer(pcm.to_pcm(np.array([40_000.0, -40_000.0, 1.6, -1.6])), "<i2").tolist() == [
        32767,
        -32768,
        2,
        -2,
    ]
    assert math.isclose(pcm.decibels(10), 20)


@given(pieces=st.lists(st.binary(max_size=50), max_size=20), size=st.integers(1, 40))
def test_frames_are_the_stream_cut_at_every_size_bytes(pieces: list[bytes], size: int) -> None:
    cutter = Reblock(size)
    frames = [frame for piece in pieces for frame in cutter.push(piece)]
    assert all(len(frame) == size for frame in frames)
    rest = cutter.flush(pad=False)
    assert len(rest) < size
    assert b"".join(frames) + rest == b"".join(pieces)
    assert cutter.flush() == b""
