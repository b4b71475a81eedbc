"""Connections that break: of room clients, to vendors, to PostgreSQL. Nothing acknowledged is lost, nobody hangs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import uvicorn

from roomkit import Channel, InboundMessage, RoomKit, SMSChannel, TextContent, WebSocketChannel
from roomkit.cli.witness import Witness, guest_may_see
from roomkit.errors import ProviderError, StoreError
from roomkit.models.ai import AIMessage, AIRequest, Finished, TextChunk, TextPart
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.net.client import ClientOptions
from roomkit.net.room_client import ClientOptions as RoomClientOptions
from roomkit.net.room_client import RoomClient
from roomkit.protocols.room_socket import Limits
from roomkit.providers.anthropic.ai import AnthropicProvider
from roomkit.providers.openai.ai import OpenAIProvider
from roomkit.providers.openai.dialects import COMPATIBLE
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.runtime import Scope
from roomkit.servers.run import server as room_server
from roomkit.testing.faultproxy import Fault, FaultProxy
from roomkit.testing.messages import message_to
from roomkit.testing.postgres import PostgresCluster, find_binaries
from roomkit.testing.vendors.anthropic import FakeAnthropic
from roomkit.testing.vendors.openai import FakeOpenAI
from roomkit.testing.vendors.twilio import FakeTwilio

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]
SECRET = "a secret that is long enough for tokens"
QUICK = RoomClientOptions(tail=200, backoff_s=0.01, max_backoff_s=0.05)
UNLIMITED = Limits(sends_per_s=1e6, sends_burst=1e6, frames_per_s=1e6, frames_burst=1e6)


@asynccontextmanager
async def serving(running: uvicorn.Server) -> AsyncIterator[int]:
    """A uvicorn server in this process; yields its port."""
    scope = Scope("served")
    task = scope.spawn(running.serve(sockets=None), name="uvicorn")
    while not running.started:
        await asyncio.sleep(0.01)
    try:
        yield running.servers[0].sockets[0].getsockname()[1]
    finally:
        running.should_exit = True
        await task
        await scope.aclose()


@asynccontextmanager
async def behind_a_proxy(app: Any) -> AsyncIterator[FaultProxy]:
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    async with serving(uvicorn.Server(config)) as port, FaultProxy(port) as proxy:
        yield proxy


# -- people at room sockets


@asynccontextmanager
async def room(tmp_path: Any, **options: Any) -> AsyncIterator[tuple[RoomKit, FaultProxy, Callable[[str], Witness]]]:
    async with RoomKit(f"sqlite:///{tmp_path}/rooms.db", token_secrets=[SECRET]) as kit:
        kit.register_channel(WebSocketChannel("web"))
        await kit.create_room("r", channels=["web"])
        app = kit.asgi(limits=UNLIMITED, pages=False, **options)
        async with serving(room_server(app, port=0)) as port, FaultProxy(port) as proxy:
            url = f"ws://127.0.0.1:{proxy.port}/socket"

            def person(name: str) -> Witness:
                return Witness(name, RoomClient(url, "r", kit.tokens.mint("guest", "r", id=name), QUICK))

            yield kit, proxy, person


async def check_seen(kit: RoomKit, *people: Witness) -> list[str]:
    """Everybody saw the whole log once, in order; every message acknowledged is in it once. Returns the texts."""
    events = await kit.events("r", limit=500)
    for one in people:
        await one.until(lambda one=one: one.client.position >= events[-1].index, 20, "the end of the log")
        assert [event["id"] for event in one.seen] == [e.id for e in events if guest_may_see(e.model_dump(mode="json"))]
        for ack in one.acks:
            assert [e.id for e in events if e.metadata.get("client_id") == ack["client_id"]] == [ack["event_id"]]
    return [event.text for event in events if event.text]


@pytest.mark.parametrize("direction", ["to_client", "to_server"])
async def test_sockets_cut_at_any_byte_lose_and_double_nothing(tmp_path: Any, direction: Any) -> None:
    async with room(tmp_path) as (kit, proxy, person):
        step = 97 if direction == "to_client" else 31
        proxy.fault = lambda number: Fault(direction, cut_at=step * number) if number < 60 else None
        async with person("ann") as ann, person("ben") as ben:
            for number in range(30):
                await (ann, ben)[number % 2].say(f"message {number}")
            assert len(await check_seen(kit, ann, ben)) == 30
        assert proxy.broken >= 20


async def test_a_half_open_socket_is_noticed_and_resumed(tmp_path: Any) -> None:
    async with room(tmp_path, heartbeat_s=0.2) as (kit, proxy, person), person("ann") as ann, person("ben") as ben:
        for number in range(3):
            await ann.say(f"message {number}")
            proxy.silence()
            async with asyncio.timeout(8):  # heard nothing for 2.5 heartbeats: both come back by themselves
                await ben.say(f"answer {number}")
        assert len(await check_seen(kit, ann, ben)) == 6


async def test_a_dripping_line_is_slow_and_whole(tmp_path: Any) -> None:
    async with room(tmp_path) as (kit, proxy, person):
        proxy.fault = Fault(drip=(40, 0.001))
        async with person("ann") as ann:
            for number in range(10):
                await ann.say(f"message {number}")
            assert len(await check_seen(kit, ann)) == 10


# -- vendors of messages


@asynccontextmanager
async def twilio(fault: Fault | None, timeout_s: float = 5.0) -> AsyncIterator[tuple[FakeTwilio, TwilioSMSProvider]]:
    fake = FakeTwilio()
    async with behind_a_proxy(fake.app) as proxy:
        proxy.fault = fault
        options = replace(fake.options(), base_url=f"http://127.0.0.1:{proxy.port}", timeout_s=timeout_s)
        provider = TwilioSMSProvider(options)
        yield fake, provider
        await provider.aclose()


@pytest.mark.parametrize("direction", ["to_client", "to_server"])
async def test_an_answer_of_twilio_cut_anywhere_is_success_or_told_as_ambiguous(direction: Any) -> None:
    outcomes = set[str]()
    for cut in range(0, 1000, 66):
        async with twilio(Fault(direction, cut_at=cut)) as (fake, provider):
            [outcome] = await asyncio.gather(provider.send(message_to("+15550100", "hello")), return_exceptions=True)
            if isinstance(outcome, DeliveryResult):
                outcomes.add("success")
                assert [message.sid for message in fake.messages] == [outcome.provider_message_id]
                continue
            assert isinstance(outcome, ProviderError)
            assert outcome.retryable
            outcomes.add("ambiguous" if outcome.ambiguous else "failed")
            # Who may have sent it says so: only what surely was not sent may be told as plainly failed.
            assert outcome.ambiguous or not fake.messages
    assert {"ambiguous", "success"} <= outcomes


@pytest.mark.parametrize("direction", ["to_client", "to_server"])
async def test_a_silent_twilio_is_ambiguous_within_the_time_limit(direction: Any) -> None:
    async with twilio(Fault(direction, silent_at=20), timeout_s=0.4) as (_, provider):
        async with asyncio.timeout(5):
            with pytest.raises(ProviderError) as raised:
                await provider.send(message_to("+15550100"))
        assert raised.value.ambiguous


async def test_a_dripping_twilio_is_waited_for_up_to_the_limit() -> None:
    async with twilio(Fault(drip=(50, 0.005))) as (fake, provider):
        assert (await provider.send(message_to("+15550100"))).success
    async with twilio(Fault(drip=(1, 0.05)), timeout_s=0.5) as (fake, provider):
        async with asyncio.timeout(5):
            with pytest.raises(ProviderError) as raised:
                await provider.send(message_to("+15550100"))
        assert raised.value.ambiguous
        assert len(fake.messages) == 1


async def test_every_text_reaches_a_vendor_whose_line_breaks_again_and_again(tmp_path: Any) -> None:
    fake = FakeTwilio()
    async with behind_a_proxy(fake.app) as proxy, RoomKit(f"sqlite:///{tmp_path}/rooms.db") as kit:
        # Now and then enough gets through for the circuit breaker to stay closed.
        proxy.fault = lambda number: Fault(cut_at=number * 70 % 700 if number % 3 else 1_500) if number < 20 else None
        provider = TwilioSMSProvider(replace(fake.options(), base_url=f"http://127.0.0.1:{proxy.port}", timeout_s=2.0))
        sms = SMSChannel("sms", provider=provider)
        sms.delivery_policy = DeliveryPolicy(max_retries=30, base_delay=0.01, max_delay=0.05, on_ambiguous="retry")
        kit.register_channel(Channel("in", "app"))
        kit.register_channel(sms)
        await kit.create_room("r", channels=["in"])
        await kit.attach_channel("r", "sms", metadata={"phone_number": "+15550100"})
        for number in range(12):
            content = TextContent(text=f"message {number}")
            said = InboundMessage(channel_id="in", sender_id="ann", content=content, external_id=f"m{number}")
            async with asyncio.timeout(20):
                await (await kit.process_inbound(said, room_id="r")).settled()
        arrived = list(dict.fromkeys(message.body for message in fake.messages))
        assert arrived == [f"message {number}" for number in range(12)]
        assert proxy.broken > 3


# -- models

TEXT = "It is on its way, and will be with you on Tuesday, between nine and twelve in the morning. " * 3


def _openai(url: str, fake: Any, options: ClientOptions) -> Any:
    return OpenAIProvider("gpt-any", api_key=fake.key, base_url=f"{url}/v1", client_options=options)


def _responses(url: str, fake: Any, options: ClientOptions) -> Any:
    dialect = replace(COMPATIBLE, api="responses")
    return OpenAIProvider("gpt-any", api_key=fake.key, base_url=f"{url}/v1", dialect=dialect, client_options=options)


def _anthropic(url: str, fake: Any, options: ClientOptions) -> Any:
    return AnthropicProvider("claude-any", api_key=fake.key, base_url=url, client_options=options)


MODELS = {
    "chat": (FakeOpenAI, _openai),
    "responses": (FakeOpenAI, _responses),
    "anthropic": (FakeAnthropic, _anthropic),
}


@asynccontextmanager
async def model(name: str, **options: Any) -> AsyncIterator[tuple[Any, FaultProxy, Callable[[], Any]]]:
    vendor, made = MODELS[name]
    fake = vendor()
    async with behind_a_proxy(fake.app) as proxy:
        yield fake, proxy, lambda: made(f"http://127.0.0.1:{proxy.port}", fake, ClientOptions(**options))


async def _reply(fake: Any, provider: Any) -> tuple[str, bool]:
    """The text, and whether it was told to be all of it."""
    fake.reply(TEXT)
    text, finished = "", False
    request = AIRequest(messages=[AIMessage(role="user", parts=[TextPart(text="Where is my order?")])])
    try:
        async for event in provider.stream(request):
            if isinstance(event, TextChunk):
                text += event.text
            finished = finished or isinstance(event, Finished)
    finally:
        await provider.aclose()
    return text, finished


@pytest.mark.parametrize("name", MODELS)
async def test_a_reply_of_a_model_cut_anywhere_is_whole_or_an_error(name: str) -> None:
    async with model(name) as (fake, proxy, made):
        assert await _reply(fake, made()) == (TEXT, True)
        size = proxy.passed["to_client"]
        failed = whole = 0
        for cut in [*range(0, size, max(1, size // 24)), size - 1, size]:
            proxy.fault = Fault(cut_at=cut)
            try:
                answer = await _reply(fake, made())
            except ProviderError:
                failed += 1
                fake._script.clear()
            else:
                whole += 1
                assert answer == (TEXT, True), f"cut at {cut} of {size}"
        assert failed > 20
        assert whole > 0


@pytest.mark.parametrize("name", MODELS)
async def test_a_model_that_falls_silent_or_drips_ends_within_the_limit(name: str) -> None:
    async with model(name, read_s=0.4) as (fake, proxy, made):
        for silent in (0, 100, 1500):
            proxy.fault = Fault(silent_at=silent)
            async with asyncio.timeout(8):
                with pytest.raises(ProviderError):
                    await _reply(fake, made())
            fake._script.clear()
        proxy.fault = Fault(drip=(300, 0.002))
        assert await _reply(fake, made()) == (TEXT, True)


# -- PostgreSQL


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    if find_binaries() is None and os.environ.get("CI") != "true":
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with PostgresCluster() as running:
        yield running


def _message(number: int) -> InboundMessage:
    content = TextContent(text=f"message {number}")
    return InboundMessage(channel_id="in", sender_id="ann", content=content, external_id=f"m{number}")


async def _insist(kit: RoomKit, number: int) -> str:
    """As a vendor does: calls again until it is acknowledged. Returns the event's id."""
    while True:
        try:
            result = await kit.process_inbound(_message(number), room_id="r")
        except StoreError:
            await asyncio.sleep(0.05)
            continue
        assert result.event is not None
        return result.event.id


@pytest.mark.parametrize(
    "fault",
    [
        lambda number: Fault(cut_at=400 + 700 * number),
        lambda number: Fault("to_server", cut_at=600 + 900 * number),
        lambda number: Fault(silent_at=3000) if number % 3 == 0 else None,
        lambda number: Fault(drip=(60, 0.0005)),
    ],
    ids=["answers cut", "questions cut", "half-open", "drip"],
)
async def test_postgres_behind_a_breaking_line_loses_nothing_acknowledged(
    cluster: PostgresCluster, request: pytest.FixtureRequest, fault: Any
) -> None:
    from roomkit.providers.postgres import PostgresOptions, PostgresStore

    schema = "s" + "".join(letter for letter in request.node.callspec.id if letter.isalpha())
    options = PostgresOptions(timeout_s=1.0, retry_s=0.05, schema=schema, lease_s=600)

    def kit_on(port: int) -> RoomKit:
        kit = RoomKit(PostgresStore(cluster.url_of(port), options))
        kit.register_channel(Channel("in", "app"))
        return kit

    async with FaultProxy(cluster.port) as proxy:
        async with kit_on(proxy.port) as kit:
            await kit.create_room("r", channels=["in"])
            proxy.fault = fault
            proxy.cut()
            acked: dict[int, str] = {}
            async with asyncio.timeout(60):
                for start in range(0, 40, 8):
                    numbers = range(start, start + 8)
                    ids = await asyncio.gather(*(_insist(kit, number) for number in numbers))
                    acked |= dict(zip(numbers, ids, strict=True))
            proxy.fault = None
            proxy.cut()
            assert await _insist(kit, 0) == acked[0]
        assert proxy.connections > 2
    async with kit_on(cluster.port) as kit:
        events = await kit.events("r", limit=500)
        assert [event.index for event in events] == list(range(len(events)))
        found = {event.text: event.id for event in events if event.text}
        assert found == {f"message {number}": ident for number, ident in acked.items()}
        assert len([event for event in events if event.text]) == 40
