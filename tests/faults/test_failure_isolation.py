"""A change that fails does not affect other changes.

The writer thread continues after each of these: a caller's function raises, a state file of Seline
has an unknown shape, the disk refuses a call, or Seline's code has a defect.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from seline.blocking import Seline, open_seline
from seline.domain.document import BOT, DocumentKey, Json
from seline.errors import OutcomeUnknown, StorageError, VolumeFailed, VolumeReadOnly
from seline.storage.volume import files
from tests.clocks import FakeClock
from tests.faults.injection import REOPENED_AFTER_S, A, B, backup_values, failing_call, store_of


def test_an_error_of_a_callers_function_reaches_only_that_caller(seline: Seline) -> None:
    seline.data.save_json(A, {"n": 1})

    with pytest.raises(KeyError, match="missing key"):
        seline.data.update_json(A, lambda value: value["missing key"])  # type: ignore[index,call-overload]

    seline.data.save_json(B, {"n": 1})
    assert seline.data.load_json(A) == {"n": 1}


@pytest.mark.parametrize("pins", [{"pinned": []}, {"pins": [{"document": A}]}, []])
def test_malformed_pins_are_reset_and_refuse_no_change(
    pins: Json, seline: Seline, directory: Path
) -> None:
    for number in range(3):
        seline.data.save_json(A, {"n": number})
    [newer, older] = seline.data.backups(A)
    path = directory / ".seline" / "pins.json"
    path.write_text(json.dumps(pins))

    seline.data.pin(A, newer.name)

    backups = {backup.name: backup for backup in seline.data.backups(A)}
    assert backups[newer.name].because == "pinned: by hand"
    assert "the pins were lost" in backups[older.name].because
    [quarantined] = (directory / "quarantine").iterdir()
    assert json.loads(quarantined.read_text()) == pins


@pytest.mark.usefixtures("first_form")
def test_a_failed_rename_and_a_failed_cleanup_refuse_one_save(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the volume becomes read-only between staging and publishing; a later save cleans up.

    Strict mode is off: it would report the file that could not be removed as a defect.
    """
    monkeypatch.setenv("SELINE_STRICT", "0")
    with open_seline(directory, lock_wait_s=0) as seline:
        seline.data.save_json(A, {"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(files, "exchange", failing_call(errno.EROFS))
            patch.setattr(os, "unlink", failing_call(errno.EROFS))
            with pytest.raises(VolumeReadOnly):
                seline.data.save_json(A, {"n": 2})

        seline.data.save_json(A, {"n": 3})

        assert seline.data.load_json(A) == {"n": 3}
        assert list((directory / ".seline" / "staging").iterdir()) == []


@pytest.mark.usefixtures("files_at_once")
def test_a_failed_rename_and_a_failed_cleanup_keep_a_save_in_the_journal(
    seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline.data.save_json(A, {"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(files, "exchange", failing_call(errno.EROFS))
        patch.setattr(os, "unlink", failing_call(errno.EROFS))
        seline.data.save_json(A, {"n": 2})
        assert seline.data.load_json(A) == {"n": 2}
        assert json.loads((directory / A).read_bytes()) == {"n": 1}

    seline.data.save_json(A, {"n": 3})

    assert json.loads((directory / A).read_bytes()) == {"n": 3}
    assert {"n": 2} in backup_values(seline)
    assert list((directory / ".seline" / "staging").iterdir()) == []


def test_saves_and_health_work_when_statvfs_fails(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline.data.save_json(A, {"n": 1})
    monkeypatch.setattr(os, "fstatvfs", failing_call(errno.EIO))

    seline.data.save_json(A, {"n": 2})

    assert seline.health()["status"] != "critical"
    monkeypatch.undo()


@pytest.mark.usefixtures("files_at_once")
def test_an_unexpected_error_in_a_commit_leaves_the_outcome_unknown_until_the_reopening(
    seline: Seline, frozen_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a defect in a commit, the store accepts changes again once it has reopened."""
    seline.data.save_json(A, {"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(files, "exchange", lambda *_: 1 / 0)
        with pytest.raises(OutcomeUnknown):
            seline.data.save_json(A, {"n": 2})
    with pytest.raises(VolumeFailed):
        seline.data.save_json(A, {"n": 3})

    frozen_clock.advance(REOPENED_AFTER_S)
    seline.data.save_json(A, {"n": 4})

    assert seline.data.load_json(A) == {"n": 4}
    assert {"n": 1} in backup_values(seline)


def test_an_error_between_two_batches_reaches_only_its_caller(seline: Seline) -> None:
    def fail(*_: object) -> NoReturn:
        raise KeyError("a plan that is wrong")

    with pytest.raises(KeyError):
        store_of(seline).rotate(DocumentKey(BOT, A), fail).result(10)

    seline.data.save_json(A, {"n": 1})


@pytest.mark.usefixtures("first_form")
@pytest.mark.parametrize("call", ["fstat", "fsync"])
def test_a_call_that_fails_once_refuses_one_save(
    call: str, seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volume is reopened in the next turn, with the real clock: no one waits for 30 s."""
    seline.data.save_json(A, {"n": 1})
    held = {"fstat": directory / "backups", "fsync": directory}[call].stat().st_ino
    with fails_once(monkeypatch, call, held) as failed, pytest.raises(StorageError):
        seline.data.save_json(A, {"n": 2})
    assert failed == [held]

    seline.data.save_json(A, {"n": 3})

    assert seline.data.load_json(A) == {"n": 3}


def test_a_sync_of_the_journal_that_fails_once_leaves_one_save_unknown(
    seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline.data.save_json(A, {"n": 1})
    held = (directory / ".seline" / "journal-a").stat().st_ino
    with fails_once(monkeypatch, "fdatasync", held) as failed, pytest.raises(OutcomeUnknown):
        seline.data.save_json(A, {"n": 2})
    assert failed == [held]

    seline.data.save_json(A, {"n": 3})

    assert seline.data.load_json(A) == {"n": 3}


@contextmanager
def fails_once(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> Iterator[list[int]]:
    """Make the first call for an inode fail with EIO until the block ends; record it."""
    real, real_status, failed = getattr(os, call), os.fstat, []

    def once(descriptor: int) -> object:
        if not failed and real_status(descriptor).st_ino == number:
            failed.append(number)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, once)
        yield failed


def test_an_error_of_close_is_logged_and_refuses_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.close

    def close(descriptor: int) -> None:
        kind = os.fstat(descriptor).st_mode
        real(descriptor)
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", close)
    seline = open_seline(directory, lock_wait_s=0)
    seline.data.save_json(A, {"n": 1})
    seline.data.save_json(A, {"n": 2})
    seline.close()
    monkeypatch.undo()

    assert "closing a file failed" in caplog.text
    with open_seline(directory, lock_wait_s=0) as again:
        assert again.data.load_json(A) == {"n": 2}
