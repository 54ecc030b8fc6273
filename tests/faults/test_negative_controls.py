"""The checks are checked: stores that are wrong on purpose must be flagged by the same harness."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seline.blocking import open_seline
from seline.domain.integrity import Verdict
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


def test_in_place_writes_are_torn_by_kills(tmp_path: Path) -> None:
    """The predecessor's way before it had a temporary file: the kill harness sees it at once."""
    assert _torn_by_kills(tmp_path, 12) > 0


@pytest.mark.prove
def test_how_often_in_place_writes_are_torn_by_kills(tmp_path: Path) -> None:
    torn = _torn_by_kills(tmp_path, KILLS)

    note(
        "negative control", "writes in place, killed at random", tried=KILLS, failures=torn,
        where=kind_of(tmp_path),
    )  # fmt: skip
    assert torn > 0


def _torn_by_kills(directory: Path, kills: int) -> int:
    """Kill a store that writes in place so often; return how often its document is torn."""
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


def test_a_store_that_ignores_checksums_serves_a_flipped_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def credulous(*args: object, **kwargs: object) -> object:
        judged = real(*args, **kwargs)  # type: ignore[arg-type]
        if judged.verdict is Verdict.ALTERED:
            return inspect.Judged(Verdict.SOUND, judged.content, judged.recorded)
        return judged

    real = inspect.judge
    monkeypatch.setattr(inspect, "judge", credulous)
    with open_seline(tmp_path) as seline:
        seline.data.save_json(NAME, {"name": "Alex"})
        before = (tmp_path / NAME).stat()
        (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes().replace(b"x", b"y"))
        os.utime(tmp_path / NAME, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert seline.data.load_json(NAME) == {"name": "Aley"}


def test_a_store_that_does_not_sync_is_told_from_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failing-call harness fails every sync in turn: without syncs there is none to fail."""

    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with open_seline(tmp_path / "honest") as seline:
        seline.data.save_json(NAME, {"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            with pytest.raises(Exception, match="EIO"):
                seline.data.save_json(NAME, {"n": 2})
    monkeypatch.setattr(files, "sync", lambda _descriptor: None)
    with open_seline(tmp_path / "careless") as seline:
        seline.data.save_json(NAME, {"n": 1})
        monkeypatch.setattr(os, "fsync", failing)
        assert seline.data.save_json(NAME, {"n": 2})


def test_a_commit_that_undoes_nothing_is_caught_by_the_strict_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_form.Committer, "_undo", lambda *_: None)
    real = files.sync
    failures = iter([True])

    def once(descriptor: int) -> None:
        if next(failures, False):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    with open_seline(tmp_path) as seline:
        seline.data.save_json(NAME, {"n": 1})
        monkeypatch.setattr(files, "sync", once)
        with pytest.raises(Exception, match="EIO"):
            seline.data.save_json(NAME, {"n": 2})
        with pytest.raises(Exception, match="AssertionError"):
            seline.data.save_json(NAME, {"n": 3})
