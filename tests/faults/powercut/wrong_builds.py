"""Builds of the store that lack one safeguard on purpose; the suite must flag each.

A row has the safeguards that it replaces (`safeguards.patch_points` finds those that need a row),
the code that replaces them, and what detects it: a scenario whose states are opened (`scenarios`),
or a case without a cut (`damages`). `needless` is the reason why nothing can detect the build.
`seldom`: so few states show it that only the long tier looks for them.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
import pytest

from seline.domain.checksum import ATTRIBUTE
from seline.domain.document import Content, DocumentKey
from seline.domain.verdict import Judged, Verdict
from seline.storage.volume import files
from seline.storage.volume.commit import base, exchange_form
from seline.storage.volume.commit.record import RecordEntry, TransactionRecord
from seline.storage.volume.commit.staging import Staged
from seline.storage.volume.inspect import Inspection
from tests.faults.forms import FIRST, FORMS
from tests.faults.powercut.safeguards import PatchPoint, instead
from tests.faults.powercut.scenarios import Way, as_usual

NOTHING: Final = "(lambda *_, **__: None)"
YES: Final = "(lambda *_: True)"
NEVER: Final = "False"
ALWAYS: Final = "True"
MOVED: Final = "files.rename"
COMMITS_NOTHING: Final = "(lambda plan, now: Committed())"


@dataclass(frozen=True, kw_only=True)
class WrongBuild:
    """A build without one safeguard: what it changes, and what detects it."""

    tried: str
    form: str = FIRST
    changes: Mapping[PatchPoint, str] = field(default_factory=dict[PatchPoint, str])
    also: Way = as_usual
    needless: str = ""
    seldom: bool = False

    def plant(self, patch: pytest.MonkeyPatch) -> None:
        """Make the build."""
        FORMS[self.form](patch)
        instead(patch, self.changes, **HELPERS)
        self.also(patch)


# what replaces a safeguard


def believing(look: Callable[..., Inspection]) -> Callable[..., Inspection]:
    """Return a look that judges everything sound."""

    def believe(*args: object) -> Inspection:
        seen = look(*args)
        content = seen.judged.content
        return (
            seen if content is None else Inspection(Judged(Verdict.SOUND, content), seen.identity)
        )

    return believe


def judged_sound(_key: DocumentKey, content: Content, recorded: Any, **_: object) -> Judged:
    """Judge everything sound that could be read."""
    return Judged(Verdict.SOUND, content, recorded)


def unchecked(data: bytes) -> tuple[RecordEntry, ...]:
    """Return a record's entries without checking its digest."""
    return msgspec.json.decode(data.partition(b"\n")[0], type=TransactionRecord).entries


def moved(name: str, new: str, *, follow_symlinks: bool, **places: int) -> None:
    """Rename instead of linking, except for the probe."""
    if name.startswith("probe"):
        os.link(name, new, follow_symlinks=follow_symlinks, **places)
    else:
        os.rename(name, new, **places)


def made_unsynced(name: str, inside: int) -> bool:
    """Make a directory without syncing its parent."""
    try:
        os.mkdir(name, files.DIRECTORY_MODE, dir_fd=inside)
    except FileExistsError:
        return False
    return True


HELPERS: Final = {
    helper.__name__: helper
    for helper in (believing, judged_sound, unchecked, moved, made_unsynced, base.Committed)
}


def _repeat_failed_syncs(patch: pytest.MonkeyPatch) -> None:
    """Repeat a failed sync, and trust the second result."""

    def sync(descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError:
            os.fsync(descriptor)

    patch.setattr(files, "sync", sync)


def _ignore_failed_syncs(patch: pytest.MonkeyPatch) -> None:
    """Ignore a failed sync."""

    def sync(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)

    patch.setattr(files, "sync", sync)


def _attribute_after_the_exchange(patch: pytest.MonkeyPatch) -> None:
    """Set the checksum on the published file, after its syncs."""

    def stage(directory: int, name: str, data: bytes, attribute: bytes | None, mtime: int) -> int:
        if attribute is not None:
            late.append(attribute)
        return real_stage(directory, name, data, None, mtime)

    def sync(
        self: exchange_form.ExchangeCommitter, changes: Sequence[Staged], *, committed: bool
    ) -> None:
        real_sync(self, changes, committed=committed)
        for change, attribute in zip(changes, late, strict=False):
            descriptor = os.open(change.key.name, os.O_RDONLY, dir_fd=self._volume.top)
            os.setxattr(descriptor, ATTRIBUTE, attribute)
            os.close(descriptor)

    late: list[bytes] = []
    real_stage, real_sync = files.stage, exchange_form.ExchangeCommitter._sync_documents
    patch.setattr(files, "stage", stage)
    patch.setattr(exchange_form.ExchangeCommitter, "_sync_documents", sync)


def _attribute_after_the_bytes(patch: pytest.MonkeyPatch) -> None:
    """Set the checksum after the bytes: a half-written file has none."""

    def stage(directory: int, name: str, data: bytes, attribute: bytes | None, mtime: int) -> int:
        descriptor = real(directory, name, data, None, mtime)
        if attribute is not None:
            os.setxattr(descriptor, ATTRIBUTE, attribute)
        return descriptor

    real = files.stage
    patch.setattr(files, "stage", stage)


# how a row is written


def row(module: str, where: str, code: str, new: str, tried: str, number: int = 1) -> WrongBuild:
    return WrongBuild(changes={PatchPoint(module, where, code, number): new}, tried=tried)


_commit = functools.partial(row, "exchange_form")
_syncer = functools.partial(row, "sync")
_preserver = functools.partial(row, "preserve")
_opening = functools.partial(row, "replay")
_current_documents = functools.partial(row, "current")
_inspector = functools.partial(row, "inspect")
_snapshots = functools.partial(row, "snapshots")
_disk = functools.partial(row, "files")


def unsynced(module: str, where: str, tried: str, number: int = 1) -> WrongBuild:
    return row(module, where, "files.sync", NOTHING, tried, number)


def seldom(row: WrongBuild) -> WrongBuild:
    """Return a row whose build few states show."""
    return replace(row, seldom=True)


def needless(row: WrongBuild, why: str) -> WrongBuild:
    """Return a row whose build nothing can detect."""
    return replace(row, needless=why)


def _all_but(directory: str) -> str:
    """Return a sync of directories that skips this one."""
    return (
        "(lambda directories, doing: self.syncer.sync_directories("
        f"[one for one in directories if one != {directory}], doing))"
    )


def _only(test: str) -> str:
    """Return a sync of directories for which this test holds."""
    return f"(lambda one: files.sync(one) if {test} else None)"


KILLED_AFTER_THE_EXCHANGE: Final = "save, killed after the exchange, then a start"
RECORD_IN_DOUBT: Final = (
    "transaction, the directory of the record fails to sync, then the reopening"
)
COPIED_IN: Final = "the same saved and a save, over a copy by hand"
BEFORE_EXCHANGE: Final = "save, edited by hand before the exchange"
NO_ROOM: Final = "two saves, edited by hand before the first exchange, with no room for the edit"

SYNCS: Final[Mapping[str, WrongBuild]] = {
    "nothing is synced": _disk("flush", "os.fsync", NOTHING, "save"),
    "no file is synced": unsynced("sync_threads", "_sync_one", "save"),
    "one file alone is not synced": row(
        "sync_threads", "SyncThreads.sync_files", "_sync_one", NOTHING, "save"
    ),
    "several files are not synced": row(
        "sync_threads",
        "SyncThreads._share",
        "_sync_one",
        "(lambda one, results: results.update({one: None}))",
        "transaction",
    ),
    "no staged file is synced": _syncer(
        "Syncer.sync_written", "self._threads.sync_files", NOTHING, "save"
    ),
    "the file system is not synced where that replaces a sync per file": _syncer(
        "Syncer.sync_written", "files.sync_filesystem", NOTHING, "save, synced as a whole"
    ),
    "nothing staged is synced": _commit(
        "ExchangeCommitter._sync", "self.syncer.sync_written", NOTHING, "save"
    ),
    "no directory is synced before the exchange": unsynced(
        "sync", "Syncer.sync_directories", "save"
    ),
    "backups/ is not synced after a link": _commit(
        "ExchangeCommitter._sync",
        "self.syncer.sync_directories",
        _all_but("self._volume.backups('')"),
        "save",
    ),
    "backups/ is not synced after a copy": _commit(
        "ExchangeCommitter._sync",
        "self.syncer.sync_directories",
        _all_but("self._volume.backups('')"),
        "save, links refused",
    ),
    "quarantine/ is not synced after a link": _commit(
        "ExchangeCommitter._sync",
        "self.syncer.sync_directories",
        _all_but("self._volume.quarantine"),
        "recovery",
    ),
    "a copy in quarantine/ is not synced": unsynced(
        "preserve", "Preserver._set_aside_otherwise", "recovery, neither links nor exchange"
    ),
    "staging/ is not synced before the record": _commit(
        "ExchangeCommitter._record", "self.syncer.sync_directories", NOTHING, "transaction"
    ),
    "the record is not synced": unsynced(
        "exchange_form", "ExchangeCommitter._record", "transaction"
    ),
    ".seline/ is not synced after the record": seldom(
        unsynced("exchange_form", "ExchangeCommitter._record", "transaction", number=2)
    ),
    "the documents' directory is not synced": unsynced(
        "exchange_form", "ExchangeCommitter._sync_documents", "save"
    ),
    "the removal of the record is not synced": unsynced(
        "exchange_form",
        "ExchangeCommitter._forget_record",
        "transaction that deletes, then the same save again",
    ),
    "the record is removed before the documents' directory is synced": WrongBuild(
        changes={
            PatchPoint(
                "exchange_form", "ExchangeCommitter._publish", "self._forget_record"
            ): NOTHING,
            PatchPoint("exchange_form", "ExchangeCommitter._publish", "self._sync_documents"): (
                "(lambda staged, committed: (committed and self._forget_record(), "
                "self._sync_documents(staged, committed=committed)))"
            ),
        },
        tried="transaction",
        seldom=True,
    ),
    "quarantine/ is not synced after a move": unsynced(
        "quarantine", "set_aside", "recovery, its link refused"
    ),
    "the copy of a hand edit is not synced": unsynced(
        "preserve", "Preserver._back_up_edit", BEFORE_EXCHANGE
    ),
    "backups/ is not synced after the copy of a hand edit": unsynced(
        "preserve", "Preserver._back_up_edit", BEFORE_EXCHANGE, number=2
    ),
    "a hand edit is preserved only after the sync that drops its name": _commit(
        "ExchangeCommitter._publish",
        "self.preserver.keep_displaced",
        "(lambda changes, now, atomic: changes)",
        BEFORE_EXCHANGE,
    ),
    "staging/ is not synced where a hand edit must stay there": unsynced(
        "preserve", "Preserver._sync_staging", NO_ROOM
    ),
    "the removal of purged backups is not synced": row(
        "rotation", "Rotation.purge", "files.sync", _only("one == self.volume.quarantine"), "purge"
    ),
    "the removal of purged quarantine is not synced": row(
        "rotation",
        "Rotation.purge",
        "files.sync",
        _only("one != self.volume.quarantine"),
        "purge of a recovered document",
    ),
    "what a killed process renamed is not synced at the start": _opening(
        "Replay._sync_names", "files.touch_and_sync", NOTHING, KILLED_AFTER_THE_EXCHANGE
    ),
    "a sync that must change something is left out": _disk(
        "touch_and_sync", "sync", NOTHING, "start after a crash"
    ),
    "the record of a killed process is not made durable before it is rolled forward": seldom(
        _opening("Replay._rewrite_record", "files.sync", NOTHING, RECORD_IN_DOUBT)
    ),
    "documents that were rolled forward are not synced": _opening(
        "Replay._complete", "files.touch_and_sync", NOTHING, "start after a crash"
    ),
    "the removal of a record that was rolled forward is not synced": unsynced(
        "replay", "Replay._roll_forward", "start after a crash, then a save"
    ),
    "quarantine/ is not synced after a broken record": unsynced(
        "quarantine", "set_aside", "start with a rotten record"
    ),
    ".seline/ is not synced after a broken record": unsynced(
        "replay", "Replay._set_record_aside", "start with a rotten record"
    ),
    "quarantine/ is not synced after a leftover": unsynced(
        "quarantine", "set_aside", "start with an edit left in staging/, and a transaction"
    ),
    "the copy of an edit before the start is not synced": unsynced(
        "replay", "Replay._write_bytes", "start after a crash and an edit by hand"
    ),
    "backups/ is not synced after an edit before the start": unsynced(
        "replay", "Replay._keep_as", "start after a crash and an edit by hand"
    ),
    "quarantine/ is not synced after a torn edit before the start": unsynced(
        "replay", "Replay._keep_as", "start after a crash and an edit by hand, torn"
    ),
    "a file that was copied in is not synced before it is relied on": unsynced(
        "sync", "Syncer.make_file_durable", COPIED_IN
    ),
    "nothing that was copied in is made durable before it is relied on": row(
        "batches", "Batches._run", "self.committer.make_durable", NOTHING, COPIED_IN
    ),
    "the commit makes nothing durable that was copied in": _commit(
        "ExchangeCommitter.make_durable", "self.syncer.make_durable", NOTHING, COPIED_IN
    ),
    "only the name of what was copied in is made durable": _syncer(
        "Syncer.make_durable", "self.make_file_durable", NOTHING, COPIED_IN
    ),
    "a file that was copied in is linked without a sync": _preserver(
        "Preserver._link_backup",
        "self.syncer.make_file_durable",
        NOTHING,
        "save, over a copy by hand",
    ),
    "the name of a file that was copied in is not synced": _syncer(
        "Syncer.make_durable", "self.sync_directories", NOTHING, COPIED_IN
    ),
    "the reopening does not try every directory": _opening(
        "Replay._sync_names", "files.touch_and_sync", NOTHING, "a directory that cannot be synced"
    ),
    "the reopening does not try the documents' directories once more": needless(
        row(
            "exchange_form",
            "ExchangeCommitter.recommit",
            "files.touch_and_sync",
            NOTHING,
            "a directory that cannot be synced",
        ),
        "the replay before it syncs the names of every directory, and fails where it cannot",
    ),
    "nothing is replayed at the start": row(
        "reopen", "Reopener.start", "self.committer.recover", NOTHING, "transaction"
    ),
    "a read-only volume serves a half-published transaction": needless(
        row("replay", "Replay.unfinished", "decode_record", "(lambda data: ())", "transaction"),
        "no case opens a read-only volume: tests/faults/test_mounts_and_limits.py does",
    ),
    "nothing is replayed at the reopening": row(
        "reopen",
        "Reopener._reopen",
        "self.committer.recover",
        "(lambda now, again: frozenset())",
        RECORD_IN_DOUBT,
    ),
    "nothing is committed": row(
        "batches", "Batches._commit_or_make_room", "self.committer.commit", COMMITS_NOTHING, "save"
    ),
    "the reopening commits no document again": row(
        "reopen",
        "Reopener._reopen",
        "self.committer.recommit",
        NOTHING,
        "save, the documents' directory fails to sync, then the reopening",
    ),
    "the reopening publishes no content again": _commit(
        "ExchangeCommitter.recommit",
        "self.commit",
        COMMITS_NOTHING,
        "save, the documents' directory fails to sync, then the reopening",
    ),
    "the name of the data directory is not synced": seldom(
        row(
            "lock",
            "_make_directories",
            "files.make_directory",
            "made_unsynced",
            "first start, and a save",
        )
    ),
    "the name of a directory created again is not synced": seldom(
        row(
            "directory",
            "VolumeDirectory._inner",
            "files.make_directory",
            "made_unsynced",
            "backups/ removed by hand, then a save",
        )
    ),
    "names of new directories are not synced": seldom(
        _disk("make_directory", "sync", NOTHING, "first start, and a save")
    ),
    "the directory of the lock is not synced": needless(
        row(
            "lock",
            "_lock_file",
            "files.make_directory",
            "made_unsynced",
            "first start where directories cannot be locked, and a transaction",
        ),
        "every start syncs the names of every directory before anything rests on them",
    ),
    "the format is not synced": unsynced(
        "directory", "VolumeDirectory.write_small", "first start, and a save"
    ),
    "the name of the format is not synced": needless(
        unsynced("directory", "VolumeDirectory.write_small", "first start, and a save", number=2),
        "every start syncs the names of every directory before anything rests on them",
    ),
} | {
    f"a failed sync of {what} is {how}": WrongBuild(
        also=also,
        tried=f"{operation}, {what} fails to sync",
        seldom=what == "the directory of the record",
    )
    for how, also in {"repeated": _repeat_failed_syncs, "overlooked": _ignore_failed_syncs}.items()
    for what, operation in {
        "the staged file": "save",
        "backups/": "save",
        "the documents' directory": "save",
        "a staged file": "transaction",
        "the record": "transaction",
        "the directory of the record": "transaction",
    }.items()
}

LINKS: Final[Mapping[str, WrongBuild]] = {
    "the backup is moved, not linked": _preserver("Preserver._link", "files.link", MOVED, "save"),
    "broken bytes are moved aside before the exchange": _preserver(
        "Preserver._link", "files.link", MOVED, "recovery"
    ),
    "an export takes a document away": _snapshots(
        "Snapshots._kept", "files.link", MOVED, "save during an export"
    ),
    "an export keeps no document of its instant": _snapshots(
        "Snapshots._kept", "files.link", NOTHING, "an export beside a save"
    ),
    "an export keeps no edit that a save replaces": _snapshots(
        "Snapshots._kept",
        "files.link",
        NOTHING,
        "an export of an edited document that meets a save",
    ),
    "every link is a move": _disk("link", "os.link", "moved", "save"),
    "a transaction has no record": WrongBuild(
        changes={
            PatchPoint("exchange_form", "ExchangeCommitter._prepare", "self._record"): NOTHING,
            PatchPoint(
                "exchange_form", "ExchangeCommitter._publish", "self._forget_record"
            ): NOTHING,
        },
        tried="transaction",
    ),
    "the checksum is set when all is done": WrongBuild(
        also=_attribute_after_the_exchange, tried="save"
    ),
    "the checksum is set after the bytes": seldom(
        WrongBuild(also=_attribute_after_the_bytes, tried="save")
    ),
    "there is no checksum": _disk("stage", "os.setxattr", NOTHING, "a flipped document"),
    "the mtime is not set": _disk("stage", "os.utime", NOTHING, "a flipped document"),
}

CHECKS: Final[Mapping[str, WrongBuild]] = {
    # of inodes
    "what was linked is not compared with what was judged": _preserver(
        "Preserver._link", "is_judged", YES, "save, edited by hand before the link"
    ),
    "what was set aside is not compared with what was judged": _preserver(
        "Preserver._link", "is_judged", YES, "recovery, edited by hand before the link"
    ),
    "the exchanged file is not compared with the judged one": _preserver(
        "Preserver._dispose", "is_judged", YES, BEFORE_EXCHANGE
    ),
    "the exchanged file is compared too late": _preserver(
        "Preserver._is_only_copy", "is_judged", YES, BEFORE_EXCHANGE
    ),
    "any inode is taken for the judged one": row(
        "staging", "is_judged", "token.same_bytes", YES, BEFORE_EXCHANGE
    ),
    "a torn edit becomes a backup": _preserver(
        "Preserver._keep_edit", "why_not_json", NOTHING, f"{BEFORE_EXCHANGE}, torn"
    ),
    "a file that changes under a read is taken as it was read": _disk(
        "read_whole",
        "FileIdentity.of(os.fstat(descriptor)).same_bytes",
        YES,
        "an edit in place under a read",
    ),
    "a cached content is served without a look at the file": _inspector(
        "Inspector.peek",
        "entry[0] != (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)",
        NEVER,
        "an edit",
    ),
    "a file that still changes counts as settled": _inspector(
        "Inspector._settled", "seen[0].same_bytes", YES, "a slow upload"
    ),
    "an export reads the present file": _snapshots(
        "VolumeSnapshot._judged",
        "inspection.identity.same_bytes",
        YES,
        "an export that meets a save",
    ),
    "an export reads the present file of a large document": _snapshots(
        "VolumeSnapshot._pieces",
        "FileIdentity.of(os.fstat(file.fileno())).same_bytes",
        YES,
        "an export of a large one that meets a save",
    ),
    "an export reads the present file of a broken document": needless(
        _snapshots(
            "VolumeSnapshot._remembered",
            "FileIdentity.of(os.fstat(descriptor)).same_bytes",
            YES,
            "an export of a flipped document that meets two saves",
        ),
        "a reader looks afterwards whether a commit has kept the document for the export",
    ),
    "an export takes an edit for what memory has": _snapshots(
        "Snapshots._link",
        "found.same_bytes",
        YES,
        "an export of an edited document in memory that meets a save",
    ),
    "an export takes an edit though memory has its instant": _snapshots(
        "Snapshots._link",
        "known[0].same_bytes",
        NOTHING,
        "an export of an edited document in memory that meets a save",
    ),
    "an export takes what memory has for its instant": _snapshots(
        "Snapshots._link",
        "known[0].same_bytes",
        YES,
        "an export of a document edited twice that meets a save",
    ),
    "a document counts as its own backup": _opening(
        "Replay._sweep_twin",
        "(live.st_dev, live.st_ino) == (kept.st_dev, kept.st_ino)",
        NEVER,
        "a kill between the link and the exchange",
    ),
    "every newest backup is taken for its document": _opening(
        "Replay._sweep_twin",
        "(live.st_dev, live.st_ino) == (kept.st_dev, kept.st_ino)",
        ALWAYS,
        "a document with another name",
    ),
    # of digests
    "no document is judged": _inspector(
        "Inspector._see", "judge", "judged_sound", "a flipped document"
    ),
    "any bytes have the recorded digest": row(
        "verdict", "judge", "recorded.revision == content.revision", ALWAYS, "a flipped document"
    ),
    "a checksum is every document's": row(
        "verdict",
        "judge",
        "recorded.name_hash == name_hash(key)",
        ALWAYS,
        "a backup in the place of another",
    ),
    "a checksum is every document's, to a check": row(
        "verdict",
        "of_another",
        "judged.recorded.name_hash != name_hash(key)",
        NEVER,
        "a restore of the backup of another",
    ),
    "everything parses": row("verdict", "judge", "why_not_json", NOTHING, "a torn edit"),
    "no checksum is read": _inspector(
        "Inspector._see", "decode_checksum", NOTHING, "a flipped document"
    ),
    "an export reads no checksum": _inspector(
        "_recorded",
        "decode_checksum",
        NOTHING,
        "an export of a flipped document that meets two saves",
    ),
    "a large document is exported unchecked": _inspector(
        "Inspector.judge_in_pieces",
        "checksum.digest == digest.digest()",
        ALWAYS,
        "an export of a large flipped document",
    ),
    "an export takes the checksum of another document": needless(
        _inspector(
            "_recorded",
            "checksum.name_hash != name_hash(key)",
            NEVER,
            "an export of a flipped document that meets two saves",
        ),
        "a document with another's checksum is exported as an edit, and a revision is looked for "
        "among the contents of this document alone",
    ),
    "an export judges no document": _snapshots(
        "VolumeSnapshot._judged",
        "self.inspector.look_in",
        "believing(self.inspector.look_in)",
        "an export of a flipped document",
    ),
    "the report is not judged": needless(
        row(
            "medium",
            "VolumeMedium._report_in",
            "self.current_documents.inspector.look_in",
            "believing(self.current_documents.inspector.look_in)",
            "a flipped document",
        ),
        "no document depends on the report; a damaged one is then kept as another program's file",
    ),
    "an export judges no large document": _snapshots(
        "VolumeSnapshot._pieces",
        "self.inspector.judge_in_pieces",
        YES,
        "an export of a large flipped document",
    ),
    "an edit is taken for what is known": _current_documents(
        "CurrentDocuments._replaced", "before.revision == content.revision", ALWAYS, "an edit"
    ),
    "an edit that changes nothing replaces something": _current_documents(
        "CurrentDocuments._replaced",
        "before.revision == content.revision",
        NEVER,
        "an edit that changes nothing",
    ),
    "the content that an edit replaces is preserved twice": _current_documents(
        "CurrentDocuments._is_saved",
        "backup.revision == content.revision",
        NEVER,
        "an edit of what is the newest backup too",
    ),
    "memory replaces any broken file": _current_documents(
        "CurrentDocuments._remembered",
        "entry[1].revision not in known",
        NEVER,
        "a copy back by hand that rots",
    ),
    "a recovery takes the newest backup in any case": _current_documents(
        "CurrentDocuments._recover",
        "self._recorded_backup",
        NOTHING,
        "a flipped document whose content is an older backup",
    ),
    "any content in memory is the one of an instant": _current_documents(
        "CurrentDocuments.recall",
        "entry[1].revision == revision",
        ALWAYS,
        "an export of a flipped document that meets two saves",
    ),
    "each backup is read to find a content": needless(
        _current_documents(
            "CurrentDocuments._backup_with",
            "part.revision in (None, revision)",
            ALWAYS,
            "a flipped document whose content is an older backup",
        ),
        "what is read is judged: this spares reading the others",
    ),
    "any backup has the content that is asked for": row(
        "recovery",
        "choose_backup",
        "content.revision != revision",
        NEVER,
        "a flipped document whose older backup was replaced",
    ),
    "broken backups are used where no sound one is": row(
        "recovery", "choose_backup", "lacks_checksum", YES, "a flipped document and every backup"
    ),
    "a restore may choose the current content": row(
        "recovery",
        "choose_backup",
        "content.revision == unlike",
        NEVER,
        "a restore past a backup of the current content",
    ),
    "retention may guard the current content": row(
        "recovery",
        "choose_guarded",
        "b.revision != unlike",
        NEVER,
        "a prune past a backup of the current content",
    ),
    "a backup without a checksum is listed as edited": row(
        "verdict",
        "backup_word",
        "lacks_checksum",
        NOTHING,
        "a listing of a backup without a checksum",
    ),
    "backups are not judged in a recovery": _current_documents(
        "CurrentDocuments._judged",
        "self.inspector.look_at_backup",
        "believing(self.inspector.look_at_backup)",
        "a flipped document and backup",
    ),
    "backups are not judged when a removal is made again": _current_documents(
        "CurrentDocuments._judged",
        "self.inspector.look_at_backup",
        "believing(self.inspector.look_at_backup)",
        "delete, the documents' directory fails to sync, then rot and the reopening",
    ),
    "backups are not judged in a rotation": row(
        "rotation",
        "Rotation._verdict_of",
        "self.current_documents.inspector.look_at_backup",
        "believing(self.current_documents.inspector.look_at_backup)",
        "rotation past a broken backup",
    ),
    "a backup of another content counts as the one that is added": row(
        "adding",
        "_has",
        "content.revision == new.content.revision",
        ALWAYS,
        "backups added under the name of another",
    ),
    "of two added under one name the second counts as the first": row(
        "adding",
        "_place",
        "earlier.revision == new.content.revision",
        ALWAYS,
        "backups added under the name of another",
    ),
    "backups are not judged when others are added": row(
        "adding",
        "_has",
        "documents.inspector.look_at_backup",
        "believing(documents.inspector.look_at_backup)",
        "a backup added beside the same bytes of another document",
    ),
    "backups are not judged when they are looked at": row(
        "store",
        "VolumeStore.read_backup",
        "self.current_documents.inspector.look_at_backup",
        "believing(self.current_documents.inspector.look_at_backup)",
        "a look at a flipped backup",
    ),
    "documents are listed without their digests": row(
        "store",
        "VolumeStore._recorded",
        "decode_checksum",
        NOTHING,
        "a listing of what was not read yet",
    ),
    "backups are listed without their digests": row(
        "backup_index",
        "BackupIndex._measured",
        "decode_checksum",
        "(lambda raw: type('NoDigest', (), "
        "{'revision': None, 'name_hash': decode_checksum(raw).name_hash}))",
        "a switch between two contents",
    ),
    "broken bytes count as already in quarantine": _preserver(
        "Preserver.keep_broken", "is_set_aside", YES, "recovery"
    ),
    "broken bytes of one size are one": row(
        "quarantine", "is_set_aside", "raw.data == content.data", ALWAYS, "two rots of one size"
    ),
    "the same broken bytes are moved to quarantine again": row(
        "quarantine", "is_set_aside", "raw.data == content.data", NEVER, "two rots of one size"
    ),
    "a record is rolled forward without its digest": _opening(
        "Replay._roll_forward", "decode_record", "unchecked", "start with a rotten record"
    ),
    "any digest of a record will do": row(
        "record",
        "decode_record",
        "rest.strip() != hashlib.sha256(line).hexdigest().encode()",
        NEVER,
        "start with a rotten record",
    ),
    "every file in staging/ is rolled forward": _opening(
        "Replay._complete_put", "self._is_staged", YES, "transaction"
    ),
    "an edit after a crash is rolled over": _opening(
        "Replay._complete_put",
        "live.content.revision not in (entry.before, entry.after)",
        NEVER,
        "start after a crash and an edit by hand",
    ),
    "the published file is not compared with the record": _opening(
        "Replay._complete_put",
        "live.content.revision != entry.after",
        NEVER,
        "start after a crash past the exchange, and an edit by hand, torn",
    ),
    "everything is in place already": _opening(
        "Replay._is_in_place",
        "live.content.revision == entry.after",
        ALWAYS,
        "a start after a crash and rot in staging",
    ),
    "nothing is in place yet": _opening(
        "Replay._is_in_place",
        "live.content.revision == entry.after",
        NEVER,
        "a start after a crash past the first exchange and rot in staging",
    ),
    "an edit after a crash is removed": _opening(
        "Replay._complete_removal",
        "live.content.revision == entry.before",
        ALWAYS,
        "start after a crash of a removal, and an edit by hand",
    ),
    "every file in staging/ counts as Seline's": _opening(
        "Replay._sweep_staging",
        "self._is_ours",
        YES,
        "start with an edit left in staging/, and a transaction",
    ),
    "nothing in staging/ is known by its digest": _opening(
        "Replay._is_ours", "checksum.revision == Content.of(data).revision", NEVER, "save"
    ),
    "nothing half-written in staging/ is known": seldom(
        _opening("Replay._is_ours", "why_not_json", NOTHING, "save")
    ),
    "no checksum in staging/ is read": _opening(
        "Replay._is_ours", "decode_checksum", NOTHING, "save"
    ),
}

OF_THE_FIRST_FORM: Final[Mapping[str, WrongBuild]] = {**SYNCS, **LINKS, **CHECKS}
