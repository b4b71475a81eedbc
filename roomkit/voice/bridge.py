"""Bridge: the callers of one room hear each other, everybody but themselves, mixed once for all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from roomkit.dsp.pcm import silence
from roomkit.models.audio import FRAME_MS, AudioFrame
from roomkit.runtime import monotonic

MOST_CALLERS = 10
_WAITING = 5
"""Frames kept of each caller: 100 ms evens out networks, more would be heard as lag."""

Deliver = Callable[[AudioFrame], None]


class Bridge:
    """Ticks once a frame while two or more are on the line; what nobody says costs nothing."""

    def __init__(self, rate: int) -> None:
        self._size = rate * FRAME_MS // 1000
        self._rate = rate
        self._heard: dict[str, Deliver] = {}
        self._said: dict[str, deque[bytes]] = {}
        self._position = 0

    def join(self, name: str, deliver: Deliver, *, speaks: bool) -> None:
        """`deliver` takes what the others say. Who does not speak is only a listener."""
        self._heard[name] = deliver
        if speaks:
            self._said[name] = deque(maxlen=_WAITING)

    def leave(self, name: str) -> None:
        self._heard.pop(name, None)
        self._said.pop(name, None)

    @property
    def busy(self) -> bool:
        return len(self._heard) > 1

    @property
    def full(self) -> bool:
        return len(self._said) >= MOST_CALLERS

    def push(self, name: str, frame: AudioFrame) -> None:
        """What one caller says. Frames of another length than 20 ms are cut or filled to it."""
        said = self._said.get(name)
        if said is not None:
            said.append(frame.pcm if frame.samples == self._size else _fit(frame.pcm, self._size))

    async def run(self) -> None:
        """Mixes until only one is left on the line."""
        due = monotonic()
        while self.busy:
            due += FRAME_MS / 1000
            await asyncio.sleep(max(due - monotonic(), 0))
            self._mix()

    def _mix(self) -> None:
        voices = {name: np.frombuffer(said.popleft(), "<i2") for name, said in self._said.items() if said}
        if not voices:
            return
        total: NDArray[np.int32] = np.zeros(self._size, dtype=np.int32)
        for voice in voices.values():
            total += voice
        everybody = _clipped(total)
        for name, deliver in tuple(self._heard.items()):
            own = voices.get(name)
            if own is None:
                deliver(AudioFrame(everybody, self._rate, self._position))
            elif len(voices) > 1:
                deliver(AudioFrame(_clipped(total - own), self._rate, self._position))
        self._position += self._size


def _clipped(total: NDArray[np.int32]) -> bytes:
    return np.clip(total, -32768, 32767).astype("<i2").tobytes()


def _fit(pcm: bytes, samples: int) -> bytes:
    return pcm[: samples * 2] + silence(samples - min(len(pcm) // 2, samples))
