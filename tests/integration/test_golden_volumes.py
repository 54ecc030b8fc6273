"""Open the golden volume of every format that a released Seline has written."""

import tarfile
from pathlib import Path

import pytest

from seline.blocking import open_seline
from seline.storage.volume.directory import VOLUME_FORMAT
from tests.volumes import FOLDER, unpack

PROFILE = "user_profile.json"
TARS = sorted(FOLDER.glob("format-*.tar.xz"))


def test_the_current_format_has_a_golden_volume() -> None:
    assert f"format-{VOLUME_FORMAT}.tar.xz" in {tar.name for tar in TARS}


@pytest.mark.parametrize("tar", TARS, ids=lambda tar: tar.name)
def test_a_golden_volume_is_sound_and_complete(tmp_path: Path, tar: Path) -> None:
    unpack(tar, tmp_path)
    with open_seline(tmp_path) as seline:
        data = seline.data
        assert seline.verify().findings == ()
        assert {(info.name, info.verdict) for info in data.documents()} == {
            (name, "sound") for name in (PROFILE, "user.json", "broken.json")
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


@pytest.mark.parametrize("tar", TARS, ids=lambda tar: tar.name)
def test_opening_a_golden_volume_changes_no_document(tmp_path: Path, tar: Path) -> None:
    unpack(tar, tmp_path)
    with open_seline(tmp_path) as seline:
        seline.verify()
    with tarfile.open(tar) as packed:
        for member in packed:
            if not member.name.startswith(("metadata.json", ".seline")):
                content = packed.extractfile(member)
                assert content is not None
                assert (tmp_path / member.name).read_bytes() == content.read(), member.name
