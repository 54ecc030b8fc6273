"""A copy that nearly fills a small volume is restored in bounded memory, and nothing is shed."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.faults.large_restore import LARGE, MANY
from tests.faults.small_filesystem import small_filesystem

GROWTH_MIB_MAX: Final = 96
VOLUME_MB: Final = 446


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_a_copy_that_nearly_fills_a_volume_takes_little_memory(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "data", size_mb=VOLUME_MB) as small:
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.large_restore", str(small.path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        grown_mib, size_bytes = map(int, done.stdout.split())
        documents = [*small.path.glob("large_*.json"), *small.path.glob("many_*.json")]
        backups = list((small.path / "backups").iterdir())

    count = len(LARGE) + len(MANY)
    assert (len(documents), len(backups)) == (count, count)
    assert size_bytes > 0.85 * VOLUME_MB * 1_000_000
    assert grown_mib <= GROWTH_MIB_MAX
