"""A disk whose power can be cut: an SQLite VFS (apsw) that keeps what is written, and in which order it was synced.

What was synced survives a cut. Of the rest the disk keeps what it likes: the first few writes, some of them in any
order, the last one torn in the middle. Files made or removed are like that too, until something syncs their folder.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

Op = tuple[str, str, Any, bytes]
"""(what, file, offset or size or flag, data): write, truncate, delete, sync; or a mark: ("mark", "", anything, b"")."""


def memory_folder() -> str:
    """Where temporary files cost no real syncs."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() else tempfile.gettempdir()


class Disk:
    """Records what SQLite does to the files of one folder, from the state they have now. `connect` is a connection
    factory for `SQLiteOptions`; `mark` puts a moment of the outside world into the same order."""

    _made = 0

    def __init__(self, folder: Path) -> None:
        Disk._made += 1
        self.folder = folder
        self.log: list[Op] = []
        self._before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self._vfs = _Recorder(f"roomkit-disk-{Disk._made}", self.log)

    def mark(self, what: object) -> None:
        self.log.append(("mark", "", what, b""))

    def marks(self, before: int) -> list[Any]:
        return [op[2] for op in self.log[:before] if op[0] == "mark"]

    def copied(self, name: str) -> bool:
        """Whether this file was written and synced while people still had something to be told."""
        last = max((at for at, op in enumerate(self.log) if op[0] == "mark"), default=0)
        first = next((at for at, op in enumerate(self.log) if op[0] == "mark"), 0)
        return any(op[0] == "sync" and op[1] == name for op in self.log[first:last])

    def connect(self, path: str, **_: Any) -> Any:
        return _Connection(path, self._vfs.name)

    def close(self) -> None:
        self._vfs.unregister()

    def cut(self, at: int, dice: random.Random) -> dict[str, bytes]:
        """The files as they are found when the power went away after `at` operations."""
        safe = {name: bytearray(data) for name, data in self._before.items() if not name.endswith("-shm")}
        waiting: dict[str, list[Op]] = {}
        for op in self.log[:at]:
            what, name = op[0], op[1]
            if what == "sync":
                new = name not in safe
                safe.setdefault(name, bytearray())
                _apply(safe, waiting.pop(name, ()))
                if new:  # SQLite syncs the folder with the first sync of a log it has made.
                    _sync_folder(safe, waiting)
            elif what == "delete" and op[2]:
                waiting.pop(name, None)
                safe.pop(name, None)
            elif what != "mark":
                waiting.setdefault(name, []).append(op)
        for ops in waiting.values():
            _apply(safe, _survivors(ops, dice))
        return {name: bytes(data) for name, data in safe.items()}


def _survivors(ops: list[Op], dice: random.Random) -> Iterator[Op]:
    """What a disk kept of the writes that nobody had it sync."""
    how = dice.choice(("first", "torn", "any", "none"))
    if how == "any":
        yield from (op for op in ops if dice.random() < 0.5)
        return
    kept = dice.randint(0, len(ops)) if how != "none" else 0
    yield from ops[:kept]
    if how == "torn" and kept < len(ops):
        what, name, offset, data = ops[kept]
        if what == "write" and data:
            yield what, name, offset, data[: dice.randrange(len(data))]


def _sync_folder(safe: dict[str, bytearray], waiting: dict[str, list[Op]]) -> None:
    for name, ops in waiting.items():
        last = max((at for at, op in enumerate(ops) if op[0] == "delete"), default=-1)
        if last >= 0:
            safe.pop(name, None)
            del ops[: last + 1]


def _apply(files: dict[str, bytearray], ops: Sequence[Op] | Iterator[Op]) -> None:
    for what, name, where, data in ops:
        if what == "delete":
            files.pop(name, None)
            continue
        file = files.setdefault(name, bytearray())
        if what == "truncate":
            del file[where:]
            continue
        if len(file) < where:
            file.extend(bytes(where - len(file)))
        file[where : where + len(data)] = data


class _Recorder(apsw.VFS):
    """The system's own VFS; it keeps a list, and leaves out the syncs."""

    def __init__(self, name: str, log: list[Op]) -> None:
        self.name = name
        self.log = log
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _File(name, flags, self.log)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's name
        super().xDelete(filename, syncdir)
        self.log.append(("delete", Path(filename).name, syncdir, b""))


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], log: list[Op]) -> None:
        full = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = Path(full).name if full else ""
        self._log = log
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        super().xWrite(data, offset)
        self._log.append(("write", self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        super().xTruncate(newsize)
        self._log.append(("truncate", self._name, newsize, b""))

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name and flags
        self._log.append(("sync", self._name, 0, b""))


class _Connection:
    """An apsw connection with as much of `sqlite3.Connection` as the store uses."""

    def __init__(self, path: str, vfs: str) -> None:
        with _errors():
            self._connection = apsw.Connection(path, vfs=vfs)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        with _errors():
            return self._connection.execute(sql, values)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> Any:
        with _errors():
            return self._connection.executemany(sql, rows)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except apsw.ConstraintError as error:
        raise sqlite3.IntegrityError(str(error)) from error
    except apsw.Error as error:
        raise sqlite3.OperationalError(str(error)) from error
