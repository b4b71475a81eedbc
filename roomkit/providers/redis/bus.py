"""RedisBus: signs of life between processes by Redis' PUBLISH, many in one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from roomkit.errors import ConfigError, MissingExtra
from roomkit.models.stream import Ephemeral
from roomkit.providers.fanout import Fanout
from roomkit.runtime import Scope, Wakeup

_LARGEST = 256_000
"""Bytes in one message."""
EVERY_S = 0.005
"""The pause between two messages; what is said meanwhile goes into the next one."""


class RedisBus:
    """An `EphemeralBus` on a Redis server: `RoomKit("postgresql://...", bus=RedisBus("redis://cache.example.com"))`. It
    connects when it is first used, inside a running loop, and again after the connection broke; what was said meanwhile
    is lost (at most once, R12). Nothing is kept in Redis."""

    def __init__(self, url: str, *, channel: str = "roomkit", retry_s: float = 0.5) -> None:
        """Processes with the same server and `channel` hear each other. Raises `ConfigError` for what is no such URL,
        `MissingExtra` without the library."""
        parts = urlsplit(url)
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ConfigError("that is no Redis URL; write redis://host:6379/0, or rediss:// for TLS")
        try:
            self._redis: Any = import_module("redis.asyncio")
            self._failures: tuple[type[Exception], ...] = (import_module("redis").RedisError, OSError)
        except ModuleNotFoundError as error:
            raise MissingExtra("the Redis bus", "redis", "redis") from error
        self._url = url
        self._shown = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._channel = channel
        self._retry_s = retry_s
        self._fanout = Fanout(_LARGEST, self._ready)
        self._scope = Scope("redis-bus")
        self._wakeup = Wakeup()
        self._running = False

    @property
    def counters(self) -> dict[str, float]:
        """Signs sent, heard, dropped (too many), oversize and unreadable."""
        return dict(self._fanout.counters)

    def publish(self, tenant: str, message: Ephemeral) -> None:
        self._fanout.publish(tenant, message)

    def subscribe(self, tenant: str, room_id: str, deliver: Callable[[Ephemeral], None]) -> Callable[[], None]:
        self._start()
        return self._fanout.subscribe(tenant, room_id, deliver)

    def changed(self, tenant: str, room_id: str) -> None:
        self._fanout.changed(tenant, room_id)

    def watch(self, look: Callable[[str, str], None]) -> Callable[[], None]:
        self._start()
        return self._fanout.watch(look)

    async def aclose(self) -> None:
        """Forgets all listeners and disconnects. May be called again."""
        self._fanout.close()
        await self._scope.aclose()

    def __repr__(self) -> str:
        return f"RedisBus({self._shown!r}, channel={self._channel!r})"

    def _ready(self) -> None:
        self._start()
        self._wakeup.set()

    def _start(self) -> None:
        if not self._running and not self._scope.closed:
            self._running = True
            self._scope.spawn(self._serve(), name="bus")

    async def _serve(self) -> None:
        while True:
            client = self._redis.from_url(
                self._url, decode_responses=True, socket_connect_timeout=5, health_check_interval=10
            )
            try:
                async with Scope("redis-bus connection") as scope:
                    # Both may fail of the same loss, and each of them is heard.
                    await asyncio.gather(
                        scope.spawn(self._hear(client), name="hear", awaited=True),
                        scope.spawn(self._send(client), name="send", awaited=True),
                    )
            except self._failures:
                pass  # Nobody waits for what is on this bus.
            finally:
                await client.aclose()
            await asyncio.sleep(self._retry_s)

    async def _hear(self, client: Any) -> None:
        async with client.pubsub() as subscription:
            await subscription.subscribe(self._channel)
            async for message in subscription.listen():
                if message["type"] == "subscribe":
                    self._fanout.missed()
                elif message["type"] == "message":
                    self._fanout.hear(message["data"])
        raise ConnectionError("the subscription has ended")

    async def _send(self, client: Any) -> None:
        while True:
            for payload in self._fanout.payloads():
                await client.publish(self._channel, payload)
            await asyncio.sleep(EVERY_S)
            await self._wakeup.wait()
