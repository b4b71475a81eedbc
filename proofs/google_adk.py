"""Agents of Google's ADK in rooms, and the web sockets with the older library that it asks for, in an environment of
their own: the package cannot be installed beside what the other tests need."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from proofs.kill9 import Proof

TITLE = "agents of Google's ADK answer in rooms, with the package's own dependencies"
ROOT = Path(__file__).parents[1]


async def prove(n: int, seed: int) -> Proof:
    del seed
    proof = Proof()
    for _ in range(n):
        ran = await asyncio.create_subprocess_exec(
            str(ROOT / ".ci" / "adk"), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said = (await ran.communicate())[0].decode("utf-8", "replace")
        judge(proof, said, ran.returncode)
    return proof


def judge(proof: Proof, said: str, code: int | None) -> None:
    """By what pytest says at the end; a run that tested nothing is none."""
    last = (said.strip().splitlines() or [""])[-1]
    figures = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    proof.figures.update(figures)
    if code != 0 or not figures.get("passed") or figures.get("skipped"):
        print(said, file=sys.stderr)
        proof.wrong.append(f"the tests of the adapter ended with {code}: {figures}")
