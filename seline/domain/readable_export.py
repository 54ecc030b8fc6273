"""The readable export, one JSON object with every document, and the plan of its import."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from seline.domain.backup import parse_backup_name
from seline.domain.document import METADATA_NAME, Json, Revision, check_document_name
from seline.domain.json_flaws import Path, path_text
from seline.domain.plural import NAMES_SHOWN_MAX, counted, shortened
from seline.errors import ImportRefused, InvalidDocumentName

WRAPPER_KEYS: Final = frozenset({"success", "data"})
EXPORT_KEYS: Final = frozenset({"exported_at", "files", "from_backups", "unrecoverable"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did, or would do in a dry run: sorted document names.

    `backups` and `pins` are how many were added to those of the store.
    """

    created: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    deleted: tuple[str, ...]
    dry_run: bool
    backups: int = 0
    pins: int = 0


def parse_export(value: Json) -> dict[str, Json]:
    """Return the documents of an export, which may be wrapped in `{success, data}`.

    `metadata.json` is left out, because Seline generates it. Raises ImportRefused with the path in
    the export and all invalid document names.
    """
    path, export = _unwrapped(value)
    files = export.get("files")
    if not isinstance(files, dict):
        raise _refusal((*path, "files"), "an export holds its documents there, by name")
    _refuse_unknown(export, EXPORT_KEYS, path)
    documents = {name: document for name, document in files.items() if name != METADATA_NAME}
    _check_names(documents, (*path, "files"))
    return documents


def plan_import(
    current: Mapping[str, Revision | None],
    incoming: Mapping[str, Revision],
    *,
    replace: bool = False,
    dry_run: bool = False,
) -> ImportReport:
    """Decide what an import does to each document. Revision None in `current`: it is broken.

    `replace`: the documents that the import does not name are deleted.
    """
    known = sorted(name for name in incoming if name in current)
    gone = sorted(current.keys() - incoming.keys()) if replace else []
    return ImportReport(
        created=tuple(sorted(incoming.keys() - current.keys())),
        changed=tuple(name for name in known if current[name] != incoming[name]),
        unchanged=tuple(name for name in known if current[name] == incoming[name]),
        deleted=tuple(gone),
        dry_run=dry_run,
    )


def only_named(
    contents: Mapping[str, T], only: Collection[str], *, replace: bool, of: str = "export"
) -> Mapping[str, T]:
    """Return the documents of a copy or an export named in `only`, all of them if it is empty.

    Raises ImportRefused for a name that it does not hold, and together with `replace`,
    which would delete every other document.
    """
    if not only:
        return contents
    if replace:
        raise ImportRefused(
            "`only` chooses documents, and `replace` deletes all others: give one of them.",
            hint="Leave `replace` out: the chosen documents are replaced whole, others stay.",
        )
    missing = sorted(set(only) - contents.keys())
    if missing:
        raise ImportRefused(
            f"The {of} does not hold {shortened(missing)}. Nothing was changed.",
            hint="A dry run without `only` lists what it holds.",
            names=missing,
        )
    return {name: contents[name] for name in sorted(set(only))}


def from_backups_text(backups: Mapping[str, str]) -> str:
    """Return a clause that names each document taken from a backup, with the backup's instant."""
    return ", ".join(
        f"{document} was broken, and is from its backup{_instant(backup)}"
        for document, backup in sorted(backups.items())
    )


def deleted_backups_text(backups: Iterable[str], documents: Collection[str]) -> str:
    """Return a clause about the backups that no export holds, empty if there are none.

    `backups` has the document of each backup; one that is not among `documents` is deleted.
    """
    lacking = [document for document in backups if document not in documents]
    count, names = counted(len(lacking), "backup"), shortened(sorted(set(lacking)))
    return f"{count} of deleted documents: {names}" if lacking else ""


def _instant(backup: str) -> str:
    parsed = parse_backup_name(backup)
    return f" of {parsed[1].instant:%Y-%m-%d %H:%M:%S} UTC" if parsed else ""


def is_replace(mode: str) -> bool:
    """Whether a mode is `replace` and not `merge`. Raises ImportRefused for any other."""
    if mode not in ("merge", "replace"):
        raise ImportRefused(f"{mode!r} is not a way to import.", hint="Use `merge` or `replace`.")
    return mode == "replace"


def _unwrapped(value: Json) -> tuple[Path, dict[str, Json]]:
    """Return the export's path in `value`, and the export itself."""
    if not isinstance(value, dict):
        raise _refusal((), "an export is an object with `files`")
    if "files" in value or "data" not in value:
        return (), value
    _refuse_unknown(value, WRAPPER_KEYS, ())
    if value.get("success", True) is not True:
        raise _refusal(("success",), "this is the answer of an export that failed")
    inner = value["data"]
    if not isinstance(inner, dict):
        raise _refusal(("data",), "an export is an object with `files`")
    return ("data",), inner


def _refuse_unknown(value: dict[str, Json], known: frozenset[str], path: Path) -> None:
    for key in value:
        if key not in known:
            raise _refusal((*path, key), "this is no part of an export")


def _check_names(names: Iterable[str], path: Path) -> None:
    wrong = {name: why for name in names if (why := _why_wrong(name))}
    if wrong:
        shown = " ".join(list(wrong.values())[:NAMES_SHOWN_MAX])
        more = len(wrong) - NAMES_SHOWN_MAX
        also = f" And {more} more." if more > 0 else ""
        raise ImportRefused(
            f"{path_text(path)}: {shown}{also} Nothing was changed.",
            path=path_text(path),
            names=list(wrong),
        )


def _why_wrong(name: str) -> str:
    try:
        check_document_name(name)
    except InvalidDocumentName as error:
        return error.message
    return ""


def _refusal(path: Path, why: str) -> ImportRefused:
    where = path_text(path)
    return ImportRefused(f"{where}: {why}. Nothing was changed.", path=where)
