"""What a vendor's JSON holds, whatever it holds."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx2
import pytest

from roomkit.providers.vendor_json import (
    json_answer,
    json_object,
    moment,
    moment_at,
    part,
    parts,
    rows,
    table,
    text,
    word,
)


@pytest.mark.parametrize("odd", [None, 5, "x", [], ["x"], True, 1.5])
def test_odd_json_is_nothing(odd: object) -> None:
    assert table(odd) == {}
    assert rows(odd) == []
    assert rows([odd, {"a": 1}]) == [{"a": 1}]
    assert word(odd) == ("5" if odd == 5 else "x" if odd == "x" else "")


def test_words_are_cut() -> None:
    assert word("x" * 600) == "x" * 500
    assert word("abc", 2) == "ab"


@pytest.mark.parametrize("odd", [None, 5, "x", [], {}, True, 1.5])
def test_what_is_under_a_name_and_of_another_kind_is_empty(odd: object) -> None:
    assert (part({"a": odd}, "a"), parts({"a": odd}, "a")) == ({}, [])
    assert text({"a": odd}, "a") == (odd if isinstance(odd, str) else "")
    assert parts({"a": [odd, {"b": 1}]}, "a")[-1] == {"b": 1}
    assert part({"a": {"b": odd}}, "a") == {"b": odd}


@pytest.mark.parametrize("body", [b"", b"[]", b"no", b"5", b"null", b"[" * 100_000, b"\xff"])
def test_an_answer_that_is_no_object(body: bytes) -> None:
    assert json_object(httpx2.Response(200, content=body)) is None
    assert json_answer(httpx2.Response(200, content=body)) == {}


def test_an_answer_that_is_one() -> None:
    assert json_object(httpx2.Response(200, content=b"{}")) == {}
    assert json_answer(httpx2.Response(200, content=b'{"a": 1}')) == {"a": 1}


def test_moments() -> None:
    assert moment("2026-01-02T03:04:05Z") == moment_at("1767323045") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert [moment(odd) for odd in (None, 5, "", "soon", "2026-01-02T03:04:05")] == [None] * 5
    assert [moment_at(odd) for odd in (None, "", "soon", "inf", "nan", 1e300)] == [None] * 6
