"""Test an SFTP destination with faults of its server: no half object, no false success."""

import asyncio
import errno
import gc
import math
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import asyncssh
import pytest

from seline.outbound.destinations.sftp import Sftp
from seline.outbound.destinations.ssh_login import public_key
from seline.ports.destinations import Listed, ObjectForbidden, Target
from seline.ports.futures import run_without_loop
from tests.destinations.failing import failure
from tests.destinations.relay import relay
from tests.destinations.sftp_server import (
    PASSWORD,
    USER,
    SftpServer,
    disk_error,
    private_key,
    public_line,
    sftp_server,
)
from tests.faults.injection import refuse_threads
from tests.mirrored_bot import HOUR_S, Bot

CALLS: dict[str, Callable[[Sftp], Any]] = {
    "scandir": lambda store: store.list(""),
    "open": lambda store: store.put("old", b"new"),
    "write": lambda store: store.put("old", b"new"),
    "fsync": lambda store: store.put("old", b"new"),
    "posix_rename": lambda store: store.put("old", b"new"),
    "read": lambda store: store.get("old"),
    "remove": lambda store: store.remove("old"),
}
"""A call with each operation of the server."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SftpServer]:
    (tmp_path / "files" / "top").mkdir(parents=True)
    (tmp_path / "files" / "top" / "old").write_bytes(b"old")
    async with sftp_server(tmp_path / "files") as serving:
        yield serving


def store_at(url: str, **more: Any) -> Sftp:
    given = {"password": PASSWORD, "host_key": public_line(private_key()), "timeout_s": 10}
    return Sftp("nas", f"{url}/top", **{**given, **more})


@pytest.fixture
async def store(server: SftpServer) -> AsyncIterator[Sftp]:
    store = store_at(server.url)
    yield store
    await store.close()


@pytest.fixture
def known_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the user's known_hosts, which does not exist yet."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    return tmp_path / "home" / ".ssh" / "known_hosts"


def at(operation: str, answer: Callable[[], Any]) -> Callable[[str], Any]:
    return lambda called: answer() if called == operation else None


def raises(error: Exception) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


async def test_a_server_that_dies_mid_upload_leaves_the_old_object_whole(
    server: SftpServer,
) -> None:
    async with relay(server.port) as relayed:
        store = store_at(f"sftp://{USER}@127.0.0.1:{relayed.port}")
        assert await store.get("old") == b"old"
        relayed.bytes_left = 300_000
        await failure(store.put("old", b"x" * 600_000), PASSWORD)
        await failure(store.get("old"), PASSWORD)
        relayed.bytes_left = math.inf

        assert await store.get("old") == b"old"
        assert await store.list("") == [Listed("old", 3)]
        assert any((server.folder / "top").glob("old.*.part")), "the half one is still there"
        await store.put("old", b"new")
        assert await store.get("old") == b"new"
        await store.close()


async def test_a_lost_connection_is_made_again(store: Sftp, server: SftpServer) -> None:
    assert await store.get("old") == b"old"
    server.drop()
    await store.put("old", b"new")
    await server.stop()
    assert "Connection refused" in (await failure(store.get("old"), PASSWORD)).message
    await server.start()

    assert await store.get("old") == b"new"


@pytest.mark.parametrize("path", ["", "/", "/My%20files/%C3%A9/"])
async def test_the_folder_may_be_the_root_or_have_any_name(server: SftpServer, path: str) -> None:
    host_key = public_line(private_key())
    store = Sftp("nas", f"{server.url}{path}", password=PASSWORD, host_key=host_key, timeout_s=10)
    await store.make()
    await store.put("heads/1", b"1")

    assert await store.list("heads") == [Listed("1", 1)]
    assert (server.folder / unquote(path).strip("/") / "heads" / "1").exists()
    await store.close()


async def test_calls_at_once_use_one_connection(store: Sftp, server: SftpServer) -> None:
    await asyncio.gather(*(store.put(f"{number}", b"1") for number in range(8)))
    assert len(server.connections) == 1


@pytest.mark.one_in(3)
@pytest.mark.parametrize("operation", CALLS)
async def test_a_server_that_hangs_for_ever_ends_the_call(
    server: SftpServer, operation: str
) -> None:
    store = store_at(server.url, timeout_s=0.5)
    await store.list("")
    server.fault = at(operation, lambda: asyncio.sleep(20))
    error = await failure(CALLS[operation](store), PASSWORD)
    assert "took over 0.5 s" in error.message
    server.fault = None

    assert await store.get("old") == b"old"
    await store.close()


@pytest.mark.parametrize("operation", ["write", "read"])
async def test_a_call_that_is_ended_leaves_no_task_with_an_error(
    server: SftpServer, operation: str
) -> None:
    """Python reports such a task later, at any point of the program."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
    (server.folder / "top" / "old").write_bytes(b"x" * 3_000_000)
    store = store_at(server.url, timeout_s=0.5)
    await store.list("")
    server.fault = at(operation, lambda: asyncio.sleep(20))
    call = {"write": lambda: store.put("new", b"x" * 3_000_000), "read": lambda: store.get("old")}
    await failure(call[operation](), PASSWORD)
    await asyncio.sleep(0)
    gc.collect()
    await store.close()

    assert reported == []


async def test_large_objects_are_stored_and_read_whole(store: Sftp, server: SftpServer) -> None:
    large = os.urandom(5_000_001)
    await store.put("large", large)

    assert (server.folder / "top" / "large").read_bytes() == large
    assert await store.get("large") == large


async def test_a_copy_to_a_server_that_hangs_ends_when_the_bot_stops(
    server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncssh closes what a cancelled call has opened, and waits for the answer."""
    bot = Bot(tmp_path, store_at(server.url, timeout_s=20))
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    hanging = asyncio.Event()

    def hang() -> Any:
        hanging.set()
        return asyncio.sleep(20)

    server.fault = at("scandir", hang)
    monkeypatch.setattr("seline.operations.mirrors.WAIT_S", 0.01)
    bot.clock.advance(2 * HOUR_S)
    await bot.mirrored()
    await asyncio.wait_for(hanging.wait(), 5)
    await asyncio.wait_for(bot.operations.mirrors.close(), 5)
    await bot.store.close()


async def test_a_server_that_never_greets_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"sftp://{USER}@127.0.0.1:{silent.getsockname()[1]}"
        error = await failure(store_at(url, timeout_s=0.3).list(""), PASSWORD)
        assert "took over 0.3 s" in error.message
        monkeypatch.setattr("seline.outbound.destinations.ssh_login.CONNECT_S", 0.3)
        error = await failure(store_at(url).list(""), PASSWORD)
        assert "no login within 0.3 s" in error.message


async def test_a_server_that_is_no_ssh_server_is_named() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as web:
        store = store_at(f"sftp://{USER}@127.0.0.1:{web.sockets[0].getsockname()[1]}")
        assert "Check that the server runs" in (await failure(store.list(""), PASSWORD)).hint


@pytest.mark.parametrize("operation", CALLS)
async def test_a_disk_that_fails_ten_times_makes_no_call_succeed(
    store: Sftp, server: SftpServer, operation: str
) -> None:
    server.fault = at(operation, raises(disk_error()))
    for _ in range(10):
        error = await failure(CALLS[operation](store), PASSWORD)
        assert "the server answers" in error.message
    server.fault = None

    assert await store.get("old") == b"old"
    assert await store.list("") == [Listed("old", 3)]
    assert os.listdir(server.folder / "top") == ["old"]
    await CALLS[operation](store)


async def test_an_upload_that_arrives_short_replaces_nothing(
    store: Sftp, server: SftpServer
) -> None:
    def cut() -> None:
        [part] = (server.folder / "top").glob("*.part")
        os.truncate(part, 500)

    server.fault = at("fsync", cut)
    error = await failure(store.put("old", b"x" * 1000), PASSWORD)

    assert "500 of the 1000 bytes" in error.message
    assert os.listdir(server.folder / "top") == ["old"]
    assert await store.get("old") == b"old"


async def test_a_full_server_is_named(
    store: Sftp, server: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fault = at("write", raises(disk_error(errno.ENOSPC)))
    assert "the server answers" in (await failure(store.put("old", b"new"), PASSWORD)).message
    monkeypatch.setattr(server, "free_bytes", 2)

    assert "it is full" in (await failure(store.put("old", b"new"), PASSWORD)).message
    assert await store.get("old") == b"old"


@pytest.mark.parametrize("operation", CALLS)
async def test_a_forbidden_call_is_named(store: Sftp, server: SftpServer, operation: str) -> None:
    server.fault = at(operation, raises(disk_error(errno.EACCES)))
    assert "forbids it" in (await failure(CALLS[operation](store), PASSWORD)).message


async def test_a_server_without_fsync_still_gets_objects(store: Sftp, server: SftpServer) -> None:
    server.fault = at("fsync", raises(asyncssh.SFTPOpUnsupported("no")))
    await store.put("old", b"new")

    assert await store.get("old") == b"new"


async def test_a_server_that_cannot_replace_takes_new_objects_only(
    store: Sftp, server: SftpServer
) -> None:
    server.fault = at("posix_rename", raises(asyncssh.SFTPOpUnsupported("no")))
    await store.put("new", b"new")
    assert "cannot replace old" in (await failure(store.put("old", b"new"), PASSWORD)).message

    assert sorted(await store.list("")) == [Listed("new", 3), Listed("old", 3)]
    assert await store.get("old") == b"old"


async def test_the_rest_of_an_upload_is_not_listed_and_goes_with_its_export(
    store: Sftp, server: SftpServer
) -> None:
    await store.put("export/manifest.json", b"{}")
    (server.folder / "top" / "export" / "pack-0001.0a1b2c3d.part").write_bytes(b"half")

    assert await store.list("export") == [Listed("manifest.json", 2)]
    await store.remove("export/manifest.json")
    await store.remove("export")
    assert await store.list("") == [Listed("old", 3)]


async def test_names_of_other_programs_do_not_end_a_listing(
    store: Sftp, server: SftpServer
) -> None:
    (Path(os.fsdecode(os.fsencode(server.folder / "top") + b"/\xff"))).write_bytes(b"1")
    os.symlink("nowhere", server.folder / "top" / "link")

    assert sorted(await store.list("")) == [Listed("old", 3), Listed("\udcff", 1)]


@pytest.mark.parametrize(("user", "password"), [(USER, "another-password"), ("another", PASSWORD)])
async def test_a_wrong_login_is_named(server: SftpServer, user: str, password: str) -> None:
    store = store_at(f"sftp://{user}@127.0.0.1:{server.port}", password=password)
    for call in CALLS.values():
        error = await failure(call(store), "another-password", PASSWORD)
        assert "refuses the login" in error.message
        assert not isinstance(error, ObjectForbidden)


@pytest.mark.parametrize("is_loaded", [True, False])
async def test_a_call_that_finds_no_thread_fails_and_the_next_one_works(
    store: Sftp, monkeypatch: pytest.MonkeyPatch, is_loaded: bool
) -> None:
    with monkeypatch.context() as patch:
        if not is_loaded:
            patch.delitem(sys.modules, "asyncssh")
        refuse_threads(patch, "seline-sftp")
        error = await failure(store.get("old"), PASSWORD)

    assert "Resource temporarily unavailable" in error.message
    assert await store.get("old") == b"old"


async def test_a_private_key_logs_in(server: SftpServer, tmp_path: Path) -> None:
    private_key(7).write_private_key(str(tmp_path / "key"))
    store = store_at(server.url, password="", key_file=str(tmp_path / "key"))

    assert await store.get("old") == b"old"
    await store.close()


async def test_a_private_key_that_cannot_be_used_is_named(
    server: SftpServer, tmp_path: Path
) -> None:
    private_key(7).write_private_key(str(tmp_path / "locked"), "pkcs8-pem", "a-passphrase")
    (tmp_path / "other").write_text("no key")
    for name in ("locked", "other", "missing"):
        store = store_at(server.url, key_file=str(tmp_path / name))
        error = await failure(store.list(""), PASSWORD)
        assert f"{tmp_path / name}, the `key_file` of nas, cannot be used" in error.message


async def test_a_host_whose_key_is_not_known_gets_no_login(
    server: SftpServer, known_hosts: Path
) -> None:
    for text in ("", f"another.example {public_line(private_key())}\n", "no line of known_hosts\n"):
        known_hosts.write_text(text)
        error = await failure(store_at(server.url, host_key="").list(""), PASSWORD)
        assert "is not known" in error.message
    known_hosts.unlink()
    error = await failure(store_at(server.url, host_key="").list(""), PASSWORD)
    assert f"`ssh-keyscan -p {server.port} 127.0.0.1`" in error.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "[127.0.0.1]:PORT", "*"])
async def test_a_host_in_known_hosts_is_known(
    server: SftpServer, known_hosts: Path, host: str
) -> None:
    host = host.replace("PORT", str(server.port))
    known_hosts.write_text(f"{host} {public_line(private_key())}\n")
    store = store_at(server.url, host_key="")

    assert await store.get("old") == b"old"
    await store.close()


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
async def test_a_host_with_another_key_gets_no_login(
    server: SftpServer, known_hosts: Path, kind: str
) -> None:
    other = public_line(asyncssh.generate_private_key(kind))
    by_option = await failure(store_at(server.url, host_key=other).list(""), PASSWORD)
    known_hosts.write_text(f"127.0.0.1 {other}\n")
    by_file = await failure(store_at(server.url, host_key="").list(""), PASSWORD)

    assert "does not have the host key of `host_key`" in by_option.message
    assert "does not have the host key of ~/.ssh/known_hosts" in by_file.message


async def test_the_configuration_of_ssh_does_not_turn_the_check_off(
    server: SftpServer, known_hosts: Path
) -> None:
    (known_hosts.parent / "config").write_text("UserKnownHostsFile none\n")
    error = await failure(store_at(server.url, host_key="").list(""), PASSWORD)
    assert "is not known" in error.message


def test_a_store_outlives_an_event_loop(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    server = SftpServer(tmp_path)

    async def serve(call: Callable[[], Any]) -> Any:
        await server.start()
        try:
            return await call()
        finally:
            assert server.acceptor is not None
            server.acceptor.close()  # the connection stays, and ends with the event loop

    asyncio.run(serve(lambda: asyncio.sleep(0)))  # it has a port
    store = store_at(server.url)
    asyncio.run(serve(lambda: store.put("old", b"1")))
    assert asyncio.run(serve(lambda: store.get("old"))) == b"1"
    run_without_loop(store.close())
    assert asyncio.run(serve(lambda: store.get("old"))) == b"1"


def test_a_line_of_a_public_key_is_read_in_every_form() -> None:
    line = public_line(private_key())
    kind, data = line.split()[:2]
    for form in (line, f"{line} a comment", f"[host]:22 {line}", f"@cert-authority * {line}"):
        assert public_key(form) == f"{kind} {data}"
    for wrong in ("", kind, data, f"ssh-rsa {data}", f"{kind} {data[:-8]}!", "# host SSH-2.0"):
        with pytest.raises(ValueError, match="public key"):
            public_key(wrong)


def test_a_store_says_nothing_of_its_password() -> None:
    store = store_at(f"sftp://{USER}@127.0.0.1")
    assert PASSWORD not in f"{store!r} {store.where} {store.name} {store._login!r}"


async def test_a_listing_that_ends_leaves_the_connection_to_the_drill(
    tmp_path: Path, store: Sftp
) -> None:
    """A server that answers slowly keeps a reader busy while another user of it is done."""
    bot = Bot(tmp_path / "bot", store, target=Target(store, 3, mode="export"))
    await bot.data.save_json("a.json", {"n": 1})
    await bot.operations.exports.run()
    listing, go_on = asyncio.Event(), asyncio.Event()
    real = store._list

    async def slowly(client: Any, folder: str) -> Any:
        if not listing.is_set():  # the first call of the drill, which makes the connection
            listing.set()
            await go_on.wait()
        return await real(client, folder)

    store._list = slowly  # type: ignore[method-assign]
    drilling = asyncio.create_task(bot.operations.drill())
    await listing.wait()
    assert len(await bot.operations.listed_copies("nas")) == 1
    go_on.set()

    assert "restored, and compared" in await drilling
    assert store._connection is None, "the last user closes it"
    await bot.store.close()
