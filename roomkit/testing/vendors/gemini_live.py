"""A fake Gemini Live API: every message of the client is validated by the `google-genai` package's own types, which
refuse unknown keys, everything it says by the same types, and the documented order is kept.

    fake = FakeGeminiLive()
    fake.script(Spoken("It is on its way.", ms=900))
    provider = GeminiLive(api_key=fake.key, connect=fake.connect)
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roomkit.net.redial import Data
from roomkit.net.room_client import Disconnected
from roomkit.runtime import Scope
from roomkit.testing.vendors.lines import JSON, FakeSpeech, Lexicon, Line

INPUT_RATE = 16_000
OUTPUT_RATE = 24_000
SILENCE_MS = 500
PIECE_MS = 100


@dataclass(frozen=True, slots=True)
class Spoken:
    """One turn of the model: `text` spoken for `ms`, then tools asked for. What comes after the tools is the next one
    of the script, in the same turn."""

    text: str = ""
    ms: int = 500
    calls: tuple[tuple[str, JSON], ...] = ()
    value: int = 2_000


@dataclass(slots=True)
class Manners:
    """`speed` is how much faster than sound it speaks; `binary` sends JSON in binary frames; `underscores` names keys
    so; `goes_away_s` says goodbye after so long, ten seconds before; `handles` hands out handles to resume with."""

    speed: float = 8.0
    binary: bool = False
    underscores: bool = False
    goes_away_s: float | None = None
    handles: bool = True


class FakeGeminiLive(FakeSpeech):
    """See `FakeSpeech`. `setups` is every setup, `seeds` what each session was seeded with, `told` the texts that came
    later (text, whether an answer was asked for), `results` the outputs of tools, `resumed` the handles that came back,
    `memory` what each handle remembers."""

    def __init__(self, *, key: str = "fake-gemini-key") -> None:
        super().__init__(key=key)
        self.lexicon = Lexicon()
        self.manners = Manners()
        self.setups: list[JSON] = []
        self.seeds: list[list[tuple[str, str]]] = []
        self.told: list[tuple[str, bool]] = []
        self.results: list[tuple[str, str]] = []
        self.resumed: list[str] = []
        self.handles: set[str] = set()
        self.lines: list[Line] = []
        self.replies = 0
        self.numbers = itertools.count(1)
        self._script: deque[Spoken] = deque()

    def script(self, *turns: Spoken) -> None:
        self._script.extend(turns)

    def next(self) -> Spoken:
        self.replies += 1
        return self._script.popleft() if self._script else Spoken("Yes.")

    def problems(self, path: str, query: JSON, headers: Mapping[str, str]) -> tuple[int, str] | None:
        if "BidiGenerateContent" not in path:
            return 404, "no such method"
        vertex = "aiplatform" in path
        given = headers.get("authorization", "").removeprefix("Bearer ") if vertex else headers.get("x-goog-api-key")
        return None if given == self.key and not query else (401, "API key not valid")

    async def serve(self, line: Line, path: str, query: JSON) -> None:
        self.lines.append(line)
        await _Session(self, line).run()

    def cut(self) -> None:
        """Breaks every connection."""
        for line in self.lines:
            try:
                line.cut()
            except Disconnected:
                pass
        self.lines.clear()


class _Session:
    def __init__(self, vendor: FakeGeminiLive, line: Line) -> None:
        self.vendor = vendor
        self.line = line
        self.setup: JSON | None = None
        self.scope = Scope("fake session")
        self.turn: asyncio.Task[None] | None = None
        self.calls: dict[str, str] = {}
        self.answered = asyncio.Event()
        self.words: list[int] = []
        self.silent_ms = 0
        self.speaking = False
        self.seed: list[tuple[str, str]] = []
        self.began = False

    async def run(self) -> None:
        try:
            while True:
                await self._take(await self.line.recv())
        finally:
            await self.scope.aclose()

    async def say(self, **message: Any) -> None:
        _check_server(message)
        text = json.dumps(_underscored(message) if self.vendor.manners.underscores else message)
        if self.vendor.manners.binary:
            await self.line.answer(text.encode())
        else:
            await self.line.answer(message if not self.vendor.manners.underscores else json.loads(text))

    async def _take(self, data: Data) -> None:
        message: Any = json.loads(data)
        problem = _client_problem(message)
        if problem:
            self.vendor.wrong(problem)
            await self.line.close(1007, "Request contains an invalid argument.")
        if self.setup is None:
            if "setup" not in message:
                self.vendor.wrong("something was said before the setup")
                await self.line.close(1007, "the first message must be setup")
            await self._set_up(message["setup"])
        elif "realtimeInput" in message:
            await self._heard(message["realtimeInput"])
        elif "clientContent" in message:
            await self._content(message["clientContent"])
        elif "toolResponse" in message:
            self._results(message["toolResponse"]["functionResponses"])
        else:
            self.vendor.wrong("a second setup")

    async def _set_up(self, setup: JSON) -> None:
        self.setup = setup
        self.vendor.setups.append(setup)
        self.vendor.seeds.append(self.seed)
        handle = setup.get("sessionResumption", {}).get("handle")
        if handle is not None:
            if handle not in self.vendor.handles:
                await self.line.close(1008, "BidiGenerateContent session not found")
            self.vendor.resumed.append(handle)
        await self.say(setupComplete={})
        await self._hand_out()
        if self.vendor.manners.goes_away_s is not None:
            self.scope.spawn(self._leave(self.vendor.manners.goes_away_s), name="go away", awaited=True)

    async def _hand_out(self) -> None:
        if self.vendor.manners.handles and self.setup is not None and "sessionResumption" in self.setup:
            handle = f"handle-{next(self.vendor.numbers)}"
            self.vendor.handles.add(handle)
            await self.say(sessionResumptionUpdate={"newHandle": handle, "resumable": True})

    async def _leave(self, after: float) -> None:
        await asyncio.sleep(after)
        await self.say(goAway={"timeLeft": "10s"})
        await asyncio.sleep(10)
        await self.line.close(1001, "session limit")

    # -- hearing ----------------------------------------------------------------------------------------

    async def _heard(self, told: JSON) -> None:
        assert self.setup is not None, "set up before"
        manual = self.setup.get("realtimeInputConfig", {}).get("automaticActivityDetection", {}).get("disabled", False)
        if ("activityStart" in told or "activityEnd" in told) and not manual:
            self.vendor.wrong("activity was told although the vendor finds it itself")
        if "activityStart" in told:
            await self._speech()
        elif "activityEnd" in told:
            await self._silence()
        elif "audio" in told:
            if told["audio"]["mimeType"] != f"audio/pcm;rate={INPUT_RATE}":
                self.vendor.wrong(f"sound as {told['audio']['mimeType']}")
            await self._sound(base64.b64decode(told["audio"]["data"], validate=True), manual)

    async def _sound(self, pcm: bytes, manual: bool) -> None:
        values = [int(value) for value in np.frombuffer(pcm, "<i2")[:: INPUT_RATE // 100]]
        spoken = [value for value in values if value]
        for value in spoken:
            if 0 < value <= len(self.vendor.lexicon.words) and (not self.words or self.words[-1] != value):
                self.words.append(value)
                if self.speaking or manual:
                    await self._word(value)
        if manual:
            return
        if spoken and not self.speaking:
            await self._speech()
            for value in self.words:
                await self._word(value)
        self.silent_ms = 0 if spoken else self.silent_ms + len(pcm) * 500 // INPUT_RATE
        if self.speaking and self.silent_ms >= SILENCE_MS:
            await self._silence()

    async def _word(self, value: int) -> None:
        word = self.vendor.lexicon.word(value)
        await self.say(serverContent={"inputTranscription": {"text": word if value == self.words[0] else f" {word}"}})

    async def _speech(self) -> None:
        self.speaking = True
        handling = (self.setup or {}).get("realtimeInputConfig", {}).get("activityHandling")
        if handling != "NO_INTERRUPTION":
            await self._interrupt()

    async def _silence(self) -> None:
        self.speaking, self.silent_ms = False, 0
        if self.words:
            self.words = []
            await self._interrupt()  # a text may have been answered meanwhile: one turn at a time
            self._begin()

    async def _interrupt(self) -> None:
        if self.turn is None or self.turn.done():
            return
        self.turn.cancel()
        if self.calls:
            await self.say(toolCallCancellation={"ids": list(self.calls)})
            self.calls.clear()
        await self.say(serverContent={"interrupted": True})
        await self.say(serverContent={"turnComplete": True})

    # -- the conversation -------------------------------------------------------------------------------

    async def _content(self, content: JSON) -> None:
        turns: list[JSON] = content.get("turns", [])
        texts = [(turn["role"], "".join(part["text"] for part in turn["parts"])) for turn in turns]
        complete = bool(content.get("turnComplete"))
        if not self.began and not complete:
            self.seed += texts
        else:
            self.vendor.told += [(text, complete) for _, text in texts]
        await self._interrupt()
        if complete:
            self._begin()

    def _begin(self) -> None:
        self.began = True
        self.turn = self.scope.spawn(self._speak(), name="turn")

    def _results(self, responses: list[JSON]) -> None:
        for told in responses:
            if self.calls.get(told.get("id", "")) != told.get("name"):
                self.vendor.wrong(f"a result for the unknown call {told.get('id')}")
                continue
            del self.calls[told["id"]]
            said = told["response"]
            self.vendor.results.append((told["id"], said.get("output", said.get("error"))))
        if self.calls:
            self.vendor.wrong("some results of one turn came without the others")
        else:
            self.answered.set()

    async def _speak(self) -> None:
        try:
            while True:
                spoken = self.vendor.next()
                if spoken.text:
                    await self._voice(spoken)
                if not spoken.calls:
                    break
                await self._ask(spoken)
            await self.say(serverContent={"generationComplete": True})
            usage = {"promptTokenCount": 10, "responseTokenCount": 20, "totalTokenCount": 30}
            await self.say(serverContent={"turnComplete": True}, usageMetadata=usage)
            await self._hand_out()
        except Disconnected:
            pass

    async def _ask(self, spoken: Spoken) -> None:
        calls = [{"id": f"call-{next(self.vendor.numbers)}", "name": n, "args": a} for n, a in spoken.calls]
        self.calls = {str(call["id"]): str(call["name"]) for call in calls}
        self.answered.clear()
        await self.say(toolCall={"functionCalls": calls})
        await self.answered.wait()

    async def _voice(self, spoken: Spoken) -> None:
        words = spoken.text.split(" ")
        steps = max(1, -(-spoken.ms // PIECE_MS))
        for step in range(steps):
            ms = min(PIECE_MS, spoken.ms - step * PIECE_MS)
            pcm = spoken.value.to_bytes(2, "little", signed=True) * (OUTPUT_RATE * ms // 1000)
            blob = {"mimeType": f"audio/pcm;rate={OUTPUT_RATE}", "data": base64.b64encode(pcm).decode()}
            await self.say(serverContent={"modelTurn": {"role": "model", "parts": [{"inlineData": blob}]}})
            first, last = step * len(words) // steps, (step + 1) * len(words) // steps
            for number in range(first, last):
                text = words[number] if number == 0 else f" {words[number]}"
                await self.say(serverContent={"outputTranscription": {"text": text}})
            await asyncio.sleep(PIECE_MS / 1000 / self.vendor.manners.speed)


def _client_problem(message: JSON) -> str:
    """What is wrong with a client's message by the vendor's own types; "" when nothing is."""
    from google.genai import types
    from pydantic import ValidationError

    told = dict(message)
    try:
        if isinstance(told.get("setup"), dict):  # the vendor's type lacks what its own package sends
            setup = dict(told["setup"])
            if "realtimeInputConfig" in setup:
                types.RealtimeInputConfig.model_validate(setup.pop("realtimeInputConfig"))
            told["setup"] = setup
        types.LiveClientMessage.model_validate(told)
    except ValidationError as error:
        return f"{list(message)}: {error.errors(include_url=False)[0]}"
    return "" if len(message) == 1 else f"a message with {len(message)} members"


def _check_server(message: JSON) -> None:
    """The fake itself may not drift from the vendor's types."""
    from google.genai import types

    types.LiveServerMessage.model_validate(message)


def _underscored(value: Any) -> Any:
    if isinstance(value, dict):
        return {_snake(str(name)): _underscored(each) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return [_underscored(each) for each in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


def _snake(name: str) -> str:
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in name)
