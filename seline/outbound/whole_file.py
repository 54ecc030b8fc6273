"""Write a file outside the volume: it has all its bytes, durably, or it does not exist."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import BinaryIO, Final

from seline.owner import give_to_owner_of

_OF_A_WRITE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@contextmanager
def whole_file(path: str, *, replace: bool, give: bool = False) -> Generator[BinaryIO]:
    """Give a file to write; it gets its name after a block without an error.

    `give`: a file that root writes belongs to the owner of its folder. Raises FileExistsError if
    the name is taken and `replace` is False, and OSError, which names `path`.
    """
    folder, name = os.path.split(os.path.abspath(path))
    with _naming(path):
        descriptor, staged = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
    with _naming(path), _removing(staged):
        with open(descriptor, "wb") as file:
            if give:
                give_in(folder, descriptor)
            yield file
            file.flush()
            os.fsync(file.fileno())
        _publish(staged, path, replace=replace)
    sync_folder(folder)


def give_in(folder: str, descriptor: int) -> None:
    """Give what root made in a folder to the owner of that folder. Raises OSError."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        give_to_owner_of(directory, descriptor)
    finally:
        os.close(directory)


@contextmanager
def _naming(path: str) -> Generator[None]:
    """Name the file in an error of the disk, which knows only the unfinished one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno in _OF_A_WRITE:
            error.filename = path
        raise


@contextmanager
def _removing(staged: str) -> Generator[None]:
    """Remove an unfinished file at the end."""
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(staged: str, path: str, *, replace: bool) -> None:
    if replace:
        os.replace(staged, path)
        return
    try:
        os.link(staged, path)
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        os.rename(staged, path)
