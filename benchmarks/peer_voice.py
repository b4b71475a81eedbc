"""The workloads of voice on Pipecat and LiveKit Agents, each in an environment of its own (`--peer-python A:B`)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from benchmarks.measure import Figure, Meter, Report

PEERS = {"pipecat": "Pipecat", "livekit.agents": "LiveKit Agents"}
_SCRIPTS = {"pipecat": "peer_pipecat.py", "livekit.agents": "peer_livekit.py"}


def compared(
    meter: Meter, report: Report, what: str, count: int, rows: Mapping[str, tuple[str, str]], *, sound: bytes = b""
) -> Report:
    """Adds what the peers take for `what`; `rows` name the figures that they print and their units. A peer that is not
    installed, or has no such thing, is told as not compared. `sound` is what their script reads."""
    figures, notes = list(report.figures), list(report.notes)
    for package, name in PEERS.items():
        found = _measured(meter, package, what, meter.size(count, 3), sound)
        if isinstance(found, str):
            notes.append(f"{name}: not compared ({found})")
            continue
        if not found:
            notes.append(f"{name}: not compared (it has no such thing)")
            continue
        slow = meter.speed()
        for key, (label, unit) in rows.items():
            if key in found:
                figures.append(Figure(f"{name}: {label}", found[key], unit, reference=_quiet(found[key], unit, slow)))
    return Report(figures, tuple(notes))


def _quiet(value: float, unit: str, slow: float) -> float | None:
    return None if unit == "KB" else value / slow


def _measured(meter: Meter, package: str, what: str, count: int, sound: bytes) -> dict[str, float] | str:
    if meter.peer_python is None:
        return "give --peer-python"
    python = next((path for path in meter.peer_python.split(os.pathsep) if _has(path, package)), None)
    if python is None:
        return f"{package} is not there"
    script = Path(__file__).with_name(_SCRIPTS[package])
    try:
        done = subprocess.run(
            [python, "-P", "-W", "ignore", str(script), what, str(count)],
            input=sound,
            capture_output=True,
            timeout=300,
            check=False,
            cwd=tempfile.gettempdir(),
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return f"its run failed: {type(error).__name__}"


@cache
def _has(python: str, package: str) -> bool:
    try:
        done = subprocess.run([python, "-c", f"import {package}"], capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
