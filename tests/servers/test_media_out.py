"""A file from our own store goes to a vendor as an expiring public link, never as an internal name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2

from roomkit import ChannelCapabilities, RoomKit
from roomkit.models.content import MediaContent
from roomkit.providers.files import FileBlobStore
from roomkit.testing import FakeChannel, VirtualClock

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001"
    "a5f645400000000049454e44ae426082"
)


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_a_vendor_gets_a_link_it_can_fetch(tmp_path: Path) -> None:
    mms = FakeChannel("mms", capabilities=ChannelCapabilities(media=True, media_types=("image/*",)))
    kit = RoomKit(clock=VirtualClock(), blobs=FileBlobStore(str(tmp_path)))
    kit.register_channel(mms)
    app = kit.asgi(public_url="https://chat.example.com")
    async with kit:
        info = await kit.blobs.put("default", one(PNG), mime_type="image/png", filename="dot.png")
        await kit.create_room("r", channels=["mms"])
        result = await kit.send("r", MediaContent(url=f"blob:{info.id}", mime_type="image/png"))
        await result.settled()
        sent = mms.events[0].content
        assert isinstance(sent, MediaContent)
        assert sent.url.startswith("https://chat.example.com/media/")
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as vendor:
            got = await vendor.get(sent.url)
            forged = await vendor.get(sent.url[:-4] + "AAAA")
        assert (got.status_code, got.content) == (200, PNG)
        assert forged.status_code == 403
        stored = (await kit.events("r", raw=True))[-1].content
        assert isinstance(stored, MediaContent)
        assert stored.url == f"blob:{info.id}"
        await app.aclose()


async def test_a_vendors_link_holds_as_long_as_it_is_told(tmp_path: Path) -> None:
    mms = FakeChannel("mms", capabilities=ChannelCapabilities(media=True, media_types=("image/*",)))
    kit = RoomKit(clock=VirtualClock(), blobs=FileBlobStore(str(tmp_path)))
    kit.register_channel(mms)
    app = kit.asgi(public_url="https://chat.example.com", vendor_link_s=60)
    async with kit, httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as vendor:
        info = await kit.blobs.put("default", one(PNG), mime_type="image/png", filename="dot.png")
        await kit.create_room("r", channels=["mms"])
        await (await kit.send("r", MediaContent(url=f"blob:{info.id}", mime_type="image/png"))).settled()
        sent = mms.events[0].content
        assert isinstance(sent, MediaContent)
        assert (await vendor.get(sent.url)).status_code == 200
        await asyncio.sleep(61)
        assert (await vendor.get(sent.url)).status_code == 403
