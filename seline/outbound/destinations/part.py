"""The name of an object while it is uploaded."""

import re
import secrets
from typing import Final

_PART: Final = re.compile(r".*\.part(\.\d+)?")
"""nginx appends a number while it copies an upload from another disk."""


def part_of(key: str) -> str:
    """Return a new key beside `key`, in the same folder, for its bytes until they are complete."""
    return f"{key}.{secrets.token_hex(4)}.part"


def is_part(name: str) -> bool:
    """Whether a name is that of an upload that is not, or will never be, complete."""
    return _PART.fullmatch(name) is not None
