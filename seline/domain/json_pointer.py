"""JSON Pointers (RFC 6901): find a value, and put one in its place. An error never has a value."""

import re
from collections.abc import Sequence
from typing import Final

from seline.domain.document import Json
from seline.errors import InvalidRequest, PathNotFound

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_ESCAPE: Final = re.compile(r"~(?![01])")
_SHOWN_MAX: Final = 200


def tokens_of(path: str) -> list[str]:
    """Return the keys and indexes of a pointer, none for the whole. Raises InvalidRequest."""
    if (path and not path.startswith("/")) or _ESCAPE.search(path):
        raise InvalidRequest(
            f"{path[:_SHOWN_MAX]!r} is not a JSON Pointer. Nothing was changed.",
            hint="Write it as `/members/0/name`: a slash before each key, `~1` for a slash in a "
            "key, `~0` for a tilde.",
            fields=["path"],
        )
    return [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:]]


def value_at(value: Json, path: str, where: str) -> Json:
    """Return the value at a pointer. Raises PathNotFound, which names `where` it is not."""
    try:
        for token in tokens_of(path):
            value = _member(value, token)
    except LookupError:
        raise PathNotFound(
            f"{where} has no value at {path[:_SHOWN_MAX]}. Nothing was changed.", path=path
        ) from None
    return value


def _member(value: Json, token: str) -> Json:
    """Return what a token names in a value. Raises LookupError."""
    if isinstance(value, dict):
        return value[token]
    if isinstance(value, list) and _INDEX.fullmatch(token):
        return value[int(token)]
    raise LookupError(token)


def replaced_at(value: Json, path: str, new: Json, where: str) -> Json:
    """Return a value with another one at a pointer; it shares what it does not change.

    A key may be new, and so may the index after the last. Raises PathNotFound if the object or list
    above does not exist.
    """
    return _replaced(value, tokens_of(path), new, path, where)


def _replaced(value: Json, tokens: Sequence[str], new: Json, path: str, where: str) -> Json:
    if not tokens:
        return new
    token, rest = tokens[0], tokens[1:]
    if isinstance(value, dict) and (token in value or not rest):
        return {**value, token: _replaced(value.get(token), rest, new, path, where)}
    if isinstance(value, list) and _INDEX.fullmatch(token):
        at, items = int(token), list(value)
        if at < len(items):
            items[at] = _replaced(items[at], rest, new, path, where)
            return items
        if at == len(items) and not rest:
            return [*items, new]
    raise PathNotFound(
        f"{where} has nothing in which {path[:_SHOWN_MAX]} could be. Nothing was changed.",
        hint="Restore a path above it, or the whole document (without a path).",
        path=path,
    )
