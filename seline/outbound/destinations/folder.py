"""A folder as destination of exports: `file:///mnt/backup`, on another disk than the volume's.

Every file is whole or absent, and durable when `put` returns; only `seline-…` names are touched.
Only the destination's own thread touches the folder, because a mount may never answer.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from seline.domain.manifest import MANIFEST_NAME, parse_export_name
from seline.errors import ExportFailed
from seline.outbound.destinations.own_thread import OwnThread
from seline.outbound.whole_file import sync_folder, whole_file
from seline.ports.destinations import Place

LIMIT_S: Final = 300.0
MARKER_NAME: Final = "seline-destination"
_MARKER_BYTES_MAX: Final = 100
T = TypeVar("T")


class Folder:
    """A port `Destination` in one directory. Making a `Folder` touches no disk."""

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._path = os.path.abspath(path)
        self._thread = OwnThread("seline-export")

    @property
    def name(self) -> str:
        return self._name

    @property
    def where(self) -> str:
        return self._path

    async def place(self, data_dir: str) -> Place:
        return await self._in_thread(lambda: self._place(data_dir), "Looking")

    async def make(self) -> None:
        """Make the folder and what leads to it. Raises ExportFailed."""
        await self._in_thread(lambda: _make(self._path), "Making a folder")

    async def mark(self, marker: str) -> None:
        await self._in_thread(lambda: self._mark(marker), f"Writing {MARKER_NAME}")

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

    def _place(self, data_dir: str) -> Place:
        volume = os.path.realpath(data_dir)
        if os.path.commonpath([volume, os.path.realpath(self._path)]) == volume:
            raise ExportFailed(
                f"{self._path} is inside the data directory, and would be lost with it.",
                hint="Name a folder on another disk in `exports.destinations`.",
            )
        try:
            device = os.stat(self._path).st_dev
        except FileNotFoundError:
            return Place(marker="", on_data_disk=False)
        on_data_disk = device == os.stat(volume).st_dev
        return Place(marker=self._marker(), on_data_disk=on_data_disk)

    def _marker(self) -> str:
        try:
            with open(os.path.join(self._path, MARKER_NAME), "rb") as file:
                return file.read(_MARKER_BYTES_MAX).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""

    def _mark(self, marker: str) -> None:
        _make(self._path)
        if self._marker():
            return
        path = os.path.join(self._path, MARKER_NAME)
        is_blank = os.path.lexists(path)
        with contextlib.suppress(FileExistsError), whole_file(path, replace=is_blank) as file:
            file.write(f"{marker}\n".encode())  # else another volume has just marked it

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
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
            sync_folder(self._path)
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
        if self._thread.busy_s > LIMIT_S:
            raise ExportFailed(
                f"{self._path} does not answer: a call has waited for {self._thread.busy_s:.0f} s.",
                hint="Mount it again, then run `seline jobs run export`.",
            )
        try:
            return await self._thread.run(work, limit_s=LIMIT_S)
        except OSError as error:
            if isinstance(error, TimeoutError) and not error.errno:
                raise ExportFailed(f"{doing} in {self._path} took over {LIMIT_S:.0f} s.") from error
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
