"""Test the tables of incidents and of verify's outcomes: every member has its row."""

import pytest

from seline.domain.incident import RULES, IncidentKind
from seline.domain.report import OUTCOMES, FindingOutcome


def test_every_kind_of_incident_has_its_row() -> None:
    assert set(RULES) == set(IncidentKind)


def test_every_outcome_of_verify_has_its_row() -> None:
    assert set(OUTCOMES) == set(FindingOutcome)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="of a later version"):
        IncidentKind("of a later version")
