"""Ruff really bans what the house bans: a per-file ignore too wide would go unnoticed otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest

from tests.gates.tree import ROOT

HEADER = "from __future__ import annotations\n\nimport asyncio\nimport time\nfrom datetime import UTC, datetime\n\n"
BANNED = {
    "asyncio.create_task(f())": "TID251",
    "asyncio.ensure_future(f())": "TID251",
    "asyncio.TaskGroup()": "TID251",
    "asyncio.Queue()": "TID251",
    "time.time()": "TID251",
    "time.monotonic()": "TID251",
    "datetime.now(UTC)": "TID251",
    "datetime.utcnow()": "TID251",
    "eval('1')": "S307",
    "exec('1')": "S102",
    "print('hello')": "T201",
}


def codes(line: str, path: str) -> set[str]:
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "json", "--stdin-filename", path, "-"]
    text = f"{HEADER}{line}\n"
    ran = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, timeout=30, check=False)
    return {found["code"] for found in json.loads(ran.stdout)}


@pytest.mark.parametrize("line, code", BANNED.items())
def test_banned(line: str, code: str) -> None:
    assert code in codes(line, "roomkit/core/example.py")


def test_the_runtime_may() -> None:
    assert "TID251" not in codes("asyncio.create_task(f())", "roomkit/runtime/example.py")


def test_every_ignore_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ignored = tomllib.loads(text)["tool"]["ruff"]["lint"]["ignore"]
    lines = [line.strip() for line in text.splitlines()]
    assert not [code for code in ignored if not any(line.startswith(f'"{code}",') and " # " in line for line in lines)]
