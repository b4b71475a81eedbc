"""`roomkit send` for chat networks: what Telegram, WhatsApp and Messenger would post."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from roomkit.channels.providers import find_provider
from roomkit.errors import UsageError
from roomkit.models.delivery import WebhookRequest
from roomkit.runtime import SystemClock

if TYPE_CHECKING:
    from roomkit.cli.send import SendOptions


def telegram(options: SendOptions, url: str) -> WebhookRequest:
    """A text from a person (a number); `--to` is the chat where it is not theirs."""
    now, person = int(SystemClock().now().timestamp()), _number(options.sender)
    chat = _number(options.to or options.sender)
    message = {
        "message_id": _number(options.message_id) if options.message_id else secrets.randbelow(2**31),
        "from": {"id": person, "is_bot": False, "first_name": options.sender},
        "chat": {"id": chat, "type": "private" if chat == person else "group"},
        "date": now,
        "text": options.text,
    }
    return _signed(
        find_provider("telegram", "telegram"), url, {"update_id": secrets.randbelow(2**31), "message": message}
    )


def whatsapp(options: SendOptions, url: str) -> WebhookRequest:
    """A text from a phone number."""
    provider: Any = find_provider("meta", "whatsapp")
    sender = options.sender.removeprefix("+")
    message = {
        "from": sender,
        "id": options.message_id or f"wamid.{secrets.token_hex(16)}",
        "timestamp": str(int(SystemClock().now().timestamp())),
        "type": "text",
        "text": {"body": options.text},
    }
    metadata = {"display_phone_number": options.to or "", "phone_number_id": provider.options.account}
    value = {
        "messaging_product": "whatsapp",
        "metadata": metadata,
        "contacts": [{"profile": {"name": options.sender}, "wa_id": sender}],
        "messages": [message],
    }
    entry = {"id": "0", "changes": [{"field": "messages", "value": value}]}
    return _signed(provider, url, {"object": "whatsapp_business_account", "entry": [entry]})


def messenger(options: SendOptions, url: str) -> WebhookRequest:
    """A text from a person, by their id for the page."""
    provider: Any = find_provider("meta", "messenger")
    page, now = provider.options.account, int(SystemClock().now().timestamp() * 1000)
    event = {
        "sender": {"id": options.sender},
        "recipient": {"id": page},
        "timestamp": now,
        "message": {"mid": options.message_id or f"m_{secrets.token_hex(16)}", "text": options.text},
    }
    return _signed(provider, url, {"object": "page", "entry": [{"id": page, "time": now, "messaging": [event]}]})


def _number(text: str) -> int:
    digits = text.removeprefix("+")
    if not digits.removeprefix("-").isdecimal():
        raise UsageError(f'"{text}" is no number; Telegram knows people, chats and messages by numbers')
    return int(digits)


def _signed(provider: Any, url: str, body: Any) -> WebhookRequest:
    headers = {"content-type": "application/json"}
    return provider.sign(WebhookRequest("POST", url, headers, json.dumps(body).encode()))


MAKERS: dict[str, Callable[[SendOptions, str], WebhookRequest]] = {
    "telegram": telegram,
    "whatsapp": whatsapp,
    "messenger": messenger,
}
