"""Log to stdout: one JSON object per line with `message` and `level`, or text on a terminal.

All code logs with the standard library. `configure` formats these records and those of every
library. Fields added with `logged_with` (a request's id) are in every line of its block and of the
tasks started in it. The writer's thread serves many requests at once, so its lines have no id.
"""

import json
import logging
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

_fields: ContextVar[dict[str, str]] = ContextVar("seline_log_fields", default={})  # noqa: B039
_STANDARD: Final = {*vars(logging.makeLogRecord({})), "message", "asctime"}
"""The attributes that every record has."""
_ENCODER: Final = json.JSONEncoder(default=repr)
_QUIET: Final = ("aiohttp.access", "asyncio", "apscheduler")


@contextmanager
def logged_with(**fields: str) -> Generator[None]:
    """Add these fields to every line that is logged inside the block."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def logged_fields() -> Mapping[str, str]:
    """Return the fields that lines logged here get."""
    return _fields.get()


class OncePerMinute(logging.Filter):
    """Passes one record of each format string per minute, with the number of those it dropped.

    It bounds the lines that a client can cause without a token.
    """

    def __init__(self, every_s: float = 60.0) -> None:
        super().__init__()
        self._every_s = every_s
        self._kinds: dict[str, tuple[float, int]] = {}
        """By format string: when the last record passed, and how many were dropped since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        kind, now_s = str(record.msg).partition("\n")[0], time.monotonic()
        passed_s, dropped = self._kinds.get(kind, (now_s - self._every_s, 0))
        if now_s - passed_s < self._every_s:
            self._kinds[kind] = passed_s, dropped + 1
            return False
        self._kinds[kind] = now_s, 0
        if dropped:
            record.msg = f"{record.msg} ({dropped} more like it since the last such line)"
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, with every field that was added to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        line = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line |= {
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": at.replace("+00:00", "Z"),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return _ENCODER.encode(line)


def configure(*, level: str = "info", form: str = "auto") -> None:
    """Write all log records of the process to stdout in one format. Only the server calls this."""
    on_terminal = sys.stdout.isatty() if form == "auto" else form == "console"
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(_add_fields)
    handler.setFormatter(_console_formatter() if on_terminal else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # no line shows these, and each record asks for them
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root.setLevel(level.upper())
    logging.getLogger("asyncio").addFilter(OncePerMinute())  # one line for each refused accept
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _console_formatter() -> logging.Formatter:
    import structlog

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()),
        ],
    )


def _add_fields(record: logging.LogRecord) -> bool:
    """Add the fields of the context in which the record was logged."""
    for name, value in _fields.get().items():
        setattr(record, name, value)
    return True
