"""Stores opened by a test itself: with its own clock, and the default settings, some changed."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

from seline.clock import Clock
from seline.manager import ManagedStore
from seline.ports.store import DocumentStore
from seline.settings import Settings, load_settings
from seline.storage.volume.open import open_volume
from seline.storage.volume.store import VolumeStore
from tests.faults.forms import chosen


def settings(*, strict: bool = False, **arguments: Any) -> Settings:
    """Return the default settings, with some changed (`storage__volume_limit_mb=5`)."""
    named = {name.replace("__", ".", 1): value for name, value in arguments.items()}
    return load_settings(
        environ={"SELINE_STRICT": str(strict).lower(), **chosen()}, arguments=named
    )


def managed(store: object, *, clock: Clock | None = None, **arguments: Any) -> ManagedStore:
    """Return the manager of an open store."""
    opening: Future[DocumentStore] = Future()
    opening.set_result(cast("DocumentStore", store))
    return ManagedStore(opening, settings(**arguments), clock=clock)


def open_managed(directory: Path, clock: Clock, **arguments: Any) -> ManagedStore:
    """Open a volume with a clock of the test's own."""
    return managed(open_store(directory, clock, **arguments), clock=clock, **arguments)


def open_store(directory: Path, clock: Clock | None = None, **arguments: Any) -> VolumeStore:
    """Open a volume without waiting."""
    return open_volume(settings(storage__data_dir=str(directory), **arguments), clock=clock)


def scratch_volume(settings: Settings) -> DocumentStore:
    """Open the volume onto which a drill restores."""
    return cast("DocumentStore", open_volume(settings))
