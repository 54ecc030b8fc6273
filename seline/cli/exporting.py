"""The verb export: every document of one instant, to stdout or whole to a file.

A file appears under its name only once every byte of it is on the disk.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from seline.cli import terminal
from seline.cli.exits import Exit
from seline.cli.group import front
from seline.cli.problem import Problem
from seline.cli.verbs import api_verb
from seline.errors import DocumentUnrecoverable

if TYPE_CHECKING:
    from seline.cli.client import Api

_TAIL_BYTES: Final = 1 << 16
_UNRECOVERABLE: Final = re.compile(rb'"unrecoverable"\s*:\s*(\[[^\]]*\])\s*\}\s*\}\s*\Z')


@api_verb(
    front,
    "export",
    section="Everything at once",
    examples="""
    seline export seline_backup.json
    seline export > seline_backup.json
    seline export | gzip > seline_backup.json.gz
    seline export backup.json --force --url https://bot.example.org
    seline export /mnt/nas/seline
    """,
)
@click.argument("file", default="-", type=click.Path(allow_dash=True))
@click.option("--force", is_flag=True, help="Replace the file if there is one.")
async def export(api: Api, file: str, force: bool) -> Exit:
    """Write every document of one instant as one readable JSON object.

    A directory (or a name without an ending like .json) gets a dated folder of verified packs
    instead, with the backups in it. `seline import` takes both back. Exits 3 if a document was
    broken and is not in it.
    """
    if _is_folder(file):
        from seline.cli.export_folder import export_folder

        return await export_folder(api, file)
    if file == "-":
        return _told(await _receive(api, terminal.out_bytes), "stdout")
    _check_free(file, force=force)
    with _whole_file(file, replace=force) as write:
        tail = await _receive(api, write)
    return _told(tail, file)


def _is_folder(path: str) -> bool:
    """Whether a path names a folder: it is one, or has no ending and is not there yet."""
    if path == "-":
        return False
    if path.endswith("/") or os.path.isdir(path):
        return True
    return not os.path.lexists(path) and not os.path.splitext(path)[1]


async def _receive(api: Api, write: Callable[[bytes], object]) -> bytes:
    """Hand on the export as it comes; return its last bytes."""
    from seline.cli.client import pieces

    tail = b""
    with terminal.progress("Exporting", None) as advance:
        async with api.stream("GET", "/export") as response:
            async for piece in pieces(response):
                write(piece)
                advance(len(piece))
                tail = (tail + piece)[-_TAIL_BYTES:]
    return tail


def _told(tail: bytes, where: str) -> Exit:
    """Say how it went; name the documents that could not be exported."""
    found = _UNRECOVERABLE.search(tail)
    if found is None:
        terminal.say(f"The export is whole ({where}).")
        return Exit.DONE
    names = ", ".join(json.loads(found[1]))
    terminal.complain(
        f"The export ({where}) lacks what is broken and has no sound backup: {names}.",
        DocumentUnrecoverable.hint,
    )
    return Exit.DAMAGE


@contextmanager
def _whole_file(file: str, *, replace: bool) -> Generator[Callable[[bytes], object]]:
    """Give a `write`; when the block ends well, the file is there, whole and durable."""
    import tempfile

    folder = os.path.dirname(file) or "."
    descriptor, staged = tempfile.mkstemp(
        prefix=f".{os.path.basename(file)}.", suffix=".part", dir=folder
    )
    try:
        with open(descriptor, "wb") as target:
            yield target.write
            target.flush()
            os.fsync(target.fileno())
        _publish(staged, file, replace=replace)
    finally:
        if os.path.lexists(staged):
            os.unlink(staged)
    _sync_folder(folder)


def _publish(staged: str, file: str, *, replace: bool) -> None:
    if replace:
        os.replace(staged, file)
        return
    try:
        os.link(staged, file)
    except FileExistsError as error:
        raise _exists(file) from error
    except OSError:
        os.rename(staged, file)  # a file system without links


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_free(file: str, *, force: bool) -> None:
    if os.path.lexists(file) and not force:
        raise _exists(file)


def _exists(file: str) -> Problem:
    return Problem(
        f"{file} exists already; nothing was written.",
        "Choose another name, or replace it with --force.",
        exit=Exit.REFUSED,
    )
