"""A folder as destination of exports: `file:///mnt/backup`, on another disk than the volume's.

Every file is whole or absent, and durable when `put` returns; only `seline-…` folders are touched.
"""

import asyncio
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from seline.domain.manifest import MANIFEST_NAME, parse_export_name
from seline.errors import ExportFailed
from seline.outbound.whole_file import sync_folder, whole_file

LIMIT_S: Final = 300.0
T = TypeVar("T")


class Folder:
    """A port `Destination` in one directory, which is made when the first export comes."""

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._path = os.path.abspath(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="seline-export")

    @property
    def name(self) -> str:
        return self._name

    async def exports(self) -> Sequence[str]:
        return await self._in_thread(lambda: self._listed(whole=True), "Listing")

    async def leftovers(self) -> Sequence[str]:
        return await self._in_thread(lambda: self._listed(whole=False), "Listing")

    async def put(self, export: str, file: str, data: bytes) -> None:
        await self._in_thread(lambda: self._put(export, file, data), f"Writing {file}")

    async def get(self, export: str, file: str) -> bytes:
        return await self._in_thread(lambda: self._get(export, file), f"Reading {file}")

    async def remove(self, export: str) -> None:
        await self._in_thread(lambda: self._remove(export), f"Removing {export}")

    # on the thread

    def _listed(self, *, whole: bool) -> list[str]:
        try:
            listed = os.listdir(self._path)
        except FileNotFoundError:
            return []
        names = [name for name in listed if parse_export_name(name)]
        return sorted((name for name in names if self._is_whole(name) is whole), reverse=True)

    def _is_whole(self, export: str) -> bool:
        """Whether the manifest is there; an error of the disk is an error, never "no manifest"."""
        try:
            status = os.stat(os.path.join(self._path, export, MANIFEST_NAME))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISREG(status.st_mode)

    def _put(self, export: str, file: str, data: bytes) -> None:
        folder = os.path.join(self._path, export)
        _make(folder)
        with whole_file(os.path.join(folder, file), replace=True) as target:
            target.write(data)

    def _get(self, export: str, file: str) -> bytes:
        with open(os.path.join(self._path, export, file), "rb") as source:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return source.read()

    def _remove(self, export: str) -> None:
        folder = os.path.join(self._path, export)
        if parse_export_name(export) is None or not os.path.isdir(folder):
            return
        manifest = os.path.join(folder, MANIFEST_NAME)
        if os.path.lexists(manifest):
            os.unlink(manifest)
            sync_folder(folder)
        shutil.rmtree(folder)
        sync_folder(self._path)

    async def _in_thread(self, work: Callable[[], T], doing: str) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LIMIT_S):
                return await loop.run_in_executor(self._thread, work)
        except TimeoutError as error:
            raise ExportFailed(f"{doing} in {self._path} took over {LIMIT_S:.0f} s.") from error
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise ExportFailed(f"{doing} in {self._path}: {why}.") from error


def _make(folder: str) -> None:
    """Make a folder and what leads to it, each of them durable."""
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    if above != folder:
        _make(above)
    os.mkdir(folder, 0o700)
    sync_folder(above)
