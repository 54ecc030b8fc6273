"""Install what a test needs, one process after the other: tests run side by side."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def installing() -> Iterator[Path]:
    """Yield the folder for what tests install, while no other process installs anything."""
    folder = ROOT / ".prove"
    folder.mkdir(exist_ok=True)
    with (folder / "installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
