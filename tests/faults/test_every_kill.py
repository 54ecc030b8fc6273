"""Kill -9 before and after every file-changing call of every operation (V1, V3, V5, FAULTS 12).

What was acknowledged is there, what was not is there whole or not at all, the next start leaves
nothing stray, and every document takes its next change. Opening and closing are killed, too. The
default tier tries the same few moments each time, the long one all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.faults.calls.builds import WAYS, WRONG_WHEN_KILLED
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
)
from tests.faults.powercut.trying import Workers
from tests.proof.operations import EVERY, OPERATIONS

SUITE: Final = "kill -9"
SAMPLE: Final = 3
LIMIT_S: Final = 60.0


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_kill_between_two_calls_breaks_no_promise(
    name: str, tmp_path: Path, place: Path, hands: Workers
) -> None:
    few = hands.pool.submit(attempt_some, name, tmp_path, place, Prepared.kills, SAMPLE)

    assert few.result() == Tried(SAMPLE, [])


@pytest.mark.prove
@pytest.mark.parametrize("name", EVERY)
def test_no_kill_between_two_calls_breaks_a_promise(
    name: str, tmp_path: Path, place: Path, hands: Workers, until_s: float
) -> None:
    cases = hands.pool.submit(prepared, name, tmp_path, place).result().kills()

    tried = attempt_all(hands, attempt, cases, until_s=until_s)

    noted(SUITE, f"at every call of {name}", tried, place, possible=len(cases))
    assert tried.flagged == []


@pytest.mark.prove
@pytest.mark.parametrize("way", WAYS)
def test_no_kill_on_another_file_system_breaks_a_promise(
    way: str, tmp_path: Path, place: Path, hands: Workers, until_s: float
) -> None:
    operations = prepared_by(way, tmp_path, place, hands)
    cases = [case for operation in operations for case in operation.kills()]

    tried = attempt_all(hands, attempt, cases, until_s=until_s)

    what = f"at every call of {', '.join(ALSO_BUILT)}: {way}"
    noted(SUITE, what, tried, place, possible=len(cases))
    assert tried.flagged == []


@pytest.mark.prove
@pytest.mark.parametrize("wrong", WRONG_WHEN_KILLED)
def test_a_build_that_is_wrong_when_killed_is_flagged(
    wrong: str, tmp_path: Path, place: Path, hands: Workers
) -> None:
    name, _ = WRONG_WHEN_KILLED[wrong]
    operation = hands.pool.submit(prepared, name, tmp_path, place, wrong).result()

    tried = hands.pool.submit(attempt, operation.kills()).result()

    noted("negative control", wrong, tried, place)
    assert tried.flagged
