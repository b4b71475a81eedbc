"""P17: what `import roomkit` costs, and a kit with one message; in fresh processes."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import Figure, Meter, Report

TITLE = "import roomkit, in a fresh process"
_TELL = """
import sys
def tell():
    with open("/proc/self/status") as status:
        kb = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    print(len(sys.modules), kb / 1024)
"""
_MESSAGE = """
import asyncio
from roomkit import InboundMessage, RoomKit, TextContent
async def main():
    kit = RoomKit()
    @kit.on_message
    async def reply(ctx, message):
        return "You said: " + message.text
    async with kit:
        said = InboundMessage(channel_id="app", sender_id="ann", content=TextContent(text="hello"))
        await (await kit.process_inbound(said)).settled()
        tell()
asyncio.run(main())
"""


async def run(meter: Meter) -> Report:
    if not sys.platform.startswith("linux"):
        return Report([], ("not measured: needs /proc",))
    bare = _fresh("tell()")
    imported = _fresh("import roomkit\ntell()")
    used = _fresh(_MESSAGE)
    return Report(
        [
            Figure("import roomkit", imported["modules"], "modules", 299),
            Figure("import roomkit", imported["mb"], "MB", 40),
            Figure("RoomKit() and one message", used["modules"], "modules", 339),
            Figure("RoomKit() and one message", used["mb"], "MB", 50),
            Figure("of it: Python itself", bare["mb"], "MB"),
        ]
    )


def _fresh(code: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", _TELL + code], capture_output=True, text=True, timeout=60, check=True)
    modules, mb = done.stdout.split()
    return {"modules": int(modules), "mb": float(mb)}
