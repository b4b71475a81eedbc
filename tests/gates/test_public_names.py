"""The front door: at most 60 names, pinned, each of them real and loaded only when asked for.

After a deliberate change: `python -m tests.gates.test_public_names` writes the pin again.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.gates.tree import ROOT

PIN = ROOT / "tests" / "golden" / "public_names.txt"
pytestmark = pytest.mark.skipif(
    not (ROOT / "roomkit" / "__init__.py").exists(), reason="roomkit/__init__.py does not exist yet"
)


def public() -> list[str]:
    import roomkit

    return sorted(roomkit.__all__)


def there(name: str) -> bool:
    import roomkit

    try:
        return hasattr(roomkit, name)
    except ModuleNotFoundError:
        return False


def test_the_front_door_is_short() -> None:
    assert len(public()) == len(set(public())) <= 60


def test_the_front_door_is_pinned() -> None:
    pinned = PIN.read_text(encoding="utf-8").split() if PIN.exists() else []
    new, gone = sorted(set(public()) - set(pinned)), sorted(set(pinned) - set(public()))
    assert public() == pinned, f"new: {new}, gone: {gone}; if meant, run: python -m tests.gates.test_public_names"


def test_every_public_name_is_there() -> None:
    import roomkit

    assert [name for name in public() if not there(name)] == []
    assert set(public()) <= set(dir(roomkit)), "an editor completes from dir()"
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = roomkit.NoSuchName


def test_names_are_loaded_on_use() -> None:
    code = "import roomkit, sys; print(*[m for m in sys.modules if m.startswith('roomkit.')])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert not {"roomkit.kit", "roomkit.core", "roomkit.channels"} & set(ran.stdout.split()), ran.stdout


if __name__ == "__main__":
    PIN.parent.mkdir(exist_ok=True)
    PIN.write_text("\n".join(public()) + "\n", encoding="utf-8")
    print(f"{PIN.relative_to(ROOT)}: {len(public())} names")
