"""The guide from one process to three, done as it says."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from roomkit.cli.run import share
from roomkit.errors import ConfigError
from roomkit.kit import RoomKit
from roomkit.testing.postgres import PostgresCluster, find_binaries
from tests.gates.tree import ROOT

GUIDE = ROOT / "docs" / "guides" / "scale-out.md"


def _ask(url: str, token: str, body: dict[str, str] | None = None) -> object:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.skipif(find_binaries() is None and os.environ.get("CI") != "true", reason="PostgreSQL is not installed")
def test_three_processes_serve_the_room_of_the_guide(tmp_path: Path) -> None:
    program = re.search(r"```python notest\n(import os\n.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert program is not None
    (tmp_path / "app.py").write_text(program[1])
    with PostgresCluster() as cluster:
        environment = {**os.environ, "DATABASE_URL": cluster.url, "ROOMKIT_SECRET": "s" * 40, "PYTHONPATH": str(ROOT)}
        command = (sys.executable, "-m", "roomkit")
        make = (*command, "token", "app.py", "--role", "admin")
        token = subprocess.check_output(make, cwd=tmp_path, env=environment, text=True).split()[-1]
        ports = [_free() for _ in range(3)]
        processes = [
            subprocess.Popen(
                (*command, "run", "app.py", "--port", str(port), "--node-url", "auto"), cwd=tmp_path, env=environment
            )
            for port in ports
        ]
        try:
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            for url in urls:
                _wait(f"{url}/readyz")
            _ask(f"{urls[0]}/api/rooms", token, {"room_id": "lobby"})
            _ask(f"{urls[2]}/api/rooms/lobby/messages", token, {"text": "hello"})
            make = (*command, "token", "app.py", "--role", "guest", "--room", "lobby")
            guest = subprocess.check_output(make, cwd=tmp_path, env=environment, text=True).split()[-1]
            _ask(f"{urls[2]}/api/rooms/lobby/messages", guest, {"text": "hello as a guest"})
            until = time.monotonic() + 30
            while "You said: hello as a guest" not in json.dumps(_ask(f"{urls[1]}/api/rooms/lobby/events", guest)):
                assert time.monotonic() < until, "nobody answered"
                time.sleep(0.1)
            processes[0].send_signal(signal.SIGTERM)
            assert processes[0].wait(30) == 0
            _ask(f"{urls[1]}/api/rooms/lobby/messages", token, {"text": "still here"})
            events = json.dumps(_ask(f"{urls[2]}/api/rooms/lobby/events", token))
            assert events.index("hello") < events.index("still here")
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _free() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait(url: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    kit = RoomKit()
    with socket.socket() as listener:
        with pytest.raises(ConfigError, match="is no URL"):
            share(kit, "10.0.0.7:8000", listener)
        share(kit, "", listener)
        assert kit.engine.nodes is None
        with pytest.raises(ConfigError, match="has one process"):
            share(kit, "http://10.0.0.7:8000", listener)
