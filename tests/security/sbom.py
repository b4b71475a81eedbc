"""What an installed roomkit consists of, as a CycloneDX bill of materials: `python -m tests.security.sbom > sbom.json`.

It reads the metadata of what is installed and asks nobody, so that any scanner can be run on its output offline.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def _normal(requirement: str) -> str:
    match = _NAME.match(requirement.strip())
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def components(requirements: Iterable[str]) -> list[dict[str, Any]]:
    """What is installed of these requirements and of what they need in turn, by name. Optional needs count where they
    are there."""
    found: dict[str, Distribution] = {}
    todo = [_normal(line) for line in requirements]
    while todo:
        name = todo.pop()
        if not name or name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        todo += [_normal(line) for line in found[name].requires or ()]
    return [
        {"type": "library", "name": name, "version": one.version, "purl": f"pkg:pypi/{name}@{one.version}"}
        for name, one in sorted(found.items())
    ]


def sbom(requirements: Iterable[str]) -> dict[str, Any]:
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components(requirements)}


def declared() -> list[str]:
    """The dependencies of the package, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(line for extra in extras for line in extra if not line.startswith("roomkit"))]


if __name__ == "__main__":
    print(json.dumps(sbom(declared()), indent=2))
