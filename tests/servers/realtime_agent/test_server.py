"""The agents' server with real processes: the guide's requests and answers, a user on a web socket, a clean end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from roomkit.servers.realtime_agent.__main__ import parse_args
from roomkit.servers.realtime_agent.server import AgentServer, ServerOptions, init_app

PARROT = ("--provider", "parrot")


@asynccontextmanager
async def house(*arguments: str, **options: Any) -> AsyncGenerator[tuple[httpx2.AsyncClient, AgentServer]]:
    app = init_app(ServerOptions(arguments=arguments or PARROT, **options))
    agents: AgentServer = app.state.agents
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://agents") as client:
        try:
            yield client, agents
        finally:
            await agents.shutdown()
    assert agents.active_processes == {}


def tone(ms: int) -> bytes:
    wave = np.sin(np.arange(24 * ms) * 2 * np.pi * 440 / 24_000) * 12_000
    return wave.astype("<i2").tobytes()


async def _say(line: Any, pcm: bytes) -> None:
    for at in range(0, len(pcm), 960):
        await line.send(pcm[at : at + 960])
        await asyncio.sleep(0.018)


@pytest.mark.real_time
async def test_an_agent_is_started_spoken_with_and_stopped() -> None:
    async with house() as (client, agents):
        ended: list[tuple[str, int]] = []
        agents.ended = lambda channel, code: ended.append((channel, code))
        answer = await client.post("/start_agent", json={"channel_name": "test", "uid": 123})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["status"] == "Agent started!"
        again = await client.post("/start_agent", json={"channel_name": "test", "uid": 5})
        assert (again.status_code, again.json()["error"]) == (400, "Agent already running for channel: test")
        pid = agents.active_processes["test"].process.pid
        async with connect(told["join"]["socket"], close_timeout=0.5) as line:
            await line.send(json.dumps({"type": "join", "uid": 7, "token": told["join"]["token"]}))
            assert json.loads(await line.recv())["sample_rate"] == 24_000
            talking = asyncio.ensure_future(_say(line, bytes(24 * 400 * 2) + tone(800) + bytes(24 * 1_500 * 2)))
            sound, texts = bytearray(), list[dict[str, Any]]()
            while len(sound) < 24 * 600 * 2:
                message = await asyncio.wait_for(line.recv(), 10)
                if isinstance(message, bytes):
                    sound += message
                else:
                    texts.append(json.loads(message))
            await talking
            assert np.abs(np.frombuffer(bytes(sound), "<i2")).max() > 5_000
            chats = [json.loads(each["message"]) for each in texts if each["type"] == "chat"]
            assert "conversation.item.input_audio_transcription.completed" in [each["type"] for each in chats]
            assert any(each["type"] == "clear" for each in texts) or sound
        answer = await client.post("/stop_agent", json={"channel_name": "nobody"})
        assert (answer.status_code, answer.json()["error"]) == (
            404,
            "No active agent found for the provided channel_name",
        )
        for _ in range(100):  # the user has left: the agent ends by itself
            if not agents.active_processes:
                break
            await asyncio.sleep(0.1)
        assert ended == [("test", 0)]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.real_time
async def test_a_stop_ends_the_process_and_the_channel_is_free_again() -> None:
    async with house() as (client, agents):
        for _ in range(2):
            answer = await client.post("/start_agent", json={"channel_name": "test", "uid": 1, "language": "de"})
            assert answer.status_code == 200
            process = agents.active_processes["test"].process
            answer = await client.post("/stop_agent", json={"channel_name": "test"})
            assert answer.json() == {"status": "Agent process terminated", "channel_name": "test"}
            assert process.returncode == 0  # gracefully, not killed
            assert (await client.post("/stop_agent", json={"channel_name": "test"})).status_code == 404


async def _until(found: Callable[[], Any]) -> None:
    for _ in range(500):
        if found():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came")


@pytest.mark.real_time
async def test_an_agent_can_be_stopped_while_it_starts_and_does_not_outlive_its_server() -> None:
    async with house() as (client, agents):
        starting = asyncio.ensure_future(client.post("/start_agent", json={"channel_name": "-x", "uid": 1}))
        await _until(lambda: agents._starting.get("-x"))
        assert (await client.post("/stop_agent", json={"channel_name": "-x"})).status_code == 200
        assert (await starting).status_code == 500
        assert agents._starting == {}
        ended: list[int] = []
        agents.ended = lambda _, code: ended.append(code)
        answer = await client.post("/start_agent", json={"channel_name": "-x", "uid": 1})  # a name like an option's
        assert answer.status_code == 200, answer.text
        leash = agents.active_processes["-x"].process.stdin
        assert leash is not None
        leash.close()  # what is left of a server that was killed
        await _until(lambda: ended)
        assert ended == [0]


@pytest.mark.real_time
async def test_a_server_that_ends_leaves_no_agent_that_was_just_starting() -> None:
    async with house(stop_s=3.0) as (client, agents):
        starting = asyncio.ensure_future(client.post("/start_agent", json={"channel_name": "test", "uid": 1}))
        await _until(lambda: agents._starting.get("test"))
        process = agents._starting["test"]
        await agents.shutdown()
        assert process is not None
        assert process.returncode is not None
        assert (await starting).status_code == 500
        answer = await client.post("/start_agent", json={"channel_name": "late", "uid": 1})
        assert answer.status_code == 503


@pytest.mark.real_time
async def test_wrong_tokens_get_nowhere_and_a_killed_agent_is_cleaned_up() -> None:
    async with house(*PARROT, "--origin", "https://page.example") as (client, agents):
        join = (await client.post("/start_agent", json={"channel_name": "test", "uid": 1})).json()["join"]
        async with connect(join["socket"]) as line:
            await line.send(json.dumps({"type": "join", "uid": 7, "token": "guess"}))
            with pytest.raises(ConnectionClosed):
                await line.recv()
            assert line.close_code == 4401
        async with httpx2.AsyncClient(timeout=30) as http:
            answer = await http.post(join["offer"], json={"uid": 7, "sdp": "v=0"})
            assert answer.status_code == 401
            for origin, allowed in (("https://page.example", True), ("https://evil.example", False)):
                asks = {"origin": origin, "access-control-request-method": "POST"}
                answer = await http.options(join["offer"], headers=asks)
                assert ("access-control-allow-origin" in answer.headers) is allowed
            headers = {"authorization": f"Bearer {join['token']}"}
            answer = await http.post(join["offer"], json={"uid": 7, "sdp": "nonsense"}, headers=headers)
            assert answer.status_code == 400
        agents.active_processes["test"].process.send_signal(signal.SIGKILL)
        for _ in range(300):
            if not agents.active_processes:
                break
            await asyncio.sleep(0.1)
        assert agents.active_processes == {}


@pytest.mark.real_time
async def test_an_agent_that_cannot_start_is_told_with_a_500() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        async with house("--provider", "openai") as (client, agents):
            answer = await client.post("/start_agent", json={"channel_name": "test", "uid": 1})
            assert answer.status_code == 500
            assert answer.json()["error"].startswith("Failed to start agent")
            assert agents.active_processes == {}
    finally:
        os.environ.clear()
        os.environ.update(before)


async def test_requests_that_make_no_sense_are_refused_with_details() -> None:
    async with house(token="s3cret") as (client, _):
        headers = {"authorization": "Bearer s3cret"}
        answer = await client.post("/start_agent", json={"channel_name": "test"}, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"] == "Invalid request data"
        assert answer.json()["details"][0]["loc"] == ["uid"]
        start = b'{"channel_name": "x", "uid": 1}'
        plain = {**headers, "content-type": "text/plain"}
        assert "content type" in (await client.post("/start_agent", content=start, headers=plain)).text
        headers["content-type"] = "application/json; charset=utf-8"
        for body in (b"{", b"[]", b"x" * 70_000):
            assert (await client.post("/start_agent", content=body, headers=headers)).status_code == 400
        for wrong in (
            {"channel_name": "../etc", "uid": 1},
            {"channel_name": "x", "uid": 2**32},
            {**json.loads(start), "language": "--help"},
        ):
            assert (await client.post("/start_agent", json=wrong, headers=headers)).status_code == 400
        taken = 0

        async def endless() -> AsyncGenerator[bytes]:
            nonlocal taken
            while taken < 100:
                taken += 1
                yield b" " * 10_000

        assert (await client.post("/start_agent", content=endless(), headers=headers)).status_code == 400
        assert taken < 10
        assert (await client.post("/stop_agent", json={}, headers=headers)).status_code == 400
        assert (await client.post("/stop_agent", json={"channel_name": "x"})).status_code == 401


def test_the_command_line_is_the_guide_s() -> None:
    agent = parse_args(["agent", "--channel_name=test", "--uid=123"])
    assert (agent.action, agent.channel_name, agent.uid) == ("agent", "test", 123)
    server = parse_args(["server"])
    assert (server.action, server.port) == ("server", 8080)
    with pytest.raises(SystemExit):
        parse_args(["agent"])


def test_the_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "roomkit.servers.realtime_agent", "--help"], capture_output=True, text=True, check=True
    )
    assert "server" in done.stdout
    assert "agent" in done.stdout
