"""Test destinations on servers of other programs, which are killed, and whose disk is full."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from seline.errors import ExportFailed
from seline.ports.destinations import Listed, ObjectStore
from tests.destinations.failing import failure
from tests.destinations.kinds import sftp_at, webdav_at
from tests.destinations.real_server import PASSWORD, RealServer, nginx, sshd
from tests.faults.small_filesystem import small_filesystem

pytestmark = pytest.mark.prove
KILLS = 25
SIZE_BYTES = 8 << 20


class Opened(NamedTuple):
    server: RealServer
    store: ObjectStore


@asynccontextmanager
async def opened(kind: str, path: Path, files: Path | None = None) -> AsyncIterator[Opened]:
    if kind == "sshd":
        pytest.importorskip("asyncssh")
        async with sshd(path, files) as server:
            store: ObjectStore = sftp_at(server, path)
            yield Opened(server, store)
            await store.close()
    else:
        async with nginx(path, files) as server:
            store = webdav_at(server)
            yield Opened(server, store)
            await store.close()


@pytest.mark.parametrize("kind", ["nginx", "sshd"])
async def test_a_server_killed_at_any_moment_leaves_whole_objects(
    kind: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as (server, store):
        await store.make()
        whole, finished = bytes(SIZE_BYTES), 0
        started = time.monotonic()
        await store.put("heads/1.json", whole)
        usual_s = time.monotonic() - started
        for number in range(KILLS):
            new = bytes([number + 1]) * SIZE_BYTES
            put = asyncio.ensure_future(store.put("heads/1.json", new))
            await asyncio.sleep(random.random() * 1.2 * usual_s)
            server.kill()
            outcome = (await asyncio.gather(put, return_exceptions=True))[0]
            await server.start()
            found = await store.get("heads/1.json")
            if outcome is None:
                assert found == new
                finished += 1
            else:
                assert isinstance(outcome, ExportFailed)
                assert found in (whole, new)
            assert await store.list("heads") == [Listed("1.json", SIZE_BYTES)]
            whole = found
    assert finished < KILLS


@pytest.mark.parametrize("kind", ["nginx", "sshd"])
async def test_a_server_with_a_full_disk_keeps_what_it_has(kind: str, tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", size_mb=20):
        files = tmp_path / "disk" / "files"
        files.mkdir()
        async with opened(kind, tmp_path, files) as (_, store):
            await store.make()
            await store.put("old", b"old")
            error = await failure(store.put("old", bytes(40 << 20)), PASSWORD)
            assert "space" in error.hint.lower(), "nginx answers 500, whatever the cause"
            assert [path.name for path in (files / "top").iterdir()] == ["old"]
            assert await store.get("old") == b"old"
            assert await store.list("") == [Listed("old", 3)]
            await store.put("old", b"new")
            assert await store.get("old") == b"new"


async def test_nginx_without_dav_ext_is_named(tmp_path: Path) -> None:
    async with nginx(tmp_path) as server:
        (server.files / "plain").mkdir()
        store = webdav_at(server, top="plain")
        for call in (store.put("a", b"1"), store.list("")):
            assert "`dav_ext_methods PROPFIND;`" in (await failure(call, PASSWORD)).hint
        await store.close()


async def test_a_limit_of_nginx_is_named(tmp_path: Path) -> None:
    async with nginx(tmp_path) as server:
        (server.files / "small").mkdir()
        store = webdav_at(server, top="small")
        await store.put("a", bytes(1 << 20))
        error = await failure(store.put("a", bytes(8 << 20)), PASSWORD)
        assert "`client_max_body_size 0;`" in error.hint
        assert await store.list("") == [Listed("a", 1 << 20)]
        await store.close()


async def test_objects_of_sshd_are_private(tmp_path: Path) -> None:
    pytest.importorskip("asyncssh")
    async with opened("sshd", tmp_path) as (server, store):
        (server.files / "top").mkdir()
        await store.put("heads/1.json", b"{}")
        modes = [(server.files / "top" / name).stat().st_mode for name in ("heads", "heads/1.json")]
        assert [mode & 0o777 for mode in modes] == [0o700, 0o600]
