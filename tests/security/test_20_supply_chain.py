"""Line 20: nothing that is loaded can run; and everything that we depend on is known, by name and version."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib

import pytest

from tests.gates.test_banned import UNSAFE_MODULES, unsafe_loading
from tests.gates.tree import ROOT, Source, package
from tests.security.sbom import components, sbom

RUNS_WHAT_IT_READS = {
    "eval",
    "exec",
    "compile",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "pickle.loads",
    "marshal.loads",
    "numpy.load",
    "torch.load",
    "joblib.load",
    "xml.etree.ElementTree.fromstring",
    "ElementTree.fromstring",
    "etree.fromstring",
    "minidom.parseString",
    "tempfile.mktemp",
}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name; of anything else its end."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".removeprefix(".")
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source: Source) -> list[str]:
    """Calls that run what they are given, or read XML with entities; shells; TLS that checks nothing."""
    found: list[str] = []
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in RUNS_WHAT_IT_READS:
            found.append(f"{source.path}:{node.lineno}: {name}")
        for keyword in node.keywords:
            constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if (keyword.arg, constant) in (("shell", True), ("verify", False), ("check_hostname", False)):
                found.append(f"{source.path}:{node.lineno}: {name}({keyword.arg}={constant})")
    return found


def test_the_package_loads_nothing_that_could_run() -> None:
    assert [line for source in package() for line in dangers(source)] == []
    assert [found for source in package() for found in unsafe_loading(source)] == []
    assert {"pickle", "marshal", "shelve"} <= UNSAFE_MODULES


@pytest.mark.parametrize(
    "broken",
    [
        "yaml.full_load(x)",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
        "httpx2.get(x, verify=False)",
        "ElementTree.fromstring(x)",
        "compile(x, 'f', 'exec')",
    ],
)
def test_each_danger_is_seen(broken: str) -> None:
    assert dangers(Source.of(broken))


def test_every_dependency_is_declared_with_a_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    loose = [
        line for line in wanted if not line.startswith("roomkit") and not any(mark in line for mark in ("=", "<", "~"))
    ]
    assert loose == []


def test_the_bill_of_materials_names_what_is_installed() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "tests.security.sbom"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    bill = json.loads(printed)
    assert bill["bomFormat"] == "CycloneDX"
    names = {one["name"] for one in bill["components"]}
    assert "pydantic" in names
    assert all(one["version"] and one["purl"].startswith("pkg:pypi/") for one in bill["components"])


def test_the_bill_follows_dependencies_of_dependencies() -> None:
    names = {one["name"] for one in components(["pydantic>=2"])}
    assert {"pydantic", "pydantic-core", "typing-extensions"} <= names
    assert sbom(["no-such-thing-at-all"])["components"] == []
