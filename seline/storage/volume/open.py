"""Open a volume: hold its directory, build the store's parts, and recover from a crash."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Final

from seline.clock import Clock
from seline.domain.backup import Backup
from seline.errors import SelineError, StorageError
from seline.ports.medium import Capability
from seline.settings import Settings, Storage
from seline.storage.volume.admission import Admission
from seline.storage.volume.batches import Batches
from seline.storage.volume.cache import Cache
from seline.storage.volume.capabilities import Capabilities, probe
from seline.storage.volume.commit.exchange_form import ExchangeCommitter
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.disk_usage import DiskUsage
from seline.storage.volume.earlier import earlier_recoveries
from seline.storage.volume.events import Events
from seline.storage.volume.inspect import Inspector
from seline.storage.volume.journal.form import JournalCommitter
from seline.storage.volume.journal.publishing import Unpublished
from seline.storage.volume.lock import hold, wait_for
from seline.storage.volume.medium import VolumeMedium
from seline.storage.volume.mounts import check_place
from seline.storage.volume.os_errors import raising
from seline.storage.volume.reopen import Reopener
from seline.storage.volume.rotation import Rotation
from seline.storage.volume.snapshots import Snapshots
from seline.storage.volume.store import VolumeStore
from seline.storage.volume.writer import Writer

DEFAULT_LIMIT_MB: Final = 500
"""The size limit of a volume that is not a mount of its own."""


def open_volume(
    settings: Settings,
    *,
    lock_wait_s: float = 0.0,
    mount_wait_s: float = 0.0,
    serves_commands: bool = False,
    clock: Clock | None = None,
    on_wait: Callable[[SelineError], None] | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> VolumeStore:
    """Hold the volume, recover from a crash, and return the store. Blocks.

    `serves_commands` announces to other processes that they can send commands to this one.
    `on_wait` is called with what is waited for; `give_up` ends the wait. Raises VolumeNotMounted
    (after `mount_wait_s`), VolumeLocked (after `lock_wait_s`), UnsupportedFormat or StorageError.
    """
    clock = clock or Clock()
    wait_for(
        lambda: check_place(
            settings.data_dir,
            required=settings.mount_required,
            expected_under=settings.mount_expected_under,
        ),
        wait_s=mount_wait_s,
        on_wait=on_wait,
        give_up=give_up,
    )
    volume = hold(
        os.path.abspath(settings.data_dir),
        wait_s=lock_wait_s,
        clock=clock,
        serves_commands=serves_commands,
        on_wait=on_wait,
        give_up=give_up,
    )
    try:
        with raising(volume.named, f"Opening the volume at {settings.data_dir}"):
            store = _open(volume, settings, clock)
    except BaseException:
        volume.close()
        raise
    try:
        _report_earlier(store)
    except BaseException:
        store.close()
        raise
    return store


def choose_commit_form(settings: Settings, *, journal: bool, lock_wait_s: float) -> Capability:
    """Have a volume opened with or without a journal from now on; return the form in use. Blocks.

    What the journal had is in the documents' files then. Raises what `open_volume` raises, and what
    keeps a journal from being replayed.
    """
    storage = settings.storage if journal else replace(settings.storage, journal_bytes=0)
    settings = replace(settings, storage=storage)
    with closing(open_volume(settings, lock_wait_s=lock_wait_s)) as store:
        if (failure := store.medium.unavailable()) is not None:
            raise failure
        store.volume.keep_first_form(keep=not journal)
    with closing(open_volume(settings, lock_wait_s=lock_wait_s)) as store:
        return store.batches.committer.form


def _open(volume: VolumeDirectory, settings: Settings, clock: Clock) -> VolumeStore:
    """Build the store's parts, recover from a crash, and start the writer."""
    storage = settings.storage
    capabilities = probe(volume)
    events = Events(clock, volume)
    disk_usage = DiskUsage(
        volume=volume,
        limit_bytes=_limit_bytes(storage, capabilities),
        reserve_percent=storage.reserve_percent,
        own_mount=capabilities.own_mount,
        document_bytes_max=storage.document_bytes_max,
    )
    inspector = Inspector(
        volume=volume,
        clock=clock,
        settle_s=storage.settle_s,
        document_bytes_max=storage.document_bytes_max,
        capabilities=capabilities,
        cache=Cache(storage.cache_bytes_max),
    )
    current_documents = CurrentDocuments(inspector)
    snapshots = Snapshots(volume, current_documents)
    rotation = Rotation(volume, current_documents, disk_usage.discarded, snapshots.forget)
    admission = Admission(volume, rotation, disk_usage, clock, events, settings)
    committer = _committer(admission, capabilities, snapshots, storage)
    admission.write_pending = lambda: committer.settle(clock.now())
    reopener = Reopener(volume, current_documents, committer, clock, events, admission)
    batches = Batches(
        current_documents, committer, rotation, disk_usage, clock, events, admission, reopener,
        settings.strict,
    )  # fmt: skip
    reopener.start(clock.now())
    disk_usage.rebuild_reserve()
    writer = Writer(batches.process, idle=batches.idle)
    medium = VolumeMedium(volume, capabilities, current_documents, batches, writer)
    return VolumeStore(volume, medium, clock, current_documents, snapshots, batches, writer)


def _committer(
    admission: Admission, capabilities: Capabilities, snapshots: Snapshots, storage: Storage
) -> JournalCommitter:
    volume, events, disk_usage = admission.volume, admission.events, admission.disk_usage
    current_documents = snapshots.current_documents
    first = ExchangeCommitter(
        volume=volume,
        capabilities=capabilities,
        current_documents=current_documents,
        report=events.report,
        release_reserve=disk_usage.release_reserve,
        before_replacing=snapshots.before_replacing,
    )
    return JournalCommitter(
        first,
        volume=volume,
        capabilities=capabilities,
        current_documents=current_documents,
        clock=admission.clock,
        journal_bytes=storage.journal_bytes,
        limit_bytes=disk_usage.limit_bytes,
        publish_within_s=storage.publish_within_ms / 1000,
        report=events.report,
        disk_error=events.disk_error,
        release_reserve=disk_usage.release_reserve,
        make_room=admission.make_room,
        before_replacing=snapshots.before_replacing,
        rotate=partial(_rotate, admission, events),
    )


def _rotate(
    admission: Admission, events: Events, document: Unpublished, made: Sequence[Backup]
) -> None:
    """Count and rotate the backups of a document that was published from the journal."""
    admission.took((), made)
    events.succeeded(document.key)
    if document.retain is None or not made:
        return
    names = [backup.name for backup in made]
    try:
        admission.rotation.rotate(document.key, document.retain, just_made=names)
    except (OSError, StorageError) as error:
        events.disk_error(error, "Tidying up", [document.key])


def _report_earlier(store: VolumeStore) -> None:
    """Report the recoveries of earlier processes."""
    with suppress(OSError, StorageError):  # what cannot be listed must not keep the volume closed
        for recovery in earlier_recoveries(store.current_documents, store.clock.now()):
            store.batches.events.recovered_before(recovery)


def _limit_bytes(storage: Storage, capabilities: Capabilities) -> int | None:
    if storage.volume_limit_mb is not None:
        return storage.volume_limit_mb << 20
    return None if capabilities.own_mount else DEFAULT_LIMIT_MB << 20
