"""The user's profile: a JSON object with any fields."""

from typing import Final

from seline.domain.document import Json
from seline.errors import NotAnObject

PROFILE_NAME: Final = "user_profile.json"


def read_profile(value: Json) -> dict[str, Json]:
    """Return the profile's fields. Raises NotAnObject if the document is not an object."""
    if not isinstance(value, dict):
        raise NotAnObject(f"{PROFILE_NAME} is not an object, so it has no fields.")
    return value


def get_field(value: Json, field: str, default: Json = None) -> Json:
    """Return one field, or `default` if it is not set. A null is a value."""
    return read_profile(value).get(field, default)
