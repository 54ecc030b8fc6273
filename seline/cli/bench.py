"""The verb bench: measure what a save costs on this disk."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from seline.cli import terminal
from seline.cli.verbs import VerbOptions, WholeNumber, local_verb, settings_of

if TYPE_CHECKING:
    from seline.bench.measure import DiskReport

SECONDS_MAX: Final = 600
_TITLES: Final = {
    "flush": "one flush",
    "replace": "a new file of 1 KiB",
    "save": "a save of 1 KiB",
    "saves_together": "16 saves together",
    "field_of_large": "one field of 64 KiB",
}


@local_verb("bench")
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="A directory on the disk (else the data directory, or if there is none, this one).",
)
@click.option(
    "--seconds",
    type=WholeNumber(1, SECONDS_MAX),
    metavar="N",
    default=10,
    help="How long to measure (else 10).",
)
def bench(options: VerbOptions, directory: str | None, seconds: int) -> None:
    """Measure what a save costs on this disk, beside the disk's limits and sqlite3.

    It needs 64 MB of free space, works beside a running server, touches no document, and removes
    what it writes. sqlite3 has WAL and synchronous=FULL, and keeps five earlier versions, as Seline
    does.

    Examples:
      seline bench
      seline bench --dir /data --seconds 30
      seline bench --json | jq '.figures[] | select(.measure == "save")'
    """
    import logging

    from seline.bench.measure import measure

    if options.url:
        raise click.UsageError("A disk can be measured only on its own machine: leave out --url.")
    logging.getLogger("seline").setLevel(logging.ERROR)
    directory = directory or _data_dir(options)
    with _ended_by_signals(), terminal.busy(f"Measuring the disk of {directory} for {seconds} s"):
        report = measure(directory, seconds=seconds)
    _show(report, as_json=options.json)


def _data_dir(options: VerbOptions) -> str:
    data_dir = settings_of(options).data_dir
    if options.data_dir and not os.path.isdir(data_dir):
        raise click.UsageError(f"There is no directory {data_dir}: name one that exists.")
    return data_dir if os.path.isdir(data_dir) else "."


def _show(report: "DiskReport", *, as_json: bool) -> None:
    from dataclasses import asdict

    from seline.bench.meaning import meaning_of, ms_text

    if as_json:
        return terminal.out_json(asdict(report) | {"meaning": meaning_of(report)})
    device = f" on {report.device}" if report.device else ""
    terminal.out(f"{report.directory}: {report.file_system}{device}, {report.seconds:g} s\n")
    rows = [
        (title, each.by, ms_text(each.median_ms), ms_text(each.p99_ms), f"{each.per_second:,.0f}")
        for name, title in _TITLES.items()
        for each in report.figures
        if each.measure == name
    ]
    terminal.out_table(("measure", "by", "median", "p99", "per second"), rows)
    terminal.out("\n" + "\n".join(meaning_of(report)))
    return None


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """End as Ctrl-C does when the process is terminated, so that nothing is left behind."""

    def interrupt(_number: int, _frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
