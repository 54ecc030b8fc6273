"""The forms of the commit; the fault suites run over each of them.

The fixture `form` has every store of a test use one, and `pytestmark = each_form` every test of a
module. A module whose tests look at the files asks for those that write them at once:
`pytestmark = each_form_at_once`. The short tests run over some of the forms, and `make prove` over
all.

Other tests have the form that a user has, with a small journal: their files follow a save. One
that changes a file by hand uses the fixture `files_at_once`, and one of the first form's system
calls `first_form`.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Final, TypeAlias

import pytest

from seline.storage.volume.journal import codec

JOURNAL_BYTES: Final = "SELINE_STORAGE__JOURNAL_BYTES"
PUBLISH_WITHIN_MS: Final = "SELINE_STORAGE__PUBLISH_WITHIN_MS"
SMALL_JOURNAL: Final = {JOURNAL_BYTES: "262144"}
"""For the tests that do not care: the default writes 16 MiB of zeros to each new volume."""
Form: TypeAlias = Callable[[pytest.MonkeyPatch], None]
FIRST: Final = "synced in its files"
JOURNAL: Final = "by a journal"
FILES_LATER: Final = "by a journal, files later"
AT_ONCE: Final = (FIRST, JOURNAL)
"""The forms that write a file before a change is answered."""
BY_A_JOURNAL: Final = (JOURNAL, FILES_LATER)
EACH: Final = (
    *(pytest.param(form, marks=pytest.mark.prove) for form in (FIRST, JOURNAL)),
    FILES_LATER,
)
"""All forms; the short tests have the one that a user has."""


def _over(*forms: str, prove: Sequence[str]) -> list[pytest.MarkDecorator]:
    """Run the tests of a module over these forms, and over more of them in `make prove`."""
    more = [pytest.param(form, marks=pytest.mark.prove) for form in prove]
    return [
        pytest.mark.usefixtures("form"),
        pytest.mark.parametrize("form", [*more, *forms], indirect=True),
    ]


each_form_at_once: Final = _over(JOURNAL, prove=[FIRST])
each_form: Final = _over(FILES_LATER, prove=[FIRST, JOURNAL])


def synced_in_its_files(patch: pytest.MonkeyPatch) -> None:
    """Use the first form."""
    patch.setenv(JOURNAL_BYTES, "0")


def by_a_journal(patch: pytest.MonkeyPatch) -> None:
    """Use the second form, and write the files before a change is answered.

    Small documents, too, are recorded by what differs.
    """
    patch.setattr(codec, "DELTA_BYTES_MIN", 64)
    patch.setenv(JOURNAL_BYTES, "65536")
    patch.setenv(PUBLISH_WITHIN_MS, "0")


def by_a_journal_with_files_later(patch: pytest.MonkeyPatch) -> None:
    """Use the second form, and write the files after a change was answered."""
    by_a_journal(patch)
    patch.setenv(PUBLISH_WITHIN_MS, "10000")


FORMS: Final[Mapping[str, Form]] = {
    FIRST: synced_in_its_files,
    JOURNAL: by_a_journal,
    FILES_LATER: by_a_journal_with_files_later,
}


def chosen() -> dict[str, str]:
    """Return the variables of this environment that choose a form, for one without others."""
    return {
        name: os.environ[name] for name in (JOURNAL_BYTES, PUBLISH_WITHIN_MS) if name in os.environ
    }


def in_turn(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return each name with one form, so that each form has its turn: for the short tests."""
    return list(zip(names, cycle(FORMS), strict=False))


def labelled(what: str, form: str) -> str:
    """Return what a figure is about, with its form unless that is the first one."""
    return what if form == FIRST else f"{what}, {form}"
