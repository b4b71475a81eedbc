"""SSESource: reads somebody else's server-sent events and resumes after the last one taken. Needs the [http] extra."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from roomkit.errors import BadResponse, ConfigError, RemoteProtocolError, Unavailable
from roomkit.models.delivery import InboundMessage
from roomkit.net.client import ClientOptions, error_from_response, http_client, vendor_errors
from roomkit.net.redaction import redact
from roomkit.ports.source import Emit, SourceDone
from roomkit.providers.sse.stream import EventStream, ServerEvent

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)
Parse = Callable[[str], InboundMessage | None]


@dataclass(frozen=True, slots=True)
class SSESourceOptions:
    """`events` are the event names to take (None: all). `idle_s`: seconds of silence, comments included, after which
    the connection counts as dead. `last_id` is where to begin. `transport` replaces the network in tests."""

    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    events: Collection[str] | None = None
    last_id: str = ""
    idle_s: float = 120.0
    connect_s: float = 10.0
    max_chars: int = 1_048_576
    transport: httpx2.AsyncBaseTransport | None = field(default=None, repr=False)


class SSESource:
    """A `Source` that turns every event of a stream into an `InboundMessage` by `parse(data)`; None skips one.

    Reading waits for each message's commit; a new connection asks for what follows the last event so dealt with
    (`Last-Event-ID`). An event's id becomes the message's `external_id` where `parse` gives none, so that a repeated
    event is stored once. An event that `parse` fails on is logged and skipped.
    """

    def __init__(
        self, url: str, parse: Parse, *, name: str | None = None, options: SSESourceOptions | None = None
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f'an SSESource needs an http:// or https:// URL, not "{redact(url)}"')
        self.name = name or redact(url.split("?", 1)[0])
        self.last_id = (options.last_id if options else "") or ""
        self._url = url
        self._parse = parse
        self._options = options or SSESourceOptions()
        self._retry_s: float | None = None

    async def run(self, emit: Emit, ready: Callable[[], None]) -> None:
        options = self._options
        headers = {"accept": "text/event-stream", "cache-control": "no-store", **options.headers}
        if self.last_id:
            headers["last-event-id"] = self.last_id
        limits = ClientOptions(connect_s=options.connect_s, read_s=options.idle_s)
        with vendor_errors(self.name):
            async with (
                http_client(limits, transport=options.transport) as client,
                client.stream("GET", self._url, headers=headers) as response,
            ):
                self._check(response)
                ready()
                await self._read(response, emit)
        raise Unavailable(self.name, "the stream has ended", retry_after=self._retry_s)

    def _check(self, response: httpx2.Response) -> None:
        if response.status_code == 204:
            raise SourceDone(f"{self.name} has nothing more (HTTP 204)")
        if response.status_code != 200:
            raise error_from_response(self.name, response)
        if response.headers.get("content-type", "").split(";")[0].strip().lower() != "text/event-stream":
            raise BadResponse(self.name, "the answer is no event stream; check the URL")

    async def _read(self, response: httpx2.Response, emit: Emit) -> None:
        stream = EventStream(max_chars=self._options.max_chars)
        stream.last_id = self.last_id
        stream.restart()
        try:
            async for data in response.aiter_bytes():
                for event in stream.feed(data):
                    message = self._message(event)
                    if message is not None:
                        await emit(message)
                    self.last_id = event.id
                self.last_id = stream.last_id
        except RemoteProtocolError as error:
            raise BadResponse(self.name, str(error)) from error
        finally:
            self._retry_s = stream.retry_s if stream.retry_s is not None else self._retry_s

    def _message(self, event: ServerEvent) -> InboundMessage | None:
        if self._options.events is not None and event.event not in self._options.events:
            return None
        try:
            message = self._parse(event.data)
        except Exception:  # the host's parser: what it cannot read must not end the connection
            log.exception("source %s: an event could not be parsed", self.name)
            return None
        if message is not None and message.external_id is None and event.own_id and event.id:
            return message.model_copy(update={"external_id": event.id})
        return message
