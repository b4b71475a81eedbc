"""Door: what all routes and sockets of one app share: the kit, who is asking, what they may do."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from roomkit.core.streams import Viewer
from roomkit.errors import AccessDenied
from roomkit.models.access import Principal
from roomkit.net.ratelimit import RateLimiter
from roomkit.runtime import Scope
from roomkit.runtime.eager import Eager
from roomkit.servers.access import Action, TokenAuthentication, allowed
from roomkit.servers.lobby import Lobby
from roomkit.servers.options import ServerOptions
from roomkit.servers.views import EventTexts

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from roomkit.kit import RoomKit


class Unauthenticated(AccessDenied):
    """Nobody we know is asking (401, as opposed to 403)."""


class Door:
    """One app over one kit. `scope` owns whatever the app runs beside its requests."""

    def __init__(self, kit: RoomKit, options: ServerOptions) -> None:
        self.kit = kit
        self.options = options
        self.scope = Scope("server")
        self.eager = Eager(self.scope)
        self.texts = EventTexts()
        self.lobby = Lobby(self)
        self.draining = False
        self.writes = RateLimiter(options.requests_per_s, options.requests_per_s * 3)
        self._authenticate = options.authenticate or TokenAuthentication(kit.tokens)
        self._authorize = options.authorize or allowed

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Who is asking. Raises `Unauthenticated`."""
        try:
            found = self._authenticate(connection)
            principal = await found if inspect.isawaitable(found) else found
        except AccessDenied as error:
            raise Unauthenticated(str(error)) from error
        if principal is None:
            raise Unauthenticated("this needs a token: send Authorization: Bearer TOKEN")
        if principal.expires_at is not None and principal.expires_at <= self.now():
            raise Unauthenticated("the token has expired; get a new one")
        return principal

    async def may(self, principal: Principal, action: Action, room_id: str | None = None) -> bool:
        verdict = self._authorize(principal, action, room_id)
        return await verdict if inspect.isawaitable(verdict) else verdict

    async def demand(self, principal: Principal, action: Action, room_id: str | None = None) -> None:
        """Raises `AccessDenied` unless the principal may do this here."""
        if not await self.may(principal, action, room_id):
            where = f' in room "{room_id}"' if room_id else ""
            raise AccessDenied(f"{principal.role.value} {principal.id} may not {action.value}{where}")

    def alive(self, principal: Principal) -> bool:
        """Whether a session of this principal may go on: not expired, not revoked."""
        if principal.expires_at is not None and principal.expires_at <= self.now():
            return False
        return not self.kit.tokens.revoked(principal)

    def rooms(self, principal: Principal) -> Any:
        """The kit as this principal's tenant sees it (D24)."""
        return self.kit.tenant(principal.tenant)

    def viewer(self, principal: Principal) -> Viewer:
        return Viewer.of(principal, self.options.web_channel)

    def now(self) -> float:
        return self.kit.now().timestamp()

    def origin_allowed(self, origin: str | None, host: str | None) -> bool:
        """A page may talk to us from our own origin or an allowed one. No Origin: not a page."""
        if origin is None or origin in self.options.allowed_origins:
            return True
        own = self.options.base_url
        if own is not None:
            parts = urlsplit(own)
            return origin == f"{parts.scheme}://{parts.netloc}"
        return host is not None and urlsplit(origin).netloc == host
