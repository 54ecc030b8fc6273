"""Copies: what each destination has, a restore from one with its preview, and what is kept there.

A restore asks first: the preview is long work that ends with the question. Its answer names what it
did, and has a button that undoes it.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from seline.clock import instant_text, parse_instant
from seline.domain.copy import Copy
from seline.domain.readable_export import ImportReport
from seline.domain.sentences.translate import translated
from seline.domain.undo import DeleteAgain, RestoreBack
from seline.errors import InvalidRequest
from seline.manager.call_record import current_record
from seline.page import work
from seline.page.documents import rows_of
from seline.page.visit import POLL_S, Button, PageRoute, View, Visit

NAMES_SHOWN_MAX: Final = 5
CHOICES_MAX: Final = 150
"""How many documents one form lists or undoes: a form has few fields."""
_CHOSEN: Final = "document:"
_BACK: Final = "backup:"
_MADE: Final = "made:"


async def show(visit: Visit) -> web.Response:
    """Show each destination with its state, and what a purge waits for."""
    operations = visit.context.operations
    await operations.load()
    records = operations.exports.destinations.records()
    return visit.render(
        "copies.html",
        poll_s=POLL_S if records else None,
        destinations=[
            (target, record, check)
            for (target, record), check in zip(
                records, operations.destination_checks(), strict=True
            )
        ],
        takes_exports=any(target.takes_exports for target, _ in records),
        takes_mirror=any(target.takes_mirror for target, _ in records),
        purges=operations.exports.purges.known(),
    )


async def show_there(visit: Visit) -> web.Response:
    """Show the copies at one destination, newest first, as many as a page has."""
    name, operations = visit.part("destination"), visit.context.operations
    rows = rows_of(visit, await operations.listed_copies(name))
    return visit.render(
        "copies_there.html",
        name=name,
        rows=rows,
        copies=[
            (info, f"/copies/{name}/restore?{urlencode(_choice(info.taken_at, info.volume))}")
            for info in rows.items
        ],
        own=await operations.exports.known_volume_id(),
    )


async def choose(visit: Visit) -> web.Response:
    """Show the documents of a copy, to choose what a restore takes."""
    query, name = visit.request.query, visit.part("destination")
    at, volume, part = query.get("at", ""), query.get("volume", ""), query.get("find", "").strip()
    copies = visit.context.operations.copies(name)
    async with visit.context.operations.exports.destinations.using(name):
        copy = await copies.find(at=_instant(at), volume=volume)
    names = [document.name for document in copy.documents if document.sha256]
    found = [each for each in names if part.lower() in each.lower()]
    return visit.render(
        "copies_choose.html",
        name=name,
        copy=copy,
        choice=_choice(copy.taken_at, copy.volume),
        count_of_all=len(names),
        found=found[:CHOICES_MAX],
        more=len(found) - CHOICES_MAX,
        part=part,
        is_foreign=copy.volume != await visit.context.operations.exports.known_volume_id(),
    )


async def preview(visit: Visit) -> web.Response:
    """Find out what a restore would change, and ask."""
    name, t = visit.part("destination"), visit.texts
    at, volume = visit.field("at"), visit.field("volume")
    only = () if "all" in visit.form else tuple(_named(visit.form, _CHOSEN))
    if not only and "all" not in visit.form:
        raise InvalidRequest(t("copies.none_chosen"), fields=["document"])
    fields = {"at": at, "volume": volume, "only": ",".join(only)}

    async def operation(_note: work.NoteProgress) -> work.Done:
        copy, report = await visit.context.operations.restore_from(
            name, at=_instant(at), volume=volume, only=only, dry_run=True
        )
        foreign = copy.volume != await visit.context.operations.exports.known_volume_id()
        lines = [t("copies.from", name=copy.name, destination=name)]
        lines += await _counted(visit, copy, report)
        lines += [t("copies.foreign")] if foreign else []
        button = Button(
            f"/copies/{name}/restore",
            t("copies.restore"),
            {**fields, "foreign": "1"} if foreign else fields,
        )
        return work.Done("", ask=work.Ask(t("copies.ask"), tuple(lines), button))

    back = f"/copies/{name}/restore?{urlencode({'at': at, 'volume': volume})}"
    return await work.start(visit, t("copies.previewing"), operation, back=back)


async def restore(visit: Visit) -> web.Response:
    """Put the chosen documents of a copy back, all of them or none."""
    name, t = visit.part("destination"), visit.texts
    at, volume = _instant(visit.field("at")), visit.field("volume")
    only = [each for each in visit.field("only").split(",") if each]
    foreign = "foreign" in visit.form

    async def operation(_note: work.NoteProgress) -> work.Done:
        copy, report = await visit.context.operations.restore_from(
            name, at=at, volume=volume, only=only, foreign=foreign
        )
        lines = [t("copies.restored", name=copy.name, destination=name)]
        lines += await _counted(visit, copy, report)
        return work.Done("\n".join(lines), undo=_undo(visit, name))

    return await work.start(visit, t("copies.restoring"), operation, back="/copies")


async def undo_restore(visit: Visit) -> web.Response:
    """Bring the contents before a restore back, and delete what it made if it is unchanged."""
    data, t = visit.context.data, visit.texts
    replaced, made = _named(visit.form, _BACK), _named(visit.form, _MADE)

    async def operation(_note: work.NoteProgress) -> work.Done:
        for document, backup in replaced.items():
            await data.restore(document, backup)
        for document, revision in made.items():
            await data.delete(document, if_match=revision)
        counts = (("copies.undone", len(replaced)), ("copies.gone", len(made)))
        return work.Done(" ".join(t.count(key, number) for key, number in counts if number))

    return await work.start(visit, t("copies.undoing"), operation, back="/copies")


async def ask_to_accept(visit: Visit) -> web.Response:
    """Ask before this volume's copy becomes the one that a restore takes."""
    return _ask(visit, "accept")


async def accept(visit: Visit) -> web.Response:
    """Make this volume's copy the one that a restore takes from a destination."""
    return await at_destination(visit, visit.context.accept, "accept", back="/copies")


async def ask_to_use(visit: Visit) -> web.Response:
    """Ask before a destination is taken into use."""
    return _ask(visit, "use")


async def use(visit: Visit) -> web.Response:
    """Take a destination into use that was moved or replaced."""
    destinations = visit.context.operations.exports.destinations
    return await at_destination(visit, destinations.use, "use", back="/copies")


async def at_destination(
    visit: Visit, change: Callable[[str], Awaitable[object]], act: str, *, back: str
) -> web.Response:
    """Change one destination; `act` is `accept` or `use`."""
    name = visit.part("destination")
    done = visit.texts(f"copies.{act}_done", destination=name)

    async def operation(_progress: work.NoteProgress) -> work.Done:
        await change(name)
        return work.Done(done)

    title = visit.texts(f"copies.{act}", destination=name)
    return await work.start(visit, title, operation, back=back)


def _ask(visit: Visit, act: str) -> web.Response:
    name = visit.part("destination")
    visit.context.operations.exports.destinations.named(name)
    title = visit.texts(f"copies.{act}", destination=name)
    return visit.confirm(
        title=title,
        lines=(visit.texts(f"copies.{act}_what", destination=name),),
        button=Button(f"/copies/{name}/{act}", title),
        back="/copies",
    )


def _choice(taken_at: datetime, volume: str) -> dict[str, str]:
    """Return the fields that name a copy."""
    return {"at": instant_text(taken_at), "volume": volume}


def _instant(text: str) -> datetime | None:
    try:
        return parse_instant(text) if text else None
    except ValueError as error:
        raise InvalidRequest(
            f"at is an instant in ISO 8601, not {text!r:.40}. Nothing was changed.", fields=["at"]
        ) from error


def _named(form: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Return the fields whose names begin with a prefix, by the document after it."""
    return {
        name.removeprefix(prefix): value for name, value in form.items() if name.startswith(prefix)
    }


async def _counted(visit: Visit, copy: Copy, report: ImportReport) -> list[str]:
    """Return what a restore changes, or would, one line for each kind; and what to know of it."""
    t, purges = visit.texts, visit.context.operations.exports.purges
    undone = await purges.undone(copy, report.created)
    lines = [*_counts(visit, report)]
    lines += [f"{t('copies.purged_since')}{_shown(visit, undone)}"] if undone else []
    reasons = (translated(t.language, reason) for reason in copy.passed_over)
    return [*lines, *(t("copies.not_taken", reason=reason) for reason in reasons)]


def _counts(visit: Visit, report: ImportReport) -> Iterator[str]:
    kinds: Sequence[tuple[str, Sequence[str]]] = (
        ("copies.created", report.created),
        ("copies.changed", report.changed),
        ("copies.removed", report.deleted),
    )
    for key, names in kinds:
        yield f"{visit.texts.count(key, len(names))}{_shown(visit, names)}"
    yield visit.texts.count("copies.unchanged", len(report.unchanged))
    if report.backups:
        yield visit.texts.count("copies.backups", report.backups)


def _shown(visit: Visit, names: Sequence[str]) -> str:
    """Return the first names after a colon, empty without any."""
    if not names:
        return ""
    more = len(names) - NAMES_SHOWN_MAX
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    return visit.texts("copies.names", names=shown + (" …" if more > 0 else ""))


def _undo(visit: Visit, destination: str) -> Button | None:
    """Return the button that undoes a restore; None if it is too much for one form."""
    record = current_record()
    fields: dict[str, str] = {}
    for way in () if record is None else record.undo():
        if isinstance(way, RestoreBack):
            fields[_BACK + way.document] = way.backup
        elif isinstance(way, DeleteAgain):
            fields[_MADE + way.document] = way.revision
    if not fields or len(fields) > CHOICES_MAX:
        return None
    return Button(f"/copies/{destination}/undo", visit.texts("kit.undo"), fields)


_AT: Final = "/copies/{destination}"
COPIES: Final = View(
    "copies",
    "/copies",
    (
        PageRoute("GET", "/copies", show),
        PageRoute("GET", _AT, show_there),
        PageRoute("GET", _AT + "/restore", choose, "admin"),
        PageRoute("POST", _AT + "/preview", preview, "admin"),
        PageRoute("POST", _AT + "/restore", restore, "admin"),
        PageRoute("POST", _AT + "/undo", undo_restore, "admin"),
        PageRoute("GET", _AT + "/accept", ask_to_accept, "admin"),
        PageRoute("POST", _AT + "/accept", accept, "admin"),
        PageRoute("GET", _AT + "/use", ask_to_use, "admin"),
        PageRoute("POST", _AT + "/use", use, "admin"),
    ),
)
