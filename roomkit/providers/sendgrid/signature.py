"""SendGrid's webhook signatures: ECDSA (P-256, SHA-256) over timestamp and raw body. Needs the [sendgrid] extra.

The Event Webhook and, under a security policy, Inbound Parse sign alike, each with a key of its own. A Parse webhook
without a policy is not signed: for that one a user and password in its URL can be required instead.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from roomkit.errors import AccessDenied, ConfigError, MissingExtra
from roomkit.models.delivery import WebhookRequest
from roomkit.runtime import Clock

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"


@dataclass(frozen=True, slots=True)
class SendGridKeys:
    """`public` are the verification keys; all are accepted. `password` is `user:password` of the Parse URL.
    `signing_key` (a PEM private key) is for simulated webhooks only."""

    public: Sequence[EllipticCurvePublicKey]
    clock: Clock
    password: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)
    freshness_s: float = 300.0

    def verify(self, request: WebhookRequest) -> None:
        """Raises `AccessDenied` unless it is signed and fresh, or a letter that came with the password."""
        headers = request.headers
        if SIGNATURE in headers or not self.password:
            self._verify_signature(request)
            return
        expected = b"Basic " + base64.b64encode(self.password.encode())
        given = headers.get("authorization", "").encode()
        if not _is_form(request) or not hmac.compare_digest(given, expected):
            raise AccessDenied("sendgrid webhook: it is neither signed nor does it carry the password of the Parse URL")

    def _verify_signature(self, request: WebhookRequest) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        if not self.public:
            raise AccessDenied("sendgrid webhook: no verification key is configured, so nothing is accepted")
        stamp = request.headers.get(TIMESTAMP, "")
        if not (stamp.isascii() and stamp.isdecimal()) or len(stamp) > 12:
            raise AccessDenied("sendgrid webhook: it carries no timestamp")
        try:
            given = base64.b64decode(request.headers.get(SIGNATURE, ""), validate=True)
        except ValueError:
            given = b""
        for key in self.public:
            try:
                key.verify(given, stamp.encode() + request.body, ECDSA(SHA256()))
                break
            except InvalidSignature:
                continue
        else:
            raise AccessDenied("sendgrid webhook: the signature does not match; check the verification key")
        age = self.clock.now().timestamp() - int(stamp)
        if abs(age) > self.freshness_s:
            told = f"sendgrid webhook: the timestamp is {age:.0f} s old; check the clocks, or it is a replay"
            raise AccessDenied(told)

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        if not self.signing_key:
            raise ConfigError(
                "sendgrid webhook: only SendGrid can sign for its key; to simulate, set SENDGRID_SIGNING_KEY and add "
                "its public half to SENDGRID_WEBHOOK_KEY"
            )
        stamp = str(int(self.clock.now().timestamp()))
        signature = signature_of(self.signing_key, stamp.encode() + request.body)
        return replace(request, headers={**request.headers, SIGNATURE: signature, TIMESTAMP: stamp})


def signature_of(signing_key: str, signed: bytes) -> str:
    crypto = _crypto()
    try:
        key = crypto.load_pem_private_key(signing_key.encode(), password=None)
    except ValueError:
        raise ConfigError("sendgrid: the signing key is no PEM private key") from None
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    return base64.b64encode(key.sign(signed, ECDSA(SHA256()))).decode()


def public_key(text: str) -> EllipticCurvePublicKey:
    """A verification key, base64 as the console shows it. Raises `ConfigError` for what is none."""
    from_der = _crypto().load_der_public_key
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    bare = "".join(line for line in text.strip().splitlines() if not line.startswith("-----"))
    try:
        key = from_der(base64.b64decode(bare, validate=True))
    except ValueError:
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise ConfigError("sendgrid: a verification key is not one; copy it from the webhook's signature settings")
    return key


def _crypto() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise MissingExtra("SendGrid's webhook signatures", "cryptography", "sendgrid") from error
    return serialization


def _is_form(request: WebhookRequest) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")
