"""A fake OpenAI for speech: transcriptions and voices, checked with the SDK's own types in both directions.

fake = FakeOpenAISpeech()
fake.reply("Where is my order?")
stt = OpenAISTT(api_key=fake.key, transport=fake.transport())
"""

from __future__ import annotations

import io
import json
import wave
from collections.abc import AsyncGenerator
from typing import Any

from openai.types.audio import Transcription, TranscriptionStreamEvent
from openai.types.audio.speech_create_params import SpeechCreateParams
from openai.types.audio.transcription_create_params import TranscriptionCreateParamsBase
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from roomkit.testing.vendors.lines import spoken
from roomkit.testing.vendors.script import (
    JSON,
    EventStream,
    Failure,
    FakeVendor,
    Reply,
    Say,
    Vanish,
    read_json,
    stumble,
    typed_problems,
)

RATE = 24_000
CHAR_MS = 40
_SPEECH: TypeAdapter[Any] = TypeAdapter(SpeechCreateParams)
_EVENT: TypeAdapter[Any] = TypeAdapter(TranscriptionStreamEvent)
_FIELDS = frozenset(TranscriptionCreateParamsBase.__annotations__) | {"stream"}


class FakeOpenAISpeech(FakeVendor):
    """See `FakeVendor`: a reply's text is what was heard; with `speak` the script's steps pace the sound of the text
    asked for. `seconds` is the length of each piece of audio it got."""

    def __init__(self, *, key: str = "fake-key") -> None:
        super().__init__(key=key)
        self.seconds: list[float] = []

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/audio/transcriptions", self._transcribe, methods=["POST"]),
                Route("/v1/audio/speech", self._speak, methods=["POST"]),
            ]
        )

    def speak(self, *steps: Any) -> None:
        """Script the sound of the next request: `Say` stands for its whole text."""
        self.reply(*(steps or ("",)))

    async def _transcribe(self, request: Request) -> Any:
        async with request.form() as form:
            problems = [f"unknown field {name}" for name in form if name.removesuffix("[]") not in _FIELDS]
            upload: Any = form["file"]
            data = await upload.read()
            body: JSON = {name: value for name, value in form.items() if name != "file"}
        try:
            with wave.open(io.BytesIO(data)) as sound:
                self.seconds.append(sound.getnframes() / sound.getframerate())
                if self.seconds[-1] < 0.1:
                    problems.append("Audio file is too short. Minimum audio length is 0.1 seconds.")
        except (wave.Error, EOFError) as error:
            problems.append(f"Invalid file format: {error}")
        answer = self._answer(request, body, problems)
        if isinstance(answer, Failure):
            return _refusal(answer)
        if body.get("stream") == "true":
            return EventStream(self.tracked(self._events(answer)))
        text = "".join(step.text for step in answer.steps if isinstance(step, Say))
        return JSONResponse(Transcription.model_validate({"text": text}).model_dump(exclude_none=True))

    async def _events(self, reply: Reply) -> AsyncGenerator[bytes]:
        text = ""
        for step in reply.steps:
            if (garbage := await stumble(step)) is not None:
                yield garbage
            if isinstance(step, Vanish):
                return
            if isinstance(step, Say):
                for word in step.words:
                    text += word
                    yield _event({"type": "transcript.text.delta", "delta": word})
        yield _event({"type": "transcript.text.done", "text": text})

    async def _speak(self, request: Request) -> Any:
        body = await read_json(request)
        problems = typed_problems(_SPEECH, body)
        if not 0 < len(body.get("input", "")) <= 4096 or body.get("response_format") != "pcm":
            problems.append("input is 1 to 4096 characters, and the fake speaks pcm only")
        answer = self._answer(request, body, problems)
        if isinstance(answer, Failure):
            return _refusal(answer)
        return StreamingResponse(self.tracked(self._sound(body["input"], answer)), media_type="audio/pcm")

    async def _sound(self, text: str, reply: Reply) -> AsyncGenerator[bytes]:
        pcm = spoken(text, RATE, CHAR_MS)
        parts = max(sum(isinstance(step, Say) for step in reply.steps), 1)
        size = -(-len(pcm) // parts // 2) * 2 - 1 if parts > 1 else len(pcm)  # odd: it cuts samples, as networks do
        at = 0
        for step in reply.steps:
            await stumble(step)
            if isinstance(step, Say):
                end = len(pcm) if parts == 1 else at + size
                parts -= 1
                yield pcm[at:end]
                at = end

    def _answer(self, request: Request, body: JSON, problems: list[str]) -> Reply | Failure:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return Failure(401, "invalid_api_key", "Incorrect API key provided.")
        return self.next(body, problems)


def _event(event: JSON) -> bytes:
    _EVENT.validate_python(event)
    return f"data: {json.dumps(event)}\n\n".encode()


def _refusal(failure: Failure) -> JSONResponse:
    error = {"message": failure.message, "type": failure.code, "code": failure.code, "param": failure.param}
    return JSONResponse({"error": error}, failure.status, headers=dict(failure.headers))
