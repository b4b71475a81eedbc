"""What each channel was sent of an event, in words and parts."""

from __future__ import annotations

import pytest

from roomkit.channels import EmailChannel, SMSChannel
from roomkit.errors import UsageError
from roomkit.models.content import Button, RichContent
from roomkit.testing.messages import FakeMessages
from tests.core.rooms import kit_with, say


async def test_each_channel_tells_what_it_got() -> None:
    sms, mail = FakeMessages("carrier"), FakeMessages("post")
    channels = SMSChannel("sms", provider=sms, from_number="+15550100"), EmailChannel("mail", provider=mail)
    async with kit_with(*channels) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "sms", metadata={"phone_number": "+15550123", "address": "+15550123"})
        await kit.attach_channel("r", "mail", metadata={"email_address": "a@b.c", "address": "a@b.c"})
        long = " ".join(["A sentence that is one of many."] * 80)
        for content in (RichContent(text="**Which one?**", buttons=(Button(label="Red"), Button(label="Blue"))), long):
            sent = await kit.send("r", content)
            await sent.settled()
            assert sent.event is not None
            told = {one["channel_id"]: one for one in await kit.shown("r", sent.event.id)}
            assert set(told) == {"sms", "mail"}
            assert [part["text"] for part in told["sms"]["parts"]] == [
                m.text for m in sms.sent[-told["sms"]["count"] :]
            ]
            if content is long:
                assert told["sms"]["count"] > 1
                assert (told["mail"]["same"], told["sms"]["same"]) == (True, False)
            else:
                assert "- Red" in told["sms"]["parts"][0]["text"]
                assert told["sms"]["parts"][0]["type"] == "text"
                assert (told["sms"]["count"], told["sms"]["same"]) == (1, False)


async def test_an_event_of_elsewhere_is_refused_and_one_that_went_nowhere_is_empty() -> None:
    async with kit_with(SMSChannel("sms", provider=FakeMessages("carrier"))) as kit:
        one = await say(kit, "hi")
        other = await say(kit, "hi", who="+4412")
        assert one.event is not None
        assert other.event is not None
        assert await kit.shown(one.room_id or "", one.event.id) == []
        with pytest.raises(UsageError, match="no event"):
            await kit.shown(one.room_id or "", other.event.id)
