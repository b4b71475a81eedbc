"""Cuts a stream of samples into frames of one length."""

from __future__ import annotations


class Reblock:
    """Takes pieces of any length and gives pieces of exactly `size` bytes; what is left over waits, always less than
    one frame."""

    __slots__ = ("_rest", "size")

    def __init__(self, size: int) -> None:
        if size <= 0:
            raise ValueError(f"a frame has at least one byte; got {size}")
        self.size = size
        self._rest = b""

    def push(self, data: bytes) -> list[bytes]:
        if self._rest:
            data = self._rest + data
        whole = len(data) - len(data) % self.size
        self._rest = data[whole:]
        return [data[at : at + self.size] for at in range(0, whole, self.size)]

    @property
    def waiting(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._rest)

    def flush(self, *, pad: bool = True) -> bytes:
        """The rest, filled up with silence if `pad`; b"" when there is none."""
        rest, self._rest = self._rest, b""
        return rest + bytes(self.size - len(rest)) if rest and pad else rest

    def reset(self) -> None:
        self._rest = b""
