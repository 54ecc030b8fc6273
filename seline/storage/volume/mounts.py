"""Find a directory's mount and its kind of file system, and check that it is the right place.

V12  Seline does not start an empty store on a container's own disk.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seline.errors import VolumeNotMounted

NETWORK_KINDS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"}
)
_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\(\d{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of the kernel's mount table.

    `is_stopped`: the kernel refuses writes to it after an error (ext4, from Linux 6.14 on).
    """

    point: str
    kind: str
    device: str
    is_stopped: bool = False


def mount_of(path: str) -> Mount | None:
    """Return the mount that holds `path`, None if the system has no mount table."""
    real = os.path.realpath(path)
    best: Mount | None = None
    for mount in _mounts():
        inside = mount.point == "/" or real == mount.point or real.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def mounts_inside(path: str) -> list[str]:
    """Return the mounts below `path`, in the order in which they can be unmounted."""
    below = os.path.realpath(path).rstrip("/") + "/"
    return [mount.point for mount in reversed(_mounts()) if mount.point.startswith(below)]


def check_place(data_dir: str, *, required: bool, expected_under: str | None) -> None:
    """Raise VolumeNotMounted unless the data directory is on the required mount (V12)."""
    if not required:
        return
    real = os.path.realpath(data_dir)
    mount = mount_of(real)
    if mount is None or mount.point == "/":
        raise VolumeNotMounted(
            f"No volume is mounted at {data_dir}: it lies on the machine's own disk, "
            "which the next deployment throws away.",
            data_dir=data_dir,
        )
    if expected_under is None:
        return
    volume = os.path.realpath(expected_under)
    if real != volume and not real.startswith(volume + "/"):
        raise VolumeNotMounted(
            f"The data directory {data_dir} does not lie on the volume, which is mounted at "
            f"{expected_under}.",
            hint=f"Set SELINE_DATA_DIR={expected_under}, or leave it unset.",
            data_dir=data_dir,
        )
    if not any(known.point == volume for known in _mounts()):
        raise VolumeNotMounted(
            f"The volume that should be mounted at {expected_under} is not there.",
            data_dir=data_dir,
        )


def journal_missing(mount: Mount) -> bool:
    """Whether this is ext4 without a journal; False if the kernel does not show it."""
    journals = Path("/proc/fs/jbd2")
    if mount.kind != "ext4" or not journals.is_dir():
        return False
    device = os.path.basename(os.path.realpath(mount.device))
    return not any(entry.name.startswith(f"{device}-") for entry in journals.iterdir())


def _mounts() -> list[Mount]:
    try:
        lines = _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [_parse(line) for line in lines if " - " in line]


def _parse(line: str) -> Mount:
    left, right = line.split(" - ", 1)
    kind, device, *options = right.split(" ")
    point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), left.split(" ")[4])
    is_stopped = "emergency_ro" in ",".join(options).split(",")
    return Mount(point=point, kind=kind, device=device, is_stopped=is_stopped)
