"""One brain, three ways to call it: a browser's microphone, WebRTC, and a telephone by Twilio.

    ROOMKIT_SECRET=... TWILIO_AUTH_TOKEN=... ROOMKIT_PUBLIC_URL=https://calls.example.com \\
        uvicorn --factory voice_transports_live:app

Point the number's voice webhook at POST /voice/phone. A page calls with the module pages/shared/voice.js, or posts an
offer to /voice/rtc; the guide "How calls come in" has both. Needs the extras server, voice, sphinx, webrtc and twilio.
"""

from __future__ import annotations

import os
from typing import Any

from roomkit import AIChannel, AudioPipelineConfig, RoomKit, VoiceChannel
from roomkit.channels.providers import find_provider
from roomkit.channels.voice import VoiceOptions
from roomkit.providers.twilio.media_streams import provider as twilio
from roomkit.voice.interruption import Interruption, Strategy


def app() -> Any:
    secret = os.environ["ROOMKIT_SECRET"]  # what tokens are signed with: 32 characters or more
    kit = RoomKit("sqlite:///calls.db", token_secrets=[secret])
    kit.register_channel(AIChannel("assistant", os.environ.get("ROOMKIT_AI", "offline")), default=True)
    backends = {
        "voice": find_provider("webaudio", "audio"),  # takes out echo and noise itself
        "rtc": find_provider("webrtc", "audio"),
        "phone": twilio(),
    }
    for name, backend in backends.items():
        channel = VoiceChannel(
            name,
            stt="sphinx",
            tts="espeak",
            backend=backend,
            pipeline=AudioPipelineConfig(),
            interruption=Interruption(Strategy.CONFIRMED),
            options=VoiceOptions(greeting="Hello, what can I do for you?"),
        )
        kit.register_channel(channel)
    return kit.asgi(public_url=os.environ.get("ROOMKIT_PUBLIC_URL", "http://localhost:8000"))
