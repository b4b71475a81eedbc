"""A client of RTVI that speaks: sound both ways over its web socket, beside the messages.

Run it: python examples/rtvi_voice.py. A few lines play the client, and scripts the recogniser and the voice, so that
nothing has to be installed; `stt="sphinx", tts="espeak"` are the real ones (docs/guides/rtvi.md), and Pipecat's own
clients speak the same. Needs the [rtvi,server,voice] extras.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

import uvicorn
import websockets

from roomkit import AudioPipelineConfig, RoomKit, VoiceChannel
from roomkit.models.access import PrincipalRole
from roomkit.protocols.rtvi.frames import audio_frame, message_frame, read
from roomkit.providers.rtvi.audio import RTVIBackend
from roomkit.runtime import Scope
from roomkit.servers.rtvi import RTVIOptions, RTVIServer, rtvi_app
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad

SPEECH, SILENCE = b"\1\0" * 320, bytes(640)
"""20 ms at 16 kHz; the scripted recogniser takes samples of the value 1 for its first sentence."""


async def main() -> None:
    script = ScriptedBackend()
    script.speaks(script.call(), "what time is it", 0, 0)
    kit = RoomKit(token_secrets=secrets.token_hex(32))

    @kit.on_message
    async def reply(_: Any, message: Any) -> str:
        return f"You asked: {message.text}."

    kit.register_channel(
        VoiceChannel(
            "voice",
            stt=ScriptedSTT(script),
            tts=ScriptedTTS(),
            backend=RTVIBackend(),
            pipeline=AudioPipelineConfig(vad=ScriptedVad, dtmf=None),
        )
    )
    app = rtvi_app(RTVIServer(kit, RTVIOptions(voice="voice")))
    web = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="websockets-sansio"))
    async with kit:
        await kit.create_room("r")
        token = kit.tokens.issue(PrincipalRole.GUEST, "r", id="ann").token
        async with Scope("web server") as scope:
            scope.spawn(web.serve(), name="uvicorn")
            while not web.started:  # noqa: ASYNC110 - uvicorn tells of its start in no other way
                await asyncio.sleep(0.01)
            port = web.servers[0].sockets[0].getsockname()[1]
            await talk(f"ws://127.0.0.1:{port}/?token={token}")
            web.should_exit = True
            await scope.drain(5)


async def talk(url: str) -> None:
    async with websockets.connect(url) as socket, Scope("microphone") as scope:
        ready = {"version": "2.1.0", "about": {"library": "example"}}
        await socket.send(
            message_frame(json.dumps({"label": "rtvi-ai", "type": "client-ready", "id": "1", "data": ready}))
        )

        async def speak() -> None:
            for number in range(70):
                await socket.send(audio_frame(SPEECH if number < 30 else SILENCE, 16_000))
                await asyncio.sleep(0.02)

        scope.spawn(speak(), name="speak")
        heard = 0
        async for frame in socket:
            told = read(bytes(frame))
            if isinstance(told, tuple):
                heard += len(told[0]) // 2
                continue
            message = json.loads(told or "{}")
            if message["type"] in ("user-transcription", "bot-output", "bot-started-speaking"):
                print(message["type"], message.get("data", {}).get("text", ""))
            if message["type"] == "bot-stopped-speaking":
                print(f"{heard / 24_000:.1f} s of sound came")
                return


if __name__ == "__main__":
    asyncio.run(main())
