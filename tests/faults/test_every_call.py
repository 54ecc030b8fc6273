"""Every file-changing call of every operation fails once, also during open and close.

The caller receives a typed error or success. V1 to V9 hold at once and after a restart: no stray
file remains, and no failed sync is repeated. The next change succeeds, or health names the reason
and the change succeeds after the reopening. The default tier tries the same few failures each time.
The long tier tries all: first a call of the process raises, then `strace` makes the kernel refuse.
"""

import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.faults.calls import injected
from tests.faults.calls.builds import BUILDS, WAYS, WRONG_WHEN_A_CALL_FAILS
from tests.faults.calls.trying import (
    ALSO_BUILT,
    SAMPLE,
    Prepared,
    Tried,
    attempt,
    attempt_all,
    attempt_some,
    built,
    noted,
    prepared,
    prepared_by,
    together,
)
from tests.faults.forms import FIRST, in_turn, labelled
from tests.faults.powercut.recorder import record
from tests.faults.powercut.trying import Workers
from tests.proof.operations import EVERY, OPERATIONS, prepare

SUITE: Final = "every call fails once"
WRONG_SAMPLE: Final = 60
LIMIT_S: Final = 60.0
KERNEL_LIMIT_S: Final = 300.0
AS_KERNEL: Final = {
    "open": "openat", "setxattr": "fsetxattr", "utime": "utimensat", "mkdir": "mkdirat",
    "link": "linkat", "rename": "renameat", "replace": "renameat", "unlink": "unlinkat",
    "rmdir": "unlinkat", "posix_fallocate": "fallocate",
}  # fmt: skip


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("name", "form"), in_turn(OPERATIONS), indirect=["form"])
def test_some_failing_calls_break_no_guarantee(
    name: str, form: str, tmp_path: Path, workspace: Path, worker_processes: Workers
) -> None:
    tried = worker_processes.pool.submit(
        attempt_some, name, tmp_path, workspace, Prepared.failures, form
    )

    assert tried.result() == Tried(SAMPLE, [])


@pytest.mark.prove
@pytest.mark.parametrize("name", EVERY)
def test_no_failing_call_breaks_a_guarantee(
    name: str,
    form: str,
    tmp_path: Path,
    workspace: Path,
    worker_processes: Workers,
    deadline_s: float,
) -> None:
    operation = worker_processes.pool.submit(prepared, name, tmp_path, workspace, form).result()
    cases = operation.failures()

    tried = attempt_all(worker_processes, attempt, cases, until_s=deadline_s)

    what = labelled(name, form)
    noted(SUITE, what, tried, workspace, calls=len(operation.calls), possible=len(cases))
    assert tried.flagged == []


@pytest.mark.prove
@pytest.mark.usefixtures("first_form")
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_recorded_call_is_made_to_fail(
    name: str, tmp_path: Path, workspace: Path, worker_processes: Workers
) -> None:
    """The recorder sees what the kernel sees, which `test_powercut` proves with strace."""
    failing = worker_processes.pool.submit(prepared, name, tmp_path / "failing", workspace).result()
    prepare(OPERATIONS[name], tmp_path / "volume")

    recorded = record(OPERATIONS[name], tmp_path / "volume")

    seen = Counter(call.name for call in recorded.calls if call.name != "acknowledged")
    assert (
        seen - Counter(AS_KERNEL.get(call.name, call.name) for call in failing.calls) == Counter()
    )


@pytest.mark.prove
@pytest.mark.parametrize("variant", WAYS)
def test_no_failing_call_breaks_a_guarantee_in_another_commit_variant(
    variant: str,
    form: str,
    tmp_path: Path,
    workspace: Path,
    worker_processes: Workers,
    deadline_s: float,
) -> None:
    operations = prepared_by(variant, tmp_path, workspace, worker_processes, form)
    cases = [case for operation in operations for case in operation.failures()]

    tried = attempt_all(worker_processes, attempt, cases, until_s=deadline_s)

    what = labelled(f"{', '.join(ALSO_BUILT)}: {variant}", form)
    noted(SUITE, what, tried, workspace, possible=len(cases))
    assert tried.flagged == []


@pytest.mark.prove(share=3)
@pytest.mark.timeout(1000)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_call_that_the_kernel_refuses_breaks_a_guarantee(
    form: str, tmp_path: Path, worker_processes: Workers, share_s: float
) -> None:
    """The kernel refuses the calls of a fresh process whose code is not patched."""
    suite_deadline_s = time.monotonic() + min(KERNEL_LIMIT_S, share_s)
    names = random.Random(4).sample(list(EVERY), len(EVERY))
    parts: list[Tried] = []
    for remaining in range(len(names), 0, -1):
        remaining_s = suite_deadline_s - time.monotonic()
        if remaining_s > 0:
            directory = tmp_path / str(remaining)
            name = names[remaining - 1]
            operation = worker_processes.pool.submit(
                prepared, name, directory / "scratch", directory, form
            ).result()
            deadline_s = time.monotonic() + remaining_s / remaining
            cases = injected.refusals(operation)
            parts.append(
                attempt_all(worker_processes, injected.attempt, cases, until_s=deadline_s, chunk=2)
            )

    tried = together(parts)

    what = labelled("refused by the kernel (strace)", form)
    noted(SUITE, what, tried, tmp_path, operations=len(parts))
    assert tried.flagged == []
    assert tried.count > 0


@pytest.mark.parametrize("build", BUILDS)
def test_a_build_replaces_functions_that_exist(build: str) -> None:
    with built(FIRST, build):
        pass


@pytest.mark.prove
@pytest.mark.parametrize("build", WRONG_WHEN_A_CALL_FAILS)
def test_a_wrong_build_is_flagged_when_calls_fail(
    build: str, tmp_path: Path, workspace: Path, worker_processes: Workers
) -> None:
    name, _ = WRONG_WHEN_A_CALL_FAILS[build]
    operation = worker_processes.pool.submit(
        prepared, name, tmp_path, workspace, FIRST, build
    ).result()

    tried = worker_processes.pool.submit(attempt, operation.failures()[-WRONG_SAMPLE:]).result()

    noted("negative control", build, tried, workspace)
    assert tried.flagged
