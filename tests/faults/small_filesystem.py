"""Small real file systems for tests: some fill up, one has blocks that cannot be written.

`small_filesystem` mounts a journaled ext4 on a loop device, or a tmpfs where loop devices are not
permitted. `failing_disk` mounts an ext4 whose free blocks the kernel cannot write after
`fail_writes`; it needs a loop device. A test is skipped, with the reason, where the mount is not
permitted. When a test ends, everything is unmounted and its loop device is free. A disk is a file
in memory, so a killed process leaves only the mount.
"""

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
"""Has a journal and no blocks reserved for root; all metadata blocks come first and are written."""
EXTENTS_MAX: Final = 64
EXTENTS_IN_INODE: Final = 4
FIEMAP: Final = 0xC020660B
FIEMAP_HEAD: Final = "=QQLLLL"
FIEMAP_EXTENT: Final = "=QQQQQLLLL"
FIEMAP_SYNC: Final = 1


class Unavailable(Exception):
    """This machine does not provide what a test needs."""


# a small file system


@dataclass(frozen=True, kw_only=True)
class SmallFilesystem:
    """A mounted file system. `device` is None for a tmpfs."""

    path: Path
    kind: str
    device: str | None

    def remount(self) -> None:
        """Unmount and mount again, so that only what the disk holds is visible."""
        assert self.device is not None, f"{self.kind} loses its content when it is unmounted"
        run("umount", str(self.path))
        run("mount", self.device, str(self.path))

    def fill(self, name: str, *, leave_bytes: int = 0) -> Path:
        """Write a foreign file that leaves `leave_bytes` free; return its path."""
        path = self.path / name
        with open(path, "wb") as file:
            _take_blocks(file.fileno(), free_bytes(self.path) - leave_bytes)
        return path

    def fill_to(self, ratio: float, name: str) -> Path:
        """Write a foreign file so that `ratio` of the volume is used, as `df` counts."""
        status = os.statvfs(self.path)
        used = status.f_blocks - status.f_bfree
        wanted = int((used + status.f_bavail) * ratio) - used
        return self.fill(name, leave_bytes=free_bytes(self.path) - wanted * status.f_frsize)

    def use_up_inodes(self, name: str, *, leave: int = 0) -> Path:
        """Create foreign files until `leave` inodes are free; return their directory."""
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
    point: Path, *, size_mb: int = 24, inodes: int | None = None, journal: bool = True
) -> Generator[SmallFilesystem]:
    """Mount a file system of `size_mb` at `point`; skip the test where that is not permitted."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(_memory_disk(size_mb * MIB))
            device = stack.enter_context(_ext4(disk, inodes=inodes, journal=journal))
            kind = "ext4"
        except Unavailable:
            device, kind = None, "tmpfs"
        try:
            stack.enter_context(_mounted(point, device, size_mb, inodes))
        except Unavailable as reason:
            pytest.skip(str(reason))
        yield SmallFilesystem(path=point, kind=kind, device=device)


def free_bytes(path: Path) -> int:
    """Return how many bytes an unprivileged process may use."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


# a disk with blocks that cannot be written


@dataclass(kw_only=True)
class FailingDisk:
    """An ext4 whose upper blocks cannot be written after `fail_writes`.

    Before `fail_writes`, only lower blocks are free. After it, only upper blocks are free: every
    new file is placed there, and its first sync fails. The journal and the inodes can always be
    written. After `allow_writes`, only lower blocks are free again.
    """

    filesystem: SmallFilesystem
    code: str
    _image: int
    _thin: Path | None

    @property
    def data(self) -> Path:
        """Return the data directory; the files that occupy the other blocks are its siblings."""
        return self.filesystem.path / "data"

    def fail_writes(self) -> None:
        """Leave only blocks free that the disk cannot write."""
        os.sync()  # ext4 frees the blocks of a deleted file when the journal commits
        self.filesystem.fill("sound-blocks")
        os.sync()
        if self._thin is not None:
            os.posix_fallocate(self._image, 0, SOUND_BYTES)  # mkfs punched holes for its zeroes
            with (self._thin / "others").open("wb") as filler:
                _take_blocks(filler.fileno(), free_bytes(self._thin))
        else:
            os.ftruncate(self._image, SOUND_BYTES)
            fcntl.fcntl(self._image, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        _delete_files(self.filesystem.path / BAD)

    def allow_writes(self) -> None:
        """Leave only writable blocks free; on a thin disk, free space in the file below it."""
        os.sync()
        if self._thin is not None:
            (self._thin / "others").unlink()
        _occupy(self.filesystem.path / BAD)
        (self.filesystem.path / "sound-blocks").unlink()

    def remount(self) -> None:
        """Mount again, so that only what the disk holds is visible."""
        self.filesystem.remount()
        _release_reserved_blocks(self.filesystem)

    def change_on_disk(self, path: Path, old: bytes, new: bytes) -> None:
        """Replace `old` by `new` in a file's bytes on the disk; cached pages keep the old bytes."""
        os.sync()
        [(at, size_bytes), *_] = extents(path)
        content = os.pread(self._image, size_bytes, at)
        assert old in content, "the file is not at the offset that the kernel reports"
        os.pwrite(self._image, content.replace(old, new), at)


BAD: Final = "bad-blocks"
SOUND_BYTES: Final = 12 * MIB
DISK_BYTES: Final = 24 * MIB


@contextmanager
def failing_disk(directory: Path, code: str = "EIO") -> Generator[FailingDisk]:
    """Mount a disk whose writes can fail: with EIO, or with ENOSPC like a full thin disk."""
    with ExitStack() as stack:
        thin = None
        try:
            if code == "ENOSPC":
                thin = directory / "thin"
                stack.enter_context(_mounted(thin, None, 2 * DISK_BYTES // MIB, None))
                image = stack.enter_context(_thin_disk(thin))
            else:
                image = stack.enter_context(_memory_disk(DISK_BYTES))
            device = stack.enter_context(_ext4(image, inodes=None))
            stack.enter_context(_mounted(directory / "disk", device, 0, None))
        except Unavailable as reason:
            pytest.skip(str(reason))
        filesystem = SmallFilesystem(path=directory / "disk", kind="ext4", device=device)
        _release_reserved_blocks(filesystem)
        _occupy_upper_part(filesystem)
        yield FailingDisk(filesystem=filesystem, code=code, _image=image, _thin=thin)


def _release_reserved_blocks(filesystem: SmallFilesystem) -> None:
    """Set ext4's reserved clusters to 0: ext4 would use them last, and they are writable."""
    assert filesystem.device is not None
    name = os.path.basename(filesystem.device)
    Path(f"/sys/fs/ext4/{name}/reserved_clusters").write_text("0", encoding="ascii")


def _occupy_upper_part(filesystem: SmallFilesystem) -> None:
    """Fill every upper block with files in one directory, and move those that cross the border."""
    directory = filesystem.path / BAD
    directory.mkdir()
    _occupy(directory)
    for piece in directory.iterdir():
        ends = [(at, at + size_bytes) for at, size_bytes in extents(piece)]
        if all(end <= SOUND_BYTES for _, end in ends):
            piece.unlink()
        elif any(at < SOUND_BYTES for at, _ in ends):
            piece.rename(filesystem.path / f"border-{piece.name}")


def _occupy(directory: Path) -> None:
    """Fill the directory's file system with files whose extents fit into their inodes.

    More extents would need a block of their own, which may not be writable.
    """
    for number in itertools.count(len(os.listdir(directory))):
        wanted = min(MIB, free_bytes(directory))
        if wanted < BLOCK_BYTES:
            return
        piece = directory / str(number)
        while not _is_allocated(piece, wanted):
            wanted = wanted // 2 // BLOCK_BYTES * BLOCK_BYTES


def _is_allocated(piece: Path, size_bytes: int) -> bool:
    with piece.open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    return piece.stat().st_size == size_bytes and len(extents(piece)) <= EXTENTS_IN_INODE


def _delete_files(directory: Path) -> None:
    for piece in directory.iterdir():
        piece.unlink()


def extents(path: Path) -> list[tuple[int, int]]:
    """Return the parts of a file on the disk as (offset, size in bytes), in file order."""
    head, extent = struct.calcsize(FIEMAP_HEAD), struct.calcsize(FIEMAP_EXTENT)
    request = bytearray(head + EXTENTS_MAX * extent)
    struct.pack_into(FIEMAP_HEAD, request, 0, 0, 2**64 - 1, FIEMAP_SYNC, 0, EXTENTS_MAX, 0)
    with path.open("rb") as file:
        fcntl.ioctl(file, FIEMAP, request)
    count = struct.unpack_from(FIEMAP_HEAD, request)[3]
    records = (struct.unpack_from(FIEMAP_EXTENT, request, head + n * extent) for n in range(count))
    return [(record[1], record[2]) for record in records]


# disks, devices and mounts


@contextmanager
def _memory_disk(size_bytes: int) -> Generator[int]:
    """Yield the descriptor of an unnamed disk in memory."""
    image = os.memfd_create("small-disk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(image, size_bytes)
        yield image
    finally:
        os.close(image)


@contextmanager
def _thin_disk(directory: Path) -> Generator[int]:
    """Yield the descriptor of a sparse disk, which takes blocks from the file system below it."""
    image = os.open(directory / "disk", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(image, DISK_BYTES)
        yield image
    finally:
        os.close(image)


@contextmanager
def _ext4(image: int, *, inodes: int | None, journal: bool = True) -> Generator[str]:
    """Make an ext4 and yield its loop device, which the kernel frees at the end."""
    if shutil.which("mkfs.ext4") is None or shutil.which("losetup") is None:
        raise Unavailable("mkfs.ext4 or losetup is not installed")
    name = f"/proc/{os.getpid()}/fd/{image}"
    run("mkfs.ext4", *EXT4, *(("-N", str(inodes)) if inodes else ()), name)
    if not journal:
        run("tune2fs", "-O", "^has_journal", name)
    device = run("losetup", "--show", "--find", name)
    held = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        run("losetup", "--detach", device)  # takes effect at the last close, also after a kill
        yield device
    finally:
        os.close(held)


@contextmanager
def _mounted(point: Path, device: str | None, size_mb: int, inodes: int | None) -> Iterator[None]:
    """Mount a device, or a tmpfs of `size_mb`."""
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
    except Unavailable:  # a failed test may have left a file open
        run("umount", "--lazy", str(point))


def _take_blocks(descriptor: int, size_bytes: int) -> None:
    """Allocate up to `size_bytes`, as far as blocks are free."""
    taken, step = 0, MIB
    while step >= BLOCK_BYTES and taken < size_bytes:
        wanted = min(step, size_bytes - taken)
        try:
            os.posix_fallocate(descriptor, taken, wanted)
            taken += wanted
        except OSError:
            step //= 2


def run(*command: str) -> str:
    """Run a command and return its output. Raises Unavailable with the reason when it fails."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be run here: {error}") from error
    if done.returncode != 0:
        raise Unavailable(f"{command[0]} is not allowed here: {done.stderr.strip()}")
    return done.stdout.strip()
