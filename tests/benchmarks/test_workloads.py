"""Every workload runs and counts right, at a small size; nothing is said about how fast it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import peer, peer_voice
from benchmarks.__main__ import NAMES, main
from benchmarks.calibration import calibrate
from benchmarks.measure import Cost, Figure, Meter, Report


@pytest.mark.parametrize("name", NAMES)
def test_a_small_run_gives_figures(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--small", "--json"]) == 0
    [workload] = json.loads(capsys.readouterr().out)["workloads"]
    assert workload["name"] == name
    assert any(figure["target"] is not None for figure in workload["figures"])
    assert all(isinstance(figure["value"], float | int) for figure in workload["figures"])


def test_the_table_names_each_figure_and_its_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["p17", "p2", "--small"]) == 0
    out = capsys.readouterr().out
    assert "P17  import roomkit" in out
    assert "<= 299" in out
    assert "not compared (give --peer-python)" in out


def test_an_unknown_workload_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["p99"])
    assert "choose from p1, p2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "figure,met",
    [
        (Figure("f", 5.0, "us", 4.0), False),
        (Figure("f", 5.0, "us", 4.0, reference=3.0), True),
        (Figure("f", 5.0, "1/s", 4.0, "higher"), True),
        (Figure("f", 5.0, "1/s", 4.0, "higher", 3.0), False),
        (Figure("f", 5.0, "us"), None),
    ],
)
def test_a_target_is_judged_at_reference_speed_and_on_its_side(figure: Figure, met: bool | None) -> None:
    assert figure.met is met


def test_calibration_takes_time_and_is_kept() -> None:
    assert calibrate() > 0
    meter = Meter()
    assert meter.speed() > 0
    assert len(meter.calibrations) == 1


def test_quantiles_are_calls_that_happened() -> None:
    cost = Cost(0.0, 0.0, 0.0, calls=[3.0, 1.0, 2.0])
    assert [cost.quantile(share) for share in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
    assert Cost(0.0, 0.0, 0.0).quantile(0.5) == 0.0


def test_a_peer_that_cannot_run_is_not_compared() -> None:
    ours = Report([Figure("per message", 1.0, "us CPU", reference=1.0)])
    meter = Meter(small=True, peer_python="/nowhere/python")
    report = peer.compared(meter, ours, receivers=1, count=1, unit="message")
    assert report.figures == ours.figures
    assert report.notes == ("roomkit 0.x: not compared (its run failed: FileNotFoundError)",)


def test_a_peer_of_voice_is_run_where_it_is_installed(tmp_path: Path) -> None:
    python = tmp_path / "python"
    # It has pipecat and no LiveKit, and answers to the script's name and the work.
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '"-c import pipecat") exit 0;;\n'
        '*peer_pipecat.py\\ turn\\ 3) echo loading; echo \'{"cut": 2.5, "first": 9.0}\';;\n'
        "*) exit 1;;\n"
        "esac\n"
    )
    python.chmod(0o755)
    ours = Report([Figure("idle", 1.0, "ms")])
    meter = Meter(small=True, peer_python=f"/nowhere/python:{python}")
    report = peer_voice.compared(meter, ours, "turn", 10, {"cut": ("interrupted", "ms"), "behind": ("blocked", "ms")})
    assert [(figure.name, figure.value) for figure in report.figures[1:]] == [("Pipecat: interrupted", 2.5)]
    assert report.notes == ("LiveKit Agents: not compared (livekit.agents is not there)",)
    report = peer_voice.compared(meter, ours, "live", 10, {"share": ("a call", "% core")})
    assert report.notes[0] == "Pipecat: not compared (its run failed: IndexError)"
