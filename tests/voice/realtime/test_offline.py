"""`provider="offline"` with the real recogniser, the demo brain and the real voice of the house."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest

from roomkit import RoomKit
from roomkit.channels import RealtimeVoiceChannel
from roomkit.dsp.resample import Resampler
from roomkit.voice.realtime.mock import MockRealtimeTransport


@pytest.fixture
def speech(tmp_path: Path) -> bytes:
    if not shutil.which("flite") or not shutil.which("espeak-ng"):
        pytest.skip("flite and espeak-ng are not installed (sh .ci/voice)")
    pytest.importorskip("pocketsphinx")
    path = tmp_path / "said.wav"
    subprocess.run(["flite", "-voice", "slt", "-t", "what time is it", "-o", str(path)], check=True, timeout=20)
    with wave.open(str(path)) as file:
        return Resampler(file.getframerate(), 16_000).process(file.readframes(file.getnframes()))


@pytest.mark.real_time
@pytest.mark.may_block
async def test_a_spoken_question_is_understood_and_answered_aloud(speech: bytes) -> None:
    line = MockRealtimeTransport()
    async with RoomKit() as kit:
        channel = RealtimeVoiceChannel("voice", provider="offline", transport=line)
        kit.register_channel(channel)
        room = await kit.create_room()
        session = await channel.start_session(room.id, "caller", None)
        for at in range(0, len(speech) - 640, 640):
            line.say(session, speech[at : at + 640])
            await asyncio.sleep(0.019)
        for _ in range(1_200):
            line.say(session, bytes(640))
            await asyncio.sleep(0.019)
            heard = np.frombuffer(line.heard(session), "<i2")
            if len(heard) and np.abs(heard).max() > 2_000:
                break
        await asyncio.sleep(1.5)
        await channel.end_session(session)
        events = [event for event in await kit.events(room.id) if event.type == "message"]
        said = {event.metadata["role"]: event.text for event in events}
        assert "time" in said["user"]
        assert said["assistant"]
