"""File names as text for messages, and as words of shell commands."""

import os
import re
import shlex
from typing import Final

_WORD: Final = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_PLAIN: Final = {byte: chr(byte) for byte in range(32, 127) if byte not in b"'%\\`"}


def shown_name(name: str) -> str:
    """Return a file's name as text: bytes that are not UTF-8, and line breaks, are escaped."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def quoted(path: str) -> str:
    """Return a path as one word of a shell command.

    A shell removes the line breaks at the end of what `$( )` prints, so they stand outside it.
    """
    if _WORD.fullmatch(path):
        return path
    if shown_name(path) == path:
        return shlex.quote(path)
    name = path.rstrip("\n")
    return f"\"$(printf '{_escaped(name)}'){path[len(name) :]}\""


def on_one_line(step: str) -> str:
    """Return a next step whose commands, in backticks, hold no line break of a file's name."""
    return re.sub(
        r"`([^`]*\n[^`]*)`", lambda found: f"`sh -c \"$(printf '{_escaped(found[1])}')\"`", step
    )


def _escaped(text: str) -> str:
    return "".join(_PLAIN.get(byte, f"\\{byte:03o}") for byte in os.fsencode(text))
