"""Every adapter of the package by kind, found by looking, and how the checklist puts each of them to the test.

A class in `roomkit/providers` that does what a kind does belongs to it. One without a case here fails
`test_checklist.py`, so that no adapter comes in past the checklist.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import roomkit.providers
from roomkit import HTTPChannel, RoomKit, SMSChannel
from roomkit.channels import RCSChannel, WhatsAppChannel
from roomkit.models.delivery import WebhookRequest
from roomkit.ports.channel import Channel
from roomkit.providers.http.http import HTTPWebhookOptions, HTTPWebhooks
from roomkit.providers.sinch.sms import SinchSMSProvider
from roomkit.providers.telnyx.rcs import TelnyxRCSProvider
from roomkit.providers.telnyx.sms import TelnyxSMSProvider
from roomkit.providers.twilio.rcs import TwilioRCSProvider
from roomkit.providers.twilio.sms import TwilioOptions, TwilioSMSProvider
from roomkit.providers.twilio.whatsapp import TwilioWhatsAppProvider
from roomkit.testing import VirtualClock
from roomkit.testing.vendors.sinch import FakeSinch
from roomkit.testing.vendors.telnyx import FakeTelnyx
from roomkit.testing.vendors.twilio import FakeTwilio

PUBLIC = "https://rooms.example"
HOOK = f"{PUBLIC}/webhooks/hook"
SECRET = "a secret for these tests only"

KINDS: dict[str, tuple[str, ...]] = {
    "webhook": ("send",),
    "ai": ("stream", "aclose"),
    "store": ("commit", "records", "events"),
    "blob": ("put", "read", "info"),
    "source": ("run",),
}
"""What a class of each kind can do. Whatever sends must also verify what comes back."""


@dataclass(frozen=True)
class WebhookCase:
    """`bare` makes the provider with nothing to verify with; `signed(n)` is the n-th good message, from `sender`."""

    kind: type[Any]
    make: Callable[[VirtualClock], Any]
    bare: Callable[[], Any]
    signed: Callable[..., WebhookRequest]
    channel: Callable[[str, Any], Channel]
    signs_url: bool
    signs_time: bool
    fetching: Callable[[Any, Any], Any] | None = None
    """Makes the provider over (transport, resolver); for those that fetch what came with a message."""
    key_host: str = ""
    """The only host that gets the vendor's credentials then; none where there is no such host."""

    def kit(self, clock: VirtualClock | None = None, **options: Any) -> RoomKit:
        """A kit with a channel "hook" of this provider."""
        clock = clock or VirtualClock()
        kit = RoomKit(clock=clock, token_secrets=[SECRET], **options)
        kit.register_channel(self.channel("hook", self.make(clock)))
        return kit


def _twilio(kind: type[TwilioSMSProvider], channel: Any) -> WebhookCase:
    fake = FakeTwilio(webhook_url=HOOK)
    keyed = TwilioOptions(fake.account_sid, api_key="SK0", api_secret="only for requests, not for webhooks")
    return WebhookCase(
        kind,
        lambda clock: kind(fake.options(), transport=fake.transport()),
        lambda: kind(keyed),
        lambda clock, n=0, text="hello", sender="+15550123": fake.text(sender, text, sid=f"SM{n:032x}"),
        channel,
        signs_url=True,
        signs_time=False,
        fetching=lambda net, resolver: kind(fake.options(), transport=net, resolver=resolver),
        key_host="api.twilio.com",
    )


def _http() -> WebhookCase:
    def make(clock: VirtualClock) -> HTTPWebhooks:
        return HTTPWebhooks(HTTPWebhookOptions(secrets=(SECRET,)), clock=clock)

    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "+15550123") -> WebhookRequest:
        body = json.dumps({"type": "message", "id": f"m{n}", "sender": sender, "text": text}).encode()
        return make(clock).sign(WebhookRequest("POST", HOOK, {"content-type": "application/json"}, body))

    return WebhookCase(
        HTTPWebhooks,
        make,
        lambda: HTTPWebhooks(HTTPWebhookOptions()),
        signed,
        lambda channel_id, provider: HTTPChannel(channel_id, provider=provider),
        signs_url=False,
        signs_time=True,
    )


def _telnyx(kind: type[TelnyxSMSProvider], channel: Any) -> WebhookCase:
    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "+15550123") -> WebhookRequest:
        return FakeTelnyx(clock=clock, webhook_url=HOOK).text(sender, text, ident=f"telnyx-{n}")

    return WebhookCase(
        kind,
        lambda clock: kind(FakeTelnyx().options(), clock=clock, transport=FakeTelnyx().transport()),
        lambda: kind(FakeTelnyx().options(public_keys=())),
        signed,
        channel,
        signs_url=False,
        signs_time=True,
        fetching=lambda net, resolver: kind(FakeTelnyx().options(), transport=net, resolver=resolver),
        key_host="api.telnyx.com",
    )


def _sinch() -> WebhookCase:
    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "+15550123") -> WebhookRequest:
        return FakeSinch(clock=clock, webhook_url=HOOK).text(sender, text, ident=f"sinch-{n}")

    return WebhookCase(
        SinchSMSProvider,
        lambda clock: SinchSMSProvider(FakeSinch().options(), clock=clock, transport=FakeSinch().transport()),
        lambda: SinchSMSProvider(FakeSinch().options(webhook_secrets=())),
        signed,
        lambda cid, provider: SMSChannel(cid, provider=provider),
        signs_url=False,
        signs_time=True,
        fetching=lambda net, resolver: SinchSMSProvider(FakeSinch().options(), transport=net, resolver=resolver),
    )


WEBHOOKS: dict[str, WebhookCase] = {
    "TwilioSMSProvider": _twilio(TwilioSMSProvider, lambda cid, provider: SMSChannel(cid, provider=provider)),
    "TwilioRCSProvider": _twilio(TwilioRCSProvider, lambda cid, provider: RCSChannel(cid, provider=provider)),
    "TwilioWhatsAppProvider": _twilio(
        TwilioWhatsAppProvider, lambda cid, provider: WhatsAppChannel(cid, provider=provider)
    ),
    "TelnyxSMSProvider": _telnyx(TelnyxSMSProvider, lambda cid, provider: SMSChannel(cid, provider=provider)),
    "TelnyxRCSProvider": _telnyx(TelnyxRCSProvider, lambda cid, provider: RCSChannel(cid, provider=provider)),
    "SinchSMSProvider": _sinch(),
    "HTTPWebhooks": _http(),
}
AI = ("AnthropicProvider", "OfflineBrain", "OpenAIProvider")
STORES = ("PostgresReading", "PostgresStore", "SQLiteReading", "SQLiteStore")
BLOBS = ("FileBlobStore",)
SOURCES = ("SSESource", "WebSocketSource")
CASES: dict[str, Iterable[str]] = {
    "webhook": WEBHOOKS,
    "ai": AI,
    "store": STORES,
    "blob": BLOBS,
    "source": SOURCES,
}


def modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(roomkit.providers.__path__, "roomkit.providers.")
    return [import_module(one.name) for one in found]


def adapters(kind: str, among: Iterable[ModuleType]) -> dict[str, type[Any]]:
    """The public classes of one kind, by name."""
    return {
        name: one
        for module in among
        for name, one in vars(module).items()
        if inspect.isclass(one)
        and one.__module__ == module.__name__
        and not name.startswith("_")
        and all(callable(getattr(one, method, None)) for method in KINDS[kind])
        and _takes(one, kind)
    }


def untested(kind: str, among: Iterable[ModuleType]) -> set[str]:
    """Adapters that the checklist knows no case for."""
    return adapters(kind, among).keys() - set(CASES[kind])


def _takes(one: type[Any], kind: str) -> bool:
    """Whether it is the kind's own method, and not another of the same name (a voice streams as well)."""
    own = {"source": ("run", "emit"), "ai": ("stream", "request"), "webhook": ("send", "message")}
    method, parameter = own.get(kind, (KINDS[kind][0], "self"))
    return parameter in inspect.signature(getattr(one, method)).parameters
