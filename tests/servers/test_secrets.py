"""Secrets and words planted in every surface: none comes out in a log, a trace, a number, an error or a repr."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError

from roomkit import AIChannel, BeforeCommit, Committed, HTTPChannel, InboundMessage, RoomKit, SMSChannel, TextContent
from roomkit.ai.tools import Toolbox, tool
from roomkit.core.engine import KitOptions
from roomkit.models.delivery import DeliveryPolicy, WebhookRequest
from roomkit.models.event import RoomEvent
from roomkit.net.room_client import Disconnected
from roomkit.net.ssrf import Fetched
from roomkit.providers.anthropic.ai import AnthropicProvider
from roomkit.providers.http.http import HTTPWebhookOptions, HTTPWebhooks
from roomkit.providers.openai.ai import OpenAIProvider
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.testing import VirtualClock
from roomkit.testing.channels import FakeChannel
from roomkit.testing.vendors.anthropic import FakeAnthropic
from roomkit.testing.vendors.openai import FakeOpenAI
from roomkit.testing.vendors.script import Call, Cut, Trouble
from roomkit.testing.vendors.twilio import FakeTwilio
from tests.servers.house import MemoryBlobs, house

OPENAI, ANTHROPIC = "canary-openai-1f0c77aa", "canary-anthropic-9b2e41dd"
TWILIO, WEBHOOK, SIGNING = "canary-twilio-5d2277ee", "canary-webhook-c0ffee99", "canary-signing-77aa55ee"
HANDLER = "canary-handler-3344aabb"
WORDS, CARD = "the violet password of my grandmother", "4111 1111 1111 1111"
SAID = f"{WORDS}, and my card is {CARD}"
PUBLIC = "https://rooms.example"


@dataclass
class Everything:
    """All that comes out of a kit but its answers."""

    exporter: InMemorySpanExporter
    caplog: pytest.LogCaptureFixture
    told: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    @property
    def records(self) -> list[logging.LogRecord]:
        return self.caplog.records

    def look(self, *things: Any) -> None:
        self.told += [f"{thing!r} {thing}" for thing in things]

    def lines(self, ours: bool, least: int = logging.DEBUG) -> list[str]:
        show = logging.Formatter("%(name)s %(levelname)s %(message)s")
        return [
            show.format(record) + str({k: v for k, v in vars(record).items() if k != "exc_info"})
            for record in self.records
            if record.levelno >= least and (record.name.startswith("roomkit") or not ours)
        ]

    def spans(self) -> list[str]:
        return [span.to_json() for span in self.exporter.get_finished_spans()]

    def check(self) -> None:
        out = "\n".join([*self.lines(ours=False), *self.spans(), *self.told])
        for secret in (OPENAI, ANTHROPIC, TWILIO, WEBHOOK, SIGNING, HANDLER, *self.tokens):
            assert secret not in out, f"{secret} in {next(line for line in out.splitlines() if secret in line)[:500]}"
        quiet = [*self.lines(ours=True), *self.lines(ours=False, least=logging.INFO), *self.spans(), *self.told]
        for words in (WORDS, "grandmother", CARD, CARD.replace(" ", "")):
            assert words not in "\n".join(quiet), next(line for line in quiet if words in line)[:800]


@pytest.fixture
def out(caplog: pytest.LogCaptureFixture) -> Iterator[tuple[TracerProvider, Everything]]:
    caplog.set_level(logging.DEBUG)
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, Everything(exporter, caplog)
    provider.shutdown()


Out = tuple[TracerProvider, Everything]


def kit_for(tracing: TracerProvider, *channels: Any) -> RoomKit:
    kit = RoomKit(clock=VirtualClock(), token_secrets=[SIGNING], blobs=MemoryBlobs(), options=KitOptions())
    kit.trace(tracing)
    for channel in channels:
        kit.register_channel(channel, default=channel.reach == "turn")
    return kit


@tool
async def charge(card: str) -> str:
    """Charges a card."""
    raise RuntimeError(f"401 from the bank: Authorization: Bearer {HANDLER}; card {card}")


# -- vendors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
async def test_a_brain_that_fails_in_every_way(out: Out, vendor: str) -> None:
    tracing, all_of_it = out
    key = OPENAI if vendor == "openai" else ANTHROPIC
    fake: Any = FakeOpenAI(key=key) if vendor == "openai" else FakeAnthropic(key=key)
    make: Any = OpenAIProvider if vendor == "openai" else AnthropicProvider
    provider = make("gpt-any" if vendor == "openai" else "claude-any", api_key=key, transport=fake.transport())
    ai = AIChannel("ai", provider, tool_handler=Toolbox([charge]))
    kit = kit_for(tracing, FakeChannel("sms"), ai)
    async with kit:
        scripts: list[Any] = [
            lambda: fake.fail(401, "invalid_api_key", f"Incorrect API key provided: {key}."),
            lambda: fake.fail(400, "invalid_value", f"the prompt '{SAID}' is not acceptable"),
            lambda: fake.reply("Half of it", Cut()),
            lambda: fake.reply("Half", Trouble("server_error", f"lost while reading '{SAID}' for {key}")),
            lambda: (fake.reply(Call("charge", {"card": CARD})), fake.reply("It failed.")),
        ]
        for number, script in enumerate(scripts):
            script()
            message = InboundMessage.text("sms", f"+{number}", SAID)
            await (await kit.process_inbound(message)).settled()
            all_of_it.look(*kit.stats().items())
        all_of_it.look(kit, kit.engine, provider, ai, kit.engine.options)
    assert fake.requests
    assert len(all_of_it.spans()) > 10
    all_of_it.check()


async def test_text_messages_that_go_wrong(out: Out) -> None:
    tracing, all_of_it = out
    fake = FakeTwilio(auth_token=TWILIO)
    provider = TwilioSMSProvider(fake.options(), transport=fake.transport())
    sms = SMSChannel("sms", provider=provider, from_number=fake.number)
    sms.delivery_policy = DeliveryPolicy(max_retries=1)
    async with house(kit_for(tracing, sms), public_url=PUBLIC) as h:
        good = fake.text("+15550123", SAID)
        bad = dict(good.headers) | {name: "bm8=" for name in good.headers if "signature" in name.lower()}
        nonsense = fake.form({"MessageSid": "", "Body": SAID, "NumMedia": CARD})
        for body, headers in ((good.body, good.headers), (good.body, bad), (nonsense.body, nonsense.headers)):
            answer = await h.http.post("/webhooks/sms", content=body, headers=headers)
            all_of_it.look(answer.text if answer.status_code != 200 else "")
        (room,) = await h.kit.list_rooms()
        fake.fail(401, 20003, f"Authenticate: {TWILIO}")
        fake.fail(400, 21610, f"blocked: {SAID}")
        fake.lose_answer()
        for _ in range(3):
            await (await h.kit.send(room.id, SAID)).settled()
        all_of_it.look(provider, sms, fake.options())
        all_of_it.tokens.append(h.token("admin"))
        numbers = await h.http.get("/metrics", headers={"authorization": f"Bearer {all_of_it.tokens[-1]}"})
        all_of_it.look(numbers.text)
    assert any("refused" in line for line in all_of_it.lines(ours=True))
    all_of_it.check()


async def test_webhooks_of_ones_own(out: Out) -> None:
    tracing, all_of_it = out

    class Broken:
        async def fetch(self, url: str, **more: Any) -> Fetched:
            raise OSError(f"cannot post to https://user:{WEBHOOK}@crm.example")

    options = HTTPWebhookOptions(secrets=(WEBHOOK,))
    provider = HTTPWebhooks(options, clock=VirtualClock())
    provider._fetcher = Broken()  # type: ignore[assignment]
    crm = HTTPChannel("crm", provider=provider, url="https://crm.example/inbox")
    async with house(kit_for(tracing, crm), public_url=PUBLIC) as h:
        body = b'{"sender_id": ["' + SAID.encode() + b'"], "text": "x", "id": "1"}'
        request = provider.sign(WebhookRequest("POST", f"{PUBLIC}/webhooks/crm", {}, body))
        answers = [
            await h.http.post("/webhooks/crm", content=request.body, headers=request.headers),
            await h.http.post("/webhooks/crm", content=body, headers={"webhook-signature": f"v1,{WEBHOOK}"}),
        ]
        assert [answer.status_code for answer in answers] == [200, 403]  # what cannot be read is kept as it came
        await h.kit.create_room("r", channels=["crm"])
        await (await h.kit.send("r", SAID)).settled()
        all_of_it.look(options, provider, crm, *(answer.text for answer in answers))
        letters = await h.kit.dead_letters()
        assert letters
        assert WEBHOOK not in str(letters)
    all_of_it.check()


# -- doors ------------------------------------------------------------------------------------------------------------


async def test_tokens_good_and_bad_at_every_door(out: Out) -> None:
    tracing, all_of_it = out
    async with house(kit_for(tracing)) as h:
        await h.kit.create_room("r", channels=["web"])
        guest, admin = h.token("guest", "r"), h.token("admin")
        tampered = guest[:-3] + "AAA"
        all_of_it.tokens = [guest, admin, tampered, guest.rpartition(".")[2]]
        for token in (guest, tampered, "rk1.x.y.z"):
            headers = {"authorization": f"Bearer {token}"}
            for path in ("/api/rooms/r", f"/api/rooms/r?token={guest}", "/metrics"):
                all_of_it.look((await h.http.get(path, headers=headers)).text)
            wrong = {"content": {"type": "text", "text": {"deep": SAID}}}
            all_of_it.look((await h.http.post("/api/rooms/r/messages", json=wrong, headers=headers)).text)
        said = await h.http.post(
            "/api/rooms/r/messages",
            json={"content": {"type": "text", "text": SAID}},
            headers={"authorization": f"Bearer {guest}"},
        )
        assert said.status_code == 201
        async with h.socket() as socket:
            await socket.say("auth", token=tampered, v=1)
            with pytest.raises(Disconnected) as refused:
                await socket.get("welcome")
            all_of_it.look(refused.value)
        async with h.joined("r") as socket:
            await socket.say("send", client_id="1", content={"type": "text", "text": {"odd": SAID}})
            await asyncio.sleep(1)
            await socket.say("send", client_id="2", content={"type": "text", "text": SAID})
            await asyncio.sleep(1)
        all_of_it.look(h.kit.tokens, h.kit.tokens.issue("guest", "r"), h.app.door.options, h.kit.engine.options)
        for log_it in (guest, f"Bearer {tampered}", f"https://x.example/?token={guest}", f"token is {SIGNING}"):
            logging.getLogger("roomkit.tests").error("a host's own helper logs %s", log_it)
        all_of_it.look(*h.kit.stats())
    all_of_it.check()


# -- code of the host -------------------------------------------------------------------------------------------------


async def test_handlers_that_raise_what_they_know(out: Out, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of an exception from the host's own code is logged, for somebody has to find the bug; what looks like a
    secret or a card in it is masked."""
    tracing, all_of_it = out
    kit = kit_for(tracing, FakeChannel("sms"))

    @kit.before(BeforeCommit)
    async def guard(moment: BeforeCommit) -> None:
        raise RuntimeError(f"api_key={HANDLER} for card {CARD}")

    @kit.on(Committed)
    def observer(notice: Committed) -> None:
        raise ValueError(f"Authorization: Bearer {HANDLER}")

    @kit.on_message
    def app(context: Any, event: RoomEvent) -> str:
        return RoomEvent.model_validate({"content": SAID, "id": {"card": CARD}})  # type: ignore[return-value]

    async with kit:
        await (await kit.process_inbound(InboundMessage.text("sms", "+44", SAID))).settled()
        await asyncio.sleep(1)
    errors = [record for record in all_of_it.records if record.levelno >= logging.ERROR]
    assert len(errors) >= 3
    captured = capsys.readouterr()
    all_of_it.look(captured.out + captured.err)
    all_of_it.check()


def test_a_value_that_does_not_validate_is_not_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        TextContent.model_validate({"text": {"what": WORDS}})
    assert WORDS not in str(caught.value)
    assert "text" in str(caught.value)
