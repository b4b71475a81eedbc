"""The frames of Twilio Media Streams: what is read, what is refused, what is written."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.errors import LocalProtocolError, RemoteProtocolError
from roomkit.protocols.twilio_media import Digit, Mark, Media, Start, Stop, TwilioMedia

START: dict[str, Any] = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": "MZ1",
    "start": {
        "streamSid": "MZ1",
        "accountSid": "AC1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "customParameters": {"room": "r1"},
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    },
}


def media(chunk: int, sound: bytes = b"\xff" * 160, **more: Any) -> str:
    payload = base64.b64encode(sound).decode()
    told = {"track": "inbound", "chunk": str(chunk), "timestamp": str(chunk * 20), "payload": payload, **more}
    return json.dumps({"event": "media", "sequenceNumber": "9", "streamSid": "MZ1", "media": told})


def started() -> TwilioMedia:
    codec = TwilioMedia()
    assert codec.receive(json.dumps(START)) == Start("MZ1", "CA1", "AC1", {"room": "r1"})
    return codec


def test_what_twilio_says_is_read() -> None:
    codec = TwilioMedia()
    assert codec.receive('{"event": "connected", "protocol": "Call", "version": "1.0.0"}') is None
    assert codec.receive(media(1)) is None, "media before start"
    codec = started()
    assert codec.receive(media(1)) == Media(b"\xff" * 160, 1, 20)
    assert codec.receive('{"event":"dtmf","streamSid":"MZ1","dtmf":{"digit":"#"}}') == Digit("#")
    assert codec.receive('{"event":"mark","streamSid":"MZ1","mark":{"name":"u7"}}') == Mark("u7")
    assert codec.receive('{"event":"news","of":"tomorrow"}') is None
    assert codec.receive(media(2, track="outbound")) is None
    assert codec.receive('{"event":"stop","streamSid":"MZ1","stop":{"callSid":"CA1"}}') == Stop()


def test_gaps_between_chunks_are_losses() -> None:
    codec = started()
    missing = [codec.receive(media(chunk)).missing for chunk in (1, 2, 5, 6, 4, 7)]  # type: ignore[union-attr]
    assert missing == [0, 0, 2, 0, 0, 0]
    assert codec.lost == 2


@pytest.mark.parametrize(
    "frame",
    [
        "no json",
        "[]",
        "[" * 3_000,
        '{"event":"start","start":{}}',
        '{"event":"mark"}',
        media(1, payload="!!"),
        media(1, payload=7),
        json.dumps(START),
    ],
)
def test_what_twilio_never_says_is_refused(frame: str) -> None:
    with pytest.raises(RemoteProtocolError):
        started().receive(frame)


def test_other_sound_than_mu_law_is_refused() -> None:
    start = json.loads(json.dumps(START))
    start["start"]["mediaFormat"]["encoding"] = "audio/l16"
    with pytest.raises(RemoteProtocolError):
        TwilioMedia().receive(json.dumps(start))


def test_what_we_say() -> None:
    codec = started()
    assert json.loads(codec.media(b"\x00\x01")) == {"event": "media", "streamSid": "MZ1", "media": {"payload": "AAE="}}
    assert json.loads(codec.mark("u7")) == {"event": "mark", "streamSid": "MZ1", "mark": {"name": "u7"}}
    assert json.loads(codec.clear()) == {"event": "clear", "streamSid": "MZ1"}
    with pytest.raises(LocalProtocolError):
        TwilioMedia().clear()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["start", "media", "mark", "payload"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(["start", "media", "dtmf", "mark", "stop"]), JSON, JSON)
def test_nothing_else_ever_escapes(event: str, part: Any, format_: Any) -> None:
    for codec in (TwilioMedia(), started()):
        for told in (part, {"streamSid": "MZ1", "mediaFormat": format_, "payload": format_, "customParameters": part}):
            try:
                codec.receive(json.dumps({"event": event, event: told}))
            except RemoteProtocolError:
                pass
