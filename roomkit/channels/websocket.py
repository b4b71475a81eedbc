"""WebSocketChannel: the sockets of a room, each told everything once, at its own pace (S59-S74)."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from roomkit.core.outlet import Outlet, OutletOptions, Outlets
from roomkit.core.policy import may_see
from roomkit.errors import RoomKitError, RoomNotFound, UsageError
from roomkit.models.delivery import DeliveryResult, DeliveryState
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding, ChannelCapabilities, ChannelType
from roomkit.models.stream import StreamChunk, StreamEnd, StreamError, StreamMessage, StreamStart
from roomkit.ports.channel import Channel, RoomContext, RoomPort

SendFn = Callable[[str, RoomEvent], Coroutine[Any, Any, None]]
StreamSendFn = Callable[[str, StreamMessage], Coroutine[Any, Any, None]]
Item = RoomEvent | StreamMessage
log = logging.getLogger(__name__)

EVERYTHING = ChannelCapabilities(
    rich=True,
    media=True,
    audio=True,
    video=True,
    location=True,
    templates=True,
    buttons=100,
    cards=True,
    quick_replies=True,
    threading=True,
    reactions=True,
    edit=True,
    delete=True,
    typing=True,
    read_receipts=True,
    tool_calls=True,
    shows_sender=True,
    media_per_message=100,
)
"""Sockets get events as they are: what cannot be shown is the client's to say."""
REMEMBERED = 256
"""Event ids kept per room, so that what comes by two ways is still told once."""


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """Limits of each connection: `buffer` in characters kept for one that is behind, `send_timeout_s` in seconds.

    A connection is cut when its buffer is full, when others wait behind a send that takes longer than
    `send_timeout_s`, or when `strikes` sends in a row take longer."""

    buffer: int = 262_144
    send_timeout_s: float = 5.0
    strikes: int = 3


class WebSocketChannel(Channel):
    """Tells the connections of its rooms what happens there; what they say goes to `kit.process_inbound`.

    `on_cut(connection_id, index)` is called when a connection was cut: it is unregistered already, and has taken every
    event up to `index` (-1: none), from where the host can resume it. It may be a coroutine function.
    """

    reach = "cursor"

    def __init__(
        self,
        channel_id: str,
        *,
        on_cut: Callable[[str, int], Any] | None = None,
        options: WebSocketOptions | None = None,
    ) -> None:
        super().__init__(channel_id, ChannelType.WEBSOCKET, capabilities=EVERYTHING)
        options = options or WebSocketOptions()
        self._on_cut = on_cut
        self._outlet_options: OutletOptions[Item] = OutletOptions(
            options.buffer, _merge, _size, options.send_timeout_s, options.strikes
        )
        self._outlets = Outlets(f"connections of {channel_id}", self._outlet_options)
        self._connections: dict[str, _Connection] = {}
        self._feeds: dict[tuple[str | None, str], _Feed] = {}

    # -- connections ----------------------------------------------------------------------------

    @property
    def supports_streaming_delivery(self) -> bool:
        """Whether some connection takes replies while they are made."""
        return any(feed.streaming for feed in self._feeds.values())

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def register_connection(
        self,
        connection_id: str,
        send_fn: SendFn,
        *,
        stream_send_fn: StreamSendFn | None = None,
        room_id: str | None = None,
        tenant: str | None = None,
    ) -> Callable[[], object]:
        """Adds a connection, which is told what happens in its room from now on; returns the way out.

        `send_fn(connection_id, event)` takes whole events. With `stream_send_fn` a reply is told while it is made, and
        not once more as an event. Without `room_id` the connection belongs to the channel's room as long as that is
        exactly one (D5); otherwise `UsageError`. An id that is in use is a `UsageError` too. Never waits.

        `tenant` says whose room it is; without it the one that the channel is registered for. A channel that all
        tenants share must be told: rooms of two tenants may have the same id.
        """
        if connection_id in self._connections:
            raise UsageError(
                f'connection "{connection_id}" is already registered with channel "{self.channel_id}"; '
                "give every socket an id of its own, or unregister the old one first"
            )
        guess: _Guess | None = None
        port = self.port
        if port is not None:
            tenant = tenant or port.tenant
            port = port if tenant == port.tenant else port.of_tenant(tenant)
        if room_id is None:
            guess = _Guess(self, port, self._outlets)
            room_id = guess.room_id
        feed = self._feeds.get((tenant, room_id))
        if feed is None:
            feed = self._feeds[tenant, room_id] = _Feed(tenant, room_id, self._outlets)
        connection = _Connection(connection_id, feed, send_fn, stream_send_fn)
        connection.outlet = Outlet(
            self._outlets,
            connection.send,
            lambda reason, unsent: self.cut(connection, reason, unsent),
        )
        self._connections[connection_id] = connection
        if guess is not None:
            guess.connection = connection
        feed.add(connection)
        if port is not None and not feed.opened:
            self._open(feed, port)
        return lambda: self._remove(connection)

    def unregister_connection(self, connection_id: str) -> bool:
        """Removes a connection; what it was not told yet is dropped. False when there is none of this id."""
        connection = self._connections.get(connection_id)
        return connection is not None and self._remove(connection)

    def _remove(self, connection: _Connection) -> bool:
        """Removes exactly this connection, not a later one of the same id."""
        if self._connections.get(connection.id) is not connection:
            return False
        del self._connections[connection.id]
        connection.outlet.close()
        feed = connection.feed
        feed.drop(connection)
        if not feed.connections and self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]
            feed.close()
        return True

    def cut(self, connection: _Connection, reason: str, unsent: Iterable[Item] = ()) -> None:
        """Removes a connection that cannot be served, and tells the host from where on it has missed events."""
        missed = (event.index - 1 for event in map(_event, unsent) if event is not None)
        index = next(missed, connection.feed.index)
        if not self._remove(connection):
            return
        log.warning(
            "connection %s of channel %s was cut after event %d: %s", connection.id, self.channel_id, index, reason
        )
        if self._on_cut is not None:
            self._outlets.eager.start(self._tell_host(self._on_cut, connection.id, index))

    async def _tell_host(self, on_cut: Callable[[str, int], Any], connection_id: str, index: int) -> None:
        try:
            result = on_cut(connection_id, index)
            if inspect.isawaitable(result):
                await result
        except Exception:  # the host's own code: it must not keep the others from their events
            log.exception("on_cut failed for connection %s", connection_id)

    async def close(self) -> None:
        """Drops every connection and stops what is being sent. The channel can be used again."""
        for connection in tuple(self._connections.values()):
            self._remove(connection)
        outlets, self._outlets = self._outlets, Outlets(f"connections of {self.channel_id}", self._outlet_options)
        await outlets.aclose()

    # -- the room's side ------------------------------------------------------------------------

    def set_framework(self, port: RoomPort) -> None:
        super().set_framework(port)
        feeds, self._feeds = self._feeds, {}
        for feed in feeds.values():
            feed.tenant = feed.tenant or port.tenant
            self._feeds[feed.key] = feed
        for feed in feeds.values():
            if not feed.opened:
                self._open(feed, port if feed.tenant == port.tenant else port.of_tenant(str(feed.tenant)))

    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        """Tells the connections of the event's room, unless they know it or the channel may not see it.

        The kit does not need this: registered, the channel hears of events by itself."""
        feed = self._feed(event.tenant, event.room_id)
        mine = binding.channel_id == self.channel_id
        if feed is None or (mine and (binding.output_muted or not may_see(event, binding))):
            return DeliveryResult(success=True, state=DeliveryState.SKIPPED)
        feed.take(event)
        return DeliveryResult(success=True, state=DeliveryState.SENT)

    async def deliver_stream(
        self, stream: AsyncIterator[StreamMessage], binding: ChannelBinding, context: RoomContext
    ) -> None:
        """Tells the connections of the binding's room a reply while it is made; `stream` is always read to its end.

        Streaming connections get every message, the others one event at its StreamEnd. When `stream` raises, or ends
        without a StreamEnd, what was shown is withdrawn with a StreamError."""
        begun: dict[str, None] = {}
        error = "interrupted"
        try:
            async for message in stream:
                if isinstance(message, StreamStart):
                    begun[message.stream_id] = None
                elif not isinstance(message, StreamChunk):
                    begun.pop(message.stream_id, None)
                self._take(binding, message)
        except Exception:
            error = "error"
            raise
        finally:
            for stream_id in begun:
                self._take(binding, StreamError(room_id=binding.room_id, stream_id=stream_id, error=error))
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    def update_binding(self, binding: ChannelBinding) -> None:
        """A channel that may hear no more loses the replies it saw growing; a later StreamEnd comes as an event."""
        feed = self._feed(binding.tenant, binding.room_id)
        deaf = binding.output_muted or not binding.can_read
        if feed is not None and deaf:
            feed.withdraw("muted")

    def _feed(self, tenant: str, room_id: str) -> _Feed | None:
        """Used without a kit, the channel knows of no tenants."""
        return self._feeds.get((tenant, room_id)) or self._feeds.get((None, room_id))

    def _take(self, binding: ChannelBinding, message: StreamMessage) -> None:
        feed = self._feed(binding.tenant, binding.room_id)
        if feed is not None:
            feed.take(message)

    def _open(self, feed: _Feed, port: RoomPort) -> None:
        """Subscribes to the room: at once where it is in memory, else as soon as it is."""
        feed.opened = True
        try:
            feed.leave = port.subscribe(feed.room_id, feed.take, channel_id=self.channel_id)
        except RoomNotFound:
            feed.held = []
            if self._outlets.eager.start(self._load(feed, port)) and feed.error is not None:
                self._abandon(feed)
                raise feed.error from None
            feed.late = True

    async def _load(self, feed: _Feed, port: RoomPort) -> None:
        try:
            view = await port.watch.open_view(feed.room_id, feed.take, tail=0)
        except RoomKitError as error:
            feed.error = error
            if feed.late:
                self._abandon(feed)
            return
        feed.leave = view.close
        if self._feeds.get(feed.key) is feed:
            feed.begin(view.streams)
        else:
            feed.close()

    def _abandon(self, feed: _Feed) -> None:
        for connection in tuple(feed.connections.values()):
            if feed.late:
                self.cut(connection, str(feed.error))
            else:
                self._remove(connection)


class _Connection:
    """One socket."""

    __slots__ = ("_send", "_send_stream", "feed", "id", "outlet", "streaming")

    outlet: Outlet[Item]

    def __init__(self, connection_id: str, feed: _Feed, send: SendFn, send_stream: StreamSendFn | None) -> None:
        self.id = connection_id
        self.feed = feed
        self.streaming = send_stream is not None
        self._send = send
        self._send_stream: Callable[[str, Any], Coroutine[Any, Any, None]] = send_stream or send

    def send(self, item: Any) -> Coroutine[Any, Any, None]:
        """Stream messages come to streaming connections only."""
        return self._send(self.id, item) if type(item) is RoomEvent else self._send_stream(self.id, item)


class _Feed:
    """What the connections of one room are told, up to event `index`. `held` keeps what comes while the room is being
    opened."""

    def __init__(self, tenant: str | None, room_id: str, outlets: Outlets[Item]) -> None:
        self.tenant = tenant
        self.room_id = room_id
        self.connections: dict[str, _Connection] = {}
        self.streaming: dict[str, Outlet[Item]] = {}
        self.index = -1
        self.opened = False
        self.late = False
        self.leave: Callable[[], None] | None = None
        self.held: list[Any] | None = None
        self.error: RoomKitError | None = None
        self._outlets = outlets
        self._plain: dict[str, Outlet[Item]] = {}
        self._growing: dict[str, tuple[StreamStart, list[str]]] = {}
        self._told: dict[str, None] = {}
        self._tell: Callable[[Item], None] | None = None

    @property
    def key(self) -> tuple[str | None, str]:
        return self.tenant, self.room_id

    def add(self, connection: _Connection) -> None:
        """Adds a connection; a streaming one is shown the replies in the making as far as they are."""
        self.connections[connection.id] = connection
        if not connection.streaming:
            self._plain[connection.id] = connection.outlet
            return
        self.streaming[connection.id] = connection.outlet
        self._tell = None
        for start, parts in tuple(self._growing.values()):
            connection.outlet.push(start)
            connection.outlet.push(_chunk(start, "".join(parts)))

    def drop(self, connection: _Connection) -> None:
        for kept in (self.connections, self.streaming, self._plain):
            kept.pop(connection.id, None)
        self._tell = None

    def begin(self, streams: Iterable[tuple[StreamStart, str]]) -> None:
        """The room is open: shows the replies in the making, then what came meanwhile."""
        held, self.held = self.held or [], None
        for start, text in streams:
            self.take(start)
            self.take(_chunk(start, text))
        for item in held:
            self.take(item)

    def close(self) -> None:
        leave, self.leave = self.leave, None
        if leave is not None:
            leave()

    def take(self, item: Any) -> None:
        """Tells the connections one item of the room's hub, in order; signs of life have no way to them."""
        if self.held is not None:
            self.held.append(item)
            return
        kind = type(item)  # pyright: ignore[reportUnknownVariableType] - whatever it is
        if kind is StreamChunk:
            growing = self._growing.get(item.stream_id)
            if growing is not None:
                growing[1].append(item.delta)
                (self._tell or self._way())(item)
        elif kind is RoomEvent:
            if self._first(item):
                self._outlets.push((*self._plain.values(), *self.streaming.values()), item)
        elif kind is StreamStart:
            self._growing[item.stream_id] = (item, [])
            self._outlets.push(tuple(self.streaming.values()), item)
        elif kind is StreamEnd:
            self._end(item)
        elif kind is StreamError and self._growing.pop(item.stream_id, None) is not None:
            self._outlets.push(tuple(self.streaming.values()), item)

    def _way(self) -> Callable[[Item], None]:
        """How the streaming connections are told; found once for as long as they are the same."""
        outlets = tuple(self.streaming.values())
        self._tell = outlets[0].push if len(outlets) == 1 else partial(self._outlets.push, outlets)
        return self._tell

    def withdraw(self, error: str) -> None:
        for stream_id in tuple(self._growing):
            self.take(StreamError(room_id=self.room_id, stream_id=stream_id, error=error))

    def _end(self, end: StreamEnd) -> None:
        """Those who saw it grow get its end, all others one whole event."""
        seen = self._growing.pop(end.stream_id, None) is not None
        streaming = tuple(self.streaming.values())
        first = self._first(end.event)
        if seen:
            self._outlets.push(streaming, end)
        if first:
            self._outlets.push((*self._plain.values(), *(() if seen else streaming)), end.event)

    def _first(self, event: RoomEvent) -> bool:
        if event.id in self._told:
            return False
        self._told[event.id] = None
        self.index = max(self.index, event.index)
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        return True


class _Guess:
    """The room of a connection that names none: the channel's only open one. What cannot be looked up at once is
    looked up meanwhile, and a connection that was put into the wrong room is cut."""

    def __init__(self, channel: WebSocketChannel, port: RoomPort | None, outlets: Outlets[Item]) -> None:
        self.connection: _Connection | None = None
        self._channel = channel
        self._rooms: list[str] = []
        looked = port is not None and outlets.eager.start(self._look(port))
        found = self._rooms if looked or port is None else port.watch.resident_rooms()
        if len(found) != 1:
            where = "no open room" if not found else f"{len(found)} rooms or more"
            raise UsageError(
                f'channel "{channel.channel_id}" is in {where}: say which one the connection belongs to, '
                "register_connection(..., room_id=...)"
            )
        self.room_id = found[0]

    async def _look(self, port: RoomPort) -> None:
        try:
            self._rooms = await port.watch.open_rooms(limit=2)
        except RoomKitError as error:
            log.warning("the rooms of channel %s could not be looked up: %s", self._channel.channel_id, error)
        if self.connection is not None and self._rooms != [self.room_id]:
            self._channel.cut(self.connection, "more than one room could be meant")


def _chunk(start: StreamStart, text: str) -> StreamChunk:
    return StreamChunk(room_id=start.room_id, stream_id=start.stream_id, offset=0, delta=text)


def _merge(last: Item, new: Item) -> Item | None:
    if not (isinstance(last, StreamChunk) and isinstance(new, StreamChunk)) or last.stream_id != new.stream_id:
        return None
    if last.offset + len(last.delta) != new.offset:
        return None
    return StreamChunk.model_construct(
        room_id=last.room_id, stream_id=last.stream_id, offset=last.offset, delta=last.delta + new.delta
    )


def _size(item: Item) -> int:
    if isinstance(item, StreamChunk):
        return len(item.delta) + 64
    event = _event(item)
    return 512 + (len(event.text) if event is not None else 0)


def _event(item: Item) -> RoomEvent | None:
    if isinstance(item, RoomEvent):
        return item
    return item.event if isinstance(item, StreamEnd) else None
