"""Pins: what a tool said it does when it was accepted. A tool that says something else is not offered until approved.

A server that changes a description changes what the model is told to do; that is a decision of the host's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from roomkit.errors import ConfigError
from roomkit.models.ai import ToolSpec


@dataclass(frozen=True, slots=True)
class Change:
    """A tool that waits for approval: new (`old` is None), or no longer what was pinned."""

    tool: str
    old: str | None
    new: str
    description: str


class Pins:
    """Fingerprints of accepted tools, in memory or in a JSON file that outlives the process.

    `trust_new` accepts a tool seen for the first time (the default); without it each one needs `approve`. Without a
    `path` nothing outlives the process: after a restart every tool is new again, and one that was changed meanwhile is
    trusted as it is then. In production give a path, or `trust_new=False`.
    """

    def __init__(self, path: Path | str | None = None, *, trust_new: bool = True) -> None:
        self._path = Path(path) if path is not None else None
        self._trust_new = trust_new
        self._pinned: dict[str, str] = {}
        self._changes: dict[str, Change] = {}
        self._loaded = self._path is None

    @property
    def changes(self) -> tuple[Change, ...]:
        """What waits for approval."""
        return tuple(self._changes.values())

    def accepts(self, spec: ToolSpec) -> bool:
        """True when this tool is what was pinned, or new and trusted; otherwise it waits in `changes`."""
        self._load()
        mark, pinned = fingerprint(spec), self._pinned.get(spec.name)
        if pinned is None and self._trust_new:
            self._pinned[spec.name] = pinned = mark
            self._save()
        if pinned == mark:
            self._changes.pop(spec.name, None)
            return True
        self._changes[spec.name] = Change(spec.name, pinned, mark, spec.description)
        return False

    def approve(self, tool: str) -> None:
        """Accepts the change of this tool as it stands now. Raises `KeyError` when nothing waits."""
        self._pinned[tool] = self._changes.pop(tool).new
        self._save()

    def _load(self) -> None:
        if self._loaded or self._path is None:
            return
        if self._path.exists():
            try:
                self._pinned = {str(k): str(v) for k, v in json.loads(self._path.read_text(encoding="utf-8")).items()}
            except (ValueError, AttributeError) as error:
                raise ConfigError(f"the pins in {self._path} cannot be read ({error}); restore the file") from None
        self._loaded = True

    def _save(self) -> None:
        if self._path is not None:
            draft = self._path.with_name(f"{self._path.name}.new")
            draft.write_text(json.dumps(self._pinned, indent=1, sort_keys=True), encoding="utf-8")
            draft.replace(self._path)


def fingerprint(spec: ToolSpec) -> str:
    """Of everything that a model reads of a tool."""
    told = json.dumps([spec.name, spec.description, spec.parameters], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
