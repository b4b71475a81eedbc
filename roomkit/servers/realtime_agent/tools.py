"""The tools of a realtime agent: run here, or passed through to the client that the user sits at."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel

from roomkit.ai import schema
from roomkit.errors import UsageError
from roomkit.models.ai import ToolSpec
from roomkit.runtime import WorkerPool


@dataclass(frozen=True, kw_only=True)
class PassThroughFunctionToolDeclaration:
    """A tool that the client runs: the call goes to it as a chat message, and it answers with the result."""

    name: str
    description: str
    parameters: dict[str, Any]

    def model_description(self) -> dict[str, Any]:
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }


@dataclass(frozen=True, kw_only=True)
class LocalFunctionToolDeclaration(PassThroughFunctionToolDeclaration):
    """A tool that runs here."""

    function: Callable[..., Any]


ToolDeclaration = LocalFunctionToolDeclaration | PassThroughFunctionToolDeclaration


@dataclass(frozen=True, kw_only=True)
class LocalToolCallExecuted:
    json_encoded_output: str


@dataclass(frozen=True, kw_only=True)
class ShouldPassThroughToolCall:
    decoded_function_args: dict[str, Any]


ExecuteToolCallResult = LocalToolCallExecuted | ShouldPassThroughToolCall


class ClientToolCallResponse(BaseModel):
    """What a client answers to a call that was passed through to it."""

    tool_call_id: str
    result: dict[str, Any] | str | float | int | bool | None = None


class ToolContext:
    """The tools of one agent, by name; subclass it, or register functions on an instance."""

    def __init__(self) -> None:
        self._tool_declarations: dict[str, ToolDeclaration] = {}
        self._pool = WorkerPool(4, name="agent-tools")

    def register_function(
        self, *, name: str, description: str = "", parameters: dict[str, Any], fn: Callable[..., Any]
    ) -> None:
        """Adds a function, sync or async, that runs here. Raises `UsageError` for a name that is taken."""
        self._add(LocalFunctionToolDeclaration(name=name, description=description, parameters=parameters, function=fn))

    def register_client_function(self, *, name: str, description: str = "", parameters: dict[str, Any]) -> None:
        """Adds a tool that the client runs."""
        self._add(PassThroughFunctionToolDeclaration(name=name, description=description, parameters=parameters))

    def _add(self, declaration: ToolDeclaration) -> None:
        if declaration.name in self._tool_declarations:
            raise UsageError(f'there is a tool "{declaration.name}" already; give one of them another name')
        self._tool_declarations[declaration.name] = declaration

    async def execute_tool(self, tool_name: str, encoded_function_args: str) -> ExecuteToolCallResult | None:
        """Runs a call, or says that the client is to run it; None when there is no such tool. Raises `ValueError` for
        arguments that do not fit, and whatever the function raises."""
        tool = self._tool_declarations.get(tool_name)
        if tool is None:
            return None
        given: Any = json.loads(encoded_function_args)
        if not isinstance(given, dict):
            raise ValueError("the arguments are no JSON object")  # noqa: TRY004 - the model's words, not a type of ours
        arguments = cast("dict[str, Any]", given)
        if problem := schema.check(tool.parameters, arguments):
            raise ValueError(problem)
        if not isinstance(tool, LocalFunctionToolDeclaration):
            return ShouldPassThroughToolCall(decoded_function_args=arguments)
        if inspect.iscoroutinefunction(tool.function):
            result: Any = await tool.function(**arguments)
        else:
            result = await self._pool.run(lambda: tool.function(**arguments))
        return LocalToolCallExecuted(json_encoded_output=json.dumps(result, ensure_ascii=False, default=str))

    def model_description(self) -> list[dict[str, Any]]:
        return [each.model_description() for each in self._tool_declarations.values()]

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        found = self._tool_declarations.values()
        return tuple(
            ToolSpec(name=each.name, description=each.description, parameters=each.parameters) for each in found
        )

    def close(self) -> None:
        self._pool.close()
