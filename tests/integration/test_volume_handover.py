"""Holders that follow one another: each is waited for, and none keeps the next one waiting.

A command that comes while others hold the data directory outwaits them all (`seline.cli.reach`);
one that is over lets go at once, whoever is connecting to it in that moment.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from seline import open_seline, server
from seline.cli import patience
from seline.cli.problem import Problem
from seline.cli.reach import reached
from seline.cli.verbs import GlobalOptions
from seline.server import alone, control_socket_path, serving
from seline.server.listening import hang_up, listen_on_socket
from seline.settings import load_settings

HANGS_S: Final = 3_600.0
"""What a stop takes that waits for a request which nobody will read."""
REQUEST: Final = (
    b"GET /api/v1/data-admin/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
)


def settings_for(data_dir: Path) -> Any:
    named = {"storage.data_dir": str(data_dir), "server.host": "127.0.0.1", "server.port": 0}
    return load_settings(environ={}, arguments=named)


@contextmanager
def held(data: Path) -> Iterator[Callable[[], None]]:
    """Hold a data directory's lock, and give what lets go of it."""
    (data / ".seline").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield lambda: fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def say(data: Path, **portrait: object) -> None:
    """Say of the holder what it would say of itself."""
    holder = {"pid": 7, "host": socket.gethostname(), "serves_commands": False, **portrait}
    (data / ".seline" / "server.json").write_text(json.dumps(holder), encoding="utf-8")


def said(data: Path) -> Any:
    return json.loads((data / ".seline" / "server.json").read_text(encoding="utf-8"))


def at_each_look(monkeypatch: pytest.MonkeyPatch, do: Callable[[int], object]) -> None:
    """Do something before a command tries to hold the directory: at the first look, the second."""
    looks = iter(range(1, 1_000))

    def looking(settings: Any) -> Any:
        do(next(looks))
        return alone(settings)

    monkeypatch.setattr(server, "alone", looking)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / ".seline").mkdir(parents=True)
    return tmp_path / "data"


# waiting


async def test_a_command_outwaits_every_holder_that_follows_another(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "HOLDER_WAIT_S", 0)
    with held(data) as let_go:

        def follow(look: int) -> None:
            say(data, pid=look) if look < 5 else let_go()

        at_each_look(monkeypatch, follow)

        async with reached(GlobalOptions(data_dir=str(data)), makes=False) as api:
            assert api.door.alone


async def test_a_holder_that_stays_is_named_when_patience_is_over(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "HOLDER_WAIT_S", 0)
    say(data)

    with held(data), pytest.raises(Problem, match=r"process 7.*no door for commands"):
        async with reached(GlobalOptions(data_dir=str(data)), makes=False):
            pass


async def test_a_server_that_never_opens_its_door_is_not_told_to_get_one(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SERVER_WAIT_S", 0)
    say(data, serves_commands=True)

    with held(data), pytest.raises(Problem, match="has not opened its door") as told:
        async with reached(GlobalOptions(data_dir=str(data)), makes=False):
            pass

    assert "starting or stopping" in told.value.hint


async def test_the_portrait_of_the_holder_before_is_not_taken_for_the_new_one(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who just took the directory has not said so yet: another container was there before."""
    say(data, host="another-container", address="http://127.0.0.1:1")
    with held(data) as let_go:

        def follow(look: int) -> None:
            if look == 2:
                let_go()

        at_each_look(monkeypatch, follow)

        async with reached(GlobalOptions(data_dir=str(data)), makes=False) as api:
            assert api.door.alone


async def test_a_holder_says_from_its_first_moment_whether_it_serves_commands(data: Path) -> None:
    async with open_seline(data, lock_wait_s=0):
        assert said(data)["serves_commands"] is False
    async with alone(settings_for(data)):
        assert said(data)["serves_commands"] is True
    running = await serving(settings_for(data))
    await running.acquired()
    assert said(data)["serves_commands"] is True
    assert said(data)["address"] == running.address
    await running.close()


# letting go


async def test_who_connects_in_the_moment_of_the_end_does_not_hold_it_up() -> None:
    """Accepted just before nothing listens any more, and made a connection just after."""
    here, there = socket.socketpair()
    here.setblocking(False)

    async def come(_: web.Application) -> None:
        assert runner.server is not None
        await asyncio.get_running_loop().connect_accepted_socket(runner.server, here)

    app = web.Application()
    app.on_shutdown.append(come)
    runner = web.AppRunner(app, shutdown_timeout=HANGS_S)
    await runner.setup()

    await hang_up(runner)

    assert there.recv(1) == b""
    there.close()


async def test_who_is_connected_when_a_command_ends_is_sent_on(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not cut off: whether what was asked had been done would not be known."""
    monkeypatch.setattr(import_module("seline.server.serving"), "LAST_ANSWERS_S", HANGS_S)
    running = alone(settings_for(data))
    await running.__aenter__()
    reader, writer = await asyncio.open_unix_connection(control_socket_path(str(data)))
    ending = asyncio.ensure_future(running.__aexit__(None, None, None))
    await asyncio.sleep(0.2)

    writer.write(REQUEST)
    answer = await reader.read()

    assert b" 503 " in answer
    assert b"store_closed" in answer
    await ending
    writer.close()


@pytest.mark.parametrize("turns", range(7))
async def test_who_came_to_a_command_before_its_end_is_answered(tmp_path: Path, turns: int) -> None:
    """In the very moment, too: not accepted yet, accepted, or a connection already."""
    runner = await says_hello()
    path = tmp_path / "socket"
    name = await listen_on_socket(runner, str(path))
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(str(path))
        there.sendall(REQUEST)
        there.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)

        await hang_up(runner, socket=name, answer_s=HANGS_S)

        assert there.recv(100).startswith(b"HTTP/1.1 200 ")


async def says_hello() -> web.AppRunner:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/{any:.*}", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    return runner


async def test_what_a_waiting_connection_sent_before_the_stop_is_answered() -> None:
    """A server that a client knows already: the next request is there, and nobody has read it."""

    runner = await says_hello()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    asked = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writer.write(asked)
    assert b"hello" in await reader.readuntil(b"hello")
    os.write(writer.get_extra_info("socket").fileno(), asked)

    await hang_up(runner)

    assert b"hello" in await reader.read()
    writer.close()


async def test_the_socket_of_a_command_goes_with_it_unless_it_is_anothers(data: Path) -> None:
    path = Path(control_socket_path(str(data)))
    async with alone(settings_for(data)):
        assert path.is_socket()
    assert not path.exists()

    async with alone(settings_for(data)):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


async def test_waiting_on_a_long_path_takes_no_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / ("long" * 30) / "data"
    monkeypatch.setattr("seline.cli.reach._POLL_S", 0.01)
    open_now: list[int] = []
    with held(data) as let_go:
        say(data, serves_commands=True)

        def look(number: int) -> None:
            open_now.append(len(os.listdir("/proc/self/fd")))
            if number == 20:
                let_go()

        at_each_look(monkeypatch, look)
        async with reached(GlobalOptions(data_dir=str(data)), makes=False):
            pass

    assert open_now[-1] <= open_now[5] + 2  # others in this process open and close theirs
