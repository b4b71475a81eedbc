"""An option that nobody reads is a promise that nobody keeps (P6): every knob is read, the house's own are tested."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "roomkit"
KNOBS = re.compile(r"(Options|Policy|Limits|Config|Rules|Timers|Hours|Digests|Redaction|Courtesy)$")
"""How classes are called whose fields are there to be set."""
OURS = frozenset(
    {
        "KitOptions",
        "DeliveryPolicy",
        "TurnPolicy",
        "AIOptions",
        "SpendLimits",
        "RoomTimers",
        "Courtesy",
        "ConsentPolicy",
    }
    | {"QuietHours", "Digests", "Redaction", "WebSocketOptions", "ServerOptions", "ToolPolicy", "RetryPolicy"}
)
"""The options of the room machine and its doors: each of them is set by name in some test."""
THEIRS = re.compile(r"(Options|Settings|Rules|Config)$")
"""How classes are called whose fields are the options of a vendor, a voice or a channel."""
SET_NOWHERE = {
    **dict.fromkeys(
        ("CallOptions.clip", "CallOptions.phrase", "CallOptions.voice_for", "TurnOptions.reprompts"),
        "made of VoiceOptions by the channel, which is what tests set",
    ),
    **dict.fromkeys(("KeyRules.audience", "VoiceOptions.clip"), "set by the part around it"),
    **dict.fromkeys(
        ("LinkOptions.delays_s", "LinkOptions.margin_s", "TurnOptions.decide_ms", "TurnOptions.stall_ms"),
        "a pause of our own, which tests of its default hold",
    ),
    **dict.fromkeys(
        ("RealtimeCallOptions.transcript_wait_s", "RealtimeOptions.transcript_wait_s", "SQLiteOptions.probe_s"),
        "a pause of our own, which tests of its default hold",
    ),
    **dict.fromkeys(
        ("PostgresOptions.readers", "RecordingOptions.bitrate", "WebSocketSourceOptions.ping_s"),
        "changes how much is asked of a machine, and no answer",
    ),
    "IMAPOptions.access_token": "a login with OAuth needs somebody's server",
    "NeonizeOptions.show_qr": "needs a telephone",
    "ToolRules.functions": "made of the channel's tools",
}
"""What of those no test sets, and why not. Only ever shorter."""
BY_NAME = {
    "SpendLimits": tuple(f"{who}_{what}" for who in ("room", "tenant") for what in ("tokens", "tool_calls", "money")),
    "Redaction": ("export",),
    "VoiceOptions": ("apology", "filler", "reprompt"),
}
"""Read through a `getattr` whose name is put together."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def sources(folder: str) -> tuple[Path, ...]:
    found = (ROOT / folder).rglob("*.py")
    return tuple(path for path in sorted(found) if not {"generated", "node_modules", "testing"} & set(path.parts))


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for path in sources("roomkit"):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield path, node


def fields(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            name = item.target.id
            derived = item.value is not None and "init=False" in ast.unparse(item.value)
            kept = derived or name.startswith("_") or name == "model_config" or "ClassVar" in ast.dump(item.annotation)
            if not kept:
                yield name


def knobs() -> list[tuple[str, str]]:
    """(class, field) of everything that is configured by an object of options."""
    elsewhere = {"protocols", "realtime_agent"}  # wire formats, and a program of its own
    found = (node for path, node in classes() if KNOBS.search(node.name) and not elsewhere & set(path.parts))
    return sorted({(node.name, name) for node in found for name in fields(node)})


@cache
def read() -> frozenset[str]:
    """Attributes that the package reads, by their name or through getattr."""
    found: set[str] = set()
    for path in sources("roomkit"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                found.update(a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
    return frozenset(found)


@cache
def turned() -> frozenset[str]:
    """Keywords that tests give."""
    nodes = (node for path in sources("tests") for node in ast.walk(tree(path)))
    return frozenset(node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg)


def test_every_option_is_read() -> None:
    unread = [f"{o}.{n}" for o, n in knobs() if n not in read() and n not in BY_NAME.get(o, ())]
    assert unread == [], "can be set and changes nothing: nobody reads it"


def test_every_option_of_the_house_is_set_in_a_test() -> None:
    assert {owner for owner, _ in knobs()} >= OURS, "renamed? rename it here as well"
    unturned = [f"{owner}.{name}" for owner, name in knobs() if owner in OURS and name not in turned()]
    assert unturned == [], "no test sets it: nobody knows whether it does what it says"


@cache
def named() -> frozenset[str]:
    """Words that tests hold ready for keywords: keys of dictionaries, and parameters of a test."""
    nodes = (node for path in sources("tests") if path != Path(__file__) for node in ast.walk(tree(path)))
    return frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def set_nowhere() -> set[str]:
    found: set[str] = set()
    for path, node in classes():
        if THEIRS.search(node.name) and {"providers", "voice", "channels"} & set(path.relative_to(PACKAGE).parts):
            found.update(f"{node.name}.{name}" for name in fields(node) if name not in turned() | named())
    return found


def test_every_option_of_a_vendor_or_a_voice_is_set_in_a_test() -> None:
    assert set_nowhere() - SET_NOWHERE.keys() == set(), "no test sets it: say why, or better write one"
    assert SET_NOWHERE.keys() - set_nowhere() == set(), "it is set by now: take it off the list"


def constructors() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path, node in classes():
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__" and path.name != "errors.py":
                yield f"{path.relative_to(PACKAGE)}:{node.name}", item


def idle(init: ast.FunctionDef) -> list[str]:
    """Parameters that a constructor does nothing with, and attributes that it puts them away in for nobody."""
    given = {arg.arg for arg in (*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs)} - {"self"}
    loads = {n.id for n in ast.walk(init) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    found = sorted(name for name in given - loads if not name.startswith("_"))
    for one in init.body:
        if isinstance(one, ast.Assign) and isinstance(one.value, ast.Name) and one.value.id in given:
            kept = (target.attr for target in one.targets if isinstance(target, ast.Attribute))
            found += [name for name in kept if name not in read()]
    return found


def test_every_parameter_of_a_constructor_is_used() -> None:
    """Errors are read by whoever catches them."""
    assert {where: found for where, init in constructors() if (found := idle(init))} == {}


def test_an_unread_option_would_be_seen() -> None:
    node = ast.parse("class SpareOptions:\n    never_read_by_anybody: int = 0").body[0]
    assert isinstance(node, ast.ClassDef)
    assert [name for name in fields(node) if name not in read()] == ["never_read_by_anybody"]
    spare = ast.parse("def __init__(self, a, b): self.never_read_by_anybody = b").body[0]
    assert isinstance(spare, ast.FunctionDef)
    assert idle(spare) == ["a", "never_read_by_anybody"]
