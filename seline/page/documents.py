"""Documents: find one, see its contents and backups, restore, delete and pin, each with an undo."""

import re
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final, Generic, NamedTuple, TypeVar

from aiohttp import web

from seline.domain.document import ABSENT, Content, IfMatch
from seline.domain.pins import BY_HAND
from seline.domain.sentences.translate import translated
from seline.domain.verdict import COUNTED, Verdict
from seline.errors import (
    DocumentNotFound,
    DocumentUnreadable,
    DocumentUnrecoverable,
    RevisionMismatch,
    SelineError,
)
from seline.http.files import send_download
from seline.http.problems import status_of
from seline.manager.changes import RestorePlan
from seline.operations.difference import difference_between
from seline.page.json_view import keys_of, shown, tree
from seline.page.texts import Texts
from seline.page.undo import NO_DOCUMENT, address, undo_button
from seline.page.visit import Button, PageRoute, View, Visit

ROWS_MAX: Final = 50
SOUGHT_MAX: Final = 100
RESTORABLE: Final = COUNTED | {str(Verdict.EDITED)}
_T = TypeVar("_T")


class Rows(NamedTuple, Generic[_T]):
    """One page of a list. `number` counts from 1."""

    items: Sequence[_T]
    number: int
    pages: int
    total: int


class ServedDocument(NamedTuple):
    """The content of a document; None if it does not exist or, with `failure`, is broken."""

    content: Content | None = None
    updated_at: datetime | None = None
    failure: SelineError | None = None

    @property
    def revision(self) -> str:
        """What a form sends back, so that it changes nothing newer."""
        if self.content is not None:
            return self.content.revision
        return NO_DOCUMENT if self.failure is None else ""


async def show_list(visit: Visit) -> web.Response:
    """List the documents, as many as a page has, or those whose name has what is sought."""
    sought = visit.request.query.get("q", "")[:SOUGHT_MAX].strip()
    infos = await visit.context.data.documents()
    found = [info for info in infos if sought.lower() in info.name.lower()]
    deleted = await visit.context.operations.deleted_documents()
    return visit.render(
        "documents.html",
        rows=rows_of(visit, found),
        sought=sought,
        total=len(infos),
        deleted_count=len(deleted),
    )


async def show_deleted(visit: Visit) -> web.Response:
    """List the deleted documents that have backups."""
    deleted = await visit.context.operations.deleted_documents()
    return visit.render("deleted.html", rows=rows_of(visit, deleted))


async def show(visit: Visit) -> web.Response:
    """Show one document: its contents as a tree, and its backups, the newest first."""
    name, query = visit.part("name"), visit.request.query
    current = await current_of(visit, name)
    backups = await visit.context.data.backups(name)
    path = query.get("at", "")
    node = None
    if current.content is not None:
        node = await tree(visit, current.content, path, _number(query.get("from", "")))
    return visit.render(
        "document.html",
        name=name,
        current=current,
        node=node,
        keys=keys_of(path),
        rows=rows_of(visit, backups),
        reasons={backup.name: reasons_in_words(visit.texts, backup.because) for backup in backups},
        restorable=RESTORABLE,
    )


async def show_raw(visit: Visit) -> web.StreamResponse:
    """Send the bytes of a document as a file, sound or not."""
    name = visit.part("name")
    return await send_download(visit.request, visit.context.operations.raw(name), name)


async def show_backup(visit: Visit) -> web.Response:
    """Show what a restore of a backup, or of one value of it, would change."""
    path = visit.request.query.get("path", "")
    return await _preview(visit, visit.part("name"), visit.part("backup"), path)


async def restore(visit: Visit) -> web.Response:
    """Restore a backup, or one value of it. If the document is newer than the form, ask again."""
    name, path, backup = visit.part("name"), visit.field("path"), visit.field("backup")
    try:
        restored, plan = await visit.context.data.planned_restore(
            name, backup or None, path, if_match(visit.field("revision")), dry_run=False
        )
    except RevisionMismatch as error:
        return await _preview(visit, name, backup or None, path, error)
    t = visit.texts
    if _is_same(plan):
        return visit.go(address(name), t("documents.restored_same", name=name))
    what = t("documents.restored_path", path=" › ".join(keys_of(path))) if path else name
    text = t("documents.restored", what=what, at=f"{restored.taken_at:%Y-%m-%d %H:%M:%S}")
    kept = t(f"documents.kept_{restored.kept_in}")
    return visit.go(address(name), f"{text} {kept}", undo=undo_button(visit))


async def ask_delete(visit: Visit) -> web.Response:
    """Ask before a document is deleted."""
    return await _confirm_delete(visit, visit.part("name"))


async def delete(visit: Visit) -> web.Response:
    """Delete a document. If it is newer than the form, ask again."""
    name, t = visit.part("name"), visit.texts
    try:
        deleted = await visit.context.data.delete(name, if_match=if_match(visit.field("revision")))
    except RevisionMismatch as error:
        return await _confirm_delete(visit, name, error)
    kept = t(f"documents.kept_{deleted.kept_in}")
    text = f"{t('documents.deleted_done', name=name)} {kept}"
    return visit.go("/documents", text, undo=undo_button(visit))


async def pin(visit: Visit) -> web.Response:
    """Keep a backup until it is unpinned."""
    name, backup = visit.part("name"), visit.field("backup")
    await visit.context.data.pin(name, backup, visit.form.get("because", BY_HAND))
    done = visit.texts("documents.pinned_done", backup=backup)
    return visit.go(address(name), done, undo=undo_button(visit))


async def unpin(visit: Visit) -> web.Response:
    """Return a backup to rotation."""
    name, backup = visit.part("name"), visit.field("backup")
    await visit.context.data.unpin(name, backup)
    done = visit.texts("documents.unpinned_done", backup=backup)
    return visit.go(address(name), done, undo=undo_button(visit))


async def current_of(visit: Visit, name: str) -> ServedDocument:
    """Return the content of a document that is served now; a broken one is recovered first."""
    try:
        return ServedDocument(*await visit.context.data.read_content(name))
    except DocumentNotFound:
        return ServedDocument()
    except (DocumentUnreadable, DocumentUnrecoverable) as error:
        return ServedDocument(failure=error)


def if_match(revision: str) -> IfMatch:
    """Return what a form's field `revision` asks of a change."""
    return ABSENT if revision == NO_DOCUMENT else revision or None


def rows_of(visit: Visit, items: Sequence[_T]) -> Rows[_T]:
    """Return the part of a list that the address asks for with `page`."""
    pages = max(1, -(-len(items) // ROWS_MAX))
    number = min(max(1, _number(visit.request.query.get("page", ""))), pages)
    start = (number - 1) * ROWS_MAX
    return Rows(items[start : start + ROWS_MAX], number, pages, len(items))


async def _preview(
    visit: Visit, name: str, backup: str | None, path: str, newer: RevisionMismatch | None = None
) -> web.Response:
    """Return the page with what a restore changes; `newer`: the form before was too old."""
    restored, plan = await visit.context.data.planned_restore(
        name, backup, path, None, dry_run=True
    )
    by_kept = {"backups": "" if plan.before is None else plan.before.revision}
    return visit.render(
        "restore.html",
        status=HTTPStatus.OK if newer is None else status_of(newer),
        name=name,
        restored=restored,
        path=path,
        keys=keys_of(path),
        found=shown(await difference_between(plan.before, plan.after)),
        revision={**by_kept, "nowhere": NO_DOCUMENT}.get(restored.kept_in, ""),
        has_document=plan.before is not None,
        is_same=_is_same(plan),
        is_newer=newer is not None,
    )


def _is_same(plan: RestorePlan) -> bool:
    """Whether a restore changes nothing."""
    return plan.before is not None and plan.before.revision == plan.after.revision


async def _confirm_delete(
    visit: Visit, name: str, newer: RevisionMismatch | None = None
) -> web.Response:
    t, current = visit.texts, await current_of(visit, name)
    deleted = await visit.context.data.delete(name, dry_run=True)
    lines = [t("documents.newer_delete")] if newer is not None else []
    lines.append(t(f"documents.delete_{deleted.kept_in}", name=name))
    fields = {"revision": current.revision}
    return visit.confirm(
        title=t("documents.delete_title", name=name),
        lines=tuple(lines),
        button=Button(f"{address(name)}/delete", t("documents.delete"), fields),
        back=address(name),
        status=HTTPStatus.OK if newer is None else status_of(newer),
    )


_REASONS: Final = tuple(
    (re.compile(pattern), f"documents.because_{key}")
    for pattern, key in (
        (r"newest (?P<count>\d+)", "newest"),
        (r"newest sound", "newest_sound"),
        (r"(?P<key>hourly|daily|weekly|monthly)", ""),
        (r"pinned(?:: by hand)?", "pinned"),
        (r"pinned: before a blank save of (?P<day>\S+) \((?P<why>.*)\)", "blank"),
        (r"pinned: another program removed the file, noticed on (?P<day>\S+)", "removed"),
        (r"pinned: the pins were lost on (?P<day>\S+), .*", "pins_lost"),
        (r"not written by Seline: never rotated", "not_ours"),
        (r"there is no sound one", "none_sound"),
        (r"same content as its document", "same_as_document"),
        (r"same content as (?P<backup>\S+)", "same_as_backup"),
        (r"older than the policy keeps", "old"),
        (r"over (?P<count>\d+) bytes", "over"),
        (r"its document was deleted long ago", "deleted_long_ago"),
    )
)
"""The reasons of retention that have a translation; any other is shown as it is."""
_GOES: Final = "goes at the next rotation: "


def reasons_in_words(t: Texts, because: str) -> list[tuple[str, bool]]:
    """Return why a backup is kept or goes, each part with whether it is in the page's language."""
    whole = _translated(t, because)
    if whole:
        return [(whole, True)]
    return [_part(t, part) for part in because.split("; ") if part]


def _part(t: Texts, part: str) -> tuple[str, bool]:
    rest = part.removeprefix(_GOES)
    whole = _translated(t, rest)
    words = [whole] if whole else [_translated(t, word) for word in rest.split(", ")]
    if not all(words):
        return part, False
    goes = "" if rest == part else t("documents.because_goes") + " "
    return goes + ", ".join(words), True


def _translated(t: Texts, reason: str) -> str:
    """Return a reason in the page's language; empty if it has no translation."""
    for pattern, key in _REASONS:
        if found := pattern.fullmatch(reason):
            values = found.groupdict()
            if "why" in values:
                values["why"] = translated(t.language, values["why"])
            return t(key + values.pop("key", ""), **values)
    return ""


def _number(text: str) -> int:
    """Return a number of an address; 0 for what is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


_ONE: Final = "/documents/{name}"

DOCUMENTS: Final = View(
    "documents",
    "/documents",
    (
        PageRoute("GET", "/documents", show_list),
        PageRoute("GET", "/documents/deleted", show_deleted),
        PageRoute("GET", _ONE, show),
        PageRoute("GET", _ONE + "/raw", show_raw),
        PageRoute("GET", _ONE + "/backups/{backup}", show_backup),
        PageRoute("POST", _ONE + "/restore", restore, "admin"),
        PageRoute("GET", _ONE + "/delete", ask_delete, "admin"),
        PageRoute("POST", _ONE + "/delete", delete, "admin"),
        PageRoute("POST", _ONE + "/pin", pin, "admin"),
        PageRoute("POST", _ONE + "/unpin", unpin, "admin"),
    ),
)
