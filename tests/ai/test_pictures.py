"""Stored pictures reach a model that sees: inlined, within limits, and only those of its own room."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest

from roomkit import AIChannel, InboundMessage
from roomkit.ai.pictures import MAX_BYTES, MAX_PICTURES
from roomkit.models.ai import AIProfile, ImagePart
from roomkit.models.content import CompositeContent, Content, MediaContent, TextContent
from roomkit.testing import FakeChannel
from roomkit.testing.ai import ScriptedAI
from tests.core.rooms import kit_with

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def seen(
    data: bytes,
    *,
    room: str | None = "r",
    mime: str = "image/png",
    vision: bool = True,
    count: int = 1,
    composite: bool = False,
) -> list[str]:
    """The URLs of the pictures in the model's last prompt, after `count` messages with this file."""
    ai = ScriptedAI("nice", repeat=True, profile=AIProfile(vision=vision))
    async with kit_with(FakeChannel(), AIChannel("ai", ai)) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        info = await kit.blobs.put("default", once(data), mime_type=mime, room_id=room)
        content: Content = MediaContent(url=f"blob:{info.id}", mime_type="image/png", filename="a.png")
        if composite:
            content = CompositeContent(parts=(TextContent(text="look"), content))
        for _ in range(count):
            message = InboundMessage(channel_id="sms", sender_id="+4411", content=content)
            await (await kit.process_inbound(message, room_id="r")).settled()
    found = [part.url for m in ai.requests[-1].messages for part in m.parts if isinstance(part, ImagePart)]
    told = [m.text for m in ai.requests[-1].messages if m.role == "user"]
    assert sum("[sent a file: a.png]" in text for text in told) == count - len(found)
    return found


@pytest.mark.parametrize("composite", [False, True])
async def test_an_uploaded_picture_goes_along(composite: bool) -> None:
    assert await seen(PNG, composite=composite) == ["data:image/png;base64," + base64.b64encode(PNG).decode()]


async def test_the_type_is_what_the_bytes_say() -> None:
    assert (await seen(b"\xff\xd8\xff" + b"0" * 20, mime="image/jpeg"))[0].startswith("data:image/jpeg;")
    assert (await seen(b"RIFF0000WEBP" + b"0" * 20, mime="image/webp"))[0].startswith("data:image/webp;")
    assert await seen(b"\0\0\0\x18ftypheic" + b"0" * 20, mime="image/heic") == []


async def test_what_is_too_large_or_too_much_is_only_named() -> None:
    assert await seen(PNG + b"0" * MAX_BYTES) == []
    assert len(await seen(PNG, count=MAX_PICTURES + 2)) == MAX_PICTURES


async def test_files_of_another_room_are_not_there() -> None:
    assert await seen(PNG, room="other") == []
    assert len(await seen(PNG, room=None)) == 1


async def test_a_model_that_cannot_see_is_told_of_the_file() -> None:
    assert await seen(PNG, vision=False) == []
