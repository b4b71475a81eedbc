"""What a vendor's JSON holds, whatever it holds: what is missing or of another kind is empty. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import httpx2

Json = Mapping[str, Any]


def table(value: Any) -> Json:
    """`value` where it is a JSON object, else an empty one."""
    return cast("Json", value) if isinstance(value, dict) else {}


def rows(value: Any) -> list[Json]:
    """The JSON objects in `value`, where that is a list."""
    return [table(one) for one in cast("list[Any]", value) if isinstance(one, dict)] if isinstance(value, list) else []


def word(value: Any, most: int = 500) -> str:
    """`value` where it is text or a number, cut to `most` characters; else nothing."""
    return str(value)[:most] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def part(value: Json, name: str) -> Json:
    """The object under a name."""
    return table(value.get(name))


def parts(value: Json, name: str) -> list[Json]:
    """The objects of the list under a name."""
    return rows(value.get(name))


def text(value: Json, name: str) -> str:
    """The text under a name."""
    found = value.get(name)
    return found if isinstance(found, str) else ""


def json_object(response: httpx2.Response) -> Json | None:
    """The JSON object that a vendor answered; None where it is none."""
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return None
    return cast("Json", answer) if isinstance(answer, dict) else None


def json_answer(response: httpx2.Response) -> Json:
    """The JSON object that a vendor answered; empty where it is none."""
    return json_object(response) or {}


def moment(value: Any) -> datetime | None:
    """A moment in ISO 8601, where it says of which zone."""
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else None


def moment_at(seconds: Any) -> datetime | None:
    """The moment so many seconds after the beginning of 1970."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
