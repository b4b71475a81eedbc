"""`import roomkit` stays cheap: a serverless function or a command line pays for it every time."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.gates.tree import ROOT

HEAVY = (
    "httpx2",
    "httpx",
    "starlette",
    "uvicorn",
    "websockets",
    "numpy",
    "rich",
    "typer",
    "openai",
    "anthropic",
    "google",
    "mcp",
    "twilio",
    "grpc",
    "sqlite3",
    "asyncpg",
    "opentelemetry",
)
REPORT = """
import json, sys
rss = next((int(l.split()[1]) / 1024 for l in open("/proc/self/status") if l.startswith("VmRSS")), 0) \
    if sys.platform == "linux" else 0
json.dump({"modules": len(sys.modules), "names": sorted(sys.modules), "rss": rss}, sys.stdout)
"""
ONE_MESSAGE = """
import asyncio
from roomkit import Channel, InboundMessage, RoomKit

kit = RoomKit()
kit.register_channel(Channel("desk", "desk"))
seen = []

@kit.on_message
async def reply(ctx, message):
    seen.append(message.text)
    return f"You said: {message.text}"

async def main():
    async with kit:
        result = await kit.process_inbound(InboundMessage.text("desk", "ann", "hello"))
        await result.settled()
    assert seen == ["hello"], seen

asyncio.run(main())
"""


def cost(code: str) -> dict[str, Any]:
    """Runs `code` in a fresh interpreter; the number of modules it loaded, their names and its memory in MB."""
    # -S -E keep this machine's site hooks out of the count; the parent's path makes the dependencies importable.
    setup = f"import sys; sys.path[:] = {[str(ROOT), *sys.path]!r}\n"
    command = [sys.executable, "-S", "-E", "-c", setup + code + REPORT]
    # The first run writes the bytecode: compiling it takes memory that a running program does not.
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def heavy(names: list[str]) -> set[str]:
    return {name.split(".")[0] for name in names} & set(HEAVY)


def require(module: str) -> None:
    if not (ROOT / "roomkit" / f"{module}.py").exists():
        pytest.skip(f"roomkit/{module}.py does not exist yet")


def test_import_roomkit_is_cheap() -> None:
    require("__init__")
    found = cost("import roomkit\n")
    assert not heavy(found["names"])
    assert found["modules"] < 300, f"{found['modules']} modules"
    assert found["rss"] <= 40, f"{found['rss']:.1f} MB"


def test_a_kit_and_one_message_are_cheap() -> None:
    require("kit")
    found = cost(ONE_MESSAGE)
    assert not heavy(found["names"])
    assert found["modules"] < 340, f"{found['modules']} modules"
    assert found["rss"] <= 50, f"{found['rss']:.1f} MB"


def test_the_gauge_sees_what_is_loaded() -> None:
    """A gauge that cannot rise proves nothing."""
    empty, full = cost("pass\n"), cost("import asyncio, email.message, xml.dom.minidom, sqlite3\n")
    assert full["modules"] > empty["modules"] + 50
    assert heavy(full["names"]) == {"sqlite3"}
    assert not heavy(empty["names"])
