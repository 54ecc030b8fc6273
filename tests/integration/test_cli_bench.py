"""`seline bench`: it measures the disk of a directory, and leaves nothing in it."""

import signal
import time
from pathlib import Path

import pytest

from seline.bench.meaning import meaning_of
from seline.bench.measure import PREFIX, DiskReport, Figure
from tests.command_line import Line, line_at, served
from tests.faults.small_filesystem import run, small_filesystem

BY_DISK = [("flush", "disk"), ("replace", "disk")]
WORK = ("save", "saves_together", "field_of_large")
BY_STORES = [(name, by) for by in ("seline", "sqlite3") for name in WORK]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_at(tmp_path)


@pytest.mark.prove
@pytest.mark.usefixtures("files_at_once")
def test_beside_a_running_server_it_touches_no_document_and_leaves_nothing(line: Line) -> None:
    line("save", "profile.json", stdin='{"userName": "Alex"}')
    with served(line):
        files = everything(line.data)
        shown = line("bench", "--seconds", "1", "--json")
        assert (shown.code, shown.err) == (0, "")
        assert everything(line.data) == files
        assert not [
            check
            for check in line("status", "--json").value()["checks"]
            if check["name"] == "left_out" and check["status"] != "ok"
        ]
    report = shown.value()
    assert report["directory"] == str(line.data)
    assert [(each["measure"], each["by"]) for each in report["figures"]] == BY_DISK + BY_STORES
    assert all(0 < each["median_ms"] <= each["p99_ms"] for each in report["figures"])
    assert "A save of 1 KiB takes" in " ".join(report["meaning"])


def test_without_a_data_directory_it_measures_here_and_prints_a_table(line: Line) -> None:
    shown = line("bench", "--seconds", "1")

    assert shown.code == 0, shown.err
    assert shown.out.startswith(f"{line.folder}: ")
    assert "a save of 1 KiB      sqlite3" in shown.out
    assert "Seline compared with sqlite3: one save" in shown.out
    assert [path.name for path in line.folder.iterdir()] == ["scratch"]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_bench_that_is_ended_removes_what_it_wrote(line: Line, number: signal.Signals) -> None:
    assert begin_and_end(line, number) == 130

    assert not left_in(line.folder)


@pytest.mark.prove
def test_what_a_killed_bench_left_is_removed_by_the_next(line: Line) -> None:
    begin_and_end(line, signal.SIGKILL)
    assert left_in(line.folder)

    assert line("bench", "--seconds", "1").code == 0

    assert not left_in(line.folder)


def test_a_place_that_cannot_be_measured_is_refused_with_the_reason(line: Line) -> None:
    absent = line("bench", "--dir", "nowhere")
    assert (absent.code, "'nowhere' does not exist" in absent.err) == (2, True)
    absent = line("bench", "--data-dir", "nowhere")
    assert (absent.code, "There is no directory nowhere" in absent.err) == (2, True)
    assert line("bench", "--url", "http://127.0.0.1:1").code == 2
    with small_filesystem(line.folder / "disk", size_mb=100):
        run("mount", "-o", "remount,ro", str(line.folder / "disk"))
        refused = line("bench", "--dir", "disk")
    assert refused.code == 1
    assert "disk/seline-bench-" in refused.err
    assert "Read-only file system" in refused.err


@pytest.mark.parametrize(
    ("file_system", "flush_ms", "p99_ms", "warning"),
    [
        ("ext4", 0.25, 1.0, ""),
        ("tmpfs", 0.002, 0.004, "tmpfs is memory"),
        ("nfs4", 0.25, 1.0, "nfs4 is a network file system"),
        ("overlay", 0.002, 0.004, "seems to ignore flushes"),
        ("ext4", 30.0, 40.0, "a flush takes 30 ms, and each save waits for it"),
        ("ext4", 0.25, 250.0, "one flush in a hundred takes 250 ms or more"),
    ],
)
def test_a_disk_that_a_bot_should_not_rely_on_brings_a_warning(
    file_system: str, flush_ms: float, p99_ms: float, warning: str
) -> None:
    first, *_ = meaning_of(report(file_system, flush_ms, p99_ms))

    assert warning in first
    assert first.startswith("Warning: ") == bool(warning)


def test_the_sentences_compare_a_save_with_the_flush_and_with_sqlite() -> None:
    assert "\n".join(meaning_of(report("ext4", 0.25, 1.0))) == (
        "A save of 1 KiB takes 1.40 ms here. One flush of this disk, the limit of any durable "
        "change, takes 0.25 ms.\n"
        "A bot that saves 20 times a second waits 3% of the time.\n"
        "One after the other, 714 saves fit into a second; if 16 arrive together, 11,429.\n"
        "Seline compared with sqlite3: one save 2.0 times slower, 16 saves that arrive together "
        "2.0 times slower, one field of a 64 KiB document 2.0 times slower."
    )


def report(file_system: str, flush_ms: float, p99_ms: float) -> DiskReport:
    stores = [
        figure(name, by, 1.4 if by == "seline" else 0.7, 3.0, 16 if "s_t" in name else 1)
        for name, by in BY_STORES
    ]
    return DiskReport(
        directory="/data",
        file_system=file_system,
        device="/dev/vdb",
        seconds=10.0,
        sqlite="3.40.1",
        figures=[figure("flush", "disk", flush_ms, p99_ms), *stores],
    )


def figure(name: str, by: str, median_ms: float, p99_ms: float, changes: int = 1) -> Figure:
    return Figure(
        measure=name,
        by=by,
        changes=changes,
        calls=100,
        median_ms=median_ms,
        p99_ms=p99_ms,
        per_second=1000 * changes / median_ms,
    )


def begin_and_end(line: Line, number: signal.Signals) -> int:
    """Start a bench, and send the signal while it measures; return the exit code."""
    process = line.start("bench", "--seconds", "60")
    until = time.monotonic() + 30
    while not any((folder / "data" / "one.json").exists() for folder in left_in(line.folder)):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(number)
    return process.wait(20)


def left_in(folder: Path) -> list[Path]:
    return list(folder.glob(f"{PREFIX}*"))


def everything(folder: Path) -> list[str]:
    """Return every path below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
