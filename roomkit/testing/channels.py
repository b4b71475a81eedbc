"""Fake channels: adapters like any other, with a memory and a temper."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding, ChannelCapabilities
from roomkit.ports.channel import Channel, RoomContext

Temper = Callable[[RoomEvent, int], Any]
"""(event, attempt number from 0) -> DeliveryResult, an exception to raise, seconds to wait, or None for success."""


class FakeChannel(Channel):
    """A transport that keeps what it was given. `delivered` holds (room_id, index, text) of every success, in order.

    `temper` decides about each attempt; `hang()` makes deliveries wait until `resume()`.
    """

    def __init__(
        self,
        channel_id: str = "sms",
        channel_type: str = "sms",
        *,
        capabilities: ChannelCapabilities | None = None,
        temper: Temper | None = None,
        policy: DeliveryPolicy | None = None,
    ) -> None:
        super().__init__(channel_id, channel_type, capabilities=capabilities)
        self.delivery_policy = policy or DeliveryPolicy(idempotent=True)
        self.temper = temper
        self.delivered: list[tuple[str, int, str]] = []
        self.events: list[RoomEvent] = []
        self.attempts: list[tuple[str, int]] = []
        self.bindings: list[ChannelBinding] = []
        self._open = asyncio.Event()
        self._open.set()

    @property
    def texts(self) -> list[str]:
        return [text for _, _, text in self.delivered]

    def hang(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def update_binding(self, binding: ChannelBinding) -> None:
        self.bindings.append(binding)

    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        number = sum(1 for seen in self.attempts if seen == (event.room_id, event.index))
        self.attempts.append((event.room_id, event.index))
        if not self._open.is_set():
            await self._open.wait()
        verdict = self.temper(event, number) if self.temper is not None else None
        if isinstance(verdict, (int, float)):
            await asyncio.sleep(verdict)
            verdict = None
        if isinstance(verdict, BaseException):
            raise verdict
        if isinstance(verdict, DeliveryResult) and not verdict.success:
            return verdict
        self.delivered.append((event.room_id, event.index, event.text))
        self.events.append(event)
        return verdict or DeliveryResult(success=True, provider_message_id=f"fake-{len(self.delivered)}")
