"""`python -m benchmarks [NAME ...]`: runs the pinned workloads of docs/reference/benchmarks.md and prints the figures.

Times stand as measured and "at reference speed" (see benchmarks/calibration.py); targets are judged by the latter. The
exit code is 0 whatever the figures are: only a workload that goes wrong fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import statistics
import sys
from dataclasses import asdict
from importlib import import_module
from typing import Any

from benchmarks.calibration import REFERENCE_MS
from benchmarks.measure import Figure, Meter, Report

NAMES = (
    "p1",
    "p2",
    "p3",
    "p4",
    "p5",
    "p6",
    "p7",
    "p8",
    "p9",
    "p10",
    "p11",
    "p12",
    "p13",
    "p14",
    "p15",
    "p16",
    "p17",
    "p18",
    "p19",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"workloads to run (default: all): {', '.join(NAMES)}")
    parser.add_argument(
        "--small", action="store_true", help="small sizes: shows that the workloads work, measures nothing"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--peer-python", metavar="PATH", help="a Python whose environment holds roomkit 0.x, to compare with"
    )
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no workload {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    logger = logging.getLogger("roomkit")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        done = [_run(name, asked) for name in asked.names or NAMES]
    finally:
        logger.setLevel(level)
    if asked.json:
        print(json.dumps({"machine": _machine(), "reference_ms": REFERENCE_MS, "workloads": done}, indent=2))
    return 0


def _run(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    module = import_module(f"benchmarks.{name}")
    meter = Meter(small=asked.small, peer_python=asked.peer_python)
    report: Report = asyncio.run(module.run(meter))
    calibration = statistics.median(meter.calibrations) if meter.calibrations else None
    if not asked.json:
        _print(name, module.TITLE, report, calibration)
    figures = [{**asdict(figure), "met": figure.met} for figure in report.figures]
    return {
        "name": name,
        "title": module.TITLE,
        "calibration_ms": calibration,
        "figures": figures,
        "notes": report.notes,
    }


def _print(name: str, title: str, report: Report, calibration: float | None) -> None:
    print(f"\n{name.upper()}  {title}")
    if calibration is not None:
        slow = calibration / REFERENCE_MS
        print(f"     calibration loop {calibration:.2f} ms (reference {REFERENCE_MS:.2f}: {slow:.2f} times as slow)")
    for figure in report.figures:
        print(f"     {figure.name:<46} {_shown(figure.value):>10} {figure.unit:<9}{_judged(figure)}")
    for note in report.notes:
        print(f"     {note}")
    sys.stdout.flush()


def _judged(figure: Figure) -> str:
    at = f" {_shown(figure.reference):>10} at reference speed" if figure.reference is not None else ""
    if figure.target is None:
        return at
    sign = "<=" if figure.better == "lower" else ">="
    return f"{at:<31}  {sign} {_shown(figure.target)}: {'reached' if figure.met else 'MISSED'}"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"


def _machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "cores": os.cpu_count(), "platform": platform.platform()}


if __name__ == "__main__":
    sys.exit(main())
