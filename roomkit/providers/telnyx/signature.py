"""Telnyx's webhook signatures: Ed25519 over `timestamp|body`, checked on the raw request. Needs the [telnyx] extra."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from roomkit.errors import AccessDenied, ConfigError, MissingExtra
from roomkit.models.delivery import WebhookRequest
from roomkit.runtime import Clock

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "telnyx-signature-ed25519"
TIMESTAMP = "telnyx-timestamp"


class TelnyxKeys:
    """The account's public keys, base64 as the portal shows them; all of `verifying` are accepted.

    The private half is Telnyx's own. `signing` (base64 of 32 bytes) stands in for it where webhooks are simulated: its
    public half must be among the public keys then. Raises `ConfigError` for what is no key.
    """

    def __init__(self, verifying: Sequence[str], signing: str | None, *, clock: Clock, freshness_s: float) -> None:
        self._public = [_public_key(key) for key in verifying]
        self._signing = signing
        self._clock = clock
        self._freshness_s = freshness_s

    def verify(self, request: WebhookRequest) -> None:
        """Raises `AccessDenied` unless the signature holds and is fresh; also when there is no key to check it with."""
        from cryptography.exceptions import InvalidSignature

        if not self._public:
            raise AccessDenied("telnyx webhook: no public key is configured, so nothing is accepted")
        stamp = request.headers.get(TIMESTAMP, "")
        if not (stamp.isascii() and stamp.isdecimal()) or len(stamp) > 12:
            raise AccessDenied("telnyx webhook: it carries no timestamp")
        try:
            given = base64.b64decode(request.headers.get(SIGNATURE, ""), validate=True)
        except ValueError:
            given = b""
        if len(given) != 64:
            raise AccessDenied("telnyx webhook: it carries no signature")
        signed = stamp.encode() + b"|" + request.body
        for key in self._public:
            try:
                key.verify(given, signed)
                break
            except InvalidSignature:
                continue
        else:
            raise AccessDenied("telnyx webhook: the signature does not match; check the public key")
        age = self._clock.now().timestamp() - int(stamp)
        if abs(age) > self._freshness_s:
            raise AccessDenied(f"telnyx webhook: the timestamp is {age:.0f} s old; check the clocks, or it is a replay")

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        if not self._signing:
            raise ConfigError(
                "telnyx webhook: only Telnyx can sign for its public key; to simulate, set TELNYX_SIGNING_KEY "
                "and add its public half to TELNYX_PUBLIC_KEY"
            )
        stamp = str(int(self._clock.now().timestamp()))
        signature = signature_of(self._signing, stamp, request.body)
        return replace(request, headers={**request.headers, TIMESTAMP: stamp, SIGNATURE: signature})


def signature_of(signing_key: str, stamp: str, body: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(signing_key, validate=True))
    except ValueError:
        raise ConfigError("telnyx: the signing key must be 32 bytes in base64") from None
    return base64.b64encode(key.sign(stamp.encode() + b"|" + body)).decode()


def _public_key(text: str) -> Ed25519PublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise MissingExtra("checking Telnyx's webhooks", "cryptography", "telnyx") from error
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError:
        raise ConfigError("telnyx: the public key must be 32 bytes in base64, as the portal shows it") from None
