"""A folder as a destination: `file:///mnt/backup`, on another disk than the volume's.

Every file is whole or absent, and durable when `put` returns. Only the destination's own thread
touches the folder, because a mount may never answer.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from seline.errors import ExportFailed
from seline.outbound.destinations import failures
from seline.outbound.destinations.own_thread import OwnThread
from seline.outbound.whole_file import give_in, sync_folder, whole_file
from seline.ports.destinations import OBJECT_BYTES_MAX, Listed, ObjectMissing

LIMIT_S: Final = 300.0
T = TypeVar("T")


class Folder:
    """A port `ObjectStore` in one directory. Making a `Folder` touches no disk."""

    def __init__(self, name: str, path: str, *, timeout_s: float = LIMIT_S) -> None:
        self._name = name
        self._path = os.path.abspath(path)
        self._timeout_s = timeout_s
        self._thread = OwnThread("seline-export")

    @property
    def name(self) -> str:
        return self._name

    @property
    def where(self) -> str:
        return self._path

    async def make(self) -> None:
        await self._in_thread(lambda: _make(self._path), "Making a folder")

    async def on_data_disk(self, data_dir: str) -> bool:
        return await self._in_thread(lambda: self._on_data_disk(data_dir), "Looking")

    async def list(self, folder: str) -> Sequence[Listed]:
        return await self._in_thread(lambda: _listed(self._at(folder)), "Listing")

    async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        await self._in_thread(lambda: self._put(key, data, replace=replace), f"Writing {key}")

    async def get(self, key: str, *, bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
        return await self._in_thread(lambda: self._get(key, bytes_max), f"Reading {key}")

    async def remove(self, key: str) -> None:
        await self._in_thread(lambda: self._remove(key), f"Removing {key}")

    async def close(self) -> None:
        """Do nothing: no file stays open."""

    # on the thread

    def _at(self, key: str) -> str:
        return os.path.join(self._path, *key.split("/"))

    def _on_data_disk(self, data_dir: str) -> bool:
        volume = os.path.realpath(data_dir)
        if os.path.commonpath([volume, os.path.realpath(self._path)]) == volume:
            raise ExportFailed(
                f"{self._path} is inside the data directory, and would be lost with it.",
                hint="Name a folder on another disk in `exports.destinations`.",
            )
        try:
            return os.stat(self._path).st_dev == os.stat(volume).st_dev
        except FileNotFoundError:
            return False

    def _put(self, key: str, data: bytes, *, replace: bool) -> None:
        path = self._at(key)
        _make(os.path.dirname(path), below=self._path)
        with (
            contextlib.suppress(FileExistsError),
            whole_file(path, replace=replace, give=True) as target,
        ):
            target.write(data)

    def _get(self, key: str, bytes_max: int) -> bytes:
        try:
            with open(self._at(key), "rb") as source:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                data = source.read(bytes_max + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectMissing(f"{self._path} has no {key}.") from error
        if len(data) > bytes_max:
            raise failures.too_large(self, key, bytes_max)
        return data

    def _remove(self, key: str) -> None:
        path = self._at(key)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.isdir(path):
                if os.listdir(path):
                    return
                os.rmdir(path)
            else:
                os.unlink(path)
            sync_folder(os.path.dirname(path))

    async def _in_thread(self, work: Callable[[], T], doing: str) -> T:
        if self._thread.busy_s > self._timeout_s:
            raise ExportFailed(
                f"{self._path} does not answer: a call has waited for {self._thread.busy_s:.0f} s.",
                hint="Mount it again, then run `seline jobs run export`, or `seline jobs run "
                "mirror` for a mirror.",
            )
        try:
            return await self._thread.run(work, limit_s=self._timeout_s)
        except OSError as error:
            if isinstance(error, TimeoutError) and not error.errno:
                raise ExportFailed(
                    f"{doing} in {self._path} took over {self._timeout_s:.0f} s."
                ) from error
            why = os.strerror(error.errno) if error.errno else str(error)
            raise ExportFailed(f"{doing} in {self._path}: {why}.") from error


def _listed(folder: str) -> Sequence[Listed]:
    try:
        with os.scandir(folder) as found:
            return [
                Listed(entry.name, None if entry.is_dir() else entry.stat().st_size)
                for entry in found
                if entry.is_dir() or entry.is_file()
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _make(folder: str, *, below: str = "") -> None:
    """Make a folder and what leads to it, each of them durable; `below` itself is never made."""
    if os.path.isdir(folder) or folder == below:
        return
    above = os.path.dirname(folder)
    if above != folder:
        _make(above, below=below)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            give_in(above, descriptor)
        finally:
            os.close(descriptor)
        sync_folder(above)
