"""Write to the terminal: data on stdout, everything for a person on stderr.

No other package prints. Progress appears only on a terminal.
"""

import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from seline.program import COMMAND, program
from seline.quoting import quoted

if TYPE_CHECKING:
    import logging

KIB: Final = 1024
UNDO_SHOWN_MAX: Final = 20
_INPUT_BYTES: Final = 1024
_YES: Final = frozenset({"y", "yes"})
_UNITS: Final = ("bytes", "KB", "MB", "GB")
_HERE: Final = frozenset({"config", "key", "serve", "token"})
"""Verbs that work only on the data directory's machine."""
_logged: Final[set[str]] = set()
"""The log messages that stderr shows already; `report` does not repeat them."""


def escape_unencodable() -> None:
    """Escape what the terminal's encoding cannot show, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out(text: str = "") -> None:
    """Print one line for a person on stdout, which a pipe's reader sees at once."""
    print(runnable(text), flush=True)


def out_bytes(data: bytes) -> None:
    """Write bytes to stdout unchanged."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def out_json(value: object) -> None:
    """Print a value as JSON in UTF-8, in every encoding of the terminal."""
    if isinstance(value, dict) and "undo" in value:
        steps = [{**step, "command": runnable(step["command"])} for step in value["undo"]]
        value = {**value, "undo": steps}
    out_bytes(json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")


def out_changes(lines: Iterable[tuple[str, str]], *, is_notice: bool = False) -> None:
    """Print lines, each with its colour, as they are; colours appear only on a terminal."""
    stream = sys.stderr if is_notice else sys.stdout
    is_coloured = stream.isatty()
    for text, colour in lines:
        shown = click.style(text, fg=colour) if colour and is_coloured else text
        print(shown, file=stream, flush=is_notice)


def out_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns under their heads, aligned to the left."""
    lines = [heads, *(tuple(map(runnable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def out_list(
    value: object,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    as_json: bool,
    empty: str = "",
) -> None:
    """Print a list: the value as JSON, or its rows as a table, or a notice that it is empty."""
    if as_json:
        out_json(value)
    elif rows:
        out_table(heads, rows)
    elif empty:
        notice(empty)


def notice(text: str = "") -> None:
    """Print one line for a person."""
    print(runnable(text), file=sys.stderr, flush=True)


def notice_undo(answer: Mapping[str, Any]) -> None:
    """Print the commands that take back what an answer reports, one in a line."""
    steps = answer.get("undo", ())  # an older server has none
    for step in steps[:UNDO_SHOWN_MAX]:
        notice(f"To undo: {runnable(step['command'])}")
    if len(steps) > UNDO_SHOWN_MAX:
        notice(f"and so on for {len(steps) - UNDO_SHOWN_MAX:,} more")


def runnable(text: str) -> str:
    """Return a text whose commands run as they are written, on the store that this one names.

    They run also if `seline` is not on PATH.
    """
    return COMMAND.sub(lambda found: f"{found[1]}{_command()} {_given(found[2])}", text)


def _given(verb: str) -> str:
    """Return the options of this command that name its store, for another verb."""
    context = click.get_current_context(silent=True)
    options = {} if context is None else context.find_object(dict) or {}
    names = ("data_dir", "config", "url")[: 2 if verb in _HERE else 3]
    given = {name: options[name] for name in names if name in options}
    return "".join(f"--{name.replace('_', '-')} {quoted(value)} " for name, value in given.items())


def _command() -> str:
    if os.path.basename(sys.argv[0]) != "seline":
        return f"{shlex.quote(sys.executable)} -m seline"
    return shlex.quote(program())


def warn(text: str) -> None:
    """Print a notice that carries the command's name."""
    notice(f"seline: {text}")


def report(message: str, hint: str = "") -> None:
    """Print an error and the next step."""
    if message not in _logged:
        warn(message)
    if hint:
        notice(f"  Next: {hint}")


def show_log() -> None:
    """Print the store's warnings as notices."""
    import logging

    context = click.get_current_context()  # of this thread; the store logs on others, too

    class Runnable(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            with context.scope(cleanup=False):
                return runnable(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Runnable("seline: %(message)s"))
    handler.addFilter(_note_logged)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # the server's own notice about waiting names another next step than a command has
    logging.getLogger("seline.server").setLevel(logging.ERROR)


def _note_logged(record: "logging.LogRecord") -> bool:
    _logged.add(record.getMessage())
    return True


def is_interactive() -> bool:
    """Return whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> bool:
    """Ask a yes-or-no question on stderr; anything but yes is no. Ctrl-C ends it at once."""
    # asyncio's handler only cancels the task, and the read would go on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        answer = os.read(sys.stdin.fileno(), _INPUT_BYTES)
    finally:
        signal.signal(signal.SIGINT, before)
    return answer.decode(errors="replace").strip().lower() in _YES


@contextmanager
def busy(what: str) -> Generator[None]:
    """Show on a terminal that the block is working."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield


@contextmanager
def progress(what: str) -> Generator[Callable[[int], None]]:
    """Show the bytes done on a terminal; the block calls the function with each further count."""
    if not sys.stderr.isatty():
        yield lambda _bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda more_bytes: shown.advance(task, more_bytes)


def size_text(size_bytes: float) -> str:
    """Return a size with its unit, such as `1.2 KB`."""
    for unit in _UNITS:
        if size_bytes < KIB or unit == _UNITS[-1]:
            return f"{size_bytes:.0f} {unit}" if unit == _UNITS[0] else f"{size_bytes:.1f} {unit}"
        size_bytes /= KIB
    raise AssertionError("the last unit takes every size")
