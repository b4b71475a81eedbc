"""HTTPWebhooks: messages in and out as signed JSON, after the Standard Webhooks scheme.

A request carries `webhook-id`, `webhook-timestamp` (seconds) and `webhook-signature` (`v1,` and the base64 HMAC-SHA256
of `id.timestamp.body`). In: `{"type": "message", "id", "sender", "text" | "content", "sender_name"}` or
`{"type": "status", "message_id", "state", "error"}`. Out: `{"type": "message", "id", "room_id", "event_id", "text",
"content", "part", "parts"}`; any 2xx answer accepts it, and its JSON may name the receiver's own `id`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter, ValidationError

from roomkit.errors import ConfigError
from roomkit.models.content import Content, TextContent, UnknownContent
from roomkit.models.delivery import (
    DeliveryResult,
    DeliveryState,
    DeliveryStatus,
    InboundMessage,
    Outgoing,
    WebhookReply,
    WebhookRequest,
)
from roomkit.models.event import EventType
from roomkit.net.ssrf import Fetcher, FetchPolicy, Resolver
from roomkit.providers.standard_webhooks import StandardWebhooks
from roomkit.runtime import Clock, SystemClock

if TYPE_CHECKING:
    import httpx2

_CONTENT: TypeAdapter[Content] = TypeAdapter(Content)
# What a program outside may not claim to be: the framework or an agent.
_INTERNAL = frozenset({"system", "tool_call", "unknown"})
_EVENT_TYPES = {"edit": EventType.EDIT, "delete": EventType.DELETE, "reaction": EventType.REACTION}


@dataclass(frozen=True, slots=True)
class HTTPWebhookOptions:
    """`secrets`: the first signs, all are accepted, so that keys can be changed without a gap; either any text of 16
    characters or more, or `whsec_` and base64. Times in seconds. `allowed_networks` (CIDR) may be posted to although
    they are not public."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    freshness_s: float = 300.0
    timeout_s: float = 10.0
    https_only: bool = False
    allowed_networks: tuple[str, ...] = ()
    max_answer_bytes: int = 65_536


class HTTPWebhooks:
    """The `MessageProvider` of `HTTPChannel`. The recipient of a message is the URL that it is posted to."""

    name = "http"

    def __init__(
        self,
        options: HTTPWebhookOptions,
        *,
        clock: Clock | None = None,
        resolver: Resolver | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._options = options
        self._signatures = StandardWebhooks(
            options.secrets,
            who="http webhook",
            fix="give secret= to HTTPChannel",
            clock=clock or SystemClock(),
            freshness_s=options.freshness_s,
        )
        self._network = (resolver, transport)
        self._fetcher: Fetcher | None = None

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Posts to `message.recipient`; only public addresses, no redirects."""
        body = {
            "type": "message",
            "id": message.idempotency_key,
            "room_id": message.room_id,
            "event_id": message.event_id,
            "channel_id": message.channel_id,
            "text": message.text,
            "content": message.content.model_dump(mode="json", exclude_none=True),
            "part": message.part,
            "parts": message.parts,
        }
        signed = self._signatures.sign(
            WebhookRequest("POST", message.recipient, {"content-type": "application/json"}, json.dumps(body).encode()),
            message.idempotency_key,
        )
        answer = await self._fetch().fetch(
            message.recipient, method="POST", headers=signed.headers, content=signed.body
        )
        return DeliveryResult(
            success=True,
            state=DeliveryState.DELIVERED,
            provider_message_id=_their_id(answer.body) or message.idempotency_key,
        )

    def verify(self, request: WebhookRequest) -> None:
        self._signatures.verify(request)

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        ident = request.headers.get("webhook-id", "")
        try:
            data = json.loads(request.body)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            return [_unknown(channel_id, ident, "malformed", request.body.decode("utf-8", "replace"))]
        data = cast("dict[str, Any]", data)
        kind = data.get("type", "message")
        if kind == "status" and (status := _status(data, channel_id)) is not None:
            return [status]
        if kind != "message":
            return [_unknown(channel_id, ident, str(kind)[:80], data)]
        return [_message(data, channel_id, ident)]

    def reply(self, request: WebhookRequest) -> WebhookReply:
        return WebhookReply(200, b"{}", "application/json")

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return self._signatures.sign(request)

    async def aclose(self) -> None:
        if self._fetcher is not None:
            await self._fetcher.aclose()
            self._fetcher = None

    def _fetch(self) -> Fetcher:
        if self._fetcher is None:
            options, (resolver, transport) = self._options, self._network
            policy = FetchPolicy(
                max_bytes=options.max_answer_bytes,
                total_s=options.timeout_s,
                https_only=options.https_only,
                allowed_networks=options.allowed_networks,
            )
            self._fetcher = Fetcher(policy, resolver=resolver, transport=transport, who=self.name)
        return self._fetcher


def provider(account: str | None = None, *, secrets: Iterable[str] = (), **options: Any) -> HTTPWebhooks:
    """The provider by name; there are no accounts to choose from."""
    if account is not None:
        raise ConfigError(f'provider "http:{account}": http has no accounts; write "http" and give secret=')
    return HTTPWebhooks(HTTPWebhookOptions(secrets=tuple(secrets), **options))


def _their_id(body: bytes) -> str | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    ident = cast("dict[str, Any]", answer).get("id") if isinstance(answer, dict) else None
    return str(ident)[:200] if isinstance(ident, str | int) else None


def _message(data: Mapping[str, Any], channel_id: str, ident: str) -> InboundMessage:
    raw = data.get("content")
    if raw is None and isinstance(text := data.get("text"), str):
        raw = {"type": "text", "text": text}
    try:
        content: Content = _CONTENT.validate_python(raw)
    except ValidationError:
        content = UnknownContent(kind="invalid_content")
    if content.type in _INTERNAL and not isinstance(content, UnknownContent):
        content = UnknownContent(kind=content.type)
    if isinstance(content, TextContent) and not content.text:
        content = UnknownContent(kind="empty_message")
    return InboundMessage(
        channel_id=channel_id,
        sender_id=str(data.get("sender") or "unknown")[:200],
        content=content,
        type=_EVENT_TYPES.get(content.type, EventType.MESSAGE),
        external_id=str(data.get("id") or ident)[:200] or None,
        sender_name=str(data["sender_name"])[:200] if data.get("sender_name") else None,
        provider=HTTPWebhooks.name,
        raw_payload=data,
    )


def _status(data: Mapping[str, Any], channel_id: str) -> DeliveryStatus | None:
    state = data.get("state")
    if not isinstance(data.get("message_id"), str) or state not in {"sent", "delivered", "read", "failed"}:
        return None
    return DeliveryStatus(
        channel_id=channel_id,
        provider_message_id=data["message_id"],
        state=DeliveryState(state),
        error=str(data["error"])[:500] if data.get("error") else None,
        raw_payload=data,
    )


def _unknown(channel_id: str, ident: str, kind: str, raw: Any) -> InboundMessage:
    return InboundMessage(
        channel_id=channel_id,
        sender_id="unknown",
        content=UnknownContent(kind=kind),
        external_id=ident or None,
        provider=HTTPWebhooks.name,
        raw_payload=raw,
    )
