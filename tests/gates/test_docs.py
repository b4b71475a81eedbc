"""What the documentation shows is true: its Python runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.gates.pages import SHELLS, Block, blocks, commands, run
from tests.gates.tree import ROOT, tracked

PAGES = tracked("*.md")
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:|#)(?P<target>[^)#\s]+)(?:#[^)]*)?\)")
NAMED_TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def all_blocks() -> list[tuple[str, Block]]:
    return [(name, block) for name, page in zip(NAMES, PAGES, strict=True) for block in blocks(page.read_text("utf-8"))]


RUN = sorted({name for name, block in all_blocks() if block.language == "python" and not block.untested})
COMMANDS = sorted(
    {(name, tuple(words)) for name, block in all_blocks() if block.language in SHELLS for words in commands(block)}
)


def clean_environment() -> dict[str, str]:
    """No key of a vendor's and no setting of ours reaches a page or an example."""
    secret = re.compile(r"(_API_KEY|_TOKEN|_SECRET|_SID)$|^ROOMKIT_")
    kept = {name: value for name, value in os.environ.items() if not secret.search(name)}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


@pytest.mark.parametrize("name", RUN)
def test_python_blocks_run(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gates.pages", str(ROOT / name)]
    ran = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=50, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_block_that_does_not_run_says_why() -> None:
    """```python notest takes `<!-- notest: why -->` on the line before."""
    assert not [f"{name}:{block.line}" for name, block in all_blocks() if block.untested and not block.reason]


@cache
def help_of(*command: str) -> str:
    shell = {**clean_environment(), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    del shell["PYTHONWARNINGS"]
    ran = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=ROOT,
        env=shell,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, f"{' '.join(command)} --help: {ran.stdout}{ran.stderr}"
    return ran.stdout


@pytest.mark.parametrize(
    "name, words", COMMANDS, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_commands_exist(name: str, words: tuple[str, ...]) -> None:
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
        assert {word for word in words[1:] if "=" not in word} <= targets
        return
    module, rest = ("roomkit.cli", words[1:]) if words[0] == "roomkit" else (words[2], words[3:])
    if module.split(".")[0] not in {"roomkit", "benchmarks", "proofs", "tests"}:
        return
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} does not exist yet")
    command = ["-m", module]
    if module == "roomkit.cli":
        command = ["-c", "import sys; sys.argv[0] = 'roomkit'; from roomkit.cli import main; main()"]
        command += [word for word in rest[:1] if not word.startswith("-")]
    text = help_of(*command)
    options = {word.split("=")[0] for word in rest if word.startswith("--")} - {"--help"}
    assert not {option for option in options if option not in text}, text


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text("utf-8"), flags=re.DOTALL)
    targets = [match["target"] for match in LINK.finditer(text)]
    assert not [target for target in targets if not (ROOT / name).parent.joinpath(target).exists()]


@pytest.mark.parametrize("name", NAMES)
def test_tests_that_prove_a_promise_exist(name: str) -> None:
    named = NAMED_TEST.findall((ROOT / name).read_text("utf-8"))
    sources = {path: (ROOT / path).read_text("utf-8") for path, _ in named if (ROOT / path).exists()}
    assert not [f"{path}::{test}" for path, test in named if f"def {test}(" not in sources.get(path, "")]


def test_every_page_is_in_the_navigation() -> None:
    """`make docs` is strict about it as well, but takes longer."""
    listed = set(re.findall(r"[\w./-]+\.md\b", (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]))
    assert listed == {name.removeprefix("docs/") for name in NAMES if name.startswith("docs/")}


PAGE = """
```python
x = 1
```
<!-- notest: needs a phone -->
```python notest
call()
```
```console
$ roomkit demo --check
roomkit is what it prints
$ TOKEN=1 make demo  # a comment
```
    ```python
    assert x == 1
    await asyncio.sleep(0)
    ```
"""


def test_blocks_are_found_and_run_in_one_namespace(tmp_path: Path) -> None:
    found = list(blocks(PAGE))
    assert [(block.language, block.line, block.untested, block.reason) for block in found] == [
        ("python", 3, False, False),
        ("python", 7, True, True),
        ("console", 10, False, False),
        ("python", 15, False, False),
    ]
    assert list(commands(found[2])) == [["roomkit", "demo", "--check"], ["make", "demo"]]
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("x = 1\n", "import asyncio\nx = 1\n"))
    assert run(page) == 2
    page.write_text(PAGE.replace("x = 1\n", "import asyncio\nx = 2\n"))
    with pytest.raises(AssertionError):
        run(page)
