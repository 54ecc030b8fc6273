"""Test the tables of incidents and of verify's outcomes."""

import pytest

from seline.alerts.signals import TYPE_OF_FINDING
from seline.domain.incident import RULES, IncidentKind
from seline.domain.report import UNSERVED


def test_every_kind_of_incident_has_its_row() -> None:
    assert set(RULES) == set(IncidentKind)


def test_every_document_that_cannot_be_served_raises_an_alert() -> None:
    assert set(TYPE_OF_FINDING) == UNSERVED


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="of a later version"):
        IncidentKind("of a later version")
