"""Builds of the journal that lack one safeguard on purpose; the suite must flag each."""

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import msgspec
import pytest

from seline.domain.document import Content, DocumentKey, Revision
from seline.domain.verdict import Judged
from seline.storage.volume import files
from seline.storage.volume.commit.overlay import Overlay
from seline.storage.volume.journal import checkpoint, codec, form, journal, replaying
from tests.faults.forms import FILES_LATER, JOURNAL
from tests.faults.powercut.wrong_builds import (
    ALWAYS,
    COMMITS_NOTHING,
    COPIED_IN,
    NEVER,
    NO_ROOM,
    NOTHING,
    OF_THE_FIRST_FORM,
    YES,
    WrongBuild,
    needless,
    row,
    seldom,
    unsynced,
)

COMMITTER: Final = "JournalCommitter"
REPLAY: Final = "JournalReplay"
NO_SYNC_OF_THE_JOURNAL: Final = (
    "transaction, the journal's file, if there is one, fails to sync, then the reopening"
)
EDITED_LATE: Final = "save, then edited by hand before its file is written"
KILLED: Final = "save, killed, then a start"


def _at_once(*args: Any) -> WrongBuild:
    return replace(row(*args), form=JOURNAL)


def _later(*args: Any) -> WrongBuild:
    return replace(row(*args), form=FILES_LATER)


def _planted(tried: str, plant: Callable[[pytest.MonkeyPatch], None]) -> WrongBuild:
    return WrongBuild(tried=tried, form=FILES_LATER, also=plant)


# builds that no expression in one place makes


def _ignore_failed_syncs(patch: pytest.MonkeyPatch) -> None:
    def sync(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            os.fdatasync(descriptor)

    patch.setattr(files, "sync_data", sync)


def _ignore_failed_checkpoints(patch: pytest.MonkeyPatch) -> None:
    def sync(*args: Any) -> None:
        with contextlib.suppress(OSError):
            real(*args)

    real = checkpoint.sync_published
    patch.setattr(checkpoint, "sync_published", sync)


def _read_without_digests(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(codec, "_digest", lambda _: bytes(16))


def _files_first(patch: pytest.MonkeyPatch) -> None:
    """Write the files, and answer, before the journal is synced."""

    def append(self: journal.Journal, batch: codec.Batch) -> None:
        late.append((self, batch))

    def settle(self: form.JournalCommitter, now: datetime) -> None:
        real_settle(self, now)
        while late:
            real_append(*late.pop(0))

    late: list[tuple[journal.Journal, codec.Batch]] = []
    real_append, real_settle = journal.Journal.append, form.JournalCommitter.settle
    patch.setattr(journal.Journal, "append", append)
    patch.setattr(form.JournalCommitter, "settle", settle)


def _replay_by_time(patch: pytest.MonkeyPatch) -> None:
    """Replace every file that is older than the change."""

    def may(self: replaying.JournalReplay, history: replaying.DocumentHistory, _: Judged) -> bool:
        key: DocumentKey = history.last.key
        with contextlib.suppress(FileNotFoundError):
            found = files.status(self.volume.documents(key.space), key.name)
            return found.st_mtime_ns <= history.last.at_ns
        return True

    patch.setattr(replaying.JournalReplay, "_may_replace", may)


def _unaligned(patch: pytest.MonkeyPatch) -> None:
    def encode(batch: codec.Batch, **numbers: int) -> bytes:
        return real(batch, **numbers).rstrip(b"\0")

    real = codec.encode_batch
    patch.setattr(journal, "encode_batch", encode)


def _forget_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Overlay, "hold", lambda *_: None)


def _without_backups(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replaying.JournalReplay, "_bring_backup", lambda *_: None)


def _part_for_the_whole(patch: pytest.MonkeyPatch) -> None:
    """Take what differs for the content, without a look at its digest."""

    def unchecked(history: replaying.DocumentHistory, revision: Revision) -> Content | None:
        return Content.of(history.versions[revision]) if revision in history.versions else None

    patch.setattr(replaying, "data_after", lambda change, _before: change.data)
    patch.setattr(replaying.DocumentHistory, "content_of", unchecked)


def _first_part_alone(patch: pytest.MonkeyPatch) -> None:
    def add_after(self: replaying.Versions, change: codec.JournalChange) -> None:
        if change.image is not None or not change.prefix:
            real(self, change)

    real = replaying.Versions.add_after
    patch.setattr(replaying.Versions, "add_after", add_after)


def _part_at_a_wrong_place(patch: pytest.MonkeyPatch) -> None:
    """Count the bytes behind a changed part in the content after, not in the one before."""

    def changed(
        key: DocumentKey, before: Content | None, after: Content | None, at_ns: int, **how: Any
    ) -> codec.JournalChange:
        change, origin = real(key, before, after, at_ns, **how), after and after.origin
        if before is None or after is None or not origin or origin.base != before.revision:
            return change
        longer = after.size_bytes - before.size_bytes
        return msgspec.structs.replace(change, suffix=max(0, change.suffix + longer))

    real = codec.change_of
    patch.setattr(form, "change_of", changed)


def _replay_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replaying.JournalReplay, "_bring", lambda *_: None)


def _no_sync_at_the_exit(patch: pytest.MonkeyPatch) -> None:
    """Sync nothing in a checkpoint that no thread could be started for."""

    def sync(*args: Any) -> None:
        if threading.current_thread().name == "seline-checkpoint":
            real(*args)

    real = checkpoint.sync_published
    patch.setattr(checkpoint, "sync_published", sync)


WHOLE: Final = {
    "a part is taken for the whole": _planted("changes of a large document", _part_for_the_whole),
    "a later part is left out": _planted("changes of a large document", _first_part_alone),
    "a part is put at a wrong place": replace(
        _planted("changes of a large document", _part_at_a_wrong_place), form=JOURNAL
    ),
    "nothing of the journal is replayed": _planted("transaction", _replay_nothing),
    "a failed sync of the journal is ignored": _planted(
        "save, the journal's file fails to sync", _ignore_failed_syncs
    ),
    "a failed checkpoint is ignored": replace(
        _planted("save, the documents' directory fails to sync", _ignore_failed_checkpoints),
        form=JOURNAL,
    ),
    "a checkpoint at the interpreter's exit syncs nothing": replace(
        _planted("transaction, while the interpreter shuts down", _no_sync_at_the_exit),
        form=JOURNAL,
    ),
    "no digest of the journal is checked": _planted(
        "a start after a kill and rot in the journal", _read_without_digests
    ),
    "files are written before the journal": replace(
        _planted("transaction", _files_first), form=JOURNAL
    ),
    "a replay decides by time": _planted(
        "a start after a kill and an edit with an old time", _replay_by_time
    ),
    "a batch begins where the last one ends": _planted(
        "batches that begin a block each", _unaligned
    ),
    "a document is read from its file too early": _planted(
        "a read before the file is written", _forget_at_once
    ),
    "no backup is replayed": replace(_planted("save", _without_backups), form=JOURNAL),
}

APPENDING: Final = {
    "the journal is not synced": _later(
        "journal", "Journal.append", "files.sync_data", NOTHING, "save"
    ),
    "the content before is left out": _at_once(
        "form",
        f"{COMMITTER}._change",
        "self._active.keys.get(key) == before.revision",
        ALWAYS,
        "save",
    ),
    "a part is journaled as if it were all that changed": _at_once(
        "codec", "change_of", "origin.base == before.revision", ALWAYS,
        "changes of a large document",
    ),
    "a file that was copied in is not made durable for the journal": _at_once(
        "form", f"{COMMITTER}._is_found_durable", "self.first.make_durable", NOTHING,
        "save, over a copy by hand",
    ),
    "a file that was copied in and cannot be synced reopens the volume": needless(
        _at_once(
            "form", f"{COMMITTER}._is_found_durable", "self.first.syncer.make_file_durable",
            NOTHING, "save, over a copy by hand",
        ),
        "the next line syncs the file too; without this one the save is refused, not lost",
    ),
    "the removal of a file by hand is not made durable": _at_once(
        "form", f"{COMMITTER}._is_found_durable", "self.first.syncer.sync_directories", NOTHING,
        "first save, over a file that came and went",
    ),
    "what the journal cannot take is not committed": _at_once(
        "form", f"{COMMITTER}.commit", "self.first.commit", COMMITS_NOTHING, "recovery"
    ),
    "what rests on a file that cannot be synced is not committed": _at_once(
        "form", f"{COMMITTER}.commit", "self.first.commit", COMMITS_NOTHING,
        "a save over a copy that cannot be synced", 2,
    ),
    "what is too large for the journal is not committed": _at_once(
        "form", f"{COMMITTER}.commit", "self.first.commit", COMMITS_NOTHING,
        "an import too large for the journal", 3,
    ),
    "nothing that was copied in is made durable beside a journal": _at_once(
        "form", f"{COMMITTER}.make_durable", "self.first.make_durable", NOTHING, COPIED_IN
    ),
    "the reopening commits no document again beside a journal": needless(
        _at_once(
            "form", f"{COMMITTER}.recommit", "self.first.recommit", NOTHING,
            NO_SYNC_OF_THE_JOURNAL,
        ),
        "the replay has written them; the first form needs it, whose scenarios show it",
    ),
    "a hand edit that cannot be kept is not synced beside a journal": replace(
        unsynced("form", f"{COMMITTER}._note_edit", NO_ROOM), form=JOURNAL
    ),
    "a displaced edit is not noted": _at_once(
        "form", f"{COMMITTER}._note_edit", "self._append_again", NOTHING,
        "save, edited by hand before the exchange",
    ),
    "a displaced edit that cannot be noted is not synced": _later(
        "form", f"{COMMITTER}._note_edit", "sync_published", NOTHING,
        f"{EDITED_LATE}, a large one",
    ),
    "an export has only what is in the files": _later(
        "snapshots", "Snapshots._link", "known[0].same_bytes", NOTHING,
        "an export of a document that is flipped before its save is published",
    ),
    "files that cannot be written are not carried over": _later(
        "form", f"{COMMITTER}._switch", "self._append_again", NOTHING,
        "a file that cannot be written while the journal fills",
    ),
}  # fmt: skip

CHECKPOINTS: Final = {
    "a checkpoint syncs nothing": _at_once(
        "checkpoint", "Checkpoint._end", "sync_published", NOTHING, "save"
    ),
    "a checkpoint syncs no file": _at_once(
        "checkpoint", "sync_published", "threads.sync_files", NOTHING, "save"
    ),
    "a checkpoint syncs no directory": replace(
        unsynced("checkpoint", "sync_published", "save"), form=JOURNAL
    ),
    "a checkpoint does not sync the file system": _at_once(
        "checkpoint", "sync_published", "files.sync_filesystem", NOTHING, "save, synced as a whole"
    ),
    "a clean journal is not synced": needless(
        _at_once("journal", "JournalFile.mark_clean", "files.sync_data", NOTHING, "save"),
        "it is replayed again, which changes nothing; a purge syncs the file",
    ),
    "the removal of a journal that another program replaced is not synced": needless(
        replace(unsynced("form", f"{COMMITTER}._remove_put_back", "save"), form=JOURNAL),
        "the next journal syncs the directory, and no scenario has a full volume",
    ),
    "a purge of the journal is not synced": _at_once(
        "journal", "JournalFile.erase", "files.sync_data", NOTHING, "two saves and a purge"
    ),
}

REPLAYING: Final = {
    "the first form recovers nothing beside a journal": _at_once(
        "form", f"{COMMITTER}.recover", "self.first.recover",
        "(lambda now, again=False: frozenset())", "start after a crash",
    ),
    "a journal that may be in memory only is replayed": _later(
        "replaying", f"{REPLAY}.run", "self._rewrite", NOTHING, NO_SYNC_OF_THE_JOURNAL
    ),
    "a journal that is written once more is not synced": _later(
        "replaying", f"{REPLAY}._rewrite", "files.sync", NOTHING, NO_SYNC_OF_THE_JOURNAL
    ),
    "a journal that cannot be written once more is not synced": needless(
        _later(
            "replaying", f"{REPLAY}._rewrite", "files.sync", NOTHING, NO_SYNC_OF_THE_JOURNAL, 2
        ),
        "no scenario has a full volume: tests/faults/test_only_in_the_journal.py does",
    ),
    "the name of a journal that is written once more is not synced": seldom(
        _later(
            "replaying", f"{REPLAY}._rewrite", "files.sync", NOTHING, NO_SYNC_OF_THE_JOURNAL, 3
        )
    ),
    "what is replayed is not synced": replace(
        row(
            "prepared", "PreparedFiles.prepare", "self.syncer.sync_written", NOTHING,
            NO_SYNC_OF_THE_JOURNAL,
        ),
        form=FILES_LATER,
    ),
    "what is kept beside an edit is not synced": _later(
        "replaying", f"{REPLAY}._write", "files.sync", NOTHING,
        "start after a kill and an edit by hand",
    ),
    "the names of what is replayed are not synced": seldom(
        _later("replaying", f"{REPLAY}._sync_names", "files.touch_and_sync", NOTHING, KILLED)
    ),
    "the removal of a replayed journal is not synced": needless(
        replace(unsynced("replaying", f"{REPLAY}.run", KILLED), form=FILES_LATER),
        "the directory is synced again when the next journal is made",
    ),
    "a journal that waits for room is not synced": needless(
        _later(
            "form", f"{COMMITTER}.hold_unfinished", "files.sync_data", NOTHING,
            NO_SYNC_OF_THE_JOURNAL,
        ),
        "no scenario has a full volume: tests/faults/test_only_in_the_journal.py does",
    ),
    "a content of the journal is not checked": needless(
        _later(
            "replaying", "DocumentHistory.content_of", "content.revision == revision", ALWAYS,
            "a start after a kill and rot in the journal",
        ),
        "the digest of the batch covers it",
    ),
    "every file counts as torn by a cut": _later(
        "replaying", "DocumentHistory.is_torn", "_is_torn", YES, f"{EDITED_LATE}, torn"
    ),
    "a backup that is there is not written once more": _at_once(
        "replaying", f"{REPLAY}._bring_backup",
        "Content.of(raw.data).revision != content.revision", ALWAYS,
        "two saves, killed after an exchange, then a start",
    ),
    "an edit under a backup's name is overwritten": seldom(
        _later(
            "replaying", f"{REPLAY}._bring_backup", "_is_torn", YES, f"{EDITED_LATE}, a large one"
        )
    ),
    "every backup counts as whole": _at_once(
        "replaying", f"{REPLAY}._bring_backup", "_is_whole", YES, "save, links refused"
    ),
    "no checksum of a backup is compared": _at_once(
        "replaying", "_is_whole", "checksum.revision == Content.of(raw.data).revision", ALWAYS,
        "save, links refused",
    ),
    "no backup counts as whole": needless(
        _at_once("replaying", "_is_whole", "decode_checksum", NOTHING, "save"),
        "what it does not know goes to quarantine",
    ),
    "the journal's content is not kept beside an edit": _later(
        "replaying", f"{REPLAY}._keep_other", "backup.revision == wanted", ALWAYS, EDITED_LATE
    ),
    "an edit after a kill is replaced": _later(
        "replaying", f"{REPLAY}._may_replace", "content.revision in history.versions", ALWAYS,
        EDITED_LATE,
    ),
}  # fmt: skip

OUTSIDE: Final = {
    "the zeros of a journal file are not synced": needless(
        _at_once("files", "allocate", "sync", NOTHING, "save"), "the first batch syncs the file"
    ),
    "the name of a journal file is not synced": needless(
        _at_once("files", "allocate", "sync", NOTHING, "save", 2),
        "the format, which is written next, syncs the directory",
    ),
    "the format is written at each start": needless(
        _at_once(
            "directory",
            "VolumeDirectory.note_journal",
            "files.read_whole(self.seline, 'format', size_max=64).data == f'{wanted}\\n'.encode()",
            NEVER,
            "save",
        ),
        "it has the same content",
    ),
    "the choice of the journal's form again is not synced": needless(
        unsynced("directory", "VolumeDirectory.keep_first_form", "save"),
        "a power cut takes the choice back, and no content",
    ),
    "what an export held of a purged document is not synced": needless(
        unsynced("snapshots", "Snapshots.forget", "purge"), "the next start removes it"
    ),
}
"""What a journal, or an export, needs outside its own modules."""

OF_THE_JOURNAL: Final = {**WHOLE, **APPENDING, **CHECKPOINTS, **REPLAYING}
WRONG_BUILDS: Final[Mapping[str, WrongBuild]] = {
    **OF_THE_FIRST_FORM, **OF_THE_JOURNAL, **OUTSIDE,
}  # fmt: skip
