"""A power cut after every call of every operation breaks no guarantee.

Checks V1 to V5, V7, V8 and V11 in every state that `powercut.disk_model` allows, for every scenario
of `powercut.scenarios`. The default tier opens the same few states of each scenario every time, the
long tier all of them in one form, another one each day, and one in four in the other forms. Of many
states it opens those that LIMIT_S allows, also others each day.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.faults.forms import FIRST, FORMS, labelled
from tests.faults.powercut import kernel
from tests.faults.powercut.promises import Flagged
from tests.faults.powercut.scenarios import SCENARIOS, states_of
from tests.faults.powercut.states import Cutting
from tests.faults.powercut.trying import Workers, kind_of, sample, today, try_some
from tests.faults.powercut.wrong_stores import RIGHT, seven_saves
from tests.proof.figures import note
from tests.proof.operations import OPERATIONS, Operation, prepare

SUITE: Final = "power cut"
SHORT: Final = 3
"""One in so many scenarios is in the short tests."""
SAMPLE: Final = 4
FEW: Final = Cutting(moments=0.2, share=0.1, starts=0.04)
ALL: Final = Cutting(combinations_max=1024)
DRAWN: Final = Cutting(share=0.1)
"""Where there are too many states to open, one in ten is drawn at random."""
IN_OTHER_FORMS: Final = Cutting(combinations_max=1024, share=0.25)
"""Where another form has its turn today: one in four is drawn at random."""
LIMIT_S: Final = 20.0
IN_FORMS: Final = [(one.name, form) for one in SCENARIOS.values() for form in one.forms]
IN_TURN: Final = [
    (one.name, one.forms[(number + number // SHORT) % len(one.forms)])
    for number, one in enumerate(SCENARIOS.values())
]
"""Each scenario in one form, so that each form has its turn among one in SHORT, too."""


@pytest.mark.one_in(SHORT)
@pytest.mark.parametrize(("name", "form"), IN_TURN, indirect=["form"])
def test_some_states_after_a_power_cut_break_no_guarantee(
    name: str, form: str, workspace: Path
) -> None:
    states = states_of(name, workspace, FORMS[form], FEW)

    broken = try_some(sample(states, SAMPLE), workspace / "states")

    assert states
    assert broken == []


@pytest.mark.prove(share=2)
@pytest.mark.parametrize(("name", "form"), IN_FORMS, indirect=["form"])
def test_no_state_after_a_power_cut_breaks_a_guarantee(
    name: str, form: str, workspace: Path, deadline_s: float, worker_processes: Workers
) -> None:
    cutting = DRAWN if SCENARIOS[name].is_drawn else _cutting_today(name, form)
    states = states_of(name, workspace, FORMS[form], cutting)

    tried, broken = worker_processes.try_all(
        states, workspace / "states", form=form, until_s=deadline_s
    )

    note(
        SUITE, labelled(name, form), tried=tried, failures=len(broken), where=kind_of(workspace),
        possible=len(states), **_drawn(cutting),
    )  # fmt: skip
    assert states
    assert broken == [], _summary(broken)


@pytest.mark.prove
@pytest.mark.parametrize("name", RIGHT)
def test_no_state_of_a_correct_store_loses_a_save(
    name: str, workspace: Path, deadline_s: float, worker_processes: Workers
) -> None:
    """The judge that flags the wrong stores flags neither a small correct store nor Seline."""
    states = seven_saves(name, workspace)

    tried, broken = worker_processes.try_all(
        states, workspace / "states", form=FIRST, until_s=deadline_s
    )

    note(
        SUITE, f"seven saves, by the judge of the wrong stores: {name}", tried=tried,
        failures=len(broken), where=kind_of(workspace), possible=len(states),
    )  # fmt: skip
    assert broken == [], _summary(broken)


@pytest.mark.prove
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_no_file_changing_call_escapes_the_recorder(operation: Operation, tmp_path: Path) -> None:
    """The recorder lists the calls that the kernel made below the volume, in the same order."""
    volume, log = tmp_path / "volume", tmp_path / "log"
    prepare(operation, volume)

    recorded = kernel.record_under_strace(operation.name, volume, log)

    assert kernel.changes_below(volume, log) == recorded
    assert len(recorded) > 20


def _cutting_today(name: str, form: str) -> Cutting:
    """Return how to cut a scenario in this form: in one of its forms whole, in turn by the day."""
    forms = SCENARIOS[name].forms
    turn = list(SCENARIOS).index(name) + today()
    return ALL if form == forms[turn % len(forms)] else IN_OTHER_FORMS


def _drawn(cutting: Cutting) -> dict[str, str]:
    return {"drawn": f"1 in {1 / cutting.share:.0f}"} if cutting.share < 1 else {}


def _summary(broken: Sequence[Flagged]) -> str:
    return "\n".join(f"{state.cut}: {'; '.join(state.broken)}" for state in broken[:5])
