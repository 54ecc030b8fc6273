"""A purge erases every copy of a document, or raises and can be repeated."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seline.blocking import Seline, open_seline
from seline.errors import OutcomeUnknown
from seline.storage.volume import files
from tests.faults.forms import each_form_at_once
from tests.faults.injection import failing_call
from tests.proof import operations
from tests.proof.operations import A

pytestmark = each_form_at_once


def test_an_incomplete_purge_raises_outcome_unknown_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller must not receive success while a copy remains."""
    operations.documents(tmp_path)
    with operations.opened(tmp_path) as seline:
        with monkeypatch.context() as patch:
            patch.setattr(
                files, "unlink", _fail_first_removal(A.removesuffix(".json"), files.unlink)
            )
            with pytest.raises(OutcomeUnknown, match="did not remove all"):
                seline.data.delete(A, purge=True)
        remaining = _copies_of_a(seline)

        seline.data.delete(A, purge=True)

        assert remaining > 0
        assert _copies_of_a(seline) == 0


def test_a_purge_erases_a_document_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_seline(tmp_path, lock_wait_s=0, storage__cache_bytes_max=0) as seline:
        seline.data.save_json(A, {"secret": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", failing_call(errno.EIO))
            seline.data.delete(A, purge=True)
    with open_seline(tmp_path, lock_wait_s=0) as seline:
        assert seline.quarantine() == []
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()
    ] == []


def test_a_purge_names_a_directory_that_it_keeps(seline: Seline, directory: Path) -> None:
    (directory / A).mkdir()
    (directory / A / "of a person").write_text("{}")

    with pytest.raises(OutcomeUnknown, match=r"quarantine/a_\w+\.seline\.json is a directory"):
        seline.data.delete(A, purge=True)

    [kept] = (directory / "quarantine").iterdir()
    assert (kept / "of a person").exists()
    [check] = [row for row in _checks(seline) if "is a directory" in row["detail"]]
    assert check["name"] == "access_refused"
    assert f"mv -n -- {kept}" in check["detail"]
    assert list((directory / ".seline" / "staging").iterdir()) == []


def test_a_purge_names_a_directory_among_the_backups(seline: Seline, directory: Path) -> None:
    for number in range(3):
        seline.data.save_json(A, {"n": number})
    kept = directory / "backups" / "a_20240101_000000.json"
    kept.mkdir()

    with pytest.raises(OutcomeUnknown, match=f"backups/{kept.name} is a directory") as refused:
        seline.data.delete(A, purge=True)

    step = f"mv -n -- {kept} {kept}.moved"
    assert step in str(refused.value.hint)
    [check] = [row for row in _checks(seline) if "is a directory" in row["detail"]]
    assert step in check["detail"]
    assert [path.name for path in (directory / "backups").iterdir()] == [kept.name]


def test_a_purge_of_a_broken_document_claims_no_bytes_in_quarantine(
    seline: Seline, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (directory / A).write_text('{"a":')

    seline.data.delete(A, purge=True)

    assert f"{A} was purged while it was broken" in caplog.text
    assert "quarantine" not in caplog.text
    assert not [row for row in _checks(seline) if row["name"] == "set_aside"]


def _checks(seline: Seline) -> list[dict[str, str]]:
    checks: Any = seline.health()["checks"]
    return list(checks)


def _fail_first_removal(document: str, remove: Callable[..., None]) -> Callable[..., None]:
    """Return `remove` with a failure at the first removal of a copy of `document`."""
    refused: list[str] = []

    def unlink(directory: int, name: str, *, missing_ok: bool = False) -> None:
        if name.startswith(f"{document}_") and not refused:
            refused.append(name)
            raise OSError(5, "Input/output error")
        remove(directory, name, missing_ok=missing_ok)

    return unlink


def _copies_of_a(seline: Seline) -> int:
    kept = [*seline.all_backups(), *seline.quarantine()]
    return sum(copy.document == A for copy in kept)
