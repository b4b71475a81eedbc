"""Who is asking, and what they may do (D31, D34)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from roomkit.models.content import Frozen


class PrincipalRole(StrEnum):
    GUEST = "guest"
    AGENT = "agent"
    SUPERVISOR = "supervisor"
    ADMIN = "admin"


class Principal(Frozen):
    """An authenticated caller. A guest is bound to `room_id`; `expires_at` and `renewable_until` (to which its
    token can be renewed at most) are Unix times in seconds."""

    id: str
    role: PrincipalRole
    tenant: str = "default"
    room_id: str | None = None
    display_name: str | None = None
    expires_at: float | None = None
    renewable_until: float | None = None
    token_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def sees_internal(self) -> bool:
        """Agents, supervisors and admins read the whole log; a guest reads what its channel may see."""
        return self.role in (PrincipalRole.SUPERVISOR, PrincipalRole.ADMIN, PrincipalRole.AGENT)
