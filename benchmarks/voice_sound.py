"""Sound for the workloads of the audio stages: two people, their rooms, and noise; made, not recorded."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roomkit.dsp.pcm import to_pcm
from roomkit.models.audio import AudioFrame

Sound = NDArray[Any]


def babble(rate: int, seconds: float, seed: int) -> Sound:
    """Something like speech: voiced syllables with pauses between them."""
    random = np.random.default_rng(seed)
    count = int(rate * seconds)
    at = np.arange(count) / rate
    pitch = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 0.7 * at + seed)) / rate
    voice = np.array(sum(np.sin(n * pitch) / n for n in range(1, 18)))
    loud = np.zeros(count)
    borders = np.cumsum(random.uniform(0.08, 0.35, int(seconds / 0.08))) * rate
    for number, (begin, end) in enumerate(pairwise(borders.astype(int))):
        if number % 5 and begin < count:
            part = slice(begin, min(end, count))
            loud[part] = np.hanning(end - begin)[: part.stop - begin]
    return 5_000 * voice * loud + random.normal(0, 15, count)


def frames(values: Sound, rate: int) -> list[AudioFrame]:
    size = rate // 50
    pcm = to_pcm(values)
    return [AudioFrame(pcm[2 * at : 2 * (at + size)], rate, at) for at in range(0, len(values) - size + 1, size)]
