"""The server process: its start, its idle use of memory and processor, its stop."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from seline import Seline, open_seline
from tests.benchmarks.printing import DOCUMENT, print_measure

IDLE_S = 30.0
CATCH_UP_S = 25.0
"""The time in which missed jobs run after the start, one after another."""
DOCUMENTS, CRASHED, TOGETHER = 10_000, 3000, 500
JOURNAL_BYTES = 8 << 20
"""A little more than the changes of CRASHED documents, with what was before them."""


def start(here: Path) -> None:
    """Measure the time until ready with 1,000 documents."""
    volume = here / "start"
    asyncio.run(_fill(volume))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        with serving(volume):
            times.append(time.perf_counter() - started)
    detail = "a new process, 1,000 documents"
    print_measure("start to ready", f"{statistics.median(times):.2f} s", "≤ 1.5 s", detail)


def start_after_crash(here: Path) -> None:
    """Measure the time until ready with 10,000 documents and a full journal."""
    volume, times = here / "crashed", list[float]()
    for _ in range(3):
        process = get_context("spawn").Process(target=_crash, args=(volume,))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        started = time.perf_counter()
        with serving(volume, SELINE_STORAGE__JOURNAL_BYTES=str(JOURNAL_BYTES)):
            times.append(time.perf_counter() - started)
    detail = f"killed with {CRASHED:,} of 10,000 documents only in the journal"
    print_measure("start after a crash", f"{statistics.median(times):.2f} s", "≤ 3 s", detail)


def _crash(volume: Path) -> None:
    asyncio.run(_change_and_crash(volume))


async def _change_and_crash(volume: Path) -> None:
    """Save documents that are only in the journal, and kill this process."""
    seline = await open_seline(
        volume,
        lock_wait_s=0,
        storage__journal_bytes=JOURNAL_BYTES,
        storage__publish_within_ms=10_000,
    )
    if not await seline.data.documents():
        await _save(seline, range(DOCUMENTS))
    await _save(seline, range(CRASHED))
    os.kill(os.getpid(), signal.SIGKILL)


async def _save(seline: Seline, numbers: range) -> None:
    save, now = seline.data.save_json, time.time_ns()
    for first in range(numbers.start, numbers.stop, TOGETHER):
        some = numbers[first : first + TOGETHER]
        await asyncio.gather(*(save(f"d{n}.json", {**DOCUMENT, "n": now + n}) for n in some))


def idle(here: Path) -> None:
    """Measure memory and processor use of an idle server, and its stop."""
    with serving(here / "idle") as server:
        time.sleep(CATCH_UP_S)
        before_s = processor_s(server.pid)
        time.sleep(IDLE_S)
        used_s = processor_s(server.pid) - before_s
        used_mb = memory_mb(server.pid)
        started = time.perf_counter()
        server.terminate()
        server.wait(timeout=15)
        stop_s = time.perf_counter() - started
    print_measure("an idle server's memory, its jobs run once", f"{used_mb:.0f} MB", "≤ 60 MB", "")
    share = f"{used_s / IDLE_S:.2%}"
    print_measure("an idle server's share of a processor", share, "≈ 0", f"over {IDLE_S:.0f} s")
    print_measure("stop of an idle server", f"{stop_s:.2f} s", "≤ 1 s", "from SIGTERM to its end")


async def _fill(volume: Path) -> None:
    async with open_seline(volume, lock_wait_s=0) as seline:
        save, update = seline.data.save_json, seline.data.update_field
        await asyncio.gather(*(save(f"d{n}.json", DOCUMENT) for n in range(1000)))
        await asyncio.gather(*(update(f"d{n}.json", "n", n) for n in range(1000)))


class Server(subprocess.Popen[bytes]):
    """A process of `seline serve` on a port of 127.0.0.1."""

    port: int


@contextlib.contextmanager
def serving(volume: Path, *, limit_s: float = 30.0, **variables: str) -> Iterator[Server]:
    """Run `seline serve` on a free port with these variables; yield it when it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, **variables, "SELINE_SERVER__HOST": "127.0.0.1", "PORT": str(port)}
    environ.pop("SELINE_STRICT", None)
    server = Server(
        [sys.executable, "-m", "seline", "serve", "--data-dir", str(volume)],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server.port = port
    try:
        _wait_until_ready(port, limit_s)
        yield server
    finally:
        server.terminate()
        server.wait(timeout=15)


def _wait_until_ready(port: int, limit_s: float) -> None:
    started = time.perf_counter()
    while time.perf_counter() - started < limit_s:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.01)
        else:
            return


def memory_mb(process: int, kind: str = "VmRSS") -> float:
    """Return what a process has in memory; of the kind VmHWM, the most that it had."""
    found = re.search(rf"{kind}:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def processor_s(process: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
