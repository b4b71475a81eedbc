"""`python -m proofs [NAME] [--n N]`: runs the long proofs on real processes; exit code 1 when a promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from importlib import import_module
from typing import Any

from proofs.patience import longest_patience

NAMES = {
    "simulation": 200_000,
    "kill9": 1000,
    "failover": 3,
    "zombie": 1000,
    "rolling": 2,
    "powercut": 1000,
    "streamcut": 200,
    "storm": 10_000,
    "crashpoints": 1,
    "signatures": 1_000_000,
    "webhooks": 1000,
    "hearing": 12,
    "voice_stages": 40,
    "voice_soak": 1000,
    "barge_in": 3,
    "google_adk": 1,
    "rtvi": 2,
}
"""Every proof, and how often `make prove` runs it."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m proofs", description=__doc__)
    parser.add_argument("name", nargs="?", choices=[*NAMES, "all"], default="all", help="which proof (default: all)")
    parser.add_argument(
        "--n",
        type=int,
        help="rounds; one is a kill (failover), a write (zombie), a restart of all three (rolling) "
        f"(default: {', '.join(f'{k} {v}' for k, v in NAMES.items())})",
    )
    parser.add_argument("--seed", type=int, help="repeats the same dice (default: new ones, which are printed)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    if asked.n is not None and asked.n < 1:
        parser.error("--n must be 1 or more")
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(2**32)
    done = [_run(name, asked.n or NAMES[name], seed, asked.json) for name in _wanted(asked.name)]
    if asked.json:
        print(json.dumps(done, indent=2))
    elif len(done) > 1:
        _print_table(done)
    return 1 if any(one["violations"] for one in done) else 0


def _wanted(name: str) -> list[str]:
    return list(NAMES) if name == "all" else [name]


def _run(name: str, n: int, seed: int, as_json: bool) -> dict[str, Any]:
    try:
        module = import_module(f"proofs.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("proofs", "roomkit"):
            raise
        sys.exit(f"proofs: {name} needs {error.name}: in a checkout, pip install -e '.[dev]'")
    if not as_json:
        print(f"{name}: {module.TITLE}, {n} times (--seed {seed})", flush=True)
    began = time.monotonic()
    longest_patience()
    report: dict[str, Any] = asyncio.run(module.prove(n, seed)).report()
    report = {"name": name, "n": n, "seed": seed, "seconds": round(time.monotonic() - began, 1), **report}
    report["limits_times"] = round(longest_patience(), 1)
    if not as_json:
        _print(report)
    return report


def _print(report: dict[str, Any]) -> None:
    for violation in report["violations"][:40]:
        print(f"  VIOLATION {violation}")
    for name, value in report["figures"].items():
        print(f"  {name.replace('_', ' '):<32} {value:>10,}")
    for name, value in report["slowest_s"].items():
        print(f"  slowest {name:<24} {value:>10.2f} s")
    if report["limits_times"] > 1.0:
        print(f"  the machine was busy: limits of time were {report['limits_times']:.1f} times those of an idle one")
    held = f"{len(report['violations'])} violations" if report["violations"] else "every promise was kept"
    print(f"  {held} ({report['seconds']:.0f} s)")


def _print_table(reports: list[dict[str, Any]]) -> None:
    print(f"\n{'proof':<14}{'rounds':>12}{'seconds':>10}  verdict")
    for one in reports:
        verdict = f"{len(one['violations'])} VIOLATIONS" if one["violations"] else "kept"
        print(f"{one['name']:<14}{one['n']:>12,}{one['seconds']:>10,.0f}  {verdict} (--seed {one['seed']})")


if __name__ == "__main__":
    sys.exit(main())
