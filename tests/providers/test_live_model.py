"""ModelConnection: what a vendor quotes is not passed on with its secrets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from roomkit.errors import ProviderError
from roomkit.models import realtime as rt
from roomkit.models.realtime import RealtimeConfig
from roomkit.protocols.openai_realtime import OpenAIRealtimeCodec, WireTools
from roomkit.providers.live_model import ModelConnection

KEY = "sk-proj-0123456789abcdefghij"


class Told:
    """A wire on which these messages come, then nothing."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = [json.dumps(message) for message in messages]

    async def send(self, data: str | bytes) -> None: ...

    async def recv(self) -> str:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def close(self) -> None: ...

    def abort(self) -> None: ...


def _connection(*messages: dict[str, Any]) -> ModelConnection:
    codec = OpenAIRealtimeCodec(RealtimeConfig(), tools=lambda _: WireTools([], str))
    return ModelConnection("openai", Told({"type": "session.created", "session": {}}, *messages), codec)


def _error(code: str) -> dict[str, Any]:
    error = {"type": "invalid_request_error", "code": code, "message": f"Incorrect API key provided: {KEY}"}
    return {"type": "error", "error": error}


async def test_what_a_vendor_quotes_of_a_key_is_masked() -> None:
    details = {"type": "failed", "error": {"message": f"no quota for {KEY}"}}
    failed = {"type": "response.done", "response": {"id": "r", "status": "failed", "status_details": details}}
    unheard = {"type": "conversation.item.input_audio_transcription.failed", "item_id": "i"}
    connection = _connection(
        {"type": "session.updated", "session": {}},
        _error("bad_key"),
        failed,
        {**unheard, "error": {"message": KEY}},
        _error("session_expired"),
    )
    await connection.open()
    told: list[rt.RealtimeEvent] = []

    async def listen() -> None:
        async for event in connection:
            told.append(event)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(ProviderError) as ended:
        await listen()
    assert [type(event).__name__ for event in told] == [
        "SessionReady",
        "Complaint",
        "Complaint",
        "ReplyOver",
        "UserTextFailed",
    ]
    words = " ".join([str(ended.value), *(str(getattr(event, "error", event)) for event in told)])
    assert KEY not in words
    assert "Incorrect API key provided" in words


async def test_so_it_is_of_a_session_that_does_not_begin() -> None:
    with pytest.raises(ProviderError) as refused:
        await _connection(_error("invalid_api_key")).open()
    assert KEY not in str(refused.value)
