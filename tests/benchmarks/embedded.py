"""The peers that run in the process of the bot: SQLite, LMDB, diskcache, TinyDB, and plain files.

What blocks is called in the event loop, which is the fastest way to use it.
"""

import asyncio
import contextlib
import json
import os
import platform
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from seline.bench.sqlite import SAVE, SCHEMA, SET_FIELDS, SqliteDocuments
from tests.benchmarks.peers import KEPT, Fields, Peer, WithoutQueue, decode, encode

APPEND: Final = (
    "UPDATE documents SET value = json_insert(value, '$.items[#]', json(?)) WHERE name = ?"
)
BLOCK_BYTES: Final = 4096
WRITTEN_BYTES: Final = 16 << 20


class SqlitePeer(Peer):
    """The standard library's sqlite3."""

    title = "sqlite3"
    remark = (
        "WAL, `synchronous=FULL`; a trigger keeps the replaced version; JSON in one row, "
        "`json_patch` for fields, `json_insert` for an item"
    )
    blocks = True
    _documents: SqliteDocuments

    def version(self) -> str:
        return sqlite3.sqlite_version

    async def open(self, folder: Path) -> None:
        self._documents = SqliteDocuments(str(folder / "documents"))

    async def close(self) -> None:
        self._documents.close()

    async def save(self, documents: Mapping[str, Fields]) -> None:
        self._documents.save(documents)

    async def set_fields(self, name: str, fields: Fields) -> None:
        if len(fields) == 1:
            self._documents.set_fields(name, fields)
            return
        connection = self._documents.connection
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(SET_FIELDS, _patches(name, fields))
        connection.execute("COMMIT")

    async def append(self, name: str, item: Fields) -> None:
        self._documents.connection.execute(APPEND, (json.dumps(item), name))

    async def load(self, name: str) -> Any:
        found = self._documents.connection.execute(
            "SELECT value FROM documents WHERE name = ?", (name,)
        )
        return decode(found.fetchone()[0])


def _patches(name: str, fields: Fields) -> list[tuple[str, str]]:
    return [(json.dumps({field: value}), name) for field, value in fields.items()]


class AiosqlitePeer(Peer):
    """sqlite3 in a thread of its own."""

    title = "aiosqlite"
    package = "aiosqlite"
    remark = "sqlite3 as above, in its own thread"

    async def open(self, folder: Path) -> None:
        import aiosqlite

        self._connection = await aiosqlite.connect(folder / "documents", isolation_level=None)
        await self._connection.executescript(SCHEMA)

    async def close(self) -> None:
        await self._connection.close()

    async def save(self, documents: Mapping[str, Fields]) -> None:
        rows = [(name, json.dumps(value)) for name, value in documents.items()]
        if len(rows) == 1:
            await self._connection.execute(SAVE, rows[0])
            return
        await self._connection.execute("BEGIN IMMEDIATE")
        await self._connection.executemany(SAVE, rows)
        await self._connection.execute("COMMIT")

    async def set_fields(self, name: str, fields: Fields) -> None:
        if len(fields) == 1:
            await self._connection.execute(SET_FIELDS, _patches(name, fields)[0])
            return
        await self._connection.execute("BEGIN IMMEDIATE")
        await self._connection.executemany(SET_FIELDS, _patches(name, fields))
        await self._connection.execute("COMMIT")

    async def append(self, name: str, item: Fields) -> None:
        await self._connection.execute(APPEND, (json.dumps(item), name))

    async def load(self, name: str) -> Any:
        query = "SELECT value FROM documents WHERE name = ?"
        async with self._connection.execute(query, (name,)) as found:
            row = await found.fetchone()
        return decode(row[0])  # type: ignore[index]


class AiosqliteWithoutQueue(WithoutQueue, AiosqlitePeer):
    """aiosqlite as most bots use it."""

    title = "aiosqlite, without the queue"
    remark = "each task makes its own transaction, one after the other"


class AiosqliteItems(AiosqlitePeer):
    """A list as a table: not a document any more, but what SQL is made for."""

    title = "aiosqlite, a row for each item"
    remark = "the list is a table, one row for each item; earlier rows are never changed"
    only = "append"

    async def save_list(self, name: str, items: list[Fields]) -> None:
        await self._connection.executescript(
            "DROP TABLE IF EXISTS items; CREATE TABLE items (id INTEGER PRIMARY KEY, value TEXT);"
        )
        await self._connection.execute("BEGIN")
        rows = [(json.dumps(item),) for item in items]
        await self._connection.executemany("INSERT INTO items (value) VALUES (?)", rows)
        await self._connection.execute("COMMIT")

    async def append(self, name: str, item: Fields) -> None:
        query = "INSERT INTO items (value) VALUES (?)"
        await self._connection.execute(query, (json.dumps(item),))


class _KeyValuePeer(Peer):
    """Documents as encoded values, with a ring of earlier ones; for a store of keys and values."""

    blocks = True

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        raise NotImplementedError

    def _get(self, key: str) -> bytes | None:
        raise NotImplementedError

    def _put(self, key: str, value: bytes) -> None:
        raise NotImplementedError

    async def save(self, documents: Mapping[str, Fields]) -> None:
        with self._transaction():
            for name, value in documents.items():
                self._replace(name, self._get(name), encode(value))

    async def set_fields(self, name: str, fields: Fields) -> None:
        with self._transaction():
            for field, value in fields.items():
                before = self._get(name)
                self._replace(name, before, encode({**decode(before or b"{}"), field: value}))

    async def append(self, name: str, item: Fields) -> None:
        with self._transaction():
            before = self._get(name)
            value = decode(before or b"{}")
            value["items"].append(item)
            self._replace(name, before, encode(value))

    async def load(self, name: str) -> Any:
        with self._transaction():
            return decode(self._get(name) or b"")

    def _replace(self, name: str, before: bytes | None, after: bytes) -> None:
        if before is not None:
            number = int(self._get(f"{name}/last") or b"0") + 1
            self._put(f"{name}/{number % KEPT}", before)
            self._put(f"{name}/last", b"%d" % number)
        self._put(name, after)


class LmdbPeer(_KeyValuePeer):
    """LMDB, a key for each document."""

    title = "LMDB"
    package = "lmdb"
    remark = "`sync=True`; encoded with msgspec; a change of a field or a list decodes the document"
    _write: Any

    async def open(self, folder: Path) -> None:
        import lmdb

        self._environment = lmdb.open(str(folder), map_size=1 << 30)

    async def close(self) -> None:
        self._environment.close()

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        with self._environment.begin(write=True) as self._write:
            yield

    def _get(self, key: str) -> bytes | None:
        return self._write.get(key.encode())  # type: ignore[no-any-return]

    def _put(self, key: str, value: bytes) -> None:
        self._write.put(key.encode(), value)

    async def load(self, name: str) -> Any:
        with self._environment.begin(buffers=True) as transaction:
            return decode(transaction.get(name.encode()))


class DiskcachePeer(_KeyValuePeer):
    """diskcache, which keeps its values in SQLite."""

    title = "diskcache"
    package = "diskcache"
    remark = (
        "`sqlite_synchronous=2`, no eviction, and every value in its database: a value in a file "
        "of its own, the default from 32 KiB on, is not synced"
    )

    async def open(self, folder: Path) -> None:
        import diskcache

        self._cache = diskcache.Cache(
            str(folder),
            sqlite_synchronous=2,
            disk_min_file_size=1 << 30,
            eviction_policy="none",
            cull_limit=0,
        )

    async def close(self) -> None:
        self._cache.close()

    def _transaction(self) -> Any:
        return self._cache.transact()

    def _get(self, key: str) -> bytes | None:
        return self._cache.get(key)  # type: ignore[no-any-return]

    def _put(self, key: str, value: bytes) -> None:
        self._cache.set(key, value)

    async def load(self, name: str) -> Any:
        return decode(self._cache[name])


class TinydbPeer(Peer):
    """TinyDB, one JSON file that is written whole at each change."""

    title = "TinyDB"
    package = "tinydb"
    remark = (
        "writes its whole file in place and syncs it: a power cut in a write can destroy all of "
        "it, so it is not ranked"
    )
    blocks = True
    ranked = False

    async def open(self, folder: Path) -> None:
        from tinydb import TinyDB

        self._database = TinyDB(folder / "documents.json")
        self._ids: dict[str, int] = {}

    async def close(self) -> None:
        self._database.close()

    async def save(self, documents: Mapping[str, Fields]) -> None:
        new = [name for name in documents if name not in self._ids]
        if new:
            rows = [{"name": name, "value": documents[name], "earlier": []} for name in new]
            self._ids |= dict(zip(new, self._database.insert_multiple(rows), strict=True))
        self._update({name: value for name, value in documents.items() if name not in new})

    async def set_fields(self, name: str, fields: Fields) -> None:
        self._update({name: {**self._value(name), **fields}})

    async def append(self, name: str, item: Fields) -> None:
        self._update({name: {"items": [*self._value(name)["items"], item]}})

    async def load(self, name: str) -> Any:
        return self._value(name)

    def _value(self, name: str) -> Any:
        return self._database.get(doc_id=self._ids[name])["value"]  # type: ignore[index,call-overload]

    def _update(self, documents: Mapping[str, Fields]) -> None:
        def replace(row: Any) -> None:
            row["earlier"] = [row["value"], *row["earlier"]][:KEPT]
            row["value"] = documents[row["name"]]

        if documents:
            self._database.update(replace, doc_ids=[self._ids[name] for name in documents])


class RawFiles(Peer):
    """The system calls of a durable file without any store."""

    title = "a new file for each save"
    remark = (
        "write, fsync, link the old file, rename, fsync both directories; fields that are set "
        "together are one file. No store at all, so it is not ranked"
    )
    blocks = True
    ranked = False

    def version(self) -> str:
        return f"Linux {os.uname().release.partition('-')[0]}"

    async def open(self, folder: Path) -> None:
        (folder / "earlier").mkdir()
        self._top = os.open(folder, os.O_RDONLY)
        self._earlier = os.open(folder / "earlier", os.O_RDONLY)
        self._number = 0

    async def close(self) -> None:
        os.close(self._top)
        os.close(self._earlier)

    async def save(self, documents: Mapping[str, Fields]) -> None:
        for name, value in documents.items():
            self._write(name, encode(value))
        os.fsync(self._earlier)
        os.fsync(self._top)

    async def set_fields(self, name: str, fields: Fields) -> None:
        await self.save({name: {**await self.load(name), **fields}})

    async def append(self, name: str, item: Fields) -> None:
        await self.save({name: {"items": [*(await self.load(name))["items"], item]}})

    async def load(self, name: str) -> Any:
        with open(os.open(name, os.O_RDONLY, dir_fd=self._top), "rb") as file:
            return decode(file.read())

    def _write(self, name: str, content: bytes) -> None:
        file = os.open("new", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=self._top)
        os.write(file, content)
        os.fsync(file)
        os.close(file)
        self._number += 1
        earlier = f"{name}-{self._number % KEPT}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(earlier, dir_fd=self._earlier)
        with contextlib.suppress(FileNotFoundError):
            os.link(name, earlier, src_dir_fd=self._top, dst_dir_fd=self._earlier)
        os.rename("new", name, src_dir_fd=self._top, dst_dir_fd=self._top)


class OneThread(Peer):
    """What any store needs that leaves the event loop free: a thread, one write, and one flush."""

    title = "one thread, without a store"
    remark = (
        "the change, encoded, is written over blocks of one file and synced by a thread of an "
        "executor: the least for a store that leaves the event loop free. Not ranked"
    )
    ranked = False

    def version(self) -> str:
        return f"Python {platform.python_version()}"

    async def open(self, folder: Path) -> None:
        self._file = os.open(folder / "file", os.O_RDWR | os.O_CREAT, 0o600)
        os.write(self._file, bytes(WRITTEN_BYTES))
        os.fsync(self._file)
        self._end = 0
        self._thread = ThreadPoolExecutor(1)
        self._documents: dict[str, Any] = {}

    async def close(self) -> None:
        self._thread.shutdown()
        os.close(self._file)

    async def save(self, documents: Mapping[str, Fields]) -> None:
        await self._write(encode(documents))
        self._documents.update(documents)

    async def set_fields(self, name: str, fields: Fields) -> None:
        await self._write(encode(fields))
        self._documents[name] = {**self._documents[name], **fields}

    async def append(self, name: str, item: Fields) -> None:
        await self._write(encode(item))
        self._documents[name]["items"].append(item)

    async def load(self, name: str) -> Any:
        return self._documents[name]

    async def _write(self, change: bytes) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._sync, change)

    def _sync(self, change: bytes) -> None:
        size_bytes = -(-len(change) // BLOCK_BYTES) * BLOCK_BYTES
        if self._end + size_bytes > WRITTEN_BYTES:
            self._end = 0
        os.pwrite(self._file, change.ljust(size_bytes, b"\0"), self._end)
        os.fdatasync(self._file)
        self._end += size_bytes
