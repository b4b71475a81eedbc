"""Which tools may run, for whom. Deny wins; what cannot be decided is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from roomkit.models.room import Assurance

ANYBODY_ELSE = "*"


@dataclass(frozen=True, slots=True)
class RoleOverride:
    """`restrict`: denied more, allowed at most what both allow. `replace`: only these lists count for the role."""

    mode: Literal["restrict", "replace"] = "restrict"
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """Globs over tool names. A non-empty `allow` is a white list; `deny` always wins.

    `roles` maps a participant's role ("member", "agent" ...) to an override; "*" stands for every role without one,
    "unknown" for senders who are no participants. `assurance` maps globs to how sure we must be of everybody in the
    room before such a tool runs (D30)."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    roles: Mapping[str, RoleOverride] = field(default_factory=lambda: {})
    assurance: Mapping[str, Assurance] = field(default_factory=lambda: {})

    def refusal(self, name: str, roles: Iterable[str] = (), assurance: Assurance | None = None) -> str | None:
        """Why `name` may not run for senders of these `roles` (all must be allowed), or None when it may."""
        for role in tuple(roles) or ("unknown",):
            if not self._allows(name, role):
                return f'the policy does not allow the tool "{name}" here'
        for glob, needed in self.assurance.items():
            if fnmatchcase(name, glob) and (assurance is None or assurance.rank < needed.rank):
                return f'the tool "{name}" needs everybody in the room to be {needed.value}'
        return None

    def _allows(self, name: str, role: str) -> bool:
        override = self.roles.get(role) or self.roles.get(ANYBODY_ELSE)
        if override is not None and override.mode == "replace":
            return _passes(name, override.allow, override.deny)
        if not _passes(name, self.allow, self.deny):
            return False
        return override is None or _passes(name, override.allow, override.deny)


def _passes(name: str, allow: tuple[str, ...], deny: tuple[str, ...]) -> bool:
    if any(fnmatchcase(name, glob) for glob in deny):
        return False
    return not allow or any(fnmatchcase(name, glob) for glob in allow)
