"""Reading the documentation: its fenced blocks, and a runner for the Python ones.

`python -m tests.gates.pages FILE.md` runs the Python blocks of one page, top to bottom, in one namespace.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+)(?P<info>.*)$")
REASON = re.compile(r"<!--\s*notest:\s*\S.*-->")
SHELLS = {"bash", "console", "sh", "shell"}


@dataclass(frozen=True)
class Block:
    """A fenced block: what the fence says, the number of its first line, and whether a reason stands before it."""

    info: tuple[str, ...]
    line: int
    text: str
    reason: bool

    @property
    def language(self) -> str:
        return self.info[0] if self.info else ""

    @property
    def untested(self) -> bool:
        return "notest" in self.info


def blocks(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        number += 1
        if not opening:
            continue
        first, closing = number, f"{opening['indent']}{opening['ticks']}"
        while number < len(lines) and lines[number].rstrip() != closing:
            number += 1
        body = [line.removeprefix(opening["indent"]) for line in lines[first:number]]
        before = next((line for line in reversed(lines[: first - 1]) if line.strip()), "")
        info = tuple(re.sub(r"[{}]", " ", opening["info"]).split())
        yield Block(info, first + 1, "\n".join(body) + "\n", bool(REASON.search(before)))
        number += 1


def commands(block: Block) -> Iterator[list[str]]:
    """The command lines of a shell block that we can check: those of roomkit, make and `python -m`."""
    joined = block.text.replace("\\\n", " ")
    prompted = any(line.startswith("$ ") for line in joined.splitlines())
    for line in joined.splitlines():
        if prompted and not line.startswith("$ "):
            continue  # what the command prints
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words and (words[0] in {"roomkit", "make"} or words[:2] == ["python", "-m"]):
            yield words


def run(path: Path) -> int:
    """Runs the Python blocks of a page; top-level `await` works, on one loop. Returns how many ran."""
    namespace: dict[str, object] = {"__name__": "page"}
    ran = 0
    with asyncio.Runner() as runner:
        for block in blocks(path.read_text(encoding="utf-8")):
            if block.language != "python" or block.untested:
                continue
            source = "\n" * (block.line - 1) + block.text
            code = compile(source, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(eval(code, namespace))
            else:
                exec(code, namespace)
            ran += 1
    return ran


if __name__ == "__main__":
    print(f"{run(Path(sys.argv[1]))} blocks ran")
