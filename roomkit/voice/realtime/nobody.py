"""NoModel: the line of a person who joins speech-to-speech calls; nobody answers on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from roomkit.models.realtime import RealtimeCommand, RealtimeConfig, RealtimeEvent
from roomkit.ports.realtime import RealtimeTraits


class NoModel:
    """A `RealtimeVoiceProvider` that hears nothing and says nothing."""

    name = "nobody"
    traits = RealtimeTraits(
        writes_down=False,
        reconfigures=frozenset({"system_prompt", "voice", "tools", "temperature", "extra", "responds"}),
    )

    async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> Silence:
        return Silence()

    async def aclose(self) -> None: ...


class Silence:
    def __init__(self) -> None:
        self._over = asyncio.Event()

    async def send(self, command: RealtimeCommand) -> None: ...

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        await self._over.wait()
        for event in tuple[RealtimeEvent]():
            yield event

    async def aclose(self) -> None:
        self._over.set()
