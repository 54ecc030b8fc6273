"""`python -m tests.volumes`: create the golden volume of the current format, once."""

import os
import tempfile
from pathlib import Path

from seline.blocking import open_seline
from seline.storage.volume.directory import VOLUME_FORMAT
from tests.volumes import FOLDER, pack

PROFILE = "user_profile.json"


def main() -> None:
    """Create a volume and pack it."""
    with tempfile.TemporaryDirectory() as scratch:
        fill(Path(scratch) / "data", FOLDER / f"format-{VOLUME_FORMAT}.tar.xz")


def fill(volume: Path, tar: Path) -> None:
    """Create the volume that `test_golden_volumes` expects; pack it as a kill leaves it."""
    settings = {"storage__journal_bytes": 65_536, "storage__publish_within_ms": 0}
    with open_seline(volume, **settings) as seline:
        data = seline.data
        for number in range(7):
            data.save_json(PROFILE, {"userName": "Zoé", "n": number})
        data.pin(PROFILE, data.backups(PROFILE)[-1].name, "the first one kept")
        data.save_json("user.json", [1, 2.5, None, True, "é"])
        data.save_json("gone.json", {"was": "here"})
        data.delete("gone.json")
        data.save_json("broken.json", {"n": 1})
        data.save_json("broken.json", {"n": 2})
        flip(volume / "broken.json")
        data.load_json("broken.json")
        data.save_json("user.json", [1])
        data.save_json("user.json", [1, 2.5, None, True, "é"])
        pack(volume, tar)


def flip(path: Path) -> None:
    """Change one digit and keep the mtime, like a disk that corrupts data."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"2", b"3"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


if __name__ == "__main__":
    main()
