"""`python -m tests.benchmarks`: print each measure of the project as a ratio, with its goal.

Each ratio sets Seline against raw system calls in the same run on the same file system. Nothing
is asserted: machines differ, ratios are for people.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from seline import open_seline
from seline.library import Seline
from tests.benchmarks.place import describe, place

ROUNDS = 7
WRITERS = 64
DOCUMENT = {f"field_{number:02d}": f"value {number} of a profile" for number in range(27)}
BYTES = msgspec.json.format(msgspec.json.encode(DOCUMENT), indent=2) + b"\n"


def main() -> None:
    """Run every measure and print it."""
    with place() as here:
        print(f"Seline's measures, on {describe(here)}; medians of {ROUNDS} rounds")
        asyncio.run(_saves(here))
        asyncio.run(_reads(here))
        asyncio.run(_export(here))
        _start(here)
        _idle(here)


def _say(what: str, ratio: str, goal: str, detail: str) -> None:
    print(f"  {what:<46} {ratio:>12}   goal {goal:<10} {detail}")


class RawSaves:
    """tmp + fsync + link + rename + fsync of both directories, as C would do it."""

    def __init__(self, directory: Path) -> None:
        (directory / "backups").mkdir(parents=True)
        self._top = os.open(directory, os.O_RDONLY)
        self._backups = os.open(directory / "backups", os.O_RDONLY)
        self._number = 0

    def save(self, name: str) -> None:
        """Save once, keeping five backups."""
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


async def _saves(here: Path) -> None:
    raw = RawSaves(here / "raw")
    async with open_seline(here / "saves", lock_wait_s=0) as seline:
        single, raw_single, many, same = [], [], [], []
        for round_number in range(ROUNDS + 1):
            raw_s = _per_call(lambda: raw.save("document.json"), 40)
            single_s = await _one_after_another(seline, round_number, 40)
            many_s = await _together(
                lambda n, r=round_number: seline.data.save_json(f"d{n}.json", {**DOCUMENT, "r": r})
            )
            same_s = await _together(
                lambda n, r=round_number: seline.data.update_field("one.json", f"w{n}", r)
            )
            if round_number:  # the first round warms up
                raw_single.append(raw_s)
                single.append(single_s / raw_s)
                many.append(raw_s / many_s)
                same.append(raw_s / same_s)
    raw_us = statistics.median(raw_single) * 1e6
    detail = f"raw save {raw_us:,.0f} µs"
    _say("a save with backup / the raw sequence", _ratio(single), "≤ 1.4", detail)
    _say("64 writers, 64 documents: times faster than raw", _ratio(many), "≥ 6", "")
    _say("64 writers, one document: times faster than raw", _ratio(same), "≥ 25", "")


def _ratio(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ×"


def _per_call(call: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count


async def _one_after_another(seline: Seline, round_number: int, count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        await seline.data.save_json("document.json", {**DOCUMENT, "n": [round_number, number]})
    return (time.perf_counter() - started) / count


async def _together(save: Callable[[int], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(save(number) for number in range(WRITERS)))
    return (time.perf_counter() - started) / WRITERS


async def _reads(here: Path) -> None:
    ratios, loads = [], []
    async with open_seline(here / "reads", lock_wait_s=0) as seline:
        await seline.data.save_json("profile.json", DOCUMENT)
        path = here / "reads" / "profile.json"
        decode = msgspec.json.Decoder().decode
        for _ in range(ROUNDS):
            raw_s = _per_call(lambda: (os.stat(path), decode(BYTES)), 5_000)
            started = time.perf_counter()
            for _ in range(5_000):
                await seline.data.load_json("profile.json")
            load_s = (time.perf_counter() - started) / 5_000
            ratios.append(load_s / raw_s)
            loads.append(load_s)
    detail = f"a load takes {statistics.median(loads) * 1e6:.1f} µs"
    _say("a hot load of 1 KiB / stat + decode", _ratio(ratios), "≤ 4", detail)


async def _export(here: Path) -> None:
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
    _say(f"an export of {sent} MB: more memory", f"{float(grown):.1f} MB", "≤ 32 MB", "")


def _start(here: Path) -> None:
    volume = here / "start"

    async def fill() -> None:
        async with open_seline(volume, lock_wait_s=0) as seline:
            await asyncio.gather(
                *(seline.data.save_json(f"d{n}.json", DOCUMENT) for n in range(1000))
            )
            await asyncio.gather(
                *(seline.data.update_field(f"d{n}.json", "n", n) for n in range(1000))
            )

    asyncio.run(fill())
    times = [_time_to_ready(volume)[0] for _ in range(3)]
    detail = "a process of its own, 1,000 documents"
    _say("start to ready", f"{statistics.median(times):.2f} s", "≤ 1.5 s", detail)


def _idle(here: Path) -> None:
    _, rss = _time_to_ready(here / "idle", settle_s=3.0)
    _say("an idle server's memory, 3 s after ready", f"{rss:.0f} MB", "≤ 60 MB", "")


def _time_to_ready(volume: Path, *, settle_s: float = 0.0) -> tuple[float, float]:
    """Start `seline serve` on a free port; return the seconds to ready, and its memory in MB."""
    import socket
    import urllib.error
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "SELINE_SERVER__HOST": "127.0.0.1", "PORT": str(port)}
    environ.pop("SELINE_STRICT", None)
    started = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "seline", "serve", "--data-dir", str(volume)],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while time.perf_counter() - started < 30:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.01)
        ready_s = time.perf_counter() - started
        time.sleep(settle_s)
        status = Path(f"/proc/{server.pid}/status").read_text()
        rss = re.search(r"VmRSS:\s+(\d+)", status)
        return ready_s, int(rss[1]) / 1024 if rss else 0.0
    finally:
        server.terminate()
        server.wait(timeout=15)


if __name__ == "__main__":
    main()
