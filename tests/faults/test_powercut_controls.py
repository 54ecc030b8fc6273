"""The power-cut suite is checked: builds that are wrong on purpose must be flagged by it.

Each row of `powercut.wrong_builds` takes one care away from the store: a sync, a link, a checksum,
a check. A suite that does not tell such a build from the right one would find nothing anywhere. And
every such place in the code has its row, so a new care brings its wrong build.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.faults.powercut.damages import CASES, broken_by
from tests.faults.powercut.promises import Flagged, flagged
from tests.faults.powercut.safeguards import patch_points
from tests.faults.powercut.scenarios import SCENARIOS, states_of
from tests.faults.powercut.states import EVERY, Cutting
from tests.faults.powercut.trying import fast_place, kind_of, sample, try_some
from tests.faults.powercut.wrong_builds import WRONG_BUILDS, WrongBuild
from tests.faults.powercut.wrong_stores import RIGHT, WRONG, seven_saves
from tests.proof.figures import note

SUITE: Final = "negative control"
SHARE: Final = Cutting(share=0.25)
NEEDLESS: Final = {name: build for name, build in WRONG_BUILDS.items() if build.needless}
NEEDED: Final = {name: build for name, build in WRONG_BUILDS.items() if not build.needless}
OFTEN: Final = [name for name, build in NEEDED.items() if not build.seldom]
ALL_MAX: Final = 400
HARNESS_ERRORS: Final = ("NameError", "TypeError", "AttributeError", "UnboundLocalError")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Give a fast directory for the states."""
    with fast_place(tmp_path / "states") as fast:
        yield fast


def test_every_care_in_the_code_has_its_wrong_build() -> None:
    """A new sync, link, attribute or check has its row, and no row is of anything else."""
    named = {site for build in WRONG_BUILDS.values() for site in build.changes}

    assert patch_points() == named


def test_every_wrong_build_is_tried_by_what_there_is() -> None:
    tried = {build.tried for build in WRONG_BUILDS.values()}

    assert tried <= SCENARIOS.keys() | CASES.keys()
    assert CASES.keys() <= tried


@pytest.mark.parametrize("name", CASES)
def test_no_case_without_a_cut_breaks_a_promise(name: str, place: Path) -> None:
    assert broken_by(CASES[name], place / "volume") == []


@pytest.mark.parametrize("name", OFTEN)
def test_a_build_without_one_care_is_flagged(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = _first_flagged(WRONG_BUILDS[name], place, monkeypatch)

    assert len(broken) > 0
    assert not any(error in one for one in broken for error in HARNESS_ERRORS)


@pytest.mark.parametrize("name", WRONG)
def test_a_store_that_is_wrong_on_purpose_loses_saves(name: str, place: Path) -> None:
    states = seven_saves(name, place, SHARE)

    assert try_some(states, place / "states") != []


def test_a_small_store_that_takes_every_care_loses_none(place: Path) -> None:
    [small, _seline] = RIGHT

    assert try_some(seven_saves(small, place), place / "states") == []


@pytest.mark.prove
@pytest.mark.parametrize("name", WRONG)
def test_how_often_a_wrong_store_loses_a_save(name: str, place: Path) -> None:
    states = seven_saves(name, place)

    lost = try_some(states, place / "states")

    note(SUITE, name, tried=len(states), failures=len(lost), where=kind_of(place), kind="store")
    assert len(lost) > 0


@pytest.mark.prove
@pytest.mark.parametrize("name", NEEDED)
def test_how_often_a_build_without_one_care_is_flagged(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, lost = _all_flagged(WRONG_BUILDS[name], place, monkeypatch)

    note(SUITE, name, tried=tried, failures=lost, where=kind_of(place), kind="build")
    assert lost > 0


@pytest.mark.prove
@pytest.mark.parametrize("name", NEEDLESS)
def test_a_care_that_is_said_to_be_needless_is_so(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lost = _all_flagged(WRONG_BUILDS[name], place, monkeypatch)

    assert lost == 0


def _first_flagged(
    build: WrongBuild, place: Path, monkeypatch: pytest.MonkeyPatch
) -> Sequence[str]:
    """Return what is broken in the first state of a build that shows it."""
    with monkeypatch.context() as patch:
        if build.tried in CASES:
            build.plant(patch)
            return broken_by(CASES[build.tried], place / "volume")
        states = states_of(build.tried, place, build.plant, SHARE)
        build.plant(patch)
        shuffled = random.Random(len(states)).sample(states, len(states))
        found = (one for one in flagged(shuffled, place / "states") if one)
        first = next(found, Flagged("", ()))
        found.close()
        return first.broken


def _all_flagged(
    build: WrongBuild, place: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int]:
    """Return how many states of a build were tried, and in how many of them a promise is broken."""
    with monkeypatch.context() as patch:
        if build.tried in CASES:
            build.plant(patch)
            return 1, bool(broken_by(CASES[build.tried], place / "volume"))
        states = states_of(build.tried, place, build.plant, EVERY)
        if not build.seldom:
            states = sample(states, ALL_MAX)
        build.plant(patch)
        return len(states), len(try_some(states, place / "states"))
