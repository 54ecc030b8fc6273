"""Small real file systems that fill up, and a disk that goes bad under one.

`small_filesystem` gives a journaled ext4 on a loop device, where that is not allowed a tmpfs, and
where nothing may be mounted the test is skipped, with the reason. `failing_disk` gives an ext4
whose free blocks the kernel itself cannot write from a moment on; without a loop device there is
none. Whatever becomes of the test, all is unmounted and its loop device is free at the end. A disk
lies in memory, so that even a kill leaves nothing but the mount.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import struct
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

MIB: Final = 1 << 20
BLOCK_BYTES: Final = 4096
EXT4: Final = (
    "-q", "-F", "-b", str(BLOCK_BYTES), "-m", "0", "-J", "size=4",
    "-E", "nodiscard,packed_meta_blocks=1,lazy_itable_init=0,lazy_journal_init=0",
)  # fmt: skip
"""A journal, no share for root, and all that is not a file's bytes in front and written at once."""
EXTENTS_MAX: Final = 64
EXTENTS_IN_INODE: Final = 4
FIEMAP: Final = 0xC020660B
FIEMAP_HEAD: Final = "=QQLLLL"
FIEMAP_EXTENT: Final = "=QQQQQLLLL"
FIEMAP_SYNC: Final = 1


class NotAllowed(Exception):
    """What a test needs is not to be had on this machine."""


# a small file system


@dataclass(frozen=True, kw_only=True)
class SmallFilesystem:
    """A mounted file system of its own. `device` is None where its bytes lie in no disk."""

    path: Path
    kind: str
    device: str | None

    def remount(self) -> None:
        """Unmount and mount again, so that nothing is known but what the disk holds."""
        assert self.device is not None, f"{self.kind} does not outlive its mount"
        run("umount", str(self.path))
        run("mount", self.device, str(self.path))

    def fill(self, name: str, *, leave_bytes: int = 0) -> Path:
        """Let a foreign file take every block that is free but for `leave_bytes`."""
        path = self.path / name
        with open(path, "wb") as file:
            _take_blocks(file.fileno(), free_bytes(self.path) - leave_bytes)
        return path

    def fill_to(self, ratio: float, name: str) -> Path:
        """Let a foreign file grow until `ratio` of the volume is used, as `df` counts."""
        status = os.statvfs(self.path)
        used = status.f_blocks - status.f_bfree
        wanted = int((used + status.f_bavail) * ratio) - used
        return self.fill(name, leave_bytes=free_bytes(self.path) - wanted * status.f_frsize)

    def use_up_inodes(self, name: str, *, leave: int = 0) -> Path:
        """Let foreign files take every inode but `leave`; return the directory they lie in."""
        directory = self.path / name
        with contextlib.suppress(OSError):
            directory.mkdir(exist_ok=True)
            for number in itertools.count(len(os.listdir(directory))):
                if os.statvfs(self.path).f_favail <= leave:
                    break
                (directory / str(number)).touch()
        return directory


@contextmanager
def small_filesystem(
    point: Path, *, size_mb: int = 24, inodes: int | None = None
) -> Generator[SmallFilesystem]:
    """Mount a file system of `size_mb` at `point`; skip the test where nothing may be mounted."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(_memory_disk(size_mb * MIB))
            device = stack.enter_context(_ext4(disk, inodes=inodes))
            kind = "ext4"
        except NotAllowed:
            device, kind = None, "tmpfs"
        try:
            stack.enter_context(_mounted(point, device, size_mb, inodes))
        except NotAllowed as reason:
            pytest.skip(str(reason))
        yield SmallFilesystem(path=point, kind=kind, device=device)


def free_bytes(path: Path) -> int:
    """Return how many bytes are free to us."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


# a disk that goes bad


@dataclass(kw_only=True)
class FailingDisk:
    """An ext4 in whose upper part the disk can write nothing, from `go_bad` on.

    Until then only the lower, sound part is free, and after it only the bad part: whatever is
    written then comes to lie there, and the kernel finds out when it writes its pages: at the
    sync, once. What fails are bytes of files; the journal and the inodes are sound. After `heal`,
    only sound blocks are free again.
    """

    filesystem: SmallFilesystem
    code: str
    _image: int
    _thin: Path | None

    @property
    def data(self) -> Path:
        """The data directory, beside what holds the other blocks."""
        return self.filesystem.path / "data"

    def go_bad(self) -> None:
        """Let every block that is free be one that the disk cannot write."""
        os.sync()  # what was removed is free only when the journal has it
        self.filesystem.fill("sound-blocks")
        os.sync()
        if self._thin is not None:
            os.posix_fallocate(self._image, 0, SOUND_BYTES)  # mkfs gives back what it zeroes
            with (self._thin / "others").open("wb") as others:
                _take_blocks(others.fileno(), free_bytes(self._thin))
        else:
            os.ftruncate(self._image, SOUND_BYTES)
            fcntl.fcntl(self._image, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        _let_go(self.filesystem.path / BAD)

    def heal(self) -> None:
        """Let every block that is free be a sound one; or, where it is a thin disk, make room."""
        os.sync()
        if self._thin is not None:
            (self._thin / "others").unlink()
        _hold(self.filesystem.path / BAD)
        (self.filesystem.path / "sound-blocks").unlink()

    def remount(self) -> None:
        """Mount it again: what is shown then is what the disk holds."""
        self.filesystem.remount()
        _take_everything_for_us(self.filesystem)

    def change_beneath(self, path: Path, old: bytes, new: bytes) -> None:
        """Change a file's bytes on the disk, behind the back of the kernel's pages."""
        os.sync()
        [(at, size_bytes), *_] = extents(path)
        found = os.pread(self._image, size_bytes, at)
        assert old in found, "the file's bytes do not lie where the kernel says"
        os.pwrite(self._image, found.replace(old, new), at)


BAD: Final = "bad-blocks"
SOUND_BYTES: Final = 12 * MIB
DISK_BYTES: Final = 24 * MIB


@contextmanager
def failing_disk(place: Path, code: str = "EIO") -> Generator[FailingDisk]:
    """Mount a disk that will go bad with EIO, or with ENOSPC as a thin one does."""
    with ExitStack() as stack:
        thin = None
        try:
            if code == "ENOSPC":
                thin = place / "thin"
                stack.enter_context(_mounted(thin, None, 2 * DISK_BYTES // MIB, None))
                image = stack.enter_context(_thin_disk(thin))
            else:
                image = stack.enter_context(_memory_disk(DISK_BYTES))
            device = stack.enter_context(_ext4(image, inodes=None))
            stack.enter_context(_mounted(place / "disk", device, 0, None))
        except NotAllowed as reason:
            pytest.skip(str(reason))
        filesystem = SmallFilesystem(path=place / "disk", kind="ext4", device=device)
        _take_everything_for_us(filesystem)
        _hold_upper_part(filesystem)
        yield FailingDisk(filesystem=filesystem, code=code, _image=image, _thin=thin)


def _take_everything_for_us(filesystem: SmallFilesystem) -> None:
    """Let ext4 keep no blocks for itself: those it would give after all others are sound ones."""
    assert filesystem.device is not None
    name = os.path.basename(filesystem.device)
    Path(f"/sys/fs/ext4/{name}/reserved_clusters").write_text("0", encoding="ascii")


def _hold_upper_part(filesystem: SmallFilesystem) -> None:
    """Let the files of one directory hold every block of the upper part, and one the border."""
    directory = filesystem.path / BAD
    directory.mkdir()
    _hold(directory)
    for piece in directory.iterdir():
        ends = [(at, at + size_bytes) for at, size_bytes in extents(piece)]
        if all(end <= SOUND_BYTES for _, end in ends):
            piece.unlink()
        elif any(at < SOUND_BYTES for at, _ in ends):
            piece.rename(filesystem.path / f"border-{piece.name}")


def _hold(directory: Path) -> None:
    """Let files take every free block, each so few that the inode itself can list them.

    A longer list needs a block of its own, which may be a bad one.
    """
    for number in itertools.count(len(os.listdir(directory))):
        wanted = min(MIB, free_bytes(directory))
        if wanted < BLOCK_BYTES:
            return
        piece = directory / str(number)
        while not _is_held(piece, wanted):
            wanted = wanted // 2 // BLOCK_BYTES * BLOCK_BYTES


def _is_held(piece: Path, size_bytes: int) -> bool:
    with piece.open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    return piece.stat().st_size == size_bytes and len(extents(piece)) <= EXTENTS_IN_INODE


def _let_go(directory: Path) -> None:
    for piece in directory.iterdir():
        piece.unlink()


def extents(path: Path) -> list[tuple[int, int]]:
    """Return where on the disk a file's bytes lie: (offset, size), in the order of the file."""
    head, extent = struct.calcsize(FIEMAP_HEAD), struct.calcsize(FIEMAP_EXTENT)
    asked = bytearray(head + EXTENTS_MAX * extent)
    struct.pack_into(FIEMAP_HEAD, asked, 0, 0, 2**64 - 1, FIEMAP_SYNC, 0, EXTENTS_MAX, 0)
    with path.open("rb") as file:
        fcntl.ioctl(file, FIEMAP, asked)
    count = struct.unpack_from(FIEMAP_HEAD, asked)[3]
    found = (struct.unpack_from(FIEMAP_EXTENT, asked, head + n * extent) for n in range(count))
    return [(one[1], one[2]) for one in found]


# disks, devices and mounts


@contextmanager
def _memory_disk(size_bytes: int) -> Generator[int]:
    """Give a disk in memory, under no name, as an open file."""
    image = os.memfd_create("small-disk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(image, size_bytes)
        yield image
    finally:
        os.close(image)


@contextmanager
def _thin_disk(place: Path) -> Generator[int]:
    """Give a disk whose blocks come as they are written, as long as there is room for them."""
    image = os.open(place / "disk", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(image, DISK_BYTES)
        yield image
    finally:
        os.close(image)


@contextmanager
def _ext4(image: int, *, inodes: int | None) -> Generator[str]:
    """Make an ext4 on a disk and give it a loop device, which is free again at the end."""
    if shutil.which("mkfs.ext4") is None or shutil.which("losetup") is None:
        raise NotAllowed("mkfs.ext4 or losetup is not installed")
    name = f"/proc/{os.getpid()}/fd/{image}"
    run("mkfs.ext4", *EXT4, *(("-N", str(inodes)) if inodes else ()), name)
    device = run("losetup", "--show", "--find", name)
    held = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        run("losetup", "--detach", device)  # as soon as nobody holds it, a killed process neither
        yield device
    finally:
        os.close(held)


@contextmanager
def _mounted(point: Path, device: str | None, size_mb: int, inodes: int | None) -> Iterator[None]:
    """Mount a device, or a tmpfs of that size."""
    point.mkdir(parents=True, exist_ok=True)
    options = f"size={size_mb}m" + (f",nr_inodes={inodes}" if inodes else "")
    tmpfs = ("-t", "tmpfs", "-o", options, "tmpfs")
    run("mount", *((device,) if device else tmpfs), str(point))
    try:
        yield
    finally:
        _unmount(point)


def _unmount(point: Path) -> None:
    try:
        run("umount", str(point))
    except NotAllowed:  # a test that failed may have left something open
        run("umount", "--lazy", str(point))


def _take_blocks(descriptor: int, size_bytes: int) -> None:
    """Allocate as much as there is, up to `size_bytes`."""
    taken, step = 0, MIB
    while step >= BLOCK_BYTES and taken < size_bytes:
        wanted = min(step, size_bytes - taken)
        try:
            os.posix_fallocate(descriptor, taken, wanted)
            taken += wanted
        except OSError:
            step //= 2


def run(*command: str) -> str:
    """Run a command and return what it says. Raises NotAllowed with the reason where it fails."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise NotAllowed(f"{command[0]} cannot be run here: {error}") from error
    if done.returncode != 0:
        raise NotAllowed(f"{command[0]} is not allowed here: {done.stderr.strip()}")
    return done.stdout.strip()
