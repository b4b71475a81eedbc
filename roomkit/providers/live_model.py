"""What the adapters of speech-to-speech vendors have in common: a web socket, a codec, and when to give up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

from roomkit.errors import BadResponse, ProviderError, ProviderTimeout, RemoteProtocolError, Unavailable
from roomkit.models.realtime import Complaint, RealtimeCommand, RealtimeEvent, ReplyOver, SessionReady, UserTextFailed
from roomkit.net.redaction import redact
from roomkit.net.redial import Data, Wire
from roomkit.net.room_client import Disconnected
from roomkit.runtime import bounded, monotonic

ANSWER_S = 20.0
"""A vendor that owes something and says nothing for so long is gone."""
SEND_S = 10.0
_LOOK_S = 5.0


class ModelCodec(Protocol):
    """One session's state machine, without waiting."""

    @property
    def owes(self) -> bool: ...

    def to_send(self) -> list[str]: ...

    def send(self, command: RealtimeCommand) -> None: ...

    def receive(self, data: Data) -> list[RealtimeEvent]: ...


class ModelConnection:
    """A `RealtimeConnection` over a web socket. Raises `ProviderError` for whatever ends it but `aclose`."""

    def __init__(self, vendor: str, wire: Wire, codec: ModelCodec) -> None:
        self._vendor = vendor
        self._wire = wire
        self._codec = codec
        self._early: deque[RealtimeEvent] = deque()
        self._sending = asyncio.Lock()
        self._over = False
        self._heard = monotonic()

    async def open(self) -> None:
        """Sets the session up; returns when it is ready. Hangs up when it is not."""
        try:
            await self._flush()
            while True:
                events = await self._receive()
                self._early.extend(events)
                if any(isinstance(event, SessionReady) for event in events):
                    return
        except BaseException:
            self._over = True
            self._wire.abort()
            raise

    async def send(self, command: RealtimeCommand) -> None:
        if self._over:
            raise Unavailable(self._vendor, "the session is closed")
        self._codec.send(command)
        await self._flush()

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        while self._early:
            yield self._early.popleft()
        while not self._over:
            try:
                events = await self._receive()
            except ProviderError:
                if self._over:
                    return
                self._over = True
                self._wire.abort()
                raise
            for event in events:
                yield event

    async def aclose(self) -> None:
        if self._over:
            return
        self._over = True
        try:
            await bounded(self._wire.close(), 1.0, "saying goodbye")
        except (TimeoutError, Disconnected):
            self._wire.abort()
        except BaseException:
            self._wire.abort()
            raise

    async def _receive(self) -> list[RealtimeEvent]:
        """The next events, having sent what they ask for."""
        while True:
            try:
                data = await bounded(self._wire.recv(), _LOOK_S, "a word of the model's")
            except TimeoutError:
                if self._codec.owes and monotonic() - self._heard > ANSWER_S:
                    raise ProviderTimeout(self._vendor, f"no answer within {ANSWER_S:g} s") from None
                continue
            except Disconnected as end:
                raise self._gone(end) from end
            self._heard = monotonic()
            try:
                events = [_redacted(event) for event in self._codec.receive(data)]
            except ProviderError as error:
                error.args = (redact(str(error)),)
                raise
            except RemoteProtocolError as error:
                raise BadResponse(self._vendor, redact(str(error)), retryable=True) from error
            await self._flush()
            return events

    async def _flush(self) -> None:
        async with self._sending:
            if not self._codec.owes:
                self._heard = monotonic()
            for data in self._codec.to_send():
                try:
                    await bounded(self._wire.send(data), SEND_S, "sending to the model")
                except TimeoutError as error:
                    self._wire.abort()
                    raise ProviderTimeout(self._vendor, "the model takes nothing") from error
                except Disconnected as end:
                    raise self._gone(end) from end

    def _gone(self, end: Disconnected) -> ProviderError:
        reason = redact(end.reason)
        retryable = end.code not in (1002, 1003, 1007, 1008)
        message = f"the connection was cut: {end.code} {reason}".rstrip()
        return Unavailable(self._vendor, message, retryable=retryable, code=str(end.code))


def _redacted(event: RealtimeEvent) -> RealtimeEvent:
    """A vendor may quote what it refuses, keys included; its words end up in logs."""
    match event:
        case Complaint(error=error):
            error.args = (redact(str(error)),)
        case ReplyOver(reason=reason) | UserTextFailed(reason=reason) if reason:
            return replace(event, reason=redact(reason))
        case _:
            pass
    return event
