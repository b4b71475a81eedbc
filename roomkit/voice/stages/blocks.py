"""What block-wise stages share: frames of any length through something that takes one length only, and the queue of
what is played beside what is heard."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from roomkit.dsp.framing import Reblock
from roomkit.models.audio import AudioFrame

_MOST_MS = 400


class Blocks:
    """Puts frames through `work`, which takes and gives blocks of `samples`. What does not fill a block waits."""

    def __init__(self, samples: int, work: Callable[[bytes], bytes]) -> None:
        self._cutter = Reblock(2 * samples)
        self._work = work

    def process(self, frame: AudioFrame) -> AudioFrame | None:
        held = self._cutter.waiting // 2
        blocks = self._cutter.push(frame.pcm)
        if not blocks:
            return None
        done = b"".join([self._work(block) for block in blocks])
        return AudioFrame(done, frame.rate, frame.position - held)

    def reset(self) -> None:
        self._cutter.reset()


class Reference:
    """What is played, block by block beside what is heard.

    The playout hands frames over ahead of time and a transport plays them at the pace of sound; taking one block for
    each block heard does the same, so the echo is late by the line and the room only, whatever the lead."""

    def __init__(self, samples: int, rate: int) -> None:
        self._cutter = Reblock(2 * samples)
        self._blocks: deque[bytes] = deque(maxlen=_MOST_MS * rate // 1000 // samples)
        self._silence = bytes(2 * samples)

    def push(self, pcm: bytes) -> None:
        self._blocks.extend(self._cutter.push(pcm))

    def take(self) -> bytes:
        """The next block; silence while nothing is played."""
        return self._blocks.popleft() if self._blocks else self._silence

    def clear(self) -> None:
        self._cutter.reset()
        self._blocks.clear()
