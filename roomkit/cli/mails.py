"""`roomkit send` for email: what SendGrid and Elastic Email would post, and a whole letter for SMTPProvider."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from roomkit.channels.providers import find_provider
from roomkit.errors import UsageError
from roomkit.models.delivery import WebhookRequest
from roomkit.runtime import SystemClock

if TYPE_CHECKING:
    from roomkit.cli.send import SendOptions

_BOUNDARY = "roomkit-send"


def sendgrid(options: SendOptions, url: str) -> WebhookRequest:
    """A letter as Inbound Parse posts it, signed with SENDGRID_SIGNING_KEY."""
    provider: Any = find_provider("sendgrid", "email")
    to = _to(options, provider)
    fields = {
        "headers": _head(options, to),
        "from": options.sender,
        "to": to,
        "subject": _subject(options),
        "text": options.text,
        "envelope": json.dumps({"to": [to], "from": options.sender}),
        "charsets": json.dumps({"to": "UTF-8", "from": "UTF-8", "subject": "UTF-8", "text": "UTF-8"}),
    }
    body = "".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    headers = {"content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
    return provider.sign(WebhookRequest("POST", url, headers, f"{body}--{_BOUNDARY}--\r\n".encode()))


def elasticemail(options: SendOptions, url: str) -> WebhookRequest:
    """A letter as an inbound route posts it, with the secret or the token of ours."""
    provider: Any = find_provider("elasticemail", "email")
    to = _to(options, provider)
    fields = {
        "from_email": options.sender,
        "env_from": options.sender,
        "env_to_list": to,
        "to_list": to,
        "header_list": _head(options, to),
        "subject": _subject(options),
        "body_text": options.text,
    }
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return provider.sign(WebhookRequest("POST", url, headers, urlencode(fields).encode()))


def smtp(options: SendOptions, url: str) -> WebhookRequest:
    """A whole letter, signed with SMTP_WEBHOOK_SECRET."""
    provider: Any = find_provider("smtp", "email")
    head = f"{_head(options, _to(options, provider))}Content-Type: text/plain; charset=utf-8\r\n"
    headers = {"content-type": "message/rfc822"}
    return provider.sign(WebhookRequest("POST", url, headers, f"{head}\r\n{options.text}\r\n".encode()))


def _to(options: SendOptions, provider: Any) -> str:
    if "@" not in options.sender or any(sign.isspace() for sign in options.sender):
        raise UsageError(f'--from "{options.sender}" is no email address; write e.g. ada@example.org')
    return options.to or provider.options.mail.from_address or "help@example.org"


def _head(options: SendOptions, to: str) -> str:
    ident = options.message_id or f"{secrets.token_hex(12)}@{options.sender.rpartition('@')[2]}"
    lines = {
        "From": options.sender,
        "To": to,
        "Subject": _subject(options),
        "Message-ID": f"<{ident}>",
        "Date": format_datetime(SystemClock().now()),
    }
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items())


def _subject(options: SendOptions) -> str:
    return " ".join(options.text.split())[:60] or "A letter"


MAKERS: dict[str, Callable[[SendOptions, str], WebhookRequest]] = {
    "sendgrid": sendgrid,
    "elasticemail": elasticemail,
    "smtp": smtp,
}
