"""A bot in a process of its own, with a mirror: a test deletes its volume, or kills it.

It writes what it does into a notebook outside the volume, a line in one system call each.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

import msgspec

from seline.errors import SelineError
from seline.server.serving import Serving, serving
from seline.settings import load_settings
from tests.faults.forms import chosen

FORKSERVER: Final = get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tests.every_import", "tests.acceptance.bot"])
SAVES_PER_S: Final = 20
DOCUMENTS: Final = 40


def started(work: str, arguments: Mapping[str, Any], notebook: Path) -> ForkServerProcess:
    """Start a process that opens the volume of these settings and does one of `WORK`."""
    process = FORKSERVER.Process(target=_run, args=(work, dict(arguments), str(notebook)))
    process.start()
    return process


def lines(notebook: Path) -> list[list[Any]]:
    """Return the complete lines of a notebook."""
    read = notebook.read_bytes() if notebook.exists() else b""
    return [msgspec.json.decode(line) for line in read.split(b"\n")[:-1]]


async def mirrored(server: Serving) -> str:
    """Run the job once; return its outcome and detail."""
    run = server._worker.run_now("mirror")
    while True:
        for ended in server._worker.runs("mirror"):
            if ended.id == run.id and ended.outcome:
                return f"{ended.outcome}: {ended.detail}"
        await asyncio.sleep(0.01)


def _run(work: str, arguments: dict[str, Any], notebook: str) -> None:
    asyncio.run(_open(work, arguments, _Notebook(notebook)))


async def _open(work: str, arguments: dict[str, Any], notes: "_Notebook") -> None:
    settings = load_settings(environ=chosen(), arguments=arguments)
    async with serving(settings, http=False) as server:
        await server.acquired()
        incidents = [incident.summary for incident in server.operations.store.incidents()]
        notes.line("open", len(await server.data.documents()), incidents)
        await WORK[work](server, notes)


async def _save(server: Serving, notes: "_Notebook") -> None:
    """Save twenty times in a second, and note each save that was answered."""
    number = 0
    while True:
        number += 1
        name = f"d{number % DOCUMENTS}.json"
        try:
            await server.data.save_json(name, {"n": number})
        except SelineError as error:
            notes.line("refused", number, error.code)
        else:
            notes.line("saved", number, name, time.time())
        await asyncio.sleep(1 / SAVES_PER_S)


async def _mirror(server: Serving, notes: "_Notebook") -> None:
    """Change some documents and mirror them, again and again."""
    while True:
        for number in range(6):
            await server.data.save_json(f"d{number}.json", {"at": time.time_ns()})
        notes.line("mirrored", await mirrored(server))


async def _stop(_server: Serving, _notes: "_Notebook") -> None:
    """Stop at once."""


async def _mirror_once(server: Serving, notes: "_Notebook") -> None:
    notes.line("mirrored", await mirrored(server))


WORK: Final = {"save": _save, "mirror": _mirror, "mirror once": _mirror_once, "stop": _stop}


class _Notebook:
    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def line(self, *parts: object) -> None:
        os.write(self._descriptor, msgspec.json.encode(parts) + b"\n")
