"""The fields of the user's profile; a null is a value."""

import pytest

from seline.domain.document import Json
from seline.domain.profile import get_field, read_profile
from seline.errors import NotAnObject


def test_the_default_is_returned_only_for_a_field_that_is_not_set() -> None:
    profile: Json = {"userName": "Alex", "birthDate": None}

    assert get_field(profile, "userName") == "Alex"
    assert get_field(profile, "birthDate", "unknown") is None
    assert get_field(profile, "location", "Paris") == "Paris"
    assert get_field({}, "userName") is None


@pytest.mark.parametrize("value", [[], "text", 1, None])
def test_a_document_that_is_not_an_object_is_refused(value: Json) -> None:
    with pytest.raises(NotAnObject):
        read_profile(value)
    with pytest.raises(NotAnObject):
        get_field(value, "userName")
