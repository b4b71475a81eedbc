"""Tool schemas, names and call ids: whatever users write, vendors accept it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.models.ai import AIMessage, AIRequest, TextPart, ToolCallChunk, ToolSpec
from roomkit.ports.ai import AIProvider
from roomkit.providers.anthropic.ai import AnthropicProvider
from roomkit.providers.openai.ai import OpenAIProvider
from roomkit.providers.openai.dialects import OPENAI, OPENAI_CHAT
from roomkit.providers.wire import WireNames, clean_schema, data_url, tool_call, wire_id
from roomkit.testing.vendors.anthropic import FakeAnthropic
from roomkit.testing.vendors.openai import FakeOpenAI
from roomkit.testing.vendors.script import Call, FakeVendor, tool_problems

CORPUS: dict[str, dict[str, Any]] = {
    "empty": {},
    "type list": {"type": "object", "properties": {"a": {"type": ["string", "null"], "enum": ["x", None]}}},
    "single type list": {"type": "object", "properties": {"a": {"type": ["string"]}}},
    "type list beside anyOf": {"properties": {"a": {"type": ["string", "null"], "anyOf": [{"minLength": 1}, {}]}}},
    "meta": {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x", "type": "object", "x-vendor": {"a": 1}},
    "closed": {"type": "object", "properties": {}, "additionalProperties": False},
    "keywords as names": {"properties": {"type": {"type": "string"}, "const": {}, "enum": {}, "x-a": {}}},
    "root reference": {
        "$ref": "#/$defs/A",
        "$defs": {"A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}, "required": ["b"]}, "B": {}},
    },
    "root that refers to itself": {"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}]}}},
    "root anyOf": {
        "anyOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}}, {"type": "null"}]
    },
    "root allOf": {"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"required": ["b"]}]},
    "root oneOf and enum": {"oneOf": [{"type": "object"}], "enum": [{}], "not": {"required": ["z"]}},
    "nested": {
        "properties": {"list": {"type": "array", "items": {"type": ["object", "null"], "title": "T"}, "default": []}},
        "patternProperties": {"^x": {"type": ["integer", "number"]}},
    },
}


def vendors() -> list[Callable[[], tuple[FakeVendor, AIProvider]]]:
    def openai() -> tuple[FakeVendor, AIProvider]:
        fake = FakeOpenAI()
        return fake, OpenAIProvider("m", api_key=fake.key, dialect=OPENAI, transport=fake.transport())

    def chat() -> tuple[FakeVendor, AIProvider]:
        fake = FakeOpenAI()
        return fake, OpenAIProvider("m", api_key=fake.key, dialect=OPENAI_CHAT, transport=fake.transport())

    def anthropic() -> tuple[FakeVendor, AIProvider]:
        fake = FakeAnthropic()
        return fake, AnthropicProvider("m", api_key=fake.key, transport=fake.transport())

    return [openai, chat, anthropic]


@pytest.mark.parametrize("make", vendors(), ids=lambda make: make.__name__)
async def test_every_vendor_takes_every_schema(make: Callable[[], tuple[FakeVendor, AIProvider]]) -> None:
    fake, provider = make()
    tools = tuple(ToolSpec(name=f"tool: {name}", parameters=schema) for name, schema in CORPUS.items())
    fake.reply(Call(WireNames(()).wire("tool: nested")))
    request = AIRequest(messages=(AIMessage(role="user", parts=(TextPart(text="Hi"),)),), tools=tools)
    events = [event async for event in provider.stream(request)]
    assert fake.violations == []
    assert [event.call.name for event in events if isinstance(event, ToolCallChunk)] == ["tool: nested"]


@pytest.mark.parametrize(
    "name,properties,required",
    [
        ("root reference", {"b"}, ["b"]),
        ("root anyOf", {"a", "b"}, None),
        ("root allOf", {"a"}, ["a", "b"]),
        ("keywords as names", {"type", "const", "enum", "x-a"}, None),
    ],
)
def test_nothing_is_lost_at_the_root(name: str, properties: set[str], required: list[str] | None) -> None:
    clean = clean_schema(CORPUS[name])
    assert set(clean["properties"]) == properties
    assert clean.get("required") == required


def test_lists_of_types_mean_the_same_afterwards() -> None:
    clean = clean_schema(CORPUS["type list"])["properties"]["a"]
    assert clean == {"enum": ["x", None], "anyOf": [{"type": "string"}, {"type": "null"}]}
    assert clean_schema(CORPUS["single type list"])["properties"]["a"] == {"type": "string"}
    both = clean_schema(CORPUS["type list beside anyOf"])["properties"]["a"]
    assert both["anyOf"] == [{"minLength": 1}, {}]
    assert both["allOf"] == [{"anyOf": [{"type": "string"}, {"type": "null"}]}]


def test_the_schema_given_is_left_alone() -> None:
    given = {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    clean_schema(given)
    assert given == {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}


@given(st.lists(st.text(min_size=1), unique=True, max_size=20))
def test_names_and_ids_fit_and_stay_apart(names: list[str]) -> None:
    wire = WireNames(names)
    there = [wire.wire(name) for name in names]
    assert len(set(there)) == len(names)
    assert [wire.ours(each) for each in there] == names
    assert all(tool_problems(each, {"type": "object"}, 64) == [] for each in there)
    assert len({wire_id(name) for name in names}) == len(names)


def test_long_names_and_ids_are_cut() -> None:
    assert len(wire_id("x" * 80)) == 64
    assert wire_id("x" * 80) != wire_id("x" * 81)
    wire = WireNames(["y" * 80])
    assert wire.ours(wire.wire("y" * 80)) == "y" * 80
    assert wire.ours("made_up") == "made_up"


@given(st.text())
def test_any_text_makes_a_call(raw: str) -> None:
    call = tool_call("c", "t", raw)
    assert call.malformed in {None, raw}
    assert call.arguments == {} or call.malformed is None


def test_data_urls() -> None:
    assert data_url("data:image/png;base64,AAA=") == ("image/png", "AAA=")
    assert data_url("data:image/png;name=a.png;base64,AAA=") == ("image/png", "AAA=")
    assert data_url("data:;base64,AAA=") == (None, "AAA=")
    assert data_url("https://pictures.test/a.png") is None
