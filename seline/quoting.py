"""File names as text for messages, and as words of shell commands."""

import os
import shlex
from typing import Final

_PLAIN: Final = {byte: chr(byte) for byte in range(32, 127) if byte not in b"'%\\"}


def shown_name(name: str) -> str:
    """Return a file's name as text: bytes that are not UTF-8, and line breaks, are escaped."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def quoted(path: str) -> str:
    """Return a path as one word of a shell command."""
    if shown_name(path) == path:
        return shlex.quote(path)
    escaped = (_PLAIN.get(byte, f"\\{byte:03o}") for byte in os.fsencode(path))
    return f"\"$(printf '{''.join(escaped)}')\""
