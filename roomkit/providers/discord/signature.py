"""Discord's webhook signatures: Ed25519 over `timestamp` and body. Needs the [discord] extra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from roomkit.errors import AccessDenied, ConfigError, MissingExtra
from roomkit.models.delivery import WebhookRequest
from roomkit.runtime import Clock

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "x-signature-ed25519"
TIMESTAMP = "x-signature-timestamp"


class DiscordKeys:
    """The app's public keys in hex, as the developer portal shows them; all are accepted.

    The private half is Discord's own. `signing` (hex of 32 bytes) stands in for it where webhooks are simulated:
    its public half must be among the public keys then. Raises `ConfigError` for what is no key.
    """

    def __init__(self, verifying: Sequence[str], signing: str | None, *, clock: Clock, freshness_s: float) -> None:
        self._public = [_public_key(key) for key in verifying]
        self._signing = signing
        self._clock = clock
        self._freshness_s = freshness_s

    def verify(self, request: WebhookRequest) -> None:
        """Raises `AccessDenied` unless the signature holds and is fresh; also when there is no key to check it with."""
        if not self._public:
            raise AccessDenied("discord webhook: no public key is configured, so nothing is accepted")
        stamp = request.headers.get(TIMESTAMP, "")
        if not (stamp.isascii() and stamp.isdecimal()) or len(stamp) > 12:
            raise AccessDenied("discord webhook: it carries no timestamp")
        try:
            given = bytes.fromhex(request.headers.get(SIGNATURE, ""))
        except ValueError:
            given = b""
        if len(given) != 64 or not any(_holds(key, given, stamp.encode() + request.body) for key in self._public):
            raise AccessDenied("discord webhook: the signature does not match; check the public key of the app")
        age = self._clock.now().timestamp() - int(stamp)
        if abs(age) > self._freshness_s:
            raise AccessDenied(f"discord webhook: it is {age:.0f} s old; check the clock, or it is a replay")

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        """The request as Discord would send it, signed with the key for simulations."""
        if not self._signing:
            raise ConfigError(
                "discord webhook: only Discord can sign for its public key; to simulate, set DISCORD_SIGNING_KEY "
                "and add its public half to DISCORD_PUBLIC_KEY"
            )
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self._signing))
        except ValueError:
            raise ConfigError("discord: the signing key must be 32 bytes in hex") from None
        stamp = str(int(self._clock.now().timestamp()))
        signature = key.sign(stamp.encode() + request.body).hex()
        return replace(request, headers={**request.headers, TIMESTAMP: stamp, SIGNATURE: signature})


def _holds(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _public_key(text: str) -> Ed25519PublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise MissingExtra("checking Discord's webhooks", "cryptography", "discord") from error
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError:
        raise ConfigError("discord: the public key must be 32 bytes in hex, as the developer portal shows it") from None
