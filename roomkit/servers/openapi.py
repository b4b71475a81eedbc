"""The OpenAPI description, made from the same table as the routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from roomkit.servers.access import LEAST
from roomkit.servers.rest.api import Endpoint, Nothing

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_REF = "#/components/schemas/{model}"


def describe(rows: Iterable[Endpoint], *, base: str) -> dict[str, Any]:
    """OpenAPI 3.1 of the API below `base`."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        path = _PARAMETER.sub(r"{\1}", f"/api{row.path}")
        paths.setdefault(path, {})[row.method.lower()] = _operation(row, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "roomkit",
            "version": "1",
            "description": "Rooms you can talk in. See docs/reference/rest.md.",
        },
        "servers": [{"url": base or "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(row: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(row.path)
    ]
    operation: dict[str, Any] = {
        "operationId": row.name,
        "summary": row.summary,
        "description": f"Least role: {LEAST[row.action].value}.",
        "responses": {
            str(row.status): {"description": "Done"},
            "default": {
                "description": "Failed",
                "content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}},
            },
        },
    }
    if row.takes is not Nothing:
        if row.method == "GET" or row.raw:
            parameters += _query(row.takes)
        else:
            operation["requestBody"] = {"content": {"application/json": {"schema": _schema(row.takes, schemas)}}}
    if row.raw:
        operation["requestBody"] = {
            "required": True,
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        }
    if parameters:
        operation["parameters"] = parameters
    return operation


def _schema(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template=_REF)
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    return {"$ref": _REF.format(model=model.__name__)}


def _query(model: type[BaseModel]) -> list[dict[str, Any]]:
    schema = model.model_json_schema(ref_template=_REF)
    defs = schema.get("$defs", {})
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": _inline(field, defs)}
        for name, field in schema["properties"].items()
    ]


def _inline(field: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """A query parameter's schema with its references resolved: they are enums, so one step is enough."""
    if "$ref" in field:
        return defs[field["$ref"].rsplit("/", maxsplit=1)[-1]]
    if "anyOf" in field:
        return {**field, "anyOf": [_inline(option, defs) for option in field["anyOf"]]}
    return field


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
