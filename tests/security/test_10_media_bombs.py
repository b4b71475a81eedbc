"""Line 10: files that lie: about their size, their type, how far they unpack; files that never end. Bytes, time and
ratio are capped both where we fetch and where we are sent."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import httpx2
import pytest

from roomkit import RoomKit
from roomkit.channels.transport import TransportChannel
from roomkit.errors import ProviderError, UsageError
from roomkit.models.content import MediaContent
from roomkit.models.delivery import Attachment, InboundMessage
from roomkit.net import FetchPolicy, fetch
from roomkit.net.ssrf import Fetched
from roomkit.providers.files import FileBlobStore
from roomkit.runtime import monotonic
from roomkit.servers.options import MEDIA_TYPES
from roomkit.testing import VirtualClock
from tests.security.adapters import BLOBS
from tests.servers.house import house

MB = 1 << 20
LIMIT = 1 * MB


async def anywhere(host: str, port: int, /) -> Sequence[str]:
    return ["93.184.215.14"]


class Body(httpx2.AsyncByteStream):
    """`taken` counts what was read of it."""

    def __init__(self, chunks: Callable[[], AsyncIterator[bytes]]) -> None:
        self._chunks, self.taken, self.closed = chunks, 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks():
            self.taken += len(chunk)
            yield chunk

    async def aclose(self) -> None:
        self.closed = True


class Net(httpx2.AsyncBaseTransport):
    def __init__(self, body: Body, **headers: str) -> None:
        self.body = body
        self.headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=self.headers, stream=self.body)


def of(*chunks: bytes, pause: float = 0.0) -> Body:
    async def make() -> AsyncIterator[bytes]:
        for chunk in chunks:
            if pause:
                await asyncio.sleep(pause)
            yield chunk

    return Body(make)


def endless(chunk: bytes, pause: float = 0.0) -> Body:
    async def make() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(pause)
            yield chunk

    return Body(make)


async def refused(body: Body, **headers: str) -> str:
    policy = FetchPolicy(max_bytes=LIMIT, total_s=30)
    with pytest.raises(ProviderError) as caught:
        await fetch("https://a.example/x", policy=policy, resolver=anywhere, transport=Net(body, **headers))
    assert body.closed
    return str(caught.value)


@pytest.mark.parametrize("size", ["10000000000", "9" * 30, "9" * 5000])
async def test_ten_gigabytes_announced_are_not_begun(size: str) -> None:
    body = endless(b"x" * 65536)
    await refused(body, content_length=size)
    assert body.taken == 0


@pytest.mark.parametrize("size", ["10", "0", "-5", "1e3", "x", "١٢"])
async def test_a_size_that_lies_ends_at_the_limit(size: str) -> None:
    body = endless(b"x" * 65536)
    await refused(body, content_length=size)
    assert body.taken <= LIMIT + 2 * 65536


async def test_a_slow_drip_ends_in_time() -> None:
    began = monotonic()
    await refused(endless(b"x", pause=1.0))
    await refused(endless(b"", pause=0.5))
    assert monotonic() - began < 61


def nested(times: int) -> bytes:
    data = b"\0" * (20 * MB)
    for _ in range(times):
        data = gzip.compress(data, mtime=0)
    return data


BOMBS = {
    "gzip": ("gzip", lambda: nested(1)),
    "gzip of gzip": ("gzip", lambda: gzip.compress(nested(1))),
    "deflate": ("deflate", lambda: zlib.compress(b"\0" * (20 * MB), 9)),
    "x-gzip": ("x-gzip", lambda: nested(1)),
    "two members": ("gzip", lambda: gzip.compress(b"a") + gzip.compress(b"b")),
    "twice": ("gzip, gzip", lambda: nested(2)),
    "brotli": ("br", lambda: b"\x8b\x02\x80" * 1000),
    "zstd": ("zstd", lambda: b"\x28\xb5\x2f\xfd" * 1000),
    "bzip2": ("bzip2", lambda: bz2.compress(b"\0" * MB)),
    "cut short": ("gzip", lambda: gzip.compress(b"x" * 1000)[:-9]),
    "no gzip": ("gzip", lambda: b"hello"),
}


@pytest.mark.may_block
@pytest.mark.parametrize("bomb", BOMBS)
async def test_bombs_do_not_go_off(bomb: str) -> None:
    encoding, make = BOMBS[bomb]
    data = make()
    tracemalloc.start()
    try:
        if bomb == "gzip of gzip":
            # Only one layer is ever unpacked: what is inside is a small file like any other.
            policy = FetchPolicy(max_bytes=LIMIT)
            net = Net(of(data), content_encoding=encoding)
            assert (
                len((await fetch("https://a.example/", policy=policy, resolver=anywhere, transport=net)).body) < LIMIT
            )
        else:
            await refused(of(data), content_encoding=encoding)
        assert tracemalloc.get_traced_memory()[1] < 8 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.may_block
async def test_a_bomb_that_unpacks_to_less_than_the_limit_is_one_all_the_same() -> None:
    policy = FetchPolicy(max_bytes=100 * MB, max_ratio=100)
    net = Net(of(nested(1)), content_encoding="gzip")
    with pytest.raises(ProviderError, match="more than 100 times its size"):
        await fetch("https://a.example/", policy=policy, resolver=anywhere, transport=net)


def zip_bomb() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * (5 * MB))
    return made.getvalue()


LIES: dict[str, tuple[str, bytes]] = {
    "html as png": ("image/png", b"<html><script>1</script>"),
    "svg as png": ("image/png", b"<svg xmlns='http://www.w3.org/2000/svg' onload='x'/>"),
    "zip as jpeg": ("image/jpeg", zip_bomb()[:700]),
    "exe as pdf": ("application/pdf", b"MZ\x90\0" + bytes(100)),
    "elf as wav": ("audio/wav", b"\x7fELF" + bytes(100)),
    "script as gif": ("image/gif", b"#!/bin/sh\nrm -rf /"),
    "nothing as png": ("image/png", b""),
    "half a magic": ("image/png", b"\x89PN"),
    "utf-16 html as text": ("text/plain", "<script>".encode("utf-16")),
    "svg": ("image/svg+xml", b"<svg/>"),
    "html": ("text/html", b"<p>"),
    "zip": ("application/zip", zip_bomb()),
    "type with a line": ("image/png\nx: y", b"\x89PNG\r\n\x1a\n"),
}
HONEST_HEADERS: dict[str, tuple[str, bytes]] = {
    "png of 2^31 pixels": (
        "image/png",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 2**31 - 1, 2**31 - 1) + bytes(20),
    ),
    "gif of 65535 pixels": ("image/gif", b"GIF89a\xff\xff\xff\xff" + bytes(20)),
    "wav of 4 GB": ("audio/wav", b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(40)),
}
STORES: dict[str, Callable[[Path], FileBlobStore]] = {
    "FileBlobStore": lambda path: FileBlobStore(path, max_bytes=LIMIT)
}


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 7):
        yield data[at : at + 7]


def test_every_store_of_files_is_tried() -> None:
    assert STORES.keys() == set(BLOBS)


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
async def test_a_file_is_what_it_says_or_is_not_kept(store: Callable[[Path], FileBlobStore], tmp_path: Path) -> None:
    blobs = store(tmp_path)
    for name, (mime, data) in LIES.items():
        with pytest.raises(UsageError):
            assert await blobs.put("t", chunks(data), mime_type=mime) is None, name
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    for mime, data in HONEST_HEADERS.values():
        # What it would unpack to is nobody's business here: files are kept as they come and never unpacked.
        kept = await blobs.put("t", chunks(data), mime_type=f"{mime}; charset=x")
        assert (kept.size_bytes, kept.mime_type) == (len(data), mime)
    with pytest.raises(UsageError):
        await blobs.put("t", chunks(b"\x89PNG\r\n\x1a\n" + bytes(LIMIT)), mime_type="image/png")
    await blobs.aclose()


async def test_uploads_have_a_size_and_a_type() -> None:
    async with house(media_bytes=1000) as h:
        await h.kit.create_room("r", channels=["web"])
        guest = {"authorization": f"Bearer {h.token('guest', 'r')}"}

        async def put(data: bytes, mime: str, **headers: str) -> int:
            sent = {**guest, "content-type": mime, **{k.replace("_", "-"): v for k, v in headers.items()}}
            return (await h.http.post("/api/rooms/r/media", content=data, headers=sent)).status_code

        assert await put(b"x" * 2000, "image/png") == 413
        assert await put(b"x", "image/png", content_length="10000000000") == 413
        assert await put(b"x", "image/png", content_length="9" * 5000) == 413
        for mime in ("text/html", "image/svg+xml", "application/javascript", "", "text/html, image/png", "x" * 5000):
            assert await put(b"x", mime) == 415
        assert "image/svg+xml" not in MEDIA_TYPES


async def test_a_request_that_announces_nonsense_is_answered() -> None:
    async with house() as h:
        admin = {"authorization": f"Bearer {h.token('admin')}"}
        for size in ("9" * 5000, "10000000000"):
            for path in ("/api/rooms", "/webhooks/web"):
                answer = await h.http.post(path, content=b"{}", headers={**admin, "content-length": size})
                assert answer.status_code in (403, 413), answer.text


async def test_a_bomb_in_a_message_costs_only_the_attachment() -> None:
    """The message is kept, with its address; nothing of the file is."""

    class Channel(TransportChannel):
        async def fetch(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
            limited = FetchPolicy(max_bytes=LIMIT)
            net = Net(of(nested(1)), content_encoding="gzip")
            return await fetch(attachment.url, policy=limited, resolver=anywhere, transport=net)

    kit = RoomKit(clock=VirtualClock())
    kit.register_channel(Channel("mms", "sms"))
    async with kit:
        message = InboundMessage(
            channel_id="mms",
            sender_id="+1555",
            content=MediaContent(url="https://evil.example/x.png", mime_type="image/png", caption="look"),
            attachments=(Attachment(url="https://evil.example/x.png", mime_type="image/png"),),
        )
        result = await kit.process_inbound(message)
        assert result.event is not None
        assert result.event.text == "look"
        assert result.event.metadata["not_fetched"] == 1
        assert kit.stats()["attachments_not_fetched"] == 1
