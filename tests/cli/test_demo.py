"""The demo as a process: quick, polite about mistakes, drained by a signal, and its links go on working."""

from __future__ import annotations

import json
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from roomkit.cli.demo import _command, _pip, choose_brain
from roomkit.errors import ConfigError
from tests.cli.conftest import Command, hear, stop


def get(url: str, token: str = "") -> dict:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_its_hints_can_be_typed_where_no_environment_is_activated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(Path.cwd() / ".venv/bin/roomkit"), "demo"])
    monkeypatch.setenv("PATH", "/nonexistent")
    assert _command() == ".venv/bin/roomkit"
    assert _pip().endswith(" -m pip")


def test_a_demo_from_start_to_end(command: Command) -> None:
    process, invited = command.demo("--db", "rooms.db")
    assert get(f"{invited['url']}/readyz")["ready"]
    me = get(f"{invited['url']}/api/me", invited["guest_token"])["principal"]
    assert (me["role"], me["room_id"]) == ("guest", invited["room"])
    rooms = get(f"{invited['url']}/api/rooms", invited["supervisor_token"])["rooms"]
    assert [room["id"] for room in rooms] == [invited["room"]]
    assert invited["chat"].startswith(f"{invited['url']}/#token=")
    assert invited["supervisor"].startswith(f"{invited['url']}/supervisor#token=")

    second = command("demo", "--no-open", "--db", "rooms.db")
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"in use by process {process.pid}" in second.stderr
    port = invited["url"].rpartition(":")[2]
    third = command("demo", "--no-open", "--db", "other.db", "--port", port)
    assert third.returncode == 2
    assert f"port {port} on 127.0.0.1 is taken" in third.stderr

    sent = command(
        "send", "--url", invited["url"], "--db", "rooms.db", "--channel", "sms", "--from", "+15550123", "--text", "hi"
    )
    assert sent.returncode == 0, sent.stderr
    hear(process, "  SMS to +15550123: Hello!")
    assert stop(process) == 0


def test_links_given_out_before_a_restart_go_on_working(command: Command) -> None:
    process, before = command.demo("--db", "rooms.db")
    process.kill()
    process.wait(10)
    process, after = command.demo("--db", "rooms.db")
    assert after["room"] == before["room"]
    room = get(f"{after['url']}/api/rooms/{before['room']}", before["guest_token"])["room"]
    assert room["id"] == before["room"]
    close = urllib.request.Request(
        f"{after['url']}/api/rooms/{after['room']}/close",
        b"",
        headers={"authorization": f"Bearer {after['supervisor_token']}"},
    )
    urllib.request.urlopen(close, timeout=10).close()
    assert stop(process, signal.SIGINT) == 0
    process, last = command.demo("--db", "rooms.db")
    assert last["room"] != before["room"]
    assert stop(process) == 0


def test_a_second_signal_does_not_wait(command: Command) -> None:
    process, _ = command.demo()
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) in (0, 1)


def test_what_a_person_reads(command: Command) -> None:
    process = command.start("demo", "--no-open", "--port", "0", "--brain", "offline")
    assert process.stdout is not None
    lines = []
    while not any("Ctrl-C" in line for line in lines):
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    text = "".join(lines)
    assert "offline brain" in text
    assert "web chat    http://127.0.0.1:" in text
    assert "supervisor  http://127.0.0.1:" in text
    assert "\x1b" not in text
    assert (command.folder / "roomkit-demo.db").exists()
    assert stop(process) == 0


def test_the_brain_follows_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert choose_brain("auto") == "offline"
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        choose_brain("anthropic")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert choose_brain("auto") == choose_brain("openai") == "openai"
    assert choose_brain("offline") == "offline"
