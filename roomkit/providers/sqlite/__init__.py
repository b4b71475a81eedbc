"""The durable store of one machine: one file, no server."""

from roomkit.providers.sqlite.store import SQLiteOptions, SQLiteStore

__all__ = ["SQLiteOptions", "SQLiteStore"]
