"""multipart/form-data as vendors post letters in it, fields and files with their bytes untouched. Never raises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_BOUNDARY = re.compile(rb"--([^\r\n]{1,200})\r\n")
_NAME = re.compile(r'[;\s]name="([^"]{0,500})"', re.IGNORECASE)
_FILE = re.compile(r'[;\s]filename="([^"]{0,500})"', re.IGNORECASE)
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class FormFile:
    under: str
    name: str
    mime_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Form:
    """`fields` are raw bytes: in which charset each of them is, another field may tell."""

    fields: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    files: tuple[FormFile, ...] = ()

    def text(self, name: str, charset: str = "utf-8") -> str:
        data = self.fields.get(name, b"")
        for one in (charset, "utf-8", "cp1252", "latin-1"):
            try:
                return data.decode(one).replace("\x00", "\ufffd")
            except (LookupError, ValueError):
                continue
        return ""


def read_form(body: bytes) -> Form:
    """The form in `body`; an empty one where there is none. What parts it, its own first line says: the header that
    says so too is not among what vendors sign."""
    match = _BOUNDARY.match(body)
    if match is None:
        return Form()
    fields: dict[str, bytes] = {}
    files: list[FormFile] = []
    for part in (b"\r\n" + body).split(b"\r\n--" + match[1])[1:_MOST]:
        head, separator, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if part.startswith(b"--") or not separator:
            continue
        headers = {n.strip().lower(): v.strip() for n, _, v in (x.partition(":") for x in _lines(head))}
        said = headers.get("content-disposition", "")
        name, file = _NAME.search(said), _FILE.search(said)
        if name is not None and file is not None:
            files.append(FormFile(name[1], file[1], headers.get("content-type", "application/octet-stream"), data))
        elif name is not None:
            fields.setdefault(name[1], data)
    return Form(fields, tuple(files))


def _lines(head: bytes) -> list[str]:
    return head.decode("utf-8", "replace").split("\r\n")
