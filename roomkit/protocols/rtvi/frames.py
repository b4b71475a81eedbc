"""The binary frames of Pipecat's WebSocket transport: one protobuf message in each."""

from __future__ import annotations

from roomkit.errors import MissingExtra, RemoteProtocolError

try:
    from google.protobuf.message import DecodeError

    from roomkit.protocols.rtvi.generated import frames_pb2 as pb
except ModuleNotFoundError as error:
    raise MissingExtra("RTVI's frames", "protobuf", "rtvi") from error


def message_frame(text: str) -> bytes:
    return pb.Frame(message=pb.MessageFrame(data=text)).SerializeToString()


def audio_frame(pcm: bytes, rate: int) -> bytes:
    """`pcm` is mono, 16 bit, little-endian, at `rate` Hz."""
    return pb.Frame(audio=pb.AudioRawFrame(audio=pcm, sample_rate=rate, num_channels=1)).SerializeToString()


def read(data: bytes) -> str | tuple[bytes, int, int] | None:
    """The text of a message, or sound as (pcm, Hz, channels); None for frames that a server has no use for.

    Raises `RemoteProtocolError`."""
    try:
        frame = pb.Frame.FromString(data)
    except DecodeError:
        raise RemoteProtocolError("the frame is no protobuf Frame of the transport") from None
    match frame.WhichOneof("frame"):
        case "message":
            return frame.message.data
        case "audio":
            return frame.audio.audio, frame.audio.sample_rate, frame.audio.num_channels
        case _:
            return None
