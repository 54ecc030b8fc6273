"""Render answers: the domain's values as JSON, instants as text."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any, cast

import msgspec
from aiohttp import web

from seline.clock import instant_text
from seline.domain.document import Json


def plain(value: object) -> Json:
    """Return a value of the domain as plain JSON values."""
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, Enum):
        return cast("Json", value.value)
    if isinstance(value, msgspec.Struct):
        return members(value, *value.__struct_fields__)
    if is_dataclass(value) and not isinstance(value, type):
        return members(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {str(name): plain(item) for name, item in items}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast("list[object]", value)]
    return cast("Json", value)


def members(value: Any, *names: str) -> dict[str, Json]:
    """Return the named fields of a value as JSON, all fields of a dataclass if none is named."""
    names = names or tuple(field.name for field in fields(value))
    return {name: plain(getattr(value, name)) for name in names}


def answer(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a JSON response."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(plain(value)) + b"\n",
        content_type="application/json",
        headers=headers,
    )
