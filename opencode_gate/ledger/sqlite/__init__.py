"""The ledger in one SQLite file: the default engine."""

from opencode_gate.ledger.sqlite.store import SqliteStore, open_store

__all__ = ["SqliteStore", "open_store"]
