"""JitterBuffer: frames that come when they like, out at the pace of sound. Pure: whoever pulls has the clock.

What comes late is not lost: when nothing waits, time stands still here until the sender goes on, and when a single
frame comes after its turn, the buffer grows. Silence that is not sent (DTX) is no loss either. Only a hole between
frames that are there is made up, for at most 60 ms.
"""

from __future__ import annotations

from roomkit.dsp.conceal import Concealer
from roomkit.dsp.pcm import dbfs, silence

FRAME_MS = 20
QUIET_DBFS = -50.0


class JitterBuffer:
    """One stream of frames of exactly 20 ms. `put` them by their position in samples, `pull` one every 20 ms.

    It begins `depth_ms` behind and goes to at most `most_ms`; what waits beyond that is dropped, quiet frames first.
    Counters: `lost` frames that never came, `late` ones that came after their turn, `skipped` frames of
    silence that was not sent, `dropped` ones to catch up.
    """

    def __init__(self, rate: int, *, depth_ms: int = 40, most_ms: int = 200) -> None:
        self.size = rate * FRAME_MS // 1000
        self.lost = self.late = self.skipped = self.dropped = 0
        self._depth = max(depth_ms // FRAME_MS, 1)
        self._most = max(most_ms // FRAME_MS, self._depth)
        self._waiting: dict[int, bytes] = {}
        self._missed: dict[int, str] = {}
        self._next: int | None = None
        self._filling = True
        self._begun = False
        self._waited = 0
        self._concealer = Concealer(rate)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, position: int, pcm: bytes) -> None:
        if len(pcm) != self.size * 2:
            raise ValueError(f"a frame has {self.size} samples, not {len(pcm) // 2}")
        if self._next is None or not self._begun:
            self._next = min(position, self._next if self._next is not None else position)
        if position < self._next:
            self.late += 1
            if (was := self._missed.pop(position, None)) is not None:
                self.lost -= was == "lost"
                self.skipped -= was == "skipped"
                self._depth = min(self._depth + 1, self._most)
            return
        self._waiting[position] = pcm
        while len(self._waiting) > self._most * 2:  # a sender faster than sound, or a burst after a long stall
            self._drop()

    def pull(self) -> bytes:
        """The next 20 ms."""
        if self._next is None:
            return silence(self.size)
        if not self._waiting:
            self._filling = True
        if self._filling and len(self._waiting) < self._depth:
            return self._patience()
        if self._filling:
            self._resume()
        if len(self._waiting) > self._depth + 2:
            self._catch_up()
        return self._take()

    def _patience(self) -> bytes:
        """Less waits than should: after as many frames as should, it goes out anyway."""
        self._waited += bool(self._waiting)
        if self._waited > self._depth:
            self._resume()
            return self._take()
        return self._concealer.lost(self.size) if self._begun else silence(self.size)

    def _resume(self) -> None:
        """The sender goes on: where it jumped, it had been silent."""
        self._filling, self._begun, self._waited = False, True, 0
        first = min(self._waiting)
        assert self._next is not None, "something waits"
        self.skipped += (first - self._next) // self.size
        for position in range(max(self._next, first - self._most * self.size), first, self.size):
            self._miss(position, "skipped")
        self._next = first

    def _take(self) -> bytes:
        position = self._next
        assert position is not None, "the stream has begun"
        self._next = position + self.size
        pcm = self._waiting.pop(position, None)
        if pcm is not None:
            return self._concealer.good(pcm)
        ahead = min(self._waiting)
        if ahead - position > self._most * self.size:  # too far for a hole: the stream was begun anew
            self._next = ahead
            return self._take()
        self.lost += 1
        self._miss(position, "lost")
        return self._concealer.lost(self.size)

    def _miss(self, position: int, why: str) -> None:
        """It may come yet, and then it was late."""
        self._missed[position] = why
        if len(self._missed) > self._most:
            del self._missed[next(iter(self._missed))]

    def _catch_up(self) -> None:
        """One quiet frame less, so that the delay of a stall is not kept for the rest of the call."""
        pcm = self._waiting.get(self._next or 0)
        if pcm is not None and dbfs(pcm)[0] < QUIET_DBFS:
            self._drop()

    def _drop(self) -> None:
        first = min(self._waiting)
        del self._waiting[first]
        self._next = first + self.size
        self.dropped += 1
