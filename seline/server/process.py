"""Run the server as a process: serve until SIGTERM or SIGINT."""

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from seline import collector
from seline.server.serving import Serving
from seline.settings import Settings

STOPS: Final = (signal.SIGTERM, signal.SIGINT)
EXIT_S: Final = 2.0
"""How long the interpreter may take to exit after everything is closed."""
DESCRIPTORS: Final = 65_536
LARGE_BYTES: Final = 128 << 10
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_log = logging.getLogger("seline.server")


async def run_server(settings: Settings, *, announce: Callable[[Serving], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises what opening the volume raises."""
    give_memory_back()
    raise_descriptor_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, stop.set)
    running = Serving(settings, is_process=True)
    async with running:
        signalled = asyncio.ensure_future(stop.wait())
        acquired = asyncio.ensure_future(running.acquired())
        await asyncio.wait({signalled, acquired}, return_when=asyncio.FIRST_COMPLETED)
        if acquired.done():
            acquired.result()
            collector.freeze_startup_objects()
            announce(running)
            await signalled
        else:
            acquired.cancel()
        signalled.cancel()
        _log.info("stopping")
    if not running.disk_hangs:
        _log.info("stopped; every confirmed change is on the disk")
    _ignore_signals(loop)
    force_exit(1 if running.disk_hangs else 0)


def give_memory_back() -> None:
    """Have freed memory returned to the operating system; do nothing without glibc.

    glibc maps a large block separately and unmaps it when it is freed. But each freed block raises
    the size that counts as large, up to 32 MiB; from then on, exports and packs fragment the heap.
    Measured after some minutes of exports: 50 MiB resident, 10 MiB in use. So that size is fixed.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        mallopt(parameter, LARGE_BYTES)


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files towards the hard one: the default of 1,024 is small."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = DESCRIPTORS if hard == unlimited else min(DESCRIPTORS, hard)
    if soft != unlimited and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def force_exit(code: int) -> None:
    """End the process soon, also while a thread waits for a disk or a name server."""

    def end() -> None:
        logging.shutdown()
        os._exit(code)

    if code:
        end()
    timer = threading.Timer(EXIT_S, end)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # there are too many threads
        end()


def _ignore_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Ignore further signals: everything is closed, and the loop's own handlers end before it."""
    for number in STOPS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
