"""The layers of the house, and the import-linter contracts made from them.

`python -m tests.gates.layers` checks them. The configuration is made from the tables below for what exists in
`roomkit/`, so that a table may name a package which is still to come, while a package which no table names is an error.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "roomkit"

# Highest first. Modules in one line are siblings and do not import each other; `roomkit/__init__.py` and
# `roomkit/__main__.py` are doors, not rooms, and belong to no layer.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("testing",),
    ("cli",),
    ("servers",),
    ("orchestration",),
    ("kit",),
    ("rooms",),
    ("data",),
    ("channels",),
    ("core", "ai", "voice", "providers"),
    ("net",),
    ("dsp", "ports", "protocols", "runtime"),
    ("models",),
    ("errors",),
)
DOORS = frozenset({"__init__", "__main__"})

# Pure: time comes in as an argument, bytes come in as an argument, nothing here waits.
PURE = ("models", "protocols", "dsp", "core.policy", "ai.loop", "voice.turn")
IMPURE = ("asyncio", "socket", "http", "threading", "time")

# Providers are guests: found by name or passed in. The conformance kit may know the ones it fakes.
HOSTS = ("cli", "servers", "orchestration", "kit", "channels", "core", "ai", "voice")

LAYER_EXCEPTIONS: tuple[str, ...] = ()
"""`importer -> imported` pairs, each with its page in docs/decisions."""


def modules_of(package: Path = PACKAGE) -> set[str]:
    """The modules and packages directly in `package`."""
    files = {path.stem for path in package.glob("*.py")}
    folders = {path.name for path in package.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    return (files | folders) - DOORS


def exists(name: str, package: Path = PACKAGE) -> bool:
    path = package.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def uncovered(package: Path = PACKAGE) -> set[str]:
    """Modules of the house which stand in no layer."""
    return modules_of(package) - {name for layer in LAYERS for name in layer}


def config(package: Path = PACKAGE) -> str:
    """An import-linter configuration for what exists in `package`."""
    name = package.name
    sections = [_section("importlinter", root_packages=[name], include_external_packages="True")]
    present = [[module for module in layer if exists(module, package)] for layer in LAYERS]
    layers = [" | ".join(layer) for layer in present if layer]
    exceptions = {"ignore_imports": list(LAYER_EXCEPTIONS)} if LAYER_EXCEPTIONS else {}
    sections.append(_contract("layers", "Layers go one way", containers=[name], layers=layers, **exceptions))
    pure = [f"{name}.{module}" for module in PURE if exists(module, package)]
    if pure:
        sections.append(
            _contract("forbidden", "Pure modules do not wait", source_modules=pure, forbidden_modules=list(IMPURE))
        )
    hosts = [f"{name}.{module}" for module in HOSTS if exists(module, package)]
    if hosts and exists("providers", package):
        providers = [f"{name}.providers"]
        sections.append(
            _contract("forbidden", "Nobody imports a provider", source_modules=hosts, forbidden_modules=providers)
        )
    vendors = [f"{name}.providers.{vendor}" for vendor in _packages(package / "providers")]
    if len(vendors) > 1:
        sections.append(_contract("independence", "Vendors do not know each other", modules=vendors))
    return "\n".join(sections)


def _packages(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/__init__.py")) if folder.is_dir() else []


def _contract(kind: str, title: str, **fields: list[str]) -> str:
    return _section(f"importlinter:contract:{title.lower().replace(' ', '-')}", name=title, type=kind, **fields)


def _section(title: str, **fields: str | list[str]) -> str:
    lines = [f"[{title}]"]
    for key, value in fields.items():
        lines += [f"{key} = {value}"] if isinstance(value, str) else [f"{key} =", *(f"    {item}" for item in value)]
    return "\n".join(lines) + "\n"


def check() -> int:
    """0 when every contract is kept and every module stands in a layer."""
    from importlinter.cli import lint_imports

    if missing := uncovered():
        print(f"these modules stand in no layer of tests/gates/layers.py: {', '.join(sorted(missing))}")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "importlinter.ini"
        path.write_text(config(), encoding="utf-8")
        return lint_imports(config_filename=str(path), no_cache=True, no_logo=True)


if __name__ == "__main__":
    sys.exit(check())
