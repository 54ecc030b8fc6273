"""Read a multistatus answer of WebDAV (RFC 4918): what a folder holds, and the sizes."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

_PIECE_CHARACTERS: Final = 32 << 10


async def read_resources(body: bytes) -> dict[str, int | None]:
    """Return the sizes in a multistatus answer by path, None for a folder.

    Raises ValueError. Only UTF-8 is read, so that no other encoding can hide a document type, with
    which an answer could define entities. Other tasks run while a long answer is read.
    """
    text = body.decode("utf-8-sig")
    if "<!DOCTYPE" in text:
        raise ValueError("it has a document type")
    parser: Any = ET.XMLPullParser(("start", "end"))
    found: dict[str, int | None] = {}
    try:
        for start in range(0, len(text), _PIECE_CHARACTERS):
            parser.feed(text[start : start + _PIECE_CHARACTERS])
            found.update(_read(parser, is_first=start == 0))
            await asyncio.sleep(0)
        parser.close()
    except ET.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    return found


def _read(parser: Any, *, is_first: bool) -> Iterator[tuple[str, int | None]]:
    """Yield the entries that were fed since the last call; the first element is a multistatus."""
    for event, element in parser.read_events():
        if is_first and element.tag != "{DAV:}multistatus":
            raise ValueError("it is no multistatus")
        is_first = False
        if event == "end" and element.tag == "{DAV:}response":
            yield _resource(element)
            element.clear()


def _resource(response: ET.Element) -> tuple[str, int | None]:
    href = response.findtext("{DAV:}href", "").strip()
    path = unquote(urlsplit(href).path, errors="strict").rstrip("/")
    for status in response.iterfind("{DAV:}propstat"):
        found = status.find("{DAV:}prop")
        if found is None or " 200" not in status.findtext("{DAV:}status", ""):
            continue
        if found.find("{DAV:}resourcetype/{DAV:}collection") is not None:
            return path, None
        size = found.findtext("{DAV:}getcontentlength", "").strip()
        if size:
            return path, int(size)
    raise ValueError("it has an entry without a size")
