"""The directory of the benchmarks: on a new journaled ext4 if mounting is allowed.

Hosting platforms limit a volume's writes per second. The kernel can apply the same limit to a loop
device.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from seline.storage.volume.mounts import journal_missing, mount_of

IMAGE_BYTES = 2 << 30
ZEROS = bytes(8 << 20)
THROTTLE = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device")


@contextlib.contextmanager
def place(*, iops: int | None = None) -> Iterator[Path]:
    """Yield a directory on a loop-mounted journaled ext4, else a temporary one.

    `iops` limits the writes per second. Exits if that is not possible.
    """
    with tempfile.TemporaryDirectory(prefix="seline-bench-") as scratch:
        os.chmod(scratch, 0o711)  # PostgreSQL runs as another user
        mounted = _mount(Path(scratch))
        try:
            with _limited(mounted, iops):
                yield mounted or Path(scratch)
        finally:
            if mounted is not None:
                subprocess.run(["umount", "--lazy", str(mounted)], check=False)


def describe(path: Path) -> str:
    """Return the file system of a directory."""
    mount = mount_of(str(path))
    if mount is None:
        return "unknown file system"
    return mount.kind + (" without a journal" if journal_missing(mount) else "")


def can_be_limited() -> bool:
    """Whether a volume can be mounted and its writes limited."""
    return os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None and THROTTLE.exists()


@contextlib.contextmanager
def _limited(mounted: Path | None, iops: int | None) -> Iterator[None]:
    if iops is None:
        yield
        return
    if mounted is None or not THROTTLE.exists():
        sys.exit("Limiting writes needs the right to mount a volume, and blkio in cgroup v1.")
    device = mounted.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    THROTTLE.write_text(f"{number} {iops}")
    try:
        yield
    finally:
        THROTTLE.write_text(f"{number} 0")


def _mount(scratch: Path) -> Path | None:
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return None
    image, point = scratch / "image", scratch / "mount"
    with image.open("wb") as file:  # a block that was only allocated is slow to write at first
        for _ in range(IMAGE_BYTES // len(ZEROS)):
            file.write(ZEROS)
        os.fsync(file.fileno())
    point.mkdir()
    made = subprocess.run(
        ["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)],
        check=False,
        capture_output=True,
    )
    mounted = made.returncode == 0 and subprocess.run(
        ["mount", "-o", "loop", str(image), str(point)], check=False, capture_output=True
    )
    return point if mounted and mounted.returncode == 0 else None
