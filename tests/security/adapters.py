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
from roomkit.channels import (
    DiscordChannel,
    EmailChannel,
    MessengerChannel,
    RCSChannel,
    SlackChannel,
    TeamsChannel,
    TelegramChannel,
    WhatsAppChannel,
)
from roomkit.models.delivery import WebhookRequest
from roomkit.ports.channel import Channel
from roomkit.providers.discord.discord import DiscordProvider
from roomkit.providers.elasticemail.email import ElasticEmailProvider
from roomkit.providers.http.http import HTTPWebhookOptions, HTTPWebhooks
from roomkit.providers.meta.graph import MEDIA_HOST
from roomkit.providers.meta.messenger import MessengerProvider
from roomkit.providers.meta.whatsapp import MetaWhatsAppProvider
from roomkit.providers.sendgrid.email import SendGridProvider
from roomkit.providers.sinch.sms import SinchSMSProvider
from roomkit.providers.slack.slack import SlackProvider
from roomkit.providers.smtp.email import SMTPOptions, SMTPProvider
from roomkit.providers.teams.teams import TeamsProvider
from roomkit.providers.telegram.telegram import HEADER as TELEGRAM
from roomkit.providers.telegram.telegram import TelegramProvider
from roomkit.providers.telnyx.rcs import TelnyxRCSProvider
from roomkit.providers.telnyx.sms import TelnyxSMSProvider
from roomkit.providers.twilio.rcs import TwilioRCSProvider
from roomkit.providers.twilio.sms import TwilioOptions, TwilioSMSProvider
from roomkit.providers.twilio.whatsapp import TwilioWhatsAppProvider
from roomkit.testing import VirtualClock
from roomkit.testing.vendors.discord import FakeDiscord
from roomkit.testing.vendors.elasticemail import FakeElasticEmail
from roomkit.testing.vendors.meta import FakeMeta
from roomkit.testing.vendors.sendgrid import FakeSendGrid
from roomkit.testing.vendors.sinch import FakeSinch
from roomkit.testing.vendors.slack import FakeSlack
from roomkit.testing.vendors.teams import FakeTeams
from roomkit.testing.vendors.telegram import FakeTelegram
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
    refused: int = 403
    """How a webhook is refused that cannot be verified."""
    fetching: Callable[[Any, Any], Any] | None = None
    """Makes the provider over (transport, resolver); for those that fetch what came with a message."""
    key_host: str = ""
    """The only host that gets the vendor's credentials then; none where there is no such host."""

    signs_body: bool = True
    """False where a webhook carries a secret beside its body, and who knows that may say anything."""

    def excused(self, request: WebhookRequest, mutant: WebhookRequest) -> bool:
        """What the vendor's own scheme cannot tell apart."""
        proofs = (TELEGRAM, "authorization")
        return not self.signs_body and all(mutant.headers.get(it) == request.headers.get(it) for it in proofs)

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


def _telegram() -> WebhookCase:
    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "+15550123") -> WebhookRequest:
        fake = FakeTelegram(webhook_url=HOOK)
        person = int(sender.lstrip("+")) if sender.lstrip("+").isdecimal() else sum(sender.encode())
        return fake.request(fake.update(message=fake.message(text, sender=person, message_id=1000 + n)))

    return WebhookCase(
        TelegramProvider,
        lambda clock: TelegramProvider(FakeTelegram().options(), transport=FakeTelegram().transport()),
        lambda: TelegramProvider(FakeTelegram().options(webhook_secret=None)),
        signed,
        lambda cid, provider: TelegramChannel(cid, provider=provider),
        signs_url=False,
        signs_time=False,
        signs_body=False,
        fetching=lambda net, resolver: TelegramProvider(FakeTelegram().options(), transport=net, resolver=resolver),
    )


def _whatsapp() -> WebhookCase:
    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "+15550123") -> WebhookRequest:
        return FakeMeta(webhook_url=HOOK).text(sender, text, name=f"wamid.{n}")

    return WebhookCase(
        MetaWhatsAppProvider,
        lambda clock: MetaWhatsAppProvider(FakeMeta().whatsapp_options(), transport=FakeMeta().transport()),
        lambda: MetaWhatsAppProvider(FakeMeta().whatsapp_options(app_secret=None)),
        signed,
        lambda cid, provider: WhatsAppChannel(cid, provider=provider),
        signs_url=False,
        signs_time=False,
        fetching=lambda net, resolver: MetaWhatsAppProvider(
            FakeMeta().whatsapp_options(), transport=net, resolver=resolver
        ),
        key_host=MEDIA_HOST,
    )


def _messenger() -> WebhookCase:
    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "+15550123") -> WebhookRequest:
        message = {"message": {"mid": f"m_{n}", "text": text}}
        return FakeMeta(webhook_url=HOOK).event(message, sender=sender)

    return WebhookCase(
        MessengerProvider,
        lambda clock: MessengerProvider(FakeMeta().messenger_options(), transport=FakeMeta().transport()),
        lambda: MessengerProvider(FakeMeta().messenger_options(app_secret=None)),
        signed,
        lambda cid, provider: MessengerChannel(cid, provider=provider),
        signs_url=False,
        signs_time=False,
        fetching=lambda net, resolver: MessengerProvider(
            FakeMeta().messenger_options(), transport=net, resolver=resolver
        ),
    )


def _slack() -> WebhookCase:
    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "+15550123") -> WebhookRequest:
        fake = FakeSlack(clock=clock, webhook_url=HOOK)
        return fake.message(sender, text, channel=sender, ts=f"{n}.1", channel_type="im")

    return WebhookCase(
        SlackProvider,
        lambda clock: SlackProvider(FakeSlack().options(), clock=clock, transport=FakeSlack().transport()),
        lambda: SlackProvider(FakeSlack().options(signing_secrets=())),
        signed,
        lambda cid, provider: SlackChannel(cid, provider=provider),
        signs_url=False,
        signs_time=True,
        fetching=lambda net, resolver: SlackProvider(FakeSlack().options(), transport=net, resolver=resolver),
        key_host="files.slack.com",
    )


def _discord() -> WebhookCase:
    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "+15550123") -> WebhookRequest:
        fake = FakeDiscord(clock=clock, webhook_url=HOOK)
        label = {"components": [{"components": [{"custom_id": "say", "label": text}]}]}
        data = {"custom_id": "say", "component_type": 2}
        user = {"user": {"id": sender}}
        return fake.interaction(3, sender, channel=sender, ident=str(n + 1), data=data, message=label, member=user)

    return WebhookCase(
        DiscordProvider,
        lambda clock: DiscordProvider(FakeDiscord().options(), clock=clock, transport=FakeDiscord().transport()),
        lambda: DiscordProvider(FakeDiscord().options(public_keys=())),
        signed,
        lambda cid, provider: DiscordChannel(cid, provider=provider),
        signs_url=False,
        signs_time=True,
        refused=401,
        fetching=lambda net, resolver: DiscordProvider(FakeDiscord().options(), transport=net, resolver=resolver),
    )


def _teams() -> WebhookCase:
    fake = FakeTeams(webhook_url=HOOK)

    async def public(host: str, port: int, /) -> list[str]:
        return ["93.184.215.14"]

    def make(clock: VirtualClock) -> TeamsProvider:
        return TeamsProvider(fake.options(), clock=clock, transport=fake.transport(), resolver=public)

    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "+15550123") -> WebhookRequest:
        fake.clock, fake.lifetime_s = clock, 0  # it ends at once, and clocks may differ by five minutes
        return fake.message(sender, text, conversation=sender, ident=f"teams-{n}")

    return WebhookCase(
        TeamsProvider,
        make,
        lambda: TeamsProvider(fake.options(), transport=fake.transport(), resolver=public),
        signed,
        lambda cid, provider: TeamsChannel(cid, provider=provider),
        signs_url=False,
        signs_time=True,
        signs_body=False,
        fetching=lambda net, resolver: TeamsProvider(fake.options(), transport=net, resolver=resolver),
    )


def _letter(n: int, sender: str) -> tuple[str, dict[str, str]]:
    """An address and headers for the n-th letter of somebody whom other channels know by number."""
    address = sender if "@" in sender else f"{sender.lstrip('+')}@x.example"
    return address, {"Message-ID": f"<letter-{n}@x.example>"}


def _sendgrid() -> WebhookCase:
    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "ada@x.example") -> WebhookRequest:
        address, headers = _letter(n, sender)
        return FakeSendGrid(clock=clock, webhook_url=HOOK).letter(address, text, headers=headers)

    return WebhookCase(
        SendGridProvider,
        lambda clock: SendGridProvider(FakeSendGrid().options(), clock=clock, transport=FakeSendGrid().transport()),
        lambda: SendGridProvider(FakeSendGrid().options(verification_keys=())),
        signed,
        lambda cid, provider: EmailChannel(cid, provider=provider),
        signs_url=False,
        signs_time=True,
        fetching=lambda net, resolver: SendGridProvider(FakeSendGrid().options(), transport=net, resolver=resolver),
    )


def _elasticemail() -> WebhookCase:
    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "ada@x.example") -> WebhookRequest:
        address, headers = _letter(n, sender)
        fake = FakeElasticEmail(clock=clock, webhook_url=HOOK)
        return fake.letter(address, text, headers=headers, signed=True)

    fake = FakeElasticEmail()
    return WebhookCase(
        ElasticEmailProvider,
        lambda clock: ElasticEmailProvider(fake.options(webhook_token=None), clock=clock, transport=fake.transport()),
        lambda: ElasticEmailProvider(fake.options(webhook_token=None, signing_secrets=())),
        signed,
        lambda cid, provider: EmailChannel(cid, provider=provider),
        signs_url=False,
        signs_time=True,
        fetching=lambda net, resolver: ElasticEmailProvider(fake.options(), transport=net, resolver=resolver),
    )


def _smtp() -> WebhookCase:
    def make(clock: VirtualClock | None = None, secrets: tuple[str, ...] = (SECRET,), **more: Any) -> SMTPProvider:
        return SMTPProvider(SMTPOptions("127.0.0.1", security="none", webhook_secrets=secrets), clock=clock, **more)

    def signed(clock: VirtualClock, n: int = 0, text: str = "hello", sender: str = "ada@x.example") -> WebhookRequest:
        address, headers = _letter(n, sender)
        head = f"From: {address}\r\nMessage-ID: {headers['Message-ID']}\r\nContent-Type: text/plain; charset=utf-8"
        body = f"{head}\r\n\r\n{text}".encode()
        return make(clock).sign(WebhookRequest("POST", HOOK, {"content-type": "message/rfc822"}, body))

    return WebhookCase(
        SMTPProvider,
        make,
        lambda: make(secrets=()),
        signed,
        lambda cid, provider: EmailChannel(cid, provider=provider),
        signs_url=False,
        signs_time=True,
        fetching=lambda net, resolver: make(transport=net, resolver=resolver),
    )


WEBHOOKS: dict[str, WebhookCase] = {
    "SlackProvider": _slack(),
    "DiscordProvider": _discord(),
    "TeamsProvider": _teams(),
    "TelegramProvider": _telegram(),
    "MetaWhatsAppProvider": _whatsapp(),
    "MessengerProvider": _messenger(),
    "TwilioSMSProvider": _twilio(TwilioSMSProvider, lambda cid, provider: SMSChannel(cid, provider=provider)),
    "TwilioRCSProvider": _twilio(TwilioRCSProvider, lambda cid, provider: RCSChannel(cid, provider=provider)),
    "TwilioWhatsAppProvider": _twilio(
        TwilioWhatsAppProvider, lambda cid, provider: WhatsAppChannel(cid, provider=provider)
    ),
    "TelnyxSMSProvider": _telnyx(TelnyxSMSProvider, lambda cid, provider: SMSChannel(cid, provider=provider)),
    "TelnyxRCSProvider": _telnyx(TelnyxRCSProvider, lambda cid, provider: RCSChannel(cid, provider=provider)),
    "SinchSMSProvider": _sinch(),
    "SendGridProvider": _sendgrid(),
    "ElasticEmailProvider": _elasticemail(),
    "SMTPProvider": _smtp(),
    "HTTPWebhooks": _http(),
}
AI = (
    "AgentKitProvider",
    "AnthropicProvider",
    "ClaudeAgentProvider",
    "GoogleADKProvider",
    "OfflineBrain",
    "OpenAIAgentProvider",
    "OpenAIProvider",
)
STORES = ("PostgresReading", "PostgresStore", "SQLiteReading", "SQLiteStore")
BLOBS = ("FileBlobStore",)
SOURCES = ("IMAPSource", "LMTPSource", "NeonizeSource", "SSESource", "TelegramPolling", "WebSocketSource")
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
        and (kind != "webhook" or getattr(one, "webhooks", True))
    }


def untested(kind: str, among: Iterable[ModuleType]) -> set[str]:
    """Adapters that the checklist knows no case for."""
    return adapters(kind, among).keys() - set(CASES[kind])


def _takes(one: type[Any], kind: str) -> bool:
    """Whether it is the kind's own method, and not another of the same name (a voice streams as well)."""
    own = {"source": ("run", "emit"), "ai": ("stream", "request"), "webhook": ("send", "message")}
    method, parameter = own.get(kind, (KINDS[kind][0], "self"))
    return parameter in inspect.signature(getattr(one, method)).parameters
