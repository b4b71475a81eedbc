"""RTVI by WebRTC: a peer as Pipecat's SmallWebRTC makes one, and who is not let in. Over real UDP on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

pytest.importorskip("aiortc")

from aiortc import RTCSessionDescription

from roomkit import RoomKit
from roomkit.channels.voice import VoiceChannel, VoiceOptions
from roomkit.models.access import PrincipalRole
from roomkit.models.audio import AudioFrame, SpokenText
from roomkit.providers.rtvi.audio import RTVIBackend
from roomkit.providers.webrtc.peers import PeerBackend
from roomkit.servers.rtvi import RTVIOptions, RTVIServer, rtvi_app
from roomkit.testing.calls import ScriptedTTS
from roomkit.testing.voice import sound
from roomkit.voice.pipeline import AudioPipelineConfig
from tests.providers.test_webrtc import Caller
from tests.servers.test_rtvi_sound import SECRET

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]


class Buzz(ScriptedTTS):
    """Speaks in a way that a codec does not take for silence."""

    async def speak(self, *args: Any, **more: Any) -> AsyncIterator[SpokenText]:
        async for piece in super().speak(*args, **more):
            yield SpokenText(AudioFrame(sound(320, 16_000), 16_000, piece.frame.position), piece.text_end)


class Kept:
    """What has come in."""

    def __init__(self) -> None:
        self.pcm = bytearray()

    def inbound(self, frame: Any) -> None:
        self.pcm += frame.pcm

    def outbound(self, frame: Any) -> None: ...

    def close(self) -> None: ...


class House:
    def __init__(self, *, voice: bool = True, **options: Any) -> None:
        self.kit = RoomKit(token_secrets=SECRET)
        self.kept = Kept()
        self.voice = VoiceChannel(
            "voice",
            tts=Buzz(),
            backend=RTVIBackend(peers=PeerBackend()),
            pipeline=AudioPipelineConfig(vad=None, dtmf=None, limiter=None, taps=(lambda *_: self.kept,)),
            options=VoiceOptions(greeting="Good morning.", again="Here again.", reprompt=None),
        )
        self.kit.register_channel(self.voice)
        self.server = RTVIServer(self.kit, RTVIOptions(voice="voice" if voice else None))
        self.app = rtvi_app(self.server, **options)
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://testserver")

    def headers(self, person: str = "ann", room: str = "r", **more: str) -> dict[str, str]:
        token = self.kit.tokens.issue(PrincipalRole.GUEST, room, id=person).token
        return {"authorization": f"Bearer {token}", **more}


@asynccontextmanager
async def house(**options: Any) -> AsyncIterator[House]:
    house = House(**options)
    async with house.kit, house.app.router.lifespan_context(house.app), house.http:
        await house.kit.create_room("r")
        yield house


class Peer(Caller):
    """A page's half: sound, two streams of pictures, a data channel. `told` is what came over it."""

    def __init__(self, home: House, path: str, headers: dict[str, str]) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.home, self.path, self.headers = home, path, headers
        self.told: list[dict[str, Any]] = []
        self.pc_id: str | None = None
        self.begin()

    def begin(self) -> None:
        self.peer.addTransceiver("video")
        self.peer.addTransceiver("video", direction="sendonly")
        self.chat = self.peer.createDataChannel("chat")
        self.chat.on("message", lambda text: self.told.append(json.loads(text)))

    async def offer(self, *, restart: bool = False) -> None:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        lines = self.peer.localDescription.sdp.splitlines(keepends=True)
        later = [line[2:].strip() for line in lines if line.startswith("a=candidate:")]
        sdp = "".join(line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates")))
        body = {"sdp": sdp, "type": "offer", "pc_id": self.pc_id, "restart_pc": restart}
        reply = await self.home.http.post(self.path, json=body, headers=self.headers)
        assert reply.status_code == 200, reply.text
        answer = reply.json()
        self.pc_id = answer["pc_id"]
        await self.peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        sent = [{"candidate": one, "sdp_mid": "0", "sdp_mline_index": 0} for one in [*later, ""]]
        body = {"pc_id": self.pc_id, "candidates": sent}
        assert (await self.home.http.patch(self.path, json=body, headers=self.headers)).status_code == 200
        async with asyncio.timeout(10):
            while self.chat.readyState != "open":
                await asyncio.sleep(0.01)

    def send(self, kind: str, data: Any = None) -> None:
        self.chat.send(json.dumps({"label": "rtvi-ai", "type": kind, "id": kind, "data": data}))

    async def until(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(15):
            while not (found := [one for one in self.told if one["type"] == kind]):
                await asyncio.sleep(0.01)
        return found[0]


async def until(true: Any) -> None:
    async with asyncio.timeout(15):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_peer_speaks_and_hears_goes_on_at_another_place_and_leaves() -> None:
    async with house() as home:
        start = await home.http.post("/start", json={"transport": "webrtc"}, headers=home.headers())
        peer = Peer(home, f"/sessions/{start.json()['sessionId']}/api/offer", home.headers())
        await peer.offer()
        peer.chat.send("ping: 1")
        peer.chat.send('{"type":"signalling","message":{"type":"trackStatus","receiver_index":0,"enabled":true}}')
        peer.chat.send("no json")
        assert (await peer.until("error"))["data"]["fatal"] is False
        assert home.voice.sessions() == [], "nobody is called before the client is ready"
        peer.send("client-ready", {"version": "2.1.0", "about": {"library": "test"}})
        assert (await peer.until("bot-ready"))["data"]["capabilities"]["audio_in"]
        await until(lambda: peer.heard() > 5_000)
        assert (await peer.until("bot-output"))["data"]["text"] == "Good morning."
        for _ in range(25):
            await peer.say(sound(960, 48_000))
        await until(lambda: sum(abs(one) > 2_000 for one in memoryview(bytes(home.kept.pcm)).cast("h")) > 4_000)
        (before,) = home.voice.sessions()
        peer.send("raw-audio", {"base64Audio": "AAAA", "sampleRate": 16_000, "numChannels": 1})
        await peer.until("error-response")

        other = Peer(home, "/api/offer", home.headers())
        other.pc_id = peer.pc_id
        await other.offer(restart=True)
        await until(lambda: before not in home.voice.sessions() and len(home.voice.sessions()) == 1)
        await until(lambda: any(one["data"].get("text") == "Here again." for one in other.told if one.get("data")))
        assert len(home.server.clients) == 1, "it is still the same client"

        await other.hang_up()
        await until(lambda: not home.server.clients and not home.voice.sessions() and not home.server.calls)
        await peer.hang_up()
        assert home.voice.backend.peers.peers == {}  # type: ignore[union-attr]


async def test_who_is_removed_goes_at_once_and_so_does_a_silent_peer() -> None:
    async with house() as home:
        peer = Peer(home, "/api/offer", home.headers())
        await peer.offer()
        peer.send("client-ready", {"version": "2.1.0"})
        await peer.until("bot-ready")
        await home.kit.remove_member("r", "ann", ban=True)
        assert (await peer.until("signalling"))["message"] == {"type": "peerLeft"}
        await until(lambda: not home.server.clients and not home.voice.sessions())
        again = await home.http.post("/api/offer", json={"sdp": "v=0", "type": "offer"}, headers=home.headers())
        assert again.status_code == 403
        await peer.hang_up()


async def test_who_is_not_let_in_and_what_is_no_offer() -> None:
    async with house(max_connections_per_principal=1) as home:
        http, ann = home.http, home.headers()
        offer = {"sdp": "v=0", "type": "offer", "pc_id": None, "restart_pc": False}
        for path in ("/start", "/api/offer"):
            assert (await http.post(path, json=offer)).status_code == 401
            evil = home.headers(origin="https://evil.example")
            assert (await http.post(path, json=offer, headers=evil)).status_code == 403
            nowhere = home.headers(room="nowhere")
            assert (await http.post(path, json=offer, headers=nowhere)).status_code == 404
            for body in (b"", b"[]", b"{", b"[" * 9_999):
                reply = await http.post(path, content=body, headers=ann)
                assert reply.status_code in ((200,) if path == "/start" and not body else (400,))
            huge = await http.post(path, content=b"x" * 200_000, headers=ann)
            assert huge.status_code == 413
        no_voices = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
        for sdp in ("", "v=0", no_voices, 5):
            reply = await http.post("/api/offer", json={**offer, "sdp": sdp}, headers=ann)
            assert reply.status_code == 400, "and it is not counted as a connection"
        for odd in (
            {"pc_id": {}},
            {"requestData": [1]},
            {"type": "answer"},
            {"sdp": None},
            {"pc_id": [], "restart_pc": 1},
        ):
            reply = await http.post("/api/offer", json={**offer, **odd}, headers=ann)
            assert 400 <= reply.status_code < 500, odd
        assert (await http.post("/start", json={"body": [1]}, headers=ann)).status_code == 400
        assert (await http.post("/api/offer", json={**offer, "pc_id": "x"}, headers=ann)).status_code == 404
        assert (await http.patch("/api/offer", json={"pc_id": "x"}, headers=ann)).status_code == 404

        session = (await http.post("/start", json={}, headers=ann)).json()["sessionId"]
        ben = home.headers("ben")
        assert (await http.post(f"/sessions/{session}/api/offer", json=offer, headers=ben)).status_code == 403
        for forged in ("x", "W10", session[:-4] + "AAAA"):
            reply = await http.post(f"/sessions/{forged}/api/offer", json=offer, headers=ann)
            assert reply.status_code in (400, 403)

        peer = Peer(home, "/api/offer", ann)
        await peer.offer()
        second = {**offer, "sdp": peer.peer.localDescription.sdp}
        assert (await http.post("/api/offer", json=second, headers=ann)).status_code == 429
        theirs = {"pc_id": peer.pc_id, "candidates": []}
        assert (await http.patch("/api/offer", json=theirs, headers=ben)).status_code == 404
        nonsense = ("nonsense", "candidate:1 1 udp x 127.0.0.1 5 typ host", "candidate:", " ")
        odd = [[{"candidate": one, "sdp_mid": "0", "sdp_mline_index": 0}] for one in nonsense]
        for bad in (*odd, [1], [{"candidate": "nonsense", "sdp_mid": "0"}], [{"candidate": 1}], 5):
            body = {"pc_id": peer.pc_id, "candidates": bad}
            assert (await http.patch("/api/offer", json=body, headers=ann)).status_code == 400
        await peer.hang_up()
        await until(lambda: not home.server.clients)


async def test_how_to_begin() -> None:
    async with house(public_url="https://chat.example/rtvi", allowed_origins=("https://shop.example",)) as home:
        page = home.headers(origin="https://shop.example")
        told = await home.http.post("/start", json={"transport": "websocket"}, headers=page)
        assert told.json() == {"wsUrl": "wss://chat.example/rtvi/", "token": page["authorization"][7:]}
        assert told.headers["access-control-allow-origin"] == "https://shop.example"
        assert told.headers["cache-control"] == "no-store"
    async with house(voice=False) as home:
        reply = await home.http.post("/start", json={}, headers=home.headers())
        assert (reply.status_code, "nobody is heard" in reply.json()["detail"]) == (404, True)
