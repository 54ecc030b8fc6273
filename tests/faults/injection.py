"""One store and the moments of its commits, for the suites in which a single system call matters.

Only calls of the operating system are refused, or used as the moment in which somebody else
changes a file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seline.blocking import Seline
from seline.domain.document import Json
from seline.storage.volume.store import VolumeStore

A, B = "a.json", "b.json"
REOPENED_AFTER_S = 60.0


def store_of(seline: Seline) -> VolumeStore:
    return seline._awaited.data._lifetime.store  # type: ignore[return-value]


def told_of(seline: Seline) -> list[str]:
    return [incident.kind for incident in store_of(seline).incidents()]


def in_backups(seline: Seline, name: str = A) -> list[Json]:
    """Return what is in a document's backups, the newest first."""
    return [seline.data.read_backup(name, one.name) for one in seline.data.backups(name)]


def refused(number: int) -> Callable[..., Any]:
    """Return a system call that fails."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def inode(path: Path) -> int:
    return path.stat().st_ino


def watch_syncs(monkeypatch: pytest.MonkeyPatch, *, failing: int = 0) -> list[int]:
    """Return the inodes that are synced from now on; the sync of one of them may fail, once."""
    synced: list[int] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        number = os.fstat(descriptor).st_ino
        synced.append(number)
        if number == failing and synced.count(number) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return synced


def at_the_sync(monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], object]) -> None:
    """Do something when an inode is synced next."""
    real, left = os.fsync, [do]

    def sync(descriptor: int) -> None:
        if left and os.fstat(descriptor).st_ino == number:
            left.pop()()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
