"""Full is not dead (V9): on a real small file system, filled by saves and by strangers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from seline.blocking import Seline, open_seline
from seline.errors import VolumeFull

SIZE_MB = 24


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """Give a small file system of its own; skip where nothing may be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    point = tmp_path / "small"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(point)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=False)


def fill(seline: Seline, size_bytes: int = 200_000, *, backup: bool = True) -> int:
    """Save ever new documents until the volume is full; return how many there are."""
    for number in range(10_000):
        try:
            seline.data.save_json(f"d{number}.json", "x" * size_bytes, backup=backup)
        except VolumeFull:
            return number
    raise AssertionError("it was never full")


def fill_as_a_stranger(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space left"):
        while True:
            os.write(descriptor, b"\0" * 4096)
    os.close(descriptor)


def strays(volume: Path) -> list[str]:
    return os.listdir(volume / ".seline" / "staging")


def test_saves_fill_the_volume_and_it_stays_usable(volume: Path) -> None:
    with open_seline(volume) as seline:
        seline.data.save_json("small.json", {"n": 1})
        count = fill(seline)
        assert count > 20
        assert seline.data.health()["status"] != "healthy"
        assert seline.data.load_json("d0.json") == "x" * 200_000
        assert len(seline.data.export_all_data()["files"]) == count + 1
        seline.data.save_json("small.json", {"n": 2})
        assert seline.data.restore_from_backup("small.json") is True
        seline.data.save_json("d1.json", "x" * 1000, shrink=True)
        with pytest.raises(VolumeFull):
            seline.data.save_json("more.json", "x" * 2_000_000)
        assert strays(volume) == []
        for number in range(count // 2):
            seline.data.delete(f"d{number}.json", purge=True)
        assert seline.data.save_json("more.json", "x" * 100_000)
        assert seline.data.health()["usage_percent"] < 80
        assert seline.data.verify().findings == ()


def test_old_backups_make_room_before_a_save_is_refused(volume: Path) -> None:
    with open_seline(volume, backups__keep_newest=1000) as seline:
        for number in range(300):
            seline.data.save_json("log.json", f"{number}" + "x" * 200_000)
        backups = seline.data.backups("log.json")
        assert 1 <= len(backups) < 150
        assert all(backup.verdict == "sound" for backup in backups)
        assert seline.data.health()["usage_percent"] < 96


def test_a_volume_filled_by_a_stranger_recovers_by_itself(volume: Path) -> None:
    with open_seline(volume) as seline:
        for number in range(3):
            seline.data.save_json("profile.json", {"n": number, "text": "x" * 5000})
        fill_as_a_stranger(volume / "core.dump")
        with pytest.raises(VolumeFull):
            seline.data.save_json("new.json", "x" * 100_000)
        assert seline.data.load_json("profile.json")["n"] == 2
        assert seline.data.restore_from_backup("profile.json") is True
        seline.data.update_field("profile.json", "text", "short")
        seline.data.delete("profile.json")
        assert strays(volume) == []
        (volume / "core.dump").unlink()
        assert seline.data.save_json("new.json", "x" * 100_000)
        assert seline.data.restore_from_backup("profile.json") is True
        assert seline.data.verify().findings == ()


def test_a_broken_document_on_a_full_volume_is_recovered(volume: Path) -> None:
    with open_seline(volume, storage__cache_bytes_max=0) as seline:
        for number in range(2):
            seline.data.save_json("profile.json", {"n": number})
        fill_as_a_stranger(volume / "stranger")
        before = (volume / "profile.json").stat()
        with (volume / "profile.json").open("r+b") as file:
            file.write(b"\0\0")
        os.utime(volume / "profile.json", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert seline.data.load_json("profile.json") == {"n": 0}
        assert len(seline.data.quarantine()) == 1
        assert strays(volume) == []
