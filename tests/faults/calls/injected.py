"""Have the kernel refuse system calls: `strace` injects the error.

A call is identified by its name, the file or directory it is made on, and its number among those of
its thread. The log of strace shows whether it was met. The process has the form of the commit in
which its operation was prepared.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.calls.builds import AS_IT_IS
from tests.faults.calls.trying import (
    Flagged,
    Prepared,
    Tried,
    broken_promises,
    built,
    copied,
    gathered,
)
from tests.faults.powercut.promises import unhurried
from tests.proof.judge import Outcome
from tests.proof.operations import DONE

ON_NAMES: Final = {
    "openat", "mkdir", "mkdirat", "link", "linkat", "rename", "renameat", "renameat2", "unlink",
    "unlinkat", "rmdir",
}  # fmt: skip
ON_FILES: Final = {
    "write", "pwrite64", "ftruncate", "fallocate", "fsetxattr", "utimensat", "fsync", "fdatasync",
    "syncfs",
}  # fmt: skip
INTERRUPTED: Final = {"openat", "write", "fallocate", "fsync", "fdatasync", "syncfs"}
_MADE: Final = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<first>-?\w+)<(?P<path>[^>]*)>")
_CHANGES: Final = re.compile(r"O_CREAT|O_TRUNC")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The `number`-th call of this name on `path`, below the volume, fails with `error`."""

    operation: Prepared
    name: str
    path: str
    number: int
    error: str

    def __str__(self) -> str:
        call = f"{self.name} {self.number} on {self.path}"
        return f"{self.operation.name}: {self.error} at {call}"


def refusals(operation: Prepared) -> list[Refusal]:
    """Have strace follow an operation; return every way in which the kernel may refuse a call."""
    with (
        built(operation.form, AS_IT_IS),
        tempfile.TemporaryDirectory(prefix="traced-", dir=operation.volume.parent) as place,
    ):
        volume, log = copied(operation.volume, Path(place) / "volume"), Path(place) / "log"
        names = ",".join(f"?{name}" for name in sorted(ON_NAMES | ON_FILES))
        done = _traced(operation.name, volume, log, "-y", "-e", f"trace={names}")
        assert done.returncode == 0, done.stderr
        made = list(_made(log.read_text(encoding="utf-8").splitlines(), os.fspath(volume)))
    return [
        Refusal(operation=operation, name=name, path=path, number=number, error=error)
        for name, path, number in dict.fromkeys(made)
        for error in _errors(name)
    ]


def attempt(cases: Sequence[Refusal]) -> Tried:
    """Try each refusal on a fresh copy; one that no call met counts for nothing."""
    with unhurried():
        return gathered([_one(case) for case in cases])


def _one(case: Refusal) -> Flagged | None:
    operation = case.operation
    with (
        built(operation.form, AS_IT_IS),
        tempfile.TemporaryDirectory(prefix="case-", dir=operation.volume.parent) as place,
    ):
        volume, log = copied(operation.volume, Path(place) / "volume"), Path(place) / "log"
        fault = f"inject={case.name}:error={case.error}:when={case.number}"
        where = os.path.normpath(volume / case.path)
        done = _traced(
            operation.name, volume, log, "-e", f"trace={case.name}", "-e", fault, "-P", where
        )
        if not _met(log.read_text(encoding="utf-8")):
            return None
        outcome, defects = _result_of(done)
        broken = broken_promises(volume, operation.expected(), outcome)
        return Flagged(f"{case}, {outcome}", [*defects, *broken])


def _met(log: str) -> bool:
    """Whether the refusal met a call that changes files, and none that only reads.

    strace counts per thread, so a read in another thread may be refused too: then another backup is
    restored, which is right.
    """
    met = [line for line in log.splitlines() if "(INJECTED)" in line]
    return bool(met) and all("openat(" not in line or _CHANGES.search(line) for line in met)


def _traced(operation: str, volume: Path, log: Path, *how: str) -> subprocess.CompletedProcess[str]:
    """Do an operation in a process that strace follows, in the form that is set."""
    act = [sys.executable, "-m", "tests.proof.operations", operation, "act", os.fspath(volume)]
    return subprocess.run(
        ["strace", "-f", *how, "-o", os.fspath(log), *act],
        check=False, capture_output=True, text=True, env={**os.environ, "SELINE_STRICT": ""},
    )  # fmt: skip


def _made(lines: Iterable[str], volume: str) -> Iterator[tuple[str, str, int]]:
    """Yield each call below the volume that changes files: name, path, number."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for line in lines:
        made = _MADE.match(line)
        if made is None or not (made["path"] + "/").startswith(volume + "/"):
            continue
        one = made["thread"], made["name"], made["path"]
        counted[one] += 1
        if made["name"] != "openat" or _CHANGES.search(line):
            yield made["name"], os.path.relpath(made["path"], volume), counted[one]


def _errors(name: str) -> tuple[str, ...]:
    return (
        "EIO", "ENOSPC", "EROFS",
        *(("EACCES",) if name in ON_NAMES else ()),
        *(("EINTR",) if name in INTERRUPTED else ()),
    )  # fmt: skip


def _result_of(done: subprocess.CompletedProcess[str]) -> tuple[Outcome, list[str]]:
    """Return the caller's result; an error that is no SelineError is a defect."""
    acknowledged = DONE in done.stdout
    if done.returncode == 0:
        return "acknowledged", []
    error = _error_in(done.stderr)
    kind = error.partition(":")[0]
    if not kind.startswith("seline.errors."):
        return "unknown", [f"V7: {error} reached the caller"]
    if acknowledged:
        return "acknowledged", []
    return ("unknown" if kind.endswith("OutcomeUnknown") else "refused"), []


def _error_in(stderr: str) -> str:
    """Return the line of the last traceback that names its error; the error's notes follow it."""
    traceback = stderr.rpartition("Traceback (most recent call last):\n")[2]
    return next((line for line in traceback.splitlines() if line[:1].strip()), "no error")
