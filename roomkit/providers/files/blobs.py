"""FileBlobStore: media, voice notes and recordings as files, safe against power loss and against names.

Nothing that comes from outside becomes part of a path: a blob's id is random, a tenant's folder is a digest. A blob is
two files, its bytes and, written last, its card (`<id>.json`): without a card there is no blob.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from roomkit.errors import StateError, StoreUnavailable, UsageError
from roomkit.ports.blob import BlobInfo
from roomkit.providers.files.kinds import SNIFFED_BYTES, Looks, check_kind
from roomkit.runtime import WorkerThread

T = TypeVar("T")

_CHUNK = 256 * 1024
_ID = re.compile(r"[0-9a-f]{40}\Z")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_PLAIN = os.O_CLOEXEC | os.O_NOFOLLOW


class FileBlobStore:
    """A `BlobStore` in a folder, made if it does not exist. `max_bytes` is the largest blob (default 25 MB);
    `allowed` maps a type to the test of its first bytes (default `kinds.KINDS`)."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        max_bytes: int = 25_000_000,
        allowed: Mapping[str, Looks] | None = None,
    ) -> None:
        self._root = Path(root).expanduser().absolute()
        self._max_bytes = max_bytes
        self._allowed = allowed
        self._writing = WorkerThread("roomkit-blobs-writer")
        self._reading = WorkerThread("roomkit-blobs-reader")

    async def put(
        self,
        tenant: str,
        data: AsyncIterator[bytes],
        *,
        mime_type: str,
        filename: str | None = None,
        room_id: str | None = None,
    ) -> BlobInfo:
        """Durable when it returns. Raises `UsageError` for a type, content or size that is not allowed and
        `StoreUnavailable` when the disk refuses; then, and when cancelled, nothing stays."""
        upload = _Upload(self._root, tenant)
        begun = False
        held = b""
        size = 0
        try:
            async for chunk in data:
                size += len(chunk)
                if size > self._max_bytes:
                    raise UsageError(f"the file is larger than {self._max_bytes} bytes; send a smaller one")
                held += chunk
                if not begun and len(held) >= SNIFFED_BYTES:
                    mime_type = check_kind(mime_type, held[:SNIFFED_BYTES], self._allowed)
                    begun = True
                if begun and len(held) >= _CHUNK:
                    await self._on_disk(upload.write, held)
                    held = b""
            if not begun:
                mime_type = check_kind(mime_type, held, self._allowed)
            info = BlobInfo(upload.id, tenant, mime_type, size, _shown(filename), room_id)
            await self._on_disk(upload.write, held)
            await self._on_disk(upload.finish, info)
        finally:
            # In order behind what is still being written; after `finish` there is nothing left to take back.
            cleaned = self._writing.submit(upload.abandon)
        await cleaned
        return info

    async def info(self, tenant: str, blob_id: str) -> BlobInfo | None:
        if not _ID.match(blob_id):
            return None
        return await self._reading.submit(_read_card, self._root, tenant, blob_id)

    async def read(self, tenant: str, blob_id: str) -> AsyncIterator[bytes]:
        """The bytes, in chunks of 256 KiB. Raises `StateError` when there is no such blob of this tenant."""
        if await self.info(tenant, blob_id) is None:
            raise StateError(f"there is no file {blob_id[:40]!r}; it was never kept here, or it has been deleted")
        fd = await self._reading.submit(_open_blob, self._root, tenant, blob_id)
        try:
            while chunk := await self._reading.submit(os.read, fd, _CHUNK):
                yield chunk
        finally:
            closed = self._reading.submit(os.close, fd)  # In order behind a read that nobody waits for any more.
        await closed

    async def delete(self, tenant: str, blob_id: str) -> bool:
        """False when there was no such blob. The space is freed once no reader has it open."""
        if not _ID.match(blob_id):
            return False
        return await self._writing.submit(_delete, self._root, tenant, blob_id)

    async def _on_disk(self, work: Callable[[T], None], argument: T) -> None:
        try:
            await self._writing.submit(work, argument)
        except OSError as error:
            raise StoreUnavailable(f"the file cannot be kept ({error.strerror}); free or repair the disk") from error

    async def aclose(self) -> None:
        """Waits for what is being written. May be called again."""
        await self._writing.aclose()
        await self._reading.aclose()


class _Upload:
    """A blob on its way in, on the writer's thread."""

    def __init__(self, root: Path, tenant: str) -> None:
        self.id = secrets.token_hex(20)
        self._root = root
        self._tenant = tenant
        self._folder: int | None = None
        self._fd: int | None = None

    def write(self, data: bytes) -> None:
        if self._fd is None:
            self._folder = _open_folder(self._root, self._tenant, make=True)
            self._fd = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600, dir_fd=self._folder)
        _write_all(self._fd, data)

    def finish(self, info: BlobInfo) -> None:
        assert self._fd is not None
        os.fsync(self._fd)
        os.rename(self._partial, self.id, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        card = os.open(self._card, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600, dir_fd=self._folder)
        try:
            _write_all(card, json.dumps(asdict(info)).encode())
            os.fsync(card)
        finally:
            os.close(card)
        os.rename(self._card, f"{self.id}.json", src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder or 0)
        os.close(self._fd)
        self._fd = None

    def abandon(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            for name in (self._partial, self._card, f"{self.id}.json", self.id):
                _unlink(name, self._folder)
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    @property
    def _partial(self) -> str:
        return f"{self.id}.part"

    @property
    def _card(self) -> str:
        return f"{self.id}.json.part"


def _open_folder(root: Path, tenant: str, *, make: bool = False) -> int:
    """The tenant's folder, by descriptor, so that no link put in its place later is followed."""
    name = hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    if make:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if make:
            try:
                os.mkdir(name, 0o700, dir_fd=top)
                os.fsync(top)
            except FileExistsError:
                pass
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | _PLAIN, dir_fd=top)
    finally:
        os.close(top)


def _open_file(root: Path, tenant: str, name: str) -> int:
    """Raises `FileNotFoundError`, also for what is there and is no plain file."""
    folder = _open_folder(root, tenant)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _PLAIN, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise FileNotFoundError(errno.ENOENT, "a link is no blob", name) from error
        raise
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "not a plain file", name)
    return fd


def _open_blob(root: Path, tenant: str, blob_id: str) -> int:
    try:
        return _open_file(root, tenant, blob_id)
    except FileNotFoundError as error:
        raise StateError(f"the file {blob_id} has just been deleted") from error


def _read_card(root: Path, tenant: str, blob_id: str) -> BlobInfo | None:
    try:
        fd = _open_file(root, tenant, f"{blob_id}.json")
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(fd, "rb") as card:
        return BlobInfo(**json.load(card))


def _delete(root: Path, tenant: str, blob_id: str) -> bool:
    """The card first: what is left after a crash in between is bytes that nobody can ask for."""
    try:
        folder = _open_folder(root, tenant)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        found = _unlink(f"{blob_id}.json", folder)
        os.fsync(folder)
        _unlink(blob_id, folder)
        os.fsync(folder)
        return found
    finally:
        os.close(folder)


def _unlink(name: str, folder: int | None) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _shown(filename: str | None) -> str | None:
    """What a person may be shown of a claimed name: no path, nothing unprintable, 200 characters. Never used as one."""
    if filename is None:
        return None
    name = _UNPRINTABLE.sub("", filename.replace("\\", "/").rpartition("/")[2]).strip(" .")
    return name[-200:] or None  # The end, which has the suffix.
