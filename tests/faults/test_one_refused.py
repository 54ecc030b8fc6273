"""A change that is refused, whatever went wrong in its turn, refuses no other one.

The writer lives on: a caller's own function raises, a file of Seline's has another shape, the
disk refuses an unforeseen call, or Seline itself is wrong.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import NoReturn

import pytest

from seline.blocking import Seline, open_seline
from seline.domain.document import BOT, DocumentKey, Json
from seline.errors import OutcomeUnknown, SelineError, VolumeFailed, VolumeReadOnly
from seline.storage.volume import files
from tests.clocks import FakeClock
from tests.faults.injection import REOPENED_AFTER_S, A, B, in_backups, refused, store_of


def test_what_a_caller_s_function_raises_reaches_that_caller_alone(opened: Seline) -> None:
    opened.data.save_json(A, {"n": 1})

    with pytest.raises(KeyError, match="nothing of the kind"):
        opened.data.update_json(A, lambda value: value["nothing of the kind"])  # type: ignore[index,call-overload]

    opened.data.save_json(B, {"n": 1})
    assert opened.data.load_json(A) == {"n": 1}


@pytest.mark.parametrize("pins", [{"pinned": []}, {"pins": [{"document": A}]}, []])
def test_pins_of_another_shape_refuse_a_pin_by_name_and_nothing_else(
    pins: Json, opened: Seline, directory: Path
) -> None:
    for number in (1, 2):
        opened.data.save_json(A, {"n": number})
    [backup] = opened.data.backups(A)
    (directory / ".seline" / "pins.json").write_text(json.dumps(pins))

    with pytest.raises(SelineError, match=r"pins\.json"):
        opened.data.pin(A, backup.name)

    opened.data.save_json(B, {"n": 1})


def test_a_rename_and_a_tidying_that_are_refused_refuse_one_save(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the volume turns read-only between staging and publishing: what is left goes later.

    Without strict mode, which takes what the disk does not let go of for a defect of Seline's.
    """
    monkeypatch.setenv("SELINE_STRICT", "0")
    with open_seline(directory, lock_wait_s=0) as seline:
        seline.data.save_json(A, {"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(files, "exchange", refused(errno.EROFS))
            patch.setattr(os, "unlink", refused(errno.EROFS))
            with pytest.raises(VolumeReadOnly):
                seline.data.save_json(A, {"n": 2})

        seline.data.save_json(A, {"n": 3})

        assert seline.data.load_json(A) == {"n": 3}
        assert list((directory / ".seline" / "staging").iterdir()) == []


def test_a_volume_that_does_not_say_how_full_it_is_takes_saves_and_answers_health(
    opened: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.data.save_json(A, {"n": 1})
    monkeypatch.setattr(os, "fstatvfs", refused(errno.EIO))

    opened.data.save_json(A, {"n": 2})

    assert opened.data.health()["status"] != "critical"
    monkeypatch.undo()


def test_an_error_that_nobody_thought_of_leaves_the_outcome_unknown_until_the_reopening(
    opened: Seline, still: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of ours in the middle of a commit is no reason to take no change any more."""
    opened.data.save_json(A, {"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(files, "exchange", lambda *_: 1 / 0)
        with pytest.raises(OutcomeUnknown):
            opened.data.save_json(A, {"n": 2})
    with pytest.raises(VolumeFailed):
        opened.data.save_json(A, {"n": 3})

    still.advance(REOPENED_AFTER_S)
    opened.data.save_json(A, {"n": 4})

    assert opened.data.load_json(A) == {"n": 4}
    assert {"n": 1} in in_backups(opened)


def test_work_between_two_batches_that_fails_is_told_to_its_caller_alone(opened: Seline) -> None:
    def fail(*_: object) -> NoReturn:
        raise KeyError("a plan that is wrong")

    with pytest.raises(KeyError):
        store_of(opened).rotate(DocumentKey(BOT, A), fail).result(10)

    opened.data.save_json(A, {"n": 1})
