"""Phone calls by Twilio Media Streams, against a strict fake with a play-out clock, and through the door."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from roomkit import RoomKit
from roomkit.channels.voice import VoiceChannel, VoiceOptions
from roomkit.channels.websocket import WebSocketChannel
from roomkit.dsp.pcm import to_pcm
from roomkit.errors import AccessDenied, ConfigError, StateError
from roomkit.models.audio import AudioFrame, DtmfDigit, VoiceSession
from roomkit.models.delivery import WebhookRequest
from roomkit.net.room_client import Disconnected
from roomkit.ports.audio import BackendEvent, VoiceBackend
from roomkit.providers.twilio.media_streams import TwilioMediaBackend
from roomkit.providers.twilio.signature import TwilioKeys
from roomkit.providers.twilio.sms import TwilioOptions
from roomkit.runtime import Scope
from roomkit.testing.calls import ScriptedTTS
from roomkit.testing.clock import VirtualClock
from roomkit.testing.sockets import AsgiSocket
from roomkit.testing.vendors.twilio_media import FakeTwilioCall
from roomkit.testing.voice import FarEnd, MemoryLine, check_voice_backend, sound
from roomkit.voice.courtesy import turn_away
from tests.servers.house import SECRET, House, house

TOKEN = "an auth token of nobody"
KEYS = TwilioKeys((TOKEN,))
PUBLIC = "https://calls.example"
FORM = {"CallSid": "CA1", "AccountSid": "AC1", "From": "+15550123", "To": "+15550100", "CallStatus": "ringing"}


def made(clock: VirtualClock | None = None) -> TwilioMediaBackend:
    return TwilioMediaBackend(TwilioOptions("AC1", auth_token=TOKEN), clock=clock)


def asked(query: str = "", **more: str) -> WebhookRequest:
    body = urlencode({**FORM, **more}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return KEYS.sign(WebhookRequest("POST", f"{PUBLIC}/voice/phone{query}", headers, body))


def parameters(twiml: bytes) -> dict[str, str]:
    found = re.findall(rb"<Parameter name=\"(\w+)\" value=\"([^\"]*)\"/>", twiml)
    return {name.decode(): unescape(value.decode()) for name, value in found}


async def nothing() -> None: ...


@asynccontextmanager
async def phone(backend: TwilioMediaBackend) -> AsyncIterator[FakeTwilioCall]:
    async with Scope("phone") as scope:
        line = MemoryLine()
        told = parameters(backend.reply(asked(), "wss://calls.example/voice/phone").body)
        far = FakeTwilioCall(line.put, parameters=told)
        line.on_sent = far.take
        far.start()
        scope.spawn(backend.serve(line, far.session, nothing), name="serve")
        scope.spawn(far.play(), name="play")
        await asyncio.sleep(0.001)
        yield far
        line.put(None)
        await asyncio.sleep(0.01)


async def test_conformance() -> None:
    async with Scope("phones") as scope:

        async def connect(listen_only: bool) -> tuple[VoiceBackend, FarEnd]:
            backend, line = made(), MemoryLine()
            told = parameters(backend.reply(asked(), "wss://calls.example/voice/phone").body)
            far = FakeTwilioCall(line.put, parameters=told, session=VoiceSession("call", listen_only=listen_only))
            line.on_sent = far.take
            far.start()
            scope.spawn(backend.serve(line, far.session, nothing), name="serve")
            scope.spawn(far.play(), name="play")
            await asyncio.sleep(0.001)
            return backend, far

        await check_voice_backend(connect)


async def test_what_was_lost_is_made_up_for_60_ms_and_keeps_its_place() -> None:
    backend = made()
    async with phone(backend) as far:
        at = np.arange(160)
        tone = [to_pcm(8_000 * np.sin(2 * np.pi * 200 * (at + 160 * n) / 8_000)) for n in range(20)]
        for frame in tone[:5]:
            await far.say(frame)
        far.lose(5)
        for frame in tone[10:]:
            await far.say(frame)
        await asyncio.sleep(0.01)
        call = backend._calls[far.session.id]
        frames = [await call.frames.get() for _ in range(len(call.frames))]
        assert [frame.position // 160 for frame in frames] == [*range(8), *range(10, 20)]
        loudness = [float(np.square(np.frombuffer(frame.pcm, "<i2").astype(float)).mean() ** 0.5) for frame in frames]
        assert loudness[4] > loudness[5] > loudness[6] > loudness[7] > 500
        assert call.wire.codec.lost == 5


async def test_keys_are_told() -> None:
    backend, told = made(), list[BackendEvent]()
    async with phone(backend) as far:
        backend.on_event(told.append)
        far.press("5")
        await asyncio.sleep(0.01)
    assert [event.data for event in told if event.kind == "dtmf"] == [DtmfDigit("5")]


async def test_marks_of_before_a_clear_come_back_and_do_not_count() -> None:
    backend = made()
    async with phone(backend) as far:
        for _ in range(20):
            await backend.send_audio(far.session, AudioFrame(sound(160, 8_000), 8_000))
        await asyncio.sleep(0.1)
        await backend.clear(far.session)
        at_clear = backend.played(far.session)
        assert abs(at_clear - 800) <= 160
        await asyncio.sleep(1)
        assert backend.played(far.session) == at_clear
        assert far.clears == 1


async def test_a_ticket_is_for_one_connection_of_one_call_within_a_minute() -> None:
    clock = VirtualClock()
    backend = made(clock)

    async def tried(told: dict[str, str], call_sid: str = "CA1", account_sid: str = "AC1") -> None:
        line = MemoryLine()
        FakeTwilioCall(line.put, parameters=told, call_sid=call_sid, account_sid=account_sid).start()
        line.put(None)
        await backend.serve(line, VoiceSession("call"), nothing)

    def ticket() -> dict[str, str]:
        return parameters(backend.reply(asked(), "wss://x/voice/phone").body)

    told = ticket()
    await tried(told)
    for wrong in (told, {}, {"ticket": "1.2.3"}, {"ticket": told["ticket"] + "x"}, {"ticket": "ü.ü.ü"}):
        with pytest.raises(AccessDenied):
            await tried(wrong)
    with pytest.raises(AccessDenied):
        await tried(ticket(), call_sid="CA2")
    with pytest.raises(AccessDenied):
        await tried(ticket(), account_sid="AC2")
    told = ticket()
    await asyncio.sleep(62)
    with pytest.raises(AccessDenied):
        await tried(told)


async def test_a_call_whose_server_went_away_is_connected_again_and_one_that_we_hung_up_ends() -> None:
    first = made().reply(asked(), "wss://x/voice/phone").body.decode()
    assert first.endswith(
        f'<Pause length="2"/><Redirect method="POST">{PUBLIC}/voice/phone?again=1</Redirect></Response>'
    )
    assert "again" not in parameters(first.encode())
    outgoing = made().reply(asked(CallStatus="in-progress"), "wss://x/voice/phone").body
    assert "again" not in parameters(outgoing), "the first question about a call that we made"
    backend = made()  # the next process, which knows nothing of the call
    told = parameters(backend.reply(asked("?again=1", CallStatus="in-progress"), "wss://x/voice/phone").body)
    assert told["again"] == "1"
    async with Scope("phone") as scope:
        line = MemoryLine()
        far = FakeTwilioCall(line.put, parameters=told)
        line.on_sent = far.take
        far.start()
        scope.spawn(backend.serve(line, far.session, nothing), name="serve")
        await asyncio.sleep(0.01)
        assert far.session.metadata["again"] is True
        await backend.hang_up(far.session)
        line.put(None)
        await asyncio.sleep(0.01)
    ended = backend.reply(asked("?again=1", CallStatus="in-progress"), "wss://x/voice/phone").body
    assert b"<Response><Hangup/></Response>" in ended


async def test_a_call_that_its_room_does_not_take_ends_at_twilio_too() -> None:
    backend = made()
    told = parameters(backend.reply(asked(), "wss://x/voice/phone").body)

    async def refuse() -> None:
        await turn_away(backend, far.session, StateError("after hours"))
        raise StateError("after hours")

    async with Scope("phone") as scope:
        line = MemoryLine()
        far = FakeTwilioCall(line.put, parameters=told)
        line.on_sent = far.take
        far.start()
        scope.spawn(far.play(), name="play")
        await backend.serve(line, far.session, refuse)
        assert far.heard() > 4_000, "the caller hears nothing"
        assert line.code == 1000
        scope.cancel()
    ended = backend.reply(asked("?again=1", CallStatus="in-progress"), "wss://x/voice/phone").body
    assert b"<Response><Hangup/></Response>" in ended


def test_a_stream_that_fails_each_time_does_not_ring_for_ever() -> None:
    backend = made()
    replies = [
        backend.reply(asked("?again=1", CallStatus="in-progress"), "wss://x/voice/phone").body for _ in range(11)
    ]
    assert [b"<Hangup/>" in reply for reply in replies] == [False] * 10 + [True]
    plain = TwilioMediaBackend(TwilioOptions("AC1", auth_token=TOKEN), reconnect=False)
    assert b"<Redirect" not in plain.reply(asked(), "wss://x/voice/phone").body


def test_names_are_quoted_in_the_answer() -> None:
    reply = made().reply(asked(From='"><Dial>+1900</Dial>'), "wss://x/voice/phone")
    assert b"<Dial>" not in reply.body
    assert parameters(reply.body)["from"] == '"><Dial>+1900</Dial>'


def test_without_a_token_nothing_is_made() -> None:
    with pytest.raises(ConfigError):
        TwilioMediaBackend(TwilioOptions("AC1"))


@asynccontextmanager
async def phones() -> AsyncIterator[tuple[House, VoiceChannel]]:
    clock = VirtualClock()
    kit = RoomKit(clock=clock, token_secrets=[SECRET])
    kit.register_channel(WebSocketChannel("web"))
    options = VoiceOptions(greeting="Good morning to you.")
    channel = VoiceChannel("phone", tts=ScriptedTTS(), backend=made(clock), options=options)
    kit.register_channel(channel)
    async with house(kit, public_url=PUBLIC) as home:
        yield home, channel


def upgrade(url: str = "wss://calls.example/voice/phone") -> list[tuple[str, str]]:
    return list(KEYS.sign(WebhookRequest("GET", url, {}, b"")).headers.items())


async def test_a_phone_call_through_the_door() -> None:
    async with phones() as (home, channel):
        request = asked()
        reply = await home.http.post("/voice/phone", content=request.body, headers=dict(request.headers))
        assert reply.headers["content-type"].startswith("text/xml")
        assert '<Connect><Stream url="wss://calls.example/voice/phone">' in reply.text
        later = asked("?again=1")
        back = await home.http.post("/voice/phone?again=1", content=later.body, headers=dict(later.headers))
        assert back.status_code == 200, back.text
        assert parameters(back.content)["again"] == "1"
        forged = await home.http.post("/voice/phone?again=1", content=request.body, headers=dict(request.headers))
        assert forged.status_code == 403
        async with AsgiSocket(home.app, "/voice/phone", headers=upgrade()) as socket, Scope("phone") as scope:
            told = parameters(reply.content)
            far = FakeTwilioCall(
                lambda text: socket._tell_app({"type": "websocket.receive", "text": text}), parameters=told
            )

            async def hear() -> None:
                try:
                    while True:
                        far.take(await socket.recv_any())
                except Disconnected:
                    pass

            far.start()
            scope.spawn(hear(), name="hear")
            scope.spawn(far.play(), name="play")
            await asyncio.sleep(3)
            (session,) = channel.sessions()
            assert session.metadata["from"] == "+15550123"
            assert far.heard() > 4_000, "no greeting is heard"
            (event,) = [
                event
                for event in await home.kit.events(session.room_id)
                if getattr(event.content, "code", "") == "call_started"
            ]
            assert event.source.external_id == "+15550123"
            await far.hang_up()
            await asyncio.sleep(0.1)
            assert channel.sessions() == []
            assert socket.code == 1000


async def test_nobody_but_twilio_is_let_in() -> None:
    async with phones() as (home, _):
        request = asked()
        forged: list[dict[str, Any]] = [
            {"content": request.body, "headers": {"content-type": request.headers["content-type"]}},
            {"content": request.body + b"&From=evil", "headers": dict(request.headers)},
        ]
        for one in forged:
            assert (await home.http.post("/voice/phone", **one)).status_code == 403
        for headers in ([], upgrade("wss://calls.example/voice/other")):
            with pytest.raises(Disconnected) as gone:
                async with AsgiSocket(home.app, "/voice/phone", headers=headers):
                    pass
            assert gone.value.code == 4403
        async with AsgiSocket(home.app, "/voice/phone", headers=upgrade()) as socket:
            far = FakeTwilioCall(
                lambda text: socket._tell_app({"type": "websocket.receive", "text": text}), parameters={}
            )
            far.start()
            assert await socket.closed() == 4403
        async with AsgiSocket(home.app, "/voice/phone", headers=upgrade("https://calls.example/voice/phone")) as socket:
            await asyncio.sleep(0.01)
            assert socket.code is None
