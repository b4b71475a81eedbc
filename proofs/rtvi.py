"""Pipecat's own client in a real browser, with a microphone, over both of its transports of ours.

Somebody (a synthetic voice in Chromium's microphone) asks a question, hears a long story, and asks again over it. Their
room has a supervisor and somebody on SMS. Nothing of it is faked but the voice, the model and the phone company.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from playwright.async_api import Page, async_playwright
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from proofs.kill9 import Proof
from proofs.patience import patience
from roomkit import AIChannel, RoomKit, SMSChannel
from roomkit.channels.voice import VoiceChannel, VoiceOptions
from roomkit.models.access import PrincipalRole
from roomkit.models.content import TextContent, text_of
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventType
from roomkit.providers.rtvi.audio import RTVIBackend
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.providers.webrtc.peers import PeerBackend
from roomkit.runtime import Scope
from roomkit.servers.rtvi import RTVIOptions, RTVIServer, rtvi_app
from roomkit.testing import ScriptedAI
from roomkit.testing.vendors.twilio import FakeTwilio
from roomkit.voice.pipeline import AudioPipelineConfig

TITLE = "a browser with the real client of RTVI speaks with a room, over its web socket and by WebRTC"
NODE = Path(__file__).parents[1] / "tests" / "node"
SAID, PHONE = "what time is it", "+15550101234"
STORY = "This is a long story about a very small town where nobody had ever seen the sea, until one day it rained. " * 4
QUIET_AFTER_S = 1.5
"""How long after the caller began to speak over a reply the browser may still sound: what a voice detector, the network
and the browser's own buffer take together."""
ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
)
PAGE = "<!doctype html><title>RTVI</title><script src=bundle.js></script>"


async def prove(n: int, seed: int) -> Proof:
    del seed
    proof = Proof()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory(prefix="roomkit-rtvi-") as folder:
        bundle = await asyncio.to_thread(_bundle, Path(folder))
        speech = await asyncio.to_thread(_speech, Path(folder))
        for number in range(n):
            for how in ("websocket", "webrtc"):
                async with async_playwright() as playwright, _house(bundle) as (kit, twilio, base):
                    args = [*ARGS, f"--use-file-for-fake-audio-capture={speech}"]
                    browser = await playwright.chromium.launch(executable_path=chromium, args=args)
                    try:
                        page = await browser.new_page()
                        complaints: list[str] = []
                        page.on("pageerror", lambda error, into=complaints: into.append(str(error)))
                        await page.goto(base)
                        await _converse(proof, kit, twilio, page, how, base)
                        proof.wrong += [f"{how}: the page: {complaint}" for complaint in complaints]
                    finally:
                        await browser.close()
                proof.figures[f"{how}: conversations"] = number + 1
                await asyncio.sleep(0.3)  # The browser's pipes close behind it.
    return proof


async def _converse(proof: Proof, kit: RoomKit, twilio: FakeTwilio, page: Page, how: str, base: str) -> None:
    token = kit.tokens.issue(PrincipalRole.GUEST, "r", id="ann", display_name="Ann").token
    address = base.replace("http", "ws", 1) + "rtvi/" if how == "websocket" else f"{base}rtvi/start"
    version = await page.evaluate("([how, address, token]) => join(how, address, token)", [how, address, token])
    wrong = proof.wrong
    if version != "2.2.0":
        wrong.append(f"{how}: the bot's version is {version}")
    said = await _until(lambda: _said(kit), lambda said: any("time" in text for _, text in said), 30)
    if said is None:
        wrong.append(f"{how}: what was said is not in the room: {await _said(kit)}")
        return
    if await _until(lambda: _loud(page), lambda loud: loud > 50, 15) is None:
        wrong.append(f"{how}: the answer is not heard")
    # The microphone repeats its file: the same question again, over the story.
    if await _until(lambda: page.evaluate("over() !== undefined"), bool, 40) is None:
        wrong.append(f"{how}: nobody noticed that the caller spoke again")
        return
    late = await page.evaluate("late()")
    proof.took(f"{how}: silent after an interruption", late)
    if late > QUIET_AFTER_S * patience():
        wrong.append(f"{how}: it sounded for {late:.1f} s after it was interrupted")
    await _company(proof, kit, twilio, page, how)
    seen = await page.evaluate("({ texts: seen.texts })")
    for kind in ("userTranscript", "botOutput", "botTtsText", "botLlmText", "metrics"):
        if not seen["texts"].get(kind):
            wrong.append(f"{how}: the client was told nothing of {kind}")
    await page.evaluate("leave()")
    if await _until(lambda: _calls(kit), lambda calls: calls == 0, 10) is None:
        wrong.append(f"{how}: the call goes on after the client has left")


async def _company(proof: Proof, kit: RoomKit, twilio: FakeTwilio, page: Page, how: str) -> None:
    """A supervisor takes over, and somebody writes from a telephone: the client hears of both, and SMS of the first."""
    await kit.take_over("r", "sam")
    hello = TextContent(text="Hello from my phone")
    await kit.process_inbound(InboundMessage(channel_id="sms", sender_id=PHONE, content=hello), room_id="r")
    await kit.send("r", "This is Sam, a person.", by="sam")
    for words in ("This is Sam", "Hello from my phone"):
        if await _until(lambda: _texts(page), lambda told, words=words: words in told, 15) is None:
            proof.wrong.append(f"{how}: the client was not told: {words}")
    if await _until(lambda: _sent(twilio), lambda bodies: "This is Sam" in bodies, 10) is None:
        proof.wrong.append(f"{how}: nobody on SMS was told what the supervisor said")


async def _said(kit: RoomKit) -> list[tuple[str, str]]:
    events = await kit.events("r", limit=200)
    return [(e.source.channel_id, text_of(e.content)) for e in events if e.type is EventType.MESSAGE]


async def _loud(page: Page) -> int:
    return await page.evaluate("seen.loudness.filter(([, loud]) => loud > 0.02).length")


async def _texts(page: Page) -> str:
    return await page.evaluate("JSON.stringify(seen.texts)")


async def _sent(twilio: FakeTwilio) -> str:
    return " ".join(message.body for message in twilio.messages)


async def _calls(kit: RoomKit) -> int:
    return len(kit.engine.channels["voice"].sessions())  # type: ignore[attr-defined]


async def _until(look: Any, good: Any, seconds: float) -> Any:
    """What `look` finds once it is good; None when it is not in time."""
    try:
        async with asyncio.timeout(seconds * patience()):
            while not good(found := await look()):
                await asyncio.sleep(0.1)
    except TimeoutError:
        return None
    return found


@asynccontextmanager
async def _house(bundle: str) -> AsyncIterator[tuple[RoomKit, FakeTwilio, str]]:
    kit = RoomKit(token_secrets="only for this proof, never anywhere else")
    twilio = FakeTwilio()
    kit.register_channel(AIChannel("assistant", ScriptedAI([STORY], repeat=True)), default=True)
    kit.register_channel(SMSChannel("sms", provider=TwilioSMSProvider(twilio.options(), transport=twilio.transport())))
    kit.register_channel(
        VoiceChannel(
            "voice",
            stt="sphinx",
            tts="espeak",
            backend=RTVIBackend(peers=PeerBackend()),
            pipeline=AudioPipelineConfig(),
            options=VoiceOptions(reprompt=None, filler=None),
        )
    )
    doors = rtvi_app(RTVIServer(kit, RTVIOptions(voice="voice")))
    page = Route("/", lambda _: HTMLResponse(PAGE))
    code = Route("/bundle.js", lambda _: Response(bundle, media_type="text/javascript"))
    app = Starlette(routes=[page, code, Mount("/rtvi", doors)])
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="websockets-sansio")
    web = uvicorn.Server(config)
    async with kit, Scope("web server") as scope:
        await kit.create_room("r", channels=["assistant"])
        serving = scope.spawn(web.serve(), name="uvicorn")
        while not web.started:
            await asyncio.sleep(0.01)
        try:
            yield kit, twilio, f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}/"
        finally:
            web.should_exit = True
            await asyncio.wait([serving], timeout=10)


def _bundle(folder: Path) -> str:
    made = folder / "bundle.js"
    esbuild = NODE / "node_modules" / ".bin" / "esbuild"
    command = [str(esbuild), "browser.js", "--bundle", "--format=iife", f"--outfile={made}", "--log-level=error"]
    if not esbuild.exists() or subprocess.run(command, check=False, cwd=NODE, timeout=60).returncode:
        raise RuntimeError("the client's packages cannot be bundled; install them: sh .ci/node")
    return made.read_text()


def _speech(folder: Path) -> Path:
    """What the microphone hears, again and again: four seconds of silence, a question, ten seconds of silence."""
    said, path = folder / "said.wav", folder / "microphone.wav"
    subprocess.run(["flite", "-voice", "slt", "-t", SAID, "-o", str(said)], check=True, timeout=20)
    with wave.open(str(said)) as file:
        rate, pcm = file.getframerate(), file.readframes(file.getnframes())
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(rate * 4 * 2) + pcm + bytes(rate * 10 * 2))
    return path
