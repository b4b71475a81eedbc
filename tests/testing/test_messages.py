"""The kits must find what they are for: each planted fault is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from roomkit.channels import TransportChannel
from roomkit.errors import AccessDenied
from roomkit.models.delivery import DeliveryResult, Outgoing, WebhookRequest
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding, ChannelCapabilities
from roomkit.ports.channel import RoomContext
from roomkit.testing import FakeMessages, check_channel, check_message_provider, fuzz_signatures
from roomkit.testing.messages import message_to

HOOK = WebhookRequest("POST", "https://x.example/h", {}, b'{"id": "1", "from": "a", "text": "hi"}')


async def check(make: Callable[[], Any]) -> None:
    await check_message_provider(
        make, inbound=[HOOK], outgoing=message_to("a"), without_secret=lambda: FakeMessages(secret=None)
    )


async def test_a_sound_provider_passes():
    await check(FakeMessages)


class Trusting(FakeMessages):
    def verify(self, request: WebhookRequest) -> None:
        return


class IgnoresURL(FakeMessages):
    def _signature(self, request: WebhookRequest) -> str:
        return super()._signature(WebhookRequest("POST", "", {}, b""))


class Hasty(FakeMessages):
    def verify(self, request: WebhookRequest) -> None:
        if self._signature(request)[:8] != request.headers.get("x-fake-signature", "")[:8]:
            raise AccessDenied("the signature does not match")


class Forgetful(FakeMessages):
    def parse(self, request: WebhookRequest, channel_id: str) -> list[Any]:
        return []


class Nameless(FakeMessages):
    def parse(self, request: WebhookRequest, channel_id: str) -> list[Any]:
        return [item.model_copy(update={"external_id": None}) for item in super().parse(request, channel_id)]


class Rawless(FakeMessages):
    def parse(self, request: WebhookRequest, channel_id: str) -> list[Any]:
        return [item.model_copy(update={"raw_payload": None}) for item in super().parse(request, channel_id)]


class Anonymous(FakeMessages):
    async def send(self, message: Outgoing) -> DeliveryResult:
        return DeliveryResult(success=True)


@pytest.mark.parametrize(
    "make, told",
    [
        (Trusting, "unsigned webhook is accepted"),
        (IgnoresURL, "changed requests"),
        (Forgetful, "parsed to nothing"),
        (Nameless, "external_id"),
        (Rawless, "raw_payload"),
        (Anonymous, "provider_message_id"),
    ],
)
async def test_faults_of_providers_are_found(make: Callable[[], Any], told: str):
    with pytest.raises(AssertionError, match=told):
        await check(make)


async def test_a_secret_in_a_repr_is_found():
    with pytest.raises(AssertionError, match="secret"):
        await check_message_provider(FakeMessages, inbound=[], secrets=["fake-secret"])


class SharedState(TransportChannel):
    """Remembers the first room's recipient: two rooms get mixed up."""

    first: ChannelBinding | None = None

    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        self.first = self.first or binding
        return await super().deliver(event, self.first, context)


class Resender(TransportChannel):
    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        context.state.pop("parts", None)
        return await super().deliver(event, binding, context)


class Optimist(TransportChannel):
    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        result = await super().deliver(event, binding, context)
        return (
            result if result.error in {"no_provider", "no_recipient"} else result.model_copy(update={"success": True})
        )


@pytest.mark.parametrize(
    "kind, told",
    [
        (SharedState, "mixed up"),
        (Resender, "missing, repeated or out of order"),
        (Optimist, "refusal is reported as sent"),
    ],
)
async def test_faults_of_channels_are_found(kind: type[TransportChannel], told: str):
    short = ChannelCapabilities(max_length=30)
    with pytest.raises(AssertionError, match=told):
        await check_channel(lambda p: kind("c", "x", provider=p, capabilities=short), recipient_key="recipient_id")


def test_fuzzing_is_deterministic_and_finds_a_signature_that_covers_too_little():
    fake = FakeMessages()
    reports = [fuzz_signatures(fake, [fake.sign(HOOK)], n=300, seed=3) for _ in range(2)]
    assert reports[0] == reports[1]
    assert reports[0].ok
    weak = IgnoresURL()
    assert fuzz_signatures(weak, [weak.sign(HOOK)], n=300).forged


def test_fuzzing_finds_a_signature_of_which_the_beginning_is_enough():
    hasty = Hasty()
    report = fuzz_signatures(hasty, [hasty.sign(HOOK)], n=300, seed=3)
    assert any("leaves the proof whole no more" in what for what in report.forged)
