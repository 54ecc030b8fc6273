"""Saves, loads and exports compared with raw system calls."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from seline import open_seline
from seline.library import Seline
from tests.benchmarks.printing import BYTES, DOCUMENT, ROUNDS, per_call, print_measure, ratio

WRITERS = 64


class RawSaves:
    """The minimal system calls of a save: write, fsync, link, rename, fsync of both directories."""

    def __init__(self, directory: Path) -> None:
        (directory / "backups").mkdir(parents=True)
        self._top = os.open(directory, os.O_RDONLY)
        self._backups = os.open(directory / "backups", os.O_RDONLY)
        self._number = 0

    def save(self, name: str) -> None:
        """Save once; keep five backups."""
        self._number += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        file = os.open("tmp", flags, 0o600, dir_fd=self._top)
        os.write(file, BYTES)
        os.fsync(file)
        os.close(file)
        if self._number > 1:
            backup = f"{self._number}"
            os.link(name, backup, src_dir_fd=self._top, dst_dir_fd=self._backups)
        os.rename("tmp", name, src_dir_fd=self._top, dst_dir_fd=self._top)
        os.fsync(self._backups)
        os.fsync(self._top)
        if self._number > 6:
            os.unlink(f"{self._number - 5}", dir_fd=self._backups)


async def saves(here: Path) -> None:
    """Measure single and concurrent saves."""
    raw = RawSaves(here / "raw")
    async with open_seline(here / "saves", lock_wait_s=0) as seline:
        single, raw_single, many, same = [], [], [], []
        for round_number in range(ROUNDS + 1):
            raw_s = per_call(lambda: raw.save("document.json"), 40)
            single_s = await _sequential(seline, round_number, 40)
            many_s = await _concurrent(
                lambda n, r=round_number: seline.data.save_json(f"d{n}.json", {**DOCUMENT, "r": r})
            )
            same_s = await _concurrent(
                lambda n, r=round_number: seline.data.update_field("one.json", f"w{n}", r)
            )
            if round_number:  # the first round warms up
                raw_single.append(raw_s)
                single.append(single_s / raw_s)
                many.append(raw_s / many_s)
                same.append(raw_s / same_s)
    raw_us = statistics.median(raw_single) * 1e6
    detail = f"raw save {raw_us:,.0f} µs"
    print_measure("a save with backup / the raw sequence", ratio(single), "≤ 1.4", detail)
    print_measure("64 writers, 64 documents: times faster than raw", ratio(many), "≥ 6", "")
    print_measure("64 writers, one document: times faster than raw", ratio(same), "≥ 25", "")


async def _sequential(seline: Seline, round_number: int, count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        await seline.data.save_json("document.json", {**DOCUMENT, "n": [round_number, number]})
    return (time.perf_counter() - started) / count


async def _concurrent(save: Callable[[int], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(save(number) for number in range(WRITERS)))
    return (time.perf_counter() - started) / WRITERS


async def reads(here: Path) -> None:
    """Measure loads of a document in memory."""
    ratios, loads = [], []
    async with open_seline(here / "reads", lock_wait_s=0) as seline:
        await seline.data.save_json("profile.json", DOCUMENT)  # its close writes the file
    async with open_seline(here / "reads", lock_wait_s=0) as seline:
        path = here / "reads" / "profile.json"
        decode = msgspec.json.Decoder().decode
        for _ in range(ROUNDS):
            raw_s = per_call(lambda: (os.stat(path), decode(BYTES)), 5_000)
            started = time.perf_counter()
            for _ in range(5_000):
                await seline.data.load_json("profile.json")
            load_s = (time.perf_counter() - started) / 5_000
            ratios.append(load_s / raw_s)
            loads.append(load_s)
    detail = f"a load takes {statistics.median(loads) * 1e6:.1f} µs"
    print_measure("a hot load of 1 KiB / stat + decode", ratio(ratios), "≤ 1.6", detail)


async def export(here: Path) -> None:
    """Measure the memory that an export of 100 MB needs."""
    volume = here / "export"
    async with open_seline(volume, lock_wait_s=0) as seline:
        text = "x" * (1 << 20)
        for number in range(100):
            await seline.data.save_json(f"big{number}.json", {"text": text}, backup=False)
    code = (
        "import asyncio, resource, sys\n"
        "from seline import open_seline\n"
        "async def main():\n"
        "    async with open_seline(sys.argv[1]) as seline:\n"
        "        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "        sent = 0\n"
        "        async with seline.data.exported() as snapshot:\n"
        "            for name in snapshot.names:\n"
        "                for piece in snapshot.open(name):\n"
        "                    sent += len(piece)\n"
        "        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "        print(sent >> 20, (after - before) / 1024)\n"
        "asyncio.run(main())\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(volume)], check=True, capture_output=True, text=True
    )
    sent, grown = out.stdout.split()
    print_measure(f"an export of {sent} MB: more memory", f"{float(grown):.1f} MB", "≤ 32 MB", "")
