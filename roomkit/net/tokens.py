"""Signed tokens: who is calling, for how long, with nothing to look up (D31).

A token is `rk1.<key id>.<claims>.<signature>`: claims are JSON in base64url, the signature is HMAC-SHA256 over all
before it. The first secret signs, every live one verifies, so that a secret can be replaced without ending sessions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets as random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roomkit.errors import AccessDenied, ConfigError, UsageError
from roomkit.models.access import Principal, PrincipalRole
from roomkit.net.redaction import register_secret
from roomkit.ports.store import Batch, Record
from roomkit.runtime import Clock, SystemClock

PREFIX = "rk1"
MIN_SECRET = 16
MAX_TTL_S = 30 * 86_400.0
GUEST_NAMES = ("guest-",)
STAFF_NAMES = ("agent-", "supervisor-", "admin-")


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token. `expires_at` is a Unix time in seconds; only `token` is secret."""

    token: str
    token_id: str
    expires_at: float
    principal: Principal

    def __repr__(self) -> str:
        return f"Minted(token_id={self.token_id!r}, expires_at={self.expires_at}, role={self.principal.role.value!r})"


def revocation(token_id: str, until: float, epoch: int) -> Batch:
    """What keeps a token refused over a restart."""
    return Batch("default", epoch, put=(Record("revoked", "default", token_id, {"until": until}, due=until),))


class Tokens:
    """Mints and verifies tokens. Without `secrets` it makes a random one, and its tokens die with the process.

    `on_revoke(token_id, until)` is told of every revocation so that it can be kept; `restore` brings those back.
    """

    def __init__(
        self,
        secrets: Sequence[str] = (),
        *,
        clock: Clock | None = None,
        on_revoke: Callable[[str, float], object] | None = None,
    ) -> None:
        if any(len(secret) < MIN_SECRET for secret in secrets):
            raise ConfigError(
                f"a token secret has fewer than {MIN_SECRET} characters; use e.g. secrets.token_urlsafe(32)"
            )
        register_secret(*secrets)
        self.ephemeral = not secrets
        self._keys = {_key_id(key): key for key in (s.encode() for s in secrets or (random.token_urlsafe(32),))}
        self._signing = next(iter(self._keys))
        self._clock = clock or SystemClock()
        self._on_revoke = on_revoke
        self._revoked: dict[str, float] = {}

    def mint(
        self,
        role: PrincipalRole | str,
        room: str | None = None,
        ttl: float = 3600.0,
        *,
        id: str | None = None,
        tenant: str = "default",
        display_name: str | None = None,
        renewable_for: float | None = None,
    ) -> str:
        """A token good for `ttl` seconds. A guest needs the `room` it may enter; `id` defaults to a random one.

        Its holder can renew it, but never beyond `renewable_for` seconds from now (default: `ttl`, so that a lifetime
        granted is a lifetime kept). Guests' and staff's ids do not mix: a guest cannot be called "host" or carry the
        start of a staff id ("agent-", "supervisor-", "admin-"), nor staff that of a guest ("guest-")."""
        return self.issue(
            role, room, ttl, id=id, tenant=tenant, display_name=display_name, renewable_for=renewable_for
        ).token

    def issue(
        self,
        role: PrincipalRole | str,
        room: str | None = None,
        ttl: float = 3600.0,
        *,
        id: str | None = None,
        tenant: str = "default",
        display_name: str | None = None,
        renewable_for: float | None = None,
    ) -> Minted:
        """As `mint`, with the token's id and expiry beside it."""
        role = _role(role)
        if role is PrincipalRole.GUEST and not room:
            raise UsageError("a guest token is bound to one room; pass room=")
        if not 0 < ttl <= MAX_TTL_S:
            raise UsageError(f"ttl={ttl:g} s is out of range; use more than 0 and at most {MAX_TTL_S:g}")
        if renewable_for is not None and not ttl <= renewable_for <= MAX_TTL_S:
            raise UsageError(f"renewable_for={renewable_for:g} s is out of range; use from ttl to {MAX_TTL_S:g}")
        _check_name(role, id)
        now = self._now()
        return self._seal(
            Principal(
                id=id or f"{role.value}-{random.token_hex(6)}",
                role=role,
                tenant=tenant,
                room_id=room,
                display_name=display_name,
                expires_at=round(now + ttl, 3),
                renewable_until=round(now + (renewable_for or ttl), 3),
                token_id=random.token_urlsafe(12),
            )
        )

    def renew(self, principal: Principal, ttl: float = 3600.0) -> Minted:
        """A fresh token for the same principal, good for `ttl` seconds but never beyond the end that was granted with
        the first of its line. It keeps the token id, so that revoking ends the whole line."""
        end = principal.renewable_until or principal.expires_at
        if principal.token_id is None or end is None:
            raise AccessDenied("this principal did not come with one of our tokens; ask the host for a new one")
        expires_at = min(round(self._now() + ttl, 3), end)
        return self._seal(principal.model_copy(update={"expires_at": expires_at, "renewable_until": end}))

    def _seal(self, principal: Principal) -> Minted:
        claims = principal.model_dump(mode="json", exclude_none=True, exclude={"metadata"})
        body = f"{PREFIX}.{self._signing}.{_b64(json.dumps(claims, separators=(',', ':')).encode())}"
        assert principal.token_id is not None
        assert principal.expires_at is not None
        return Minted(f"{body}.{self._sign(self._signing, body)}", principal.token_id, principal.expires_at, principal)

    def verify(self, token: str) -> Principal:
        """The principal of a good token. Raises `AccessDenied` for a bad, expired or revoked one."""
        body, _, signature = token.rpartition(".")
        parts = body.split(".")
        if len(parts) != 3 or parts[0] != PREFIX or parts[1] not in self._keys or not token.isascii():
            raise AccessDenied("the token is not one of ours; get a new one")
        if not hmac.compare_digest(signature, self._sign(parts[1], body)):
            raise AccessDenied("the token's signature does not hold; get a new one")
        try:
            principal = Principal.model_validate(json.loads(_unb64(parts[2])))
        except ValueError as error:
            raise AccessDenied("the token's claims cannot be read; get a new one") from error
        if principal.expires_at is None or principal.expires_at <= self._now():
            raise AccessDenied("the token has expired; get a new one")
        if self.revoked(principal):
            raise AccessDenied("the token was revoked; get a new one")
        return principal

    def revoke(self, token_id: str, *, until: float | None = None, tenant: str | None = None) -> tuple[str, float]:
        """Refuses this token from now on. `until` (Unix seconds) is when it would have expired, if known. With
        `tenant`, only a token of that tenant is refused; others' are not touched, whatever their ids. Returns what
        `on_revoke` is told: to be sure over a restart, keep it before you say that it is done."""
        if tenant is not None:
            token_id = _of_tenant(tenant, token_id)
        if until is None:
            until = self._now() + MAX_TTL_S
        self._revoked[token_id] = until
        self._prune()
        if self._on_revoke is not None:
            self._on_revoke(token_id, until)
        return token_id, until

    def revoked(self, principal: Principal) -> bool:
        token_id = principal.token_id
        if token_id is None or not self._revoked:
            return False
        return token_id in self._revoked or _of_tenant(principal.tenant, token_id) in self._revoked

    def restore(self, revoked: Mapping[str, float]) -> None:
        """Brings back revocations kept elsewhere: token id -> Unix time until which they matter."""
        self._revoked.update(revoked)
        self._prune()

    def sign(self, purpose: str, value: str, expires_at: float) -> str:
        """A signature over (purpose, value, expiry), for links that carry their own permission."""
        return f"{self._signing}.{self._sign(self._signing, _link(purpose, value, expires_at))}"

    def check(self, purpose: str, value: str, expires_at: float, signature: str) -> None:
        """Raises `AccessDenied` unless `sign` made this signature and it is not past `expires_at`."""
        key, _, digest = signature.partition(".")
        if key not in self._keys or not signature.isascii():
            raise AccessDenied("the link's signature does not hold; ask for a new link")
        if not hmac.compare_digest(digest, self._sign(key, _link(purpose, value, expires_at))):
            raise AccessDenied("the link's signature does not hold; ask for a new link")
        if expires_at <= self._now():
            raise AccessDenied("the link has expired; ask for a new one")

    def pseudonym(self, *parts: str) -> str:
        """A stable name for something whose own name must not be shown; only the holder of the secrets can tell."""
        return f"p-{self._sign(self._signing, json.dumps(['pseudonym', *parts]))[:16]}"

    def __repr__(self) -> str:
        return f"Tokens(keys={len(self._keys)}, revoked={len(self._revoked)})"

    def _sign(self, key: str, body: str) -> str:
        return _b64(hmac.new(self._keys[key], body.encode(), hashlib.sha256).digest())

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _prune(self) -> None:
        now = self._now()
        for token_id in [token_id for token_id, until in self._revoked.items() if until <= now]:
            del self._revoked[token_id]


def _role(role: PrincipalRole | str) -> PrincipalRole:
    try:
        return PrincipalRole(role)
    except ValueError:
        known = ", ".join(PrincipalRole)
        raise UsageError(f'there is no role "{role}"; use one of {known}') from None


def _check_name(role: PrincipalRole, name: str | None) -> None:
    if name is None:
        return
    foreign = GUEST_NAMES if role is not PrincipalRole.GUEST else STAFF_NAMES
    if name.startswith(foreign) or (role is PrincipalRole.GUEST and name == "host"):
        raise UsageError(f'a {role.value} cannot have the id "{name}"; it would look like somebody else\'s')


def _of_tenant(tenant: str, token_id: str) -> str:
    return json.dumps([tenant, token_id])


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"roomkit key id\0" + key).hexdigest()[:8]


def _link(purpose: str, value: str, expires_at: float) -> str:
    return json.dumps(["link", purpose, value, expires_at])


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _unb64(text: str) -> Any:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
