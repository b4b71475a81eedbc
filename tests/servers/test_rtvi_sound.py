"""Clients of RTVI that speak and hear, over the web socket, under virtual time."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from roomkit import AIChannel, RoomKit
from roomkit.channels import RealtimeVoiceChannel
from roomkit.channels.voice import VoiceChannel, VoiceOptions
from roomkit.errors import ConfigError
from roomkit.models.access import PrincipalRole
from roomkit.models.content import MediaContent, text_of
from roomkit.models.event import EventType
from roomkit.models.hooks import BeforeCommit
from roomkit.net.room_client import Disconnected
from roomkit.protocols.rtvi.generated import frames_pb2 as pb
from roomkit.providers.rtvi.audio import RTVIBackend
from roomkit.providers.webaudio.audio import WebAudioBackend
from roomkit.runtime import Scope
from roomkit.servers.rtvi import RTVIOptions, RTVIServer, rtvi_app
from roomkit.testing import ScriptedAI
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.testing.clock import VirtualClock
from roomkit.testing.sockets import AsgiSocket
from roomkit.testing.voice import Loudspeaker, loud
from roomkit.voice.pipeline import AudioPipelineConfig
from roomkit.voice.realtime.mock import MockRealtimeProvider

SECRET = "a secret of the tests, long enough for a key"
LONG = "That is a long story. It begins in a small town. Nobody there had ever seen the sea. Then one day it rained."
LOUD = 1_000


class House:
    """A kit whose clients speak by script: a text is known by the value of its samples."""

    def __init__(self, *, rtvi: RTVIOptions | None = None, greeting: str | None = None, **app: Any) -> None:
        self.model = ScriptedAI()
        self.kit = RoomKit(clock=VirtualClock(), token_secrets=SECRET)
        self.script = ScriptedBackend()
        self.script.call()
        self.backend = RTVIBackend(player_rate=16_000)
        self.voice = VoiceChannel(
            "voice",
            stt=ScriptedSTT(self.script),
            tts=ScriptedTTS(),
            backend=self.backend,
            pipeline=AudioPipelineConfig(vad=ScriptedVad, limiter=None),
            options=VoiceOptions(greeting=greeting, reprompt=None, filler=None),
        )
        self.kit.register_channel(AIChannel("assistant", self.model), default=True)
        self.kit.register_channel(self.voice)
        self.server = RTVIServer(self.kit, rtvi or RTVIOptions(voice="voice"))
        self.app = rtvi_app(self.server, **app)

    def value(self, text: str) -> int:
        self.script.speaks(next(iter(self.script._lines.values())).session, text, 0, 0)
        return len(self.script._texts) - 1

    async def said(self) -> list[str]:
        return [text_of(e.content) for e in await self.kit.events("r") if e.type is EventType.MESSAGE]


class Page:
    """A client: what it is told, and what it hears."""

    def __init__(self, house: House, socket: AsgiSocket) -> None:
        self.house, self.socket = house, socket
        self.told: list[dict[str, Any]] = []
        self.speaker = Loudspeaker(16_000)

    async def send(self, kind: str, data: Any = None, message_id: str = "i1") -> None:
        text = json.dumps({"label": "rtvi-ai", "type": kind, "id": message_id, "data": data})
        await self.socket.send(pb.Frame(message=pb.MessageFrame(data=text)).SerializeToString())

    async def hear(self) -> None:
        try:
            while True:
                frame = pb.Frame.FromString(await self.socket.recv_any())
                if frame.WhichOneof("frame") == "audio":
                    assert (frame.audio.sample_rate, frame.audio.num_channels) == (16_000, 1)
                    self.speaker.add(frame.audio.audio)
                else:
                    self.told.append(json.loads(frame.message.data))
        except Disconnected:
            pass

    async def ready(self, version: str = "2.2.0") -> None:
        await self.send("client-ready", {"version": version, "about": {"library": "test"}}, "r")
        await asyncio.sleep(0.1)

    async def speak(self, text: str, ms: int) -> None:
        """Says it, and then falls silent for 0.7 s."""
        value = self.house.value(text)
        for number in range((ms + 700) // 20):
            pcm = value.to_bytes(2, "little") * 320 if number < ms // 20 else bytes(640)
            frame = pb.AudioRawFrame(audio=pcm, sample_rate=16_000, num_channels=1)
            await self.socket.send(pb.Frame(audio=frame).SerializeToString())
            await asyncio.sleep(0.02)

    def kinds(self, *without: str) -> list[str]:
        return [one["type"] for one in self.told if one["type"] not in without]

    def texts(self, kind: str) -> list[str]:
        return [one["data"]["text"] for one in self.told if one["type"] == kind]


@asynccontextmanager
async def page(house: House, person: str = "ann", room: str = "r") -> AsyncIterator[Page]:
    token = house.kit.tokens.issue(PrincipalRole.GUEST, room, id=person, display_name=person.title()).token
    socket = AsgiSocket(house.app, "/")
    socket.asgi_scope["query_string"] = f"token={token}".encode()
    async with socket, Scope("page") as scope:
        page = Page(house, socket)
        scope.spawn(page.hear(), name="hear")
        yield page


@asynccontextmanager
async def house(**options: Any) -> AsyncIterator[House]:
    house = House(**options)
    async with house.kit, house.app.router.lifespan_context(house.app):
        await house.kit.create_room("r")
        yield house


LEVELS = ("user-audio-level", "bot-audio-level")


async def test_a_question_is_asked_and_answered_aloud() -> None:
    async with house() as home, page(home) as client:
        home.model.add(["It is noon. ", "Really."])
        await client.ready()
        (ready,) = client.told
        assert ready["data"]["capabilities"] == {"audio_in": True, "audio_out": True, "metrics": True}
        await client.speak("what time is it", 600)
        await asyncio.sleep(4)
        assert await home.said() == ["what time is it", "It is noon. Really."]
        assert 15_000 < loud(client.speaker.heard) < 25_000
        assert client.texts("bot-output") == ["It is noon.", "Really."]
        outputs = [one["data"] for one in client.told if one["type"] == "bot-output"]
        assert all(one["will_be_spoken"] and one["spoken_status"] == "completed" for one in outputs)
        assert "".join(client.texts("bot-tts-text")).replace(" ", "") == "Itisnoon.Really."
        transcripts = [one["data"] for one in client.told if one["type"] == "user-transcription"]
        assert [one["final"] for one in transcripts].count(True) == 1
        assert (transcripts[-1]["text"], transcripts[-1]["user_id"]) == ("what time is it", "ann")
        assert len(transcripts) > 1
        kinds = client.kinds(*LEVELS, "bot-llm-text", "bot-tts-text", "bot-output", "user-input")
        once = list(dict.fromkeys(kinds))
        assert once == [
            "bot-ready",
            "user-started-speaking",
            "user-transcription",
            "user-stopped-speaking",
            "user-llm-text",
            "bot-llm-started",
            "bot-llm-stopped",
            "metrics",
            "bot-tts-started",
            "bot-started-speaking",
            "bot-tts-stopped",
            "bot-stopped-speaking",
        ]
        assert "bot-audio-level" in client.kinds()
        (metrics,) = [one["data"] for one in client.told if one["type"] == "metrics"]
        assert [one["processor"] for one in metrics["ttfb"]] == ["stt", "llm", "tts"]


async def test_an_interruption_is_silence_at_once() -> None:
    async with house() as home, page(home) as client:
        home.model.add([LONG])
        home.model.add(["All right."])
        await client.ready()
        await client.speak("tell me a story", 600)
        await asyncio.sleep(2)
        before = loud(client.speaker.heard)
        assert before > LOUD
        client.told.clear()
        speaking = asyncio.ensure_future(client.speak("no please stop", 800))
        await asyncio.sleep(0.5)
        heard = loud(client.speaker.heard)
        await asyncio.sleep(0.6)
        assert loud(client.speaker.heard) == heard, "it goes on after it was interrupted"
        kinds = client.kinds(*LEVELS, "bot-tts-text", "bot-output", "user-transcription", "user-input")
        assert kinds[:4] == [
            "bot-interrupted",
            "user-started-speaking",
            "bot-tts-stopped",
            "bot-stopped-speaking",
        ]
        await speaking
        await asyncio.sleep(3)
        told = " ".join(client.texts("bot-output"))
        assert "Then one day it rained" not in told, "what was not heard is not told as spoken"
        assert told.endswith("All right.")
        assert (await home.said())[-1] == "All right."


async def test_who_writes_has_the_word() -> None:
    async with house() as home, page(home) as client:
        home.model.add([LONG])
        home.model.add(["Ok."])
        await client.ready()
        await client.speak("tell me a story", 600)
        await asyncio.sleep(2)
        client.told.clear()
        await client.send("send-text", {"content": "stop it"}, "m1")
        await asyncio.sleep(3)
        assert client.kinds().count("bot-interrupted") == 1
        assert client.texts("bot-output")[-1] == "Ok."
        assert "Then one day it rained." not in client.texts("bot-output")


async def test_an_answer_that_is_wanted_in_writing_is_not_spoken() -> None:
    async with house() as home, page(home) as client:
        home.model.add(["Only ", "in writing."])
        home.model.add(["Aloud."])
        await client.ready()
        await client.send("send-text", {"content": "hush", "options": {"audio_response": False}}, "m1")
        await asyncio.sleep(2)
        (output,) = [one["data"] for one in client.told if one["type"] == "bot-output"]
        assert (output["text"], output["will_be_spoken"]) == ("Only in writing.", False)
        assert loud(client.speaker.heard) == 0
        await client.send("send-text", {"content": "and now?"}, "m2")
        await asyncio.sleep(2)
        assert client.texts("bot-output")[-1] == "Aloud."
        assert loud(client.speaker.heard) > LOUD


async def test_a_file_is_sent() -> None:
    async with house() as home, page(home) as client:
        home.model.add(["Nice."])
        await client.ready()
        data = base64.b64encode(b"\x89PNG\r\n\x1a\nand so on").decode()
        source = {"type": "bytes", "bytes": data}
        sent = {"content": "look", "file": {"format": "image/png", "name": "a.png", "source": source}}
        await client.send("send-file", sent, "f1")
        await asyncio.sleep(2)
        (content,) = [e.content for e in await home.kit.events("r") if isinstance(e.content, MediaContent)]
        assert (content.caption, content.filename, content.size_bytes) == ("look", "a.png", 17)
        blob = b"".join([part async for part in home.kit.blobs.read("default", content.url.removeprefix("blob:"))])
        assert blob == b"\x89PNG\r\n\x1a\nand so on"
        assert client.texts("bot-llm-text") == ["Nice."]
        client.told.clear()
        for file in (
            {"format": "application/x-sh", "source": source},
            {"format": "image/png", "source": {"type": "bytes", "bytes": "?"}},
            {"format": "image/png", "source": {"type": "url", "url": "file:///etc/passwd"}},
        ):
            await client.send("send-file", {"content": "x", "file": file}, "bad")
        await asyncio.sleep(0.2)
        assert client.kinds() == ["error-response"] * 3


async def test_others_share_the_room_and_the_greeting_is_only_spoken() -> None:
    async with house(greeting="Welcome.") as home, page(home) as ann:
        home.model.add(["Noon."])
        await ann.ready("2.0.0")
        await asyncio.sleep(2)
        assert ann.texts("bot-output") == ["Welcome."]
        assert await home.said() == []
        async with page(home, "ben") as ben:
            await ben.ready("1.0.0")
            await asyncio.sleep(2)
            await ann.speak("what time is it", 600)
            await asyncio.sleep(3)
            assert ben.texts("bot-llm-text")[-1] == "Noon."
            spoken = [one["data"]["spoken"] for one in ben.told if one["type"] == "bot-output"]
            assert True in spoken
            assert "bot-interrupted" not in ann.kinds()
            assert "user-input" not in ann.kinds()
        await home.kit.take_over("r", "sam")
        await home.kit.send("r", "Sam is here now.", by="sam")
        await asyncio.sleep(3)
        assert ann.texts("bot-output")[-1] == "Sam is here now."
        assert len(home.voice.sessions()) == 1


async def test_mute_keys_and_raw_sound() -> None:
    async with house() as home, page(home) as client:
        home.model.add(["Yes."])
        await client.ready()
        await home.kit.mute("r", "voice")
        await client.speak("nobody hears this", 400)
        await home.kit.unmute("r", "voice")
        await asyncio.sleep(0.2)
        assert [kind for kind in client.kinds() if "mute" in kind] == ["user-mute-started", "user-mute-stopped"]
        await client.send("dtmf", {"buttons": ["1", "2"]}, "k")
        await asyncio.sleep(0.2)
        keys = [e.content.data["digit"] for e in await home.kit.events("r") if e.type is EventType.DTMF]  # type: ignore[union-attr]
        assert keys == ["1", "2"]
        value = home.value("hello there").to_bytes(2, "little")
        for number in range(60):
            pcm = base64.b64encode(value * 320 if number < 25 else bytes(640)).decode()
            data = {"base64AudioBatch": [pcm], "sampleRate": 16_000, "numChannels": 1}
            await client.send("raw-audio-batch", data, f"a{number}")
            await asyncio.sleep(0.02)
        await asyncio.sleep(2)
        assert await home.said() == ["hello there", "Yes."]
        client.told.clear()
        for bad in ("?", "AAA="):
            await client.send("raw-audio", {"base64Audio": bad, "sampleRate": 7, "numChannels": 1}, "bad")
        await asyncio.sleep(0.1)
        assert client.kinds() == ["error-response", "error-response"]


async def test_a_client_that_goes_hangs_up_and_a_call_that_is_hung_up_lets_it_go() -> None:
    async with house() as home:
        async with page(home) as client:
            await client.ready()
            assert len(home.voice.sessions()) == 1
        await asyncio.sleep(0.1)
        assert (home.voice.sessions(), home.server.calls, home.server.clients) == ([], {}, {})
        async with page(home) as client:
            await client.ready()
            (session,) = home.voice.sessions()
            await home.voice.disconnect_session(session, "r")
            await asyncio.sleep(0.1)
            assert client.socket.code == 1000
        async with page(home) as client:
            await client.send("send-text", {"content": "early"})
            await client.speak("much too early", 200)
            assert client.told == []
            assert home.voice.sessions() == []


async def test_a_room_that_does_not_take_the_call_leaves_the_client_with_its_text() -> None:
    async with house() as home, page(home) as client:
        await home.kit.attach_channel("r", "voice")
        await home.kit.detach_channel("r", "voice")
        home.model.add(["Only written."])
        await client.ready()
        await asyncio.sleep(1)  # the notes that say so to the ear
        assert client.kinds() == ["bot-ready", "error"]
        assert "text goes on" in client.told[-1]["data"]["error"]
        await client.send("send-text", {"content": "hi"}, "m1")
        await asyncio.sleep(1)
        (output,) = [one["data"] for one in client.told if one["type"] == "bot-output"]
        assert (output["text"], output["will_be_spoken"]) == ("Only written.", False)
        await client.send("dtmf", {"button": "5"}, "m2")
        await asyncio.sleep(1)
        assert (await home.said())[-1] == "5"


async def test_sound_does_not_wait_for_a_message_that_takes_its_time() -> None:
    async with house() as home, page(home) as client:

        @home.kit.before(BeforeCommit, budget_s=10)
        async def slow(moment: Any) -> None:
            if moment.value.text == "slow":
                await asyncio.sleep(3)

        home.model.add(["First."])
        home.model.add(["Second."])
        await client.ready()
        await client.send("send-text", {"content": "slow"}, "m1")
        await client.speak("what time is it", 600)
        assert "user-started-speaking" in client.kinds()
        assert client.texts("user-transcription")
        await client.socket.close()
        await asyncio.sleep(5)
        assert "slow" in await home.said()


async def test_a_client_that_takes_nothing_loses_sound_and_then_the_link() -> None:
    async with house(send_timeout_s=3.0) as home, page(home) as client:
        home.model.add([LONG])
        await client.ready()
        client.socket.stalled = True
        await client.send("send-text", {"content": "tell me a story"}, "m1")
        await asyncio.sleep(5)
        assert home.server.clients == {}, "it took nothing for three seconds"
        assert home.voice.sessions() == []
        client.socket.stalled = False


@pytest.mark.parametrize("voice", ["voice", None])
async def test_a_kit_that_is_closed_lets_everybody_go_and_takes_nobody(voice: str | None) -> None:
    home = House(rtvi=RTVIOptions(voice=voice), greeting=LONG)
    async with home.app.router.lifespan_context(home.app):
        await home.kit.start()
        await home.kit.create_room("r")
        async with page(home) as client:
            await client.ready()
            await home.kit.aclose()
            await asyncio.sleep(2)
            assert client.socket.code == (1001 if voice is None else 1000)
        async with page(home) as client:
            await asyncio.sleep(0.1)
            assert client.socket.code == 1001
            assert "going away" in client.socket.reason
        assert home.server.clients == {}


async def test_a_model_that_hears_and_speaks_by_itself() -> None:
    kit, provider = RoomKit(clock=VirtualClock(), token_secrets=SECRET), MockRealtimeProvider()
    voice = RealtimeVoiceChannel("voice", provider=provider, transport=RTVIBackend(player_rate=16_000))
    kit.register_channel(voice)
    home = House.__new__(House)
    home.kit, home.server = kit, RTVIServer(kit, RTVIOptions(voice="voice"))
    home.app = rtvi_app(home.server)
    async with kit, home.app.router.lifespan_context(home.app):
        await kit.create_room("r")
        async with page(home) as client:
            await client.ready()
            model = provider.session
            model.hears("what time is it")
            await asyncio.sleep(0.1)
            model.says("It is noon.")
            await asyncio.sleep(3)
            assert loud(client.speaker.heard) > 10_000
            assert client.texts("bot-output") == ["It is noon."]
            finals = [one["data"]["text"] for one in client.told if one["type"] == "user-transcription"]
            assert finals[-1] == "what time is it"
            assert await home.said() == ["what time is it", "It is noon."]
            kinds = client.kinds(*LEVELS)
            assert kinds.index("bot-started-speaking") < kinds.index("bot-stopped-speaking") < kinds.index("bot-output")
            assert "bot-interrupted" not in kinds
            model.hears("a story")
            await asyncio.sleep(0.1)
            model.says(LONG, ms=8_000)
            await asyncio.sleep(2)
            model.hears("stop")
            await asyncio.sleep(0.2)
            heard = loud(client.speaker.heard)
            await asyncio.sleep(1)
            assert loud(client.speaker.heard) == heard
            assert client.kinds().count("bot-interrupted") == 1
            assert "Then one day it rained." not in client.texts("bot-output")


async def test_a_voice_that_is_none_is_named() -> None:
    kit = RoomKit(token_secrets=SECRET)
    kit.register_channel(VoiceChannel("page", tts=ScriptedTTS(), backend=WebAudioBackend()))
    for name in ("nobody", "page"):
        with pytest.raises(ConfigError, match="RTVIBackend"):
            RTVIServer(kit, RTVIOptions(voice=name))
    await kit.aclose()
