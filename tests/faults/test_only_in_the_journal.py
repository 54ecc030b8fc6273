"""Content that only the journal has is served, listed and copied until its file can be written.

A volume is killed with changes in its journal, and then opened where they cannot be replayed.
"""

import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from seline.blocking import Seline, open_seline
from seline.domain.document import Content
from seline.domain.json_codec import encode
from seline.errors import VolumeFull, VolumeReadOnly
from seline.operations.copies import Copies
from seline.outbound.destinations.folder import Folder
from seline.ports.sealing import UNSEALED
from seline.storage.volume import files
from tests.faults.small_filesystem import SmallFilesystem, small_filesystem
from tests.faults.test_mounts_and_limits import checks_of, remount
from tests.mirrored_bot import Bot
from tests.stores import open_store

JOURNAL_BYTES = 256 << 10
KILLED = f"""
import os, sys
from seline.blocking import open_seline
how = dict(storage__journal_bytes={JOURNAL_BYTES}, storage__publish_within_ms=10_000)
with open_seline(sys.argv[1], **how) as seline:
    for name in ("changed.json", "deleted.json"):
        seline.data.save_json(name, {{"n": 0}})
seline = open_seline(sys.argv[1], **how)
for number in range(1, 4):
    seline.data.save_json("changed.json", {{"n": number}})
seline.data.save_json("new.json", {{"text": "x" * 5000}})
seline.data.delete("deleted.json")
os.kill(os.getpid(), 9)
"""
CURRENT = {"changed.json": {"n": 3}, "new.json": {"text": "x" * 5000}}
"""What was acknowledged before the kill."""


def opened(directory: Path) -> Seline:
    """Open a volume with a journal."""
    return open_seline(directory, lock_wait_s=0, storage__journal_bytes=JOURNAL_BYTES)


def killed_again(directory: Path) -> None:
    """Open a volume in another process, and kill that."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(directory)], check=False)
    assert done.returncode == -9
    (directory / ".seline" / "control.sock").unlink(missing_ok=True)


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[SmallFilesystem]:
    """Yield a small file system with a volume whose process was killed."""
    with small_filesystem(tmp_path / "volume") as small:
        killed_again(small.path)
        yield small


def served(seline: Seline) -> dict[str, object]:
    """Return every listed document's value."""
    return {info.name: seline.data.load_json(info.name) for info in seline.data.documents()}


# a read-only volume


def test_a_read_only_volume_serves_what_only_its_journal_has(killed: SmallFilesystem) -> None:
    remount(killed.path, "ro")
    with opened(killed.path) as seline:
        assert served(seline) == CURRENT
        assert seline.data.load_json("deleted.json") == {}
        sizes = {info.name: info.size_bytes for info in seline.data.documents()}
        assert sizes["new.json"] == len(seline.raw("new.json"))
        checks = checks_of(seline)
        assert "read-only" in checks["writing"]["detail"]
        assert checks["journal"]["detail"].startswith("3 documents only in the journal")
        assert checks["journal"]["fix"] == checks["writing"]["fix"]
        assert seline.verify().findings == ()
        with pytest.raises(VolumeReadOnly):
            seline.data.save_json("changed.json", {"n": 4})

        remount(killed.path, "rw")
        seline.data.save_json("other.json", {})
        assert served(seline) == {**CURRENT, "other.json": {}}
        assert (killed.path / "new.json").exists()
        assert not (killed.path / "deleted.json").exists()
        assert "journal" not in checks_of(seline)


# a file that cannot be written


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Make a file immutable until the block ends."""
    if subprocess.run(["chattr", "+i", path], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=False)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until the writer's idle work has brought something about."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.follows("operations/checks:_journal")
def test_a_file_that_cannot_be_written_is_reported_until_it_is(killed: SmallFilesystem) -> None:
    path = killed.path / "changed.json"
    with opened(killed.path) as seline, immutable(path):
        for number in (4, 5):  # the second one does not end the report of the first
            seline.data.save_json("changed.json", {"n": number})
            wait_for(lambda: "journal" in checks_of(seline))
        checks = checks_of(seline)
        assert checks["journal"]["detail"] == "1 document only in the journal: changed.json"
        assert "Another check here names what refuses a file" in checks["journal"]["fix"]
        assert served(seline)["changed.json"] == {"n": 5}
        assert json.loads(path.read_bytes()) == {"n": 3}

        [command] = re.findall(r"`(chattr [^`]+)`", checks["access_refused"]["detail"])
        subprocess.run(command, shell=True, check=True)
        wait_for(lambda: not {"journal", "access_refused"} & checks_of(seline).keys())
        assert json.loads(path.read_bytes()) == {"n": 5}


async def test_copies_have_what_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports and the mirror: a changed document, a new one, and one that was deleted."""
    bucket = Folder("bucket", str(tmp_path / "bucket"))
    bot = Bot(tmp_path, bucket, storage__journal_bytes=JOURNAL_BYTES)
    for name in ("changed.json", "deleted.json"):
        await bot.data.save_json(name, {"n": 1})
    await bot.mirrored()
    for call in ("exchange", "rename", "rename_new", "unlink"):
        refuse_documents(monkeypatch, call, "changed.json", "new.json", "deleted.json")
    await bot.data.save_json("changed.json", {"n": 2})
    await bot.data.save_json("new.json", {"n": 2})
    await bot.data.delete("deleted.json")
    await bot.mirrored()
    exported = (await bot.data.export_all_data())["files"]
    copy = await Copies(bucket, UNSEALED, takes_plain=True).find(volume="")
    assert len((await bot.data.store.open()).medium.unpublished()) == 3
    monkeypatch.undo()
    await bot.store.close()

    revision = Content.of(encode({"n": 2})).revision
    assert exported == {"changed.json": {"n": 2}, "new.json": {"n": 2}}
    copied = {document.name: document.sha256 for document in copy.documents if document.sha256}
    assert copied == {"changed.json": revision, "new.json": revision}
    assert copy.lacking == ()


def refuse_documents(monkeypatch: pytest.MonkeyPatch, call: str, *names: str) -> None:
    """Let the disk refuse a call that concerns one of these names."""

    def refused(*arguments: Any, **how: Any) -> None:
        if set(names).intersection(arguments):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments, **how)

    real = getattr(files, call)
    monkeypatch.setattr(files, call, refused)


# a full volume


def take_the_rest(volume: SmallFilesystem) -> Path:
    """Remove what a replay may give up at once, and fill the volume; return the filler."""
    inner = volume.path / ".seline"
    for name in ("reserve", "reserve-1", "reserve-2", "reserve-3", "journal-b"):
        (inner / name).unlink(missing_ok=True)
    return volume.fill("core.dump")


@pytest.mark.follows("storage/volume/reopen:_unfinished")
def test_a_replay_that_has_no_room_waits_for_it(killed: SmallFilesystem) -> None:
    """The journal stays as it is, reads are answered from it, and the next start replays it."""
    foreign = take_the_rest(killed)
    journal = (killed.path / ".seline" / "journal-a").read_bytes()
    with opened(killed.path) as seline:
        assert served(seline) == CURRENT
        checks = checks_of(seline)
        assert checks["journal"]["detail"].startswith("3 documents only in the journal")
        assert "for what was not finished" in checks["writing"]["detail"]
        with pytest.raises(VolumeFull) as refused:
            seline.data.delete("changed.json")
        assert "Free space on that disk" in refused.value.hint
    assert (killed.path / ".seline" / "journal-a").read_bytes() == journal

    foreign.unlink()
    with opened(killed.path) as seline:
        assert served(seline) == CURRENT
        seline.data.save_json("changed.json", {"n": 4})
        assert {check["status"] for check in checks_of(seline).values()} <= {"ok", "info"}


@pytest.mark.prove
def test_old_backups_make_room_for_a_replay_once_their_pins_are_known(
    killed: SmallFilesystem,
) -> None:
    large, backups = {"text": "x" * 400_000}, killed.path / "backups"
    with open_seline(killed.path, storage__journal_bytes=0) as seline:
        for number in range(8):
            seline.data.save_json("large.json", {**large, "n": number})
        first, *_ = sorted(path.name for path in backups.glob("large*"))
        seline.data.pin("large.json", first)
    killed_again(killed.path)
    take_the_rest(killed)
    before = len(list(backups.glob("large*")))

    store = open_store(killed.path, storage__journal_bytes=JOURNAL_BYTES)
    assert isinstance(store.medium.unavailable(), VolumeFull)
    store.close()
    assert len(list(backups.glob("large*"))) == before

    with opened(killed.path) as seline:
        wait_for(lambda: "journal" not in checks_of(seline))
        assert (killed.path / "new.json").exists()
        assert {name: seline.data.load_json(name) for name in CURRENT} == CURRENT
        left = {backup.name: backup.pinned for backup in seline.data.backups("large.json")}
        assert len(left) < before
        assert left[first]
