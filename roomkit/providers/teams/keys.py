"""Who may post to a bot: tokens of the Bot Connector, checked against its published keys. Needs the [teams] extra."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from roomkit.errors import AccessDenied, BadResponse, ConfigError, MissingExtra, ProviderError
from roomkit.runtime import Clock, monotonic

log = logging.getLogger(__name__)
SIMULATED = "simulated"
REFRESH_S = 24 * 3600.0
RETRY_S = 60.0
"""A key that is not known is looked for again after this time at the earliest: strangers choose the names of keys."""
FetchJson = Callable[[str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class KeyRules:
    """`audience` is the bot's app id. `signing_key` (PEM, RSA) signs simulated activities; whoever has it can post."""

    audience: str
    issuers: Sequence[str]
    metadata_url: str
    skew_s: float
    signing_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Key:
    public: Any
    endorsements: tuple[str, ...]


class ConnectorKeys:
    """The keys as they were last published, and the tokens that they have signed."""

    def __init__(self, rules: KeyRules, fetch: FetchJson, clock: Clock) -> None:
        _jwt()
        self._rules = rules
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, _Key] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._lock = asyncio.Lock()
        self._own: _Key | None = None
        self._signing: Any = None
        if rules.signing_key is not None:
            self._signing = _private(rules.signing_key)
            self._own = _Key(self._signing.public_key(), ())

    async def prepare(self, authorization: str) -> None:
        """Fetches the keys where they are old, or the token names one that is not known. Raises `ProviderError` when
        there are none at all."""
        wanted = _key_id(authorization)
        if wanted is None or (self._own is not None and wanted == SIMULATED):
            return
        if wanted in self._keys and self._fetched is not None and monotonic() - self._fetched < REFRESH_S:
            return
        async with self._lock:
            if not self._due(wanted):
                return  # somebody else has just fetched them, or tried to
            self._tried = monotonic()
            try:
                self._keys = await self._published()
                self._fetched = self._tried
            except ProviderError as error:
                if not self._keys:
                    self._tried = None  # the vendor is told to come again, and then it is tried again
                    raise
                log.warning("the Bot Connector's keys cannot be fetched, those known are used on: %s", error)

    def verify(self, authorization: str, service_url: str, channel: str) -> None:
        """Raises `AccessDenied` unless the token is of the Bot Connector, for this bot, now, and for a post that comes
        from this service and network."""
        jwt = _jwt()
        token = _token(authorization)
        name = _key_id(authorization)
        key = self._own if name == SIMULATED else self._keys.get(name or "")
        if not self._rules.audience or token is None or name is None or key is None:
            raise AccessDenied("teams webhook: it carries no token of a known key")
        unchecked = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}  # by our own clock, below
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=["RS256"],
                audience=self._rules.audience,
                issuer=list(self._rules.issuers),
                options={"require": ["exp", "iss", "aud"], **unchecked},
            )
        except jwt.InvalidTokenError as error:
            raise AccessDenied(f"teams webhook: the token is not good ({type(error).__name__})") from None
        self._check_time(claims)
        if key.endorsements and channel not in key.endorsements:
            raise AccessDenied("teams webhook: the key is not for posts of this network")
        claimed = claims.get("serviceurl")
        if not isinstance(claimed, str) or not service_url or claimed.rstrip("/") != service_url.rstrip("/"):
            raise AccessDenied("teams webhook: the token is for another service")

    def token(self, service_url: str) -> str:
        """A token for a simulated post."""
        if self._signing is None:
            raise ConfigError(
                "teams webhook: only Microsoft can sign for its keys; to simulate, set TEAMS_SIGNING_KEY (PEM, RSA)"
            )
        now = int(self._clock.now().timestamp())
        claims = {"iss": self._rules.issuers[0], "aud": self._rules.audience, "serviceurl": service_url}
        times = {"iat": now, "nbf": now, "exp": now + 3600}
        headers = {"kid": SIMULATED}
        return _jwt().encode({**claims, **times}, self._signing, algorithm="RS256", headers=headers)

    def _check_time(self, claims: Mapping[str, Any]) -> None:
        now, skew = self._clock.now().timestamp(), self._rules.skew_s
        until, since = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(until, int | float) or not isinstance(since, int | float):
            raise AccessDenied("teams webhook: the times of the token cannot be read")
        if now > until + skew or now < since - skew:
            raise AccessDenied("teams webhook: the token is not valid now; check the clock, or it is a replay")

    def _due(self, wanted: str) -> bool:
        now = monotonic()
        if self._tried is not None and now - self._tried < RETRY_S:
            return False
        return wanted not in self._keys or self._fetched is None or now - self._fetched >= REFRESH_S

    async def _published(self) -> dict[str, _Key]:
        metadata = await self._fetch(self._rules.metadata_url)
        address = _dict(metadata).get("jwks_uri")
        if not isinstance(address, str):
            raise BadResponse("teams", "the metadata of the Bot Connector does not name its keys")
        jwt = _jwt()
        found: dict[str, _Key] = {}
        published = _dict(await self._fetch(address)).get("keys")
        for one in cast("list[Any]", published) if isinstance(published, list) else []:
            key = _dict(one)
            endorsed = key.get("endorsements")
            names = tuple(str(it) for it in cast("list[Any]", endorsed)) if isinstance(endorsed, list) else ()
            if isinstance(key.get("kid"), str) and key.get("kty") == "RSA" and key["kid"] != SIMULATED:
                try:
                    found[key["kid"]] = _Key(jwt.PyJWK(key, algorithm="RS256").key, names)
                except jwt.PyJWTError as error:
                    log.warning("a key of the Bot Connector cannot be read: %s", error)
        if not found:
            raise BadResponse("teams", "the Bot Connector publishes no keys")
        return found


def _token(authorization: str) -> str | None:
    kind, _, token = authorization.partition(" ")
    return token if kind.lower() == "bearer" and token.count(".") == 2 and len(token) < 10_000 else None


def _key_id(authorization: str) -> str | None:
    """The name of the key that a token says it is signed with."""
    jwt, token = _jwt(), _token(authorization)
    if token is None:
        return None
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        return None
    name = header.get("kid")
    return name if isinstance(name, str) and header.get("alg") == "RS256" else None


def _private(pem: str) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise MissingExtra("checking Teams' webhooks", "cryptography", "teams") from error
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigError("teams: the signing key must be an RSA key in PEM, without a password")
    return key


def _jwt() -> Any:
    try:
        import jwt
    except ImportError as error:
        raise MissingExtra("checking Teams' webhooks", "pyjwt[crypto]", "teams") from error
    return jwt


def _dict(value: Any) -> dict[str, Any]:
    if isinstance(value, (bytes, str)):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
