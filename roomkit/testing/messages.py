"""Messaging in tests: a provider that sends nothing, and the conformance kits for providers and channels.

    await check_message_provider(make_provider, inbound=[...unsigned webhooks...], outgoing=message_to("+15550100"))
    await check_channel(make_channel, recipient_key="phone_number")

The kits need no pytest: they raise `AssertionError` with what is wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from roomkit.errors import AccessDenied, ProviderError
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
from roomkit.models.event import EventSource, RoomEvent
from roomkit.models.room import ChannelBinding, Room
from roomkit.ports.channel import Channel, RoomContext
from roomkit.ports.message import MessageProvider
from roomkit.testing.signatures import fuzz_signatures

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class FakeMessages:
    """A `MessageProvider` without a vendor: `sent` is what would have gone out.

    `fail` and `refuse` script the next sends. Its webhooks are JSON (`{"id", "from", "text"}`, or
    `{"message_id", "state"}`) under an HMAC of `secret`.
    """

    def __init__(self, name: str = "fake", *, secret: str | None = "fake-secret") -> None:  # noqa: S107 - a fake
        self.name = name
        self.secret = secret
        self.sent: list[Outgoing] = []
        self.closed = False
        self._script: deque[ProviderError | DeliveryResult] = deque()

    def fail(self, *errors: ProviderError) -> None:
        """The next sends raise these."""
        self._script.extend(errors)

    def refuse(self, reason: str = "refused", *, retryable: bool = False) -> None:
        """The next send returns `success=False`."""
        state = DeliveryState.FAILED
        self._script.append(DeliveryResult(success=False, state=state, error=reason, code=reason, retryable=retryable))

    async def send(self, message: Outgoing) -> DeliveryResult:
        if self._script:
            outcome = self._script.popleft()
            if isinstance(outcome, ProviderError):
                raise outcome
            return outcome
        self.sent.append(message)
        return DeliveryResult(success=True, provider_message_id=f"{self.name}-{len(self.sent)}")

    def verify(self, request: WebhookRequest) -> None:
        given = request.headers.get("x-fake-signature", "")
        if self.secret is None or not hmac.compare_digest(self._signature(request).encode(), given.encode()):
            raise AccessDenied(f"{self.name} webhook: the signature does not match")

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        data: dict[str, Any] = json.loads(request.body)
        if "state" in data:
            state = DeliveryState(data["state"])
            return [DeliveryStatus(channel_id=channel_id, provider_message_id=data["message_id"], state=state)]
        return [
            InboundMessage(
                channel_id=channel_id,
                sender_id=str(data.get("from", "unknown")),
                content=TextContent(text=data["text"]) if "text" in data else UnknownContent(kind="unknown"),
                external_id=data.get("id"),
                provider=self.name,
                raw_payload=data,
            )
        ]

    def reply(self, request: WebhookRequest) -> WebhookReply:
        return WebhookReply()

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return replace(request, headers={**request.headers, "x-fake-signature": self._signature(request)})

    def webhook(self, **data: Any) -> WebhookRequest:
        """A signed webhook with these values; `from_` stands for `from`."""
        data = {name.rstrip("_"): value for name, value in data.items()}
        url = f"https://rooms.example/webhooks/{self.name}"
        return self.sign(WebhookRequest("POST", url, {"content-type": "application/json"}, json.dumps(data).encode()))

    async def aclose(self) -> None:
        self.closed = True

    def _signature(self, request: WebhookRequest) -> str:
        signed = b"\n".join((request.method.encode(), request.url.encode(), request.body))
        return hmac.new((self.secret or "").encode(), signed, hashlib.sha256).hexdigest()


def message_to(recipient: str, content: Content | str = "hello", **more: Any) -> Outgoing:
    """An outgoing message for a provider under test."""
    body = TextContent(text=content) if isinstance(content, str) else content
    values: dict[str, Any] = {"channel_id": "c", "room_id": "r", "event_id": "e0", "idempotency_key": "r:0:c:0"}
    return Outgoing(recipient=recipient, content=body, **{**values, **more})


def event_of(room_id: str, content: Content | str, *, index: int = 0, channel_id: str = "other") -> RoomEvent:
    """A committed event for a channel under test."""
    return RoomEvent(
        id=f"{room_id}-{index}",
        room_id=room_id,
        index=index,
        source=EventSource(channel_id=channel_id, channel_type="app"),
        content=TextContent(text=content) if isinstance(content, str) else content,
        created_at=EPOCH,
    )


def binding_of(channel: Channel, room_id: str, **metadata: Any) -> ChannelBinding:
    return ChannelBinding(
        channel_id=channel.channel_id,
        room_id=room_id,
        channel_type=channel.channel_type,
        attached_at=EPOCH,
        capabilities=channel.capabilities,
        metadata=metadata,
    )


def context_of(binding: ChannelBinding, **state: Any) -> RoomContext:
    async def history(_: int) -> list[RoomEvent]:
        return []

    room = Room(id=binding.room_id, created_at=EPOCH, updated_at=EPOCH)
    return RoomContext(room, binding, (binding,), (), history, state=state)


async def check_message_provider(
    make: Callable[[], MessageProvider],
    *,
    inbound: Sequence[WebhookRequest],
    outgoing: Outgoing | None = None,
    secrets: Sequence[str] = (),
    without_secret: Callable[[], MessageProvider] | None = None,
    mutants: int = 300,
) -> None:
    """What every provider keeps to: fail-closed signatures, nothing dropped in parsing, an honest result of sending.

    `inbound` are unsigned webhooks of every kind; `outgoing` is one message that can be sent; `secrets` must not appear
    in its repr; `without_secret` makes one that has nothing to check signatures with. `mutants` is 0 for a vendor
    whose webhooks only carry a shared secret.
    """
    provider = make()
    try:
        assert isinstance(provider, MessageProvider), "it lacks methods of the MessageProvider port"
        assert provider.name, "it has no name"
        shown = repr(provider) + repr({k: v for k, v in vars(provider).items() if not k.startswith("_")})
        assert not any(secret in shown for secret in secrets), "its repr shows a secret"
        signed = [provider.sign(request) for request in inbound]
        for bare, request in zip(inbound, signed, strict=True):
            _check_webhook(provider, bare, request)
        if signed and mutants:
            report = fuzz_signatures(provider, signed, n=mutants)
            assert report.ok, f"changed requests are accepted or break it: {report.forged[:3]} {report.crashed[:3]}"
        if without_secret is not None:
            for request in signed:
                assert _refuses(without_secret(), request), "without a secret it accepts webhooks"
        if outgoing is not None:
            result = await provider.send(outgoing)
            assert result.success, f"sending failed: {result.error}"
            assert result.provider_message_id, "an accepted message has no provider_message_id"
            assert result.state is not DeliveryState.FAILED, "success and FAILED contradict each other"
    finally:
        await _closed(provider)


def _check_webhook(provider: MessageProvider, bare: WebhookRequest, request: WebhookRequest) -> None:
    assert _refuses(provider, bare), "an unsigned webhook is accepted"
    provider.verify(request)
    found = provider.parse(request, "check")
    assert found, f"a webhook is parsed to nothing: {request.body[:200]!r}"
    again = provider.parse(request, "check")
    assert found == again, "parsing the same webhook twice gives different results"
    for item in found:
        assert item.channel_id == "check", "the channel id is not the one given"
        if isinstance(item, InboundMessage):
            assert item.external_id, "a message has no external_id: repeated webhooks cannot be recognised"
            assert item.raw_payload is not None, "raw_payload is missing"
            assert item.provider == provider.name, "the provider's name is missing"
        else:
            assert item.provider_message_id, "a delivery report names no message"
    assert 200 <= provider.reply(request).status < 300, "the reply is not a success"


async def check_channel(make: Callable[[MessageProvider | None], Channel], *, recipient_key: str) -> None:
    """What every channel over a `MessageProvider` keeps to; `make` builds it around the given provider."""
    fake = FakeMessages()
    channel = make(fake)
    rooms = {room: binding_of(channel, room, **{recipient_key: f"to-{room}"}) for room in ("one", "two")}
    for index, room in enumerate(["one", "two", "two", "one"]):
        result = await channel.deliver(
            event_of(room, f"{room} {index}", index=index), rooms[room], _context(rooms[room])
        )
        assert result.success, f"a delivery failed: {result.error}"
    got = [(message.recipient, message.text) for message in fake.sent]
    expected = [("to-one", "one 0"), ("to-two", "two 1"), ("to-two", "two 2"), ("to-one", "one 3")]
    assert got == expected, f"two rooms through one channel got mixed up: {got}"
    assert len({message.idempotency_key for message in fake.sent}) == 4, "idempotency keys repeat"
    await _check_failures(make, rooms["one"])
    await _check_parts(make, rooms["one"])
    await channel.close()
    await channel.close()


async def _check_failures(make: Callable[[MessageProvider | None], Channel], binding: ChannelBinding) -> None:
    event = event_of(binding.room_id, "text")
    nobody = await make(None).deliver(event, binding, _context(binding))
    assert (nobody.success, nobody.error) == (False, "no_provider"), "without a provider it must fail with no_provider"
    channel = make(FakeMessages())
    if not getattr(channel, "default_recipient", None):
        lost = await channel.deliver(event, binding.model_copy(update={"metadata": {}}), _context(binding))
        assert (lost.success, lost.error) == (False, "no_recipient"), (
            "without an address it must fail with no_recipient"
        )
    fake = FakeMessages()
    fake.refuse("blocked")
    refused = await make(fake).deliver(event, binding, _context(binding))
    assert not refused.success, "a refusal is reported as sent"
    assert refused.error == "blocked", "the provider's reason got lost"


async def _check_parts(make: Callable[[MessageProvider | None], Channel], binding: ChannelBinding) -> None:
    fake = FakeMessages()
    channel = make(fake)
    limit = channel.capabilities.max_length
    if limit is None:
        return
    words = " ".join(f"word{n}" for n in range(limit))
    event = event_of(binding.room_id, words)
    done: list[str] = []

    async def part_done(provider_message_id: str) -> None:
        done.append(provider_message_id)
        if len(done) == 2:
            fake.refuse("later", retryable=True)

    first = await channel.deliver(event, binding, context_of(binding, part_done=part_done))
    assert not first.success, "a failing part is reported as sent"
    assert tuple(done) == first.parts, "parts that went through are not reported"
    second = await channel.deliver(event, binding, context_of(binding, parts=tuple(done)))
    assert second.success, "the rest is not sent in a second attempt"
    assert all(len(message.text) <= limit for message in fake.sent), "a part is longer than the channel allows"
    assert " ".join(message.text for message in fake.sent) == words, "parts are missing, repeated or out of order"


def _context(binding: ChannelBinding) -> RoomContext:
    return context_of(binding)


def _refuses(provider: MessageProvider, request: WebhookRequest) -> bool:
    try:
        provider.verify(request)
    except AccessDenied:
        return True
    return False


async def _closed(provider: object) -> None:
    if (close := getattr(provider, "aclose", None)) is not None:
        await close()
