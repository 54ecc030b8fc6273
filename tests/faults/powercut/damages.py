"""Cases without a power cut that the checks of digests and inodes must detect.

Each case damages a volume in a way that only one check detects, and returns the guarantees that are
broken after it: none with the store as it is, some with a build that lacks the check.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from seline.blocking import Seline, open_seline
from seline.domain.backup import Backup
from seline.domain.checksum import ATTRIBUTE
from seline.domain.document import BOT, Content, DocumentKey, Json
from seline.domain.json_codec import NotJson, encode
from seline.errors import DocumentUnrecoverable, SelineError
from seline.ports.store import AddedBackup
from seline.storage.volume import files, snapshots
from seline.storage.volume import open as opening
from seline.storage.volume.commit.record import decode_record
from tests.clocks import FakeClock
from tests.faults.injection import store_of
from tests.faults.powercut.promises import unhurried
from tests.faults.powercut.scenarios import crash, transaction
from tests.proof.operations import STILL, A, B, C, documents, opened, value

Case: TypeAlias = Callable[[Path], list[str]]
SETTLED_S: Final = 0.03
"""Longer than the settle time of `opened`."""
LARGE: Final[Json] = {"n": 0, "filler": "x" * (2 << 20)}
"""Too large for an export to judge in one piece."""


def broken_by(case: Case, volume: Path) -> list[str]:
    """Return what a case finds broken; an unexpected error of Seline is broken too."""
    with unhurried():
        try:
            return case(volume)
        except (SelineError, NotJson) as error:
            return [f"V7: {type(error).__name__}: {error}"]


# rot


def flip(path: Path, old: bytes = b"xxx", new: bytes = b"xyx") -> bytes:
    """Change some bytes and keep the mtime, as a failing disk does; return the new bytes."""
    before = path.stat()
    with path.open("r+b") as file:
        data = file.read().replace(old, new, 1)
        file.seek(0)
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return data


def a_flipped_document(volume: Path) -> list[str]:
    """V4: it is not served, its bytes are kept, and its newest backup replaces it."""
    documents(volume)
    broken = flip(volume / A)
    with opened(volume) as seline:
        found = _expect(seline, value(A, 1))
        found += [f"V4: {one.verdict}" for one in seline.verify().findings]
        kept = [seline.read_quarantine(one.name) for one in seline.quarantine()]
    return found + ["V4: the broken bytes are not kept, once"] * (kept != [broken])


def a_flipped_document_and_backup(volume: Path) -> list[str]:
    """V4: a backup is checked as its document is; the next older sound one is used."""
    documents(volume)
    flip(volume / A)
    flip(_backups(volume)[-1])
    with opened(volume) as seline:
        return _expect(seline, value(A, 0))


def a_flipped_document_whose_content_is_an_older_backup(volume: Path) -> list[str]:
    """V4: nothing is lost, as after a kill that comes before the rotation."""
    _flipped_with_its_content_in_the_oldest(volume)
    with opened(volume) as seline:
        return _expect(seline, value(A, 0))


def a_flipped_document_whose_older_backup_was_replaced(volume: Path) -> list[str]:
    """The content is not in that backup any more, though the index has it: the newest is used."""
    oldest = _flipped_with_its_content_in_the_oldest(volume)
    with opened(volume) as seline:
        newest = seline.data.backups(A)[0]
        shutil.copy2(_backups(volume)[1], oldest)
        return _expect(seline, seline.data.read_backup(A, newest.name))


def a_backup_in_the_place_of_another(volume: Path) -> list[str]:
    """V4: a backup of another document is never used, also if there is no other one."""
    documents(volume)
    flip(volume / A)
    for path in _backups(volume):
        shutil.copy2(_backups(volume, STILL)[-1], path)
    return _expect_nothing(volume)


def a_restore_of_the_backup_of_another(volume: Path) -> list[str]:
    """The same on request."""
    documents(volume)
    theirs = _backups(volume)[-1]
    shutil.copy2(_backups(volume, STILL)[-1], theirs)
    with opened(volume) as seline:
        try:
            seline.data.restore(A, theirs.name)
        except SelineError:
            return _expect(seline, value(A, 2))
    return ["V4: the backup of another document was restored"]


def backups_added_under_the_name_of_another(volume: Path) -> list[str]:
    """V8: what has the name is kept, and what is added too, also twice in one call."""
    documents(volume)
    taken = _backups(volume)[-1].name
    contents = [value(A, number) for number in ("added", "also added")]
    with opened(volume) as seline:
        _add(seline, [(taken, content) for content in contents])
        kept = [seline.data.read_backup(A, one.name) for one in seline.data.backups(A)]
    wanted = [*contents, value(A, 0), value(A, 1)]
    return [] if all(kept.count(one) == 1 for one in wanted) else [f"V8: there is {kept}"[:400]]


def a_backup_added_beside_the_same_bytes_of_another_document(volume: Path) -> list[str]:
    """V4: bytes that are not usable as a backup do not count as one."""
    documents(volume)
    taken = _backups(volume)[-1]
    shutil.copy2(_backups(volume, STILL)[-1], taken)
    with opened(volume) as seline:
        _add(seline, [(taken.name, value(STILL, 1))])
        usable = [one for one in seline.data.backups(A) if not one.flaw]
        kept = [seline.data.read_backup(A, one.name) for one in usable]
    return [] if value(STILL, 1) in kept else ["V4: the backup was not added"]


def _add(seline: Seline, backups: Sequence[tuple[str, Json]]) -> None:
    added = [
        AddedBackup(key=DocumentKey(BOT, A), name=name, content=Content.of(encode(content)))
        for name, content in backups
    ]
    store_of(seline).add_backups(added).result(20)


def a_flipped_document_and_every_backup(volume: Path) -> list[str]:
    """V4: if nothing sound is left, nothing is served."""
    documents(volume)
    for path in (volume / A, *_backups(volume)):
        flip(path)
    return _expect_nothing(volume)


def _expect_nothing(volume: Path) -> list[str]:
    with opened(volume) as seline:
        try:
            return [f"V4: {str(seline.data.load_json(A))[:40]} was served"]
        except DocumentUnrecoverable:
            return []


def two_rots_of_one_size(volume: Path) -> list[str]:
    """V4: all broken bytes are kept, the same ones once."""
    documents(volume)
    broken: set[bytes] = set()
    with opened(volume) as seline:
        for new in (b"xyx", b"xzx", b"xzx"):
            seline.data.save_json(A, value(A, 9))
            broken.add(flip(volume / A, new=new))
            seline.data.load_json(A)
        kept = [seline.read_quarantine(one.name) for one in seline.quarantine()]
    return [] if sorted(kept) == sorted(broken) else [f"V4: of 2 broken contents {len(kept)} lie"]


def rotation_past_a_broken_backup(volume: Path) -> list[str]:
    """V8: the backup that is kept was read."""
    documents(volume)
    flip(_backups(volume)[-1])
    with open_seline(volume, lock_wait_s=0, backups__keep_newest=1) as seline:
        seline.prune()
        left = [seline.data.read_backup(A, one.name) for one in _sound(seline)]
    return [] if value(A, 0) in left else ["V8: the newest sound backup went"]


def a_look_at_a_flipped_backup(volume: Path) -> list[str]:
    """V4: a broken backup is not returned as sound."""
    documents(volume)
    flip(_backups(volume)[-1])
    with opened(volume) as seline:
        try:
            found = seline.data.read_backup(A, _backups(volume)[-1].name)
        except SelineError:
            return []
    return [f"V4: {str(found)[:60]} was given"]


def a_restore_past_a_backup_of_the_current_content(volume: Path) -> list[str]:
    """A restore changes the document: a backup with the same content is skipped."""
    documents(volume)
    with opened(volume) as seline:
        seline.data.save_json(A, value(A, 1), backup=False)
        seline.data.restore(A)
        return _expect(seline, value(A, 0))


def a_prune_past_a_backup_of_the_current_content(volume: Path) -> list[str]:
    """V8: the newest sound backup that differs from the document is kept."""
    documents(volume)
    with open_seline(volume, lock_wait_s=0, backups__keep_newest=1) as seline:
        seline.data.save_json(A, value(A, 1), backup=False)
        seline.prune()
        left = [seline.data.read_backup(A, one.name) for one in seline.data.backups(A)]
    return [] if value(A, 0) in left else ["V8: the only earlier content was removed"]


def a_listing_of_a_backup_without_a_checksum(volume: Path) -> list[str]:
    """A backup without a checksum is listed as unchecked, not as edited by hand."""
    documents(volume)
    os.removexattr(_backups(volume)[-1], ATTRIBUTE)
    with opened(volume) as seline:
        listed = [one.verdict for one in seline.data.backups(A)]
    return [] if listed == ["sound", "unchecked"] else [f"the backups are listed as {listed}"]


def a_listing_of_what_was_not_read_yet(volume: Path) -> list[str]:
    """A document that was not read is listed with the revision of its save."""
    documents(volume)
    with opened(volume) as seline:
        [listed] = [one.revision for one in seline.data.documents() if one.name == A]
    saved = Content.of(encode(value(A, 2))).revision
    return [] if listed == saved else [f"a document is listed with the revision {listed}"]


def _sound(seline: Seline) -> list[Backup]:
    found = seline.verify().findings
    broken = {one.backup for one in found}
    return [one for one in seline.data.backups(A) if one.name not in broken]


# edits by hand


def edit(path: Path, data: bytes) -> None:
    """Put a file in place as an editor does, without a checksum."""
    staged = path.with_name("edit.tmp")
    staged.write_bytes(data)
    staged.rename(path)


def an_edit(volume: Path) -> list[str]:
    """It is served at once and adopted; the content before is kept."""
    documents(volume)
    with opened(volume) as seline:
        seline.data.load_json(A)
        edit(volume / A, encode({"by": "hand"}))
        found = _expect(seline, {"by": "hand"})
        _adopt(seline)
        kept = [seline.data.read_backup(A, one.name) for one in seline.data.backups(A)]
    return found + ([] if value(A, 2) in kept else ["V2: what an edit replaced is lost"])


def a_torn_edit(volume: Path) -> list[str]:
    """It goes to quarantine once it has settled; the content before is served all the time."""
    documents(volume)
    with opened(volume) as seline:
        seline.data.load_json(A)
        edit(volume / A, b'{"by": "ha')
        found = _expect(seline, value(A, 2))
        _adopt(seline)
        kept = [seline.read_quarantine(one.name) for one in seline.quarantine()]
    return found + ["V4: a torn edit is not kept"] * (kept != [b'{"by": "ha'])


def an_edit_that_changes_nothing(volume: Path) -> list[str]:
    """A content that equals its document is no backup."""
    documents(volume)
    with opened(volume) as seline:
        seline.data.load_json(A)
        edit(volume / A, (volume / A).read_bytes())
        _adopt(seline)
        kept = [seline.data.read_backup(A, one.name) for one in seline.data.backups(A)]
    return ["V8: a backup has the content of its document"] * (value(A, 2) in kept)


def an_edit_of_what_is_the_newest_backup_too(volume: Path) -> list[str]:
    """A content that equals a newer backup is no backup."""
    documents(volume)
    with opened(volume) as seline:
        seline.data.save_json(A, value(A, 3))
        seline.data.save_json(A, value(A, 2), backup=False)
        edit(volume / A, encode({"by": "hand"}))
        _adopt(seline)
        kept = [seline.data.read_backup(A, one.name) for one in seline.data.backups(A)]
    return ["V8: two backups have one content"] * (kept.count(value(A, 2)) > 1)


def a_copy_back_by_hand_that_rots(volume: Path) -> list[str]:
    """V4: memory is used only if it has the content that the file held last."""
    documents(volume)
    with opened(volume) as seline:
        seline.data.load_json(A)
        shutil.copy2(_backups(volume)[-1], volume / A)
        flip(volume / A)
        found = _expect(seline, value(A, 1))
        kept = [seline.data.read_backup(A, one.name) for one in seline.data.backups(A)]
    return found + ["V2: what was saved last is in no backup"] * (value(A, 2) not in kept)


def a_slow_upload(volume: Path) -> list[str]:
    """A file that still changes is left alone."""
    clock = FakeClock()
    documents(volume)
    with _by(clock), opened(volume) as seline:
        seline.data.load_json(A)
        for size in (10, 20, 30):
            (volume / A).write_bytes(encode(value(A, "slow"))[:size])
            seline.data.load_json(A)
            clock.advance(0.008)
        return ["an upload was undone"] * bool(seline.quarantine())


def an_edit_in_place_under_a_read(volume: Path) -> list[str]:
    """V1: bytes that were read during a write are not served."""
    documents(volume)
    edit(volume / A, b'{"a": 1, "b": 1}')

    def read_all(descriptor: int, size_bytes: int) -> bytes:
        half = os.read(descriptor, size_bytes // 2)
        if left:
            left.pop()
            (volume / A).write_bytes(b'{"a": 2, "b": 2}')
        return half + os.read(descriptor, size_bytes)

    left = [True]
    with opened(volume) as seline, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_read_all", read_all)
        seen = seline.data.load_json(A)
    return [f"V1: {seen} was served"] * (seen not in ({"a": 1, "b": 1}, {"a": 2, "b": 2}))


# exports


def an_export_beside_a_save(volume: Path) -> list[str]:
    """An export holds the contents of its instant, also without what memory has of them."""
    documents(volume)
    with opened(volume, storage__cache_bytes_max=0) as seline, seline.data.exported() as snapshot:
        seline.data.save_json(A, value(A, "new"))
        return exported_otherwise(snapshot, encode(value(A, 2)))


def an_export_that_meets_a_save(volume: Path) -> list[str]:
    """The same if the save comes just before the document is opened."""
    documents(volume)
    return _met_by_a_save(volume, value(A, 2))


def an_export_of_a_large_one_that_meets_a_save(volume: Path) -> list[str]:
    """The same for one that is too large to be read in one piece."""
    documents(volume)
    with opened(volume) as seline:
        seline.data.save_json(A, LARGE)
    return _met_by_a_save(volume, LARGE)


def an_export_of_a_flipped_document_that_meets_two_saves(volume: Path) -> list[str]:
    """The same for a broken document whose content memory has, but not for the export."""
    documents(volume)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "RECALLED_BYTES_MAX", 0)
        return _met_by_a_save(volume, value(A, 2), flipped=True)


def an_export_of_an_edited_document_that_meets_a_save(volume: Path) -> list[str]:
    """An edit removed the content of the instant: the export has the edit, not the later save."""
    documents(volume)
    with opened(volume) as seline, seline.data.exported() as snapshot:
        edit(volume / A, encode({"by": "hand"}))
        seline.data.save_json(A, value(A, "new"))
        return exported_otherwise(snapshot, encode({"by": "hand"}))


def an_export_of_an_edited_document_in_memory_that_meets_a_save(volume: Path) -> list[str]:
    """An edit removed the content of the instant, which memory has; that has no limit."""
    documents(volume)
    with opened(volume) as seline, pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "RECALLED_BYTES_MAX", 0)
        seline.data.load_json(A)
        with seline.data.exported() as snapshot:
            edit(volume / A, encode({"by": "hand"}))
            seline.data.save_json(A, value(A, "new"))
            return exported_otherwise(snapshot, encode(value(A, 2)))


def an_export_of_a_document_edited_twice_that_meets_a_save(volume: Path) -> list[str]:
    """Memory has what was there before the first edit, which the export does not hold."""
    documents(volume)
    with opened(volume) as seline:
        seline.data.load_json(A)
        edit(volume / A, encode({"by": "hand"}))
        with seline.data.exported() as snapshot:
            edit(volume / A, encode({"by": "hand", "again": True}))
            seline.data.save_json(A, value(A, "new"))
            return exported_otherwise(snapshot, encode({"by": "hand", "again": True}))


def _met_by_a_save(volume: Path, held: Json, *, flipped: bool = False) -> list[str]:
    """Save just before the export opens the document, a flipped one for the second time."""
    comes = iter([False, True] if flipped else [True])
    real = files.open_to_read

    def open_to_read(directory: int, name: str) -> int:
        if name == A and next(comes, False):
            seline.data.save_json(A, value(A, "new"))
            seline.data.save_json(A, value(A, "newer"))
        return real(directory, name)

    with opened(volume) as seline:
        seline.data.load_json(A)
        if flipped:
            flip(volume / A)
        with seline.data.exported() as snapshot, pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "open_to_read", open_to_read)
            return exported_otherwise(snapshot, encode(held))


def an_export_of_a_flipped_document(volume: Path) -> list[str]:
    """V4: a broken document is not exported as sound."""
    documents(volume)
    flip(volume / A)
    with opened(volume) as seline, seline.data.exported() as snapshot:
        return exported_otherwise(snapshot, encode(value(A, 1)))


def an_export_of_a_large_flipped_document(volume: Path) -> list[str]:
    """The same for one that is too large to be read in one piece."""
    documents(volume)
    with opened(volume) as seline:
        seline.data.save_json(A, LARGE)
    flip(volume / A)
    with opened(volume) as seline, seline.data.exported() as snapshot:
        return exported_otherwise(snapshot, encode(value(A, 2)))


def exported_otherwise(snapshot: object, held: bytes) -> list[str]:
    """Return what is broken if an export has another content of A."""
    found = b"".join(snapshot.open(A))  # type: ignore[attr-defined]
    return [] if found == held else [f"V4: {found[:60]!r}… was exported"]


# what is left after a kill, a full disk, a failing one


def a_document_with_another_name(volume: Path) -> list[str]:
    """A hard link that a person made, such as by `cp -l`, costs no backup."""
    documents(volume)
    os.link(volume / A, volume.with_name("a copy of a person's"))
    with opened(volume) as seline:
        kept = [seline.data.read_backup(A, one.name) for one in seline.data.backups(A)]
    return [] if value(A, 1) in kept else ["V8: a backup went"]


def a_kill_between_the_link_and_the_exchange(volume: Path) -> list[str]:
    """A backup that is its document's own file is removed."""
    documents(volume)
    os.link(volume / A, volume / "backups" / "a_20990101_000000.json")
    with opened(volume) as seline:
        twins = [one for one in seline.data.backups(A) if one.name.startswith("a_2099")]
        kept = [seline.data.read_backup(A, one.name) for one in seline.data.backups(A)]
    return ["V8: a document counts as its backup"] * bool(twins) + (
        [] if value(A, 1) in kept else ["V8: a backup went"]
    )


def a_start_after_a_crash_and_rot_in_staging(volume: Path) -> list[str]:
    """V5: a transaction with a rotten part is not made."""
    documents(volume)
    crash(volume, transaction)
    _flip_staged(volume, B)
    return _served(volume, {A: 2, B: 2, C: 2})


def a_start_after_a_crash_past_the_first_exchange_and_rot_in_staging(volume: Path) -> list[str]:
    """V5: if a part of it is published, the rest is too, except the rotten part."""
    documents(volume)
    crash(volume, transaction, exchanges=1)
    _flip_staged(volume, B)
    return _served(volume, {A: "new", B: 2, C: "new"})


def _flip_staged(volume: Path, name: str) -> None:
    inner = volume / ".seline"
    entries = decode_record((inner / "journal").read_bytes())
    [staged] = [entry.staged for entry in entries if entry.name == name]
    assert staged is not None
    flip(inner / "staging" / staged)


def _served(volume: Path, wanted: Mapping[str, Json]) -> list[str]:
    with opened(volume) as seline:
        found = {name: seline.data.load_json(name) for name in wanted}
    return [
        f"V5: {str(found[name])[:60]} was served"
        for name, number in wanted.items()
        if found[name] != value(name, number)
    ]


def a_switch_between_two_contents(volume: Path) -> list[str]:
    """A content that equals a newer backup takes no place from the others, in any session."""
    documents(volume)
    for number in (3, 4, 3, 4, 3, 4):
        with opened(volume) as seline:
            seline.data.save_json(A, value(A, number))
            kept = [seline.data.read_backup(A, one.name) for one in seline.data.backups(A)]
    return [] if value(A, 1) in kept else ["V8: two contents have pushed out the others"]


def a_directory_that_cannot_be_synced(volume: Path) -> list[str]:
    """A volume takes no writes while one of its directories cannot be synced."""
    clock = FakeClock()
    documents(volume)

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(volume / "backups"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with _by(clock), opened(volume) as seline, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(SelineError):
            seline.data.save_json(A, value(A, "new"))
        clock.advance(60)
        try:
            seline.data.save_json(STILL, value(STILL, 2))
        except SelineError:
            return []
        return ["V3: the volume takes changes again"]


CASES: Final[Mapping[str, Case]] = {
    case.__name__.replace("_", " "): case
    for case in (
        a_flipped_document,
        a_flipped_document_and_backup,
        a_flipped_document_whose_content_is_an_older_backup,
        a_flipped_document_whose_older_backup_was_replaced,
        a_backup_in_the_place_of_another,
        a_restore_of_the_backup_of_another,
        backups_added_under_the_name_of_another,
        a_backup_added_beside_the_same_bytes_of_another_document,
        a_flipped_document_and_every_backup,
        two_rots_of_one_size,
        rotation_past_a_broken_backup,
        a_look_at_a_flipped_backup,
        a_restore_past_a_backup_of_the_current_content,
        a_prune_past_a_backup_of_the_current_content,
        a_listing_of_a_backup_without_a_checksum,
        a_listing_of_what_was_not_read_yet,
        an_edit,
        a_torn_edit,
        an_edit_that_changes_nothing,
        an_edit_of_what_is_the_newest_backup_too,
        a_copy_back_by_hand_that_rots,
        a_slow_upload,
        an_edit_in_place_under_a_read,
        an_export_beside_a_save,
        an_export_that_meets_a_save,
        an_export_of_a_large_one_that_meets_a_save,
        an_export_of_a_flipped_document_that_meets_two_saves,
        an_export_of_an_edited_document_that_meets_a_save,
        an_export_of_an_edited_document_in_memory_that_meets_a_save,
        an_export_of_a_document_edited_twice_that_meets_a_save,
        an_export_of_a_flipped_document,
        an_export_of_a_large_flipped_document,
        a_kill_between_the_link_and_the_exchange,
        a_document_with_another_name,
        a_start_after_a_crash_and_rot_in_staging,
        a_start_after_a_crash_past_the_first_exchange_and_rot_in_staging,
        a_switch_between_two_contents,
        a_directory_that_cannot_be_synced,
    )
}


def _expect(seline: Seline, wanted: Json) -> list[str]:
    found = seline.data.load_json(A)
    return [] if found == wanted else [f"V4: {str(found)[:60]} was served"]


def _flipped_with_its_content_in_the_oldest(volume: Path) -> Path:
    """Make documents, flip one whose content is its oldest backup, and return that one."""
    documents(volume)
    oldest, kept = _backups(volume)[0], volume.with_name("kept")
    shutil.copy2(oldest, kept)
    with opened(volume) as seline:
        seline.data.save_json(A, value(A, 0))
    shutil.copy2(kept, oldest)
    flip(volume / A)
    return oldest


def _backups(volume: Path, name: str = A) -> list[Path]:
    """Return a document's backups, the newest last."""
    return sorted((volume / "backups").glob(f"{Path(name).stem}_[0-9]*.json"))


def _adopt(seline: Seline) -> None:
    """Read until a hand edit has settled and is adopted."""
    seline.data.load_json(A)
    time.sleep(SETTLED_S)
    seline.data.load_json(A)


@contextmanager
def _by(clock: FakeClock) -> Generator[None]:
    """Open volumes with this clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "Clock", lambda: clock)
        yield
