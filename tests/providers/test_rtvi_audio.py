"""The sound of RTVI's clients over their web socket: pace, silence at once, rates, and what is no sound."""

from __future__ import annotations

import asyncio

import pytest

from roomkit.errors import ConfigError, ProtocolError
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.ports.audio import BackendEvent, VoiceBackend
from roomkit.providers.rtvi.audio import LEAD_MS, RTVIBackend
from roomkit.testing.voice import FarEnd, Loudspeaker, check_voice_backend, loud, sound


class Far:
    """A client: it plays what comes the moment it comes, and can forget nothing."""

    def __init__(self, backend: RTVIBackend, *, listen_only: bool = False) -> None:
        self.session = VoiceSession("client", listen_only=listen_only)
        self.speaker = Loudspeaker(backend.player_rate)
        self.left = 0
        self._backend = backend
        self.call = backend.sockets.open(self.session, self)

    def play(self, pcm: bytes) -> None:
        self.speaker.add(pcm)

    def forget(self) -> None: ...

    def leave(self) -> None:
        self.left += 1

    async def say(self, pcm: bytes, rate: int = 0, channels: int = 1) -> None:
        self._backend.sockets.hear(self.call, pcm, rate or self.session.rate, channels)

    def heard(self) -> int:
        """In samples of the session."""
        return loud(self.speaker.heard) * self.session.rate // self.speaker.rate

    async def hang_up(self) -> None:
        self._backend.sockets.gone(self.call)


@pytest.mark.parametrize("rate, player", [(16_000, 24_000), (24_000, 24_000)])
async def test_conformance(rate: int, player: int) -> None:
    async def connect(listen_only: bool) -> tuple[VoiceBackend, FarEnd]:
        backend = RTVIBackend(rate, player_rate=player)
        return backend, Far(backend, listen_only=listen_only)

    await check_voice_backend(connect)


async def test_sound_is_sent_when_it_is_due_and_an_interruption_sends_no_more() -> None:
    backend = RTVIBackend()
    far = Far(backend)
    for _ in range(100):
        await backend.send_audio(far.session, AudioFrame(sound(320, 16_000), 16_000))
    await asyncio.sleep(0.5)
    assert backend.played(far.session) <= (0.52 + LEAD_MS / 1000) * 16_000
    await backend.clear(far.session)
    before = backend.played(far.session)
    await asyncio.sleep(1)
    assert backend.played(far.session) == before
    assert far.heard() <= (0.5 + LEAD_MS / 1000 + 0.02) * 16_000
    await backend.aclose()


@pytest.mark.parametrize("rate, channels", [(8_000, 1), (16_000, 2), (44_100, 1), (48_000, 2)])
async def test_a_client_may_speak_at_other_rates(rate: int, channels: int) -> None:
    backend = RTVIBackend()
    far = Far(backend)
    one = sound(rate // 50, rate)
    pcm = b"".join(one[at : at + 2] * channels for at in range(0, len(one), 2))
    for _ in range(20):
        await far.say(pcm, rate, channels)
    await far.hang_up()
    heard = b"".join([frame.pcm async for frame in backend.receive(far.session)])
    assert abs(len(heard) // 2 - 6_400) <= 640
    assert loud(heard) > 5_500


async def test_what_is_no_sound_is_refused_and_rates_that_nobody_has_cost_nothing() -> None:
    backend = RTVIBackend()
    far = Far(backend)
    for pcm, rate, channels in ((b"123", 16_000, 1), (b"12", 16_000, 2), (b"1212", 16_001, 1), (b"12", 16_000, 0)):
        with pytest.raises(ProtocolError):
            await far.say(pcm, rate, channels)
    with pytest.raises(ConfigError):
        RTVIBackend(16_001)


async def test_what_comes_faster_than_sound_is_dropped_before_it_costs_anything() -> None:
    backend = RTVIBackend()
    far = Far(backend)
    for _ in range(600):
        await far.say(sound(441, 44_100), 44_100)
    assert far.call.flooded >= 99, "six seconds came at once"
    with pytest.raises(ProtocolError, match="5 s"):
        await far.say(bytes(2 * 16_000 * 6))


async def test_keys_and_levels() -> None:
    backend, told, levels = RTVIBackend(), list[BackendEvent](), list[tuple[str, float]]()
    far = Far(backend)
    backend.on_event(told.append)
    backend.pressed(far.session, "1#")
    assert [event.data.digit for event in told] == ["1", "#"]
    backend.meter(far.session, lambda who, value: levels.append((who, value)))
    for number in range(60):
        pcm = sound(320, 16_000) if number < 30 else bytes(640)
        await backend.send_audio(far.session, AudioFrame(pcm, 16_000))
        await asyncio.sleep(0.02)
    values = [value for who, value in levels if who == "bot"]
    assert 3 <= len(values) <= 6, "at most every 150 ms"
    assert values[0] > 0.5
    assert values[-1] == 0, "that it has fallen silent is told once"
    await backend.hang_up(far.session)
    assert far.left == 1
