"""What ruff's banned APIs cannot see: tasks made through a loop, swallowed cancellation, rules silenced with no why."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

import pytest

from tests.gates.tree import Source, package

CATCHES_CANCELLATION = {"CancelledError", "BaseException"}
SWALLOWS = "# swallows cancellation:"
REASONED = re.compile(r"#\s*(?:(?:noqa: [A-Z0-9, ]+|type: ignore\[[\w, -]+\])\s+[-#—]\s*\S|pyright: ignore\[\w)")
EXCEPTION = re.compile(r"#\s*(?:noqa|type:\s*ignore|pyright:\s*ignore)\b")
SECRET_NAME = re.compile(r"signature|digest|hmac|mac_|_mac$|checksum_secret", re.IGNORECASE)
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
Found = Iterator[tuple[int, str]]


def tasks_outside_runtime(source: Source) -> Found:
    """`loop.create_task(...)` and its relatives: only runtime.Scope makes tasks."""
    if source.inside("runtime/", "testing/"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in {"create_task", "ensure_future", "run_in_executor"}:
            yield node.lineno, f".{node.attr}: use roomkit.runtime"


def swallowed_cancellation(source: Source) -> Found:
    if source.inside("runtime/", "testing/"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Try):
            catcher = next((it for it in node.handlers if caught_by(it) & CATCHES_CANCELLATION), None)
            reraises = catcher is None or any(isinstance(inner, ast.Raise) for inner in ast.walk(catcher))
            if catcher and not reraises and SWALLOWS not in source.lines[catcher.lineno - 1]:
                yield catcher.lineno, f"catches cancellation and does not raise it; if that is right: `{SWALLOWS} why`"
        elif isinstance(node, ast.Call) and "suppress" in names(node.func):
            suppressed = {name for argument in node.args for name in names(argument)}
            if suppressed & CATCHES_CANCELLATION:
                yield node.lineno, "suppress() of a cancellation"


def caught_by(handler: ast.ExceptHandler) -> set[str]:
    return {"BaseException"} if handler.type is None else names(handler.type)


def exceptions_without_a_reason(source: Source) -> Found:
    """Silencing a rule is fine when the line says why: `# noqa: BLE001 - a hook must not break the room`.

    Of pyright's, whose names explain themselves, the rule is enough: `# pyright: ignore[reportPrivateUsage]`.
    """
    for number, line in enumerate(source.lines, 1):
        if EXCEPTION.search(line) and not REASONED.search(line):
            yield number, "silences a rule without a reason (write `# noqa: CODE - why`)"


def compared_secrets(source: Source) -> Found:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            sides = [node.left, *node.comparators]
            plain = any(isinstance(side, ast.Constant) and side.value in ("", None) for side in sides)
            if not plain and any(SECRET_NAME.search(name) for side in sides for name in names(side, calls=True)):
                yield node.lineno, "compares a signature or digest with ==: use hmac.compare_digest"


def unsafe_loading(source: Source) -> Found:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            modules = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules = {(node.module or "").split(".")[0]}
        else:
            modules = set[str]()
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
                yield node.lineno, f"{node.func.id}()"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"yaml.load", "yaml.unsafe_load"}:
                yield node.lineno, "yaml.load: use yaml.safe_load"
        for module in modules & UNSAFE_MODULES:
            yield node.lineno, f"import {module}: loading it runs what it is given"


def names(node: ast.expr, *, calls: bool = False) -> set[str]:
    """The last names in an expression: of a name, an attribute, a tuple of them, with `calls` also of a call."""
    if isinstance(node, ast.Tuple):
        return {name for item in node.elts for name in names(item, calls=calls)}
    if calls and isinstance(node, ast.Call):
        return names(node.func, calls=calls)
    return {node.attr} if isinstance(node, ast.Attribute) else {node.id} if isinstance(node, ast.Name) else set()


RULES: list[Callable[[Source], Found]] = [
    tasks_outside_runtime,
    swallowed_cancellation,
    exceptions_without_a_reason,
    compared_secrets,
    unsafe_loading,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Callable[[Source], Found]) -> None:
    found = [f"{source.path}:{line}: {what}" for source in package() for line, what in rule(source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "rule, broken, sound",
    [
        (tasks_outside_runtime, "loop.create_task(f())", "scope.spawn(f(), name='f')"),
        (tasks_outside_runtime, "asyncio.get_running_loop().run_in_executor(None, f)", "pool.run(f)"),
        (
            swallowed_cancellation,
            "try: f()\nexcept asyncio.CancelledError: pass",
            "try: f()\nexcept BaseException:\n  g()\n  raise",
        ),
        (swallowed_cancellation, "try: f()\nexcept: pass", "try: f()\nexcept ValueError: pass"),
        (
            swallowed_cancellation,
            "try: f()\nexcept BaseException: pass",
            "try: f()\nexcept asyncio.CancelledError: raise\nexcept BaseException: pass",
        ),
        (swallowed_cancellation, "with suppress(ValueError, CancelledError): f()", "with suppress(ValueError): f()"),
        (exceptions_without_a_reason, "f()  # noqa", "f()  # noqa: BLE001 - a hook must not break the room"),
        (exceptions_without_a_reason, "f()  # pyright: ignore", "f()  # pyright: ignore[reportPrivateUsage]"),
        (exceptions_without_a_reason, "f()  # type: ignore[arg-type]", "f()  # type: ignore[arg-type] - untyped SDK"),
        (compared_secrets, "ok = request.signature == expected", "ok = compare_digest(request.signature, expected)"),
        (compared_secrets, "ok = h.hexdigest() != given", "ok = signature == ''"),
        (unsafe_loading, "import pickle", "import json"),
        (unsafe_loading, "from pickle import loads", "from json import loads"),
        (unsafe_loading, "x = eval(y)", "x = literal_eval(y)"),
        (unsafe_loading, "x = yaml.load(y)", "x = yaml.safe_load(y)"),
    ],
)
def test_each_rule_bites(rule: Callable[[Source], Found], broken: str, sound: str) -> None:
    assert list(rule(Source.of(broken)))
    assert not list(rule(Source.of(sound)))
