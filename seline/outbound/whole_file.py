"""Write a file outside the volume: it has all its bytes, durably, or it does not exist."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import BinaryIO


@contextmanager
def whole_file(path: str, *, replace: bool) -> Generator[BinaryIO]:
    """Give a file to write; it gets its name after a block without an error.

    Raises FileExistsError if the name is taken and `replace` is False, and OSError.
    """
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, staged = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _publish(staged, path, replace=replace)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)
    sync_folder(folder)


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
    except OSError:
        os.rename(staged, path)  # a file system without links
