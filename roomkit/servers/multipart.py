"""The file in a form (multipart/form-data), read as it comes: nothing of it is kept in between."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from roomkit.errors import UsageError
from roomkit.servers.problems import TooLarge, UnsupportedType

if TYPE_CHECKING:
    from starlette.requests import Request

MOST_AROUND = 16_384
"""Bytes of a form that are not the file's."""


class FormFile(NamedTuple):
    """`data` is to be read once, at once; it raises `UsageError` where the form ends too early."""

    filename: str | None
    mime_type: str
    data: AsyncIterator[bytes]


async def file_of(request: Request, limit: int, field: str = "file") -> FormFile:
    """The file of at most `limit` bytes in the part named `field`; other parts are passed over. Raises `UsageError`
    for a form without it or one that cannot be read, `UnsupportedType` for what is no form, `TooLarge`."""
    claimed = request.headers.get("content-length", "0")
    if claimed.isdecimal() and int(claimed[:20]) > limit + MOST_AROUND:
        raise TooLarge(f"a file has at most {limit} bytes")
    form = _Form(request, limit, field.encode())
    async for _ in form.chunks(until_found=True):
        pass
    if not form.found:
        raise UsageError(f'the form has no file; send it as the part "{field}"')
    return FormFile(form.filename, form.mime_type, form.chunks())


class _Form:
    """Feeds the parser and holds what it has found of the one part."""

    def __init__(self, request: Request, limit: int, field: bytes) -> None:
        from python_multipart.multipart import MultipartParser, parse_options_header

        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UnsupportedType('send the file as a form: multipart/form-data with a part "file"')
        self._options = parse_options_header
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begins,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_data,
                "on_part_end": self._ends,
            },
        )
        self._stream = request.stream()
        self._limit = limit
        self._field = field
        self._name = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._here = False
        self._got: deque[bytes] = deque()
        self._size = self._around = 0
        self.found = self.whole = False
        self.filename: str | None = None
        self.mime_type = ""

    async def chunks(self, *, until_found: bool = False) -> AsyncIterator[bytes]:
        """What there is of the file. With `until_found` nothing: only as much is read as shows that there is one."""
        while not self.whole:
            while self._got and not until_found:
                yield self._got.popleft()
            if until_found and self.found:
                return
            try:
                chunk = await anext(self._stream)
            except StopAsyncIteration:
                break
            self._feed(chunk)
        if until_found:
            return
        while self._got:
            yield self._got.popleft()
        if not self.whole:
            raise UsageError("the form ends in the middle of the file; send it again")

    def _feed(self, chunk: bytes) -> None:
        if not chunk:
            return
        before = self._size
        try:
            self._parser.write(chunk)
        except ValueError as error:
            raise UsageError("the form cannot be read; send multipart/form-data") from error
        if self._size > self._limit:
            raise TooLarge(f"a file has at most {self._limit} bytes")
        self._around += len(chunk) - (self._size - before)
        if self._around > MOST_AROUND:
            raise TooLarge("the form has too much beside the file")

    def _begins(self) -> None:
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_end(self) -> None:
        _, options = self._options(self._headers.get(b"content-disposition"))
        self._here = not self.found and options.get(b"name") == self._field and b"filename" in options
        if self._here:
            self.found = True
            self.filename = options[b"filename"].decode("utf-8", "replace") or None
            kind = self._headers.get(b"content-type", b"").decode("latin-1")
            self.mime_type = kind.partition(";")[0].strip().lower()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._here:
            self._size += end - start
            self._got.append(data[start:end])

    def _ends(self) -> None:
        if self._here:
            self._here, self.whole = False, True
