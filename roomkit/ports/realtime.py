"""RealtimeVoiceProvider: a model that hears and speaks by itself. Its connection takes commands and tells events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from roomkit.models.realtime import RealtimeCommand, RealtimeConfig, RealtimeEvent


@dataclass(frozen=True, slots=True)
class RealtimeTraits:
    """What a provider can do; data, asked by the channel instead of the vendor's name. Rates in Hz; no `input_rates`
    means any. `reconfigures` names the fields of a config that change within a session; for others the call moves to a
    new connection. `session_limit_s` is how long a connection may last. `marks_speech` tells the beginning of speech;
    `writes_down` what the caller says."""

    input_rates: tuple[int, ...] = ()
    output_rates: tuple[int, ...] = ()
    marks_speech: bool = True
    writes_down: bool = True
    resumes: bool = False
    reconfigures: frozenset[str] = frozenset()
    session_limit_s: float | None = None


class RealtimeConnection(Protocol):
    """One live session with the model; one reader."""

    async def send(self, command: RealtimeCommand) -> None:
        """Returns when it is on its way. Raises `ProviderError` when the connection is gone. What the vendor has no
        word for is left out."""
        ...

    def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        """Everything that is told, in order. Ends after `aclose`; raises `ProviderError` when it ends otherwise."""
        ...

    async def aclose(self) -> None:
        """Ends the session, from any task. Idempotent."""
        ...


class RealtimeVoiceProvider(Protocol):
    """A speech-to-speech vendor. One object serves many calls at once.

    `check_realtime` in roomkit.testing proves an implementation."""

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> RealtimeTraits: ...

    async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> RealtimeConnection:
        """A session that is ready to hear: `SessionReady` is the first thing it tells. With `resume` (a handle of an
        earlier connection) it remembers, and `config.history` is left out; else it is seeded with the history. Raises
        `ProviderError`, `ConfigError`; a cancelled call leaves nothing open."""
        ...

    async def aclose(self) -> None: ...
