"""How far a reply has been heard is told as signs of the call: word by word, and what an interruption left."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.channels.test_voice import LONG, Phone


def signs(phone: Phone, *kinds: str) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    phone.channel.on_trace(lambda line: seen.append(line) if line.get("kind") in kinds else None)
    return seen


async def test_words_are_told_as_they_are_heard() -> None:
    async with Phone() as phone:
        phone.line.speaks(phone.session, "tell me a story", 200, 1000)
        told = signs(phone, "voice_spoken", "voice_cut")
        await phone.answer()
        await asyncio.sleep(15)
        assert "".join(line["text"] for line in told) == LONG
        assert len(told) > 10
        (event,) = {line["event"] for line in told}
        assert event == (await phone.kit.events(phone.room))[-1].id
        assert [line["over"] for line in told].count(True) == 1
        assert told[-1]["over"]


async def test_an_interruption_leaves_what_was_heard() -> None:
    async with Phone() as phone:
        phone.line.speaks(phone.session, "tell me a story", 200, 1000)
        told = signs(phone, "voice_spoken", "voice_cut")
        await phone.answer()
        await asyncio.sleep(4)
        await phone.channel.interrupt(phone.session, reason="enough")
        await asyncio.sleep(1)
        heard = "".join(line.get("text", "") for line in told)
        assert heard
        assert heard != LONG
        assert LONG.startswith(heard)
        assert [line["kind"] for line in told[-2:]] == ["voice_spoken", "voice_cut"]
        assert (told[-2]["over"], told[-1]["reason"]) == (True, "enough")
        events = await phone.kit.events(phone.room)
        assert heard in str([event.content for event in events])
