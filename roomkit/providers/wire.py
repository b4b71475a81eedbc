"""What model vendors' wire formats have in common: tool schemas, tool names, call ids, arguments and images. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, cast

from roomkit.models.ai import ToolCallPart

Schema = dict[str, Any]

_BAD = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL = re.compile(r"data:(?P<mime>[\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*?;base64,(?P<data>.*)", re.DOTALL)
_ONE = frozenset(
    {"items", "additionalProperties", "unevaluatedProperties", "not", "contains", "propertyNames", "if", "then", "else"}
)
_DEEPEST = 8  # a root that refers to itself ends here
_CHOICES = ("anyOf", "oneOf")
_MANY = frozenset({*_CHOICES, "allOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_PLAIN = frozenset(
    {"$ref", "type", "enum", "const", "description", "title", "default", "examples", "format", "pattern", "required"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"}
    | {"minItems", "maxItems", "uniqueItems", "minContains", "maxContains", "minProperties", "maxProperties"}
    | {"dependentRequired", "deprecated", "readOnly", "writeOnly"}
)


def clean_schema(schema: Schema) -> Schema:
    """`schema` as every vendor takes it for a tool's parameters. Arguments are validated against the original.

    Keywords which are no part of JSON Schema are dropped, lists of types become `anyOf`, and the root is an object:
    a reference or alternatives at the root, which vendors refuse there, are merged into one object.
    """
    clean = _cleaned(schema)
    root = _root(clean, clean)
    root["type"] = "object"
    root.setdefault("properties", {})
    return root


def _cleaned(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_cleaned(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema  # true and false are schemas too
    clean: Schema = {}
    for key, value in cast("Schema", schema).items():
        if key in _ONE or key in _MANY:
            clean[key] = _cleaned(value)
        elif key in _NAMED and isinstance(value, dict):
            clean[key] = {name: _cleaned(item) for name, item in cast("Schema", value).items()}
        elif key in _PLAIN:
            clean[key] = value
    kinds = clean.get("type")
    if isinstance(kinds, list):
        del clean["type"]
        _require_any(clean, [{"type": kind} for kind in cast("list[str]", kinds)])
    return clean


def _require_any(schema: Schema, options: list[Schema]) -> None:
    if len(options) == 1:
        schema.update(options[0])
    elif "anyOf" not in schema:
        schema["anyOf"] = options
    else:
        schema["allOf"] = [*schema.get("allOf", []), {"anyOf": options}]


def _root(schema: Schema, whole: Schema, depth: int = 0) -> Schema:
    """Merges what the root refers to or is composed of; what only some alternatives require becomes optional."""
    root = {key: value for key, value in schema.items() if key not in {"$ref", *_MANY, "not", "enum"}}
    properties: Schema = dict(root.get("properties", {}))
    required = set(cast("list[str]", root.get("required", [])))
    referred = _referred(schema, whole)
    for key, parts in (("allOf", [*schema.get("allOf", []), *referred]), *((k, schema.get(k, [])) for k in _CHOICES)):
        merged = [_root(part, whole, depth + 1) for part in _objects(parts) if depth < _DEEPEST]
        for part in merged:
            for name, item in part.get("properties", {}).items():
                properties.setdefault(name, item)
        needed = [set(cast("list[str]", part.get("required", []))) for part in merged]
        if needed:
            required.update(*needed) if key == "allOf" else required.update(needed[0].intersection(*needed))
    if properties:
        root["properties"] = properties
    if required:
        root["required"] = sorted(required)
    return root


def _objects(parts: list[Any]) -> list[Schema]:
    return [cast("Schema", part) for part in parts if isinstance(part, dict) and part != {"type": "null"}]


def _referred(schema: Schema, whole: Schema) -> list[Any]:
    """The definition a local `$ref` names; a reference to the whole schema or elsewhere is left out."""
    home, _, name = str(schema.get("$ref", "")).removeprefix("#/").partition("/")
    return [whole[home][name]] if home in {"$defs", "definitions"} and name in whole.get(home, {}) else []


class WireNames:
    """Tool names as a vendor takes them (letters, digits, `_`, `-`, at most `limit`), and back again."""

    def __init__(self, names: Iterable[str], limit: int = 64) -> None:
        self._limit = limit
        self._ours: dict[str, str] = {}
        for name in names:
            self._ours[self.wire(name)] = name

    def wire(self, name: str) -> str:
        return _fitting(name, self._limit)

    def ours(self, wire: str) -> str:
        """The tool's own name; a name the model made up stays as it is."""
        return self._ours.get(wire, wire)


def wire_id(call_id: str) -> str:
    """A call id every vendor takes; calls of one vendor's reply can be continued by another's."""
    return _fitting(call_id, 64)


def _fitting(text: str, limit: int) -> str:
    clean = _BAD.sub("_", text)
    if clean == text and 0 < len(text) <= limit:
        return text
    return f"{clean[: limit - 9]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def tool_call(call_id: str, name: str, raw: str) -> ToolCallPart:
    """A call with the arguments the model wrote; text that is no JSON object is kept as `malformed`."""
    arguments: Any = None
    try:
        arguments = json.loads(raw) if raw.strip() else {}
    except ValueError:
        pass  # kept as `malformed`
    if isinstance(arguments, dict):
        return ToolCallPart(call_id=call_id, name=name, arguments=cast("dict[str, Any]", arguments))
    return ToolCallPart(call_id=call_id, name=name, arguments={}, malformed=raw)


def written_arguments(call: ToolCallPart) -> str:
    """The call's arguments as text, as the model wrote them."""
    return call.malformed if call.malformed is not None else json.dumps(call.arguments, ensure_ascii=False)


def data_url(url: str) -> tuple[str | None, str] | None:
    """(media type, base64 data) of a data: URL, or None for any other."""
    match = _DATA_URL.fullmatch(url)
    return (match["mime"], match["data"]) if match else None
