"""Speech-to-speech calls at the door of `kit.asgi()`: a page, a token of its room, a model that says things back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from roomkit import RoomKit
from roomkit.channels import RealtimeVoiceChannel
from roomkit.channels.websocket import WebSocketChannel
from roomkit.models.audio import SessionState
from roomkit.providers.webaudio.audio import WebAudioBackend
from roomkit.testing.clock import VirtualClock
from roomkit.testing.voice import sound
from tests.servers.house import SECRET, House, house
from tests.servers.test_voice import calling


@asynccontextmanager
async def parrots(**options: Any) -> AsyncIterator[tuple[House, RealtimeVoiceChannel, str]]:
    kit = RoomKit(clock=VirtualClock(), token_secrets=[SECRET])
    kit.register_channel(WebSocketChannel("web"))
    channel = RealtimeVoiceChannel("voice", provider="parrot", transport=WebAudioBackend())
    kit.register_channel(channel)
    async with house(kit, **options) as home:
        room = await kit.create_room(channels=["web"])
        yield home, channel, room.id


async def test_a_page_speaks_with_a_model_in_its_room() -> None:
    async with parrots() as (home, channel, room):
        told = (await home.http.get("/voice", headers={"authorization": f"Bearer {home.token('guest', room)}"})).json()
        assert told == {"channels": [{"id": "voice", "by": "socket"}]}
        async with calling(home, home.token("guest", room), room) as (_, page):
            await asyncio.sleep(0.5)
            (session,) = channel.sessions(room)
            assert session.participant_id == "guest"
            for pcm in [bytes(640)] * 25 + [sound(320, 16_000)] * 50 + [bytes(640)] * 60:
                await page.say(pcm)
                await asyncio.sleep(0.02)
            await asyncio.sleep(2)
            assert page.heard() > 12_000
            said = [event.text for event in await home.kit.events(room) if event.type == "message"]
            assert len(said) == 2
            assert said[0] == said[1]
        await asyncio.sleep(0.1)
        assert channel.sessions() == []
        assert session.state is SessionState.ENDED
