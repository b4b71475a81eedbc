"""FileBlobStore: what comes in is checked and durable, and no name reaches the file system."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roomkit.errors import StateError, StoreUnavailable, UsageError
from roomkit.providers.files import FileBlobStore
from roomkit.providers.files.kinds import KINDS, check_kind

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
SAMPLES = {
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/png": PNG,
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
    "image/heic": b"\x00\x00\x00\x18ftypheic",
    "image/heif": b"\x00\x00\x00\x18ftypmif1",
    "audio/mpeg": b"ID3\x03",
    "audio/aac": b"\xff\xf1\x50\x80",
    "audio/ogg": b"OggS\x00",
    "audio/opus": b"OggS\x00",
    "audio/wav": b"RIFF\x00\x00\x00\x00WAVEfmt ",
    "audio/x-wav": b"RIFF\x00\x00\x00\x00WAVEfmt ",
    "audio/flac": b"fLaC",
    "audio/amr": b"#!AMR\n",
    "audio/mp4": b"\x00\x00\x00\x20ftypM4A ",
    "audio/x-m4a": b"\x00\x00\x00\x20ftypM4A ",
    "audio/webm": b"\x1aE\xdf\xa3",
    "video/mp4": b"\x00\x00\x00\x20ftypisom",
    "video/quicktime": b"\x00\x00\x00\x14ftypqt  ",
    "video/3gpp": b"\x00\x00\x00\x14ftyp3gp5",
    "video/webm": b"\x1aE\xdf\xa3",
    "application/pdf": b"%PDF-1.7",
    "text/plain": "héllo\n".encode(),
    "text/csv": b"a;b\n",
    "text/vcard": b"BEGIN:VCARD\nVERSION:4.0\n",
    "text/x-vcard": b"begin:vcard\n",
    "text/calendar": b"BEGIN:VCALENDAR\n",
}


async def pieces(data: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def whole(store: FileBlobStore, tenant: str, blob_id: str) -> bytes:
    return b"".join([chunk async for chunk in store.read(tenant, blob_id)])


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def test_what_is_put_is_read_back_also_by_another_store(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path / "blobs")
    data = PNG + os.urandom(700_000)
    info = await store.put("t", pieces(data, 10_000), mime_type="IMAGE/PNG; x=y", filename="a.png", room_id="r")
    assert (info.mime_type, info.size_bytes, info.filename, info.room_id) == ("image/png", len(data), "a.png", "r")
    await store.aclose()
    again = FileBlobStore(tmp_path / "blobs")
    assert await again.info("t", info.id) == info
    assert await whole(again, "t", info.id) == data
    assert len(files(tmp_path)) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path)} == {0o600}
    await again.aclose()


async def test_a_deleted_blob_is_gone(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    info = await store.put("t", pieces(PNG), mime_type="image/png")
    assert await store.delete("t", info.id)
    assert not await store.delete("t", info.id)
    assert await store.info("t", info.id) is None
    assert files(tmp_path) == []
    with pytest.raises(StateError, match="no file"):
        await whole(store, "t", info.id)
    await store.aclose()


async def test_tenants_do_not_see_each_others_blobs(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    info = await store.put("t", pieces(PNG), mime_type="image/png")
    for other in ("u", "", "T", "../t"):
        assert await store.info(other, info.id) is None
        assert not await store.delete(other, info.id)
        with pytest.raises(StateError):
            await whole(store, other, info.id)
    assert await whole(store, "t", info.id) == PNG
    await store.aclose()


def test_there_is_a_sample_of_every_kind() -> None:
    assert SAMPLES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_known_by_its_first_bytes(kind: str) -> None:
    assert check_kind(kind.upper() + "; codecs=x", SAMPLES[kind]) == kind
    for wrong in (b"<html><script>\x00", b"MZ\x90\x00", b"\x7fELF\x01"):
        with pytest.raises(UsageError, match="does not begin like"):
            check_kind(kind, wrong)


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/x-msdownload", "", "image/*", "a/b" * 99])
async def test_other_types_are_refused_and_leave_nothing(kind: str, tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    with pytest.raises(UsageError, match="are not taken"):
        await store.put("t", pieces(PNG), mime_type=kind)
    with pytest.raises(UsageError, match="does not begin like image/jpeg"):
        await store.put("t", pieces(PNG), mime_type="image/jpeg")
    assert files(tmp_path) == []
    await store.aclose()


async def test_a_character_cut_by_the_sniffing_is_no_mistake(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    text = ("x" * 63 + "é" * 100).encode()
    info = await store.put("t", pieces(text, 64), mime_type="text/plain")
    assert await whole(store, "t", info.id) == text
    await store.aclose()


async def test_one_byte_too_many_is_refused_while_it_comes_in(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path, max_bytes=600_000)
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        yield PNG
        while True:
            taken += 100_000
            yield bytes(100_000)

    with pytest.raises(UsageError, match="larger than 600000"):
        await store.put("t", endless(), mime_type="image/png")
    assert taken <= 700_000
    exact = PNG + bytes(600_000 - len(PNG))
    assert (await store.put("t", pieces(exact, 50_000), mime_type="image/png")).size_bytes == 600_000
    assert len(files(tmp_path)) == 2
    await store.aclose()


async def test_a_cancelled_or_broken_upload_leaves_nothing(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)

    async def stalls() -> AsyncIterator[bytes]:
        yield PNG + bytes(400_000)
        await asyncio.sleep(1000)

    async def breaks() -> AsyncIterator[bytes]:
        yield PNG + bytes(400_000)
        raise ConnectionResetError("gone")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.put("t", stalls(), mime_type="image/png"), 5)
    with pytest.raises(ConnectionResetError):
        await store.put("t", breaks(), mime_type="image/png")
    await store.aclose()
    assert files(tmp_path) == []


async def test_a_disk_that_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileBlobStore(tmp_path)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="No space left"):
            await store.put("t", pieces(PNG), mime_type="image/png")
    assert files(tmp_path) == []
    info = await store.put("t", pieces(PNG), mime_type="image/png")
    assert await whole(store, "t", info.id) == PNG
    await store.aclose()


async def test_everything_is_synced_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def seen(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", seen)
    store = FileBlobStore(tmp_path)
    info = await store.put("t", pieces(PNG), mime_type="image/png")
    folder = files(tmp_path)[0].parent.name
    assert synced[-3:] == [f"{info.id}.part", f"{info.id}.json.part", folder]
    await store.aclose()


NAMES = [
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\Windows\\x.png",
    "a\x00b.png",
    "..",
    ".",
    "",
    "\u202egnp.exe",
    "a/" * 90,
]


async def test_a_claimed_name_is_shown_and_never_used(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    shown = [
        (await store.put("t", pieces(PNG), mime_type="image/png", filename=name)).filename
        for name in [*NAMES, "x" * 300 + ".png"]
    ]
    assert shown == ["passwd", "passwd", "x.png", "ab.png", None, None, None, "gnp.exe", None, "x" * 196 + ".png"]
    await store.aclose()


@pytest.mark.parametrize("blob_id", [*NAMES, "a" * 40 + "\n", "A" * 40, "a" * 39, "../" + "a" * 37])
async def test_an_id_that_is_not_ours_finds_nothing(blob_id: str, tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    await store.put("t", pieces(PNG), mime_type="image/png")
    assert await store.info("t", blob_id) is None
    assert not await store.delete("t", blob_id)
    assert len(files(tmp_path)) == 2
    await store.aclose()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tenant=st.text() | st.sampled_from(NAMES), blob_id=st.text() | st.sampled_from(NAMES))
def test_no_name_leaves_the_folder(tenant: str, blob_id: str, tmp_path: Path) -> None:
    async def visit() -> None:
        store = FileBlobStore(tmp_path / "root")
        info = await store.put(tenant, pieces(PNG), mime_type="image/png", filename=blob_id)
        assert await store.info(tenant, info.id) == info
        assert await store.info(tenant, blob_id) is None
        assert await store.delete(tenant, info.id)
        await store.aclose()

    asyncio.run(visit())
    assert files(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    assert all(len(path.name) == 32 for path in (tmp_path / "root").iterdir())


async def test_links_and_devices_put_in_place_are_not_followed(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path / "root")
    info = await store.put("t", pieces(PNG), mime_type="image/png")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (blob,) = [path for path in files(tmp_path / "root") if path.suffix == ""]
    blob.unlink()
    blob.symlink_to(secret)
    with pytest.raises(StateError):
        await whole(store, "t", info.id)
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(StateError):
        await whole(store, "t", info.id)
    folder = blob.parent
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    assert await store.info("t", info.id) is None
    assert not await store.delete("t", info.id)
    with pytest.raises(StoreUnavailable):
        await store.put("t", pieces(PNG), mime_type="image/png")
    await store.aclose()
