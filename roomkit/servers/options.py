"""What the host decides about its doors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from roomkit.errors import ConfigError
from roomkit.models.access import Principal
from roomkit.protocols.room_socket import Limits
from roomkit.servers.access import Action

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

Authenticate = Callable[["HTTPConnection"], "Principal | Awaitable[Principal | None] | None"]
"""Who is asking? None: nobody we know. May raise `AccessDenied` with a reason that is safe to show."""
Authorize = Callable[[Principal, Action, "str | None"], "bool | Awaitable[bool]"]
"""May this principal do this to this room (None: to none in particular)?"""

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
MEDIA_TYPES = (
    *IMAGES,
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "audio/webm",
    "video/mp4",
    "video/webm",
    "application/pdf",
    "text/plain",
)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Everything `kit.asgi(...)` takes. Sizes in bytes, durations in seconds.

    `public_url` is where the world reaches this app, prefix included; webhook signatures are checked against it and
    nothing is ever guessed from forwarded headers. `web_channel` is the channel through which guests write.
    """

    public_url: str | None = None
    authenticate: Authenticate | None = None
    authorize: Authorize | None = None
    allowed_origins: tuple[str, ...] = ()
    web_channel: str = "web"
    pages: bool = True
    open_metrics: bool = False
    limits: Limits = field(default_factory=Limits)
    heartbeat_s: float = 20.0
    auth_timeout_s: float = 5.0
    send_timeout_s: float = 10.0
    drain_s: float = 10.0
    max_connections: int = 20_000
    max_connections_per_principal: int = 50
    socket_buffer: int = 1_048_576
    """Characters kept for one slow reader; the start of a view may be larger. Then the reader is cut (4408)."""
    body_bytes: int = 1_048_576
    webhook_bytes: int = 1_048_576
    media_bytes: int = 25 * 1_048_576
    media_types: tuple[str, ...] = MEDIA_TYPES
    media_link_s: float = 600.0
    vendor_link_s: float = 86_400.0
    """How long a vendor may fetch a file that was sent through it; needs `public_url`."""
    request_s: float = 30.0
    """How long a client may take to send a request: its head, and then a body that is read whole."""
    failed_logins_per_s: float = 1.0
    """Bad credentials from one address (of IPv6: one /64), in bursts of thirty times as many. Beyond that
    `authenticate` is not asked any more, and of our own tokens only good ones are heard. Behind a proxy, tell the
    server whose forwarded addresses to believe, or all clients share the proxy's."""
    requests_per_s: float = 20.0
    """Writes of one principal over REST, in bursts of three times as many."""
    pages_root: Path = Path(__file__).parent / "pages"

    def __post_init__(self) -> None:
        if self.public_url is not None and urlsplit(self.public_url).scheme not in ("http", "https"):
            raise ConfigError(f'public_url="{self.public_url}" is not a URL; give e.g. "https://chat.example.com"')

    @property
    def base_url(self) -> str | None:
        return None if self.public_url is None else self.public_url.rstrip("/")
