"""SourceHandle: keeps a persistent inbound connection alive, feeds its messages into the kit and reports its health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from roomkit.errors import Overloaded, ProviderError, StoreUnavailable, UsageError
from roomkit.models.delivery import DeliveryStatus, InboundMessage
from roomkit.models.hooks import SourceChanged, Trouble
from roomkit.net.redaction import redact
from roomkit.net.retry import RetryPolicy
from roomkit.ports.source import Source, SourceDone
from roomkit.runtime import Scope, TaskFailure

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
BACK_OFF = RetryPolicy(base_delay=5.0, max_delay=300.0, jitter=0.2)
MAX_EMITS = 10
RETRY_STORE_S = 0.5


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """How a source is doing. `since` is when it was last connected or lost; `restarts` counts attempts after the
    first; `running` is false once it is over, for good or by `aclose`."""

    connected: bool = False
    restarts: int = 0
    last_error: str | None = None
    since: datetime | None = None
    running: bool = False
    messages: int = 0


class SourceHandle:
    """One attached source. It is restarted without end after 5 s, then ever later, up to 300 s; a connection that came
    up starts the waiting over. With `auto_restart=False` it runs once. A source that raises `UsageError` or
    `SourceDone` is not started again.

    At most 10 of its messages are on their way into rooms at a time: `emit` waits for the commit, and through an
    overload or a store that does not write, so the source stops reading meanwhile.
    """

    def __init__(
        self,
        engine: Engine,
        process_inbound: Callable[[InboundMessage | DeliveryStatus], Awaitable[Any]],
        source: Source,
        *,
        auto_restart: bool = True,
    ) -> None:
        self.source = source
        self.health = SourceHealth()
        self._engine = engine
        self._process = process_inbound
        self._auto_restart = auto_restart
        self._emits = asyncio.Semaphore(MAX_EMITS)
        self._scope = Scope(f"source {source.name}", on_failure=self._died)
        self._failures = 0
        self._wait = 0.0

    def start(self) -> None:
        """Connects in the background. Once per handle."""
        self._set(running=True, since=self._engine.now())
        self._scope.spawn(self._run(), name=f"source {self.source.name}")

    async def aclose(self) -> None:
        """Disconnects and stays so; messages being committed are finished by the kit. Idempotent."""
        await self._scope.aclose()
        self._lost("closed")
        self._set(running=False)

    async def _run(self) -> None:
        try:
            while await self._connect():
                await asyncio.sleep(self._wait)
                self._engine.count("source_restarts")
                self._set(restarts=self.health.restarts + 1)
        finally:
            self._set(running=False)

    async def _connect(self) -> bool:
        """One life of the connection; True when there should be another one, after `_wait` seconds."""
        retry_after: float | None = None
        again = self._auto_restart
        try:
            await self.source.run(self._emit, self._ready)
            told = "ended"
        except SourceDone as done:
            again, told = False, str(done) or "done"
        except UsageError as error:
            again, told = False, str(error)
            log.warning("source %s cannot run and is not started again: %s", self.source.name, error)
        except Exception as error:  # noqa: BLE001 - the source's own boundary: it is restarted whatever happened
            retry_after = error.retry_after if isinstance(error, ProviderError) else None
            told = redact(f"{type(error).__name__}: {error}")
            log.warning("source %s has failed: %s", self.source.name, told)
        self._lost(told)
        self._wait = BACK_OFF.delay(self._failures, retry_after=retry_after, rng=self._engine.random)
        self._failures += 1
        return again

    def _ready(self) -> None:
        self._failures = 0
        if not self.health.connected:
            self._set(connected=True, last_error=None, since=self._engine.now())
            self._tell(connected=True, detail="")

    def _lost(self, why: str) -> None:
        was = self.health.connected
        self._set(connected=False, last_error=self.health.last_error if why == "closed" else why)
        if was:
            self._set(since=self._engine.now())
            self._tell(connected=False, detail=why)

    async def _emit(self, message: InboundMessage | DeliveryStatus) -> bool:
        async with self._emits:
            while True:
                try:
                    result = await self._process(message)
                except Overloaded as error:
                    await asyncio.sleep(error.retry_after)
                except StoreUnavailable:
                    await asyncio.sleep(RETRY_STORE_S)
                except Exception as error:  # one bad message must not cost the connection
                    log.exception("a message of source %s was not taken", self.source.name)
                    self._engine.count("source_errors")
                    self._engine.hooks.tell(Trouble("default", "", self._scope.name, error))
                    return False
                else:
                    self._set(messages=self.health.messages + 1)
                    return getattr(result, "reason", "") != "process_timeout"

    def _tell(self, *, connected: bool, detail: str) -> None:
        self._engine.hooks.tell(SourceChanged("default", "", self.source.name, connected, detail))

    def _set(self, **changes: Any) -> None:
        self.health = replace(self.health, **changes)

    def _died(self, failure: TaskFailure) -> None:
        self._set(connected=False, running=False, last_error=redact(str(failure.error)))
