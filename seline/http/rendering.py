"""Render answers: the domain's values as JSON, instants as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import cast

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
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {str(name): plain(item) for name, item in items}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast("list[object]", value)]
    return cast("Json", value)


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
