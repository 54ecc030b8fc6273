"""Open a volume: hold its directory, build the store's parts, and recover from a crash."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from seline.clock import Clock
from seline.errors import SelineError
from seline.storage.volume.admission import Admission
from seline.storage.volume.backup_index import BackupIndexes
from seline.storage.volume.batches import Batches
from seline.storage.volume.cache import Cache
from seline.storage.volume.capabilities import Capabilities, probe
from seline.storage.volume.commit.exchange_form import ExchangeCommitter
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.disk_usage import DiskUsage
from seline.storage.volume.events import Events
from seline.storage.volume.inspect import Inspector
from seline.storage.volume.lock import hold, wait_for
from seline.storage.volume.medium import VolumeMedium
from seline.storage.volume.mounts import check_place
from seline.storage.volume.os_errors import named, raising
from seline.storage.volume.reopen import Reopener
from seline.storage.volume.rotation import Rotation
from seline.storage.volume.snapshots import Snapshots
from seline.storage.volume.store import VolumeStore
from seline.storage.volume.writer import Writer

DEFAULT_LIMIT_MB: Final = 500
"""The size limit of a volume that is not a mount of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOptions:
    """How a volume is opened; bytes, seconds and percent as named."""

    data_dir: str
    lock_wait_s: float
    mount_wait_s: float
    mount_required: bool
    mount_expected_under: str | None
    limit_mb: int | None
    reserve_percent: float
    document_bytes_max: int
    documents_max: int
    settle_s: float
    cache_bytes_max: int
    strict: bool
    serves_commands: bool


def open_volume(
    options: VolumeOptions,
    *,
    clock: Clock | None = None,
    on_wait: Callable[[SelineError], None] | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> VolumeStore:
    """Hold the volume, recover from a crash, and return the store. Blocks.

    `on_wait` is called with what is waited for; `give_up` ends the wait. Raises VolumeNotMounted
    (after `mount_wait_s`), VolumeLocked (after `lock_wait_s`), UnsupportedFormat or StorageError.
    """
    clock = clock or Clock()
    wait_for(
        lambda: check_place(
            options.data_dir,
            required=options.mount_required,
            expected_under=options.mount_expected_under,
        ),
        wait_s=options.mount_wait_s,
        on_wait=on_wait,
        give_up=give_up,
    )
    volume = hold(
        os.path.abspath(options.data_dir),
        wait_s=options.lock_wait_s,
        clock=clock,
        serves_commands=options.serves_commands,
        on_wait=on_wait,
        give_up=give_up,
    )
    try:
        with raising(named, f"Opening the volume at {options.data_dir}"):
            return _open(volume, options, clock)
    except BaseException:
        volume.close()
        raise


def _open(volume: VolumeDirectory, options: VolumeOptions, clock: Clock) -> VolumeStore:
    """Build the store's parts, recover from a crash, and start the writer."""
    capabilities = probe(volume)
    events = Events(clock)
    disk_usage = DiskUsage(
        volume=volume,
        limit_bytes=_limit_bytes(options, capabilities),
        reserve_percent=options.reserve_percent,
        own_mount=capabilities.own_mount,
    )
    inspector = Inspector(
        volume=volume,
        clock=clock,
        settle_s=options.settle_s,
        document_bytes_max=options.document_bytes_max,
        capabilities=capabilities,
        cache=Cache(options.cache_bytes_max),
    )
    backup_indexes = BackupIndexes(volume)
    current_documents = CurrentDocuments(inspector, backup_indexes)
    snapshots = Snapshots(volume, current_documents)
    committer = ExchangeCommitter(
        volume=volume,
        capabilities=capabilities,
        current_documents=current_documents,
        report=events.report,
        release_reserve=disk_usage.release_reserve,
        before_replacing=snapshots.before_replacing,
    )
    rotation = Rotation(volume, inspector, backup_indexes, disk_usage.discarded)
    admission = Admission(volume, rotation, disk_usage, clock, events, options.documents_max)
    reopener = Reopener(volume, current_documents, committer, clock, events)
    batches = Batches(
        current_documents, committer, rotation, disk_usage, clock, events, admission, reopener,
        options.strict,
    )  # fmt: skip
    committer.recover(clock.now())
    admission.count_documents()
    disk_usage.rebuild_reserve()
    writer = Writer(batches.process, idle=batches.idle)
    medium = VolumeMedium(volume, capabilities, current_documents, batches, writer)
    return VolumeStore(volume, medium, clock, current_documents, snapshots, batches, writer)


def _limit_bytes(options: VolumeOptions, capabilities: Capabilities) -> int | None:
    if options.limit_mb is not None:
        return options.limit_mb << 20
    return None if capabilities.own_mount else DEFAULT_LIMIT_MB << 20
