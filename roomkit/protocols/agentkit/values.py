"""The values of `metadata`, `args` and `options`: wrapped as google.protobuf.Any."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from google.protobuf import any_pb2, struct_pb2, wrappers_pb2
from google.protobuf.json_format import MessageToDict

_WRAPPERS: tuple[Any, ...] = (
    wrappers_pb2.StringValue,
    wrappers_pb2.BytesValue,
    wrappers_pb2.BoolValue,
    wrappers_pb2.DoubleValue,
    wrappers_pb2.FloatValue,
    wrappers_pb2.Int32Value,
    wrappers_pb2.Int64Value,
    wrappers_pb2.UInt32Value,
    wrappers_pb2.UInt64Value,
)
_STRUCTURES: tuple[Any, ...] = (struct_pb2.Struct, struct_pb2.Value, struct_pb2.ListValue)


def unpacked(values: Mapping[str, any_pb2.Any]) -> dict[str, Any]:
    """What can be read of them; a type that nobody knows, bytes that are none and NaN in a structure are left out."""
    found: dict[str, Any] = {}
    for name, packed in values.items():
        for kind in (*_WRAPPERS, *_STRUCTURES):
            if packed.Is(kind.DESCRIPTOR):
                value = kind()
                with suppress(Exception):  # The library has an error of its own for each of its builds.
                    packed.Unpack(value)
                    found[name] = value.value if kind in _WRAPPERS else MessageToDict(value)
                break
    return found


def packed(values: Mapping[str, Any]) -> dict[str, any_pb2.Any]:
    """As the platform's own SDK packs them: objects and lists travel as JSON text."""
    return {name: _packed(value) for name, value in values.items()}


def _packed(value: Any) -> any_pb2.Any:
    inner: Any
    if isinstance(value, bool):
        inner = wrappers_pb2.BoolValue(value=value)
    elif isinstance(value, int):
        fits = -(2**31) <= value < 2**31
        inner = wrappers_pb2.Int32Value(value=value) if fits else wrappers_pb2.Int64Value(value=value)
    elif isinstance(value, float):
        inner = wrappers_pb2.DoubleValue(value=value)
    elif isinstance(value, bytes):
        inner = wrappers_pb2.BytesValue(value=value)
    else:
        inner = wrappers_pb2.StringValue(value=value if isinstance(value, str) else json.dumps(value))
    made = any_pb2.Any()
    made.Pack(inner)
    return made
