"""A purge leaves nothing of a document, or says what is left and can be made again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from seline.blocking import Seline, open_seline
from seline.errors import OutcomeUnknown
from seline.storage.volume import files
from tests.faults.injection import refused
from tests.proof import operations
from tests.proof.operations import A


def test_a_purge_that_leaves_something_says_so_and_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks to be forgotten is not told "done" while a copy is left."""
    operations.documents(tmp_path)
    with operations.opened(tmp_path) as seline:
        with monkeypatch.context() as patch:
            patch.setattr(files, "unlink", _failing_for(A.removesuffix(".json"), files.unlink))
            with pytest.raises(OutcomeUnknown, match="did not let go"):
                seline.data.delete(A, purge=True)
        left = _copies(seline)

        seline.data.delete(A, purge=True)

        assert left > 0
        assert _copies(seline) == 0


def test_a_purge_leaves_nothing_of_a_document_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_seline(tmp_path, lock_wait_s=0, storage__cache_bytes_max=0) as seline:
        seline.data.save_json(A, {"secret": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", refused(errno.EIO))
            seline.data.delete(A, purge=True)
    with open_seline(tmp_path, lock_wait_s=0) as seline:
        assert seline.data.quarantine() == []
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()
    ] == []


def test_a_purge_names_a_directory_that_it_does_not_erase(opened: Seline, directory: Path) -> None:
    (directory / A).mkdir()
    (directory / A / "of a person").write_text("{}")

    with pytest.raises(OutcomeUnknown, match=r"quarantine/a_\w+\.json is a directory"):
        opened.data.delete(A, purge=True)

    [kept] = (directory / "quarantine").iterdir()
    assert (kept / "of a person").exists()
    assert list((directory / ".seline" / "staging").iterdir()) == []


def _failing_for(document: str, call: Callable[..., None]) -> Callable[..., None]:
    """Let the first removal of something of a document fail."""
    failed: list[str] = []

    def unlink(directory: int, name: str, *, missing_ok: bool = False) -> None:
        if name.startswith(f"{document}_") and not failed:
            failed.append(name)
            raise OSError(5, "Input/output error")
        call(directory, name, missing_ok=missing_ok)

    return unlink


def _copies(seline: Seline) -> int:
    kept = [*seline.data.all_backups(), *seline.data.quarantine()]
    return sum(copy.document == A for copy in kept)
