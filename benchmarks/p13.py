"""P13: the whole chain both ways, a 20 ms frame at a time, and how many calls of it one core really carries."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from benchmarks.measure import Cost, Figure, Meter, Report, cpu_figure
from benchmarks.peer_voice import compared
from benchmarks.voice_sound import babble, frames
from roomkit.dsp.pcm import samples, to_pcm
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.ports.audio import BackendTraits
from roomkit.voice.pipeline import AudioPipelineConfig, Pipeline
from roomkit.voice.stages.apm import KINDS, _Module

TITLE = "resample, keys, echo, gain, noise and speech, with limiter and resample out, per 20 ms frame"
CHAIN = AudioPipelineConfig(aec="apm", agc="apm", denoiser="apm")
SHIPPED = AudioPipelineConfig()
OWN_GAIN = AudioPipelineConfig(aec="apm", agc="builtin", denoiser="apm")
LINE_RATE = 48_000
TURNS_S = 10.0


@dataclass(frozen=True, slots=True)
class Talk:
    """What is heard and what is played, frame by frame; None while nothing is played."""

    near: list[AudioFrame]
    far: list[AudioFrame | None]


async def run(meter: Meter) -> Report:
    both = Talk(frames(babble(LINE_RATE, 2.0, 1), LINE_RATE), [*frames(babble(CHAIN.rate, 2.0, 2), CHAIN.rate)])
    turns = _turns()
    chain, shipped, own_gain = [
        (await _cost(meter, config, both), await _cost(meter, config, turns)) for config in (CHAIN, SHIPPED, OWN_GAIN)
    ]
    bare = await _bare(meter, frames(babble(CHAIN.rate, 2.0, 1), CHAIN.rate), both.far)
    report = Report(
        [
            cpu_figure("all stages, taking turns", chain[1], 300.0),
            cpu_figure("all stages, both speaking all the time", chain[0], 300.0),
            cpu_figure(
                "all stages, taking turns, the bot in the microphone", await _cost(meter, CHAIN, _turns(echo=0.1))
            ),
            cpu_figure("of that WebRTC's echo, gain and noise, bare", bare),
            cpu_figure("all stages, gain by the house's own, taking turns", own_gain[1]),
            cpu_figure("all stages, gain by the house's own, both speaking", own_gain[0]),
            cpu_figure("as shipped (speech, keys, limiter), taking turns", shipped[1]),
            cpu_figure("as shipped (speech, keys, limiter), both speaking", shipped[0]),
            _carried(meter, CHAIN, turns, "50 calls, taking turns", 100.0),
            _carried(meter, OWN_GAIN, turns, "50 calls, taking turns, gain by the house's own", 100.0),
            _carried(meter, CHAIN, both, "50 calls, both speaking"),
        ],
        (
            "transport at 48 kHz, working rate 16 kHz; calls run beside each other, each with its own state",
            f"taking turns: of {TURNS_S:.0f} s the bot speaks for 5, and the caller from before it has ended,",
            "with a headset on, so that nothing is heard of the bot, or with a loudspeaker beside the microphone;",
            "bare is the native library on the sound of both, with nothing of ours",
            "the peers' parts, both speaking: LiveKit's for all but keys and limiter; Pipecat's resampler and speech",
        ),
    )
    sound = to_pcm(babble(LINE_RATE, 2.0, 1)) + to_pcm(babble(CHAIN.rate, 2.0, 2))
    return compared(meter, report, "chain", 500, {"frame": ("its parts, both ways", "us CPU")}, sound=sound)


def _turns(echo: float = 0.0) -> Talk:
    """The bot speaks in the first five seconds, the caller from half a second before its end, in a quiet room. `echo`
    is how loud the caller's loudspeaker is in their microphone, 40 ms later; with a headset there is none."""
    count = int(TURNS_S * LINE_RATE)
    near = np.random.default_rng(3).normal(0, 15, count)
    near[int(4.5 * LINE_RATE) :] = babble(LINE_RATE, TURNS_S - 4.5, 1)[: count - int(4.5 * LINE_RATE)]
    said = frames(babble(CHAIN.rate, TURNS_S, 2), CHAIN.rate)
    if echo:
        late, spoken = LINE_RATE // 25, 5 * LINE_RATE
        near[late : late + spoken] += echo * np.repeat(samples(b"".join(one.pcm for one in said[:250])), 3)
    heard = frames(near, LINE_RATE)
    return Talk(heard, [frame if number < 5 * 50 else None for number, frame in enumerate(said)])


async def _bare(meter: Meter, near: list[AudioFrame], far: list[AudioFrame | None]) -> Cost:
    """What no chain with WebRTC's processing can be below while both speak: one pass for all three."""
    native = _Module(CHAIN.rate, KINDS)
    half = len(near[0].pcm) // 2

    async def work(_: Cost) -> int:
        for heard, said in zip(near, far, strict=True):
            assert said is not None
            for part in (slice(0, half), slice(half, None)):
                native.heard(heard.pcm[part], said.pcm[part])
        return len(near)

    return await meter.cost(work, 15)


def _call(config: AudioPipelineConfig) -> Pipeline:
    return Pipeline(config, VoiceSession("s", rate=LINE_RATE), BackendTraits(rate=LINE_RATE))


def _step(pipeline: Pipeline, near: AudioFrame, far: AudioFrame | None) -> None:
    if far is not None:
        ready, _ = pipeline.outbound(far)
        assert ready is not None
        pipeline.to_transport(ready)
        pipeline.played(ready)
    pipeline.process(near)


async def _cost(meter: Meter, config: AudioPipelineConfig, talk: Talk) -> Cost:
    pipeline, at = _call(config), 0
    count = len(talk.near)

    async def work(_: Cost) -> int:
        nonlocal at
        for number in range(at, at + 100):
            _step(pipeline, talk.near[number % count], talk.far[number % count])
        at += 100
        return 100

    return await meter.cost(work, meter.size(25, 1))


def _carried(meter: Meter, config: AudioPipelineConfig, talk: Talk, how: str, target: float | None = None) -> Figure:
    """CPU time of 50 calls at once as a share of the time that their sound takes; none is where another is."""
    calls = meter.size(50, 2)
    pipelines, length = [_call(config) for _ in range(calls)], len(talk.near)
    spent = quiet = 0.0
    rounds, each = meter.size(25, 1), 20
    for piece in range(rounds):
        slow, began = meter.speed(), time.process_time()
        for number in range(piece * each, (piece + 1) * each):
            for which, pipeline in enumerate(pipelines):
                at = (number + which * length // calls) % length
                _step(pipeline, talk.near[at], talk.far[at])
        took = time.process_time() - began
        spent += took
        quiet += took / ((slow + meter.speed()) / 2)
    sound = rounds * each * 0.02 / 100
    return Figure(f"{how}, of real time", spent / sound, "%", target, reference=quiet / sound)
