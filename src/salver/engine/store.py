"""The local engine's key-value store: SQLite in WAL mode, synced before it answers."""

import sqlite3
from pathlib import Path

from salver.engine.base import KeyValueStore


class SqliteStore(KeyValueStore):
    """A key-value store in one file.

    Args:
        path: The database file; made when it does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL)")

    def get(self, key: str) -> bytes | None:
        """Return the value saved last, or None."""
        row = self._database.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, key: str, value: bytes) -> None:
        """Save a value."""
        self._database.execute("INSERT OR REPLACE INTO entries (key, value) VALUES (?, ?)", (key, value))

    def delete(self, key: str) -> None:
        """Forget a key."""
        self._database.execute("DELETE FROM entries WHERE key = ?", (key,))

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that start with a prefix, sorted."""
        rows = self._database.execute("SELECT key FROM entries ORDER BY key")
        return [key for (key,) in rows if key.startswith(prefix)]

    def close(self) -> None:
        """Close the file."""
        self._database.close()
