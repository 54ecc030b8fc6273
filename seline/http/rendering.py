"""Render answers: the domain's values as JSON, instants as text."""

from collections.abc import Mapping
from datetime import datetime
from email.utils import formatdate
from functools import lru_cache
from typing import Final, Generic, TypeVar, cast

import msgspec
from aiohttp import web

from seline.clock import instant_text
from seline.domain.difference import Difference
from seline.domain.document import Json
from seline.domain.json_codec import encode

T = TypeVar("T")
_SIMPLE: Final = frozenset({str, int, float, bool, type(None)})


def plain(value: object) -> Json:
    """Return a value of the domain as plain JSON values."""
    return _with_texts(msgspec.to_builtins(value, builtin_types=(datetime,)))


def _with_texts(value: object) -> Json:
    """Return plain values with instants as Seline writes them."""
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, dict):
        fields = cast("dict[str, Json]", value).items()
        return {name: item if type(item) in _SIMPLE else _with_texts(item) for name, item in fields}
    if isinstance(value, (list, tuple)):
        items = cast("list[Json]", value)
        return [item if type(item) in _SIMPLE else _with_texts(item) for item in items]
    return cast("Json", value)


def members(value: object, *names: str) -> dict[str, Json]:
    """Return the named fields of a value as JSON."""
    return {name: plain(getattr(value, name)) for name in names}


def http_date(instant: datetime) -> str:
    """Return an instant as the headers of HTTP have it: `Mon, 06 Jan 2025 14:30:22 GMT`."""
    return _http_date(int(instant.timestamp()))


@lru_cache(maxsize=1024)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)


class JsonAnswer(web.Response, Generic[T]):
    """A JSON response whose body is a `T`. OpenAPI reads it from what a handler returns."""


class SuccessAnswer(JsonAnswer[T]):
    """A JSON response whose body has the fields of a `T` after `"success": true`."""


def difference_members(difference: Difference) -> dict[str, Json]:
    """Return a difference as JSON; its values are as exact as those of a document."""
    changes: list[Json] = [
        {
            "path": change.path,
            "kind": change.kind,
            "before": change.before,
            "after": change.after,
            "shortened": list(change.shortened),
        }
        for change in difference.changes
    ]
    patch = difference.patch
    return {
        "changes": changes,
        **members(difference, "added", "removed", "changed", "truncated"),
        "patch": None if patch is None else list(patch),
    }


def exact_answer(value: T, *, headers: Mapping[str, str] | None = None) -> JsonAnswer[T]:
    """Return a JSON response with values of documents: no number loses a digit."""
    return JsonAnswer[T](body=encode(value), content_type="application/json", headers=headers)


def answer(
    value: T, *, status: int = 200, headers: Mapping[str, str] | None = None, indent: int = 0
) -> JsonAnswer[T]:
    """Return a JSON response, of one line without `indent`."""
    body = msgspec.json.encode(plain(value))
    return JsonAnswer[T](
        status=status,
        body=(msgspec.json.format(body, indent=indent) if indent else body) + b"\n",
        content_type="application/json",
        headers=headers,
    )


def done(value: T) -> SuccessAnswer[T]:
    """Return a JSON response with the fields of a value after `"success": true`."""
    fields = cast("dict[str, Json]", plain(value))
    body = msgspec.json.encode({"success": True, **fields}) + b"\n"
    return SuccessAnswer[T](body=body, content_type="application/json")
