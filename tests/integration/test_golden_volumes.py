"""Open the golden volume of every format: each later version of Seline must be able to.

That of format 2 was packed while only its journal had the last changes.
"""

import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from seline.blocking import Seline, open_seline
from seline.domain.document import Json
from seline.storage.volume.directory import VOLUME_FORMAT
from seline.storage.volume.journal.codec import JournalChange, batches
from tests.volumes import FOLDER, large, unpack

PROFILE = "user_profile.json"
TARS = sorted(FOLDER.glob("format-*.tar.xz"))
WITH_A_JOURNAL = FOLDER / "format-2.tar.xz"
IN_THE_FILES: Mapping[str, Json] = {
    "large.json": large(0),
    "removed.json": {"was": "here"},
    "left.json": {"coins": 9},
    "right.json": {"coins": 0},
}
IN_THE_JOURNAL: Mapping[str, Json] = {
    "large.json": large(2),
    "left.json": {"coins": 4},
    "right.json": {"coins": 5},
    "moved.json": {"coins": 5},
}
BACKUPS_IN_THE_JOURNAL: Mapping[str, list[Json]] = {
    "large.json": [large(1), large(0)],
    "removed.json": [{"was": "here"}],
    "left.json": [{"coins": 9}],
    "right.json": [{"coins": 0}],
    "moved.json": [],
}


def test_the_current_format_has_a_golden_volume() -> None:
    assert f"format-{VOLUME_FORMAT}.tar.xz" in {tar.name for tar in TARS}


@pytest.mark.parametrize("tar", TARS, ids=lambda tar: tar.name)
def test_a_golden_volume_is_sound_and_complete(tmp_path: Path, tar: Path) -> None:
    unpack(tar, tmp_path)
    with open_seline(tmp_path) as seline:
        data = seline.data
        assert seline.verify().findings == ()
        in_the_journal = IN_THE_JOURNAL if tar == WITH_A_JOURNAL else {}
        assert {(info.name, info.verdict) for info in data.documents()} == {
            (name, "sound") for name in (PROFILE, "user.json", "broken.json", *in_the_journal)
        }
        assert data.load_json(PROFILE) == {"userName": "Zoé", "n": 6}
        assert data.load_json("user.json") == [1, 2.5, None, True, "é"]
        assert data.load_json("broken.json") == {"n": 2}
        backups = data.backups(PROFILE)
        assert [data.read_backup(PROFILE, backup.name)["n"] for backup in backups] == [
            5,
            4,
            3,
            2,
            1,
        ]
        assert [backup.pinned for backup in backups] == [False, False, False, False, True]
        assert len(seline.quarantine()) == 1
        assert data.restore_from_backup("gone.json")
        assert data.load_json("gone.json") == {"was": "here"}


def test_only_the_journal_of_a_golden_volume_has_the_last_changes(tmp_path: Path) -> None:
    unpack(WITH_A_JOURNAL, tmp_path)

    names = {*IN_THE_FILES, *IN_THE_JOURNAL}
    files = {n: json.loads((tmp_path / n).read_bytes()) for n in names if (tmp_path / n).exists()}
    assert files == IN_THE_FILES
    assert not [path for path in (tmp_path / "backups").iterdir() if path.name.startswith("large")]
    assert [[change.name for change in changes] for changes in journaled(tmp_path)] == [
        ["large.json"], ["large.json"], ["removed.json"],
        ["left.json", "moved.json", "right.json"],
    ]  # fmt: skip
    differences = [changes[0].data for changes in journaled(tmp_path)[:2]]
    assert differences == [b"1", b"2"]


def test_the_changes_that_only_its_journal_has_are_made(tmp_path: Path) -> None:
    unpack(WITH_A_JOURNAL, tmp_path)

    with open_seline(tmp_path) as seline:
        assert served(seline) == IN_THE_JOURNAL
        assert kept(seline) == BACKUPS_IN_THE_JOURNAL
        assert not [check for check in checks(seline) if check["name"] == "journal_broken"]
    with open_seline(tmp_path, storage__journal_bytes=0) as seline:
        assert served(seline) == IN_THE_JOURNAL
        assert kept(seline) == BACKUPS_IN_THE_JOURNAL
        assert seline.data.restore_from_backup("removed.json")
        assert seline.data.load_json("removed.json") == {"was": "here"}


def served(seline: Seline) -> dict[str, Json]:
    """Return the documents that the journal changed."""
    files = cast("dict[str, Json]", seline.data.export_all_data()["files"])
    return {name: files[name] for name in (*IN_THE_FILES, *IN_THE_JOURNAL) if name in files}


def checks(seline: Seline) -> Sequence[Mapping[str, Json]]:
    """Return what health reports."""
    return cast("Sequence[Mapping[str, Json]]", seline.health()["checks"])


def kept(seline: Seline) -> dict[str, list[Json]]:
    """Return their backups, newest first."""
    data = seline.data
    return {
        name: [data.read_backup(name, backup.name) for backup in data.backups(name)]
        for name in BACKUPS_IN_THE_JOURNAL
    }


def journaled(volume: Path) -> list[Sequence[JournalChange]]:
    """Return the changes that the journal has since it was last clean, batch by batch."""
    found = [
        read
        for name in ("journal-a", "journal-b")
        for read in batches((volume / ".seline" / name).read_bytes(), after_epoch=0)
    ]
    latest = max(read.epoch for read in found)
    return [read.batch.changes for read in found if read.epoch == latest]


@pytest.mark.parametrize("tar", TARS, ids=lambda tar: tar.name)
def test_opening_a_golden_volume_changes_no_document(tmp_path: Path, tar: Path) -> None:
    """A replay of the journal changes those that it has."""
    unpack(tar, tmp_path)
    with open_seline(tmp_path) as seline:
        seline.verify()
    with tarfile.open(tar) as packed:
        for member in packed:
            if not member.name.startswith(("metadata.json", ".seline", *IN_THE_FILES)):
                content = packed.extractfile(member)
                assert content is not None
                assert (tmp_path / member.name).read_bytes() == content.read(), member.name
