"""Another program changes a file during a commit; neither its content nor Seline's is lost.

V1  A reader never finds a document missing while it is replaced.
V4  Content that another program wrote during a commit is served or kept as a backup.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from seline.blocking import Seline
from seline.errors import DocumentUnrecoverable
from tests.faults.injection import A, backup_values, incident_kinds, inode, run_at_sync


@pytest.mark.usefixtures("files_at_once")
def test_a_torn_document_is_not_missing_while_an_import_replaces_it(
    seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / A).write_text("{torn")
    os.utime(directory / A, (1, 1))
    errors: list[object] = []
    for _ in range(2):
        with pytest.raises(DocumentUnrecoverable):
            seline.data.load_json(A)
    run_at_sync(monkeypatch, inode(directory), lambda: errors.append(load_error(seline)))

    seline.data.import_data({"exported_at": "2025-01-06T14:30:22Z", "files": {A: {"n": 1}}})

    assert errors == [DocumentUnrecoverable]
    assert seline.data.load_json(A) == {"n": 1}


@pytest.mark.usefixtures("first_form")
def test_a_hand_edit_during_the_directory_sync_is_served_and_the_saved_content_is_kept(
    seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline.data.save_json(A, {"n": 1})
    run_at_sync(
        monkeypatch, inode(directory), lambda: (directory / A).write_text('{"n": "by hand"}')
    )

    seline.data.save_json(A, {"n": 2})

    assert seline.data.load_json(A) == {"n": "by hand"}
    seline.data.save_json(A, {"n": 3})
    assert backup_values(seline) == [{"n": "by hand"}, {"n": 2}, {"n": 1}]
    assert {backup.verdict for backup in seline.data.backups(A)} == {"sound"}


@pytest.mark.usefixtures("files_at_once")
def test_a_recovery_does_not_overwrite_a_sound_file_that_replaced_the_broken_one(
    seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        seline.data.save_json(A, {"n": number})
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

    seline.data.load_json(A)

    assert seline.data.load_json(A) == {"n": "by hand"}
    assert (directory / A).read_text() == '{"n": "by hand"}' or "adopted" in incident_kinds(seline)
    assert seline.quarantine() == []
    assert "recovered" not in incident_kinds(seline)


@pytest.mark.usefixtures("files_at_once")
def test_a_backup_does_not_replace_a_file_of_the_same_name(
    seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index does not know the name, because the file is created just before the link."""
    seline.data.save_json(A, {"n": 1})
    real = os.link
    existing: list[Path] = []

    def link(*arguments: Any, **options: Any) -> None:
        if not existing:
            existing.append(directory / "backups" / arguments[1])
            existing[0].write_text('{"n": "foreign"}')
        real(*arguments, **options)

    monkeypatch.setattr(os, "link", link)

    seline.data.save_json(A, {"n": 2})

    assert existing[0].read_text() == '{"n": "foreign"}'
    assert {"n": 1} in backup_values(seline)


def load_error(seline: Seline) -> object:
    """Load in a separate thread, since the caller may be the writer; return the type of error."""
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(seline.data.load_json, A).exception(10)
    return type(error)
