"""Logs on stdout: one JSON object per line with `message` and `level`, readable on a terminal.

Code logs with the standard library; this formats it, and every library's records with it. What
`logged_with` binds (a request's id) is in every line of its block and of the tasks begun there; the
writer's thread works for many requests at once, and names none.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

_bound: ContextVar[dict[str, str]] = ContextVar("seline_log_fields", default={})  # noqa: B039
_QUIET: Final = ("aiohttp.access", "asyncio", "apscheduler")


@contextmanager
def logged_with(**fields: str) -> Generator[None]:
    """Have every line logged inside the block carry these fields."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def configure(*, level: str = "info", form: str = "auto") -> None:
    """Send every library's records through one formatter to stdout. Called by the server alone."""
    import structlog

    on_terminal = sys.stdout.isatty() if form == "auto" else form == "console"
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
        if on_terminal
        else [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(_bind)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _bind(record: logging.LogRecord) -> bool:
    """Add what is bound where the record was made."""
    for name, value in _bound.get().items():
        setattr(record, name, value)
    return True
