"""Where servers are born: one process which has loaded everything, and from which each server forks off in
milliseconds. `python -m proofs.nursery` reads one plan per line and tells what becomes of each."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import selectors
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import reload
from pathlib import Path
from typing import Any, NoReturn, Self

import roomkit
from proofs.patience import patience
from proofs.server import Plan, serve

BIRTH_S = 60.0
_PR_SET_PDEATHSIG = 1


async def spawn_module(*arguments: str, limit: int = 1 << 16) -> asyncio.subprocess.Process:
    """One of our modules in a process of its own, with pipes; it tells lines of at most `limit` bytes."""
    root = str(Path(roomkit.__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        env={**os.environ, "PYTHONPATH": paths},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=limit,
    )


@dataclass(slots=True)
class Life:
    """A server from birth to death. `port` is None when it died before it served, `ended` the status of its process."""

    pid: asyncio.Future[int]
    port: asyncio.Future[int | None]
    ended: asyncio.Future[int]

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid.result(), how)


@dataclass(slots=True)
class Nursery:
    """`async with Nursery() as nursery: life = await nursery.bear(plan)`. Its children do not outlive it."""

    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None
    _lives: list[Life] = field(default_factory=list[Life])

    async def __aenter__(self) -> Self:
        self._process = await spawn_module("proofs.nursery")
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._reading is not None
        for life in self._lives:
            if life.pid.done() and not life.ended.done():
                life.kill()
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def bear(self, plan: Plan, crash_at: str | None = None) -> Life:
        """Returns when it serves, or has died."""
        assert self._process is not None
        assert self._process.stdin is not None
        loop = asyncio.get_running_loop()
        life = Life(loop.create_future(), loop.create_future(), loop.create_future())
        self._lives.append(life)
        line = {"id": len(self._lives) - 1, "plan": asdict(plan), "crash_at": crash_at}
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        await asyncio.wait_for(asyncio.shield(life.port), BIRTH_S * patience())
        return life

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told: dict[str, Any] = json.loads(line)
            life = self._lives[told["id"]]
            match told:
                case {"pid": pid}:
                    life.pid.set_result(pid)
                case {"port": port}:
                    life.port.set_result(port)
                case {"ended": status}:
                    life.ended.set_result(status)
                    if not life.port.done():
                        life.port.set_result(None)
                case _:
                    raise AssertionError(f"the nursery said {told}")
        for life in self._lives:  # Its children do not outlive it, and nobody is left to say so.
            if not life.port.done():
                life.port.set_result(None)
            if not life.ended.done():
                life.ended.set_result(-signal.SIGKILL)


# -- the process ------------------------------------------------------------------------------------------------------


def main() -> None:
    gc.collect()
    gc.freeze()
    selector = selectors.PollSelector()  # of epoll, children would share the state
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    children: dict[int, tuple[int, int]] = {}
    pending = b""
    while True:
        for key, _ in selector.select():
            if key.fd in children:
                selector.unregister(key.fd)
                _bury(key.fd, *children.pop(key.fd))
                continue
            data = os.read(key.fd, 65_536)
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                told = json.loads(line)
                pid = os.fork() or _child(told)
                _tell(told["id"], pid=pid)
                watched = os.pidfd_open(pid)
                children[watched] = (pid, told["id"])
                selector.register(watched, selectors.EVENT_READ)
            if not data:
                for pid, _ in children.values():
                    os.kill(pid, signal.SIGKILL)
                return


def _bury(watched: int, pid: int, ident: int) -> None:
    os.close(watched)
    _, status = os.waitpid(pid, 0)
    _tell(ident, ended=os.waitstatus_to_exitcode(status))


def _child(told: dict[str, Any]) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    code = 1
    try:
        if told["crash_at"]:
            os.environ["ROOMKIT_CRASH_AT"] = told["crash_at"]
            reload(sys.modules["roomkit.runtime.crashpoint"])  # it looks once, when it is loaded
        code = asyncio.run(serve(Plan(**told["plan"]), lambda port: _tell(told["id"], port=port)))
    except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


def _tell(ident: int, **what: int) -> None:
    os.write(1, json.dumps({"id": ident, **what}).encode() + b"\n")


if __name__ == "__main__":
    main()
