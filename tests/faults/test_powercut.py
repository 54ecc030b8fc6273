"""A power cut after every call of every operation: whatever the disk kept, no promise is broken.

V1, V2, V3, V4, V5, V7, V8 and V11, on every state that `powercut.disk_model` allows, of everything
that `powercut.scenarios` does. The default tier opens the same few states of each scenario every
time, the long one all of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.faults.powercut import kernel
from tests.faults.powercut.promises import Flagged
from tests.faults.powercut.scenarios import SCENARIOS, states_of
from tests.faults.powercut.states import Cutting
from tests.faults.powercut.trying import Workers, kind_of, sample, try_some
from tests.faults.powercut.wrong_stores import RIGHT, seven_saves
from tests.proof.figures import note
from tests.proof.operations import OPERATIONS, Operation, prepare

SUITE: Final = "power cut"
SAMPLE: Final = 6
FEW: Final = Cutting(moments=0.2, share=0.1, starts=0.04)
ALL: Final = Cutting(combinations_max=1024)
DRAWN: Final = Cutting(share=0.1)
"""After a kill at every call there are too many: one in ten, drawn by lot."""
LIMIT_S: Final = 150.0


@pytest.mark.parametrize("name", SCENARIOS)
def test_some_states_after_a_cut_break_no_promise(name: str, place: Path) -> None:
    states = states_of(name, place, cutting=FEW)

    broken = try_some(sample(states, SAMPLE), place / "states")

    assert broken == []


@pytest.mark.prove(share=2)
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_state_after_a_cut_breaks_a_promise(
    name: str, place: Path, until_s: float, hands: Workers
) -> None:
    drawn = SCENARIOS[name].killed == "."
    states = states_of(name, place, cutting=DRAWN if drawn else ALL)

    tried, broken = hands.try_all(states, place / "states", until_s=until_s)

    note(
        SUITE, name, tried=tried, failures=len(broken), where=kind_of(place), possible=len(states),
        **({"drawn": "1 in 10"} if drawn else {}),
    )  # fmt: skip
    assert broken == [], _shortly(broken)


@pytest.mark.prove
@pytest.mark.parametrize("name", RIGHT)
def test_no_state_of_a_store_that_takes_care_loses_a_save(
    name: str, place: Path, until_s: float, hands: Workers
) -> None:
    """What flags the wrong stores flags none that is right, be it Seline or a much smaller one."""
    states = seven_saves(name, place)

    tried, broken = hands.try_all(states, place / "states", until_s=until_s)

    note(
        SUITE, f"seven saves, by the judge of the wrong stores: {name}", tried=tried,
        failures=len(broken), where=kind_of(place), possible=len(states),
    )  # fmt: skip
    assert broken == [], _shortly(broken)


@pytest.mark.prove
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_no_file_changing_call_escapes_the_recorder(operation: Operation, tmp_path: Path) -> None:
    """The recorder's list is what the kernel saw below the volume, call by call, in order."""
    volume, log = tmp_path / "volume", tmp_path / "log"
    prepare(operation, volume)

    recorded = kernel.record_under_strace(operation.name, volume, log)

    assert kernel.changes_below(volume, log) == recorded
    assert len(recorded) > 20


def _shortly(broken: Sequence[Flagged]) -> str:
    return "\n".join(f"{one.cut}: {'; '.join(one.broken)}" for one in broken[:5])
