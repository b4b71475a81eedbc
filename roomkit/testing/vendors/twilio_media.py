"""Twilio Media Streams' far end, in tests: a phone with a play-out clock that forgives nothing on the wire."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from roomkit.dsp.g711 import pcm_to_ulaw, ulaw_to_pcm
from roomkit.models.audio import VoiceSession
from roomkit.testing.voice import Loudspeaker, loud

_SHAPES = {"media": {"payload"}, "mark": {"name"}}


class FakeTwilioCall:
    """One stream from Twilio's side. `put` takes its frames to our side, `take` reads ours strictly: an unknown event,
    a wrong stream or a payload that is not bare mu-law raises `AssertionError`. Marks come back when everything before
    them has been played, and at once after `clear`."""

    def __init__(
        self,
        put: Callable[[str], None],
        *,
        parameters: Mapping[str, str],
        call_sid: str = "CA1",
        account_sid: str = "AC1",
        session: VoiceSession | None = None,
    ) -> None:
        self.session = session or VoiceSession("call")
        self.stream_sid = "MZ" + "0" * 32
        self.speaker = Loudspeaker(8_000, self._echo)
        self.clears = 0
        self._put = put
        self._parameters = dict(parameters)
        self._sids = (call_sid, account_sid)
        self._sequence = 0
        self._chunk = 0

    def start(self) -> None:
        self._put(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        call, account = self._sids
        self._tell(
            "start",
            start={
                "streamSid": self.stream_sid,
                "accountSid": account,
                "callSid": call,
                "tracks": ["inbound"],
                "customParameters": self._parameters,
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            },
        )

    def take(self, message: str | bytes) -> None:
        """What our side says."""
        assert isinstance(message, str), "Twilio speaks text frames only"
        frame: dict[str, Any] = json.loads(message)
        event = frame.pop("event")
        assert frame.pop("streamSid") == self.stream_sid, "the stream is another one"
        if event == "clear":
            assert not frame, f"clear has nothing else: {frame}"
            self.clears += 1
            for mark in self.speaker.clear():
                self._echo(mark)
            return
        assert event in _SHAPES, f"Twilio does not know {event}"
        assert set(frame) == {event}, f"{event} has nothing else: {frame}"
        assert set(frame[event]) == _SHAPES[event], f"{event} is {frame[event]}"
        if event == "mark":
            self.speaker.add(b"", frame["mark"]["name"])
            return
        sound = base64.b64decode(frame["media"]["payload"], validate=True)
        assert sound, "a media frame without sound"
        assert sound[:4] != b"RIFF", "a file's header in the sound is a click"
        self.speaker.add(ulaw_to_pcm(sound))

    async def play(self) -> None:
        """Lets time pass at the loudspeaker, until cancelled."""
        while True:
            self.speaker.play()
            await asyncio.sleep(0.01)

    async def say(self, pcm: bytes) -> None:
        self._chunk += 1
        sound = base64.b64encode(pcm_to_ulaw(pcm)).decode()
        stamp = str((self._chunk - 1) * 20)
        self._tell("media", media={"track": "inbound", "chunk": str(self._chunk), "timestamp": stamp, "payload": sound})

    def lose(self, chunks: int = 1) -> None:
        """So many chunks never come."""
        self._chunk += chunks

    def press(self, digit: str) -> None:
        self._tell("dtmf", dtmf={"track": "inbound_track", "digit": digit})

    def heard(self) -> int:
        return loud(self.speaker.heard)

    async def hang_up(self) -> None:
        call, account = self._sids
        self._tell("stop", stop={"accountSid": account, "callSid": call})

    def _echo(self, mark: str) -> None:
        self._tell("mark", mark={"name": mark})

    def _tell(self, event: str, **fields: Any) -> None:
        self._sequence += 1
        told = {"event": event, "sequenceNumber": str(self._sequence), "streamSid": self.stream_sid, **fields}
        self._put(json.dumps(told))
