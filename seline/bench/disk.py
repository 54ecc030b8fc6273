"""The limits of a disk: one flush, and a new file that replaces another one."""

import os
from typing import Final

BLOCK: Final = b"\x5a" * 4096
BLOCKS: Final = 256


class RawDisk:
    """Makes the system calls that a durable change needs at least."""

    def __init__(self, folder: str) -> None:
        """Write the blocks once, so that `flush` changes no metadata."""
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._file = self._open("blocks")
        os.write(self._file, BLOCK * BLOCKS)
        os.fsync(self._file)

    def flush(self, number: int) -> None:
        """Overwrite 4 KiB of a file and sync its data: the limit of any durable change."""
        os.pwrite(self._file, BLOCK, number % BLOCKS * len(BLOCK))
        os.fdatasync(self._file)

    def replace(self, _number: int) -> None:
        """Write a new file of 1 KiB, sync it, rename it, and sync the directory."""
        file = self._open("new")
        os.write(file, BLOCK[:1024])
        os.fsync(file)
        os.close(file)
        os.rename("new", "replaced", src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)

    def close(self) -> None:
        """Close the file and the directory."""
        os.close(self._file)
        os.close(self._folder)

    def _open(self, name: str) -> int:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
