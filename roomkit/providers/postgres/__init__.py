"""The durable store of several machines: PostgreSQL. Needs the [postgres] extra."""

from roomkit.errors import MissingExtra

try:
    import asyncpg as _asyncpg  # pyright: ignore[reportMissingTypeStubs]
except ModuleNotFoundError as error:
    raise MissingExtra("the PostgreSQL store", "asyncpg", "postgres") from error

from roomkit.providers.postgres.leases import PostgresOwnership
from roomkit.providers.postgres.link import PostgresOptions
from roomkit.providers.postgres.store import PostgresStore

__all__ = ["PostgresOptions", "PostgresOwnership", "PostgresStore"]

del _asyncpg
