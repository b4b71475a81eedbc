"""Told once that an AI answers; "human" reaches a person from every channel, and says honestly how long."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from roomkit import KitOptions
from roomkit.core.courtesy import Courtesy, wants_human
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, kit_with, said, say


@pytest.mark.parametrize("text", ["human", "Human!", " AGENT ", "Mensch.", "¿humano?", "«humain»", "real person"])
def test_a_call_for_a_person_is_the_whole_message(text: str) -> None:
    assert wants_human(text)


@pytest.mark.parametrize("text", ["is this human readable", "my agent said no", "", "humans"])
def test_a_sentence_that_contains_the_word_is_not(text: str) -> None:
    assert not wants_human(text)


async def test_the_ai_is_disclosed_once_before_its_first_words() -> None:
    sms = FakeChannel()
    async with kit_with(sms, Brain(), options=KitOptions(courtesy=Courtesy())) as kit:
        first = await say(kit, "hi")
        await first.settled()
        await (await say(kit, "again")).settled()
        texts = [t for _, t, _ in await said(kit, first.room_id)]
        assert texts[0] == "hi"
        assert "AI assistant" in texts[1]
        assert texts[2:] == ["echo hi", "again", "echo again"]
        assert sms.texts[0] == texts[1]
        assert len(sms.texts) == 3


async def test_human_puts_the_room_into_the_queue_and_says_how_long_it_is() -> None:
    sms, brain = FakeChannel(), Brain()
    async with kit_with(sms, brain, options=KitOptions(courtesy=Courtesy(disclose_ai=False))) as kit:
        await kit.create_room("other")
        await kit.request_human("other", "first in line")
        await asyncio.sleep(5)
        result = await say(kit, "Human!", external_id="m")
        await result.settled()
        await say(kit, "Human!", external_id="m")
        assert brain.seen == []
        assert sms.texts == ["A person has been asked to join. People waiting before you: 1."]
        assert [r.id for r in await kit.attention()] == ["other", result.room_id]
        assert kit.stats()["rooms_waiting"] == 2
        (since,) = [r.waiting_since for r in await kit.attention() if r.id == result.room_id]
        await asyncio.sleep(60)
        await (await say(kit, "human")).settled()
        assert [r.waiting_since for r in await kit.attention() if r.id == result.room_id] == [since], "asking again"
        assert sms.texts[1:] == ["echo human"], "nobody is told twice that somebody comes"


@pytest.mark.parametrize("there", [True, False])
async def test_it_says_so_when_nobody_is_there_in_the_rooms_language(there: bool) -> None:
    def staffed(now: datetime) -> bool:
        return there

    sms = FakeChannel()
    async with kit_with(sms, Brain(), options=KitOptions(courtesy=Courtesy(staffed=staffed))) as kit:
        await kit.create_room("r", channels=["sms", "ai"], language="de")
        await (await say(kit, "Mensch", "r")).settled()
        assert any("niemand da" in text for text in sms.texts) is not there
        assert [room.id for room in await kit.attention()] == ["r"]


async def test_the_words_that_call_a_person_can_be_others() -> None:
    courtesy = Courtesy(human_words=frozenset({"teller"}))
    async with kit_with(FakeChannel(), Brain(), options=KitOptions(courtesy=courtesy)) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await (await say(kit, "human", "r")).settled()
        assert await kit.attention() == []
        await (await say(kit, "Teller!", "r")).settled()
        assert [room.id for room in await kit.attention()] == ["r"]
