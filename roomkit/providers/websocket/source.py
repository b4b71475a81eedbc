"""WebSocketSource: reads somebody else's WebSocket feed. Needs the [server] extra (websockets)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roomkit.errors import ConfigError, MissingExtra, ProviderError, ProviderTimeout, RateLimited, Unauthorized
from roomkit.errors import Unavailable as Gone
from roomkit.models.delivery import InboundMessage
from roomkit.net.redaction import redact
from roomkit.ports.source import Emit

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger(__name__)
Parse = Callable[[str | bytes], InboundMessage | None]


@dataclass(frozen=True, slots=True)
class WebSocketSourceOptions:
    """`headers` go with the handshake (credentials belong there, not into the URL); `hello` are the messages sent
    once connected, e.g. a subscription. Times in seconds, `max_bytes` per message."""

    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    subprotocols: Sequence[str] = ()
    hello: Sequence[str | bytes] = field(default=(), repr=False)
    open_timeout_s: float = 10.0
    ping_s: float = 20.0
    max_bytes: int = 1_048_576


class WebSocketSource:
    """A `Source` that turns every message of a WebSocket into an `InboundMessage` by `parse(data)`; None skips one.

    Reading waits for each message's commit, so a slow room slows the peer down and the order is kept. A frame that
    `parse` fails on is logged and skipped.
    """

    def __init__(
        self, url: str, parse: Parse, *, name: str | None = None, options: WebSocketSourceOptions | None = None
    ) -> None:
        if not url.startswith(("ws://", "wss://")):
            raise ConfigError(f'a WebSocketSource needs a ws:// or wss:// URL, not "{redact(url)}"')
        self.name = name or redact(url.split("?", 1)[0])
        self._url = url
        self._parse = parse
        self._options = options or WebSocketSourceOptions()

    async def run(self, emit: Emit, ready: Callable[[], None]) -> None:
        websockets, options = _load(), self._options
        try:
            async with websockets.connect(
                self._url,
                additional_headers=dict(options.headers),
                subprotocols=list(options.subprotocols) or None,
                open_timeout=options.open_timeout_s,
                ping_interval=options.ping_s,
                ping_timeout=options.ping_s,
                max_size=options.max_bytes,
                proxy=None,
            ) as socket:
                for hello in options.hello:
                    await socket.send(hello)
                ready()
                async for data in socket:
                    message = self._read(data)
                    if message is not None:
                        await emit(message)
        except websockets.WebSocketException as error:
            raise self._error(error) from error
        except TimeoutError as error:
            raise ProviderTimeout(self.name, "no connection in time") from error
        except OSError as error:
            raise Gone(self.name, f"no connection: {redact(str(error))}") from error

    def _read(self, data: str | bytes) -> InboundMessage | None:
        try:
            return self._parse(data)
        except Exception:  # the host's parser: what it cannot read must not end the connection
            log.exception("source %s: a message could not be parsed", self.name)
            return None

    def _error(self, error: Exception) -> ProviderError:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            return Unauthorized(self.name, f"the handshake was refused (HTTP {status})", status=status)
        if status == 429:
            return RateLimited(self.name, "the handshake was refused (HTTP 429)", status=status)
        return Gone(self.name, redact(str(error)) or type(error).__name__, status=status)


def _load() -> Any:
    """The client and its errors, as one namespace."""
    try:
        import websockets.asyncio.client
        import websockets.exceptions
    except ImportError as error:
        raise MissingExtra("WebSocketSource", "websockets", "server") from error
    return _Library(websockets.asyncio.client, websockets.exceptions)


class _Library:
    def __init__(self, client: ModuleType, exceptions: ModuleType) -> None:
        self.connect: Any = client.connect
        self.WebSocketException: type[Exception] = exceptions.WebSocketException
