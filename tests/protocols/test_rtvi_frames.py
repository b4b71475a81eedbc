"""The protobuf frames of the WebSocket transport: the bytes of the wire, and hostile ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("google.protobuf", reason="needs the [rtvi] extra")

from roomkit.errors import RemoteProtocolError
from roomkit.protocols.rtvi.frames import audio_frame, message_frame, read
from roomkit.protocols.rtvi.generated import frames_pb2 as pb


def test_the_bytes_are_those_of_the_transport() -> None:
    # Field 4 is the message and its field 1 the text; field 2 is the sound with its PCM in 3, Hz in 4, channels in 5.
    assert message_frame("hi").hex() == "22040a026869"
    assert audio_frame(b"\1\2", 8_000).hex() == "12091a02010220c03e2801"
    assert read(bytes.fromhex("22040a026869")) == "hi"
    assert read(bytes.fromhex("12091a02010220c03e2802")) == (b"\1\2", 8_000, 2)


def test_frames_that_a_server_has_no_use_for_are_nothing() -> None:
    assert read(b"") is None
    assert read(pb.Frame(text=pb.TextFrame(text="hi")).SerializeToString()) is None


@pytest.mark.parametrize("data", [b"\xff", b"\x22\x7f", b"\x22\x03\x0a\x01\xff"])
def test_what_is_no_frame_is_the_protocols_own_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no protobuf Frame"):
        read(data)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: b"\x22" + bytes([len(tail)]) + tail))
def test_any_bytes_are_a_frame_or_the_protocols_own_error(data: bytes) -> None:
    try:
        found = read(data)
    except RemoteProtocolError:
        return
    assert found is None or isinstance(found, (str, tuple))


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=20), st.binary(max_size=20), st.integers(0, 2**32 - 1))
def test_what_is_written_is_read(text: str, pcm: bytes, rate: int) -> None:
    assert read(message_frame(text)) == text
    assert read(audio_frame(pcm, rate)) == (pcm, rate, 1)
