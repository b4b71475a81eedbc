"""Elastic Email's webhooks, checked and read: notifications (query, form or JSON) and letters of an inbound route.

Notifications can be signed (`EnableSigning`, set when the webhook is made; its `DeliveryMethod` must be `PostJson`):
HMAC-SHA256 in `X-ElasticEmail-Signature: v1=...`. The vendor's package names the headers, and neither it nor the
documentation says what exactly is signed: `timestamp.body` is what we take, and an option tells otherwise. Letters, and
notifications that are not signed, carry a secret of ours in the URL: `?token=...`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email import message_from_string, policy
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from roomkit.errors import AccessDenied, ConfigError
from roomkit.models.content import UnknownContent
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.protocols.mail.form import read_form
from roomkit.protocols.mail.letter import Headers, Letter, MailFile, letter_of, read_headers, safe_name
from roomkit.protocols.mail.trust import verdict_of
from roomkit.providers.mail import MailDesk, raw_of
from roomkit.providers.vendor_json import table, word
from roomkit.runtime import Clock

SIGNATURE = "x-elasticemail-signature"
TIMESTAMP = "x-elasticemail-timestamp"
WEBHOOK_ID = "x-elasticemail-webhook-id"
STATES = {
    "Sent": DeliveryState.DELIVERED,  # the receiver's mail server has taken it
    "Opened": DeliveryState.READ,
    "Clicked": DeliveryState.READ,
    "Error": DeliveryState.FAILED,
}
_OPT_OUTS = {"AbuseReport": "stop", "Unsubscribed": "stop"}
_LETTER = frozenset({"from_email", "body_text", "body_html", "header_list", "env_from"})
_FILE = re.compile(r"att(\d{1,3})_name")
_MOST_FIELDS = 1_000


@dataclass(frozen=True, slots=True)
class ElasticEmailKeys:
    """`secrets` check signatures, `token` what is not signed. `signed` are the parts that a signature covers, joined by
    dots: "timestamp", "body" and "id" (of the webhook)."""

    secrets: tuple[str, ...] = field(repr=False)
    token: str | None = field(repr=False)
    signed: tuple[str, ...]
    clock: Clock
    freshness_s: float

    def __post_init__(self) -> None:
        """An empty secret or token is anybody's: it counts as none."""
        object.__setattr__(self, "secrets", tuple(filter(None, self.secrets)))
        object.__setattr__(self, "token", self.token or None)

    def verify(self, request: WebhookRequest) -> None:
        """Raises `AccessDenied` unless it is signed and fresh, or has the token."""
        if not self.secrets and self.token is None:
            raise AccessDenied("elasticemail webhook: neither secret nor token is configured, so nothing is accepted")
        if SIGNATURE in request.headers or self.token is None:
            self._verify_signature(request)
            return
        given = _query(request).get("token", "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise AccessDenied("elasticemail webhook: the URL has no token, or a wrong one")

    def _verify_signature(self, request: WebhookRequest) -> None:
        stamp = request.headers.get(TIMESTAMP, "")
        if not (stamp.isascii() and stamp.isdecimal()) or len(stamp) > 12:
            raise AccessDenied("elasticemail webhook: it carries no timestamp")
        given = request.headers.get(SIGNATURE, "").strip().encode()
        expected = [b"v1=" + self._signature(secret, request, stamp) for secret in self.secrets]
        if not any(hmac.compare_digest(mine, given) for mine in expected):
            raise AccessDenied("elasticemail webhook: the signature does not match; check the secret")
        if "timestamp" not in self.signed:
            return
        age = self.clock.now().timestamp() - int(stamp)
        if abs(age) > self.freshness_s:
            told = f"elasticemail webhook: the timestamp is {age:.0f} s old; check the clocks, or it is a replay"
            raise AccessDenied(told)

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        if self.secrets:
            stamp = str(int(self.clock.now().timestamp()))
            signature = self._signature(self.secrets[0], request, stamp).decode()
            return replace(request, headers={**request.headers, TIMESTAMP: stamp, SIGNATURE: f"v1={signature}"})
        if self.token is None:
            raise ConfigError("elasticemail webhook: nothing to sign with; set ELASTICEMAIL_WEBHOOK_TOKEN")
        parts = urlsplit(request.url)
        query = {**dict(parse_qsl(parts.query)), "token": self.token}
        return replace(request, url=urlunsplit(parts._replace(query=urlencode(query))), query=query)

    def _signature(self, secret: str, request: WebhookRequest, stamp: str) -> bytes:
        known = {"timestamp": stamp.encode(), "body": request.body}
        known["id"] = request.headers.get(WEBHOOK_ID, "").encode()
        signed = b".".join(known[part] for part in self.signed)
        return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode()


def parse(request: WebhookRequest, channel_id: str, desk: MailDesk) -> list[InboundMessage | DeliveryStatus]:
    """Nothing but for the request with which a webhook is tried out when it is saved, which says nothing."""
    fields = _fields(request)
    if _LETTER & fields.keys():
        letter = _letter(fields)
        shown = {name: value for name, value in fields.items() if not name.endswith("_content")}
        verdict = verdict_of(letter, desk.settings.trusted_servers)
        return desk.read(letter, channel_id, verdict, {**raw_of(letter), "fields": shown})
    if not fields and not request.body:
        return []
    return [_event(fields, request, channel_id)]


def _event(fields: Mapping[str, str], request: WebhookRequest, channel_id: str) -> InboundMessage | DeliveryStatus:
    status = fields.get("status", "")
    state, ident = STATES.get(status), fields.get("messageid", "")
    raw: object = dict(fields) or request.body.decode("utf-8", "replace")
    if state is not None and ident:
        failed = state is DeliveryState.FAILED
        category = fields.get("category") or None
        return DeliveryStatus(
            channel_id=channel_id,
            provider_message_id=ident,
            state=state,
            error=(category or "it could not be delivered") if failed else None,
            code=category if failed else None,
            raw_payload=raw,
        )
    said = _OPT_OUTS.get(status)
    known = json.dumps(sorted(fields.items())).encode() if fields else request.body
    return InboundMessage(
        channel_id=channel_id,
        sender_id=fields.get("to", "").strip().lower() or "unknown",
        content=UnknownContent(kind=(status or "malformed")[:80]),
        external_id=hashlib.sha256(known).hexdigest()[:40],
        addressed_to=(),
        visibility="internal",
        provider="elasticemail",
        raw_payload=raw,
        metadata={"opt_out": said} if said else {},
    )


def _letter(fields: Mapping[str, str]) -> Letter:
    message = message_from_string(fields.get("header_list", ""), policy=policy.compat32)
    headers: Headers = read_headers(message)
    names = {name for name, _ in headers}
    name, address = fields.get("from_name", ""), fields.get("from_email", "")
    quoted = name.replace('"', "").replace("\\", "")
    said = {
        "from": f'"{quoted}" <{address}>' if quoted.strip() else address,
        "to": fields.get("to_list", ""),
        "subject": fields.get("subject", ""),
    }
    more = tuple((name, value) for name, value in said.items() if value and name not in names)
    received = tuple(("envelope-to", one.strip()) for one in re.split(r"[,;\s]+", fields.get("env_to_list", "")) if one)
    report = message.get_param("report-type")
    return letter_of(
        (*headers, *more, *received),
        [(fields.get("body_text"), fields.get("body_html"))],
        _files(fields),
        message.get_content_type(),
        report if isinstance(report, str) else None,
    )


def _files(fields: Mapping[str, str]) -> list[MailFile]:
    found: list[MailFile] = []
    for name, value in fields.items():
        match = _FILE.fullmatch(name)
        if match is None:
            continue
        try:
            data = base64.b64decode(fields.get(f"att{match[1]}_content", ""))
        except ValueError:
            data = b""
        known = safe_name(value, f"file-{match[1]}")
        found.append(MailFile(known, mimetypes.guess_type(known)[0] or "application/octet-stream", data))
    return found[:100]


def _fields(request: WebhookRequest) -> dict[str, str]:
    """What it says, in the query or in a body of whichever kind; the token is not said. Of what is posted or signed the
    query counts for nothing: no signature covers it."""
    body, kind = request.body, request.headers.get("content-type", "").lower()
    found: dict[str, str] = {}
    if request.method == "GET" and SIGNATURE not in request.headers:
        found = _query(request)
    elif body.startswith(b"--") and (form := read_form(body)).fields:
        found = {name: form.text(name) for name in form.fields}
    elif body.lstrip()[:1] in (b"{", b"["):
        found = {name: word(value, 1_000_000) for name, value in _json(body).items()}
    elif "=" in body[:2_000].decode("latin-1") or "urlencoded" in kind:
        text = body.decode("utf-8", "replace")
        found = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    return {name: value.replace("\x00", "\ufffd") for name, value in found.items() if name != "token"}


def _json(body: bytes) -> Mapping[str, object]:
    try:
        return table(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _query(request: WebhookRequest) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True)[:_MOST_FIELDS])
