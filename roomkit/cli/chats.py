"""`roomkit send` for the chat programs of teams: what Slack, Discord and Teams would post."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from roomkit.channels.providers import find_provider
from roomkit.models.delivery import WebhookRequest
from roomkit.runtime import SystemClock

if TYPE_CHECKING:
    from roomkit.cli.send import SendOptions


def slack(options: SendOptions, url: str) -> WebhookRequest:
    """A message event; `--to` is the conversation, a direct message unless it says otherwise."""
    where = options.to or f"D{options.sender.removeprefix('U')}"
    ts = f"{SystemClock().now().timestamp():.6f}"
    event = {
        "type": "message",
        "channel_type": "im" if where.startswith("D") else "channel",
        "channel": where,
        "user": options.sender,
        "text": options.text,
        "ts": options.message_id or ts,
        "event_ts": ts,
    }
    body = {"type": "event_callback", "team_id": "T0", "event_id": f"Ev{secrets.token_hex(5)}", "event": event}
    return _signed(find_provider("slack", "slack"), url, body)


def discord(options: SendOptions, url: str) -> WebhookRequest:
    """The command `/ask`; `--to` is the channel. Needs DISCORD_SIGNING_KEY: Discord's own key nobody else has."""
    user = {"id": options.sender, "username": options.sender}
    body = {
        "type": 2,
        "version": 1,
        "application_id": "0",
        "id": options.message_id or str(secrets.randbits(62)),
        "token": secrets.token_hex(16),
        "channel_id": options.to or options.sender,
        "user": user,
        "data": {"id": "0", "type": 1, "name": "ask", "options": [{"type": 3, "name": "text", "value": options.text}]},
    }
    return _signed(find_provider("discord", "discord"), url, body)


def teams(options: SendOptions, url: str) -> WebhookRequest:
    """A message activity; `--to` is the conversation. Needs TEAMS_SIGNING_KEY: Microsoft's own key nobody else has."""
    provider: Any = find_provider("teams", "teams")
    where = options.to or f"a:{options.sender}"
    activity = {
        "type": "message",
        "id": options.message_id or secrets.token_hex(8),
        "timestamp": SystemClock().now().isoformat(),
        "serviceUrl": provider.options.service_url,
        "channelId": "msteams",
        "from": {"id": options.sender, "name": options.sender},
        "conversation": {"id": where, "conversationType": "channel" if where.startswith("19:") else "personal"},
        "recipient": {"id": f"28:{provider.options.app_id}", "name": "bot"},
        "text": options.text,
        "textFormat": "plain",
    }
    return _signed(provider, url, activity)


def _signed(provider: Any, url: str, body: Any) -> WebhookRequest:
    headers = {"content-type": "application/json"}
    return provider.sign(WebhookRequest("POST", url, headers, json.dumps(body).encode()))


MAKERS: dict[str, Callable[[SendOptions, str], WebhookRequest]] = {
    "slack": slack,
    "discord": discord,
    "teams": teams,
}
