"""The parameters of the API, described once: those in the path, in the query and in headers."""

from collections.abc import Mapping
from typing import Any, Final

from seline.access.audit import ENTRIES_MAX
from seline.domain.document import NAME_CHARACTERS_MAX
from seline.http.exporting import FORMS


def _text(description: str, **schema: object) -> Mapping[str, Any]:
    return {"description": description, "schema": {"type": "string", **schema}}


def _flag(description: str, *, default: bool = False) -> Mapping[str, Any]:
    return {"description": description, "schema": {"type": "boolean", "default": default}}


def _names(description: str) -> Mapping[str, Any]:
    schema = {"type": "array", "items": {"type": "string"}}
    return {"description": description, "schema": schema, "style": "form", "explode": False}


PATHS: Final[Mapping[str, Mapping[str, Any]]] = {
    "name": _text(
        "A document's name.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\.json$",
        maxLength=NAME_CHARACTERS_MAX,
    ),
    "backup": _text("A backup's name, as the list of backups has it."),
    "item": _text("The name of a quarantined file."),
    "job": _text("A job's name."),
    "destination": _text("A destination's name in the settings."),
}
QUERIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "at": _text("The last copy until this instant, in ISO 8601."),
    "backup": _flag("Keep a backup of the content before.", default=True),
    "backups": _flag("Add the backups of an export folder.", default=True),
    "before": _text("An instant in ISO 8601, or the `next` of a page: only older entries."),
    "deleted": _flag("List the deleted documents that have backups instead."),
    "document": _text("Only what names this document."),
    "dry_run": _flag("Decide and answer the same, and change nothing."),
    "foreign": _flag("Take the export or the copy of another volume."),
    "form": _text("One JSON object, or the export folder as a .tar.", enum=list(FORMS)),
    "from": _text("The content to compare; the newest backup that differs without it."),
    "limit": {
        "description": "How many entries.",
        "schema": {"type": "integer", "minimum": 1, "maximum": ENTRIES_MAX, "default": 100},
    },
    "mode": _text(
        "Keep the documents that the export does not name, or delete them, with backups.",
        enum=["merge", "replace"],
    ),
    "only": _names("The documents to take; all of them without it."),
    "purge": _flag("Erase the document, its backups and its quarantined bytes."),
    "shrink": _flag("The removal of most of the document is intended."),
    "skip": _names("The documents to leave out."),
    "to": _text("The content to compare it with; `current` without it."),
    "verbose": _text("With any value: name the reason."),
    "unencrypted": _flag("Take a copy that is not encrypted, although encryption is set."),
    "volume": _text("The id of a volume."),
}
HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "If-Match": _text("Only if this is the revision: an ETag, several, or `*`."),
    "If-None-Match": _text("Read: not if this is the ETag. Change: `*`, only to create."),
}
