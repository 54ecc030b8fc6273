"""Probe what a volume can do: links, exchange, attributes, directory sync, timestamps.

`Capabilities.mark` returns the checksum and mtime of a new file as the volume can keep them.
"""

import errno
import os
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from seline.domain.checksum import ATTRIBUTE, ATTRIBUTE_BYTES_MAX, checksum_of, encode_checksum
from seline.domain.document import Content, DocumentKey
from seline.ports.medium import Capability
from seline.storage.volume import files
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.mounts import NETWORK_KINDS, Mount, journal_missing, mount_of
from seline.storage.volume.os_errors import describe, is_full

_CHANGES_TRIED: Final = 8
_ODD_NS: Final = 1_736_173_823_123_456_789
_MTIME_STEPS_NS: Final = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
"""ext4 with small inodes keeps seconds, FAT two seconds, NTFS 100 ns."""
_NO_ANSWER: Final = frozenset(
    {
        errno.EIO, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.ENOMEM,
        errno.EMFILE, errno.ENFILE, errno.ESTALE,
    }
)  # fmt: skip
"""Errors that are no answer of the probe: the opening fails. Otherwise one disk error would mean no
checksums until the next start."""
_SYNC_NOTHING: Final = ("fuse", "9p", "cifs", "smb")
"""Beginnings of the kinds of file systems whose server is not asked when the whole is synced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the volume can do, and how health reports it."""

    checksums: bool
    links: bool
    exchange: bool
    fine_timestamps: bool
    mtime_step_ns: int
    own_mount: bool
    syncs_whole: bool
    """Whether one call makes everything on the volume durable, and nothing else."""
    reported: tuple[Capability, ...]

    def mark(
        self, key: DocumentKey, content: Content, at_ns: int | None = None
    ) -> tuple[bytes | None, int]:
        """Return the checksum attribute (None without attributes) and the mtime of a new file, ns.

        A coarse mtime is set one step back, so that an edit within the step changes it. `at_ns` is
        the instant of the content, now if it is None.
        """
        mtime_ns = time.time_ns() if at_ns is None else at_ns
        if self.mtime_step_ns > 1:
            mtime_ns -= mtime_ns % self.mtime_step_ns + self.mtime_step_ns
        if not self.checksums:
            return None, mtime_ns
        return encode_checksum(checksum_of(key, content, mtime_ns)), mtime_ns


def probe(volume: VolumeDirectory) -> Capabilities:
    """Try each capability once in `.seline/exports/`, and remove the files.

    A volume without space for the files, or one that is read-only, counts as a local file system
    (V9). Raises OSError if the disk fails.
    """
    directory = volume.exports
    refused: dict[str, str | None] = {}
    has_room, writable = True, volume.read_only() is None
    try:
        with _scratch(directory):
            for name, attempt in _ATTEMPTS.items():
                refused[name] = _works(attempt, directory)
            fine, mtime_step_ns = _each_change_shows(directory), _kept_mtime_step_ns(directory)
    except OSError as error:
        if not is_full(error) and error.errno != errno.EROFS:
            raise
        has_room = False
        refused = {"links": None, "exchange": None, "checksums": _try_to_read(directory)}
        fine, mtime_step_ns = False, _mtime_step_ns(os.fstat(directory).st_mtime_ns)
    # Not in staging/: after a kill in the middle of an exchange, the disk may have the content that
    # a record needs under another file's name there, and a sync would lose it.
    refused["directory sync"] = _works(files.flush, directory) if writable else None
    mount = mount_of(volume.path)
    own = mount if mount is not None and mount.point != "/" else None
    return Capabilities(
        checksums=refused["checksums"] is None,
        links=refused["links"] is None,
        exchange=refused["exchange"] is None,
        fine_timestamps=fine,
        mtime_step_ns=mtime_step_ns,
        own_mount=own is not None,
        syncs_whole=own is not None and not own.kind.startswith(_SYNC_NOTHING),
        reported=(
            *(_capability(name, refused[name]) for name in _MISSING),
            _lock_capability(volume),
            _timestamps(fine=fine, has_room=has_room),
            _filesystem(mount),
        ),
    )


def _try_to_read(directory: int) -> str | None:
    """Read an attribute that the directory does not have, which needs no space."""
    if not hasattr(os, "getxattr"):
        return "this system has none"
    try:
        os.getxattr(directory, ATTRIBUTE)
    except OSError as error:
        return None if error.errno == errno.ENODATA else _no(error)
    return None


@contextmanager
def _scratch(directory: int) -> Generator[None]:
    """Make two empty files for the probe, and remove them at the end."""
    _clean(directory)
    try:
        for name in ("probe-a", "probe-b"):
            files.close(files.stage(directory, name, b"", None, time.time_ns()))
    except OSError:
        _clean(directory)
        raise
    try:
        yield
    finally:
        _clean(directory)


def _clean(directory: int) -> None:
    for name in ("probe-a", "probe-b", "probe-c"):
        files.unlink(directory, name, missing_ok=True)


def _works(attempt: Callable[[int], object], directory: int) -> str | None:
    """Return None if the attempt works in the directory, else its error."""
    try:
        attempt(directory)
    except AttributeError:
        return "this system has none"
    except OSError as error:
        return _no(error)
    return None


def _try_link(directory: int) -> None:
    """A start recognises what was linked by the number of links."""
    files.link(directory, "probe-a", directory, "probe-c")
    if files.status(directory, "probe-a").st_nlink != 2:  # two names
        raise OSError(errno.ENOTSUP, "the number of links is not kept")


def _try_exchange(directory: int) -> None:
    files.exchange(directory, "probe-a", directory, "probe-b")


def _try_attribute(directory: int) -> None:
    with _opened(directory) as descriptor:
        os.setxattr(descriptor, ATTRIBUTE, bytes(ATTRIBUTE_BYTES_MAX))


def _kept_mtime_step_ns(directory: int) -> int:
    """Return the step of an mtime in ns; 1 if it is kept as it was set."""
    with _opened(directory) as descriptor:
        os.utime(descriptor, ns=(_ODD_NS, _ODD_NS))
        return _mtime_step_ns(os.fstat(descriptor).st_mtime_ns)


def _opened(directory: int) -> AbstractContextManager[int]:
    return files.closing(os.open("probe-a", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory))


def _each_change_shows(directory: int) -> bool:
    """Whether each of some changes, one after another, gives a file another ctime.

    How long they take shows nothing: a loaded machine may be slow at each one.
    """
    return len({_changed_at_ns(directory) for _ in range(_CHANGES_TRIED)}) == _CHANGES_TRIED


def _changed_at_ns(directory: int) -> int:
    """Change a file, and return its ctime."""
    os.chmod("probe-a", files.FILE_MODE, dir_fd=directory)
    return os.stat("probe-a", dir_fd=directory).st_ctime_ns


def _mtime_step_ns(kept_ns: int) -> int:
    """Return the largest step that an mtime kept by the volume is a multiple of."""
    return max(step_ns for step_ns in _MTIME_STEPS_NS if kept_ns % step_ns == 0)


def _no(error: OSError) -> str:
    """Return the error as a reason; raise it if it is no answer."""
    if error.errno in _NO_ANSWER:
        raise error
    return describe(error)


_ATTEMPTS: Final = {"links": _try_link, "exchange": _try_exchange, "checksums": _try_attribute}
_MISSING: Final = {
    "checksums": "checksums: unsupported; only syntax is checked, copies in backups/ are rotated",
    "links": "backups are copied, not linked: slower, more space",
    "exchange": "a hand edit during a save is lost",
    "directory sync": "renames may be lost in a power cut",
}
"""What it means that the volume lacks a capability."""
_HARMLESS: Final = frozenset({"links"})


def _capability(name: str, refused: str | None) -> Capability:
    detail = "works" if refused is None else f"{_MISSING[name]} ({refused})"
    return Capability(name=name, present=refused is None, detail=detail, harmless=name in _HARMLESS)


def _lock_capability(volume: VolumeDirectory) -> Capability:
    if volume.lock_file is None:
        return Capability(name="lock", present=True, detail="on the directory itself")
    return Capability(
        name="lock", present=False, detail="on a file: exclusion is not guaranteed here"
    )


def _timestamps(*, fine: bool, has_room: bool) -> Capability:
    if fine:
        return Capability(name="timestamps", present=True, detail="fine")
    why = "coarse" if has_room else "no room to try them"
    return Capability(
        name="timestamps",
        present=False,
        detail=f"{why}: young documents are compared by their bytes",
        harmless=True,
    )


def _filesystem(mount: Mount | None) -> Capability:
    if mount and mount.kind in NETWORK_KINDS:
        detail = f"{mount.kind}, a network file system: neither locks nor syncs can be relied on"
        return Capability(name="file system", present=False, detail=detail)
    if mount and journal_missing(mount):
        detail = "ext4 without a journal: a power cut may damage the file system itself"
        return Capability(name="file system", present=False, detail=detail, harmless=True)
    kind = "unknown" if mount is None else mount.kind
    return Capability(name="file system", present=True, detail=kind)
