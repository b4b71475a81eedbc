"""Ports: found, refused in one line, and given back."""

from __future__ import annotations

import asyncio
import socket

import pytest

from roomkit import RoomKit
from roomkit.cli import serving
from roomkit.cli.serving import Serving, listen, own_origins, url_of
from roomkit.errors import ConfigError, UsageError
from roomkit.net.addresses import is_loopback
from roomkit.runtime import Scope


def test_a_port_and_its_address() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
    with listen("0.0.0.0", 0) as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")
    with listen("127.0.0.1", port) as listener:  # at once after its end
        assert listener.getsockname()[1] == port


def test_a_taken_port_is_told_with_the_next_one() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} .* is taken by another program; .*--port {port + 1}"):
            listen("127.0.0.1", port)


def test_without_a_port_the_next_free_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(serving, "DEFAULT_PORT", port)
        with listen("127.0.0.1", None) as found:
            assert port < found.getsockname()[1] < port + serving.SEARCHED
        monkeypatch.setattr(serving, "SEARCHED", 1)
        with pytest.raises(UsageError, match="all taken; choose one with --port"):
            listen("127.0.0.1", None)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ConfigError, match=r"use --host 127\.0\.0\.1"):
        listen("203.0.113.1", 0)
    with pytest.raises(UsageError, match="is not a port"):
        listen("127.0.0.1", 70000)


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.1", "chat.example.com", "")))


def test_the_other_names_of_this_machine_are_own_origins() -> None:
    assert "http://localhost:8000" in own_origins("http://127.0.0.1:8000")


@pytest.mark.real_time
async def test_a_ctrl_c_before_the_signals_are_taken_closes_the_rooms_without_a_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    kit = RoomKit()
    one = Serving(kit.asgi(), listen("127.0.0.1", 0))
    async with Scope("test") as scope:
        serving = asyncio.Event()
        running = scope.spawn(one.run(serving.set), name="run", awaited=True)
        await serving.wait()
        running.cancel()  # as the interpreter's own handler of Ctrl-C does
        with pytest.raises(asyncio.CancelledError):
            await running
    assert kit.engine.scope.closed
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6() -> None:
    try:
        listener = listen("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 loopback")
    with listener:
        assert url_of(listener).startswith("http://[::1]:")
