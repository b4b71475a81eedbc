"""Conversation: a bot's test in three lines: say, expect, advance time.

async def test_my_bot():
    async with Conversation(kit) as chat:
        await chat.say("hello")
        chat.expect("You said: hello")
        await chat.advance(3600)
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

from roomkit.models.content import Content, TextContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventType, RoomEvent
from roomkit.testing.channels import FakeChannel

if TYPE_CHECKING:
    from roomkit.core.results import InboundResult
    from roomkit.kit import RoomKit


class Conversation:
    """Somebody talking to a kit over a fake channel, in a room of their own.

    `say` returns when everything that the message set off is done; `replies` are the texts that came back since."""

    def __init__(
        self, kit: RoomKit, *, who: str = "+15550100", channel: FakeChannel | None = None, room_id: str | None = None
    ) -> None:
        self.kit = kit
        self.who = who
        self.channel = channel or FakeChannel("test", "sms")
        self.room_id = room_id
        self.replies: list[str] = []
        self._seen = 0

    async def __aenter__(self) -> Self:
        await self.kit.start()
        if self.channel.channel_id not in self.kit.channels:
            self.kit.register_channel(self.channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kit.aclose()

    async def say(self, text: str | Content, *, external_id: str | None = None) -> InboundResult:
        """Sends a message and waits until it is answered and delivered."""
        content = TextContent(text=text) if isinstance(text, str) else text
        message = InboundMessage(
            channel_id=self.channel.channel_id, sender_id=self.who, content=content, external_id=external_id
        )
        self._seen = len(self.channel.texts)
        result = await self.kit.process_inbound(message, room_id=self.room_id)
        self.room_id = self.room_id or result.room_id
        await result.settled()
        self.replies = self.channel.texts[self._seen :]
        return result

    async def advance(self, seconds: float) -> None:
        """Lets time pass; under the virtual loop it costs none."""
        await asyncio.sleep(seconds)
        self.replies = self.channel.texts[self._seen :]

    def expect(self, *texts: str) -> None:
        """Each text must occur in one of the replies since the last `say`, in this order."""
        left = list(self.replies)
        for wanted in texts:
            while left and wanted not in left[0]:
                left.pop(0)
            if not left:
                raise AssertionError(f"no reply contains {wanted!r}; the replies were {self.replies!r}")
            left.pop(0)

    async def transcript(self) -> list[RoomEvent]:
        """The conversation of the room so far: messages only."""
        events = await self.kit.events(self.room_id or "", limit=1000)
        return [event for event in events if event.type is EventType.MESSAGE]
