"""`roomkit send`: a webhook as a vendor would send it, with a good signature, made with your own keys."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from roomkit.channels.providers import find_provider
from roomkit.cli import chats, mails, networks
from roomkit.cli.console import clean, fail, say
from roomkit.cli.demo import ACCOUNT, NUMBER, phone_secret
from roomkit.cli.environment import need, secret_of
from roomkit.cli.serving import run_async
from roomkit.errors import ConfigError, UsageError
from roomkit.models.delivery import WebhookRequest

HTTP_SECRET = "ROOMKIT_WEBHOOK_SECRET"  # noqa: S105 - the name of the variable, not a secret


@dataclass(frozen=True, slots=True)
class SendOptions:
    channel: str
    text: str
    sender: str
    to: str | None = None
    url: str = "http://127.0.0.1:8000"
    public_url: str | None = None
    provider: str = "twilio"
    message_id: str | None = None
    db: Path | None = None


def send_message(options: SendOptions) -> int:
    """Posts it and tells the answer; 0 when it was accepted, else 1."""
    need("roomkit send", "http", "httpx2")
    for name, url in (("--url", options.url), ("--public-url", options.public_url)):
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
            raise UsageError(f'{name} "{url}" is not a URL; write e.g. http://127.0.0.1:8000')
    return run_async(_send(signed(options), options))


def signed(options: SendOptions) -> WebhookRequest:
    """The request, signed over the public address of the webhook. Raises `UsageError`, or `ConfigError` for missing
    keys."""
    make = _MAKERS.get(options.provider)
    if make is None:
        raise UsageError(
            f'--provider "{options.provider}" is not one that can be simulated; use {" or ".join(_MAKERS)}'
        )
    url = f"{(options.public_url or options.url).rstrip('/')}/webhooks/{options.channel}"
    return make(options, url)


async def _send(request: WebhookRequest, options: SendOptions) -> int:
    import httpx2

    from roomkit.net.client import ClientOptions, http_client

    query = urlsplit(request.url).query  # a signature may stand in it
    address = f"{options.url.rstrip('/')}/webhooks/{options.channel}" + (f"?{query}" if query else "")

    async with http_client(ClientOptions(read_s=15.0)) as client:
        try:
            answer = await client.post(address, content=request.body, headers=dict(request.headers))
        except httpx2.TransportError as error:
            return fail(f"{options.url} does not answer ({type(error).__name__}); start the server, or give its --url")
    if answer.is_success:
        say(f'accepted ({answer.status_code}): "{options.text}" from {options.sender} to channel {options.channel}')
        return 0
    hint = {
        403: "; your key or --public-url differs from the server's",
        404: f'; the server has no channel "{options.channel}": --channel takes the id with which it was registered',
    }.get(answer.status_code, "")
    return fail(f"the server answered {answer.status_code}, {clean(_reason(answer.text))}{hint}")


def _reason(body: str) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200]


def _twilio(options: SendOptions, url: str) -> WebhookRequest:
    """A message by SMS, or by the network that --provider names."""
    kind = options.provider.partition("-")[2] or "sms"
    prefix = "" if kind == "sms" else f"{kind}:"
    if options.db is not None:
        module: Any = import_module("roomkit.providers.twilio.sms")
        keys = module.TwilioOptions(ACCOUNT, auth_token=phone_secret(_secret(options.db)), from_number=NUMBER)
        provider: Any = module.TwilioSMSProvider(keys)
    else:
        provider = find_provider("twilio", kind)
    sid = options.message_id or f"SM{secrets.token_hex(16)}"
    form = {
        "AccountSid": provider.options.account_sid,
        "MessageSid": sid,
        "SmsSid": sid,
        "SmsStatus": "received",
        "From": f"{prefix}{options.sender}",
        "To": f"{prefix}{(options.to or provider.options.from_number or NUMBER).removeprefix(prefix)}",
        "Body": options.text,
        "NumMedia": "0",
        "NumSegments": "1",
        "ApiVersion": "2010-04-01",
    }
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return provider.sign(WebhookRequest("POST", url, headers, urlencode(form).encode()))


def _secret(db: Path) -> str:
    if not db.exists():
        raise UsageError(f'--db "{db}" does not exist; name the file of the running demo')
    return secret_of(db)


def _http(options: SendOptions, url: str) -> WebhookRequest:
    import os

    secret = os.environ.get(HTTP_SECRET)
    if not secret:
        raise ConfigError(
            f"--provider http needs the channel's secret; set {HTTP_SECRET} in the environment or in .env"
        )
    message_id = options.message_id or secrets.token_hex(12)
    body = {"type": "message", "id": message_id, "sender": options.sender, "text": options.text}
    headers = {"content-type": "application/json", "webhook-id": message_id}
    return find_provider("http", "http", secrets=(secret,)).sign(
        WebhookRequest("POST", url, headers, json.dumps(body).encode())
    )


def _telnyx(options: SendOptions, url: str) -> WebhookRequest:
    provider: Any = find_provider("telnyx", "sms")
    ident = options.message_id or secrets.token_hex(16)
    payload: dict[str, Any] = {
        "id": ident,
        "record_type": "message",
        "direction": "inbound",
        "type": "SMS",
        "from": {"phone_number": options.sender},
        "to": [{"phone_number": options.to or provider.options.from_number or NUMBER, "status": "webhook_delivered"}],
        "text": options.text,
        "media": [],
    }
    if options.provider == "telnyx-rcs":
        agent = options.to or provider.options.agent_id or "agent"
        payload |= {"type": "RCS", "to": [{"agent_id": agent}], "text": None, "body": {"text": options.text}}
    data = {"record_type": "event", "id": ident, "event_type": "message.received", "payload": payload}
    return _json(provider, url, {"data": data})


def _sinch(options: SendOptions, url: str) -> WebhookRequest:
    provider: Any = find_provider("sinch", "sms")
    body = {
        "type": "mo_text",
        "id": options.message_id or secrets.token_hex(13),
        "from": options.sender.removeprefix("+"),
        "to": (options.to or provider.options.from_number or NUMBER).removeprefix("+"),
        "body": options.text,
    }
    return _json(provider, url, body)


def _json(provider: Any, url: str, body: Any) -> WebhookRequest:
    headers = {"content-type": "application/json"}
    return provider.sign(WebhookRequest("POST", url, headers, json.dumps(body).encode()))


_MAKERS: dict[str, Callable[[SendOptions, str], WebhookRequest]] = {
    "twilio": _twilio,
    "twilio-rcs": _twilio,
    "twilio-whatsapp": _twilio,
    "http": _http,
    "telnyx": _telnyx,
    "telnyx-rcs": _telnyx,
    "sinch": _sinch,
    **chats.MAKERS,
    **networks.MAKERS,
    **mails.MAKERS,
}
