"""Every stage of the house passes `check_stage`; and `check_stage` finds what it is there to find."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

import pytest

from roomkit.errors import ConfigError
from roomkit.models.audio import AudioFrame, AudioSignal
from roomkit.testing.stages import check_stage
from roomkit.voice.stages import named, named_echo

HOUSE = [
    ("vad", "silero"),
    ("vad", "webrtc"),
    ("vad", "energy"),
    ("dtmf", "goertzel"),
    ("agc", "builtin"),
    ("agc", "apm"),
    ("denoiser", "apm"),
    ("denoiser", "rnnoise"),
    ("diarization", "channel"),
    ("limiter", "limiter"),
]


@pytest.mark.parametrize("kind, name", HOUSE)
def test_a_stage_of_the_house(kind: str, name: str) -> None:
    rates = (16_000,) if name == "rnnoise" else (8_000, 16_000)  # it takes half of a core
    check_stage(lambda rate: named(kind, name, rate), rates=rates)


@pytest.mark.parametrize("name", ["apm", "speex"])
def test_an_echo_stage_of_the_house(name: str) -> None:
    check_stage(lambda rate: named_echo(name, rate))


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(ConfigError, match='no agc stage "loud"; there are: apm, builtin'):
        named("agc", "loud", 16_000)


class Straight:
    name = "straight"

    def __init__(self, rate: int) -> None:
        self.rate = rate

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        return frame, ()

    def reset(self) -> None: ...


class Swallows(Straight):
    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        return (None if frame.samples < 50 else frame), ()


class Hums(Straight):
    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        return AudioFrame(b"\x00\x02" * frame.samples, frame.rate, frame.position), ()


class Forgets(Straight):
    """Not to forget."""

    def __init__(self, rate: int) -> None:
        super().__init__(rate)
        self.last = b"\x00\x00"

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        pcm, self.last = self.last + frame.pcm[:-2], frame.pcm[-2:]
        return AudioFrame(pcm, frame.rate, frame.position), ()


class Shares(Forgets):
    lines: ClassVar[dict[int, bytes]] = {}

    def __init__(self, rate: int) -> None:
        super().__init__(rate)
        self.lines.clear()

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        self.last = self.lines.get(self.rate, b"\x00\x00")
        out = super().process(frame)
        self.lines[self.rate] = self.last
        return out

    def reset(self) -> None:
        self.lines.clear()


class Hoards(Straight):
    def __init__(self, rate: int) -> None:
        super().__init__(rate)
        self.all: deque[bytes] = deque()

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        self.all.append(frame.pcm[1:] + b"\x00")
        return frame, ()


@pytest.mark.parametrize(
    "stage, why",
    [
        (Swallows, "came out after one that ended at"),
        (Hums, "silence went in, and a peak of 512"),
        (Forgets, "after reset"),
        (Shares, "a second stream changes"),
        (Hoards, "it keeps what it hears"),
    ],
)
def test_what_a_stage_must_not_do(stage: Any, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check_stage(stage)


def test_a_stage_that_does_nothing_is_fine() -> None:
    check_stage(Straight)
