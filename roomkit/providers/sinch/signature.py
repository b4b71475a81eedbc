"""Sinch's webhook signatures: HMAC-SHA256 over `body.nonce.timestamp`, made and checked on the raw request. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import replace

from roomkit.errors import AccessDenied, ConfigError
from roomkit.models.delivery import WebhookRequest
from roomkit.runtime import Clock

SIGNATURE = "x-sinch-webhook-signature"
NONCE = "x-sinch-webhook-signature-nonce"
TIMESTAMP = "x-sinch-webhook-signature-timestamp"
ALGORITHM = "x-sinch-webhook-signature-algorithm"
# No dots and nothing that JSON ends with: the end of a body must not be taken for the beginning of a nonce.
_NONCE = re.compile(r"[A-Za-z0-9+/=_-]{1,128}")
_STAMP = re.compile(r"[0-9]{1,12}")


class SinchKeys:
    """The secrets that webhooks may be signed with: the first signs, all are accepted."""

    def __init__(self, keys: Sequence[str], *, clock: Clock, freshness_s: float) -> None:
        self._keys = tuple(filter(None, keys))  # an empty one is anybody's
        self._clock = clock
        self._freshness_s = freshness_s

    def verify(self, request: WebhookRequest) -> None:
        """Raises `AccessDenied` unless the signature holds and is fresh; also when there is no secret."""
        if not self._keys:
            raise AccessDenied("sinch webhook: no secret is configured, so nothing is accepted")
        headers = request.headers
        nonce, stamp = headers.get(NONCE, ""), headers.get(TIMESTAMP, "")
        if not _NONCE.fullmatch(nonce) or not _STAMP.fullmatch(stamp):
            raise AccessDenied("sinch webhook: it carries no nonce or no timestamp")
        if headers.get(ALGORITHM, "HmacSHA256").lower() != "hmacsha256":
            raise AccessDenied("sinch webhook: it is signed in a way that is not known here")
        given = headers.get(SIGNATURE, "").encode()
        expected = [_sign(key, request.body, nonce, stamp) for key in self._keys]
        if not any(hmac.compare_digest(one, given) for one in expected):
            raise AccessDenied("sinch webhook: the signature does not match; check the secret")
        age = self._clock.now().timestamp() - int(stamp)
        if abs(age) > self._freshness_s:
            raise AccessDenied(f"sinch webhook: the timestamp is {age:.0f} s old; check the clocks, or it is a replay")

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        if not self._keys:
            raise ConfigError("sinch webhook: no secret to sign with; set SINCH_WEBHOOK_SECRET")
        stamp = str(int(self._clock.now().timestamp()))
        nonce = request.headers.get(NONCE) or hashlib.sha256(request.body).hexdigest()[:26]
        signed = {
            NONCE: nonce,
            TIMESTAMP: stamp,
            ALGORITHM: "HmacSHA256",
            SIGNATURE: _sign(self._keys[0], request.body, nonce, stamp).decode(),
        }
        return replace(request, headers={**request.headers, **signed})


def _sign(key: str, body: bytes, nonce: str, stamp: str) -> bytes:
    signed = b".".join((body, nonce.encode(), stamp.encode()))
    return base64.b64encode(hmac.new(key.encode(), signed, hashlib.sha256).digest())
