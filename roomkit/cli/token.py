"""`roomkit token`: a signed token for a person or a machine, made with the program's own secrets."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from roomkit.cli.target import load_kit
from roomkit.errors import RoomKitError


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """`ttl_s` in seconds."""

    target: str
    role: str
    room: str | None
    id: str | None
    name: str | None
    tenant: str
    ttl_s: float


def make_token(options: TokenOptions) -> int:
    """Prints the token alone, so that it can be piped."""
    try:
        tokens = load_kit(options.target).tokens
        if tokens.ephemeral:
            print(
                "roomkit: this program has no token secret, so a token made here is worthless there; "
                "give RoomKit(token_secrets=[...])",
                file=sys.stderr,
            )
            return 1
        token = tokens.mint(
            options.role,
            options.room,
            options.ttl_s,
            id=options.id,
            tenant=options.tenant,
            display_name=options.name,
        )
    except RoomKitError as error:
        print(f"roomkit: {error}", file=sys.stderr)
        return 2
    print(token)
    return 0
