"""`python -m tests.volumes`: create the golden volume of the current format, once."""

import os
import tempfile
from pathlib import Path

from seline.blocking import DataManager, open_seline
from seline.storage.volume.directory import VOLUME_FORMAT
from tests.volumes import FOLDER, large, pack

PROFILE = "user_profile.json"
JOURNAL_BYTES = 65_536
LATER_MS = 10_000


def main() -> None:
    """Create a volume and pack it."""
    with tempfile.TemporaryDirectory() as scratch:
        fill(Path(scratch) / "data", FOLDER / f"format-{VOLUME_FORMAT}.tar.xz")


def fill(volume: Path, tar: Path) -> None:
    """Create the volume that `test_golden_volumes` expects; pack it as a kill leaves it."""
    with open_seline(volume, storage__journal_bytes=JOURNAL_BYTES) as seline:
        save_in_files(volume, seline.data)
    with open_seline(
        volume, storage__journal_bytes=JOURNAL_BYTES, storage__publish_within_ms=LATER_MS
    ) as seline:
        save_in_the_journal(seline.data)
        pack(volume, tar)


def save_in_files(volume: Path, data: DataManager) -> None:
    """Save what the files have once the volume is closed."""
    for number in range(7):
        data.save_json(PROFILE, {"userName": "Zoé", "n": number})
    data.pin(PROFILE, data.backups(PROFILE)[-1].name, "the first one kept")
    data.save_json("user.json", [1, 2.5, None, True, "é"])
    data.save_json("gone.json", {"was": "here"})
    data.delete("gone.json")
    data.save_json("broken.json", {"n": 1})
    data.save_json("broken.json", {"n": 2})
    data.documents()  # this writes the files
    flip(volume / "broken.json")
    data.load_json("broken.json")
    data.save_json("user.json", [1])
    data.save_json("user.json", [1, 2.5, None, True, "é"])
    data.save_json("large.json", large(0))
    data.save_json("removed.json", {"was": "here"})
    data.save_json("left.json", {"coins": 9})
    data.save_json("right.json", {"coins": 0})


def save_in_the_journal(data: DataManager) -> None:
    """Make changes that only the journal has until the volume is closed."""
    data.update_field("large.json", "n", 1)
    data.update_field("large.json", "n", 2)
    data.delete("removed.json")
    with data.transaction("left.json", "right.json", "moved.json") as change:
        change["left.json"] = {"coins": 4}
        change["right.json"] = {"coins": 5}
        change["moved.json"] = {"coins": 5}


def flip(path: Path) -> None:
    """Change one digit and keep the mtime, like a disk that corrupts data."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"2", b"3"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


if __name__ == "__main__":
    main()
