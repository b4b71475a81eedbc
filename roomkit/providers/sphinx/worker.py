"""The process in which PocketSphinx listens: it holds the interpreter for 60 ms, which no event loop can spare.

Speaks in frames over stdin and stdout: one byte kind, stream number, length (little-endian), payload. Ends with stdin.

    in:  O open {"grammar", "cmn"}   A audio, 16 kHz 16-bit   E end of the audio   X forget the stream
    out: R ready   P partial   F final {"text", "start", "end", "pause"}   K samples done   D done {"cmn"}   ! error
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections import deque
from typing import Any, BinaryIO

HEADER = struct.Struct("<cII")
RATE = 16_000
VAD_FRAME = 960
"""30 ms, in bytes: what the built-in voice activity detector takes."""
_START_FRAMES, _START_OF = 3, 10
_PARTIAL_EVERY = RATE * 2 // 5
_LONGEST = RATE * 2 * 30
"""A segment ends after 30 s whatever is heard: the lattice of an endless one takes memory without end."""


class Listener:
    """One stream on one decoder: finds where speech starts and pauses, tells what it hears."""

    def __init__(self, decoder: Any, vad: Any, silence_ms: int) -> None:
        self._decoder = decoder
        self._vad = vad
        self._silence_frames = max(silence_ms // 30, 1)
        self._rest = b""
        self._before: deque[tuple[bytes, bool]] = deque(maxlen=_START_OF)
        self._hearing = False
        self._silent = 0
        self._position = 0
        self._start = 0
        self._looked = 0
        self._told = ""

    def feed(self, pcm: bytes) -> list[tuple[bytes, dict[str, Any]]]:
        told: list[tuple[bytes, dict[str, Any]]] = []
        data = self._rest + pcm
        whole = len(data) - len(data) % VAD_FRAME
        self._rest = data[whole:]
        for at in range(0, whole, VAD_FRAME):
            told += self._frame(data[at : at + VAD_FRAME])
        return told

    def end(self) -> list[tuple[bytes, dict[str, Any]]]:
        """Hears the rest; too short a sound to be speech is nothing."""
        if not self._hearing:
            return []
        if self._rest:
            self._decoder.process_raw(self._rest)
            self._position += len(self._rest)
            self._rest = b""
        return self._final(pause=True)

    def stop(self) -> None:
        if self._hearing:
            self._hearing = False
            self._decoder.end_utt()

    def _frame(self, frame: bytes) -> list[tuple[bytes, dict[str, Any]]]:
        speech = bool(self._vad.is_speech(frame, RATE))
        self._position += len(frame)
        if not self._hearing:
            self._before.append((frame, speech))
            if sum(heard for _, heard in self._before) >= _START_FRAMES:
                self._begin()
            return []
        self._decoder.process_raw(frame)
        self._silent = 0 if speech else self._silent + 1
        if self._silent >= self._silence_frames or self._position - self._start >= _LONGEST:
            return self._final(pause=self._silent >= self._silence_frames)
        if self._position - self._looked < _PARTIAL_EVERY:
            return []
        self._looked = self._position
        text = self._text()
        if not text or text == self._told:
            return []
        self._told = text
        return [(b"P", self._transcript(text))]

    def _begin(self) -> None:
        self._hearing, self._silent, self._told = True, 0, ""
        self._start = self._position - sum(len(frame) for frame, _ in self._before)
        self._looked = self._position
        self._decoder.start_utt()
        for frame, _ in self._before:
            self._decoder.process_raw(frame)
        self._before.clear()

    def _final(self, *, pause: bool) -> list[tuple[bytes, dict[str, Any]]]:
        self._hearing = False
        self._decoder.end_utt()
        text = self._text()
        return [(b"F", {**self._transcript(text), "pause": pause})]

    def _text(self) -> str:
        found = self._decoder.hyp()
        return found.hypstr if found is not None else ""

    def _transcript(self, text: str) -> dict[str, Any]:
        return {"text": text, "start": self._start // 2, "end": self._position // 2}


class Worker:
    """All streams of this process, one frame after the other."""

    def __init__(self, options: dict[str, Any], output: BinaryIO) -> None:
        import pocketsphinx  # pyright: ignore[reportMissingTypeStubs] - it has none

        self._sphinx: Any = pocketsphinx
        self._options = options
        self._output = output
        self._idle: list[Any] = []
        self._open: dict[int, tuple[Listener, Any]] = {}
        self._plain = ""

    def warm_up(self) -> None:
        """A decoder takes half a second and 90 MB."""
        decoder = self._decoder()
        self._plain = decoder.get_cmn(False)
        self._idle.append(decoder)
        self.tell(b"R", 0, {})

    def handle(self, kind: bytes, stream: int, payload: bytes) -> None:
        if kind == b"O":
            self._begin(stream, json.loads(payload))
        elif stream not in self._open:
            return  # what was on its way when the stream was forgotten
        elif kind == b"A":
            self._tell_all(stream, self._open[stream][0].feed(payload))
            self._write(b"K", stream, struct.pack("<I", len(payload) // 2))
        elif kind == b"E":
            listener, decoder = self._open.pop(stream)
            self._tell_all(stream, listener.end())
            self.tell(b"D", stream, {"cmn": decoder.get_cmn(True)})
            self._idle.append(decoder)
        else:
            listener, decoder = self._open.pop(stream)
            listener.stop()
            self._idle.append(decoder)

    def tell(self, kind: bytes, stream: int, value: dict[str, Any]) -> None:
        self._write(kind, stream, json.dumps(value).encode())

    def _begin(self, stream: int, wanted: dict[str, Any]) -> None:
        decoder = self._idle.pop() if self._idle else self._decoder()
        decoder.set_cmn(wanted.get("cmn") or self._plain)
        vad = self._sphinx.Vad(mode=int(self._options.get("vad_mode", 2)), sample_rate=RATE, frame_length=0.03)
        self._open[stream] = Listener(decoder, vad, int(self._options.get("silence_ms", 600))), decoder

    def _decoder(self) -> Any:
        settings = {key: self._options[key] for key in ("hmm", "lm", "dict") if self._options.get(key)}
        grammar = self._options.get("grammar")
        if grammar:
            settings["lm"] = None
        decoder = self._sphinx.Decoder(samprate=RATE, loglevel="FATAL", **settings)
        if grammar:
            decoder.add_jsgf_string("grammar", grammar)
            decoder.activate_search("grammar")
        return decoder

    def _tell_all(self, stream: int, told: list[tuple[bytes, dict[str, Any]]]) -> None:
        for kind, value in told:
            self.tell(kind, stream, value)

    def _write(self, kind: bytes, stream: int, payload: bytes) -> None:
        self._output.write(HEADER.pack(kind, stream, len(payload)) + payload)
        self._output.flush()


def main() -> None:
    # Whatever the library prints must not come between our frames.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    worker = Worker(json.loads(sys.argv[1]), output)
    try:
        worker.warm_up()
    except (RuntimeError, ValueError, OSError) as error:
        worker.tell(b"!", 0, {"message": str(error) or "the model cannot be loaded"})
        return
    while len(header := source.read(HEADER.size)) == HEADER.size:
        kind, stream, length = HEADER.unpack(header)
        worker.handle(kind, stream, source.read(length))


if __name__ == "__main__":
    main()
