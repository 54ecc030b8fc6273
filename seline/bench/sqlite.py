"""The same durable work in sqlite3: WAL, FULL, earlier versions kept in the same transaction."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Final

SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE documents (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE history (id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL);
CREATE INDEX history_of ON history (name, id);
"""
KEEP: Final = (
    "INSERT INTO history (name, value) SELECT name, value FROM documents WHERE name = :name"
)
PRUNE: Final = (
    "DELETE FROM history WHERE name = :name AND id <= (SELECT id FROM history WHERE name = :name "
    "ORDER BY id DESC LIMIT 1 OFFSET 5)"
)
"""Keeps five earlier versions of a document, as Seline does by default."""
SAVE: Final = (
    "INSERT INTO documents VALUES (:name, :value) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
SET_FIELD: Final = (
    "UPDATE documents SET value = json_set(value, '$.' || :field, json(:value)) WHERE name = :name"
)


class SqliteDocuments:
    """JSON documents as rows of one file. One thread at a time may use it."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.executescript(SCHEMA)
        self.close = self._connection.close

    def save(self, documents: Mapping[str, object]) -> None:
        """Save documents in one transaction."""
        self._commit(SAVE, [{"name": name, "value": value} for name, value in documents.items()])

    def set_field(self, name: str, field: str, value: object) -> None:
        """Set one field of a document."""
        self._commit(SET_FIELD, [{"name": name, "field": field, "value": value}])

    def _commit(self, change: str, rows: list[dict[str, object]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for statement in (KEEP, PRUNE):
            self._connection.executemany(statement, rows)
        rows = [row | {"value": json.dumps(row["value"])} for row in rows]
        self._connection.executemany(change, rows)
        self._connection.execute("COMMIT")
