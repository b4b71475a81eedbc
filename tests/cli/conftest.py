"""The command as a person starts it: a process of its own, in an empty directory, without anybody's keys."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.gates.tree import ROOT

APP = """
from roomkit import RoomKit

kit = RoomKit()

@kit.on_message
async def reply(ctx, message):
    return f"You said: {message.text}"
"""


def clean_environment() -> dict[str, str]:
    secret = re.compile(r"(_API_KEY|_TOKEN|_SECRET|_SID)$|^ROOMKIT_|^CI$")
    kept = {name: value for name, value in os.environ.items() if not secret.search(name)}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "PYTHONWARNINGS": "error"}


@dataclass
class Command:
    """Runs `roomkit ...` in `folder`."""

    folder: Path
    running: list[subprocess.Popen[str]]

    def __call__(self, *words: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "roomkit", *words],
            cwd=self.folder,
            env=clean_environment() | environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "roomkit", *words],
            cwd=self.folder,
            env=clean_environment() | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell starts what it runs beside itself with Ctrl-C ignored, and a child inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one call, no lock
        )
        self.running.append(process)
        return process

    def demo(self, *words: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        process = self.start("demo", "--json", "--no-open", "--brain", "offline", "--port", "0", *words)
        return process, json.loads(hear(process, "{"))


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    made = Command(tmp_path, [])
    yield made
    for process in made.running:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def app_file(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(APP)
    return path


def hear(process: subprocess.Popen[str], words: str) -> str:
    """The next line that begins with `words`; before it a busy machine may have the program warn of a slow start."""
    told = ""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(words):
            return line
        told += line
    raise AssertionError(f"it ended without saying {words!r}:\n{told}")


def stop(process: subprocess.Popen[str], signum: int = signal.SIGTERM) -> int:
    process.send_signal(signum)
    return process.wait(30)


def eventually(found: Callable[[], Any], within: float = 20.0) -> Any:
    """Real processes, real time: asks until the answer is true."""
    end = time.monotonic() + within
    while not (answer := found()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return answer
