"""Read a multistatus answer of WebDAV (RFC 4918): what a folder holds, and the sizes."""

from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET


def read_resources(body: bytes) -> dict[str, int | None]:
    """Return the sizes in a multistatus answer by path, None for a folder.

    Raises ValueError. Only UTF-8 is read, so that no other encoding can hide a
    document type, with which an answer could define entities.
    """
    text = body.decode("utf-8-sig")
    if "<!DOCTYPE" in text:
        raise ValueError("it has a document type")
    try:
        root = ET.fromstring(text)  # noqa: S314  # without a document type: no entities
    except ET.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    if root.tag != "{DAV:}multistatus":
        raise ValueError("it is no multistatus")
    return dict(map(_resource, root.iterfind("{DAV:}response")))


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
