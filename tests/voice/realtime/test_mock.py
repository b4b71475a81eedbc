"""The mocks at the seed's path pass the kits that real transports and providers pass; so does the cascade."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from roomkit.models import realtime as rt
from roomkit.models.audio import FRAME_MS, SpokenText, VoiceSession
from roomkit.models.realtime import RealtimeCommand, RealtimeConfig
from roomkit.ports.audio import VoiceBackend
from roomkit.testing import check_realtime, check_voice_backend
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.testing.voice import FarEnd, loud
from roomkit.voice.realtime.cascade import CascadeRealtime
from roomkit.voice.realtime.mock import MockRealtimeProvider, MockRealtimeTransport, MockSession


class Reacting(MockSession):
    """A session of the mock that answers by a script, one reply after the other."""

    provider: ReactingMock

    def __init__(self, provider: ReactingMock, config: RealtimeConfig, number: int) -> None:
        super().__init__(config, None, number)
        self.provider = provider
        self.open: set[str] = set()
        self.under_way = ""
        self.item = ""
        self.owed = 0

    async def send(self, command: RealtimeCommand) -> None:
        await super().send(command)
        match command:
            case rt.InjectText(respond=True) | rt.Respond():
                self.owed += 1
            case rt.ToolAnswer(call_id=call_id, output=output) if call_id in self.open:
                self.open.discard(call_id)
                self.provider.results.append(output)
                self.owed += not self.open
            case rt.CutReply() if self.under_way:
                self.emit(rt.ReplyOver(self.under_way, "cancelled"))
                self.under_way = ""
            case rt.AppendAudio(pcm=pcm):
                self.listen(int.from_bytes(pcm[:2], "little"))
            case _:
                pass
        while self.owed and not self.under_way and not self.open:
            self.owed -= 1
            self.reply()

    def listen(self, value: int) -> None:
        if value and not self.item:
            self.item = self.name("user")
            self.emit(rt.SpeechBegan(self.item))
        elif not value and self.item:
            self.emit(rt.SpeechStopped(self.item), rt.UserText(self.item, "good morning"))
            self.item = ""
            self.owed += 1

    def reply(self) -> None:
        text, ms, calls = self.provider.script.popleft() if self.provider.script else ("Yes.", 100, ())
        if calls:
            self.open.update(self.calls(*calls))
        elif ms > 5_000:
            self.under_way = self.says(text, ms=ms, over=False)
        else:
            self.says(text, ms=ms)


class ReactingMock(MockRealtimeProvider):
    def __init__(self) -> None:
        super().__init__()
        self.script: deque[tuple[str, int, tuple[Any, ...]]] = deque()
        self.results: list[str] = []

    async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> MockSession:
        self.sessions.append(Reacting(self, config, len(self.sessions) + 1))
        return self.session


class MockRig:
    def __init__(self) -> None:
        self.provider = ReactingMock()

    def will_say(self, text: str, *, ms: int = 500, calls: tuple[tuple[str, dict[str, Any]], ...] = ()) -> None:
        self.provider.script.append((text, ms, calls))

    def speech(self, text: str, rate: int) -> list[bytes]:
        size = rate * FRAME_MS // 1000
        return [b"\1\0" * size] * 20 + [bytes(size * 2)] * 20

    def outputs(self) -> list[str]:
        return self.provider.results

    def seed(self) -> list[tuple[str, str]]:
        return [(turn.role, turn.text) for turn in self.provider.session.config.history]

    def cut(self) -> None:
        self.provider.session.breaks()

    async def aclose(self) -> None: ...


async def test_the_mock_provider_passes_the_kit() -> None:
    await check_realtime(MockRig)


class TimedTTS(ScriptedTTS):
    """Each text lasts as long as the script says."""

    def __init__(self) -> None:
        super().__init__(speed=50.0)
        self.lengths: dict[str, int] = {}

    async def speak(self, text: Any, *, voice: str | None = None, language: str | None = None) -> Any:
        whole = "".join([part async for part in text])
        ms = self.lengths.get(whole.strip(), 20)
        async for piece in super().speak(_one("x" * (ms * 15 // 1000)), voice=voice, language=language):
            yield SpokenText(piece.frame)


async def _one(text: str) -> Any:
    yield text


class CascadeRig:
    def __init__(self) -> None:
        self.line = ScriptedBackend()
        self.tts = TimedTTS()
        self.brain = ScriptedAI()
        self.provider = CascadeRealtime(ScriptedSTT(self.line), self.brain, self.tts, vad=ScriptedVad)

    def will_say(self, text: str, *, ms: int = 500, calls: tuple[tuple[str, dict[str, Any]], ...] = ()) -> None:
        self.tts.lengths[text] = ms
        self.brain.add([*([text] if text else []), *(call(name, **given) for name, given in calls)])

    def speech(self, text: str, rate: int) -> list[bytes]:
        session = self.line.call()
        self.line.speaks(session, text, 0, 400)
        size = rate * FRAME_MS // 1000
        return [b"\1\0" * size] * 20 + [bytes(size * 2)] * 40

    def outputs(self) -> list[str]:
        last = self.brain.requests[-1].messages
        return [part.output for message in last for part in message.parts if part.type == "tool_result"]

    def seed(self) -> list[tuple[str, str]]:
        return [(message.role, message.text) for message in self.brain.requests[0].messages]

    def cut(self) -> None:
        raise AssertionError("the parts of the house have no connection to cut")

    async def aclose(self) -> None: ...


async def test_the_cascade_hears_and_speaks_as_the_port_says() -> None:
    from roomkit.testing import realtime as kit

    for check in (kit._hears, kit._speaks, kit._asks, kit._is_cut, kit._remembers, kit._is_told_apart, kit._ends):
        rig = CascadeRig()
        await check(rig)
        await rig.provider.aclose()


class MockFarEnd:
    def __init__(self, line: MockRealtimeTransport, session: VoiceSession) -> None:
        self.session = session
        self._line = line

    async def say(self, pcm: bytes) -> None:
        self._line.say(self.session, pcm)

    def heard(self) -> int:
        return loud(self._line.heard(self.session))

    async def hang_up(self) -> None:
        self._line.disconnects(self.session)
        await asyncio.sleep(0)


async def test_the_mock_transport_passes_the_kit() -> None:
    count = 0
    line = MockRealtimeTransport()

    async def connect(listen_only: bool) -> tuple[VoiceBackend, FarEnd]:
        nonlocal count
        count += 1
        session = VoiceSession(f"call-{count}", listen_only=listen_only)
        await line.accept(session, None)
        return line, MockFarEnd(line, session)

    await check_voice_backend(connect)
