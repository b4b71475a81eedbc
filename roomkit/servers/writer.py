"""What one socket still has to be told: written at once while it keeps up, buffered and merged while it does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from roomkit.protocols.room_socket.codec import Outgoing, merge_outgoing, size_outgoing, wire
from roomkit.runtime import CoalescingBuffer, monotonic
from roomkit.runtime.eager import Eager

Send = Callable[[str], Awaitable[None]]


class SocketWriter:
    """Writes inline as long as the connection takes it (D50). Under back-pressure one coroutine goes on writing
    while later frames wait in a bounded buffer, where chunks of one reply merge. When that is full, `on_slow` is
    called, once."""

    __slots__ = ("_buffer", "_capacity", "_eager", "_on_slow", "_send", "_since", "closed")

    def __init__(self, send: Send, eager: Eager, *, capacity: int, on_slow: Callable[[], None]) -> None:
        self._send = send
        self._eager = eager
        self._capacity = capacity
        self._on_slow = on_slow
        self._buffer: CoalescingBuffer[Outgoing] | None = None
        self._since: float | None = None
        self.closed = False

    def push(self, item: Outgoing) -> None:
        """Sends `item` after everything pushed before. Never waits; after `close` it is dropped."""
        if self.closed:
            return
        if self._since is None:
            self._since = monotonic()
            self._eager.start(self._run(item))
            return
        if self._buffer is None:  # made only for those who need it: most connections never do
            self._buffer = CoalescingBuffer(self._capacity, merge=merge_outgoing, size=size_outgoing)
        if not self._buffer.offer(item):
            self.close()
            self._on_slow()

    def push_lossy(self, item: Outgoing) -> None:
        """As `push`, but dropped when the connection is behind: for signs of life (R12)."""
        if self._since is None:
            self.push(item)

    def stalled_for(self, now: float) -> float:
        """Seconds since the connection last took something, 0 while nothing waits."""
        return 0.0 if self._since is None else now - self._since

    @property
    def backlog(self) -> int:
        """Characters that wait."""
        return 0 if self._buffer is None else self._buffer.filled

    def close(self) -> None:
        self.closed = True
        if self._buffer is not None:
            self._buffer.clear()

    async def _run(self, item: Outgoing | None) -> None:
        try:
            while item is not None and not self.closed:
                await self._send(wire(item))
                self._since = monotonic()
                item = None if self._buffer is None else self._buffer.take_nowait()
        except (OSError, RuntimeError):
            # How servers say that the peer has gone; the reading side ends the connection.
            self.close()
        finally:
            self._since = None
