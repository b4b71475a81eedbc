"""The pages' code without a browser: what node and the type checker say, and that nothing comes from outside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "roomkit" / "servers" / "pages"
HERE = Path(__file__).parent
SCRIPTS = sorted(PAGES.rglob("*.js"))
TYPESCRIPT = "typescript@7.0.2"
MAX_LINES = 400


def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed (apt-get install nodejs npm)")
    return found


def test_the_room_client_in_node() -> None:
    scripts = [str(path) for path in sorted(HERE.glob("*.test.mjs"))]
    ran = subprocess.run([node(), "--test", *scripts], capture_output=True, text=True, timeout=50, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^# pass [1-9]", ran.stdout, re.MULTILINE), ran.stdout


def compiler() -> str:
    """TypeScript's checker: from the path, or from the npm registry once, beside the environment."""
    if found := shutil.which("tsc"):
        return found
    place = ROOT / ".artifacts" / "typescript"
    tsc = place / "node_modules" / ".bin" / "tsc"
    npm = shutil.which("npm")
    if not tsc.exists() and npm:
        place.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "npm_config_update_notifier": "false"}
        command = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(place), TYPESCRIPT]
        subprocess.run(command, capture_output=True, timeout=120, check=False, env=environment)
    if not tsc.exists():
        pytest.skip("TypeScript cannot be installed here (apt-get install nodejs npm)")
    return str(tsc)


def test_the_types_of_the_pages() -> None:
    node()
    ran = subprocess.run(
        [compiler(), "-p", str(HERE / "tsconfig.json")], capture_output=True, text=True, timeout=90, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text inside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"}:
            self.inline += data.strip()


@pytest.mark.parametrize("page", ["chat", "supervisor"])
def test_a_page_works_under_a_strict_policy_and_any_prefix(page: str) -> None:
    elements = Elements((PAGES / page / "index.html").read_text(encoding="utf-8"))
    assert elements.inline == ""
    for _, attributes in elements.found:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        address = attributes.get("src") or attributes.get("href")
        if address:
            assert address.startswith("pages/")
            assert (PAGES / address.removeprefix("pages/")).is_file()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(PAGES).as_posix())
def test_a_script_imports_only_its_neighbours(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    for name in re.findall(r"""(?:from|import)\s*\(?["']([^"']+)["']""", text):
        assert name.startswith("."), f"{name} would need an import map"
        target = (script.parent / name).resolve()
        assert target.is_file() or target.with_suffix(".d.ts").is_file(), name  # types are named as if compiled
    if script.parent.name != "vendor":
        assert len(text.splitlines()) <= MAX_LINES
        for banned in ("innerHTML", "insertAdjacentHTML", "eval(", "new Function", "document.write"):
            assert banned not in text


@pytest.mark.parametrize("style", sorted(PAGES.rglob("*.css")), ids=lambda path: path.name)
def test_a_style_asks_nobody(style: Path) -> None:
    assert not re.findall(r"@import|url\(", style.read_text(encoding="utf-8"))


def test_every_vendored_file_has_its_licence() -> None:
    told = (PAGES / "vendor" / "README.md").read_text(encoding="utf-8")
    for script in (PAGES / "vendor").glob("*.js"):
        assert script.name in told
    for name in re.findall(r"LICENSE\.\w+", told):
        assert (PAGES / "vendor" / name).stat().st_size > 500
