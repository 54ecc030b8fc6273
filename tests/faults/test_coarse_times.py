"""V4: on a volume with mtimes in whole seconds, damage and hand edits are still distinguished."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seline.blocking import Seline, open_seline
from tests.faults.forms import each_form_at_once

pytestmark = each_form_at_once

NAME = "user_profile.json"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """Mount an ext4 with 128-byte inodes, which hold no fraction of a second."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    image, point = tmp_path / "image", tmp_path / "volume"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    try:
        run("mkfs.ext4", "-q", "-F", "-I", "128", str(image))
        run("mount", "-o", "loop", str(image), str(point))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no such file system can be made here: {error}")
    yield point
    run("umount", "--lazy", str(point))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def test_a_changed_digit_is_found_and_recovered(volume: Path) -> None:
    with open_seline(volume, storage__settle_s=0) as seline:
        for balance in (1000, 2000):
            seline.data.save_json(NAME, {"balance": balance})
    flip(volume / NAME)

    with open_seline(volume, storage__settle_s=0) as seline:
        assert seline.data.load_json(NAME) == {"balance": 1000}
        assert len(seline.quarantine()) == 1


def flip(path: Path) -> None:
    """Change a digit and keep the mtime, as a failing disk does."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"2000", b"3000"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_edit_in_the_same_second_as_the_save_is_served(volume: Path) -> None:
    with open_seline(volume, storage__settle_s=0) as seline:
        seline.data.save_json(NAME, {"balance": 1000})

        (volume / NAME).write_text('{"balance": 5}')

        assert seline.data.load_json(NAME) == {"balance": 5}
        assert seline.quarantine() == []


def test_a_loaded_machine_is_not_taken_for_coarse_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Young documents would be read from the disk each time, until the process ends."""
    real = os.stat

    def slow(*arguments: Any, **options: Any) -> os.stat_result:
        time.sleep(0.001)
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", slow)
        with open_seline(tmp_path) as seline:
            assert "timestamps" not in volume_check(seline)


def test_times_in_whole_seconds_are_reported(volume: Path) -> None:
    with open_seline(volume) as seline:
        assert "timestamps: coarse: young documents" in volume_check(seline)


def volume_check(seline: Seline) -> str:
    """Return what health says of the volume's file system."""
    [check] = [check for check in seline.health()["checks"] if check["name"] == "volume"]
    return check["detail"]
