"""Frames in any order and at any time: late is not lost, silence that was not sent is no loss, holes are made up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkit.dsp.conceal import Concealer
from roomkit.dsp.jitter import JitterBuffer
from roomkit.dsp.pcm import dbfs, silence, to_pcm

SIZE = 320


def frame(number: int) -> bytes:
    return to_pcm(np.full(SIZE, 1_000 + number))


def numbers(pulled: list[bytes]) -> list[int]:
    """Which frames came out; -1 for what was made up."""
    return [max(int(np.frombuffer(pcm, "<i2")[-1]) - 1_000, -1) for pcm in pulled]


def run(
    arrivals: dict[int, list[int]], ticks: int, buffer: JitterBuffer | None = None
) -> tuple[JitterBuffer, list[int]]:
    """`arrivals` maps a tick to the frames that come before it."""
    buffer = buffer or JitterBuffer(16_000)
    out: list[bytes] = []
    for tick in range(ticks):
        for number in arrivals.get(tick, []):
            buffer.put(number * SIZE, frame(number))
        out.append(buffer.pull())
    return buffer, numbers(out)


def in_order(out: list[int]) -> list[int]:
    return [number for number in out if number >= 0]


def test_in_time_everything_comes_out_40_ms_late() -> None:
    buffer, out = run({tick: [tick] for tick in range(20)}, 20)
    assert out[1:] == list(range(19))
    assert (buffer.lost, buffer.late, buffer.skipped) == (0, 0, 0)


def test_order_is_restored() -> None:
    _, out = run({0: [0], 1: [2], 2: [1], 3: [3], 4: [5], 5: [4], 6: [6], 7: [7]}, 8)
    assert out[1:] == list(range(7))


def test_a_stall_delays_and_loses_nothing() -> None:
    arrivals = {tick: [tick] for tick in range(5)} | {15: list(range(5, 16))} | {t: [t] for t in range(16, 30)}
    buffer, out = run(arrivals, 40)
    assert in_order(out) == list(range(30))
    assert (buffer.lost, buffer.dropped) == (0, 0)


def test_what_was_not_sent_is_silence_and_no_loss() -> None:
    arrivals = {tick: [tick] for tick in range(5)} | {tick: [tick] for tick in range(25, 30)}
    buffer, out = run(arrivals, 32)
    assert in_order(out) == [*range(5), *range(25, 30)]
    assert (buffer.lost, buffer.skipped) == (0, 20)


def test_a_hole_is_made_up_and_counted() -> None:
    buffer, out = run({tick: [tick] for tick in range(20) if tick != 7}, 20)
    assert out[1:8] == list(range(7))
    assert out[8] == -1
    assert buffer.lost == 1


def test_a_frame_after_its_turn_was_late_and_the_buffer_grows() -> None:
    buffer, _ = run({tick: [tick] for tick in range(10) if tick != 5} | {12: [5]}, 13)
    assert (buffer.lost, buffer.late) == (0, 1)
    assert buffer._depth == 3


def test_the_delay_of_a_stall_goes_away_in_silence() -> None:
    buffer = JitterBuffer(16_000)
    for number in range(9):
        buffer.put(number * SIZE, silence(SIZE))
    for tick in range(9, 60):
        buffer.pull()
        buffer.put(tick * SIZE, silence(SIZE))
    assert len(buffer) <= 5
    assert buffer.dropped > 0


def test_a_frame_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="320"):
        JitterBuffer(16_000).put(0, b"xx")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=30, max_size=60), st.sets(st.integers(1, 79)))
def test_any_delays_and_losses(delays: list[int], lost: set[int]) -> None:
    arrivals: dict[int, list[int]] = {}
    for number, delay in enumerate(delays):
        if number not in lost:
            arrivals.setdefault(number + delay, []).append(number)
    buffer, out = run(arrivals, len(delays) + 60)
    kept = in_order(out)
    assert kept == sorted(set(kept)), "nothing comes twice or out of order"
    assert len(kept) + buffer.dropped + buffer.late >= len([n for n in range(len(delays)) if n not in lost]) - 1
    assert len(buffer) == 0
    assert buffer.lost >= 0


@pytest.mark.parametrize("pitch", [100, 180, 330])
def test_what_is_made_up_goes_on_like_the_voice_before_it_and_fades(pitch: int) -> None:
    concealer = Concealer(16_000)
    at = np.arange(SIZE)
    tone = [to_pcm(8_000 * np.sin(2 * np.pi * pitch * (at + SIZE * n) / 16_000)) for n in range(12)]
    for pcm in tone[:6]:
        assert concealer.good(pcm) == pcm
    made = [concealer.lost(SIZE) for _ in range(4)]
    first, meant = np.frombuffer(made[0], "<i2").astype(float), np.frombuffer(tone[6], "<i2").astype(float)
    assert np.corrcoef(first, meant)[0, 1] > 0.95
    levels = [dbfs(pcm)[0] for pcm in made]
    assert levels[0] > levels[1] > levels[2]
    assert made[3] == silence(SIZE)
    joined = np.frombuffer(concealer.good(tone[10]) + tone[11], "<i2").astype(int)
    assert np.abs(np.diff(joined)).max() < 1_500, "a click where the voice goes on"
