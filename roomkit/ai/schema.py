"""Checks tool arguments against their JSON Schema: the subset that tools use, strictly.

A keyword which is not known here refuses nothing: whoever declares it checks it. What is known is enforced, closed
objects (`additionalProperties: false`) included. Patterns are matched in linear time, whoever wrote them: what that
engine cannot read (look-around, back references) or what is too long cannot be checked, and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from pydantic_core import SchemaError, SchemaValidator, ValidationError

MAX_DEPTH = 32
MAX_PATTERN = 500
MAX_MATCHED = 4000
"""Characters of a pattern, and of a text that is held against one."""

Schema = dict[str, Any]


def check(schema: Schema, value: Any) -> str | None:
    """The first problem, worded for the model with the place where it is; None when the value fits."""
    return _check(schema, value, "arguments", schema, 0)


def _check(schema: Any, value: Any, at: str, root: Schema, depth: int) -> str | None:
    if schema is True or schema == {}:
        return None
    if schema is False:
        return f"{at} is not allowed here"
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return f"{at} cannot be checked: its schema is broken or nested deeper than {MAX_DEPTH}"
    known = cast("Schema", schema)
    problem = _referred(known["$ref"], value, at, root, depth) if "$ref" in known else None
    if problem is None:
        problem = _kind(known, value, at)
    if problem is None and ("enum" in known or "const" in known):
        problem = _choice(known, value, at)
    if problem is None and isinstance(value, str):
        problem = _text(known, value, at)
    elif problem is None and isinstance(value, (int, float)) and not isinstance(value, bool):
        problem = _number(known, value, at)
    if problem is None and not _COMBINING.isdisjoint(known):
        problem = _combined(known, value, at, root, depth)
    if problem is None and isinstance(value, dict):
        problem = _object(known, cast("dict[str, Any]", value), at, root, depth)
    elif problem is None and isinstance(value, (list, tuple)):
        problem = _array(known, cast("list[Any]", value), at, root, depth)
    return problem


def _referred(ref: Any, value: Any, at: str, root: Schema, depth: int) -> str | None:
    target = _resolve(ref, root)
    if target is None:
        return f'{at} cannot be checked: "{ref}" is not in the schema'
    return _check(target, value, at, root, depth + 1)


def _resolve(ref: Any, root: Schema) -> Any:
    node: Any = root
    if not isinstance(ref, str) or not ref.startswith("#"):
        return None
    for step in filter(None, ref[1:].split("/")):
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or key not in node:
            return None
        node = cast("Schema", node)[key]
    return node


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, (list, tuple)),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "integer": lambda v: (isinstance(v, int) and not isinstance(v, bool)) or (isinstance(v, float) and v.is_integer()),
}


def _kind(schema: Schema, value: Any, at: str) -> str | None:
    wanted = schema.get("type")
    if type(wanted) is str and wanted in _TYPES and _TYPES[wanted](value):
        return None  # As nearly always.
    names = [wanted] if isinstance(wanted, str) else cast("list[str]", wanted or [])
    tests = [_TYPES[name] for name in names if name in _TYPES]
    if tests and not any(test(value) for test in tests):
        return f"{at} must be {' or '.join(names)}"
    return None


def _same(left: Any, right: Any) -> bool:
    """JSON equality: 1 equals 1.0, but never true."""
    return left == right and isinstance(left, bool) is isinstance(right, bool)


def _choice(schema: Schema, value: Any, at: str) -> str | None:
    if "const" in schema and not _same(schema["const"], value):
        return f"{at} must be {_show(schema['const'])}"
    if "enum" in schema and not any(_same(each, value) for each in schema["enum"]):
        return f"{at} must be one of {', '.join(map(_show, schema['enum']))}"
    return None


_COMBINING = frozenset({"allOf", "anyOf", "oneOf", "not"})


def _combined(schema: Schema, value: Any, at: str, root: Schema, depth: int) -> str | None:
    for each in schema.get("allOf", ()):
        if problem := _check(each, value, at, root, depth + 1):
            return problem
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            problems = [_check(each, value, at, root, depth + 1) for each in schema[keyword]]
            fitting = problems.count(None)
            if not fitting:
                return problems[0] if len(problems) == 1 else f"{at} fits none of its forms: {problems[0]}"
            if keyword == "oneOf" and fitting > 1:
                return f"{at} fits more than one of its forms"
    if "not" in schema and _check(schema["not"], value, at, root, depth + 1) is None:
        return f"{at} has a form that is not allowed"
    return None


def _object(schema: Schema, given: dict[str, Any], at: str, root: Schema, depth: int) -> str | None:
    properties: Schema = schema.get("properties", {})
    patterns: Schema = schema.get("patternProperties", {})
    extra = schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in given:
            return f'{at} lacks "{name}"'
    if problem := _size(schema, len(given), at, "Properties", "properties"):
        return problem
    for name, each in given.items():
        rules = [properties[name]] if name in properties else []
        for pattern, rule in patterns.items():
            fits = _matches(pattern, name)
            if fits is None:
                return f"{at} cannot be checked: {_UNREADABLE}"
            rules += [rule] if fits else []
        if not rules and extra is False:
            return f'{at} has no "{name}"; it has: {", ".join(properties) or "nothing"}'
        for rule in rules or [extra]:
            if problem := _check(rule, each, f"{at}.{name}", root, depth + 1):
                return problem
    return None


def _array(schema: Schema, items: list[Any], at: str, root: Schema, depth: int) -> str | None:
    if problem := _size(schema, len(items), at, "Items", "items"):
        return problem
    first: list[Any] = schema.get("prefixItems", [])
    for position, each in enumerate(items):
        rule = first[position] if position < len(first) else schema.get("items", True)
        if problem := _check(rule, each, f"{at}[{position}]", root, depth + 1):
            return problem
    if schema.get("uniqueItems") and len({json.dumps(each, sort_keys=True) for each in items}) < len(items):
        return f"{at} has the same item twice"
    return None


def _text(schema: Schema, value: str, at: str) -> str | None:
    if problem := _size(schema, len(value), at, "Length", "characters"):
        return problem
    pattern = schema.get("pattern")
    if pattern is None:
        return None
    fits = _matches(pattern, value)
    if fits is None:
        return f"{at} cannot be checked: {_UNREADABLE}"
    return None if fits else f"{at} does not match {pattern}"


def _number(schema: Schema, value: float, at: str) -> str | None:
    if "minimum" in schema and value < schema["minimum"]:
        return f"{at} must be at least {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"{at} must be at most {schema['maximum']}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        return f"{at} must be more than {schema['exclusiveMinimum']}"
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        return f"{at} must be less than {schema['exclusiveMaximum']}"
    step = schema.get("multipleOf")
    if step and abs(value / step - round(value / step)) > 1e-9:
        return f"{at} must be a multiple of {step}"
    return None


def _size(schema: Schema, size: int, at: str, suffix: str, unit: str) -> str | None:
    least, most = schema.get(f"min{suffix}"), schema.get(f"max{suffix}")
    if least is not None and size < least:
        return f"{at} must have at least {least} {unit}"
    if most is not None and size > most:
        return f"{at} must have at most {most} {unit}"
    return None


_UNREADABLE = "its pattern cannot be read, or it is too long to be held against one"


def _matches(pattern: Any, text: str) -> bool | None:
    """Whether a part of the text fits; None when that cannot be told safely."""
    if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN or len(text) > MAX_MATCHED:
        return None
    matcher = _matcher(pattern)
    if matcher is None:
        return None
    try:
        matcher.validate_python(text)
    except ValidationError:
        return False
    return True


@lru_cache(maxsize=64)
def _matcher(pattern: str) -> SchemaValidator | None:
    """Python's own engine can be sent into a search of years, and holds every thread of the process meanwhile."""
    try:
        return SchemaValidator({"type": "str", "pattern": pattern, "regex_engine": "rust-regex"})
    except SchemaError:
        return None


def _show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
