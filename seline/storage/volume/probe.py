"""What this volume can do, tried at open: links, exchange, attributes, directory sync, clocks."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Final, Self

from seline.domain.integrity import ATTRIBUTE, ATTRIBUTE_BYTES_MAX
from seline.ports.store import Capability
from seline.storage.volume import disk
from seline.storage.volume.failures import describe
from seline.storage.volume.ground import Ground
from seline.storage.volume.mounts import NETWORK_KINDS, Mount, journal_missing, mount_of

_STEP_WAIT_S: Final = 0.03
FINE_STEP_S: Final = 0.000_5


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What the store's way of working depends on, with the words for health."""

    checksums: bool
    links: bool
    exchange: bool
    fine_timestamps: bool
    own_mount: bool
    capabilities: tuple[Capability, ...]


def probe(ground: Ground) -> Probed:
    """Try everything once in the staging directory, leaving nothing there."""
    with _Scratch(ground.staging) as scratch:
        links = scratch.works(scratch.try_link)
        exchange = scratch.works(scratch.try_exchange)
        attributes = scratch.works(scratch.try_attribute)
        step_s = scratch.timestamp_step_s()
    directory_sync = _works_directory_sync(ground.staging)
    mount = mount_of(ground.path)
    own_mount = mount is not None and mount.point != "/"
    return Probed(
        checksums=attributes is None,
        links=links is None,
        exchange=exchange is None,
        fine_timestamps=step_s <= FINE_STEP_S,
        own_mount=own_mount,
        capabilities=(
            _capability("checksums", attributes, "checksums: unsupported; only syntax is checked"),
            _capability("links", links, "backups are copied, not linked: slower, more space"),
            _capability("exchange", exchange, "a hand edit in the very moment of a save is lost"),
            _capability("directory sync", directory_sync, "renames may be lost in a power cut"),
            _lock_capability(ground),
            _timestamps(step_s),
            _filesystem(mount),
        ),
    )


class _Scratch:
    """Two small files to try things on."""

    def __init__(self, directory: int) -> None:
        self._directory = directory

    def __enter__(self) -> Self:
        self._clean()
        for name in ("probe-a", "probe-b"):
            os.close(disk.stage(self._directory, name, b"{}\n", None, time.time_ns()))
        return self

    def __exit__(self, *_: object) -> None:
        self._clean()

    def _clean(self) -> None:
        for name in ("probe-a", "probe-b", "probe-c"):
            disk.unlink(self._directory, name, missing_ok=True)

    def works(self, attempt: object) -> str | None:
        """Return None if the attempt worked, else what the disk said."""
        try:
            attempt()  # type: ignore[operator]
        except AttributeError:
            return "this system has none"
        except OSError as error:
            return describe(error)
        return None

    def try_link(self) -> None:
        disk.link(self._directory, "probe-a", self._directory, "probe-c")

    def try_exchange(self) -> None:
        disk.exchange(self._directory, "probe-a", self._directory, "probe-b")

    def try_attribute(self) -> None:
        descriptor = os.open("probe-a", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            os.setxattr(descriptor, ATTRIBUTE, bytes(ATTRIBUTE_BYTES_MAX))
        finally:
            os.close(descriptor)

    def timestamp_step_s(self) -> float:
        """Return how long two changes may share one ctime."""
        started = time.monotonic()
        first = os.stat("probe-a", dir_fd=self._directory).st_ctime_ns
        while (waited_s := time.monotonic() - started) < _STEP_WAIT_S:
            os.chmod("probe-a", disk.FILE_MODE, dir_fd=self._directory)
            if os.stat("probe-a", dir_fd=self._directory).st_ctime_ns != first:
                break
        return waited_s


def _works_directory_sync(directory: int) -> str | None:
    try:
        disk.sync(directory)
    except OSError as error:
        return describe(error)
    return None


def _capability(name: str, refused: str | None, meaning: str) -> Capability:
    detail = "works" if refused is None else f"{meaning} ({refused})"
    return Capability(name=name, present=refused is None, detail=detail)


def _lock_capability(ground: Ground) -> Capability:
    if ground.lock_file is None:
        return Capability(name="lock", present=True, detail="on the directory itself")
    return Capability(
        name="lock", present=False, detail="on a file: exclusion is not guaranteed here"
    )


def _timestamps(step_s: float) -> Capability:
    if step_s <= FINE_STEP_S:
        return Capability(name="timestamps", present=True, detail="fine")
    return Capability(
        name="timestamps",
        present=False,
        detail=f"steps of {step_s * 1000:.0f} ms: young documents are compared by their bytes",
    )


def _filesystem(mount: Mount | None) -> Capability:
    if mount is None:
        return Capability(name="file system", present=True, detail="unknown")
    if mount.kind in NETWORK_KINDS:
        detail = f"{mount.kind}, a network file system: neither locks nor syncs can be relied on"
        return Capability(name="file system", present=False, detail=detail)
    if journal_missing(mount):
        detail = "ext4 without a journal: a power cut may damage the file system itself"
        return Capability(name="file system", present=False, detail=detail)
    return Capability(name="file system", present=True, detail=mount.kind)
