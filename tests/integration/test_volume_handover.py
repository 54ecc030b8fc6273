"""Processes that hold the data directory in turn: commands wait, holders release it at once.

A command outwaits all holders before it (`seline.client.find_store`). A holder that ends does not
wait for a client that is just connecting.
"""

import asyncio
import fcntl
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from seline import open_seline, server
from seline.client import Api, connect, wait
from seline.commands import control_socket_path, listen_at
from seline.errors import VolumeLocked
from seline.server import alone, serving
from seline.server.listening import answer_on, hang_up
from seline.settings import load_settings
from tests.faults.forms import chosen

HANGS_S: Final = 3_600.0
"""A time-out that a stop would use up if it waited for a request that is never read."""
REQUEST: Final = (
    b"GET /api/v1/data-admin/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
)


def settings_for(data_dir: Path) -> Any:
    named = {"storage.data_dir": str(data_dir), "server.host": "127.0.0.1", "server.port": 0}
    return load_settings(environ=chosen(), arguments=named)


def connecting(data: Path) -> AbstractAsyncContextManager[Api]:
    """Connect as a command does, without printing its notices."""
    return connect(settings_for(data), notify=lambda _notice: None)


@contextmanager
def locked(data: Path) -> Iterator[Callable[[], None]]:
    """Hold a data directory's lock, and give the function that releases it."""
    (data / ".seline").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield lambda: fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def write_holder(data: Path, **fields: object) -> None:
    """Write server.json as the holder would."""
    holder = {"pid": 7, "host": socket.gethostname(), "serves_commands": False, **fields}
    (data / ".seline" / "server.json").write_text(json.dumps(holder), encoding="utf-8")


def read_holder(data: Path) -> Any:
    return json.loads((data / ".seline" / "server.json").read_text(encoding="utf-8"))


def before_each_attempt(monkeypatch: pytest.MonkeyPatch, do: Callable[[int], object]) -> None:
    """Call `do` with 1, 2, … before each attempt of a command to lock the directory."""
    attempts = iter(range(1, 1_000))

    def attempt(settings: Any) -> Any:
        do(next(attempts))
        return alone(settings)

    monkeypatch.setattr(server, "alone", attempt)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / ".seline").mkdir(parents=True)
    return tmp_path / "data"


# waiting


async def test_a_command_outwaits_holders_that_follow_one_another(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "HOLDER_WAIT_S", 0)
    with locked(data) as release:

        def follow(attempt: int) -> None:
            write_holder(data, pid=attempt) if attempt < 5 else release()

        before_each_attempt(monkeypatch, follow)

        async with connecting(data) as api:
            assert api.endpoint.opened_here


async def test_the_error_at_the_end_of_the_wait_names_the_holder(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "HOLDER_WAIT_S", 0)
    write_holder(data)

    with locked(data), pytest.raises(VolumeLocked, match=r"process 7.*no socket for commands"):
        async with connecting(data):
            pass


async def test_the_hint_for_a_server_without_its_socket_is_to_look_at_its_log(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "SERVER_WAIT_S", 0)
    write_holder(data, serves_commands=True)

    with locked(data), pytest.raises(VolumeLocked, match="has not opened its socket") as caught:
        async with connecting(data):
            pass

    assert "starting or stopping" in caught.value.hint


async def test_the_server_json_of_the_previous_holder_is_not_taken_for_the_new_holders(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new holder has not written server.json yet; the previous one was another container."""
    write_holder(data, host="another-container", address="http://127.0.0.1:1")
    with locked(data) as release:

        def end(attempt: int) -> None:
            if attempt == 2:
                release()

        before_each_attempt(monkeypatch, end)

        async with connecting(data) as api:
            assert api.endpoint.opened_here


async def test_a_long_wait_notifies_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "NOTICE_AFTER_S", 0)
    write_holder(data)
    notices: list[str] = []
    with locked(data) as release:

        def end(attempt: int) -> None:
            if attempt == 5:
                release()

        before_each_attempt(monkeypatch, end)

        async with connect(settings_for(data), notify=notices.append):
            pass

    assert notices == [f"waiting for the process that holds {data} …"]


async def test_server_json_shows_from_the_start_whether_commands_are_served(data: Path) -> None:
    async with open_seline(data, lock_wait_s=0):
        assert read_holder(data)["serves_commands"] is True
    async with alone(settings_for(data)):
        assert read_holder(data)["serves_commands"] is True
    running = await serving(settings_for(data))
    await running.acquired()
    assert read_holder(data)["serves_commands"] is True
    assert read_holder(data)["address"] == running.address
    await running.close()


@pytest.mark.parametrize(
    ("host", "also"),
    [
        ("127.0.0.1", ""),
        ("0.0.0.0", " (every IPv4 address of this machine)"),
        ("bot.test", " (127.0.0.1:PORT, 127.0.0.2:PORT)"),
    ],
)
async def test_the_log_names_every_address_that_is_listened_on(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    host: str,
    also: str,
) -> None:
    real = socket.getaddrinfo

    def resolve(name: Any, port: Any, *more: Any, **named: Any) -> Any:
        if name != "bot.test":
            return real(name, port, *more, **named)
        both = ("127.0.0.1", "127.0.0.2")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in both]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    named = {"storage.data_dir": str(data), "server.host": host, "server.port": 0}
    with caplog.at_level("INFO"):
        running = await serving(load_settings(environ=chosen(), arguments=named))
        await running.acquired()
        await running.close()

    [ready] = [text for text in caplog.messages if text.startswith("ready on ")]
    shown = re.sub(r"(?<=\d):\d+(?=[,)])", ":PORT", running.listens_on)
    assert f"ready on {running.listens_on}, data in" in ready
    assert shown == f"{running.address}{also}"


# releasing the directory


async def test_a_client_that_connects_at_the_end_does_not_delay_it() -> None:
    """Accepted just before the listening ends, registered as a connection just after."""
    here, there = socket.socketpair()
    here.setblocking(False)

    async def connect_late(_: web.Application) -> None:
        assert runner.server is not None
        await asyncio.get_running_loop().connect_accepted_socket(runner.server, here)

    app = web.Application()
    app.on_shutdown.append(connect_late)
    runner = web.AppRunner(app, shutdown_timeout=HANGS_S)
    await runner.setup()

    await hang_up(runner)

    assert there.recv(1) == b""
    there.close()


async def test_a_client_that_is_connected_when_a_command_ends_gets_store_closed(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken connection would leave the outcome of its request unknown."""
    monkeypatch.setattr(import_module("seline.server.serving"), "LAST_ANSWERS_S", HANGS_S)
    running = alone(settings_for(data))
    await running.__aenter__()
    reader, writer = await asyncio.open_unix_connection(control_socket_path(str(data)))
    ending = asyncio.ensure_future(running.__aexit__(None, None, None))
    await asyncio.sleep(0.2)

    writer.write(REQUEST.replace(b"/health", b"/storage-info"))
    answer = await reader.read()

    assert b" 503 " in answer
    assert b"store_closed" in answer
    await ending
    writer.close()


@pytest.mark.parametrize("turns", range(7))
async def test_a_request_sent_before_a_command_ends_is_answered(tmp_path: Path, turns: int) -> None:
    """At each stage: not accepted yet, accepted, or registered as a connection."""
    runner = await hello_runner()
    path = tmp_path / "socket"
    listening, remove = listen_at(str(path))
    await answer_on(runner, listening)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(REQUEST)
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)

        await hang_up(runner, remove_socket=remove, answer_s=HANGS_S)

        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


async def hello_runner() -> web.AppRunner:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/{any:.*}", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    return runner


async def test_a_request_on_an_idle_connection_sent_before_the_stop_is_answered() -> None:
    """The request has arrived, and the server has not read it yet."""

    runner = await hello_runner()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writer.write(request)
    assert b"hello" in await reader.readuntil(b"hello")
    os.write(writer.get_extra_info("socket").fileno(), request)

    await hang_up(runner)

    assert b"hello" in await reader.read()
    writer.close()


async def test_a_command_removes_its_own_socket_and_no_other_file_of_that_name(data: Path) -> None:
    path = Path(control_socket_path(str(data)))
    async with alone(settings_for(data)):
        assert path.is_socket()
    assert not path.exists()

    async with alone(settings_for(data)):
        path.unlink()
        path.write_text("another file")
    assert path.read_text() == "another file"


async def test_waiting_on_a_long_path_leaks_no_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / ("long" * 30) / "data"
    monkeypatch.setattr("seline.client.find_store.RETRY_S", 0.01)
    open_now: list[int] = []
    with locked(data) as release:
        write_holder(data, serves_commands=True)

        def count(attempt: int) -> None:
            open_now.append(len(os.listdir("/proc/self/fd")))
            if attempt == 20:
                release()

        before_each_attempt(monkeypatch, count)
        async with connecting(data):
            pass

    assert open_now[-1] <= open_now[5] + 2  # others in this process open and close theirs
