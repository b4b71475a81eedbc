"""Tools of the demo as plain typed functions, with a small order table; `MARKS` says how each is to be handled."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from roomkit.errors import ToolFailed, ToolRetry
from roomkit.runtime import SystemClock

ORDERS: dict[int, dict[str, Any]] = {
    number: {"item": item, "status": status, "expected": expected, "paid": paid}
    for number, item, status, expected, paid in (
        (1042, "walnut desk lamp", "out for delivery", "today before 18:00", "49.90 EUR"),
        (1043, "linen notebook, set of three", "being packed", "in 2 days", "24.00 EUR"),
        (1077, "ceramic teapot", "delivered", "it came yesterday", "68.50 EUR"),
        (2001, "bicycle bell", "delayed at customs", "in about a week", "17.25 EUR"),
    )
}

_OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,  # pyright: ignore[reportUnknownMemberType]
    ast.FloorDiv: operator.floordiv,  # pyright: ignore[reportUnknownMemberType]
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,  # pyright: ignore[reportUnknownMemberType]
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_LONGEST = 200
_LARGEST = 10**30


def clock(zone: str = "UTC") -> dict[str, str]:
    """Tells the date and time in a zone, e.g. "UTC" or "Europe/Paris"."""
    try:
        now = SystemClock().now().astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ToolRetry(f'there is no time zone "{zone}"; use a name like "Europe/Paris"') from error
    return {"time": now.strftime("%H:%M"), "date": now.strftime("%A, %d %B %Y"), "zone": zone}


def find_order(number: int) -> dict[str, Any]:
    """Finds an order by its number: what was bought, where it is, when it is expected."""
    order = ORDERS.get(number)
    return {"number": number, "found": False} if order is None else {"number": number, "found": True, **order}


def calculator(expression: str) -> str:
    """Works out arithmetic: + - * / // % ** and parentheses."""
    try:
        if len(expression) > _LONGEST:
            raise ValueError(f"it is longer than {_LONGEST} characters")
        value = _evaluate(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        reason = "it is no arithmetic" if isinstance(error, SyntaxError) else str(error)
        raise ToolRetry(f"cannot work out {expression[:40]!r}: {reason}") from error
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def refund_order(number: int) -> dict[str, Any]:
    """Pays the price of an order back to the customer. A person has to approve it first."""
    order = ORDERS.get(number)
    if order is None:
        raise ToolFailed(f"there is no order {number}, so nothing can be refunded")
    return {"number": number, "refunded": order["paid"], "reference": f"RF-{number}"}


TOOLS: tuple[Callable[..., Any], ...] = (clock, find_order, calculator, refund_order)

MARKS: dict[str, dict[str, bool]] = {
    "clock": {"idempotent": True},
    "find_order": {"idempotent": True},
    "calculator": {"idempotent": True},
    "refund_order": {"needs_approval": True},
}
"""Options for each tool's `ToolSpec`, to be given to `@tool` by name."""


def _evaluate(node: ast.AST) -> int | float:
    if isinstance(node, ast.Constant) and type(node.value) in {int, float}:
        return _bounded(node.value)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Pow) and (abs(right) > 100 or (left < 0 and right != int(right))):
            raise ValueError("the exponent is too large or has no real result")
        return _bounded(_OPERATORS[type(node.op)](left, right))
    raise ValueError("only numbers, + - * / // % ** and parentheses are understood")


def _bounded(value: Any) -> int | float:
    if abs(value) > _LARGEST:
        raise ValueError("the numbers get too large")
    return value
