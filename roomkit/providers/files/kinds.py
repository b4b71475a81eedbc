"""Which kinds of files are taken in, and how their first bytes must look. Nothing a browser would run is among them."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping

from roomkit.errors import UsageError

SNIFFED_BYTES = 64
"""How many bytes of the beginning `check_kind` wants to see, if there are so many."""

Looks = Callable[[bytes], bool]


def check_kind(mime_type: str, beginning: bytes, allowed: Mapping[str, Looks] | None = None) -> str:
    """The bare type, without parameters, in lower case. Raises `UsageError` when it is not allowed, or when the bytes
    are not of the type that is claimed."""
    kinds = KINDS if allowed is None else allowed
    kind = mime_type.partition(";")[0].strip().lower()
    if kind not in kinds:
        raise UsageError(f'files of type "{kind[:80]}" are not taken; allowed are {", ".join(sorted(kinds))}')
    if not kinds[kind](beginning):
        raise UsageError(f"the file does not begin like {kind}; send it with its real type")
    return kind


def begins(*magic: bytes) -> Looks:
    return lambda data: data.startswith(magic)


def boxed(*brands: bytes) -> Looks:
    """ISO media (MP4, HEIC, 3GP): a size, "ftyp", then a brand; without `brands` any."""
    return lambda data: data[4:8] == b"ftyp" and (not brands or data[8:12].startswith(brands))


def riff(form: bytes) -> Looks:
    return lambda data: data[:4] == b"RIFF" and data[8:12] == form


def text(data: bytes) -> bool:
    """UTF-8 without control characters that no text has. The end may be cut inside a character."""
    try:
        read = codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return all(char >= " " or char in "\t\n\r\f\v" for char in read)


def _mpeg_audio(data: bytes) -> bool:
    frame_sync = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0
    return frame_sync or data.startswith(b"ID3")


def _card(data: bytes) -> bool:
    return text(data) and data.lstrip(b"\xef\xbb\xbf \t\r\n").upper().startswith(b"BEGIN:V")


_EBML = b"\x1a\x45\xdf\xa3"

KINDS: Mapping[str, Looks] = {
    "image/jpeg": begins(b"\xff\xd8\xff"),
    "image/png": begins(b"\x89PNG\r\n\x1a\n"),
    "image/gif": begins(b"GIF87a", b"GIF89a"),
    "image/webp": riff(b"WEBP"),
    "image/heic": boxed(b"hei", b"hev", b"mif", b"msf"),
    "image/heif": boxed(b"hei", b"hev", b"mif", b"msf"),
    "audio/mpeg": _mpeg_audio,
    "audio/aac": lambda data: _mpeg_audio(data) or data.startswith(b"ADIF"),
    "audio/ogg": begins(b"OggS"),
    "audio/opus": begins(b"OggS"),
    "audio/wav": riff(b"WAVE"),
    "audio/x-wav": riff(b"WAVE"),
    "audio/flac": begins(b"fLaC"),
    "audio/amr": begins(b"#!AMR"),
    "audio/mp4": boxed(),
    "audio/x-m4a": boxed(),
    "audio/webm": begins(_EBML),
    "video/mp4": boxed(),
    "video/quicktime": boxed(),
    "video/3gpp": boxed(b"3g"),
    "video/webm": begins(_EBML),
    "application/pdf": begins(b"%PDF-"),
    "text/plain": text,
    "text/csv": text,
    "text/vcard": _card,
    "text/x-vcard": _card,
    "text/calendar": _card,
}
"""Every type that is allowed by default, and what its first bytes must be."""
