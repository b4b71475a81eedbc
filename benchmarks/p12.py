"""P12: 48 kHz to 16 kHz and the other ways, a 20 ms frame at a time; lag and aliases are measured, too."""

from __future__ import annotations

import numpy as np

from benchmarks.measure import Cost, Figure, Meter, Report, cpu_figure
from benchmarks.voice_sound import babble, frames
from roomkit.dsp.pcm import samples, to_pcm
from roomkit.dsp.resample import Resampler

TITLE = "resampling a 20 ms frame"


async def run(meter: Meter) -> Report:
    figures = [
        cpu_figure(f"{rate_in // 1000}k to {rate_out // 1000}k", await _cost(meter, rate_in, rate_out), target)
        for rate_in, rate_out, target in (
            (48_000, 16_000, 30.0),
            (16_000, 48_000, None),
            (8_000, 16_000, None),
            (16_000, 8_000, None),
            (24_000, 16_000, None),
        )
    ]
    return Report(
        [
            *figures,
            Figure("lag 48k to 16k", Resampler(48_000, 16_000).lag_ms, "ms", 3.0),
            Figure("aliases of 8.6 to 23 kHz", _aliases(), "dB", -70.0),
        ]
    )


async def _cost(meter: Meter, rate_in: int, rate_out: int) -> Cost:
    sound = frames(babble(rate_in, 1.0, 1), rate_in)
    resampler, rounds = Resampler(rate_in, rate_out), meter.size(20, 1)

    async def work(_: Cost) -> int:
        for _ in range(rounds):
            for frame in sound:
                resampler.process(frame.pcm)
        return rounds * len(sound)

    return await meter.cost(work, 7)


def _aliases() -> float:
    """The loudest of what comes out when only tones go in that do not fit; relative to them."""
    at = np.arange(48_000) / 48_000
    worst = -200.0
    for hertz in range(8_600, 23_000, 350):
        out = Resampler(48_000, 16_000).process(to_pcm(30_000 * np.sin(2 * np.pi * hertz * at)))
        steady = samples(out)[1_600:].astype(float)
        worst = max(worst, 20 * float(np.log10(max(np.sqrt((steady**2).mean()), 0.01) / (30_000 / np.sqrt(2)))))
    return worst
