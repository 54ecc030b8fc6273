"""Redis and PostgreSQL as peers: started for the benchmark on a Unix socket, and stopped by pid."""

import asyncio
import getpass
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.peers import KEPT, Fields, Peer, WithoutQueue, decode, encode

START_S: Final = 30.0
POSTGRES: Final = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
KEEP: Final = f"redis.call('LTRIM', KEYS[2], 0, {KEPT - 1})"
SAVE: Final = f"""
local old = redis.call('GET', KEYS[1])
if old then redis.call('LPUSH', KEYS[2], old) {KEEP} end
redis.call('SET', KEYS[1], ARGV[1])
"""
SET_FIELD: Final = f"""
local undo = {{ARGV[1], redis.call('HGET', KEYS[1], ARGV[1])}}
redis.call('LPUSH', KEYS[2], cjson.encode(undo)) {KEEP}
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""
APPEND: Final = f"""
redis.call('LPUSH', KEYS[2], redis.call('RPUSH', KEYS[1], ARGV[1])) {KEEP}
"""
SCHEMA: Final = f"""
CREATE TABLE documents (name text PRIMARY KEY, value jsonb NOT NULL);
CREATE TABLE history (id bigserial PRIMARY KEY, name text NOT NULL, value jsonb NOT NULL);
CREATE INDEX history_of ON history (name, id);
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO history (name, value) VALUES (OLD.name, OLD.value);
    DELETE FROM history WHERE name = OLD.name AND id <= (
        SELECT id FROM history WHERE name = OLD.name ORDER BY id DESC LIMIT 1 OFFSET {KEPT}
    );
    RETURN NULL;
END $$;
CREATE TRIGGER keep AFTER UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION keep();
"""
PG_SAVE: Final = (
    "INSERT INTO documents VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
PG_SET_FIELD: Final = "UPDATE documents SET value = value || $2 WHERE name = $1"
PG_APPEND: Final = (
    "UPDATE documents SET value = jsonb_insert(value, '{items,-1}', $2, true) WHERE name = $1"
)


def _program(name: str, *folders: Path) -> str:
    """Return the path of a program, empty if it is not installed."""
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"], "/usr/sbin"])
    return shutil.which(name, path=path) or ""


async def _until(answers: Callable[[], Awaitable[Any]], process: subprocess.Popen[bytes]) -> Any:
    """Return what a server answers once it does."""
    until = time.monotonic() + START_S
    while True:
        try:
            return await answers()
        except Exception:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < until, "the server does not answer"
            await asyncio.sleep(0.05)


class RedisPeer(Peer):
    """Redis, where the log is synced before each answer."""

    title = "Redis"
    package = "redis"
    remark = (
        "`appendfsync always`, by redis-py with hiredis; a script keeps what it replaces: 1 KiB is "
        "a string, the fields are a hash with the old values as the earlier version, the list is a "
        "list with its length before"
    )

    @classmethod
    def lacks(cls) -> str:
        return super().lacks() or ("" if _program("redis-server") else "redis-server")

    def version(self) -> str:
        shown = subprocess.run(["redis-server", "--version"], capture_output=True, check=True)
        return f"{shown.stdout.decode().split('v=')[1].split()[0]}, redis-py {super().version()}"

    async def open(self, folder: Path) -> None:
        import redis.asyncio

        options = {
            "port": "0", "unixsocket": "redis.sock", "appendonly": "yes",
            "appendfsync": "always", "save": "", "dir": str(folder),
        }  # fmt: skip
        given = [text for name, value in options.items() for text in (f"--{name}", value)]
        self._process = subprocess.Popen(
            ["redis-server", *given], stdout=subprocess.DEVNULL, cwd=folder
        )
        self._redis = redis.asyncio.Redis(unix_socket_path=str(folder / "redis.sock"))
        await _until(self._redis.ping, self._process)
        scripts = (SAVE, SET_FIELD, APPEND)
        self._save, self._set, self._append = [await self._redis.script_load(s) for s in scripts]

    async def close(self) -> None:
        await self._redis.aclose()
        self._process.terminate()
        self._process.wait(START_S)

    async def save(self, documents: Mapping[str, Fields]) -> None:
        await self._run([(self._save, name, encode(value)) for name, value in documents.items()])

    async def set_fields(self, name: str, fields: Fields) -> None:
        await self._run(
            [(self._set, name, field, encode(value)) for field, value in fields.items()]
        )

    async def append(self, name: str, item: Fields) -> None:
        await self._run([(self._append, name, encode(item))])

    async def _run(self, scripts: list[tuple[Any, ...]]) -> None:
        """Run a script, or several in one transaction: its digest, the key, and the arguments."""
        if len(scripts) == 1:
            digest, key, *given = scripts[0]
            await self._redis.evalsha(digest, 2, key, f"{key}/earlier", *given)
            return
        pipeline = self._redis.pipeline(transaction=True)
        for digest, key, *given in scripts:
            pipeline.evalsha(digest, 2, key, f"{key}/earlier", *given)
        await pipeline.execute()

    async def load(self, name: str) -> Any:
        return decode(await self._redis.get(name))

    async def save_fields(self, name: str, value: Fields) -> None:
        await self._redis.delete(name)
        await self._redis.hset(name, mapping={field: encode(part) for field, part in value.items()})

    async def save_list(self, name: str, items: list[Fields]) -> None:
        await self._redis.delete(name)
        await self._redis.rpush(name, *map(encode, items))


class RedisWithoutQueue(WithoutQueue, RedisPeer):
    """Redis as most bots use it."""

    title = "Redis, without the queue"
    remark = "each task has a connection of redis-py's pool; the server syncs what arrives together"


class PostgresPeer(Peer):
    """PostgreSQL with its default settings, which make every commit durable."""

    title = "PostgreSQL"
    package = "asyncpg"
    remark = (
        "`synchronous_commit=on`, by asyncpg; a trigger keeps the replaced version; "
        "jsonb in one row, `||` for fields, `jsonb_insert` for an item"
    )

    @classmethod
    def lacks(cls) -> str:
        return super().lacks() or ("" if _program("initdb", *POSTGRES) else "postgres")

    def version(self) -> str:
        command = [_program("postgres", *POSTGRES), "--version"]
        shown = subprocess.run(command, capture_output=True, check=True).stdout.decode().split()
        return f"{shown[2]}, asyncpg {super().version()}"

    async def open(self, folder: Path) -> None:
        user = "postgres" if os.geteuid() == 0 else getpass.getuser()
        as_user: dict[str, Any] = {"user": user, "extra_groups": []} if os.geteuid() == 0 else {}
        data = folder / "data"
        data.mkdir()
        shutil.chown(data, user)
        data.chmod(0o700)
        programs = (_program("initdb", *POSTGRES), _program("postgres", *POSTGRES))
        made = [programs[0], "--auth=trust", "--username=bench", "--no-locale", "-E", "UTF8"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*made, str(data)], check=True, cwd=data, **quiet, **as_user)
        command = [programs[1], "-D", str(data), "-k", str(data), "-c", "listen_addresses="]
        self._process = subprocess.Popen(command, cwd=data, **quiet, **as_user)

        async def connect() -> Any:
            return await self._connect(host=str(data), user="bench", database="postgres")

        self._connection = await _until(connect, self._process)
        await self._connection.execute(SCHEMA)

    async def close(self) -> None:
        await self._connection.close()
        self._process.send_signal(signal.SIGINT)
        self._process.wait(START_S)

    async def save(self, documents: Mapping[str, Fields]) -> None:
        await self._run(PG_SAVE, [(name, encode(v).decode()) for name, v in documents.items()])

    async def set_fields(self, name: str, fields: Fields) -> None:
        changes = [(name, encode({field: value}).decode()) for field, value in fields.items()]
        await self._run(PG_SET_FIELD, changes)

    async def append(self, name: str, item: Fields) -> None:
        await self._run(PG_APPEND, [(name, encode(item).decode())])

    async def _connect(self, **place: str) -> Any:
        import asyncpg

        return await asyncpg.connect(**place)

    async def _run(self, statement: str, changes: list[tuple[str, str]]) -> None:
        """Run a statement once, or for several changes in one transaction."""
        if len(changes) == 1:
            await self._connection.execute(statement, *changes[0])
        else:
            await self._connection.executemany(statement, changes)

    async def load(self, name: str) -> Any:
        query = "SELECT value FROM documents WHERE name = $1"
        return decode(await self._connection.fetchval(query, name))


class PostgresWithoutQueue(WithoutQueue, PostgresPeer):
    """PostgreSQL as most bots use it."""

    title = "PostgreSQL, without the queue"
    remark = "each task has a connection of asyncpg's pool of 16, and makes its own transaction"

    async def _connect(self, **place: str) -> Any:
        import asyncpg

        return await asyncpg.create_pool(**place, min_size=16, max_size=16)
