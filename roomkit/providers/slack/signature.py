"""Slack's webhook signatures: HMAC-SHA256 over `v0:TIMESTAMP:BODY`, made and checked on the raw request. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import replace

from roomkit.errors import AccessDenied, ConfigError
from roomkit.models.delivery import WebhookRequest

SIGNATURE = "x-slack-signature"
TIMESTAMP = "x-slack-request-timestamp"


def verify(request: WebhookRequest, secrets: Sequence[str], now: float, freshness_s: float) -> None:
    """Raises `AccessDenied` unless one of the secrets has signed the body, and lately (`now` is Unix time)."""
    secrets = [one for one in secrets if one]  # an empty one is anybody's
    if not secrets:
        raise AccessDenied("slack webhook: no signing secret is configured, so nothing is accepted")
    stamp = request.headers.get(TIMESTAMP, "")
    if not (stamp.isascii() and stamp.isdecimal()) or len(stamp) > 12:
        raise AccessDenied("slack webhook: it carries no timestamp")
    given = request.headers.get(SIGNATURE, "").encode()
    if not any(hmac.compare_digest(_signature(secret, stamp, request.body), given) for secret in secrets):
        raise AccessDenied("slack webhook: the signature does not match; check the signing secret of the app")
    if abs(now - int(stamp)) > freshness_s:
        raise AccessDenied(f"slack webhook: it is {now - int(stamp):.0f} s old; check the clock, or it is a replay")


def sign(request: WebhookRequest, secrets: Sequence[str], now: float) -> WebhookRequest:
    """The request as Slack would send it, signed with the first secret."""
    if not any(secrets):
        raise ConfigError("slack webhook: no secret to sign with; set SLACK_SIGNING_SECRET")
    stamp = str(int(now))
    signature = _signature(next(filter(None, secrets)), stamp, request.body).decode()
    return replace(request, headers={**request.headers, TIMESTAMP: stamp, SIGNATURE: signature})


def _signature(secret: str, stamp: str, body: bytes) -> bytes:
    signed = b":".join((b"v0", stamp.encode(), body))
    return b"v0=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode()
