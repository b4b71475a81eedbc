"""MessageProvider: one vendor's way of sending, and of proving and reading its webhooks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from roomkit.models.delivery import (
    DeliveryResult,
    DeliveryStatus,
    InboundMessage,
    Outgoing,
    WebhookReply,
    WebhookRequest,
)


@runtime_checkable
class MessageProvider(Protocol):
    """Sends and receives messages through one vendor account. `name` is the vendor's, e.g. "twilio".

    Where a vendor needs more, a provider may have: `async prepare(request)`, called before `verify` for what that
    cannot wait for (published keys; it must trust nothing in the request); `async remember(request)`, called after
    it, before the messages are taken in, for what must outlive the process; `keep_in(vault)`, which hands it the
    `VaultPort` to keep that in; `async continuing(event, binding, context)`, which adds to `Outgoing.extra` what a
    message has to know of its room; `async fetch_media(attachment, policy)` and `async aclose()`;
    `adapt(capabilities)`, which says what the network can carry through this vendor; `async acknowledge(message)`,
    called once a message is in its room; `window_s`, seconds after somebody's last message in which they may be
    answered: `Outgoing.window_open` says whether they are over; `other_ways`, names of ways that a message may ask
    for in `extra["via"]` ("sms"), and `adapt_sms(capabilities)`, what SMS carries then. `webhook_bytes` is how large
    its webhooks may be, where that is more than the server's limit. `opt_out_codes` are the vendor's codes for a
    recipient who wants nothing more (or a mapping of them to the purpose that is refused); a message's metadata
    `opt_out` ("stop", "start" or "help") says that the vendor has understood a keyword and answered it, and
    `opt_out_purpose` ("marketing") that it is about that alone.
    """

    name: str

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Sends one part. A refusal is `success=False` with code and retryability, or a `ProviderError`."""
        ...

    def verify(self, request: WebhookRequest) -> None:
        """Checks the signature on the raw body in constant time; raises `AccessDenied` when it does not hold,
        when it is stale, or when no secret is configured (fail closed)."""
        ...

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        """Reads a verified webhook. Unknown kinds become an InboundMessage with UnknownContent, never nothing."""
        ...

    def reply(self, request: WebhookRequest) -> WebhookReply:
        """What the vendor wants to hear after the commit."""
        ...

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        """The same request with the vendor's signature: for simulated inbound and tests (D46)."""
        ...
