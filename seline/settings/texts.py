"""Text of a setting: what is removed around a value, and what is refused in it."""

import os
import unicodedata
from collections.abc import Mapping
from typing import Final

from seline.errors import SettingsError

_QUOTES: Final = "\"'"
_NOT_AT_THE_ENDS: Final = f"{_QUOTES}\u2018\u2019\u201c\u201d"
_LISTS: Final = ("[", "{")
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Zl", "Zp"})
_JOINERS: Final = frozenset("\u200c\u200d")  # part of ordinary words in Persian and Hindi
_NAMES: Final[Mapping[str, str]] = {
    "\0": "a NUL",
    "\t": "a tab",
    "\n": "a line break",
    "\r": "a carriage return",
    " ": "a space",
    "'": "a quotation mark",
    '"': "a quotation mark",
}


def normalised(text: str) -> str:
    """Return a text of the environment without the space and the quotes around it.

    `docker run --env-file` keeps quotes, `$(cat file)` in some tools the line break.
    """
    text = text.strip()
    quote, inner = text[:1], text[1:-1]
    quoted = len(text) > 1 and quote in _QUOTES and text.endswith(quote)
    if quoted and (quote not in inner or inner.lstrip().startswith(_LISTS)):
        return inner.strip()
    return text


def plain_text(value: object) -> str:
    """Return a text. Raises ValueError, with the character, for one that no person means."""
    if not isinstance(value, str):
        raise ValueError("it is not text")  # noqa: TRY004  # one error for every wrong value
    if not value.strip():
        raise ValueError("it is empty")
    for place, end in ((0, "begins"), (-1, "ends")):
        if value[place].isspace() or value[place] in _NOT_AT_THE_ENDS:
            raise ValueError(f"it {end} with {character(value[place])}")
    for number, letter in enumerate(value, start=1):
        if unicodedata.category(letter) in _INVISIBLE and letter not in _JOINERS:
            raise ValueError(f"its character {number} is {character(letter)}")
    return value


def character(letter: str) -> str:
    """Return a character's name for a message, such as `a line break (U+000A)`."""
    name = _NAMES.get(letter) or unicodedata.name(letter, "a control character").lower()
    return f"{name} (U+{ord(letter):04X})"


def path_text(value: object) -> str:
    """Return a path with `~` replaced by the home directory. Raises ValueError, SettingsError."""
    text = plain_text(value)
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ValueError(f"{text.partition('/')[0]} has no home directory here")
    refuse_literal_folder(text, path)
    return path


def refuse_literal_folder(given: str, path: str) -> None:
    """Raise SettingsError if a folder exists that is called as the path was written.

    Older versions used that folder: another one would look as if all documents were lost.
    """
    if given != path and os.path.isdir(given):
        raise SettingsError(
            f"The path {given!r} means {path}, and there is also a folder that is called "
            f"{given!r}: an older version kept the documents there.",
            hint=f"Rename the folder {os.path.abspath(given)!r}; to {path} if its documents are "
            "the ones to serve.",
            field="storage.data_dir",
        )
