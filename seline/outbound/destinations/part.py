"""The name of an object while it is uploaded."""

import secrets
from typing import Final

_SUFFIX: Final = ".part"


def part_of(key: str) -> str:
    """Return a new key beside `key`, in the same folder, for its bytes until they are complete."""
    return f"{key}.{secrets.token_hex(4)}{_SUFFIX}"


def is_part(name: str) -> bool:
    """Whether a name is that of an upload that is not, or will never be, complete."""
    return name.endswith(_SUFFIX)
