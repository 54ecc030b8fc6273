"""The journal where something else fails too: damage, a stuck file, an edit, a full file."""

import errno
import itertools
import json
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from seline.blocking import Seline, open_seline
from seline.domain.document import BOT, Content, DocumentKey
from seline.domain.json_codec import encode
from seline.errors import OutcomeUnknown, VolumeFailed, VolumeFull
from seline.ports.store import AddedBackup
from seline.storage.volume import batches as batches_of_the_writer
from seline.storage.volume import files, reopen
from seline.storage.volume.commit import sync
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.inspect import Inspector
from seline.storage.volume.journal import checkpoint as checkpoints
from seline.storage.volume.journal import prepared, replaying
from seline.storage.volume.journal.codec import (
    BLOCK_BYTES,
    FIRST_BATCH_AT,
    Batch,
    JournalChange,
    ReadBatch,
    batches,
    decode_header,
    encode_batch,
)
from seline.storage.volume.journal.journal import Journal, JournalFile, damaged
from seline.storage.volume.known_names import SETTLED_S
from seline.storage.volume.medium import VolumeMedium
from seline.storage.volume.os_errors import DirectoryFailed
from tests.clocks import FakeClock
from tests.faults.cancelling import Resources
from tests.faults.injection import (
    failing_call,
    incident_kinds,
    inode,
    left_by_a_kill,
    record_syncs,
    refuse_threads,
    store_of,
)
from tests.faults.test_only_in_the_journal import wait_for

JOURNAL_BYTES = 64 << 10
LONG = 10_000
NAMES = ("journal-a", "journal-b")


def opened(directory: Path, within_ms: int = LONG, journal_bytes: int = JOURNAL_BYTES) -> Seline:
    """Open a volume with a small journal."""
    return open_seline(
        directory, lock_wait_s=0, storage__journal_bytes=journal_bytes,
        storage__publish_within_ms=within_ms, storage__settle_s=0.01,
    )  # fmt: skip


@pytest.fixture
def seline(tmp_path: Path) -> Iterator[Seline]:
    """Yield a store that writes no file before it has to."""
    with opened(tmp_path / "data") as store:
        yield store


def crashed(tmp_path: Path, data: Path | None = None) -> Path:
    """Return the volume of the fixture `seline` as a kill of its process would leave it now."""
    return left_by_a_kill(data or tmp_path / "data", tmp_path / "crashed")


def value(number: int, size: int = 1000) -> dict[str, Any]:
    return {"n": number, "filler": "x" * size}


def sizes(volume: Path) -> set[int]:
    return {(volume / ".seline" / name).stat().st_size for name in NAMES}


def damage(volume: Path, name: str, at: int) -> None:
    """Flip one bit of a journal file."""
    path = volume / ".seline" / name
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def batches_in(volume: Path, name: str) -> list[ReadBatch]:
    data = (volume / ".seline" / name).read_bytes()
    return list(batches(data, after_epoch=0))


def latest(volume: Path, name: str) -> int:
    """Return the epoch of a journal file's newest batches."""
    return max((batch.epoch for batch in batches_in(volume, name)), default=0)


def is_clean(volume: Path, name: str) -> bool:
    """Whether the header of a journal file says that everything is in the files."""
    data = (volume / ".seline" / name).read_bytes()
    slots = [decode_header(data[at : at + BLOCK_BYTES]) for at in (0, BLOCK_BYTES)]
    return max(header for header in slots if header is not None).is_clean


def refuse_names(monkeypatch: pytest.MonkeyPatch, *refused: str, error: int = errno.EIO) -> None:
    """Let no file take these names, as a disk with a bad directory block does."""

    def exchange(source: int, name: str, target: int, new_name: str) -> None:
        if new_name in refused:
            raise OSError(error, os.strerror(error))
        real(source, name, target, new_name)

    real = files.exchange
    monkeypatch.setattr(files, "exchange", exchange)


# many documents


def journaled(tmp_path: Path, names: Sequence[str]) -> Path:
    """Return a volume whose journal alone has these documents, each with a backup."""
    with opened(tmp_path / "data", journal_bytes=1 << 20) as seline:
        for number in (1, 2):
            for name in names:
                seline.data.save_json(name, value(number))
        return crashed(tmp_path)


FAILURES = [
    *((sync.Syncer, "sync_written", errno.ENOSPC, when) for when in (1, 2, 3)),
    *((files, "stage", number, 3) for number in (errno.ENOSPC, errno.EMFILE, errno.EIO)),
    (files, "stage", errno.ENOSPC, 9),
    (sync.Syncer, "sync_written", errno.EIO, 2),
]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("owner", "call", "number", "when"), FAILURES)
def test_what_cannot_be_replayed_together_is_replayed_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, call: str, number: int, when: int
) -> None:
    names = [f"d{number}.json" for number in range(6)]
    volume, calls = journaled(tmp_path, names), itertools.count(1)
    monkeypatch.setattr(prepared, "FILES_MAX", 4)
    real, fail = getattr(owner, call), failing_call(number)

    def attempt(*args: Any) -> object:
        is_meant = owner is not files or str(args[1]).startswith("prepared")
        return (fail if is_meant and next(calls) == when else real)(*args)

    monkeypatch.setattr(owner, call, attempt)
    with opened(volume) as after:
        assert next(calls) > when
        assert [after.data.load_json(name) for name in names] == [value(2)] * len(names)
        assert all(len(after.data.backups(name)) == 1 for name in names)
        assert after.verify().findings == ()
    assert list((volume / ".seline" / "staging").iterdir()) == []


def test_a_replay_asks_for_documents_before_it_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V3: they come from the disk, which reads them while it writes what is prepared."""
    names, calls = [f"d{number}.json" for number in range(4)], list[str]()
    volume = journaled(tmp_path, names)
    monkeypatch.setattr(prepared, "FILES_MAX", 4)
    dropped, looked = files.drop_cached_pages, Inspector.look
    monkeypatch.setattr(
        files, "drop_cached_pages", lambda *at: (calls.append(f"drop {at[1]}"), dropped(*at))[1]
    )
    monkeypatch.setattr(
        Inspector,
        "look",
        lambda self, key: (calls.append(f"look {key.name}"), looked(self, key))[1],
    )
    ahead, written = files.read_ahead, sync.Syncer.sync_written
    monkeypatch.setattr(
        files, "read_ahead", lambda *place: (calls.append(place[1]), ahead(*place))[1]
    )
    monkeypatch.setattr(
        sync.Syncer,
        "sync_written",
        lambda self, some: (calls.append("sync"), written(self, some))[1],
    )

    with opened(volume) as after:
        assert [after.data.load_json(name) for name in names] == [value(2)] * len(names)

    assert calls.count("sync") > 1
    for name in names:
        read = calls.index(name)
        assert calls.index(f"drop {name}") < read < calls.index("sync", read)
        assert calls.index("sync", read) < calls.index(f"look {name}")


def test_what_was_prepared_makes_room_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"d{number}.json" for number in range(3)]
    volume, rooms = journaled(tmp_path, names), list[int]()

    def stage(directory: int, name: str, *args: Any) -> int:
        others = [one for one in files.names(directory) if one.startswith("prepared")]
        if name == replaying.REPLAYED and others:
            rooms.append(len(others))
            failing_call(errno.ENOSPC)()
        return real(directory, name, *args)

    real, take = files.stage, prepared.PreparedFiles.take
    monkeypatch.setattr(files, "stage", stage)
    monkeypatch.setattr(
        prepared.PreparedFiles,
        "take",
        lambda self, *place: None if place[1] == "d0.json" else take(self, *place),
    )
    with opened(volume) as after:
        assert len(rooms) == 1
        assert [after.data.load_json(name) for name in names] == [value(2)] * len(names)


def fail_to_replay(seline: Seline, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """Make a change, for which the volume is reopened; a name cannot be written in its replay."""
    fail, real = failing_call(errno.EIO), files.rename
    with monkeypatch.context() as patch:
        patch.setattr(files, "rename", lambda *args: (fail if refused in args else real)(*args))
        with pytest.raises(VolumeFailed):
            seline.data.save_json("new.json", value(2))


@pytest.mark.parametrize("edited_first", [True, False])
def test_an_edit_beside_a_replay_that_fails_stays_and_the_journals_content_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen_clock: FakeClock, edited_first: bool
) -> None:
    """Before the attempt that fails, or between it and the next one."""
    names, edited = [f"d{number}.json" for number in range(4)], tmp_path / "data" / "d0.json"
    with opened(tmp_path / "data", journal_bytes=1 << 20) as seline:
        for name in names:
            seline.data.save_json(name, value(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing_call(errno.EIO))
            with pytest.raises(OutcomeUnknown):
                seline.data.save_json("new.json", value(1))
        if edited_first:
            edited.write_bytes(encode(value(2)))
        frozen_clock.advance(1)
        fail_to_replay(seline, monkeypatch, "d2.json")
        if not edited_first:
            edited.write_bytes(encode(value(2)))
        frozen_clock.advance(reopen.REOPEN_EVERY_S + 1)
        seline.data.save_json("new.json", value(3))

        assert seline.data.load_json("d0.json") == value(2)
        kept = [seline.data.read_backup("d0.json", b.name) for b in seline.data.backups("d0.json")]
        assert value(1) in kept
        assert [seline.data.load_json(name) for name in names[1:]] == [value(1)] * 3


def test_a_broken_document_is_served_as_it_was_after_a_replay_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen_clock: FakeClock
) -> None:
    names, broken = [f"d{number}.json" for number in range(4)], tmp_path / "data" / "d0.json"
    with opened(tmp_path / "data", journal_bytes=1 << 20) as seline:
        for name in names:
            seline.data.save_json(name, value(1))
        seline.data.documents()  # writes the files
        written, status = bytearray(broken.read_bytes()), broken.stat()
        written[20] ^= 1
        broken.write_bytes(written)
        os.utime(broken, ns=(status.st_atime_ns, status.st_mtime_ns))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing_call(errno.EIO))
            with pytest.raises(OutcomeUnknown):
                seline.data.save_json("new.json", value(1))
        frozen_clock.advance(1)
        fail_to_replay(seline, monkeypatch, "d2.json")

        assert seline.data.load_json("d0.json") == value(1)


def test_an_edit_while_files_are_prepared_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the journal has becomes a backup, as for an edit before the start."""
    volume, edits = journaled(tmp_path, ["d0.json", "d1.json"]), list[int]()

    def sync_after_edit(self: sync.Syncer, descriptors: Sequence[int]) -> bool:
        if not edits:
            edits.append((volume / "d0.json").write_bytes(encode(value(3))))
        return real(self, descriptors)

    real = sync.Syncer.sync_written
    monkeypatch.setattr(sync.Syncer, "sync_written", sync_after_edit)
    with opened(volume) as after:
        assert edits
        assert after.data.load_json("d0.json") == value(3)
        names = [backup.name for backup in after.data.backups("d0.json")]
        assert [after.data.read_backup("d0.json", name) for name in names] == [value(2), value(1)]
        assert after.data.load_json("d1.json") == value(2)


# hand edits


def test_a_torn_edit_of_a_removed_document_goes_to_quarantine(
    seline: Seline, tmp_path: Path
) -> None:
    seline.data.save_json("a.json", value(1))
    seline.data.documents()
    seline.data.delete("a.json")
    volume = crashed(tmp_path)
    (volume / "a.json").write_text('{"by": "ha')

    with opened(volume):
        assert not (volume / "a.json").exists()
        assert [path.read_text() for path in (volume / "quarantine").iterdir()] == ['{"by": "ha']


def test_an_edit_is_displaced_durably_where_the_journal_has_no_room(
    seline: Seline, tmp_path: Path
) -> None:
    """Its file may come back after a power cut, and must not be taken for a later edit."""
    seline.data.save_json("a.json", value(1))
    seline.data.documents()
    seline.data.save_json("a.json", value(2))
    (tmp_path / "data" / "a.json").write_bytes(encode(value(3, 20_000)))
    seline.data.documents()

    assert sizes(tmp_path / "data") == {JOURNAL_BYTES}
    assert seline.data.load_json("a.json") == value(2)
    assert seline.data.read_backup("a.json", seline.data.backups("a.json")[0].name)["n"] == 3


# a file that cannot be written


def test_a_purge_keeps_what_the_journal_has_of_other_documents(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stuck.json", "secret.json"):
        seline.data.save_json(name, value(0))
    seline.data.documents()
    refuse_names(monkeypatch, "stuck.json")
    seline.data.save_json("stuck.json", value(1))
    seline.data.delete("secret.json", purge=True)
    volume = crashed(tmp_path)
    monkeypatch.undo()

    with opened(volume) as again:
        assert again.data.load_json("stuck.json") == value(1)


def test_a_file_whose_backup_failed_once_is_written_the_next_time(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was linked and copied before the failure is removed: else its names are in the way."""

    def stage(*args: Any) -> int:
        calls.append(args)
        if len(calls) == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args)

    calls: list[Any] = []
    real = files.stage
    seline.data.save_json("a.json", value(0))
    seline.data.documents()
    for number in (1, 2, 3):
        seline.data.save_json("a.json", value(number))
    monkeypatch.setattr(files, "stage", stage)
    seline.data.documents()
    assert (tmp_path / "data" / "a.json").read_bytes() == encode(value(0))

    seline.data.documents()

    assert (tmp_path / "data" / "a.json").read_bytes() == encode(value(3))
    assert list((tmp_path / "data" / ".seline" / "staging").iterdir()) == []
    assert len(list((tmp_path / "data" / "backups").iterdir())) == 3


@pytest.mark.prove
def test_the_journal_does_not_grow_while_files_cannot_be_written(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every acknowledged save is read, and there after a kill; what has no room is refused."""
    names = [f"{number}.json" for number in range(6)]
    for name in names:
        seline.data.save_json(name, value(0))
    seline.data.documents()
    refuse_names(monkeypatch, *names, error=errno.ENOSPC)
    last, refused = dict.fromkeys(names, 0), 0
    for number in range(1, 121):
        name = names[number % len(names)]
        try:
            seline.data.save_json(name, value(number))
        except VolumeFull:
            refused += 1
        else:
            last[name] = number
        assert seline.data.load_json(name) == value(last[name])
    volume = crashed(tmp_path)
    monkeypatch.undo()

    assert refused > 0
    assert sizes(volume) == {JOURNAL_BYTES}
    with opened(volume) as again:
        assert {name: again.data.load_json(name)["n"] for name in names} == last
    seline.data.save_json(names[0], value(500))
    seline.data.documents()
    assert (tmp_path / "data" / names[0]).read_bytes() == encode(value(500))


def test_dropped_backups_do_not_make_the_journal_grow(seline: Seline, tmp_path: Path) -> None:
    for number in range(400):
        seline.data.save_json("a.json", {"n": number})
        if number % 100 == 99:
            seline.data.documents()

    assert sizes(tmp_path / "data") == {JOURNAL_BYTES}


# defects


def test_a_defect_while_files_are_written_does_not_end_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is durable; the volume is reopened, and its file is written then."""
    for module in (reopen, batches_of_the_writer):
        monkeypatch.setattr(module, "REOPEN_EVERY_S", 0.02)
    with opened(tmp_path / "data", within_ms=1) as seline:
        seline.data.save_json("a.json", value(1))
        seline.data.documents()
        with monkeypatch.context() as patch:
            patch.setattr(files, "exchange", lambda *_: 1 / 0)
            seline.data.save_json("a.json", value(2))
            wait_for(lambda: "disk_error" in incident_kinds(seline))
        wait_for(lambda: store_of(seline).medium.unavailable() is None)
        seline.data.save_json("b.json", value(1))

        assert (tmp_path / "data" / "a.json").read_bytes() == encode(value(2))


# a checkpoint


def test_a_checkpoint_syncs_several_files_at_once(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after another, thousands of files take seconds, and a save may have to wait for them."""
    syncing, together = threading.Lock(), threading.Event()

    def flush(descriptor: int) -> None:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            real(descriptor)
        elif syncing.acquire(blocking=False):
            together.wait(5)
            syncing.release()
            real(descriptor)
        else:
            together.set()
            real(descriptor)

    for number in range(3):
        seline.data.save_json(f"{number}.json", value(1))
    real = files.flush
    monkeypatch.setattr(files, "flush", flush)
    seline.close()

    assert together.is_set()


def test_a_checkpoint_syncs_each_of_many_files_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where descriptors run out: it then opens fewer at once, or waits for one."""
    names = [f"{number}.json" for number in range(3 * checkpoints.OPEN_FILES_MAX)]

    def open_to_read(directory: int, name: str) -> int:
        if threading.current_thread().name == "seline-checkpoint":
            asked.append(name)
            if len(asked) % 7 == 1:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(directory, name)

    real, asked = files.open_to_read, list[str]()
    with opened(tmp_path, journal_bytes=4 << 20) as seline:
        for name in names:
            seline.data.save_json(name, value(1, 10))
        monkeypatch.setattr(files, "open_to_read", open_to_read)
        synced = record_syncs(monkeypatch)

    assert len(asked) > len(names)
    assert {name: synced.count(inode(tmp_path / name)) for name in names} == dict.fromkeys(names, 1)


def test_a_checkpoint_without_a_thread_is_not_made_again(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made later, it would mark the file as clean that takes the batches by then."""

    def late(*args: Any) -> None:
        time.sleep(0.1)
        real(*args)

    def fill(name: str, other: str) -> None:
        while latest(data, name) <= latest(data, other):
            seline.data.save_json("a.json", value(1))
            seline.data.save_json("a.json", value(2))

    real, data = checkpoints.sync_published, tmp_path / "data"
    seline.data.save_json("b.json", value(1))
    with monkeypatch.context() as patch:
        refuse_threads(patch, "seline-checkpoint")
        fill("journal-b", "journal-a")
    monkeypatch.setattr(checkpoints, "sync_published", late)
    fill("journal-a", "journal-b")
    seline.data.save_json("b.json", value(2))
    time.sleep(0.3)

    with opened(crashed(tmp_path)) as again:
        assert again.data.load_json("b.json") == value(2)


def test_a_checkpoint_that_an_exception_of_any_kind_ends_keeps_no_one_waiting(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a thread it runs on that of its caller, here the writer."""

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        refuse_threads(patch, "seline-checkpoint")
        patch.setattr(checkpoints, "sync_published", fail)
        with pytest.raises((VolumeFailed, OutcomeUnknown)):
            while True:
                seline.data.save_json("a.json", value(1))
                seline.data.save_json("a.json", value(2))

    with opened(crashed(tmp_path)) as again:
        assert again.data.load_json("a.json") in (value(1), value(2))


@pytest.mark.parametrize("failure", [RuntimeError, MemoryError])
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_thread_that_fails_to_start_makes_no_checkpoint_twice(
    seline: Seline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: type[Exception],
    is_begun: bool,
) -> None:
    """Nor does the next one wait for it without an end."""

    def start(self: threading.Thread) -> None:
        if self.name == "seline-checkpoint":
            started.append(self)
            if is_begun:
                real(self)
            raise failure
        real(self)

    def end(self: checkpoints.Checkpoint, *args: Any) -> None:
        ended.append(args)
        real_end(self, *args)

    real, real_end = threading.Thread.start, checkpoints.Checkpoint._end
    started, ended = list[threading.Thread](), list[Any]()
    monkeypatch.setattr(checkpoints.Checkpoint, "_end", end)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for number in range(60):
            with suppress(VolumeFailed, OutcomeUnknown):
                seline.data.save_json("a.json", value(number))
    time.sleep(0.05)

    assert started
    assert len(ended) == (len(started) if is_begun or failure is RuntimeError else 0)
    with opened(crashed(tmp_path)) as again:
        assert again.data.load_json("a.json") == seline.data.load_json("a.json")


def test_a_close_that_is_interrupted_before_its_checkpoint_syncs_no_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Journal) -> None:
        raise KeyboardInterrupt

    seline = opened(tmp_path)
    seline.data.save_json("a.json", value(1))
    synced = record_syncs(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "switch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            seline.close()
    seline.close()

    assert inode(tmp_path / "a.json") in synced or not is_clean(tmp_path, "journal-a")


def test_no_file_that_was_not_made_clean_takes_batches(seline: Seline) -> None:
    seline.data.save_json("a.json", value(1))
    journal = store_of(seline).batches.committer._journal  # type: ignore[attr-defined]
    journal.switch()

    with pytest.raises(DirectoryFailed, match="Syncing"):
        journal.switch()


def test_an_interrupted_wait_for_a_checkpoint_does_not_hide_its_failure(seline: Seline) -> None:
    class Interrupted(Future[None]):
        """A checkpoint that fails; Ctrl-C comes while it is waited for."""

        interruptions = iter([KeyboardInterrupt])

        def exception(self, timeout: float | None = None) -> BaseException | None:
            for interruption in self.interruptions:
                raise interruption
            return super().exception(timeout)

    seline.data.save_json("a.json", value(1))
    checkpoint = store_of(seline).batches.committer._checkpoint  # type: ignore[attr-defined]
    failed = checkpoint._running = Interrupted()
    failed.set_exception(OSError(errno.EIO, os.strerror(errno.EIO)))

    with pytest.raises(KeyboardInterrupt):
        checkpoint.wait(check=True)
    with pytest.raises(DirectoryFailed):
        checkpoint.wait(check=True)


@pytest.mark.parametrize("failure", [OSError(errno.EIO, os.strerror(errno.EIO)), MemoryError()])
@pytest.mark.parametrize("change", ["a new document", "a purge", "a backup", "the same again"])
def test_nothing_relies_on_a_sync_beside_a_checkpoint_that_fails(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, failure: Exception
) -> None:
    """The kernel reports a failed sync of a directory once, here to the checkpoint."""
    failing = threading.Event()

    def fail(*_: object) -> None:
        failing.wait(20)
        raise failure

    seline.data.save_json("other.json", value(1))
    monkeypatch.setattr(checkpoints, "sync_published", fail)
    while not batches_in(tmp_path / "data", "journal-b"):
        seline.data.save_json("a.json", value(1))
        seline.data.save_json("a.json", value(2))
    threading.Timer(0.1, failing.set).start()

    with pytest.raises(VolumeFailed):
        match change:
            case "a new document":
                seline.data.save_json("new.json", value(1))
            case "a purge":
                seline.data.delete("other.json", purge=True)
            case "the same again":
                (tmp_path / "data" / "other.json").write_bytes(encode(value(3)))
                seline.data.save_json("other.json", value(3))
            case _:
                key = DocumentKey(BOT, "a.json")
                backup = AddedBackup(
                    key=key, name="a_20240101_000000.json", content=Content.of(b"{}")
                )
                store_of(seline).add_backups([backup]).result(20)


@pytest.mark.usefixtures("frozen_clock")
def test_after_a_failed_sync_a_close_leaves_the_journal_to_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another sync of the same directories would succeed, and prove nothing."""
    data, failing = tmp_path / "data", threading.Event()

    def fail(*_: object) -> None:
        failing.wait(20)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(data) as store, monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sync_published", fail)
        while not batches_in(data, "journal-b"):
            store.data.save_json("a.json", value(1))
            store.data.save_json("a.json", value(2))
        failing.set()
        with pytest.raises(VolumeFailed):
            for number in range(50):
                store.data.save_json("a.json", value(number))
        acknowledged = store.data.load_json("a.json")
        patch.undo()
        store.close()

    assert [is_clean(data, name) for name in NAMES] == [False, False]
    with opened(data) as restarted:
        assert restarted.data.load_json("a.json") == acknowledged


# room, and files that another program removes


def test_what_has_no_room_for_its_file_is_not_taken(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V9: the journal has room for it, but its file could never be written."""
    names = [f"{number}.json" for number in range(4)]
    seline.data.save_json("first.json", value(1))
    seline.data.documents()
    two_files_left = list(os.statvfs("."))
    two_files_left[7] = 2
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstatvfs", lambda _: os.statvfs_result(two_files_left))
        for name in names[:2]:
            seline.data.save_json(name, value(1))
        with pytest.raises(VolumeFull):
            seline.data.save_json(names[2], value(1))
        seline.data.delete(names[0])
        seline.data.save_json(names[3], value(1))

    listed = [info.name for info in seline.data.documents()]
    assert listed == [names[1], names[3], "first.json"]


def test_a_restore_that_has_no_blocks_for_its_file_is_refused(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full volume takes a restore, but not one whose file could never be written."""
    for number in (1, 2):
        seline.data.save_json("a.json", value(number))
    seline.data.documents()
    no_block_left = list(os.statvfs("."))
    no_block_left[4] = 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstatvfs", lambda _: os.statvfs_result(no_block_left))
        with pytest.raises(VolumeFull):
            seline.data.restore("a.json")
        assert seline.data.load_json("a.json") == value(2)

    seline.data.restore("a.json")
    assert seline.data.load_json("a.json") == value(1)


def test_a_journal_that_another_program_removed_is_made_anew(
    seline: Seline, tmp_path: Path
) -> None:
    """Else what is acknowledged from then on is in a file that no start finds."""
    for number, name in enumerate(NAMES):
        _know_the_names(seline)
        seline.data.save_json("a.json", value(number))
        (tmp_path / "data" / ".seline" / name).unlink()
        seline.data.save_json("b.json", value(number))

        assert json.loads((tmp_path / "data" / "a.json").read_bytes()) == value(number)
        with opened(crashed(tmp_path / str(number), tmp_path / "data")) as again:
            assert again.data.load_json("b.json") == value(number)
    assert sizes(tmp_path / "data") == {JOURNAL_BYTES}


def test_the_file_that_was_not_removed_stays_until_its_changes_are_written(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline.data.save_json("a.json", value(1))
    (tmp_path / "data" / ".seline" / "journal-b").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(files, "stage", failing_call(errno.EIO))
        with pytest.raises(VolumeFailed):
            seline.data.save_json("a.json", value(2))

    with opened(crashed(tmp_path)) as again:
        assert again.data.load_json("a.json") == value(1)


def put_back(volume: Path, name: str, data: bytes) -> None:
    """Replace a journal file by an earlier copy, as a restore of a backup does."""
    restored = volume / ".seline" / f"{name}.restored"
    restored.write_bytes(data)
    restored.rename(volume / ".seline" / name)


def _earlier_copy(seline: Seline, data: Path) -> bytes:
    """Return the active journal file with three saves and a deletion, before three more saves."""
    for number in range(3):
        seline.data.save_json("a.json", value(number))
    seline.data.save_json("deleted.json", value(1))
    copy = (data / ".seline" / "journal-a").read_bytes()
    seline.data.delete("deleted.json")
    for number in range(3, 6):
        seline.data.save_json("a.json", value(number))
    seline.data.documents()  # writes the files, so that the next save is made at the first attempt
    return copy


def _check_not_replayed(volume: Path, latest: int) -> None:
    """Open a volume: it has the latest save, and the deletion."""
    with opened(volume) as again:
        assert again.data.load_json("a.json") == value(latest)
        assert again.data.load_json("deleted.json") == {}


@pytest.mark.parametrize("full", [False, True])
def test_an_earlier_copy_of_the_journal_that_another_program_put_back_is_never_replayed(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """Not beside new batches, nor beside the first form where no journal can be made."""
    data = tmp_path / "data"
    copy = _earlier_copy(seline, data)
    put_back(data, "journal-a", copy)
    if full:
        (data / ".seline" / "journal-b").unlink()
        monkeypatch.setattr(files, "allocate", failing_call(errno.ENOSPC))
    for number in (0, 6):
        seline.data.save_json("a.json", value(number))
    volume = crashed(tmp_path)
    monkeypatch.undo()

    _check_not_replayed(volume, 6)


def test_an_earlier_copy_that_was_put_back_before_a_close_is_not_replayed_by_the_next_start(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as seline:
        copy = _earlier_copy(seline, tmp_path)
        put_back(tmp_path, "journal-a", copy)

    _check_not_replayed(tmp_path, 5)


def test_an_earlier_copy_that_is_put_back_while_the_journal_is_made_is_never_replayed(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(directory: int, name: str, size_bytes: int) -> None:
        real(directory, name, size_bytes)
        put_back(data, "journal-a", copy)

    data, real = tmp_path / "data", files.allocate
    copy = _earlier_copy(seline, data)
    (data / ".seline" / "journal-b").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(files, "allocate", allocate)
        seline.data.save_json("a.json", value(0))
    seline.data.save_json("a.json", value(6))

    _check_not_replayed(crashed(tmp_path), 6)


def test_an_earlier_copy_is_not_replayed_by_the_reopening_after_a_failed_sync(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    copy = _earlier_copy(seline, data)
    seline.data.save_json("a.json", value(0))
    put_back(data, "journal-a", copy)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sync_published", failing_call(errno.EIO))
        with pytest.raises(VolumeFailed):
            seline.data.save_json("a.json", value(6))
    seline.data.save_json("b.json", value(7))

    assert seline.data.load_json("a.json") == value(0)
    assert seline.data.load_json("deleted.json") == {}


def test_an_earlier_copy_that_is_put_back_while_the_files_are_written_is_never_replayed(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where no journal can be made then."""

    def sync(*args: Any) -> None:
        real(*args)
        put_back(data, "journal-a", copy)

    data, real = tmp_path / "data", checkpoints.sync_published
    copy = _earlier_copy(seline, data)
    (data / ".seline" / "journal-b").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sync_published", sync)
        patch.setattr(files, "allocate", failing_call(errno.ENOSPC))
        for number in (0, 6):
            seline.data.save_json("a.json", value(number))

    _check_not_replayed(crashed(tmp_path), 6)


def test_the_journal_is_replaced_by_a_later_save_if_a_copy_cannot_be_removed(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then nothing is committed beside it."""

    def unlink(directory: int, name: str, *, missing_ok: bool = False) -> None:
        (fail if name in NAMES else real)(directory, name, missing_ok=missing_ok)

    data, real, fail = tmp_path / "data", files.unlink, failing_call(errno.EIO)
    put_back(data, "journal-a", _earlier_copy(seline, data))
    with monkeypatch.context() as patch:
        patch.setattr(files, "unlink", unlink)
        with pytest.raises(VolumeFailed):
            seline.data.save_json("a.json", value(6))
    seline.data.save_json("a.json", value(7))

    _check_not_replayed(crashed(tmp_path), 7)


def _know_the_names(seline: Seline) -> None:
    """Save until a save need not look at the journal's files."""
    journal = store_of(seline).batches.committer._journal  # type: ignore[attr-defined]
    directory = store_of(seline).volume.seline
    for number in range(50):
        seline.data.save_json("known.json", value(number))
        if journal._names.are_unchanged(os.fstat(directory)):
            return
        time.sleep(SETTLED_S / 4)
    pytest.fail("the names were never known")


def test_a_save_does_not_look_at_the_journal_again(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look makes the next write record its time precisely, and its sync a third slower."""
    looked_at: list[str] = []

    def status(directory: int, name: str) -> os.stat_result:
        looked_at.append(name)
        return real(directory, name)

    real = files.status
    monkeypatch.setattr(files, "status", status)
    _know_the_names(seline)
    assert set(NAMES) <= set(looked_at)
    looked_at.clear()

    for number in range(3):
        seline.data.save_json("a.json", value(number))

    assert not set(NAMES) & set(looked_at)


def test_a_document_that_is_published_while_the_files_are_listed_is_listed(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(seline)
    seline.data.save_json("a.json", value(1))

    def names(directory: int) -> list[str]:
        listed = real(directory)
        store.writer.run_between(store.batches.settle)
        return listed

    real = files.names
    monkeypatch.setattr(VolumeMedium, "settle", lambda _: None)
    monkeypatch.setattr(files, "names", names)

    assert [info.name for info in store.documents(BOT)] == ["a.json"]
    assert store.batches.committer.overlay.unpublished == []


# an interrupted replay


def test_a_replay_that_ends_between_its_two_files_keeps_the_later_one(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, the earlier file would bring back what was deleted after it."""
    data, checkpoint = tmp_path / "data", threading.Event()

    def fill(name: str, other: str) -> None:
        while latest(data, name) <= latest(data, other):
            seline.data.save_json("a.json", value(1))
            seline.data.save_json("a.json", value(2))

    fill("journal-b", "journal-a")
    seline.data.save_json("deleted.json", value(1))
    monkeypatch.setattr(checkpoints, "sync_published", lambda *_: checkpoint.wait(20))
    fill("journal-a", "journal-b")
    seline.data.delete("deleted.json")
    volume = crashed(tmp_path)
    checkpoint.set()

    def unlink(directory: int, name: str, *, missing_ok: bool = False) -> None:
        if name in NAMES:
            removed.append(name)
            if len(removed) > 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(directory, name, missing_ok=missing_ok)

    real, removed = files.unlink, list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(files, "unlink", unlink)
        with pytest.raises(VolumeFailed):
            opened(volume)

    with opened(volume) as again:
        assert again.data.load_json("deleted.json") == {}
    assert removed == ["journal-b", "journal-a"]


# damage


def test_damage_of_the_last_batch_before_a_switch_is_reported(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batches of the later file show that it was whole once."""
    checkpoint = threading.Event()
    monkeypatch.setattr(checkpoints, "sync_published", lambda *_: checkpoint.wait(20))
    while not batches_in(tmp_path / "data", "journal-b"):
        seline.data.save_json("a.json", value(1))
        seline.data.save_json("a.json", value(2))
    volume = crashed(tmp_path)
    checkpoint.set()
    damage(volume, "journal-a", at=batches_in(volume, "journal-a")[-1].start + 100)

    with opened(volume) as again:
        assert "journal_broken" in incident_kinds(again)
        assert len(list((volume / "quarantine").glob("*journal*"))) == 1


def test_without_headers_only_the_last_use_of_a_file_is_read(tmp_path: Path) -> None:
    """What an earlier use left behind it is in the documents' files, and older than they are."""
    change = JournalChange(space="", name="a.json", at_ns=1, before=None, after=None)
    batch = Batch(changes=(change,))
    latest, earlier = (encode_batch(batch, epoch=epoch, number=1) for epoch in (9, 4))
    path = tmp_path / "journal-a"
    path.write_bytes(b"rotten".ljust(FIRST_BATCH_AT, b"!") + latest + earlier)
    descriptor = os.open(path, os.O_RDWR)
    file = JournalFile("journal-a", descriptor, path.stat().st_size)

    assert [read.epoch for read in file.read()] == [9]
    assert damaged([file], file.read()) == [file]
    os.close(descriptor)


OPENINGS_THAT_FAIL = [
    (files, "open_to_overwrite", 2, OSError(errno.EMFILE, os.strerror(errno.EMFILE)), 64 << 10),
    (JournalFile, "read_header", 4, VolumeFailed("after the replay"), 64 << 10),
    (VolumeDirectory, "note_journal", 1, VolumeFailed("no descriptor is left"), 64 << 10),
    (files, "unlink", 1, OSError(errno.EIO, os.strerror(errno.EIO)), 0),
]


@pytest.mark.parametrize(("owner", "call", "when", "error", "size"), OPENINGS_THAT_FAIL)
def test_no_descriptor_stays_open_where_the_journal_cannot_be_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    call: str,
    when: int,
    error: Exception,
    size: int,
) -> None:
    """It is tried every half minute, and where descriptors have run out it would take the rest."""

    def attempt(*args: Any, **how: Any) -> object:
        is_meant = not isinstance(args[-1], str) or args[-1] in NAMES
        if is_meant and next(calls) == when:
            raise error
        return real(*args, **how)

    opened(tmp_path / "data").close()
    real, calls = getattr(owner, call), itertools.count(1)
    before = Resources.now(threads=False)
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, attempt)
        with pytest.raises(VolumeFailed):
            opened(tmp_path / "data", journal_bytes=size)

    assert next(calls) > when
    before.wait_until_released_blocking()


def test_a_journal_file_of_another_size_is_made_again(tmp_path: Path) -> None:
    """The setting was changed, or a kill left a file that was half made."""
    with opened(tmp_path / "data") as store:
        store.data.save_json("a.json", value(1))
    os.truncate(tmp_path / "data" / ".seline" / "journal-b", BLOCK_BYTES)
    with opened(tmp_path / "data") as store:
        assert sizes(tmp_path / "data") == {JOURNAL_BYTES}
        assert store.data.load_json("a.json") == value(1)


def test_a_batch_that_cannot_be_written_or_taken_back_has_an_unknown_outcome(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline.data.save_json("a.json", value(1))
    monkeypatch.setattr(files, "overwrite", failing_call(errno.EIO))

    with pytest.raises(OutcomeUnknown):
        seline.data.save_json("a.json", value(2))


def test_what_a_crash_of_a_replay_left_beside_the_journal_is_removed(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    left = tmp_path / "data" / ".seline" / "journal-a.new"
    left.write_bytes(b"a part of the journal")

    opened(tmp_path / "data").close()

    assert not left.exists()


def test_a_journal_whose_erasure_could_not_be_synced_is_made_anew(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later sync of the same file would prove nothing."""

    def fail_once(descriptor: int) -> None:
        monkeypatch.setattr(files, "sync_data", real)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    real = files.sync_data
    seline.data.save_json("a.json", value(1))
    seline.data.save_json("b.json", value(1))
    seline.data.delete("b.json", purge=True)
    journal = tmp_path / "data" / ".seline" / "journal-a"
    before = journal.open("rb")  # held open, so that its inode is not used again
    monkeypatch.setattr(files, "sync_data", fail_once)
    with pytest.raises(VolumeFailed):
        seline.data.delete("a.json", purge=True)

    assert seline.data.load_json("a.json") == value(1)
    seline.data.delete("a.json", purge=True)
    assert not os.path.samestat(journal.stat(), os.fstat(before.fileno()))
    before.close()
