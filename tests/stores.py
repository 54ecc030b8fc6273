"""Stores opened by a test itself: with its own clock, and without the settings' machinery."""

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from seline.clock import Clock
from seline.library import manager_options, volume_options
from seline.manager import DataManager, ManagedStore, ManagerOptions
from seline.operations import Operations
from seline.ports.store import DocumentStore
from seline.settings import load_settings
from seline.storage.volume.open import open_volume
from seline.storage.volume.store import VolumeStore


def options(**changes: Any) -> ManagerOptions:
    """Return the default options, with some changed."""
    return replace(manager_options(load_settings(environ={})), **changes)


def managed(store: object, *, clock: Clock | None = None, **changes: Any) -> ManagedStore:
    """Return the manager of an open store."""
    opening: Future[DocumentStore] = Future()
    opening.set_result(cast("DocumentStore", store))
    return ManagedStore(opening, options(**changes), clock=clock)


def data_over(store: ManagedStore) -> DataManager:
    """Return the DataManager over a managed store."""
    return DataManager(store, Operations(store))


def open_managed(directory: Path, clock: Clock, **changes: Any) -> ManagedStore:
    """Open a volume with a clock of the test's own; `limit_mb` goes to the volume."""
    store = open_store(directory, clock, limit_mb=changes.pop("limit_mb", None))
    return managed(store, clock=clock, **changes)


def open_store(directory: Path, clock: Clock | None = None, **changes: Any) -> VolumeStore:
    """Open a volume with the default options, some changed, and without waiting."""
    defaults = volume_options(load_settings(environ={}), lock_wait_s=0)
    return open_volume(replace(defaults, data_dir=str(directory), **changes), clock=clock)
