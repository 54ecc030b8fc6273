"""The integrity pass: its speed, and its cost for saves at the same time."""

import asyncio
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from seline import open_seline
from seline.library import Seline
from tests.benchmarks.printing import DOCUMENT, per_call, print_measure, ratio

LARGE, LARGE_BYTES = 64, 8 << 20
SMALL, TOGETHER, SAVES = 10_000, 500, 400


async def speed(here: Path) -> None:
    """Measure a pass over 512 MB against `sha256sum` of the same files, both read from the disk."""
    volume = here / "large"
    async with open_seline(volume, lock_wait_s=0, storage__volume_limit_mb=4000) as seline:
        text = "x" * LARGE_BYTES
        for number in range(LARGE):
            await seline.data.save_json(f"large{number}.json", {"text": text}, backup=False)
        ratios = []
        for _ in range(3):
            raw_s = per_call(lambda: _sha256sum(list(_files(volume))), 1)
            started = time.perf_counter()
            report = await seline.verify()
            ratios.append(raw_s / (time.perf_counter() - started))
        assert not report.findings
        for number in range(LARGE):
            await seline.data.delete(f"large{number}.json", purge=True)
    detail = f"{report.bytes_read / 1e6:,.0f} MB"
    print_measure("an integrity pass: speed / sha256sum", ratio(ratios), "≥ 0.5", detail)


async def saves_during_a_pass(here: Path) -> None:
    """Measure the 99th percentile of saves during passes over 10,000 documents."""
    async with open_seline(here / "small", lock_wait_s=0) as seline:
        for first in range(0, SMALL - TOGETHER, TOGETHER):
            await asyncio.gather(
                *(
                    seline.data.save_json(f"d{number}.json", DOCUMENT)
                    for number in range(first, first + TOGETHER)
                )
            )
        quiet, busy = [], []
        for _ in range(3):
            quiet.append(await _p99(seline))
            passes = asyncio.ensure_future(_repeat_passes(seline))
            busy.append(await _p99(seline))
            passes.cancel()
    ratios = [busy_s / quiet_s for busy_s, quiet_s in zip(busy, quiet, strict=True)]
    detail = f"{statistics.median(quiet) * 1e3:.1f} ms without"
    print_measure("a save's p99 during a pass over 10,000 / without", ratio(ratios), "≤ 2", detail)


async def _repeat_passes(seline: Seline) -> None:
    while True:
        await seline.verify()


async def _p99(seline: Seline) -> float:
    taken = []
    for number in range(SAVES):
        started = time.perf_counter()
        await seline.data.save_json("saved.json", {**DOCUMENT, "n": number})
        taken.append(time.perf_counter() - started)
        await asyncio.sleep(0.002)
    return statistics.quantiles(taken, n=100)[98]


def _files(volume: Path) -> Iterator[Path]:
    yield from volume.glob("*.json")
    yield from volume.glob("backups/*")


def _sha256sum(files: list[Path]) -> None:
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    subprocess.run(["sha256sum", *map(str, files)], check=True, capture_output=True)
