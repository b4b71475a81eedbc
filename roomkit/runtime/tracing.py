"""Spans: what happened inside what, and for how long. Nothing is recorded, and next to nothing paid, until a tracer is
given. Spans carry ids, names, numbers and kinds of errors, never what people or models said.

The parent of a span is the one current where it is begun. Work that waits in a line (a delivery, a turn) is begun by
whoever reaches it, so it takes `current()` with it and names it as `parent`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Literal, Protocol, Self, runtime_checkable

from roomkit.runtime.span_names import CANCELLED, CHANNEL, ERROR_TYPE, ROOM, TENANT

Attribute = str | int | float | bool | tuple[str, ...]
Kind = Literal["internal", "client", "consumer", "producer"]
Place = tuple[str, str, str]
"""Tenant, room and channel; "" where there is none."""


@runtime_checkable
class Tracer(Protocol):
    """Where spans go. A native span is whatever `start` returns; it is handed back and never looked into."""

    def start(self, name: str, kind: Kind, attributes: Mapping[str, Attribute], parent: Any, ambient: bool) -> Any:
        """Begins a span below the native `parent`. Without one, `ambient` says whether it may continue the trace the
        host is in, or begins one of its own."""
        ...

    def annotate(self, native: Any, name: str, value: Attribute) -> None: ...

    def end(self, native: Any, error: str | None) -> None:
        """`error` is the kind of what went wrong, such as "RateLimited"."""
        ...

    def activate(self, native: Any) -> AbstractContextManager[Any]:
        """Within it, spans of other libraries become children of this one."""
        ...


class Span:
    """One thing that happens. As a context manager it is current inside, notes what is raised, and ends on the way
    out; `end` ends one that has no such block. False in a condition when nothing is recorded."""

    __slots__ = ("_active", "_ended", "_error", "_native", "_place", "_token", "_tracer")

    def __init__(self, tracer: Tracer, native: Any, place: Place) -> None:
        self._tracer = tracer
        self._native = native
        self._place = place
        self._error: str | None = None
        self._ended = False
        self._token: Token[Span] | None = None
        self._active: AbstractContextManager[Any] | None = None

    def __bool__(self) -> bool:
        return True

    def child(self, name: str, kind: Kind = "internal", attributes: Mapping[str, Attribute] | None = None) -> Span:
        """Begins a span below this one, in the same room and channel."""
        given = {**_where(self._place), **(attributes or {})}
        return Span(self._tracer, self._tracer.start(name, kind, given, self._native, False), self._place)

    def set(self, name: str, value: Attribute | None) -> None:
        """Notes a fact; None is none."""
        if value is not None and not self._ended:
            self._tracer.annotate(self._native, name, value)

    def fail(self, error: BaseException | str) -> None:
        """Notes that it went wrong: the kind of error only, for its text may quote anything."""
        self._error = error if isinstance(error, str) else type(error).__name__
        self.set(ERROR_TYPE, self._error)

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._tracer.end(self._native, self._error)

    @contextmanager
    def current(self) -> Generator[Self]:
        """Makes the span current, ours and the tracer's, without ending it. No `yield` of a generator inside: its
        caller would go on under this span."""
        token = _current.set(self)
        try:
            with self._tracer.activate(self._native):
                yield self
        finally:
            _current.reset(token)

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        self._active = self._tracer.activate(self._native)
        self._active.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active is not None:
            self._active.__exit__(None, None, None)
        if self._token is not None:
            _current.reset(self._token)
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.set(CANCELLED, True)
        elif error is not None:
            self.fail(error)
        self.end()


class _Off(Span):
    """What there is when nothing is traced. One object, no state."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None, None, ("", "", ""))  # pyright: ignore[reportArgumentType]

    def __bool__(self) -> bool:
        return False

    def child(self, name: str, kind: Kind = "internal", attributes: Mapping[str, Attribute] | None = None) -> Span:
        return self

    def set(self, name: str, value: Attribute | None) -> None:
        pass

    def fail(self, error: BaseException | str) -> None:
        pass

    def end(self) -> None:
        pass

    @contextmanager
    def current(self) -> Generator[Self]:
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


OFF: Span = _Off()
_current: ContextVar[Span] = ContextVar("roomkit_span", default=OFF)


def current() -> Span:
    """The span the running code is part of; `OFF` where nothing is traced."""
    return _current.get()


class Tracing:
    """The tracer of one kit, or none."""

    __slots__ = ("_tracer", "on")

    def __init__(self, tracer: Tracer | None = None) -> None:
        self.use(tracer)

    def use(self, tracer: Tracer | None) -> None:
        """Traces to `tracer` from now on; None stops it."""
        self._tracer = tracer
        self.on = tracer is not None

    def span(
        self,
        name: str,
        tenant: str,
        room_id: str | None,
        channel_id: str,
        parent: Span | None = None,
        kind: Kind = "internal",
    ) -> Span:
        """Begins a span below `parent` (default: the current one, then the host's own trace)."""
        tracer = self._tracer
        if tracer is None:
            return OFF
        place = (tenant, room_id or "", channel_id)
        above = _current.get() if parent is None else parent
        native = tracer.start(name, kind, _where(place), above._native if above else None, parent is None)  # pyright: ignore[reportPrivateUsage]
        return Span(tracer, native, place)


def _where(place: Place) -> dict[str, Attribute]:
    return {name: value for name, value in zip((TENANT, ROOM, CHANNEL), place, strict=True) if value}


__all__ = ["OFF", "Attribute", "Kind", "Span", "Tracer", "Tracing", "current"]
