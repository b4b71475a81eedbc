"""A language model of one's own behind the AI port: it streams, and the conformance kit checks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from roomkit import AIChannel, Principal, RoomKit
from roomkit.models.ai import AIEvent, AIProfile, AIRequest, Finished, TextChunk, Usage
from roomkit.models.stream import StreamChunk, StreamEnd
from roomkit.testing import check_ai_provider, run


class Parrot:
    """Says what was said, word by word. A real one maps its vendor's stream to the same four events."""

    name = "parrot"
    profile = AIProfile(tools=False)

    async def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
        words = request.messages[-1].text.split()
        for word in words:
            await asyncio.sleep(0.05)
            yield TextChunk(f"{word} ")
        yield Finished("stop", Usage(input_tokens=len(words), output_tokens=len(words)))

    async def aclose(self) -> None:
        pass


async def main() -> None:
    await check_ai_provider(Parrot)
    print("the conformance kit is content")

    kit = RoomKit()
    kit.register_channel(AIChannel("polly", Parrot()), default=True)
    async with kit:
        room = await kit.create_room()
        seen: list[object] = []
        await kit.open_view(room.id, Principal(id="eve", role="supervisor"), seen.append)
        await (await kit.send(room.id, "Pieces of eight", by="ann")).settled()
        print("deltas:", [(item.offset, item.delta) for item in seen if isinstance(item, StreamChunk)])
        (end,) = [item for item in seen if isinstance(item, StreamEnd)]
        print("stored:", end.event.index, end.event.text)


if __name__ == "__main__":
    run(main())
