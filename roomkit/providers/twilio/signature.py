"""Twilio's webhook signatures, made and checked on the raw request. Pure.

A form is signed over the URL and its sorted parameters; JSON over a URL which carries `bodySHA256`, the hash of the
body. The key is the account's auth token (HMAC-SHA1), or a shared key of one's own, which the settings header names
(HMAC-SHA256).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from roomkit.errors import AccessDenied, ConfigError
from roomkit.models.delivery import WebhookRequest

HEADER = "x-twilio-signature"
SETTINGS = "x-twilio-webhooks-signature-settings"
Pairs = Sequence[tuple[str, str]]
_PORT = re.compile(r":\d+\Z")


@dataclass(frozen=True, slots=True)
class TwilioKeys:
    """What webhooks may be signed with: auth tokens (the primary first) and shared keys by id."""

    auth_tokens: tuple[str, ...] = field(default=(), repr=False)
    shared_keys: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def verify(self, request: WebhookRequest) -> None:
        """Raises `AccessDenied` unless the signature holds; also when there is no key to check it with."""
        given = request.headers.get(HEADER, "").encode()
        if not given:
            raise AccessDenied("twilio webhook: it carries no signature")
        keys, algorithm = self._keys_for(request.headers.get(SETTINGS))
        pairs = signed_pairs(request)
        urls = _spellings(request.url)
        if not any(hmac.compare_digest(_sign(url, pairs, key, algorithm), given) for url in urls for key in keys):
            raise AccessDenied("twilio webhook: the signature does not match; check the auth token and the public URL")

    def sign(self, request: WebhookRequest, *, shared_key: str | None = None) -> WebhookRequest:
        """The request as Twilio would send it; JSON gets its `bodySHA256`."""
        if is_json(request) and "bodySHA256=" not in request.url:
            joint = "&" if urlsplit(request.url).query else "?"
            request = replace(request, url=f"{request.url}{joint}bodySHA256={hashlib.sha256(request.body).hexdigest()}")
        headers = {name: value for name, value in request.headers.items() if name not in {HEADER, SETTINGS}}
        if shared_key is not None:
            headers[SETTINGS] = f"key={shared_key},algorithm=HMAC_SHA256"
        keys, algorithm = self._keys_for(headers.get(SETTINGS))
        if not keys:
            raise ConfigError("twilio webhook: no auth token to sign with; set TWILIO_AUTH_TOKEN")
        headers[HEADER] = _sign(request.url, signed_pairs(request), keys[0], algorithm).decode()
        return replace(request, headers=headers)

    def _keys_for(self, settings: str | None) -> tuple[Sequence[str], str]:
        if not settings:
            tokens = tuple(filter(None, self.auth_tokens))  # an empty one is anybody's
            if not tokens:
                raise AccessDenied("twilio webhook: no auth token is configured, so nothing is accepted")
            return tokens, "sha1"
        named = dict(part.strip().split("=", 1) for part in settings.split(",") if "=" in part)
        key = self.shared_keys.get(named.get("key", ""))
        if not key or named.get("algorithm", "").upper() != "HMAC_SHA256":
            raise AccessDenied("twilio webhook: it is signed with a key or in a way that is not configured")
        return (key,), "sha256"


def is_json(request: WebhookRequest) -> bool:
    return request.headers.get("content-type", "").split(";")[0].strip().lower() == "application/json"


def form_of(request: WebhookRequest) -> Pairs:
    """The parameters of a form webhook; of a GET those in the URL. `AccessDenied` when they are not clean UTF-8."""
    try:
        raw = urlsplit(request.url).query if request.method == "GET" else request.body.decode("ascii")
        return parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=300)
    except ValueError as error:
        raise AccessDenied("twilio webhook: the parameters are malformed") from error


def signed_pairs(request: WebhookRequest) -> Pairs:
    """The parameters signed beside the URL; where the body's hash stands for them, it is checked."""
    if is_json(request):
        hashes = [value for name, value in parse_qsl(urlsplit(request.url).query) if name == "bodySHA256"]
        actual = hashlib.sha256(request.body).hexdigest().encode()
        if len(hashes) != 1 or not hmac.compare_digest(hashes[0].lower().encode(), actual):
            raise AccessDenied("twilio webhook: the body is not the one that was signed")
        return ()
    return () if request.method == "GET" else form_of(request)


def _sign(url: str, pairs: Pairs, key: str, algorithm: str) -> bytes:
    # Twilio signs a name's distinct values in order, once each.
    text = url + "".join(name + value for name, value in sorted(set(pairs)))
    return base64.b64encode(hmac.new(key.encode(), text.encode(), algorithm).digest())


def _spellings(url: str) -> set[str]:
    """Twilio signs some requests with the port in the URL and some without; both of the configured URL are right."""
    parts = urlsplit(url)
    bare = _PORT.sub("", parts.netloc)
    port = f"{bare}:{443 if parts.scheme == 'https' else 80}"
    spelled = {url, urlunsplit(parts._replace(netloc=bare))}
    return spelled if parts.port else {*spelled, urlunsplit(parts._replace(netloc=port))}
