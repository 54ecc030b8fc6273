"""Stores opened by a test itself: with its own clock, and without the settings' machinery."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from seline.clock import Clock
from seline.library import manager_options
from seline.manager import DataManager, ManagedStore, ManagerOptions
from seline.operations import Operations
from seline.ports.store import DocumentStore
from seline.settings import load_settings
from seline.storage.volume.store import VolumeOptions, open_volume


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
    limit_mb = changes.pop("limit_mb", None)
    volume = VolumeOptions(data_dir=str(directory), lock_wait_s=0, limit_mb=limit_mb)
    return managed(open_volume(volume, clock=clock), clock=clock, **changes)
