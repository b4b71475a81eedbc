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
from roomkit.ports.channel import VaultPort


@dataclass(frozen=True, slots=True)
class Change:
    """A tool that waits for approval: new (`old` is None), or no longer what was pinned."""

    tool: str
    old: str | None
    new: str
    description: str


class Pins:
    """Fingerprints of accepted tools: in a JSON file, or in the store of the kit whose channel uses them.

    `trust_new` accepts a tool seen for the first time (the default); without it each one needs `approve`. With neither
    a `path` nor a durable store, every tool is new again after a restart, and one that was changed meanwhile is trusted
    as it is then.
    """

    def __init__(self, path: Path | str | None = None, *, trust_new: bool = True) -> None:
        self._path = Path(path) if path is not None else None
        self._trust_new = trust_new
        self._pinned: dict[str, str] = {}
        self._changes: dict[str, Change] = {}
        self._loaded = False
        self._vault: tuple[VaultPort, str] | None = None
        self._unsaved = False

    def keep_in(self, vault: VaultPort, name: str) -> None:
        """Remembers what is pinned there, unless there is a file."""
        if self._path is None and self._vault is None:
            self._vault = (vault, f"pins of {name}")

    async def load(self) -> None:
        """Reads what was pinned before; once."""
        if self._vault is not None and not self._loaded:
            vault, name = self._vault
            self._pinned = {**(await vault.get(name) or {}), **self._pinned}
            self._loaded = True

    async def save(self) -> None:
        """Keeps what was pinned or approved since, in the store. A file is written at once."""
        if self._vault is not None and self._unsaved:
            vault, name = self._vault
            self._unsaved = False
            try:
                await vault.put(name, self._pinned)
            except BaseException:
                self._unsaved = True
                raise

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
        """Accepts the change of this tool as it stands now; `save` or the next reply makes that durable in a store.
        Raises `KeyError` when nothing waits."""
        self._pinned[tool] = self._changes.pop(tool).new
        self._save()

    def _load(self) -> None:
        if self._path is None or self._loaded:
            return
        if self._path.exists():
            try:
                self._pinned = {str(k): str(v) for k, v in json.loads(self._path.read_text(encoding="utf-8")).items()}
            except (ValueError, AttributeError) as error:
                raise ConfigError(f"the pins in {self._path} cannot be read ({error}); restore the file") from None
        self._loaded = True

    def _save(self) -> None:
        self._unsaved = True
        if self._path is not None:
            draft = self._path.with_name(f"{self._path.name}.new")
            draft.write_text(json.dumps(self._pinned, indent=1, sort_keys=True), encoding="utf-8")
            draft.replace(self._path)


def fingerprint(spec: ToolSpec) -> str:
    """Of everything that a model reads of a tool."""
    told = json.dumps([spec.name, spec.description, spec.parameters], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
