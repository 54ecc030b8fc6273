"""Every file-changing call of every operation fails once, opening and closing included.

The caller hears a typed error or success; V1 to V9 hold, at once and after a restart; nothing stray
is left, no failed sync is made again; the next change works, or health says why it cannot and it
does once the volume was reopened. The default tier tries the same few each time, the long one all:
first what the operating system answers to this process, then what `strace` has the kernel answer.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.faults.calls import injected
from tests.faults.calls.builds import WAYS, WRONG_WHEN_A_CALL_FAILS
from tests.faults.calls.trying import (
    ALSO_BUILT,
    Prepared,
    Tried,
    attempt,
    attempt_all,
    attempt_some,
    noted,
    prepared,
    prepared_by,
    together,
)
from tests.faults.powercut.recorder import record
from tests.faults.powercut.trying import Workers
from tests.proof.operations import EVERY, OPERATIONS, prepare

SUITE: Final = "every call fails once"
SAMPLE: Final = 4
WRONG_SAMPLE: Final = 60
LIMIT_S: Final = 90.0
KERNEL_LIMIT_S: Final = 900.0
AS_KERNEL: Final = {
    "open": "openat", "setxattr": "fsetxattr", "utime": "utimensat", "mkdir": "mkdirat",
    "link": "linkat", "rename": "renameat", "replace": "renameat", "unlink": "unlinkat",
    "rmdir": "unlinkat", "posix_fallocate": "fallocate",
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_call_that_fails_breaks_no_promise(
    name: str, tmp_path: Path, place: Path, hands: Workers
) -> None:
    few = hands.pool.submit(attempt_some, name, tmp_path, place, Prepared.failures, SAMPLE)

    assert few.result() == Tried(SAMPLE, [])


@pytest.mark.prove
@pytest.mark.parametrize("name", EVERY)
def test_no_call_that_fails_breaks_a_promise(
    name: str, tmp_path: Path, place: Path, hands: Workers, until_s: float
) -> None:
    operation = hands.pool.submit(prepared, name, tmp_path, place).result()
    cases = operation.failures()

    tried = attempt_all(hands, attempt, cases, until_s=until_s)

    noted(SUITE, name, tried, place, calls=len(operation.calls), possible=len(cases))
    assert tried.flagged == []


@pytest.mark.prove
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_call_that_is_recorded_is_among_those_that_fail(
    name: str, tmp_path: Path, place: Path, hands: Workers
) -> None:
    """What the recorder sees is what the kernel sees (`test_powercut` proves it by strace)."""
    failing = hands.pool.submit(prepared, name, tmp_path / "failing", place).result()
    prepare(OPERATIONS[name], tmp_path / "volume")

    recorded = record(OPERATIONS[name], tmp_path / "volume")

    seen = Counter(call.name for call in recorded.calls if call.name != "acknowledged")
    assert (
        seen - Counter(AS_KERNEL.get(made.name, made.name) for made in failing.calls) == Counter()
    )


@pytest.mark.prove
@pytest.mark.parametrize("way", WAYS)
def test_no_call_that_fails_on_another_file_system_breaks_a_promise(
    way: str, tmp_path: Path, place: Path, hands: Workers, until_s: float
) -> None:
    operations = prepared_by(way, tmp_path, place, hands)
    cases = [case for operation in operations for case in operation.failures()]

    tried = attempt_all(hands, attempt, cases, until_s=until_s)

    noted(SUITE, f"{', '.join(ALSO_BUILT)}: {way}", tried, place, possible=len(cases))
    assert tried.flagged == []


@pytest.mark.prove(share=5)
@pytest.mark.timeout(1500)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_call_that_the_kernel_refuses_breaks_a_promise(
    tmp_path: Path, hands: Workers, share_s: float
) -> None:
    """The same from outside: the process is a fresh one, and nothing in it was touched."""
    ends_s = time.monotonic() + min(KERNEL_LIMIT_S, share_s)
    names = random.Random(4).sample(list(EVERY), len(EVERY))
    found: list[Tried] = []
    for to_come in range(len(names), 0, -1):
        left_s = ends_s - time.monotonic()
        if left_s > 0:
            place = tmp_path / str(to_come)
            name = names[to_come - 1]
            operation = hands.pool.submit(prepared, name, place / "scratch", place).result()
            until_s = time.monotonic() + left_s / to_come
            cases = injected.refusals(operation)
            found.append(attempt_all(hands, injected.attempt, cases, until_s=until_s, chunk=2))

    tried = together(found)

    noted(SUITE, "refused by the kernel (strace)", tried, tmp_path, operations=len(found))
    assert tried.flagged == []
    assert tried.count > 0


@pytest.mark.prove
@pytest.mark.parametrize("wrong", WRONG_WHEN_A_CALL_FAILS)
def test_a_build_that_is_wrong_when_a_call_fails_is_flagged(
    wrong: str, tmp_path: Path, place: Path, hands: Workers
) -> None:
    name, _ = WRONG_WHEN_A_CALL_FAILS[wrong]
    operation = hands.pool.submit(prepared, name, tmp_path, place, wrong).result()

    tried = hands.pool.submit(attempt, operation.failures()[-WRONG_SAMPLE:]).result()

    noted("negative control", wrong, tried, place)
    assert tried.flagged
