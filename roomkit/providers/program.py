"""Programs that speak: one process per sentence, killed at once when nobody listens any more."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from roomkit.dsp.framing import Reblock
from roomkit.errors import BadResponse, ConfigError, Unavailable
from roomkit.models.audio import FRAME_MS, AudioFrame, SpokenText
from roomkit.runtime import bounded

_WAV_HEADER = 44
_CHUNK = 4096
_DRAIN = 1 << 18
FIRST_BYTE_S = 10.0


def program(name: str, package: str) -> str:
    """Its path; raises `ConfigError` with the line that installs it."""
    found = shutil.which(name)
    if found is None:
        raise ConfigError(f"the program {name} is not installed: apt-get install {package}")
    return found


def kill(child: asyncio.subprocess.Process) -> None:
    """Ends it at once. `child.kill()` looks first whether it has ended, which takes the exit code away from asyncio's
    watcher, and that complains of an unknown child."""
    try:
        os.kill(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it was quicker


async def output_of(provider: str, command: Sequence[str], text: str) -> AsyncGenerator[bytes]:
    """What the program writes when it is given `text`; closing the iterator kills it. Raises `Unavailable` when it does
    not start or speak, and `BadResponse` when it complains."""
    try:
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise Unavailable(provider, f"{command[0]} cannot be started: {error.strerror}") from error
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        try:
            child.stdin.write(text.encode())
            child.stdin.close()
            data = await bounded(child.stdout.read(_CHUNK), FIRST_BYTE_S, "the first sound")
        except (ConnectionError, TimeoutError) as error:
            raise Unavailable(provider, f"{command[0]} does not speak ({type(error).__name__})") from error
        while data:
            yield data
            data = await child.stdout.read(_CHUNK)
        told = (await child.stderr.read(_CHUNK)).decode(errors="replace").strip().partition("\n")[0]
        if await child.wait() != 0 or told.startswith("Error"):
            raise BadResponse(provider, told or f"{command[0]} ended with {child.returncode}")
    finally:
        if child.returncode is None:
            kill(child)
        # A pipe that nobody reads is never seen to end, also where the program has ended, and asyncio waits for the
        # pipes with the process.
        while await child.stdout.read(_DRAIN) or await child.stderr.read(_DRAIN):
            pass
        await child.wait()


async def in_frames(
    provider: str, sound: AsyncIterator[bytes], rate: int, position: int, text_end: int
) -> AsyncGenerator[SpokenText]:
    """A WAV stream as frames from `position` on; its last frame says `text_end`."""
    head = b""
    blocks = Reblock(rate * FRAME_MS // 1000 * 2)
    waiting: AudioFrame | None = None
    async for data in sound:
        if len(head) < _WAV_HEADER:
            head += data
            if len(head) < _WAV_HEADER:
                continue
            _check(provider, head, rate)
            data = head[_WAV_HEADER:]  # noqa: PLW2901 - the rest of the same piece
        for pcm in blocks.push(data):
            if waiting is not None:
                yield SpokenText(waiting)
            waiting = AudioFrame(pcm, rate, position)
            position = waiting.end
    rest = blocks.flush()
    if rest:
        if waiting is not None:
            yield SpokenText(waiting)
        waiting = AudioFrame(rest, rate, position)
    if waiting is None:
        raise BadResponse(provider, "it gave no sound")
    yield SpokenText(waiting, text_end)


def _check(provider: str, head: bytes, rate: int) -> None:
    channels, told = int.from_bytes(head[22:24], "little"), int.from_bytes(head[24:28], "little")
    if head[:4] != b"RIFF" or channels != 1 or told != rate:
        raise BadResponse(provider, f"its sound is not mono WAV at {rate} Hz; choose another voice")
