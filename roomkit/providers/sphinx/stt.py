"""PocketSphinx as an `STT`: offline English, in a process of its own; honest for commands, poor for free speech."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from roomkit.errors import ConfigError, MissingExtra, ProviderError, Refused, Unavailable
from roomkit.models.audio import AudioFrame, Transcript
from roomkit.net.redial import Backlog, Data, Dialler, DialOptions, Wire, hung_up
from roomkit.net.retry import RetryPolicy
from roomkit.net.room_client import Disconnected
from roomkit.providers.sphinx.pool import NAME, Line, Pool
from roomkit.providers.sphinx.worker import RATE
from roomkit.runtime import Scope

_SECOND = RATE * 2
_AHEAD = _SECOND
"""How much the worker is given beyond what it has decoded; the rest waits here, where it can be dropped."""
_PIECE = RATE * 2 * 60 // 1000
_KEPT = 60 * _SECOND
_MOST_CALLS = 1_000


@dataclass(frozen=True, slots=True)
class SphinxOptions:
    """`processes` at most, each with one core and `streams` callers at a time (a decoder takes 90 MB). `grammar` is
    JSGF: with it only what it allows is heard, and far better. `model`, `language_model` and `dictionary` are paths;
    without them it is the English model that comes with PocketSphinx. A pause of `silence_ms` ends a segment. A process
    that owes an answer for `hang_s` seconds is killed and replaced."""

    processes: int = 1
    streams: int = 4
    grammar: str | None = None
    model: str | None = None
    language_model: str | None = None
    dictionary: str | None = None
    silence_ms: int = 600
    hang_s: float = 10.0
    language: str = "en"

    def __post_init__(self) -> None:
        if self.processes < 1 or self.streams < 1 or self.silence_ms < 30 or self.hang_s <= 0:
            raise ConfigError("SphinxOptions: processes and streams must be >= 1, silence_ms >= 30 and hang_s > 0")
        for path in (self.model, self.language_model, self.dictionary):
            if path is not None and not Path(path).exists():
                raise ConfigError(f'SphinxOptions: "{path}" does not exist; give the path of a PocketSphinx model')


class SphinxSTT:
    """See `STT`. Raises `MissingExtra` without PocketSphinx."""

    name = NAME
    streaming = True
    rate = RATE

    def __init__(self, options: SphinxOptions | None = None) -> None:
        if find_spec("pocketsphinx") is None:
            raise MissingExtra("SphinxSTT", "pocketsphinx", "sphinx")
        self._options = options = options or SphinxOptions()
        settings = {
            "grammar": options.grammar,
            "hmm": options.model,
            "lm": options.language_model,
            "dict": options.dictionary,
            "silence_ms": options.silence_ms,
        }
        self._pool = Pool(settings, processes=options.processes, streams=options.streams)
        self._means: OrderedDict[str, str] = OrderedDict()
        self._goodbyes = Scope("sphinx lines")

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that listen now."""
        return self._pool.pids

    async def start(self) -> None:
        """Starts the process now (about a second) instead of at the first word."""
        await self._pool.warm()

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], *, language: str | None = None, call: str | None = None
    ) -> AsyncGenerator[Transcript]:
        wanted = (language or self._options.language).partition("-")[0].lower()
        if wanted != self._options.language.partition("-")[0].lower():
            raise Refused(NAME, f'it hears "{self._options.language}" only, not "{language}"')
        dialogue = _Hearing(self._means.get(call or "", ""))
        lines: list[Line] = []

        async def connect() -> Wire:
            if lines and dialogue.hung:
                await self._pool.replace(lines[-1])
            lines.append(await self._pool.line())
            return _Watched(lines[-1], dialogue)

        options = DialOptions(
            connect_s=60.0,
            answer_s=self._options.hang_s,
            keepalive_s=self._options.hang_s,
            most=2,
            retry=RetryPolicy(max_retries=2, base_delay=0.0),
        )
        dialler: Dialler[AudioFrame, Transcript] = Dialler(connect, options)
        async with aclosing(dialler.converse(dialogue, frames, self._goodbyes)) as heard:
            async for transcript in heard:
                yield transcript
        if call is not None and dialogue.mean:
            self._means[call] = dialogue.mean
            self._means.move_to_end(call)
            while len(self._means) > _MOST_CALLS:
                self._means.popitem(last=False)

    async def aclose(self) -> None:
        await hung_up(self._goodbyes)
        await self._pool.aclose()


class _Hearing:
    """The dialogue with a worker. Confirmed is what a final transcript covers."""

    provider = NAME

    def __init__(self, mean: str) -> None:
        self._audio = Backlog(_KEPT)
        self._offset = 0
        self._owed = 0
        self._opened = self._ended = self._told_end = False
        self.mean = mean
        self.done = False
        self.hung = False

    def connected(self) -> None:
        self._audio.rewind()
        self._offset = self._audio.start // 2
        self._owed = 0
        self._opened = self._told_end = self.hung = False

    def add(self, piece: AudioFrame) -> None:
        if piece.rate != RATE:
            raise ConfigError(f"{NAME} hears {RATE} Hz, not {piece.rate}; resample first")
        self._audio.add(piece.pcm)

    def end(self) -> None:
        self._ended = True

    @property
    def full(self) -> bool:
        return self._audio.unsent >= _AHEAD

    def data_to_send(self) -> list[Data]:
        said: list[Data] = []
        if not self._opened:
            self._opened = True
            said.append(b"O" + json.dumps({"cmn": self.mean}).encode())
        while self._owed < _AHEAD // 2 and (self._audio.unsent >= _PIECE or (self._ended and self._audio.unsent)):
            piece = self._audio.take(_PIECE * 2)
            self._owed += len(piece) // 2
            said.append(b"A" + piece)
        if self._ended and not self._audio.unsent and not self._told_end:
            self._told_end = True
            said.append(b"E")
        return said

    def receive(self, data: Data) -> list[Transcript]:
        assert isinstance(data, bytes), "a worker tells bytes"
        kind, payload = data[:1], data[1:]
        if kind == b"K":
            self._owed -= int.from_bytes(payload, "little")
            return []
        value: dict[str, Any] = json.loads(payload)
        if kind == b"D":
            self.done, self.mean = True, value["cmn"]
            return []
        start, end = self._offset + value["start"], self._offset + value["end"]
        final = kind == b"F"
        if final:
            self._audio.confirm(end * 2)
            if not value["text"]:
                return []
        return [
            Transcript(
                value["text"],
                final=final,
                language="en",
                start_ms=start * 1000 / RATE,
                end_ms=end * 1000 / RATE,
                endpoint=bool(value.get("pause")),
            )
        ]

    def quiet(self) -> list[Data]:
        return []

    @property
    def waiting(self) -> bool:
        return self._owed > 0 or self._told_end

    def closed(self, end: Disconnected) -> ProviderError:
        return Unavailable(NAME, end.reason or "its process has ended")


class _Watched:
    """A line that notes when it was given up because nothing came."""

    def __init__(self, line: Line, dialogue: _Hearing) -> None:
        self._line = line
        self._dialogue = dialogue
        self.send, self.recv, self.close = line.send, line.recv, line.close

    def abort(self) -> None:
        self._dialogue.hung = self._dialogue.waiting
        self._line.abort()


def provider(model: str | None = None, **options: Any) -> SphinxSTT:
    """What the names `"sphinx"` and `"sphinx:/path/to/model"` make."""
    return SphinxSTT(SphinxOptions(model=model, **options))
