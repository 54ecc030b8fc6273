"""Helpers that make a system call fail, change a file in a commit, or copy an open volume."""

import errno
import itertools
import os
import shutil
import threading
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
    return seline._awaited.store.opened  # type: ignore[return-value]


def incident_kinds(seline: Seline) -> list[str]:
    return [incident.kind for incident in store_of(seline).medium.incidents()]


def backup_values(seline: Seline, name: str = A) -> list[Json]:
    """Return the values of a document's backups, newest first."""
    return [seline.data.read_backup(name, backup.name) for backup in seline.data.backups(name)]


def left_by_a_kill(volume: Path, to: Path) -> Path:
    """Return a copy of an open volume at `to`: what a kill of its process would leave now."""
    return shutil.copytree(volume, to, ignore=shutil.ignore_patterns("*.sock"))


def failing_call(number: int) -> Callable[..., Any]:
    """Return a system call that fails with `number`."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def refuse_threads(monkeypatch: pytest.MonkeyPatch, name: str, *, after: int = 0) -> None:
    """Let no thread start whose name begins with `name`, except the first `after`."""

    def start(self: threading.Thread) -> None:
        if self.name.startswith(name) and not next(left, False):
            raise RuntimeError("can't start new thread")
        real(self)

    real, left = threading.Thread.start, itertools.repeat(True, after)
    monkeypatch.setattr(threading.Thread, "start", start)


def inode(path: Path) -> int:
    return path.stat().st_ino


def record_syncs(monkeypatch: pytest.MonkeyPatch, *, failing: int = 0) -> list[int]:
    """Record the inode of every sync from now on; the first sync of inode `failing` fails."""
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


def run_at_sync(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], object]) -> None:
    """Run `action` at the next sync of inode `number`."""
    real, pending = os.fsync, [action]

    def sync(descriptor: int) -> None:
        if pending and os.fstat(descriptor).st_ino == number:
            pending.pop()()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
