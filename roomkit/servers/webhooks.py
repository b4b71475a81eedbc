"""What vendors call: verified over the raw body, acknowledged after the commit, one effect per vendor id."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request
from starlette.responses import Response

from roomkit.errors import AccessDenied, ProtocolError, ProviderError, RoomKitError
from roomkit.models.delivery import DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.runtime import bounded
from roomkit.servers.problems import Draining, NotFound, answer, problem
from roomkit.servers.rest.api import read_body

if TYPE_CHECKING:
    from roomkit.ports.message import MessageProvider
    from roomkit.servers.door import Door

log = logging.getLogger(__name__)
ACKNOWLEDGE_S = 3.0


async def webhook(door: Door, request: Request) -> Response:
    """`POST /webhooks/{channel_id}`, or a GET by which a vendor makes sure of the address. Refused unread: no secret,
    bad signature, stale, too large."""
    try:
        return await _handle(door, request)
    except AccessDenied as error:
        log.warning("a webhook of channel %s was refused: %s", request.path_params["channel"], error)
        return answer(_refusal(door, request), "forbidden", "the webhook could not be verified")
    except (ProtocolError, ValueError, RecursionError) as error:
        log.warning("a verified webhook of channel %s cannot be read: %s", request.path_params["channel"], error)
        return answer(400, "bad_request", "the webhook cannot be read")
    except RoomKitError as error:
        # Overloaded or a store that refuses: not acknowledged, so that the vendor sends it again.
        return problem(error)


async def _handle(door: Door, request: Request) -> Response:
    if door.draining:
        raise Draining("the server is going away; send it again")
    channel_id: str = request.path_params["channel"]
    channel, tenant = door.channel(channel_id)
    if channel is None:
        raise NotFound("there is no such webhook")
    provider = cast("MessageProvider | None", getattr(channel, "provider", None))
    if provider is None or not hasattr(provider, "verify"):
        raise AccessDenied("the channel has no provider that could verify it")
    limit = max(door.options.webhook_bytes, getattr(provider, "webhook_bytes", 0))
    received = WebhookRequest(
        method=request.method,
        url=_public_url(door, channel_id, request),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=await read_body(request, limit, door.options.request_s),
        query=dict(request.query_params),
    )
    if (prepare := getattr(provider, "prepare", None)) is not None:
        await prepare(received)
    provider.verify(received)
    if (remember := getattr(provider, "remember", None)) is not None:
        await remember(received)
    rooms = door.kit.tenant(tenant)
    for item in provider.parse(received, channel_id):
        if isinstance(item, DeliveryStatus):
            await rooms.delivery_status(item)
        else:
            result = await rooms.process_inbound(item)
            if not result.duplicate and hasattr(provider, "acknowledge"):
                await _acknowledge(provider, item)
    reply = provider.reply(received)
    return Response(reply.body, reply.status, media_type=reply.content_type)


def _refusal(door: Door, request: Request) -> int:
    """Some vendors want to be refused in a way of their own."""
    channel, _ = door.channel(request.path_params["channel"])
    return int(getattr(getattr(channel, "provider", None), "refusal_status", 403))


async def _acknowledge(provider: Any, message: InboundMessage) -> None:
    """Tells the vendor that the message is read, or being answered, where the provider does that. It is in the room
    whatever comes of it."""
    try:
        await bounded(provider.acknowledge(message), ACKNOWLEDGE_S, "acknowledging a message")
    except (ProviderError, TimeoutError) as error:
        log.info("a message of channel %s was taken in and could not be acknowledged: %s", message.channel_id, error)


def _public_url(door: Door, channel_id: str, request: Request) -> str:
    """What the vendor called, as configured: forwarded headers and Host never count."""
    query = request.url.query
    return f"{door.options.base_url or ''}/webhooks/{channel_id}{'?' + query if query else ''}"
