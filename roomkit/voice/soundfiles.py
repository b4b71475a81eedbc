"""Sound files written piece by piece: WAV, whose header a crash may leave behind the sound, and Opus in Ogg. Everything
here blocks."""

from __future__ import annotations

import os
import struct
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from roomkit.errors import MissingExtra, UsageError

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_MOST = 0xFFFFFFFF - _HEADER.size
_PATCH_S = 2


class SoundFile(Protocol):
    path: Path

    def write(self, pcm: bytes) -> None:
        """16-bit samples; of several channels in turn."""
        ...

    def close(self) -> None: ...


def create(path: Path, kind: str, rate: int, channels: int, bitrate: int) -> SoundFile:
    """A new file: never one that is there already, then the name gets a number. Only its owner may read it."""
    stem, number = path.stem, 1
    while True:
        try:
            file = _exclusive(path)
            break
        except FileExistsError:
            number += 1
            path = path.with_stem(f"{stem}-{number}")
    if kind == "wav":
        return WavFile(path, file, rate, channels)
    return OpusFile(path, file, rate, channels, bitrate)


def private(path: Path, data: bytes) -> None:
    """A small file for its owner alone, in the place of one of that name that was left behind."""
    path.unlink(missing_ok=True)
    with _exclusive(path) as file:
        file.write(data)


def _exclusive(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)


def _header(rate: int, channels: int, size: int) -> bytes:
    size = min(size, _MOST)
    width = 2 * channels
    return _HEADER.pack(
        b"RIFF",
        size + _HEADER.size - 8,
        b"WAVE",
        b"fmt ",
        16,
        1,
        channels,
        rate,
        rate * width,
        width,
        16,
        b"data",
        size,
    )


class WavFile:
    """The header is brought up to date every two seconds of sound and at the end; `mend_wav` does it after a crash."""

    def __init__(self, path: Path, file: BinaryIO, rate: int, channels: int) -> None:
        self.path = path
        self._file = file
        self._format = (rate, channels)
        self._size = self._told = 0
        self._every = rate * channels * 2 * _PATCH_S
        file.write(_header(rate, channels, 0))

    def write(self, pcm: bytes) -> None:
        self._file.write(pcm)
        self._size += len(pcm)
        if self._size - self._told >= self._every:
            self._tell_size()

    def _tell_size(self) -> None:
        self._file.seek(0)
        self._file.write(_header(*self._format, self._size))
        self._file.seek(0, os.SEEK_END)
        self._told = self._size

    def close(self) -> None:
        with self._file:
            self._tell_size()


def mend_wav(path: str | Path) -> int:
    """Gives a recording that a crash cut short the header its sound deserves; how many samples it has. Raises
    `UsageError` for a file that is none of ours."""
    with Path(path).open("r+b") as file:
        found = file.read(_HEADER.size)
        if len(found) < _HEADER.size or found[:4] != b"RIFF" or found[36:40] != b"data":
            raise UsageError(f"{path} is not a WAV recording of roomkit: nothing was changed")
        channels, rate = struct.unpack_from("<HI", found, 22)
        width = 2 * channels
        count = (file.seek(0, os.SEEK_END) - _HEADER.size) // width
        file.truncate(_HEADER.size + count * width)
        file.seek(0)
        file.write(_header(rate, channels, count * width))
    return count


class OpusFile:
    """Ogg pages of a fifth of a second: what a crash leaves can be played as it is."""

    def __init__(self, path: Path, file: BinaryIO, rate: int, channels: int, bitrate: int) -> None:
        self.path = path
        self._file = file
        try:
            self._av: Any = import_module("av")
        except ImportError as error:
            file.close()
            path.unlink()
            raise MissingExtra("recording in Opus", "av", "opus") from error
        options = {"page_duration": "200000", "flush_packets": "1"}
        self._container: Any = self._av.open(file, "w", format="ogg", options=options)
        self._layout, self._channels, self._rate, self._count = ("mono", "stereo")[channels - 1], channels, rate, 0
        self._stream: Any = self._container.add_stream(
            "libopus", rate=rate, layout=self._layout, options={"vbr": "constrained"}
        )
        self._stream.bit_rate = bitrate * channels

    def write(self, pcm: bytes) -> None:
        values = np.frombuffer(pcm, "<i2").reshape(1, -1)
        frame = self._av.AudioFrame.from_ndarray(values, format="s16", layout=self._layout)
        frame.sample_rate, frame.pts = self._rate, self._count
        self._count += values.shape[1] // self._channels
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        with self._file, self._container:
            self._container.mux(self._stream.encode(None))
