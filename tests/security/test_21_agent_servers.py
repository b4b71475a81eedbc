"""Line 21: the servers of agents let nobody in whom nobody has let in, and speak no old TLS."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from roomkit import RoomKit
from roomkit.errors import ConfigError
from roomkit.protocols.agentkit.agent import AgentKitAgent
from roomkit.servers.agentkit import AgentKitServer, RoomAgent
from roomkit.servers.realtime_agent.__main__ import main
from roomkit.servers.realtime_agent.server import ServerOptions, init_app

TOKEN = "a-token-of-nobody-s"
EVERYBODY = "0.0.0.0"


class Silent(AgentKitAgent):
    """An agent as the SDK's own documentation begins one."""

    def Talk(self, request_iterator: Iterable[Any], context: Any) -> Iterable[Any]:  # noqa: N802 - the SDK's name
        return iter(())


@pytest.mark.parametrize("host", [EVERYBODY, "[::]", "192.0.2.7"])
async def test_rooms_are_not_served_to_everybody_by_default(host: str) -> None:
    async with RoomKit() as kit:
        for config in (None, {}, {"token": ""}):
            with pytest.raises(ConfigError, match="who may call"):
                await AgentKitServer(RoomAgent(kit), host, 0, auth_config=config).serve()


@pytest.mark.real_time
@pytest.mark.may_block
@pytest.mark.parametrize(
    "agent, config, warned",
    [("sdk", None, True), ("rooms", {"token": TOKEN}, False), ("rooms", {"enabled": False}, False)],
)
async def test_who_has_decided_is_served(
    agent: str, config: dict[str, Any] | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with RoomKit() as kit:
        served = Silent() if agent == "sdk" else RoomAgent(kit)
        with caplog.at_level(logging.WARNING):
            async with AgentKitServer(served, EVERYBODY, 0, auth_config=config) as server:
                assert server.port
                await server.aclose(0)
        assert ("who may call" in caplog.text) is warned


def test_agents_are_not_started_for_everybody_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts: list[str] = []
    monkeypatch.setattr("uvicorn.run", lambda app, **options: hosts.append(options["host"]))
    monkeypatch.delenv("REALTIME_AGENT_TOKEN", raising=False)
    assert main(["server", "--host", EVERYBODY]) == 1
    assert "REALTIME_AGENT_TOKEN" in capsys.readouterr().err
    assert main(["server"]) == 0
    monkeypatch.setenv("REALTIME_AGENT_TOKEN", TOKEN)
    assert main(["server", "--host", EVERYBODY]) == 0
    assert hosts == ["127.0.0.1", EVERYBODY]


@pytest.mark.parametrize("path", ["/start_agent", "/stop_agent"])
async def test_nobody_starts_or_stops_an_agent_without_the_token(path: str) -> None:
    app = init_app(ServerOptions(token=TOKEN, arguments=("--provider", "parrot")))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://agents") as client:
        body = {"channel_name": "test", "uid": 1}
        for given in ("", TOKEN[:-1], f"Bearer {TOKEN}!", f"Basic {TOKEN}"):
            answer = await client.post(path, json=body, headers={"authorization": given} if given else {})
            assert answer.status_code == 401, given
        assert app.state.agents.active_processes == {}
        good = await client.post("/stop_agent", json=body, headers={"authorization": f"Bearer {TOKEN}"})
        assert good.status_code == 404


def handshake(port: int, newest: ssl.TLSVersion) -> str | None:
    """The version agreed upon, with a client that speaks nothing newer and takes any cipher."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
    with socket.create_connection(("127.0.0.1", port), 10) as line, context.wrap_socket(line) as wrapped:
        return wrapped.version()


@pytest.mark.real_time
@pytest.mark.may_block
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path) -> None:
    key, chain = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(chain)]
    make += ["-days", "2", "-subj", "/CN=localhost"]
    await asyncio.to_thread(subprocess.run, make, check=True, capture_output=True)
    paths = {"cert_path": str(chain), "key_path": str(key)}
    async with RoomKit() as kit, AgentKitServer(RoomAgent(kit), "127.0.0.1", 0, ssl_config=paths) as server:
        assert await asyncio.to_thread(handshake, server.port, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)version|protocol|closed|reset"):
                await asyncio.to_thread(handshake, server.port, old)
        await server.aclose(0)
