"""Files outside the volume: whole and durable under their name, or absent."""

import errno
import os
from pathlib import Path

import pytest

from seline.outbound.whole_file import whole_file


@pytest.mark.parametrize("replace", [True, False])
def test_a_file_gets_its_name_with_all_its_bytes(tmp_path: Path, replace: bool) -> None:
    with whole_file(str(tmp_path / "out.json"), replace=replace) as file:
        file.write(b"all of it")
        assert not (tmp_path / "out.json").exists()

    assert (tmp_path / "out.json").read_bytes() == b"all of it"
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_file_that_exists_stays_also_on_a_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_source: str, _target: str) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "out.json"
    with whole_file(str(path), replace=False) as file:
        file.write(b"first")
    with pytest.raises(FileExistsError), whole_file(str(path), replace=False) as file:
        file.write(b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        whole_file(str(tmp_path / "out.json"), replace=True) as file,
    ):
        file.write(b"a part")
        raise ZeroDivisionError

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = str(tmp_path / "out.json")
    with pytest.raises(OSError, match="No space") as caught, whole_file(path, replace=True):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == path

    path = str(tmp_path / "nowhere" / "out.json")
    with pytest.raises(FileNotFoundError) as missing, whole_file(path, replace=True):
        pass
    assert missing.value.filename == path


def test_an_existing_file_is_replaced_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old")

    with pytest.raises(FileExistsError) as caught, whole_file(str(path), replace=False) as file:
        file.write(b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"

    with whole_file(str(path), replace=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
