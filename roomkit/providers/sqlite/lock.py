"""One process at a time: a lock on a file beside the database, which the system drops when its holder dies."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from roomkit.errors import ConfigError, StoreLocked


class FileLock:
    """Holds `path` locked until `release`. The file stays: removing it would let two processes lock two files."""

    def __init__(self, path: Path, what: str) -> None:
        """Raises `StoreLocked`, naming the holder's process, at once."""
        try:
            import fcntl
        except ImportError as error:
            raise ConfigError(
                "the SQLite store needs POSIX file locks; on this system use RoomKit() in memory"
            ) from error
        try:
            self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(
                f'"{path}" cannot be opened ({error.strerror}): make it and its folder writable for this user'
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise StoreLocked(
                f'"{what}" is in use by process {holder}; stop that one first, or give each process a file of its own'
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """May be called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
