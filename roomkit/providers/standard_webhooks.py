"""The Standard Webhooks scheme: HMAC-SHA256 over `id.timestamp.body`, for webhooks of no vendor's own.

A request carries `webhook-id`, `webhook-timestamp` (seconds) and `webhook-signature` (`v1,` and the base64).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import replace

from roomkit.errors import AccessDenied, ConfigError
from roomkit.models.delivery import WebhookRequest
from roomkit.net.redaction import register_secret
from roomkit.runtime import Clock

_MIN_SECRET = 16


class StandardWebhooks:
    """`secrets`: the first signs, all are accepted; any text of 16 characters or more, or `whsec_` and base64. `who` is
    in the errors, `fix` says there where a secret is given. Raises `ConfigError` for a bad secret."""

    def __init__(self, secrets: Sequence[str], *, who: str, fix: str, clock: Clock, freshness_s: float) -> None:
        self._who = who
        self._fix = fix
        self._keys = [self._key(secret) for secret in secrets]
        register_secret(*secrets)
        self._clock = clock
        self._freshness_s = freshness_s

    def verify(self, request: WebhookRequest) -> None:
        """Raises `AccessDenied` unless it is signed and fresh; also when there is no secret to check it with."""
        if not self._keys:
            raise AccessDenied(f"{self._who}: no secret is configured, so nothing is accepted; {self._fix}")
        headers = request.headers
        ident, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not ident or not (stamp.isascii() and stamp.isdecimal()) or len(stamp) > 12:
            raise AccessDenied(f"{self._who}: webhook-id or webhook-timestamp is missing")
        given = [part[3:].encode() for part in headers.get("webhook-signature", "").split(" ") if part[:3] == "v1,"]
        expected = [_signature(key, ident, stamp, request.body) for key in self._keys]
        if not any(hmac.compare_digest(mine, theirs) for mine in expected for theirs in given[:10]):
            raise AccessDenied(f"{self._who}: the signature does not match")
        age = self._clock.now().timestamp() - int(stamp)
        if abs(age) > self._freshness_s:
            raise AccessDenied(f"{self._who}: the timestamp is {age:.0f} s old; check the clocks, or it is a replay")

    def sign(self, request: WebhookRequest, ident: str | None = None) -> WebhookRequest:
        """The request with a signature, under `ident`, its own id, or one made of its body."""
        if not self._keys:
            raise ConfigError(f"{self._who}: no secret to sign with; {self._fix}")
        ident = ident or request.headers.get("webhook-id") or hashlib.sha256(request.body).hexdigest()[:32]
        stamp = str(int(self._clock.now().timestamp()))
        headers = {
            **request.headers,
            "webhook-id": ident,
            "webhook-timestamp": stamp,
            "webhook-signature": "v1," + _signature(self._keys[0], ident, stamp, request.body).decode(),
        }
        return replace(request, headers=headers)

    def _key(self, secret: str) -> bytes:
        try:
            key = base64.b64decode(secret[6:], validate=True) if secret.startswith("whsec_") else secret.encode()
        except ValueError:
            raise ConfigError(f"{self._who}: a secret starting with whsec_ must go on in base64") from None
        if len(key) < _MIN_SECRET:
            told = f"a secret has {len(key)} bytes; use {_MIN_SECRET} or more, made at random"
            raise ConfigError(f"{self._who}: {told}")
        return key


def _signature(key: bytes, ident: str, stamp: str, body: bytes) -> bytes:
    signed = b".".join((ident.encode(), stamp.encode(), body))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
