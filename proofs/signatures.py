"""Mutants of signed webhooks at every provider class: none that says something else is accepted."""

from __future__ import annotations

import asyncio
import pkgutil
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import roomkit.providers
from proofs.kill9 import Proof
from roomkit.models.content import TextContent
from roomkit.models.delivery import InboundMessage, WebhookRequest
from roomkit.ports.message import MessageProvider
from roomkit.providers.discord.discord import DiscordProvider
from roomkit.providers.elasticemail.email import ElasticEmailProvider
from roomkit.providers.http.http import HTTPWebhookOptions, HTTPWebhooks
from roomkit.providers.meta.messenger import MessengerProvider
from roomkit.providers.meta.whatsapp import MetaWhatsAppProvider
from roomkit.providers.sendgrid.email import SendGridProvider
from roomkit.providers.sinch.sms import SinchSMSProvider
from roomkit.providers.slack.slack import SlackProvider
from roomkit.providers.smtp.email import SMTPOptions, SMTPProvider
from roomkit.providers.teams.teams import TeamsProvider
from roomkit.providers.telegram.telegram import HEADER, TelegramProvider
from roomkit.providers.telnyx.rcs import TelnyxRCSProvider
from roomkit.providers.telnyx.sms import TelnyxSMSProvider
from roomkit.providers.twilio.rcs import TwilioRCSProvider
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.providers.twilio.whatsapp import TwilioWhatsAppProvider
from roomkit.testing.signatures import Fuzzed, FuzzReport, attack_at_random, every_mutant
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

TITLE = "mutants of signed webhooks at every provider class"
Excuse = Callable[[WebhookRequest, WebhookRequest], bool]
Samples = tuple[MessageProvider, list[WebhookRequest], Excuse | None]


def twilio(kind: type[TwilioSMSProvider]) -> Samples:
    fake = FakeTwilio()
    sid = "SM" + "a" * 32
    requests = [
        fake.text("+15550100", "order 12 pizzas for ada & bob, thanks é"),
        fake.text("+15550100", "Call Dan From 5, or Eve At Noon 🙂"),
        fake.text(
            "whatsapp:+15550100", "STOP", ProfileName="Ada Byron", OptOutType="STOP", Latitude="1.5", Longitude="2"
        ),
        fake.text("rcs:+15550100", "", media=[("image/png", b"x"), ("image/gif", b"y")]),
        fake.form({"AccountSid": fake.account_sid, "MessageSid": sid, "MessageStatus": "delivered"}),
        fake.text("rcs:+15550100", "Yes Or No", To="rcs:a_brand_agent", OriginalRepliedMessageSid="SM" + "b" * 32),
        fake.json([{"type": "com.twilio.messaging.message.sent", "data": {"messageSid": sid}}]),
    ]
    provider = kind(fake.options(), transport=fake.transport())
    return provider, requests, partial(_shortened, provider)


def _shortened(provider: MessageProvider, request: WebhookRequest, mutant: WebhookRequest) -> bool:
    """Twilio's signature has no separators: a text can be ended before one of its capital letters. Nothing else may
    differ; and the message's id is the same, so that at most one of the two has an effect."""
    (honest,), (forged,) = provider.parse(request, "c"), provider.parse(mutant, "c")
    if not isinstance(honest, InboundMessage) or not isinstance(forged, InboundMessage):
        return False
    text, short = (one.content.text if isinstance(one.content, TextContent) else "" for one in (honest, forged))
    same = {"content", "raw_payload", "channel_data"}
    return (
        text.startswith(short)
        and text[len(short) :][:1].isupper()
        and honest.model_dump(exclude=same) == forged.model_dump(exclude=same)
    )


class _Stopped:
    """A clock for a thread that has no loop."""

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)


def http(kind: type[HTTPWebhooks]) -> Samples:
    provider = kind(HTTPWebhookOptions(secrets=("one secret of many letters", "whsec_" + "QUJD" * 8)), clock=_Stopped())
    bodies = (
        '{"type": "message", "id": "m1", "sender": "ann", "text": "Pay 100 to Bob é"}',
        '{"type": "status", "message_id": "r:0:c:0", "state": "delivered"}',
        '{"type": "message", "id": "m2", "sender": "ann", "content": {"type": "media", "url": "https://x.example/a"}}',
    )
    headers = {"content-type": "application/json"}
    url = "https://rooms.example/webhooks/http"
    return provider, [provider.sign(WebhookRequest("POST", url, headers, body.encode())) for body in bodies], None


def telnyx(kind: type[TelnyxSMSProvider]) -> Samples:
    fake = FakeTelnyx(clock=_Stopped())
    provider = kind(fake.options(), clock=_Stopped(), transport=fake.transport())
    return provider, [fake.text("+15550100", "Pay 100 to Bob é"), fake.rcs("+15550100", text="hi")], None


def sinch(kind: type[SinchSMSProvider]) -> Samples:
    fake = FakeSinch(clock=_Stopped())
    provider = kind(fake.options(), clock=_Stopped(), transport=fake.transport())
    return provider, [fake.text("+15550100", "Pay 1.00 to Bob. Now. é"), fake.text("+15550100", "a.b.c")], None


def telegram(kind: type[TelegramProvider]) -> Samples:
    """A secret beside the body is the whole scheme: whoever has it may say anything."""
    fake = FakeTelegram()
    provider = kind(fake.options(), transport=fake.transport())
    requests = [fake.text("Pay 100 to Bob é"), fake.request(fake.update(edited_message=fake.message("x")))]
    return provider, requests, lambda request, mutant: mutant.headers.get(HEADER) == request.headers[HEADER]


def whatsapp(kind: type[MetaWhatsAppProvider]) -> Samples:
    fake = FakeMeta()
    provider = kind(fake.whatsapp_options(), transport=fake.transport())
    report = fake.whatsapp({"statuses": [{"id": "wamid.1", "status": "read", "recipient_id": "15550100"}]})
    return provider, [fake.text("15550100", "Pay 100 to Bob é"), report], None


def messenger(kind: type[MessengerProvider]) -> Samples:
    fake = FakeMeta()
    provider = kind(fake.messenger_options(), transport=fake.transport())
    said = fake.event({"message": {"mid": "m_1", "text": "Pay 100 to Bob é"}})
    return provider, [said, fake.event({"read": {"watermark": 1893456000000}})], None


def slack(kind: type[SlackProvider]) -> Samples:
    fake = FakeSlack(clock=_Stopped())
    provider = kind(fake.options(), clock=_Stopped(), transport=fake.transport())
    command = {"command": "/pay", "text": "100 to Bob é", "user_id": "U1", "channel_id": "C1", "trigger_id": "1.2"}
    pressed = {"type": "block_actions", "user": {"id": "U1"}, "actions": [{"value": "100", "action_ts": "1.3"}]}
    return provider, [fake.message("U1", "Pay 100 to Bob é"), fake.form(command), fake.interaction(pressed)], None


def discord(kind: type[DiscordProvider]) -> Samples:
    fake = FakeDiscord(clock=_Stopped())
    provider = kind(fake.options(), clock=_Stopped(), transport=fake.transport())
    pressed = fake.interaction(3, "U1", data={"custom_id": "b0:100", "component_type": 2})
    return provider, [fake.command("U1", "pay", "100 to Bob é"), pressed], None


def teams(kind: type[TeamsProvider]) -> Samples:
    """A token says who posts, and not what: everything but the body has to hold."""
    fake = FakeTeams(clock=_Stopped())
    provider = kind(fake.options(signing_key=fake.private_key()), clock=_Stopped(), transport=fake.transport())
    requests = [
        provider.sign(fake.message("29:1", "Pay 100 to Bob é")),
        provider.sign(fake.activity({"type": "event"})),
    ]
    proof = "authorization"
    return provider, requests, lambda request, mutant: mutant.headers.get(proof) == request.headers[proof]


def sendgrid(kind: type[SendGridProvider]) -> Samples:
    fake = FakeSendGrid(clock=_Stopped())
    provider = kind(fake.options(), clock=_Stopped(), transport=fake.transport())
    events = [
        {"event": "delivered", "sg_message_id": "a.b", "sg_event_id": "1"},
        {"event": "unsubscribe", "email": "a@b.c"},
    ]
    letter = fake.letter("ada@x.example", "Pay 100 to Bob é", files=[("a.pdf", "application/pdf", b"%PDF")])
    return provider, [letter, fake.events(*events)], None


def elasticemail(kind: type[ElasticEmailProvider]) -> Samples:
    fake = FakeElasticEmail(clock=_Stopped())
    provider = kind(fake.options(), clock=_Stopped(), transport=fake.transport())
    letter = fake.letter("ada@x.example", "Pay 100 to Bob é", signed=True)
    return provider, [letter, fake.notice({"status": "Error", "messageid": "m", "category": "NoMailbox"})], None


def smtp(kind: type[SMTPProvider]) -> Samples:
    options = SMTPOptions("127.0.0.1", security="none", webhook_secrets=("one secret of many letters",))
    provider = kind(options, clock=_Stopped())
    body = b"From: ada@x.example\r\nMessage-ID: <1@x.example>\r\nSubject: Money\r\n\r\nPay 100 to Bob"
    request = WebhookRequest("POST", "https://rooms.example/webhooks/email", {"content-type": "message/rfc822"}, body)
    return provider, [provider.sign(request)], None


SAMPLES: dict[type[Any], Callable[[Any], Samples]] = {
    SlackProvider: slack,
    DiscordProvider: discord,
    TeamsProvider: teams,
    TelegramProvider: telegram,
    MetaWhatsAppProvider: whatsapp,
    MessengerProvider: messenger,
    TwilioSMSProvider: twilio,
    TwilioRCSProvider: twilio,
    TwilioWhatsAppProvider: twilio,
    TelnyxSMSProvider: telnyx,
    TelnyxRCSProvider: telnyx,
    SinchSMSProvider: sinch,
    HTTPWebhooks: http,
    SendGridProvider: sendgrid,
    ElasticEmailProvider: elasticemail,
    SMTPProvider: smtp,
}
"""How signed requests are made for each class that vendors call."""


def provider_classes() -> Iterator[type[Any]]:
    """Every class of roomkit.providers that reads webhooks."""
    for module in pkgutil.walk_packages(roomkit.providers.__path__, "roomkit.providers."):
        for one in vars(import_module(module.name)).values():
            own = isinstance(one, type) and one.__module__ == module.name
            does = callable(getattr(one, "parse", None)) and callable(getattr(one, "send", None))
            if own and does and getattr(one, "webhooks", True):
                yield one


async def prove(n: int, seed: int) -> Proof:
    """`n` mutants for each class."""
    proof, classes = Proof(), list(provider_classes())
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for done in await asyncio.gather(
            *(asyncio.wrap_future(pool.submit(attack, [one], n, seed)) for one in classes)
        ):
            proof.wrong += done.wrong
            proof.figures += done.figures
    return proof


def attack(classes: list[type[Any]], n: int, seed: int) -> Proof:
    proof, dice = Proof(), random.Random(seed)
    for one in classes:
        name = one.__name__
        if not callable(getattr(one, "verify", None)):
            proof.wrong.append(f"{name} reads webhooks and has no verify()")
        elif one not in SAMPLES:
            proof.wrong.append(f"{name} is not attacked: tell proofs/signatures.py how its requests are signed")
        else:
            _fuzz(proof, name, SAMPLES[one](one), n, dice)
            proof.figures["provider_classes"] += 1
    return proof


def _fuzz(proof: Proof, name: str, samples: Samples, n: int, dice: random.Random) -> None:
    provider, signed, excused = samples
    report = FuzzReport()
    fuzzed = [Fuzzed(provider, request, excused=excused) for request in signed]
    for one in fuzzed:
        every = list(every_mutant(one.request))
        for how, mutant in dice.sample(every, min(len(every), n // (2 * len(signed)))):
            one.attack(report, how, mutant)
    attack_at_random(fuzzed, report, n=n, rng=dice)
    proof.wrong += [f"{name} accepted {what}" for what in report.forged]
    proof.wrong += [f"{name} broke on {what}" for what in report.crashed]
    proof.figures["mutants"] += report.tried
    proof.figures["different_ones"] += report.different
    proof.figures["refused"] += report.refused
    proof.figures["said_the_same"] += report.harmless
    proof.figures["excused_by_the_scheme"] += report.excused
    if not report.refused:
        proof.wrong.append(f"{name} refused nothing: this proof is blind")
