"""P11: what a stage that does nothing costs a frame, as the pipeline calls it."""

from __future__ import annotations

from benchmarks.measure import Cost, Figure, Meter, Report, cpu_figure
from benchmarks.peer_voice import compared
from benchmarks.voice_sound import babble, frames
from roomkit.models.audio import AudioFrame, AudioSignal, VoiceSession
from roomkit.ports.audio import BackendTraits
from roomkit.voice.pipeline import AudioPipelineConfig, Pipeline

TITLE = "audio stage, pass-through, per 20 ms frame"
RATE, STAGES = 16_000, 6


class Straight:
    name = "straight"

    def __init__(self, rate: int) -> None:
        self.rate = rate

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        return frame, ()

    def reset(self) -> None: ...

    def reference(self, frame: AudioFrame) -> None: ...


async def run(meter: Meter) -> Report:
    sound = frames(babble(RATE, 2.0, 1), RATE)

    async def cost(config: AudioPipelineConfig) -> Cost:
        pipeline = Pipeline(config, VoiceSession("s"), BackendTraits())
        rounds = meter.size(100, 1)

        async def work(_: Cost) -> int:
            for _ in range(rounds):
                for frame in sound:
                    pipeline.process(frame)
            return rounds * len(sound)

        return await meter.cost(work, 7)

    empty = await cost(AudioPipelineConfig(vad=None, dtmf=None, levels_per_s=0))
    stages = dict.fromkeys(("vad", "dtmf", "aec", "agc", "denoiser", "diarization"), Straight)
    full = await cost(AudioPipelineConfig(levels_per_s=0, **stages))  # pyright: ignore[reportArgumentType]
    one = (full.cpu - empty.cpu) / STAGES
    report = Report(
        [
            Figure("one stage", one, "us CPU", 2.0, reference=(full.reference - empty.reference) / STAGES),
            cpu_figure("pipeline without stages", empty),
        ],
        (f"the difference between {STAGES} stages and none, divided by {STAGES}",),
    )
    return compared(meter, report, "stage", 500, {"each": ("one stage", "us CPU")})
