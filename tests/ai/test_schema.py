"""The argument checker: what it knows it enforces, what it does not know it lets pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from roomkit.ai.schema import check

CASES: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    ({}, [1, None, "x"], []),
    ({"type": "string"}, ["x"], [1, None, True]),
    ({"type": "integer"}, [1, 2.0], [1.5, True, "1"]),
    ({"type": "number"}, [1, 1.5], [True, "1"]),
    ({"type": "boolean"}, [True], [1, "true"]),
    ({"type": "null"}, [None], [0]),
    ({"type": ["string", "null"]}, ["x", None], [1]),
    ({"type": "something-new"}, [1, "x"], []),
    ({"const": 1}, [1, 1.0], [True, 2]),
    ({"enum": ["a", 1]}, ["a", 1], ["b", True]),
    ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, ["x", 1], [None]),
    ({"anyOf": [{"type": "string"}]}, ["x"], [1]),
    ({"oneOf": [{"minimum": 1}, {"minimum": 5}]}, [2], [7, 0]),
    ({"allOf": [{"minimum": 1}, {"maximum": 5}]}, [3], [0, 7]),
    ({"not": {"type": "string"}}, [1], ["x"]),
    ({"required": ["a"]}, [{"a": 1}, 7], [{}]),
    ({"properties": {"a": {"type": "integer"}}}, [{"a": 1, "b": 2}], [{"a": "x"}]),
    ({"properties": {"a": {}}, "additionalProperties": False}, [{"a": 1}, {}], [{"b": 1}]),
    ({"additionalProperties": {"type": "integer"}}, [{"b": 1}], [{"b": "x"}]),
    (
        {"patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False},
        [{"n_1": 1}],
        [{"n_1": "x"}, {"m": 1}],
    ),
    ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 1}]),
    ({"items": {"type": "integer"}}, [[1, 2], []], [[1, "x"]]),
    ({"prefixItems": [{"type": "string"}], "items": False}, [["x"], []], [[1], ["x", 1]]),
    ({"minItems": 1, "maxItems": 2}, [[1]], [[], [1, 2, 3]]),
    ({"uniqueItems": True}, [[1, 2]], [[1, 1], [{"a": 1}, {"a": 1}]]),
    ({"minLength": 1, "maxLength": 2}, ["a", "ab"], ["", "abc"]),
    ({"pattern": "^a+$"}, ["aa"], ["b"]),
    ({"pattern": "(?<broken"}, [], ["anything"]),
    ({"pattern": "^(?!no)"}, [], ["no", "yes"]),
    ({"pattern": "a" * 501}, [], ["a" * 501]),
    ({"pattern": "^a+$"}, ["a" * 4000], ["a" * 4001]),
    ({"pattern": r"^(a+)+$"}, ["a" * 4000], ["a" * 3999 + "!"]),
    ({"patternProperties": {"^(a+)+$": {"type": "integer"}}}, [{"a" * 99 + "!": "x"}], [{"a" * 99: "x"}]),
    ({"patternProperties": {"(?=a)": True}}, [{}], [{"a": 1}]),
    ({"minimum": 1, "maximum": 3}, [1, 3], [0, 4]),
    ({"exclusiveMinimum": 1, "exclusiveMaximum": 3}, [2], [1, 3]),
    ({"multipleOf": 0.1}, [0.3, 2], [0.35]),
    ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, [1], ["x"]),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, [1], ["x"]),
    ({"$ref": "#/$defs/gone"}, [], [1]),
    ({"$ref": "https://example.com/schema"}, [], [1]),
    ({"format": "date", "x-new": 1}, ["not a date"], []),
]


@pytest.mark.parametrize("schema,good,bad", CASES)
def test_keywords(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert check(schema, value) is None, value
    for value in bad:
        assert check(schema, value) is not None, value


def test_problems_name_the_place() -> None:
    schema = {"properties": {"items": {"items": {"properties": {"n": {"type": "integer"}}}}}}
    assert check(schema, {"items": [{"n": 1}, {"n": "x"}]}) == "arguments.items[1].n must be integer"


def test_endless_schemas_are_refused_not_followed() -> None:
    assert "nested deeper" in (check({"$ref": "#"}, 1) or "")
    assert "broken" in (check({"properties": {"a": 7}}, {"a": 1}) or "")


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    n: int
    tags: list[str] = []


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    size: float | None = None
    inner: Inner | None = None


OUTER = Outer.model_json_schema()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "size", "inner", "n", "tags", "other"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["name", "size", "inner", "other"]), VALUES, max_size=4))
def test_it_never_refuses_what_a_strict_model_takes_nor_takes_what_it_refuses(value: dict[str, Any]) -> None:
    try:
        Outer.model_validate(value)
        fits = True
    except ValidationError:
        fits = False
    assert (check(OUTER, value) is None) is fits or _whole_float(value)


def _whole_float(value: Any) -> bool:
    """JSON Schema counts 2.0 as an integer, Python does not."""
    if isinstance(value, float):
        return value.is_integer()
    if isinstance(value, dict):
        return any(map(_whole_float, value.values()))
    return isinstance(value, list) and any(map(_whole_float, value))
