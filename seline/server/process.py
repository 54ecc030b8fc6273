"""A process of its own: serve until a signal asks to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Final

from seline.server.memory import give_memory_back
from seline.server.serving import Serving, Started
from seline.settings import Settings

END_S: Final = 2.0
"""How long what is left of the interpreter may take, once everything was closed in order."""

_log = logging.getLogger("seline.server")


async def run_server(settings: Settings, *, announce: Callable[[Started], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises the typed error where the volume cannot be held."""
    give_memory_back()
    for warning in settings.warnings:
        _log.warning("%s", warning)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = Serving(settings, first_token=True)
    async with running:
        stopping = asyncio.ensure_future(stop.wait())
        acquiring = asyncio.ensure_future(running.acquired())
        await asyncio.wait({stopping, acquiring}, return_when=asyncio.FIRST_COMPLETED)
        if acquiring.done():
            acquiring.result()
            assert running.started is not None
            _say_who_may_come_in(running.started, settings)
            announce(running.started)
            await stopping
        else:
            acquiring.cancel()
        stopping.cancel()
        _log.info("stopping")
    if not running.left_behind:
        _log.info("stopped; everything that was answered is on the disk")
    _end_soon(1 if running.left_behind else 0)


def _end_soon(code: int) -> None:
    """See that the process ends: a thread that waits for a disk or a name must not hold it up."""

    def end() -> None:
        logging.shutdown()
        os._exit(code)

    if code:
        end()
    timer = threading.Timer(END_S, end)
    timer.daemon = True
    timer.start()


def _say_who_may_come_in(started: Started, settings: Settings) -> None:
    if not started.has_token and settings.bind_is_public:
        _log.warning(
            "nobody can come in over the network yet: set SELINE_ADMIN_TOKEN (at least 16 "
            "characters), or run `seline token create` on this machine"
        )
    more = "" if started.secret else "; `seline token create` makes another token"
    _log.info("ready on %s, data in %s%s", started.address, started.data_dir, more)
