"""A file out of a form, however the form is cut into pieces, and whatever else comes instead of one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from roomkit.errors import RoomKitError, UsageError
from roomkit.servers.multipart import MOST_AROUND, file_of
from roomkit.servers.problems import TooLarge, UnsupportedType

KIND = "multipart/form-data; boundary=b"


def request(*chunks: bytes, kind: str = KIND, **headers: str) -> Request:
    waiting = [*chunks]

    async def receive() -> Any:
        chunk = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    named = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    return Request({"type": "http", "method": "POST", "headers": raw, "path": "/", "query_string": b""}, receive)


def part(name: str, data: bytes, filename: str | None = None, kind: str | None = None) -> bytes:
    said = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
    head = f"Content-Disposition: {said}\r\n" + (f"Content-Type: {kind}\r\n" if kind else "")
    return b"--b\r\n" + head.encode() + b"\r\n" + data + b"\r\n"


END = b"--b--\r\n"


async def read(made: Request, limit: int = 10_000) -> tuple[str | None, str, bytes]:
    form = await file_of(made, limit)
    return form.filename, form.mime_type, b"".join([chunk async for chunk in form.data])


@given(st.binary(max_size=300), st.lists(st.integers(1, 60), max_size=20))
@settings(max_examples=60)
@example(b"\r\n--", [1, 1, 1])
@example(b"", [1])
def test_the_file_comes_whole_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    if b"\r\n--b" in b"\r\n" + data:
        return
    body = part("note", b"hello") + part("file", data, "a b.txt", "Text/Plain; charset=utf-8") + part("x", b"y") + END
    chunks, at = [], 0
    for cut in cuts:
        chunks.append(body[at : at + cut])
        at += cut
    found = asyncio.run(read(request(*chunks, body[at:])))
    assert found == ("a b.txt", "text/plain", data)


@given(st.lists(st.binary(max_size=80), max_size=6))
@settings(max_examples=60)
@example([b"--b\r\n", b"\xff: \r\n\r\n"])
@example([part("file", b"x", "a")[:-1]])
@example([part("file", b"", ""), b"--"])
def test_hostile_forms_are_refused_in_words(chunks: list[bytes]) -> None:
    try:
        asyncio.run(read(request(*chunks), 50))
    except RoomKitError:
        pass


async def test_what_is_refused() -> None:
    whole = part("file", b"x" * 100, "a") + END
    assert (await read(request(whole), 100))[2] == b"x" * 100
    with pytest.raises(TooLarge):
        await read(request(whole), 99)
    with pytest.raises(TooLarge):
        await read(request(whole, content_length=str(100 + MOST_AROUND + 1)), 100)
    with pytest.raises(TooLarge, match="beside"):
        await read(request(part("note", b"n" * MOST_AROUND), whole))
    with pytest.raises(UsageError, match="no file"):
        await read(request(part("file", b"not a file") + END))
    with pytest.raises(UsageError, match="in the middle"):
        await read(request(part("file", b"x", "a")[:-2]))
    with pytest.raises(UsageError, match="cannot be read"):
        await read(request(b"--c\r\n" + whole))
    for kind in ("text/plain", "multipart/form-data", "", "multipart/form-data; boundary="):
        with pytest.raises(UnsupportedType):
            await read(request(whole, kind=kind))
