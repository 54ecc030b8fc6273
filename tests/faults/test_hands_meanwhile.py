"""Somebody else changes a file in the very moment of a commit, and neither side loses anything.

V1  A reader never finds a document blank while it is replaced.
V4  What a person put there meanwhile is served or kept, never overwritten or set aside.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from seline.blocking import Seline
from seline.errors import DocumentUnrecoverable
from tests.faults.injection import A, at_the_sync, in_backups, inode, told_of


def test_a_broken_document_is_never_blank_while_it_is_replaced(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / A).write_text("{torn")
    os.utime(directory / A, (1, 1))
    broken: list[object] = []
    for _ in range(2):
        with pytest.raises(DocumentUnrecoverable):
            opened.data.load_json(A)
    at_the_sync(monkeypatch, inode(directory), lambda: broken.append(load_or_error(opened)))

    opened.data.import_data({"exported_at": "2025-01-06T14:30:22Z", "files": {A: {"n": 1}}})

    assert broken == [DocumentUnrecoverable]
    assert opened.data.load_json(A) == {"n": 1}


def test_a_hand_edit_while_the_directory_is_synced_is_served_and_what_was_saved_is_kept(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.data.save_json(A, {"n": 1})
    at_the_sync(
        monkeypatch, inode(directory), lambda: (directory / A).write_text('{"n": "by hand"}')
    )

    opened.data.save_json(A, {"n": 2})

    assert opened.data.load_json(A) == {"n": "by hand"}
    opened.data.save_json(A, {"n": 3})
    assert in_backups(opened) == [{"n": "by hand"}, {"n": 2}, {"n": 1}]
    assert {one.verdict for one in opened.data.backups(A)} == {"sound"}


def test_a_recovery_never_lands_on_the_good_file_that_a_person_just_put_there(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        opened.data.save_json(A, {"n": number})
    flipped = (directory / A).read_bytes().replace(b"2", b"3")
    status = (directory / A).stat()
    (directory / A).write_bytes(flipped)
    os.utime(directory / A, ns=(status.st_atime_ns, status.st_mtime_ns))
    real, good = os.link, directory / "good"
    good.write_text('{"n": "by hand"}')

    def link(*arguments: Any, **options: Any) -> None:
        if good.exists():
            good.rename(directory / A)
        real(*arguments, **options)

    monkeypatch.setattr(os, "link", link)

    opened.data.load_json(A)

    assert opened.data.load_json(A) == {"n": "by hand"}
    assert (directory / A).read_text() == '{"n": "by hand"}' or "adopted" in told_of(opened)
    assert opened.data.quarantine() == []
    assert "recovered" not in told_of(opened)


def test_a_backup_never_replaces_what_bears_its_name(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that the index does not know, because it came in this very moment."""
    opened.data.save_json(A, {"n": 1})
    real = os.link
    taken: list[Path] = []

    def link(*arguments: Any, **options: Any) -> None:
        if not taken:
            taken.append(directory / "backups" / arguments[1])
            taken[0].write_text('{"n": "of somebody else"}')
        real(*arguments, **options)

    monkeypatch.setattr(os, "link", link)

    opened.data.save_json(A, {"n": 2})

    assert taken[0].read_text() == '{"n": "of somebody else"}'
    assert {"n": 1} in in_backups(opened)


def load_or_error(seline: Seline) -> object:
    """Load from a thread of its own: this may be the writer's."""
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(seline.data.load_json, A).exception(10)
    return type(error)
