"""Link: one call's way to its model, over as many connections as it takes.

A connection that breaks is made again, and one that is about to end is replaced before, in a quiet moment if there is
one. The new one resumes the old where the provider can, else it is seeded with what the room remembers; never both.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from roomkit.errors import ProviderError, ProviderTimeout, SessionEnded
from roomkit.models.realtime import (
    AppendAudio,
    Complaint,
    GoingAway,
    LimitsTold,
    PastTurn,
    RealtimeCommand,
    RealtimeConfig,
    RealtimeEvent,
    Reconfigure,
    ReplyBegan,
    ReplyOver,
    ResumeHandle,
    SessionReady,
    UserSpeech,
)
from roomkit.ports.realtime import RealtimeConnection, RealtimeVoiceProvider
from roomkit.runtime import BufferClosed, DropOldestBuffer, Scope, bounded, monotonic

log = logging.getLogger(__name__)
STEADY_S = 30.0
"""A connection that lasted so long was worth having, even if nobody spoke."""
KEPT_FRAMES = 250
"""Five seconds of the caller's voice outlive a broken connection."""
How = Literal["resumed", "seeded"]


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Times in seconds. A connection is replaced `margin_s` before the provider's limit (a tenth of it where it is
    short). `attempts` in a row that bring nothing end the call."""

    connect_s: float = 10.0
    margin_s: float = 60.0
    attempts: int = 5
    delays_s: tuple[float, ...] = field(default=(0.0, 0.25, 1.0, 2.0, 4.0))


class LinkHost(Protocol):
    """What a link needs of its call."""

    def take(self, event: RealtimeEvent) -> None: ...

    def moved(self, how: How, reason: str) -> None:
        """A new connection is there; whatever the old one was about is over."""
        ...

    def lost(self, error: Exception) -> None:
        """No connection can be made any more."""
        ...

    @property
    def quiet(self) -> bool:
        """Nobody speaks, and nothing is awaited: a good moment."""
        ...

    async def past(self) -> tuple[PastTurn, ...]:
        """What the room remembers, for the seed."""
        ...


class Link:
    """`config` is what the session is to be now; `memory` counts how often the model had to be seeded anew."""

    def __init__(
        self,
        provider: RealtimeVoiceProvider,
        config: RealtimeConfig,
        scope: Scope,
        host: LinkHost,
        options: LinkOptions | None = None,
    ) -> None:
        self.config = config
        self.memory = 0
        self._provider = provider
        self._scope = scope
        self._host = host
        self._options = options or LinkOptions()
        self._connection: RealtimeConnection | None = None
        self._handle: str | None = None
        self._heard: DropOldestBuffer[AppendAudio | UserSpeech] = DropOldestBuffer(KEPT_FRAMES)
        self._up = asyncio.Event()
        self._moving = asyncio.Lock()
        self._fruitless = 0
        self._since = 0.0
        self._over = False

    async def open(self) -> None:
        """The first connection, seeded with the room's past. Raises `ProviderError` or `ConfigError`, `SessionEnded`
        when the call was over before it was there."""
        async with self._moving:
            connection = await self._connect(self._config_seeded(await self._host.past()), None)
            if self._over:
                await connection.aclose()
                raise SessionEnded("the call is over")
            self._take_up(connection)

    def start(self) -> None:
        self._scope.spawn(self._read(), name="listen to the model")
        self._scope.spawn(self._speak(), name="let the model hear")

    def hear(self, piece: AppendAudio | UserSpeech) -> None:
        """The caller's voice; never waits."""
        self._heard.push(piece)

    @property
    def dropped(self) -> int:
        return self._heard.stats.dropped

    async def tell(self, command: RealtimeCommand, *, memory: int | None = None) -> bool:
        """Sends a command, waiting for a connection. With `memory` it is only for a model that remembers what happened
        then: False when that is over, or the link is."""
        while not self._over:
            await self._up.wait()
            connection = self._connection
            if connection is None or memory not in (None, self.memory):
                return False
            try:
                await connection.send(command)
            except ProviderError as error:
                log.info("a command did not reach the model: %s", error)
                await self._broken(connection)
            else:
                return True
        return False

    async def reconfigure(self, config: RealtimeConfig, changed: frozenset[str]) -> None:
        """Makes the session as `config` says: within the connection where the provider can, else over a new one. Raises
        `ProviderError`, then everything is as it was."""
        if not changed <= self._provider.traits.reconfigures:
            await self.move("reconfigured", config, changed)
            return
        async with self._moving:  # else it could be told to a connection that is just being left
            self.config = _changed(self.config, config, changed)
            connection = self._connection
            if connection is None or not self._up.is_set():
                return  # the next one is made like this
            try:
                await connection.send(Reconfigure(self.config))
            except ProviderError as error:
                log.info("a command did not reach the model: %s", error)
                await self._broken(connection)

    async def move(
        self, reason: str, config: RealtimeConfig | None = None, changed: frozenset[str] = frozenset()
    ) -> None:
        """Goes over to a new connection, `changed` as `config` says; the old one serves until it is there. Raises
        `ProviderError`, `SessionEnded`."""
        async with self._moving:
            old, before = self._connection, self.config
            if self._over:
                raise SessionEnded("the call is over")
            if config is not None:
                self.config = _changed(before, config, changed)
            try:
                new, how = await self._again()
            except BaseException:
                self.config = before
                raise
            if not await self._swap(new, how, reason):
                raise SessionEnded("the call is over")
        if old is not None:
            await old.aclose()

    async def aclose(self) -> None:
        """Ends the session. Idempotent."""
        self._over = True
        self._up.set()
        self._heard.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    # -- connections ------------------------------------------------------------------------------------------------

    async def _connect(self, config: RealtimeConfig, resume: str | None) -> RealtimeConnection:
        try:
            return await bounded(
                self._provider.connect(config, resume=resume), self._options.connect_s, "connecting to the model"
            )
        except TimeoutError as error:
            raise ProviderTimeout(self._provider.name, "no session in time") from error

    async def _again(self) -> tuple[RealtimeConnection, How]:
        if self._handle is not None and self._provider.traits.resumes:
            try:
                return await self._connect(self._config_seeded(()), self._handle), "resumed"
            except ProviderError as error:
                if error.retryable:
                    raise
                log.info("the session cannot be resumed, it is seeded anew: %s", error)
                self._handle = None
        return await self._connect(self._config_seeded(await self._host.past()), None), "seeded"

    def _config_seeded(self, past: tuple[PastTurn, ...]) -> RealtimeConfig:
        return replace(self.config, history=past)

    async def _swap(self, new: RealtimeConnection, how: How, reason: str) -> bool:
        """False when the call has ended meanwhile: then nobody needs the connection."""
        if self._over:
            await new.aclose()
            return False
        if how == "seeded":
            self.memory += 1
            self._handle = None
        self._take_up(new)
        self._host.moved(how, reason)
        return True

    def _take_up(self, connection: RealtimeConnection) -> None:
        self._connection, self._since = connection, monotonic()
        self._up.set()
        limit = self._provider.traits.session_limit_s
        if limit is not None:
            margin = min(self._options.margin_s, limit / 10)
            self._scope.spawn(self._roll(connection, limit - margin, margin / 2), name="replace the connection")

    async def _roll(self, connection: RealtimeConnection, after: float, within: float) -> None:
        """Replaces a connection that is about to end: `after` seconds from now, or up to `within` later, once it is
        quiet."""
        await asyncio.sleep(after)
        until = monotonic() + within
        while connection is self._connection and not self._host.quiet and monotonic() < until:  # noqa: ASYNC110 - quiet is no event
            await asyncio.sleep(0.1)
        if connection is self._connection and not self._over:
            try:
                await self.move("session_limit")
            except (ProviderError, SessionEnded) as error:
                log.warning("the connection could not be replaced before its end: %s", error)

    async def _broken(self, connection: RealtimeConnection) -> None:
        """Whoever finds out; the reader makes a new one."""
        if connection is self._connection:
            self._up.clear()
        await connection.aclose()

    # -- both directions --------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while not self._over:
            connection = self._connection
            assert connection is not None, "the reader begins after the first connection"
            error: ProviderError | None = None
            try:
                async for event in connection:
                    if connection is not self._connection:
                        break
                    self._note(connection, event)
            except ProviderError as told:
                error = told
            await connection.aclose()
            if not self._over and connection is self._connection:
                await self._restore(connection, error)

    def _note(self, connection: RealtimeConnection, event: RealtimeEvent) -> None:
        match event:
            case ResumeHandle(handle=handle):
                self._handle = handle or self._handle
            case GoingAway(seconds=seconds):
                self._scope.spawn(self._roll(connection, 0, seconds * 0.6), name="replace the connection")
            case SessionReady() | Complaint() | LimitsTold() | ReplyBegan() | ReplyOver(status="failed" | "incomplete"):
                self._host.take(event)  # a model that dies of every reply brings nothing
            case _:
                self._fruitless = 0
                self._host.take(event)

    async def _restore(self, connection: RealtimeConnection, error: ProviderError | None) -> None:
        """A connection has ended by itself."""
        async with self._moving:
            if connection is not self._connection or self._over:
                return
            self._up.clear()
            reason = str(error) if error is not None else "the provider closed the connection"
            log.info("the model is gone: %s", reason)
            if monotonic() - self._since >= STEADY_S:
                self._fruitless = 0
            while error is None or error.retryable:
                delays = self._options.delays_s
                if self._fruitless >= self._options.attempts:
                    break
                await asyncio.sleep(delays[min(self._fruitless, len(delays) - 1)])
                self._fruitless += 1
                if self._over:
                    return
                try:
                    new, how = await self._again()
                except ProviderError as again:
                    error = again
                    continue
                await self._swap(new, how, reason)
                return
            self._over = True
            self._connection = None
            self._up.set()
            self._host.lost(error or SessionEnded("the provider closes every connection at once"))

    async def _speak(self) -> None:
        while True:
            try:
                piece = await self._heard.get()
            except BufferClosed:
                return
            if not await self.tell(piece):
                return


def _changed(config: RealtimeConfig, to: RealtimeConfig, names: frozenset[str]) -> RealtimeConfig:
    """Only what is meant to change does: something else may have changed meanwhile."""
    return replace(config, **{name: getattr(to, name) for name in names})
