"""PCMWriter: the raw samples of one direction of a call in a file, for listening to what went wrong."""

from __future__ import annotations

import logging
from itertools import count
from pathlib import Path

from roomkit.runtime import Clock, SystemClock, WorkerThread

log = logging.getLogger(__name__)


class PCMWriter:
    """Writes pieces of at least `buffer_size` bytes, off the loop, into a new file. Nothing at all
    unless `write_pcm`, and nothing more once the disk refuses it: the call goes on."""

    def __init__(
        self,
        prefix: str,
        write_pcm: bool,
        buffer_size: int = 64 * 1024,
        *,
        folder: str | Path = ".",
        clock: Clock | None = None,
    ) -> None:
        self.write_pcm = write_pcm
        self.buffer_size = buffer_size
        stamp = (clock or SystemClock()).now().strftime("%Y%m%d_%H%M%S")
        self.file = Path(folder) / f"{prefix}_{stamp}.pcm" if write_pcm else None
        self._buffer = bytearray()
        self._written = False
        self._thread = WorkerThread("pcm") if write_pcm else None

    async def write(self, data: bytes) -> None:
        if not self.write_pcm:
            return
        self._buffer += data
        if len(self._buffer) >= self.buffer_size:
            await self.flush()

    async def flush(self) -> None:
        """What is left, too."""
        if self._thread is not None and self._buffer:
            data, self._buffer = bytes(self._buffer), bytearray()
            try:
                await self._thread.submit(self._append, data)
            except OSError as error:
                log.warning("%s is not written any more: %s", self.file, error)
                self._thread.close()
                self._thread = None

    async def aclose(self) -> None:
        await self.flush()
        if self._thread is not None:
            self._thread.close()
            self._thread = None

    def _append(self, data: bytes) -> None:
        assert self.file is not None, "there is a file where something is written"
        if self._written:
            with self.file.open("ab") as file:
                file.write(data)
            return
        stem = self.file.stem
        for number in count(1):  # another agent may have begun in the same second
            try:
                with self.file.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                self.file = self.file.with_stem(f"{stem}_{number}")
            else:
                self._written = True
                return
