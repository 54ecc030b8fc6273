"""Negative controls: the checks of the fault suites must detect stores that are wrong."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seline.blocking import open_seline
from seline.domain.verdict import Verdict
from seline.storage.volume import files, inspect
from seline.storage.volume.commit import exchange_form
from tests.faults.powercut.trying import kind_of
from tests.proof.figures import note

NAME = "user_profile.json"
KILLS = 100

IN_PLACE = """
import json, sys
number = 0
print("ready", flush=True)
while True:
    number += 1
    with open(sys.argv[1], "w") as file:
        json.dump({"n": number, "filler": ["x"] * 20000}, file)
"""


def test_kills_tear_documents_that_are_written_in_place(tmp_path: Path) -> None:
    """Twelve kills suffice to tear a document that is not replaced by a rename."""
    assert _count_torn(tmp_path, 12) > 0


@pytest.mark.prove
def test_documents_written_in_place_and_torn_by_kills_are_counted(tmp_path: Path) -> None:
    torn = _count_torn(tmp_path, KILLS)

    note(
        "negative control", "writes in place, killed at random", tried=KILLS, failures=torn,
        where=kind_of(tmp_path),
    )  # fmt: skip
    assert torn > 0


def _count_torn(directory: Path, kills: int) -> int:
    """Kill a program that writes in place `kills` times; return how many documents are torn."""
    torn = 0
    for number in range(kills):
        path = directory / f"{number}.json"
        writer = subprocess.Popen(
            [sys.executable, "-c", IN_PLACE, str(path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.03 + number % 12 * 0.003)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        torn += not path.read_bytes().endswith(b"}")
    return torn


@pytest.mark.usefixtures("files_at_once")
def test_a_store_that_ignores_checksums_serves_a_flipped_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignore_checksum(*args: object, **kwargs: object) -> object:
        judged = real(*args, **kwargs)  # type: ignore[arg-type]
        if judged.verdict is Verdict.ALTERED:
            return inspect.Judged(Verdict.SOUND, judged.content, judged.recorded)
        return judged

    real = inspect.judge
    monkeypatch.setattr(inspect, "judge", ignore_checksum)
    with open_seline(tmp_path) as seline:
        seline.data.save_json(NAME, {"name": "Alex"})
        before = (tmp_path / NAME).stat()
        (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes().replace(b"x", b"y"))
        os.utime(tmp_path / NAME, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert seline.data.load_json(NAME) == {"name": "Aley"}


@pytest.mark.usefixtures("first_form")
def test_a_store_that_does_not_sync_survives_failing_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite that fails each sync in turn finds no sync to fail in such a store."""

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with open_seline(tmp_path / "honest") as seline:
        seline.data.save_json(NAME, {"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(Exception, match="EIO"):
                seline.data.save_json(NAME, {"n": 2})
    monkeypatch.setattr(files, "sync", lambda _descriptor: None)
    with open_seline(tmp_path / "careless") as seline:
        seline.data.save_json(NAME, {"n": 1})
        monkeypatch.setattr(os, "fsync", fail)
        assert seline.data.save_json(NAME, {"n": 2})


@pytest.mark.usefixtures("first_form")
def test_strict_mode_detects_a_commit_that_undoes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_form.ExchangeCommitter, "_undo", lambda *_: None)
    real = files.sync
    failures = iter([True])

    def fail_once(descriptor: int) -> None:
        if next(failures, False):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    with open_seline(tmp_path) as seline:
        seline.data.save_json(NAME, {"n": 1})
        monkeypatch.setattr(files, "sync", fail_once)
        with pytest.raises(Exception, match="EIO"):
            seline.data.save_json(NAME, {"n": 2})
        with pytest.raises(Exception, match="AssertionError"):
            seline.data.save_json(NAME, {"n": 3})
