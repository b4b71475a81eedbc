"""A server whose room "xss" holds every script of the corpus in every place that a page shows."""

from __future__ import annotations

import asyncio
import sys

from roomkit import AIChannel, RoomKit, WebSocketChannel
from roomkit.models.content import (
    AudioContent,
    Button,
    Card,
    CompositeContent,
    LocationContent,
    MediaContent,
    RichContent,
    TextContent,
    VideoContent,
)
from roomkit.models.room import Role
from roomkit.testing.ai import ScriptedAI
from tests.e2e.app import serve
from tests.security.corpus import SCRIPTS

ROOM = "xss"


async def fill(kit: RoomKit) -> None:
    await kit.create_room(ROOM, channels=["web", "assistant"], metadata={"title": SCRIPTS[1]})
    for n, script in enumerate(SCRIPTS):
        url = script if "script:" in script else "javascript:window.pwned=1"
        await kit.add_member(ROOM, f"p{n}", display_name=script[:80], role=Role.MEMBER)
        rich = RichContent(
            text=script,
            format="html" if n % 2 else "markdown",
            buttons=(Button(label=script[:60], url=url),),
            cards=(Card(title=script, text=script, image_url=url),),
            quick_replies=(script[:60],),
        )
        files = CompositeContent(
            parts=(
                MediaContent(url=url, mime_type="image/png", filename=script, caption=script),
                MediaContent(url=url, mime_type="text/html", filename=f"{script}.html"),
                AudioContent(url=url, transcript=script),
                VideoContent(url=url, caption=script, thumbnail_url=url),
                LocationContent(latitude=1, longitude=2, label=script, address=script),
            )
        )
        for content in (TextContent(text=script), rich, files):
            await kit.send(ROOM, content, channel_id="assistant")
        await kit.send(ROOM, script, by=f"p{n}")
        await kit.note(ROOM, script, "sam")
    await kit.draft(ROOM, SCRIPTS[0], by="sam")
    await kit.request_human(ROOM, SCRIPTS[1])
    await kit.send(ROOM, "the very last one")


async def main(database: str, port: int, prefix: str) -> None:
    kit = RoomKit(f"sqlite:///{database}", token_secrets=("only for these tests, never anywhere else",))
    kit.register_channel(WebSocketChannel("web"))
    kit.register_channel(AIChannel("assistant", ScriptedAI(repeat=True)))
    async with kit:
        await fill(kit)
        await serve(kit, port, prefix, (ROOM,))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
