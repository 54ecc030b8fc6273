"""Negative controls of the power-cut suite: it must flag builds and stores that are wrong.

Each row of `powercut.wrong_builds` removes one safeguard from the store: a sync, a link, a
checksum, a check. A suite that does not flag such a build would find no defect at all. Every
safeguard in the code has a row, so a new safeguard requires a new wrong build.
"""

import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.faults.forms import BY_A_JOURNAL
from tests.faults.powercut.damages import broken_by
from tests.faults.powercut.journal_damages import CASES
from tests.faults.powercut.promises import Flagged, State, flagged
from tests.faults.powercut.safeguards import patch_points
from tests.faults.powercut.scenarios import SCENARIOS, states_of
from tests.faults.powercut.states import EVERY, Cutting
from tests.faults.powercut.trying import fast_place, kind_of, sample, try_some
from tests.faults.powercut.wrong_builds import WrongBuild
from tests.faults.powercut.wrong_journals import OF_THE_JOURNAL, WRONG_BUILDS
from tests.faults.powercut.wrong_stores import RIGHT, WRONG, seven_saves
from tests.proof.figures import note

SUITE: Final = "negative control"
SHARE: Final = Cutting(share=0.25)
NEEDLESS: Final = {name: build for name, build in WRONG_BUILDS.items() if build.needless}
NEEDED: Final = {name: build for name, build in WRONG_BUILDS.items() if not build.needless}
QUICK: Final = [name for name, build in NEEDED.items() if not build.seldom][::6]
ALL_MAX: Final = 400
LIMIT_S: Final = 600.0
ENOUGH: Final = 3
"""Of a build that few states show: as soon as so many have, the others need not be opened."""
HARNESS_ERRORS: Final = ("NameError", "TypeError", "AttributeError", "UnboundLocalError")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """Yield a fast directory for the states."""
    with fast_place(tmp_path / "states") as fast:
        yield fast


def test_every_safeguard_in_the_code_is_tried_by_a_wrong_build() -> None:
    """Each sync, link, attribute and check has a row, and each row names one of them."""
    named = {point for build in WRONG_BUILDS.values() for point in build.changes}

    assert patch_points() == named


def test_every_wrong_build_is_tried_by_a_scenario_or_a_case() -> None:
    tried = {build.tried for build in WRONG_BUILDS.values()}

    assert tried <= SCENARIOS.keys() | CASES.keys()
    assert CASES.keys() <= tried


def test_every_wrong_build_of_the_journal_is_tried_by_a_journal() -> None:
    assert {build.form for build in OF_THE_JOURNAL.values()} == set(BY_A_JOURNAL)


@pytest.mark.parametrize("name", CASES)
def test_no_case_without_a_power_cut_breaks_a_guarantee(name: str, workspace: Path) -> None:
    assert broken_by(CASES[name], workspace / "volume") == []


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", QUICK)
def test_a_build_without_one_safeguard_is_flagged(
    name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = _first_broken(WRONG_BUILDS[name], workspace, monkeypatch)

    assert len(broken) > 0
    assert not any(error in message for message in broken for error in HARNESS_ERRORS)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_store_loses_saves(name: str, workspace: Path) -> None:
    states = seven_saves(name, workspace, SHARE)

    assert try_some(states, workspace / "states") != []


def test_a_small_correct_store_loses_no_save(workspace: Path) -> None:
    [small, _seline] = RIGHT

    assert try_some(seven_saves(small, workspace), workspace / "states") == []


@pytest.mark.prove
@pytest.mark.parametrize("name", WRONG)
def test_the_states_in_which_a_wrong_store_loses_a_save_are_counted(
    name: str, workspace: Path
) -> None:
    states = seven_saves(name, workspace, SHARE)

    lost = try_some(states, workspace / "states")

    note(SUITE, name, tried=len(states), failures=len(lost), where=kind_of(workspace), kind="store")
    assert len(lost) > 0


@pytest.mark.prove
@pytest.mark.parametrize("name", NEEDED)
def test_the_states_in_which_a_wrong_build_is_flagged_are_counted(
    name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, deadline_s: float
) -> None:
    tried, lost = _count_flagged(WRONG_BUILDS[name], workspace, monkeypatch, deadline_s)

    if not lost and time.monotonic() > deadline_s:
        pytest.skip(f"there was time for {tried} states, and none of the few was among them")
    note(SUITE, name, tried=tried, failures=lost, where=kind_of(workspace), kind="build")
    assert lost > 0


@pytest.mark.prove
@pytest.mark.parametrize("name", NEEDLESS)
def test_a_build_without_a_needless_safeguard_is_not_flagged(
    name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lost = _count_flagged(WRONG_BUILDS[name], workspace, monkeypatch, math.inf)

    assert lost == 0


def _first_broken(
    build: WrongBuild, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> Sequence[str]:
    """Return what is broken in the first flagged state of a build."""
    with monkeypatch.context() as patch:
        if build.tried in CASES:
            build.plant(patch)
            return broken_by(CASES[build.tried], workspace / "volume")
        states = states_of(build.tried, workspace, build.plant, SHARE)
        build.plant(patch)
        shuffled = random.Random(len(states)).sample(states, len(states))
        flagged_states = (state for state in flagged(shuffled, workspace / "states") if state)
        first = next(flagged_states, Flagged("", ()))
        flagged_states.close()
        return first.broken


def _count_flagged(
    build: WrongBuild, workspace: Path, monkeypatch: pytest.MonkeyPatch, deadline_s: float
) -> tuple[int, int]:
    """Return how many states of a build were tried, and how many of them were flagged."""
    with monkeypatch.context() as patch:
        if build.tried in CASES:
            build.plant(patch)
            return 1, bool(broken_by(CASES[build.tried], workspace / "volume"))
        states = states_of(build.tried, workspace, build.plant, EVERY)
        build.plant(patch)
        if build.seldom:
            return _count_until_enough(states, workspace / "states", deadline_s)
        states = sample(states, ALL_MAX)
        return len(states), len(try_some(states, workspace / "states"))


def _count_until_enough(states: Sequence[State], place: Path, deadline_s: float) -> tuple[int, int]:
    """Open states, shuffled, until ENOUGH are flagged; there may be seventy thousand."""
    shuffled = random.Random(len(states)).sample(states, len(states))
    tried = lost = 0
    opened = flagged(shuffled, place)
    for one in opened:
        tried, lost = tried + 1, lost + (one is not None)
        if lost == ENOUGH or time.monotonic() > deadline_s:
            break
    opened.close()
    return tried, lost
