"""The proofs of voice at a small size: they run, and they notice."""

from __future__ import annotations

import numpy as np
import pytest

from proofs import barge_in, voice_soak
from proofs.kill9 import Proof
from roomkit.voice.interruption import Strategy

pytestmark = pytest.mark.skipif(not barge_in.PROMPTS.is_dir(), reason="no recorded speech is installed (.ci/voice)")


@pytest.mark.real_time
@pytest.mark.may_block
async def test_calls_come_and_go_and_a_leak_is_noticed() -> None:
    proof = await voice_soak.prove(6, 1)
    assert proof.wrong == []
    assert proof.figures["turns"] == 6
    leaking = Proof()
    sizes = [100_000 + 300 * number for number in range(10)]

    class Heard(voice_soak.Knows):
        heard = 1_000

    class Nobody:
        def sessions(self) -> list[object]:
            return []

    voice_soak._judge(leaking, 1_000, sizes, Heard(), Nobody())  # type: ignore[arg-type]
    assert len(leaking.wrong) == 1
    assert "KB behind" in leaking.wrong[0]


def test_a_voice_stops_a_reply_and_a_cough_does_not() -> None:
    random = np.random.default_rng(1)
    quiet = random.normal(0, 6, 3 * barge_in.RATE)
    said = barge_in._loud(
        barge_in.samples(barge_in.read_wav(barge_in.PROMPTS / "vm-nobodyavail.wav", barge_in.RATE)).astype(float), -26
    )
    for strategy in barge_in.STRATEGIES:
        stops, _ = barge_in._play(np.concatenate((quiet, said, quiet)), strategy, words=True)
        assert len(stops) == 1
        assert 3_000 < stops[0] < 4_500
    coughs = barge_in._every(lambda: barge_in._cough(random), 10, 2.0, random)
    stops, _ = barge_in._play(coughs + random.normal(0, 6, len(coughs)), Strategy.CONFIRMED, words=False)
    assert stops == []
