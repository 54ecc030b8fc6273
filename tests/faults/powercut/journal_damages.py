"""Cases without a power cut that the safeguards of the journal must detect.

Each is as those of `damages`, and uses the journal by itself.
"""

import errno
import itertools
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from seline.blocking import Seline
from seline.domain.document import Json
from seline.domain.json_codec import encode
from seline.storage.volume import files
from seline.storage.volume.journal.codec import BLOCK_BYTES, FIRST_BATCH_AT, ReadBatch, batches
from tests.faults.forms import by_a_journal, by_a_journal_with_files_later, synced_in_its_files
from tests.faults.injection import left_by_a_kill
from tests.faults.powercut.damages import CASES as OF_THE_FIRST_FORM
from tests.faults.powercut.damages import Case, exported_otherwise, flip
from tests.proof.operations import A, B, C, documents, opened, value


def batches_in(volume: Path, name: str = "journal-a") -> list[ReadBatch]:
    """Return the whole batches of a journal file."""
    return list(batches((volume / ".seline" / name).read_bytes(), after_epoch=0))


def rot(volume: Path, at: int) -> bytes:
    """Flip one bit of the journal's first file, so that `a` becomes `c`; return its bytes."""
    path = volume / ".seline" / "journal-a"
    data = bytearray(path.read_bytes())
    data[at] ^= 2
    path.write_bytes(data)
    return bytes(data)


def a_start_after_a_kill_and_an_edit_with_an_old_time(volume: Path) -> list[str]:
    """V4: `cp -p` and a restored volume have times that mean nothing."""
    killed = _killed(volume)
    (killed / A).write_text('{"by": "hand"}')
    os.utime(killed / A, (1, 1))
    with _later(), opened(killed) as seline:
        found = seline.data.load_json(A)
        kept = _backups(seline)
    lost = ["V4: the edit is lost"] * (found != {"by": "hand"})
    return lost + ["V3: the save is lost"] * (value(A, "new") not in [*kept, found])


def a_start_after_a_kill_and_rot_in_the_journal(volume: Path) -> list[str]:
    """V4: a document whose name has become another one's gives that one nothing."""
    killed = _killed(volume)
    first = batches_in(killed)[0]
    rot(killed, (killed / ".seline" / "journal-a").read_bytes().index(A.encode(), first.start))
    with _later(), opened(killed) as seline:
        found = [seline.data.load_json(C), *_backups(seline, C)]
    return [f"V4: {str(one)[:60]} is there" for one in found if one["name"] != C]


def batches_that_begin_a_block_each(volume: Path) -> list[str]:
    """V3: a block that was acknowledged is not written again; a torn write would take it away."""
    documents(volume)
    written: list[range] = []

    def overwrite(descriptor: int, data: bytes, at: int) -> None:
        if at >= FIRST_BATCH_AT:
            written.append(range(at // BLOCK_BYTES, (at + len(data) - 1) // BLOCK_BYTES + 1))
        real(descriptor, data, at)

    real = files.overwrite
    with _later() as patch, opened(volume) as seline:
        patch.setattr(files, "overwrite", overwrite)
        for number in range(4):
            seline.data.save_json(A, value(A, f"new {number}"))
    pairs = itertools.pairwise(written)
    return ["V3: an acknowledged block is written again"] * any(set(a) & set(b) for a, b in pairs)


def a_read_before_the_file_is_written(volume: Path) -> list[str]:
    """V3: an acknowledged change is read at once."""
    documents(volume)
    with _later(), opened(volume) as seline:
        seline.data.save_json(A, value(A, "new"))
        is_read = seline.data.load_json(A) == value(A, "new")
        is_written = (volume / A).read_bytes() == encode(value(A, "new"))
    assert not is_written
    return ["V3: the change is not read"] * (not is_read)


def a_save_over_a_copy_that_cannot_be_synced(volume: Path) -> list[str]:
    """V3: it is made by the first form, which writes the content before it once more."""
    documents(volume)

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(volume / A):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with _at_once() as patch, opened(volume) as seline:
        patch.setattr(os, "fsync", fsync)
        seline.data.save_json(A, value(A, "new"))
        found = seline.data.load_json(A)
    return ["V3: the save is lost"] * (found != value(A, "new"))


def an_export_of_a_document_that_is_flipped_before_its_save_is_published(volume: Path) -> list[str]:
    """V5: the export has the content of its instant, which memory had, and no backup has."""
    documents(volume)
    with _later(), opened(volume) as seline:
        seline.data.load_json(A)
        with seline.data.exported() as snapshot:
            seline.data.save_json(A, value(A, "new"), backup=False)
            flip(volume / A)
            seline.data.backups(A)  # after the file is written
            return exported_otherwise(snapshot, encode(value(A, 2)))


def an_import_too_large_for_the_journal(volume: Path) -> list[str]:
    """V3: it is made by the first form."""
    documents(volume)
    values: dict[str, Json] = {f"{n}.json": {"n": n, "filler": "x" * 1500} for n in range(12)}
    with _at_once(), opened(volume) as seline:
        seline.data.import_data({"files": values})
        found = {name: seline.data.load_json(name) for name in values}
    return ["V3: the import is lost"] * (found != values)


def a_file_that_cannot_be_written_while_the_journal_fills(volume: Path) -> list[str]:
    """V3: what is acknowledged is carried over to the next file of the journal."""
    documents(volume)

    def exchange(source: int, name: str, target: int, new_name: str) -> None:
        if new_name == A:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, name, target, new_name)

    real = files.exchange
    with _later() as patch, opened(volume) as seline:
        patch.setattr(files, "exchange", exchange)
        seline.data.save_json(A, value(A, "new"))
        for number in range(30):
            seline.data.save_json(B, value(B, number))
        seline.data.documents()
        killed = left_by_a_kill(volume, volume.with_name("crashed"))
    with _later(), opened(killed) as seline:
        found = seline.data.load_json(A)
    return ["V3: the save is lost"] * (found != value(A, "new"))


def _killed(volume: Path) -> Path:
    """Return a volume whose process was killed with a change of A in the journal."""
    documents(volume)
    with _later(), opened(volume) as seline:
        seline.data.save_json(A, value(A, "new"))
        return left_by_a_kill(volume, volume.with_name("crashed"))


def _backups(seline: Seline, name: str = A) -> list[Any]:
    return [seline.data.read_backup(name, backup.name) for backup in seline.data.backups(name)]


@contextmanager
def _at_once() -> Generator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        by_a_journal(patch)
        yield patch


@contextmanager
def _later() -> Generator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        by_a_journal_with_files_later(patch)
        yield patch


def _of_the_first_form(case: Case) -> Case:
    def tried(volume: Path) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            synced_in_its_files(patch)
            return case(volume)

    return tried


CASES: Final[Mapping[str, Case]] = {
    name: _of_the_first_form(case) for name, case in OF_THE_FIRST_FORM.items()
} | {
    case.__name__.replace("_", " "): case
    for case in (
        a_start_after_a_kill_and_an_edit_with_an_old_time,
        a_start_after_a_kill_and_rot_in_the_journal,
        batches_that_begin_a_block_each,
        a_read_before_the_file_is_written,
        a_save_over_a_copy_that_cannot_be_synced,
        an_export_of_a_document_that_is_flipped_before_its_save_is_published,
        an_import_too_large_for_the_journal,
        a_file_that_cannot_be_written_while_the_journal_fills,
    )
}
