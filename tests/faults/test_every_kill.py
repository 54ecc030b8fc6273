"""V1, V3, V5: kill -9 before and after every file-changing call of every operation.

Acknowledged changes are there, all others are whole or absent, the next start leaves no stray file,
and every document accepts its next change. Open and close are killed too. The default tier tries
the same few kills each time, the long tier all of them.
"""

from pathlib import Path
from typing import Final

import pytest

from tests.faults.calls.builds import WAYS, WRONG_WHEN_KILLED
from tests.faults.calls.trying import (
    ALSO_BUILT,
    SAMPLE,
    Prepared,
    Tried,
    attempt,
    attempt_all,
    attempt_some,
    noted,
    prepared,
    prepared_by,
)
from tests.faults.forms import FIRST, in_turn, labelled
from tests.faults.powercut.trying import Workers
from tests.proof.operations import EVERY, OPERATIONS

SUITE: Final = "kill -9"
LIMIT_S: Final = 60.0


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("name", "form"), in_turn(OPERATIONS), indirect=["form"])
def test_some_kills_between_two_calls_break_no_guarantee(
    name: str, form: str, tmp_path: Path, workspace: Path, worker_processes: Workers
) -> None:
    tried = worker_processes.pool.submit(
        attempt_some, name, tmp_path, workspace, Prepared.kills, form
    )

    assert tried.result() == Tried(SAMPLE, [])


@pytest.mark.prove
@pytest.mark.parametrize("name", EVERY)
def test_no_kill_between_two_calls_breaks_a_guarantee(
    name: str,
    form: str,
    tmp_path: Path,
    workspace: Path,
    worker_processes: Workers,
    deadline_s: float,
) -> None:
    operation = worker_processes.pool.submit(prepared, name, tmp_path, workspace, form).result()
    cases = operation.kills()

    tried = attempt_all(worker_processes, attempt, cases, until_s=deadline_s)

    what = labelled(f"at every call of {name}", form)
    noted(SUITE, what, tried, workspace, possible=len(cases))
    assert tried.flagged == []


@pytest.mark.prove
@pytest.mark.parametrize("variant", WAYS)
def test_no_kill_breaks_a_guarantee_in_another_commit_variant(
    variant: str,
    form: str,
    tmp_path: Path,
    workspace: Path,
    worker_processes: Workers,
    deadline_s: float,
) -> None:
    operations = prepared_by(variant, tmp_path, workspace, worker_processes, form)
    cases = [case for operation in operations for case in operation.kills()]

    tried = attempt_all(worker_processes, attempt, cases, until_s=deadline_s)

    what = labelled(f"at every call of {', '.join(ALSO_BUILT)}: {variant}", form)
    noted(SUITE, what, tried, workspace, possible=len(cases))
    assert tried.flagged == []


@pytest.mark.prove
@pytest.mark.parametrize("build", WRONG_WHEN_KILLED)
def test_a_wrong_build_is_flagged_when_killed(
    build: str, tmp_path: Path, workspace: Path, worker_processes: Workers
) -> None:
    name, _ = WRONG_WHEN_KILLED[build]
    operation = worker_processes.pool.submit(
        prepared, name, tmp_path, workspace, FIRST, build
    ).result()

    tried = worker_processes.pool.submit(attempt, operation.kills()).result()

    noted("negative control", build, tried, workspace)
    assert tried.flagged
