"""Do one operation with one fault in a child process, and return what its caller observed.

The process is forked from a warm one that has no other thread: a case costs tens of milliseconds.
After a call that failed the same process continues: the next change works, or is refused until the
volume is reopened; what it serves then, the next opening serves too.
"""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from seline.blocking import Seline
from seline.clock import Clock
from seline.domain.document import Json
from seline.errors import OutcomeUnknown, SelineError
from tests.faults.calls.failing import Calls, Fault
from tests.proof.judge import NAMES, Expected, Outcome, Values, read_values, stray
from tests.proof.operations import DONE, act, opened, value

NEXT: Final = "next.json"
HANGS_AFTER_S: Final = 30
SETTLED_AFTER_S: Final = 0.5
REOPENED_AFTER_S: Final = 60.0
"""By then a failed volume has reopened, if the disk works again."""


@dataclass(kw_only=True)
class CaseResult:
    """The result of one case.

    `defects` are broken guarantees that only the process itself can observe. `fired` is the call
    that met the fault, "" if none did; `calls` are all calls that were made.
    """

    outcome: Outcome = "unknown"
    error: str = ""
    fired: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    defects: list[str] = field(default_factory=list[str])


def fail(expected: Expected, directory: Path, fault: Fault | None) -> CaseResult:
    """Do an operation with a call that fails, continue in the same process, open once more."""
    output, status = _forked(lambda pipe: _continue_after(expected, directory, fault, pipe))
    if not output:
        return CaseResult(defects=[f"V7: the process ended by itself: {_ending(status)}"])
    return CaseResult(**json.loads(output))


def kill(expected: Expected, directory: Path, fault: Fault) -> CaseResult:
    """Do an operation until a call at which the process is killed."""
    output, status = _forked(lambda pipe: _until_the_kill(expected, directory, fault, pipe))
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and status != 0:
        return CaseResult(defects=[f"V7: the process ended by itself: {_ending(status)}"])
    return CaseResult(
        outcome="acknowledged" if DONE.encode() in output else "unknown",
        fired=str(fault) if killed else "",
    )


def _forked(work: Callable[[int], None]) -> tuple[bytes, int]:
    """Do work in a child process; return what it wrote and its exit status."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(HANGS_AFTER_S)
            work(write_end)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        output = pipe.read()
    return output, os.waitpid(child, 0)[1]


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return f"it hung for {HANGS_AFTER_S} s"
    return f"status {status}"


def _until_the_kill(expected: Expected, directory: Path, fault: Fault, pipe: int) -> None:
    os.dup2(pipe, 1)
    Calls(fault).wrap()
    act(expected.operation, directory)


def _continue_after(expected: Expected, directory: Path, fault: Fault | None, pipe: int) -> None:
    calls, result = Calls(fault), CaseResult()
    threading.excepthook = lambda died: result.defects.append(f"V7: a thread: {died.exc_value!r}")
    calls.wrap()
    try:
        again = fault is not None and fault.again
        _Steps(expected, directory, calls, result, again=again).go()
    except BaseException as error:  # every error that reaches the caller is a defect
        result.defects.append(f"V7: {type(error).__name__} reached the caller: {error}")
    result.defects += [f"V3: {name} was synced again" for name in calls.synced_again]
    result.fired = str(calls.fired or "")
    os.write(pipe, json.dumps(asdict(result)).encode())


@dataclass(frozen=True)
class _Served:
    """What a process serves: the documents, and the backups with their pins."""

    values: Values
    backups: dict[str, bool]


class _Steps:
    """The steps of one process: the operation, a read, the next change, a read, an opening."""

    def __init__(
        self, expected: Expected, directory: Path, calls: Calls, result: CaseResult, *, again: bool
    ) -> None:
        self._expected = expected
        self._directory = directory
        self._calls = calls
        self._result = result
        self._again = again

    def go(self) -> None:
        """Do all steps. Raises an error that reaches the caller and is no SelineError."""
        served = None
        with self._opened() as seline:
            if not self._result.error:
                self._operate(seline)
            if self._calls.fired:
                served = self._continue(seline)
        self._result.calls = [tuple(made) for made in self._calls.made]
        with opened(self._directory) as reopened:
            if served is not None:
                self._compare(served, _seen(reopened))

    def _opened(self) -> Seline:
        try:
            return opened(self._directory)
        except SelineError as error:
            self._result.outcome, self._result.error = "refused", repr(error)
            return opened(self._directory)

    def _operate(self, seline: Seline) -> None:
        try:
            self._expected.operation.act(seline, self._directory)
        except OutcomeUnknown as error:
            self._result.error = repr(error)
        except SelineError as error:
            self._result.outcome, self._result.error = "refused", repr(error)
        else:
            self._result.outcome = "acknowledged"

    def _continue(self, seline: Seline) -> _Served:
        """Read, and make the next change: at once, or after the volume is reopened."""
        read = _readable(seline)
        self._check_read(read)
        self._check_listed(seline)
        again = self._again and self._result.outcome == "refused"
        change = self._operate_again if again else _change_another
        try:
            change(seline)
        except SelineError as refusal:
            if seline.health()["status"] == "healthy":
                self._result.defects.append(
                    f"health is healthy, and a change is refused: {refusal}"
                )
            _advance_clock(REOPENED_AFTER_S)
            _change_another(seline)
            if again:
                change(seline)
        seen = _seen(seline)
        if not again and any(seen.values[name] != value for name, value in read.items()):
            self._result.defects.append(f"V6: it served {read}, and then {seen.values}")
        self._result.defects += [f"stray, without a restart: {name}" for name in self._stray()]
        return seen

    def _stray(self) -> list[str]:
        """Return the stray files, once background reports are written."""
        ends_s = time.monotonic() + SETTLED_AFTER_S
        while (left := stray(self._directory)) and time.monotonic() < ends_s:
            time.sleep(SETTLED_AFTER_S / 10)
        return left

    def _check_read(self, read: Values) -> None:
        """Check that each document that can be read agrees with the caller's result."""
        expected, outcome = self._expected, self._result.outcome
        allowed = [
            values
            for values, end in ((expected.before, "refused"), (expected.after, "acknowledged"))
            if outcome in ("unknown", end) or (expected.operation.certain and end != "refused")
        ]
        for name, found in read.items():
            if found not in [values[name] for values in allowed]:
                self._result.defects.append(f"V1, V3: {outcome}, and it served {found} as {name}")

    def _check_listed(self, seline: Seline) -> None:
        """Check that the listed backups are those on the volume (V2).

        A reopening may add some between the two looks; then they are listed again.
        """
        while True:
            before = self._backups_on_volume()
            listed = {backup.name for backup in seline.all_backups()}
            if self._backups_on_volume() == before:
                break
        if listed != before:
            self._result.defects.append(
                f"V2: the listed backups are not those on the volume: {listed ^ before}"
            )

    def _backups_on_volume(self) -> set[str]:
        return {path.name for path in (self._directory / "backups").glob("*.json")}

    def _operate_again(self, seline: Seline) -> None:
        self._expected.operation.act(seline, self._directory)
        self._result.outcome = "acknowledged"

    def _compare(self, served: _Served, found: _Served) -> None:
        """Check that the served values are allowed, and that the next opening serves the same."""
        if not self._expected.allows(served.values, self._result.outcome):
            self._result.defects.append(f"V1, V3: {self._result.outcome}, and it served {served}")
        if served.values != found.values:
            self._result.defects.append(f"V3: it served {served}, and after a restart {found}")
        if served.backups != found.backups and not self._guarded_later(served, found):
            before, after = served.backups.items(), found.backups.items()
            self._result.defects.append(
                f"V2, V11: backups (pinned?) {before - after} became {after - before} by a restart"
            )

    def _guarded_later(self, served: _Served, found: _Served) -> bool:
        """Whether a hand edit was adopted after the restart, and the content before it pinned."""
        return (
            self._expected.operation.certain
            and served.backups.keys() == found.backups.keys()
            and all(found.backups[name] or not pin for name, pin in served.backups.items())
        )


def _change_another(seline: Seline) -> None:
    seline.data.save_json(NEXT, value(NEXT, 1))


def _readable(seline: Seline) -> dict[str, Json]:
    """Return the documents that can be read now."""
    read: dict[str, Json] = {}
    for name in NAMES:
        with contextlib.suppress(SelineError):
            read[name] = seline.data.load_json(name, default=None)
    return read


def _seen(seline: Seline) -> _Served:
    backups = {backup.name: backup.pinned for backup in seline.all_backups()}
    return _Served(read_values(seline), backups)


def _advance_clock(seconds: float) -> None:
    """Set the monotonic clock ahead."""
    Clock.monotonic = lambda _: time.monotonic() + seconds  # type: ignore[method-assign]
