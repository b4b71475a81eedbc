"""The same workload on a peer, in an environment of its own: its package has our import name, so never in this one."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks import calibration
from benchmarks.calibration import REFERENCE_MS
from benchmarks.measure import Figure, Meter, Report

_FRAME = """
import asyncio, inspect, json, time
from benchmark_calibration import calibrate
from roomkit import InboundMessage, RoomKit, TextContent, WebSocketChannel

seen = 0

async def take(connection_id, event):
    global seen
    seen += 1

def connect(channel, connection_id):
    asks = "room_id" in inspect.signature(channel.register_connection).parameters
    channel.register_connection(connection_id, take, **({"room_id": "r"} if asks else {}))

def message(number):
    content = TextContent(body="Hello, where is my order?")
    return InboundMessage(channel_id="in", sender_id="+4411", content=content, external_id=f"m{number}")

async def main(receivers, count):
    kit = RoomKit()
    source, sink = WebSocketChannel("in"), WebSocketChannel("out")
    for channel in (source, sink):
        kit.register_channel(channel)
    await kit.create_room(room_id="r")
    await kit.attach_channel("r", "in")
    await kit.attach_channel("r", "out")
    for number in range(receivers):
        connect(sink, f"c{number}")
    await kit.process_inbound(message(-1))
    taken = []
    for round_ in range(5):
        messages = [message(round_ * count + number) for number in range(count)]
        before = min(calibrate() for _ in range(3))
        began = time.process_time()
        for one in messages:
            await kit.process_inbound(one)
        cpu = time.process_time() - began
        speed = (before + min(calibrate() for _ in range(3))) / 2
        taken.append((cpu / count * 1e6, cpu / count * 1e6 / speed))
    await asyncio.sleep(0.2)
    await kit.close()
    print(json.dumps({"figures": sorted(taken)[2], "seen": seen}))
"""


def compared(meter: Meter, report: Report, *, receivers: int, count: int, unit: str) -> Report:
    """Adds what the peer takes for a channel in and one out with `receivers` connections, or why it is not compared."""
    found = _measure(meter, receivers, count)
    if isinstance(found, str):
        return Report(report.figures, (*report.notes, f"roomkit 0.x: not compared ({found})"))
    cpu, reference = found
    ours = report.figures[0]
    assert ours.reference is not None
    ratio = Figure("times as fast as roomkit 0.x", reference / ours.reference, "x", better="higher")
    theirs = Figure(f"roomkit 0.x per {unit}", cpu, "us CPU", reference=reference)
    return Report([*report.figures, theirs, ratio], report.notes)


def _measure(meter: Meter, receivers: int, count: int) -> tuple[float, float] | str:
    if meter.peer_python is None:
        return "give --peer-python"
    count = meter.size(count, 20)
    code = f"{_FRAME}\nasyncio.run(main({receivers}, {count}))\n"
    try:
        done = subprocess.run(
            [meter.peer_python, "-c", f"{_calibration()}\n{code}"],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            cwd=tempfile.gettempdir(),
        )
        answer = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return f"its run failed: {type(error).__name__}"
    cpu, reference = answer["figures"]
    wanted = (5 * count + 1) * receivers
    if answer["seen"] != wanted:
        return f"it delivered {answer['seen']} of {wanted} events"
    return cpu / receivers, reference / receivers * REFERENCE_MS


def _calibration() -> str:
    """Our calibration loop as a module that the peer's process can import."""
    source = Path(calibration.__file__).read_text("utf-8")
    return (
        "import sys, types\n"
        "made = types.ModuleType('benchmark_calibration')\n"
        f"exec({source!r}, made.__dict__)\n"
        "sys.modules['benchmark_calibration'] = made"
    )
