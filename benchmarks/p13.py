"""P13: the whole chain both ways, a 20 ms frame at a time, and how many calls of it one core really carries."""

from __future__ import annotations

import time

from benchmarks.measure import Cost, Figure, Meter, Report, cpu_figure
from benchmarks.voice_sound import babble, frames
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.ports.audio import BackendTraits
from roomkit.voice.pipeline import AudioPipelineConfig, Pipeline
from roomkit.voice.stages.apm import ApmStage

TITLE = "resample, keys, echo, gain, noise and speech, with limiter and resample out, per 20 ms frame"
CHAIN = AudioPipelineConfig(aec="apm", agc="apm", denoiser="apm")
LINE_RATE = 48_000


async def run(meter: Meter) -> Report:
    near = frames(babble(LINE_RATE, 2.0, 1), LINE_RATE)
    far = frames(babble(CHAIN.rate, 2.0, 2), CHAIN.rate)
    chain = await _cost(meter, CHAIN, near, far)
    shipped = await _cost(meter, AudioPipelineConfig(), near, far)
    own_gain = await _cost(meter, AudioPipelineConfig(aec="apm", agc="builtin", denoiser="apm"), near, far)
    bare = await _bare(meter, frames(babble(CHAIN.rate, 2.0, 1), CHAIN.rate), far)
    behind = [_carried(calls, meter.size(150, 5), near, far) for calls in (25, 50)]
    return Report(
        [
            cpu_figure("all stages, both ways", chain, 300.0),
            cpu_figure("of that WebRTC's echo, gain and noise, bare", bare),
            cpu_figure("all stages, gain by the house's own", own_gain),
            cpu_figure("as shipped (speech, keys, limiter), both ways", shipped),
            Figure("25 calls, share of real time", behind[0] * 100, "%"),
            Figure("50 calls, share of real time", behind[1] * 100, "%", 100.0),
        ],
        (
            "transport at 48 kHz, working rate 16 kHz; calls run beside each other, each with its own state",
            "both sides speak all the time; bare is the native library on the same sound, with nothing of ours",
        ),
    )


async def _bare(meter: Meter, near: list[AudioFrame], far: list[AudioFrame]) -> Cost:
    """What no chain with WebRTC's processing can be below."""
    stage = ApmStage(CHAIN.rate)
    half = len(near[0].pcm) // 2

    async def work(_: Cost) -> int:
        for heard, said in zip(near, far, strict=True):
            for part in (slice(0, half), slice(half, None)):
                stage._far[:], stage._near[:] = said.pcm[part], heard.pcm[part]
                stage._play()
                stage._clean()
        return len(near)

    return await meter.cost(work, 15)


def _call(config: AudioPipelineConfig) -> Pipeline:
    return Pipeline(config, VoiceSession("s", rate=LINE_RATE), BackendTraits(rate=LINE_RATE))


def _step(pipeline: Pipeline, near: AudioFrame, far: AudioFrame) -> None:
    ready, _ = pipeline.outbound(far)
    assert ready is not None
    pipeline.to_transport(ready)
    pipeline.played(ready)
    pipeline.process(near)


async def _cost(meter: Meter, config: AudioPipelineConfig, near: list[AudioFrame], far: list[AudioFrame]) -> Cost:
    pipeline, rounds = _call(config), meter.size(3, 1)

    async def work(_: Cost) -> int:
        for _ in range(rounds):
            for heard, said in zip(near, far, strict=True):
                _step(pipeline, heard, said)
        return rounds * len(near)

    return await meter.cost(work, 7)


def _carried(calls: int, count: int, near: list[AudioFrame], far: list[AudioFrame]) -> float:
    """CPU time as a share of the time that the sound takes."""
    pipelines = [_call(CHAIN) for _ in range(calls)]
    began = time.process_time()
    for number in range(count):
        for pipeline in pipelines:
            _step(pipeline, near[number % len(near)], far[number % len(far)])
    return (time.process_time() - began) / (count * 0.02)
