"""Every example runs to its end, with no key and no network; one named *_live.py needs them and is only compiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gates.test_docs import clean_environment
from tests.gates.tree import ROOT

EXAMPLES = [path.name for path in sorted((ROOT / "examples").glob("*.py"))]


def run_example(path: Path, folder: Path) -> None:
    if path.stem.endswith("_live"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
        return
    ran = subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.strip(), "an example shows something"


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path) -> None:
    run_example(ROOT / "examples" / name, tmp_path)


def test_a_failing_example_is_noticed(tmp_path: Path) -> None:
    example, live = tmp_path / "one.py", tmp_path / "one_live.py"
    example.write_text("print('hello'); raise SystemExit(3)")
    live.write_text("def f(:")
    with pytest.raises(AssertionError):
        run_example(example, tmp_path)
    with pytest.raises(SyntaxError):
        run_example(live, tmp_path)
