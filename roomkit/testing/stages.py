"""`check_stage`, the conformance kit of AudioStage: what every stage of a pipeline owes the call it works for."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from typing import Any

import numpy as np

from roomkit.models.audio import AudioFrame, AudioSignal, DtmfDigit, SpeechStarted

_Heard = tuple[bytes, list[AudioSignal]]
HELD_BACK_MS = 60
"""A stage may wait for a block of its own length, not for more."""
_GROWTH = 48_000
"""Bytes: what may come and go; five seconds of sound are more."""


def check_stage(make: Callable[[int], Any], *, rates: Iterable[int] = (8_000, 16_000), speech: bytes = b"") -> None:
    """Checks that what `make(rate)` returns is an AudioStage as the port wants it; raises AssertionError with the
    reason. `speech` is 16-bit sound at the first rate, for stages that behave differently when somebody speaks; without
    it there is a warbling tone. Takes a second or so."""
    first, *others = rates
    said = b""
    for rate in (*others, first):
        said = speech if speech and rate == first else _warble(rate, 1.3)
        _check_lengths(make, rate, said)
        _check_silence(make(rate), rate)
        _check_full_scale(make(rate), rate)
        _check_reset(make(rate), rate, said)
        _check_two_streams(make, rate, said)
    _check_memory(make(first), first, said)


def _warble(rate: int, seconds: float) -> bytes:
    at = np.arange(int(rate * seconds)) / rate
    loud = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 0.8 * at))
    tone = sum(
        np.sin(2 * np.pi * f * at + 3 * np.sin(2 * np.pi * 4 * at)) / n for n, f in enumerate((180, 360, 720), 1)
    )
    noise = np.random.default_rng(1).normal(0, 40, len(at))
    return (6_000 * loud * tone + noise).astype("<i2").tobytes()


def _frames(pcm: bytes, rate: int, lengths: Iterable[int] = ()) -> Iterator[AudioFrame]:
    at, sizes = 0, cycle(lengths or (rate // 50,))
    while at < len(pcm):
        size = 2 * next(sizes)
        yield AudioFrame(pcm[at : at + size], rate, at // 2)
        at += size


def _through(stage: Any, frames: Iterable[AudioFrame]) -> _Heard:
    """What comes out; the far end of an echo stage plays what is heard, a little quieter."""
    sound, signals, end = bytearray(), list[AudioSignal](), 0
    for frame in frames:
        if hasattr(stage, "reference"):
            far = (np.frombuffer(frame.pcm, "<i2") // 2).astype("<i2").tobytes()
            stage.reference(AudioFrame(far, frame.rate, frame.position))
        out, noticed = stage.process(frame)
        signals += noticed
        if out is None:
            continue
        assert isinstance(out.pcm, bytes), f"a frame holds bytes, not {type(out.pcm).__name__}"
        assert len(out.pcm) % 2 == 0, "a frame came out with half a sample"
        assert out.rate == frame.rate, f"a stage keeps the rate: {frame.rate} went in, {out.rate} came out"
        assert out.position == end, f"a frame at {out.position} came out after one that ended at {end}"
        end = out.end
        sound += out.pcm
        held = (frame.end - end) * 1000 / frame.rate
        assert 0 <= held <= HELD_BACK_MS, f"{held:.0f} ms are held back; {HELD_BACK_MS} may be"
    return bytes(sound), signals


def _check_lengths(make: Callable[[int], Any], rate: int, said: bytes) -> None:
    stage = make(rate)
    assert isinstance(stage.name, str), "a stage has a name"
    assert stage.name, "a stage has a name"
    for lengths in ((rate // 50,), (rate // 100,), (rate * 3 // 100,), (7, 1, 331, 2), (rate,)):
        sound, _ = _through(make(rate), _frames(said, rate, lengths))
        lost = (len(said) - len(sound)) * 500 / rate
        assert 0 <= lost <= HELD_BACK_MS, f"of frames of {lengths} samples {lost:.0f} ms never came out"


def _check_silence(stage: Any, rate: int) -> None:
    sound, signals = _through(stage, _frames(bytes(4 * rate), rate))
    peak = int(np.abs(np.frombuffer(sound, "<i2").astype(np.int32)).max(initial=0))
    assert peak <= 64, f"silence went in, and a peak of {peak} came out"
    wrong = [one for one in signals if isinstance(one, SpeechStarted | DtmfDigit)]
    assert not wrong, f"in silence it noticed {wrong[0]}"


def _check_full_scale(stage: Any, rate: int) -> None:
    at = np.arange(rate)
    square = np.where(at // (rate // 400) % 2, 32767, -32768).astype("<i2").tobytes()
    noise = np.random.default_rng(2).integers(-32768, 32768, rate).astype("<i2").tobytes()
    sound, _ = _through(stage, _frames(square + noise, rate))
    values = np.frombuffer(sound, "<i2").astype(np.int32)
    # A sum that wraps around jumps from one end to the other between two samples of a slow wave.
    steps = np.abs(np.diff(values[: rate // 2])) > 60_000
    assert steps.sum() <= rate // 2 // (rate // 400) + 4, "a full-scale wave came out broken: something wrapped around"


def _check_reset(stage: Any, rate: int, said: bytes) -> None:
    first = _through(stage, _frames(said, rate))
    stage.process(AudioFrame(said[:14], rate, len(said) // 2))
    stage.reset()
    again = _through(stage, _frames(said, rate))
    assert again[0] == first[0], "after reset() the same sound came out differently"
    assert again[1] == first[1], "after reset() other things were noticed in the same sound"


def _check_two_streams(make: Callable[[int], Any], rate: int, said: bytes) -> None:
    other = said[::-1][: len(said) // 2 * 2]
    alone = _through(make(rate), _frames(said, rate))
    one, two = make(rate), make(rate)

    def between() -> Iterator[AudioFrame]:
        for mine, theirs in zip(_frames(said, rate), _frames(other, rate), strict=True):
            yield mine
            two.process(theirs)

    assert _through(one, between()) == alone, "a second stream changes what the first one hears"


def _check_memory(stage: Any, rate: int, said: bytes) -> None:
    frames = list(_frames(said, rate))
    rounds = 200 // len(frames) + 1

    def work() -> None:
        for _ in range(rounds):
            for frame in frames:
                stage.process(frame)
                if hasattr(stage, "reference"):  # the far end is faster than the line
                    stage.reference(frame)
                    stage.reference(frame)

    work()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < _GROWTH, f"{grown:,} bytes more after {rounds * len(frames)} frames: it keeps what it hears"
