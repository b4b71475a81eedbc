"""Every vendor's documented webhooks a thousand times, shuffled, 64 at once, across a restart: one effect of each."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from proofs.kill9 import Proof

TITLE = "every vendor's webhooks repeated, shuffled, 64 at once, across a restart"
ROOT = Path(__file__).parents[1]


async def prove(n: int, seed: int) -> Proof:
    """Runs the providers' own tests (`tests/providers/exactly_once.py`) with `n` repeats of each webhook."""
    proof = Proof()
    command = (sys.executable, "-m", "pytest", "-q", "-rf", "-k", "exactly_one_effect", "tests/providers")
    child = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**os.environ, "ROOMKIT_REPEATS": str(n), "ROOMKIT_SEED": str(seed)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = (await child.communicate())[0].decode(errors="replace")
    passed = re.search(r"(\d+) passed", told)
    proof.figures["providers"] = int(passed[1]) if passed else 0
    proof.wrong += [line for line in told.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if child.returncode or not passed:
        proof.wrong.append(f"pytest ended with {child.returncode}: {told[-500:]}")
    return proof
