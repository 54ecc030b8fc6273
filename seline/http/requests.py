"""Parse requests: query, body and preconditions. An unknown name is refused."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Collection
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from seline import collector
from seline.domain.document import ABSENT, Content, IfMatch, Json
from seline.domain.json_codec import DEPTH_MAX, NotJson, decode_given, normalised
from seline.errors import (
    InvalidRequest,
    RequestTimedOut,
    RequestTooLarge,
    RevisionMismatch,
    UnsupportedCoding,
    UnsupportedMediaType,
)
from seline.http import MERGE_PATCH
from seline.http.context import is_control
from seline.manager.encoding import given_content
from seline.operations.imports import refused_body
from seline.settings import Storage, truth

BODY_S: Final = 30.0
"""How long a body may take, beside the time for its bytes at BODY_BYTES_PER_S."""
BODY_BYTES_PER_S: Final = 8 << 10
SMALL_BODY_BYTES: Final = 16 << 10
INLINE_BYTES_MAX: Final = 64 << 10
"""A body of at most this size is decoded, or sent, at once."""
VALUES_MAX: Final = 1_000_000
"""How many values a body over the network may have; one decodes to at most 120 bytes."""
DECODING = web.AppKey("decoding", asyncio.Semaphore)
_STRUCTURE: Final = re.compile(rb'"(?>(?:[^"\\]++|\\.)*)"|(?P<value>[,\[{])')
_ANY: Final = "*"
ANY_SOUND: Final = "any sound document"
"""What `If-Match: *` accepts. It is no revision and no ETag, which has no space."""
_BARE_REVISION: Final = re.compile(r"[0-9a-f]{64}")
_TAG: Final = r'"[\x21\x23-\x7e\x80-\U0010ffff]*"'
_TAGS: Final = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


def check_query(request: web.Request, allowed: Collection[str]) -> None:
    """Refuse query parameters that the route does not know, and repeated ones."""
    if not request.query:
        return
    unknown = sorted(set(request.query) - set(allowed))
    if unknown:
        known = ", ".join(sorted(allowed)) or "none"
        raise InvalidRequest(
            f"This route does not know the parameter {', '.join(unknown)}; it knows {known}.",
            fields=unknown,
        )
    repeated = sorted({name for name in request.query if len(request.query.getall(name)) > 1})
    if repeated:
        raise InvalidRequest(f"{', '.join(repeated)} is given more than once.", fields=repeated)


def check_coding(request: web.Request) -> None:
    """Refuse a compressed body: it is not decoded here, and must not be stored compressed."""
    named = (_field(request, "Content-Encoding") or "").split(",")
    codings = [coding for name in named if (coding := name.strip()).lower() not in ("", "identity")]
    if codings and request.body_exists:
        raise UnsupportedCoding(
            f"The body is coded as {', '.join(codings)[:80]}; this server takes it as it is. "
            "Nothing was changed."
        )


def check_conditions(request: web.Request, *, is_judged: bool) -> None:
    """Refuse preconditions of a change that the route does not judge; none is ignored."""
    if is_judged:
        # An If-Match decides alone (RFC 9110, 13.2.2).
        names = ["If-Unmodified-Since"] if "If-Match" not in request.headers else []
    else:
        names = ["If-Match", "If-None-Match", "If-Unmodified-Since"]
    given = [name for name in names if name in request.headers]
    if given:
        raise InvalidRequest(
            f"This route does not judge {', '.join(given)}. Nothing was changed.",
            hint="Send `If-Match` with the ETag of your last read."
            if is_judged
            else "Send it without; `dry_run=true` shows what it would change.",
            fields=given,
        )


def flag(request: web.Request, name: str, *, default: bool) -> bool:
    """Return a query parameter that is true or false."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        return truth(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{name} is `true` or `false`, not {text[:40]!r}.", fields=[name]
        ) from error


async def body_pieces(request: web.Request, bytes_max: int) -> AsyncGenerator[bytes]:
    """Yield the body. Raises InvalidRequest for an empty one.

    Raises RequestTooLarge as soon as it is known to be too large, and RequestTimedOut if the client
    sends too slowly; the time in which nothing is read from it does not count.
    """
    if (request.content_length or 0) > bytes_max:
        raise _too_large(request.content_length, bytes_max)
    size_bytes, waited_s = 0, 0.0
    while True:
        limit_s = BODY_S + size_bytes / BODY_BYTES_PER_S - waited_s
        asked_s = time.monotonic()
        try:
            piece = await _piece(request, limit_s)
        except TimeoutError as error:
            raise RequestTimedOut(received_bytes=size_bytes) from error
        if not piece:
            break
        waited_s += time.monotonic() - asked_s
        size_bytes += len(piece)
        if size_bytes > bytes_max:
            raise _too_large(None, bytes_max)
        yield piece
    if not size_bytes:
        raise InvalidRequest(
            "The request has an empty body; this route takes JSON. Nothing was changed.",
            hint="Send the JSON as the body (`curl --data-binary @FILE`).",
        )


async def _piece(request: web.Request, limit_s: float) -> bytes:
    """Return the next bytes of the body, none at its end. Raises TimeoutError."""
    if request.content.is_eof():  # everything has arrived: no timer is needed
        return await request.content.read(1 << 20)
    async with asyncio.timeout(limit_s):
        return await request.content.read(1 << 20)


def check_json(request: web.Request) -> None:
    """Raise InvalidRequest unless the body is declared as JSON, or not declared."""
    if request.content_type not in ("application/json", "application/octet-stream"):
        raise InvalidRequest(
            f"The body is {request.content_type}; this route takes application/json.",
            hint="Send `Content-Type: application/json`.",
        )


async def read_content(request: web.Request, bytes_max: int, limits: Storage) -> Content:
    """Return the document that the body holds, without a check of its content type.

    Raises as `read_patch` does, and DocumentTooLarge.
    """

    def decode(body: bytes) -> Content:
        try:
            return given_content(body, limits)
        except NotJson as error:
            raise refused_body(error) from error

    return await _decoded(request, bytes_max, decode)


async def read_patch(request: web.Request, bytes_max: int, limits: Storage) -> Json:
    """Return the merge patch that the body holds.

    Raises UnsupportedMediaType, InvalidRequest with line and column, and as `body_pieces` does.
    """
    if request.content_type != MERGE_PATCH:
        declared = request.headers.get("Content-Type", "")[:80] or "of no declared type"
        raise UnsupportedMediaType(
            f"The body is {declared}; this route takes {MERGE_PATCH}. Nothing was changed."
        )
    return await _decoded(request, bytes_max, lambda body: _value(body, limits.depth_max))


async def _decoded(request: web.Request, bytes_max: int, decode: Callable[[bytes], T]) -> T:
    """Return the decoded body. A large one is decoded outside the event loop, one at a time."""
    body = await _read(request, bytes_max)
    if len(body) <= INLINE_BYTES_MAX:
        return decode(body)
    async with request.config_dict[DECODING]:
        return await asyncio.to_thread(_large, body, decode, is_bounded=not is_control(request))


def _large(body: bytes, decode: Callable[[bytes], T], *, is_bounded: bool) -> T:
    """Decode a body, unless it has more values than are decoded for a client over the network."""
    body = normalised(body)
    values = count_values(body, VALUES_MAX) if is_bounded else 0
    if values > VALUES_MAX:
        raise RequestTooLarge(
            f"The body has more than {VALUES_MAX} values; this route takes no more.",
            hint="Split it into several documents, or save it on the machine itself.",
        )
    with collector.paused():
        return decode(body)


def count_values(body: bytes, enough: int) -> int:
    """Return how many objects, lists and further members JSON has; stop counting over `enough`.

    Each is an object in memory, of up to 120 bytes, so the count bounds what decoding needs.
    """
    count = body.count(b",") + body.count(b"[") + body.count(b"{")
    if count <= enough:
        return count
    count = 0
    for token in _STRUCTURE.finditer(body):  # some may be inside texts
        count += token.lastgroup == "value"
        if count > enough:
            break
    return count


def _value(body: bytes, depth_max: int) -> Json:
    try:
        return decode_given(body, depth_max=depth_max)
    except NotJson as error:
        raise refused_body(error) from error


async def _read(request: web.Request, bytes_max: int) -> bytes:
    """Return the body; most have arrived with their head. Raises as `body_pieces` does."""
    size_bytes = request.content_length or 0
    if 0 < size_bytes <= bytes_max and request.content.is_eof():
        return await request.content.read()
    return b"".join([piece async for piece in body_pieces(request, bytes_max)])


async def read_body(request: web.Request, kind: type[S], bytes_max: int = SMALL_BODY_BYTES) -> S:
    """Return the body as a struct of texts; a null field has its default.

    Raises InvalidRequest if a required field is missing, or one is unknown or no text.
    """
    check_json(request)
    value = _value(await _read(request, bytes_max), DEPTH_MAX)
    if not isinstance(value, dict):
        raise InvalidRequest("The body is a JSON object.")
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise InvalidRequest(f"The body does not know {', '.join(unknown)}.", fields=unknown)
    missing = [name for name, field in fields.items() if field.required and name not in value]
    if missing:
        raise InvalidRequest(f"The body needs {', '.join(missing)}.", fields=missing)
    for name, item in value.items():
        if not isinstance(item, str) and (item is not None or fields[name].required):
            raise InvalidRequest(f"{name} is text.", fields=[name])
    return kind(**{name: item for name, item in value.items() if item is not None})


def precondition(request: web.Request) -> list[IfMatch]:
    """Return what the caller accepts to change: If-Match, or If-None-Match: * to create only.

    RFC 9110, 13.1. An empty list is no condition; ANY_SOUND accepts every sound document.
    """
    expected = _field(request, "If-Match")
    unexpected = _field(request, "If-None-Match")
    if unexpected is not None:
        if unexpected != _ANY or expected is not None:
            raise InvalidRequest("A change takes `If-None-Match: *` or `If-Match`, not both.")
        return [ABSENT]
    if expected is None:
        return []
    return [ANY_SOUND] if expected == _ANY else _tags(expected)


def not_modified(request: web.BaseRequest, revision: str) -> bool:
    """Whether the reader has this revision already."""
    tags = _field(request, "If-None-Match")
    if tags is None:
        return False
    known = {tag.strip().removeprefix("W/").strip('"') for tag in tags.split(",")}
    return "*" in known or revision in known


def check_read(request: web.Request, revision: str) -> None:
    """Raise RevisionMismatch if the reader asks for another revision only."""
    expected = _field(request, "If-Match")
    if expected not in (None, _ANY) and revision not in _tags(expected):
        raise RevisionMismatch(
            "The document has another revision than the one you asked for.",
            hint="Read it without `If-Match`.",
            current=revision,
        )


def etag(revision: str) -> str:
    """Return a revision as an ETag."""
    return f'"{revision}"'


def _field(request: web.BaseRequest, name: str) -> str | None:
    """Return a header; several lines of it are one list."""
    lines = request.headers.getall(name, None)
    return None if lines is None else ", ".join(lines).strip()


def _tags(text: str) -> list[IfMatch]:
    """Return the revisions of a list of ETags; a single revision may have no quotes."""
    if _BARE_REVISION.fullmatch(text):
        return [text]
    if not _TAGS.fullmatch(text):
        raise InvalidRequest(
            f"If-Match takes `*` or strong ETags in double quotes, not {text[:80]!r}.",
            hint="Send the ETag of the read on which the change is based, without `W/`.",
        )
    return [tag.strip('"') for tag in re.findall(_TAG, text)]


def _too_large(size_bytes: int | None, bytes_max: int) -> RequestTooLarge:
    size = f"{size_bytes} bytes" if size_bytes else "more"
    return RequestTooLarge(
        f"The body has {size}; this route takes {bytes_max}.", size_bytes_max=bytes_max
    )
