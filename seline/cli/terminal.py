"""What a verb says: data on stdout, talk on stderr, progress only when a terminal is there.

This package is the only one that prints.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final

KIB: Final = 1024
_ANSWER_BYTES: Final = 1024
_YES: Final = frozenset({"y", "yes"})
_UNITS: Final = ("bytes", "KB", "MB", "GB")


def speak_plainly() -> None:
    """Escape what the terminal's encoding cannot show, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out(text: str = "") -> None:
    """Print one line of data."""
    print(text)


def out_bytes(data: bytes) -> None:
    """Put bytes on stdout as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def out_json(value: object) -> None:
    """Print a value as a script reads it: UTF-8, whatever the terminal's encoding."""
    out_bytes(json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")


def out_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns under their heads; columns of numbers belong to the left too."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def say(text: str = "") -> None:
    """Tell the person something."""
    print(text, file=sys.stderr, flush=True)


def complain(message: str, hint: str = "") -> None:
    """Say what went wrong, and the next step."""
    say(f"seline: {message}")
    advise(hint)


def advise(hint: str) -> None:
    """Name the next step, if there is one."""
    if hint:
        say(f"  Next: {hint}")


def on_a_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def ask(question: str) -> bool:
    """Ask a yes-or-no question on stderr; anything but yes is no.

    The loop goes on meanwhile: whoever holds the volume for this command serves others, too.
    """
    import asyncio

    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()
    typed = asyncio.Event()
    loop.add_reader(stdin, typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(stdin)
    return os.read(stdin, _ANSWER_BYTES).decode(errors="replace").strip().lower() in _YES


@contextmanager
def busy(what: str) -> Generator[None]:
    """Show that long work is going on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield


@contextmanager
def progress(what: str, total_bytes: int | None) -> Generator[Callable[[int], None]]:
    """Show how many bytes are done; the block calls what it is given with each further count."""
    if not sys.stderr.isatty():
        yield lambda _bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=total_bytes)
        yield lambda more_bytes: shown.advance(task, more_bytes)


def size_text(size_bytes: float) -> str:
    """Return a size as a person says it: `1.2 KB`."""
    for unit in _UNITS:
        if size_bytes < KIB or unit == _UNITS[-1]:
            return f"{size_bytes:.0f} {unit}" if unit == _UNITS[0] else f"{size_bytes:.1f} {unit}"
        size_bytes /= KIB
    raise AssertionError("the last unit takes every size")


def flush() -> None:
    """Let what was printed be seen now, also through a pipe."""
    sys.stdout.flush()
