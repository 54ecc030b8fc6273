"""The readable export, and the way back in: one JSON object with every document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from seline.domain.document import METADATA_NAME, Json, Revision, check_document_name
from seline.errors import ImportRefused, InvalidDocumentName

WRAPPER_KEYS: Final = frozenset({"success", "data"})
EXPORT_KEYS: Final = frozenset({"exported_at", "files", "unrecoverable"})


class ImportMode(StrEnum):
    """What happens to documents that an import does not name: they stay, or they are deleted."""

    MERGE = "merge"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did, or would do: document names, sorted."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    deleted: tuple[str, ...]
    dry_run: bool


def parse_export(value: Json) -> dict[str, Json]:
    """Return the documents of an export, with or without `{success, data}` around it.

    `metadata.json` is left out: it is a report, made anew. Raises ImportRefused naming the path,
    and every name that a document cannot bear.
    """
    files = _files(_unwrapped(value))
    files.pop(METADATA_NAME, None)
    wrong = [name for name in files if _is_wrong(name)]
    if wrong:
        listed = ", ".join(repr(name) for name in wrong[:10])
        raise ImportRefused(
            f"$.files: these are not names of documents: {listed}. Nothing was changed.",
            names=wrong[:100],
        )
    return files


def plan_import(
    current: Mapping[str, Revision | None],
    incoming: Mapping[str, Revision],
    mode: ImportMode,
    *,
    dry_run: bool,
) -> ImportReport:
    """Say what an import does to each document. A current revision None is a broken document."""
    names = sorted(incoming)
    return ImportReport(
        created=tuple(name for name in names if name not in current),
        changed=tuple(
            name for name in names if name in current and current[name] != incoming[name]
        ),
        unchanged=tuple(name for name in names if current.get(name, "") == incoming[name]),
        deleted=tuple(sorted(set(current) - set(incoming))) if mode is ImportMode.REPLACE else (),
        dry_run=dry_run,
    )


def parse_mode(mode: str) -> ImportMode:
    """Return the mode. Raises ImportRefused."""
    try:
        return ImportMode(mode)
    except ValueError as error:
        raise ImportRefused(
            f"{mode!r} is not a way to import.", hint="Use `merge` or `replace`."
        ) from error


def _unwrapped(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ImportRefused("$: an export is an object with `files`. Nothing was changed.")
    if "files" in value or "data" not in value:
        return value
    _refuse_unknown(value, WRAPPER_KEYS, "$")
    inner = value["data"]
    if not isinstance(inner, dict):
        raise ImportRefused("$.data: an export is an object with `files`. Nothing was changed.")
    return inner


def _files(export: dict[str, Json]) -> dict[str, Json]:
    files = export.get("files")
    if not isinstance(files, dict):
        raise ImportRefused(
            "$.files is missing: an export holds its documents there. Nothing was changed."
        )
    _refuse_unknown(export, EXPORT_KEYS, "$")
    return dict(files)


def _refuse_unknown(value: dict[str, Json], known: frozenset[str], path: str) -> None:
    unknown = sorted(set(value) - known)
    if unknown:
        raise ImportRefused(
            f"{path}: {', '.join(unknown[:10])} is not part of an export. Nothing was changed."
        )


def _is_wrong(name: str) -> bool:
    try:
        check_document_name(name)
    except InvalidDocumentName:
        return True
    return False
