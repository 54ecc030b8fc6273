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
CREATE TRIGGER keep AFTER UPDATE ON documents BEGIN
    INSERT INTO history (name, value) VALUES (OLD.name, OLD.value);
    DELETE FROM history WHERE name = OLD.name AND id <= (
        SELECT id FROM history WHERE name = OLD.name ORDER BY id DESC LIMIT 1 OFFSET 5
    );
END;
"""
"""Keeps five earlier versions of a document, as Seline does by default."""
SAVE: Final = (
    "INSERT INTO documents VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
SET_FIELDS: Final = "UPDATE documents SET value = json_patch(value, ?) WHERE name = ?"


class SqliteDocuments:
    """JSON documents as rows of one file. One thread at a time may use it."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.executescript(SCHEMA)
        self.close = self.connection.close

    def save(self, documents: Mapping[str, object]) -> None:
        """Save documents in one transaction."""
        self.connection.execute("BEGIN IMMEDIATE")
        rows = [(name, json.dumps(value)) for name, value in documents.items()]
        self.connection.executemany(SAVE, rows)
        self.connection.execute("COMMIT")

    def set_fields(self, name: str, fields: Mapping[str, object]) -> None:
        """Set fields of a document."""
        self.connection.execute(SET_FIELDS, (json.dumps(fields), name))
