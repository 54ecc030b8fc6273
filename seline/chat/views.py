"""The views of the chat: each calls operations and returns a card. Nothing is changed here."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast

import msgspec

from seline.chat.messages import (
    LIMITS,
    Card,
    CardButton,
    ChatAction,
    ChatRequest,
    fitted,
    label,
    one_line,
    utf16_units,
)
from seline.domain.alerts.lifecycle import Alert
from seline.domain.alerts.message import body
from seline.domain.difference import ChangedValue, Difference
from seline.domain.document import DocumentInfo, Json
from seline.domain.report import Status
from seline.domain.sentences.translate import translated
from seline.domain.texts import Wording
from seline.domain.verdict import USABLE, Verdict
from seline.library import Seline
from seline.operations.difference import CURRENT

PER_PAGE: Final = 8
CHANGES_SHOWN: Final = 15
REST_CHARACTERS: Final = 100
"""The room for line breaks, and for the line that counts what is not shown."""
CHECKS_SHOWN: Final = 5
ALERTS_SHOWN: Final = 5
VALUE_CHARACTERS_MAX: Final = 80
DETAIL_CHARACTERS_MAX: Final = 160
CONTENT_BYTES_MAX: Final = 16 << 10
_MARKS: Final = {Status.CRITICAL: "🚨", Status.WARNING: "⚠️"}
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One request of an owner, with what answers it."""

    seline: Seline
    texts: Wording
    request: ChatRequest
    action: ChatAction
    now: datetime

    def instant(self, at: datetime) -> str:
        """Return an instant in UTC, and how long ago it was."""
        ago = self.texts.span((self.now - at).total_seconds())
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({ago})"

    def said(self, sentence: str) -> str:
        """Return a sentence of an error or check in the language of the chat."""
        return translated(self.texts.language, sentence)

    def button(self, key: str, view: str, **values: Any) -> CardButton:
        """Return a button that opens a view."""
        return CardButton(self.texts(key), ChatAction(view, **values))

    @property
    def home(self) -> CardButton:
        """The button that leads back to the status."""
        return self.button("chat.home", "home")

    async def find(self, name: str) -> DocumentInfo | None:
        """Return what is known of a document; None if it does not exist."""
        return next(
            (info for info in await self.seline.data.documents() if info.name == name), None
        )


async def home(turn: Turn) -> Card:
    """Show whether everything is well, how full the volume is, and how old the copies are."""
    health = cast("dict[str, Any]", await turn.seline.health())
    state = turn.texts(f"home.is_{health['status']}")
    lines = [f"{turn.seline.settings.service}: {state}"]
    lines += _check_lines(turn, health["checks"])
    if health["usage_percent"] is not None:
        lines += ["", _usage_line(turn, health)]
    lines += ["", *_copy_lines(turn)]
    buttons = [
        turn.button("chat.restore", "documents"),
        turn.button("chat.export", "export"),
        turn.button("chat.again", "home"),
    ]
    alerts = open_alerts(turn)
    if alerts:
        text = turn.texts.count("chat.alerts", len(alerts))
        buttons.insert(1, CardButton(text, ChatAction("alerts")))
    return Card(text="\n".join(lines), buttons=buttons)


def _check_lines(turn: Turn, checks: Sequence[dict[str, Any]]) -> Iterator[str]:
    bad = [check for check in checks if check["status"] in _MARKS]
    bad.sort(key=lambda check: list(_MARKS).index(check["status"]))
    for check in bad[:CHECKS_SHOWN]:
        name, detail = turn.texts(f"home.check_{check['name']}"), turn.said(check["detail"])
        yield f"{_MARKS[check['status']]} {name}: {one_line(detail, DETAIL_CHARACTERS_MAX)}"
        if check["fix"]:
            fix = one_line(turn.said(check["fix"]), DETAIL_CHARACTERS_MAX)
            yield turn.texts("chat.next_step", step=fix)
    if len(bad) > CHECKS_SHOWN:
        yield turn.texts.count("chat.more", len(bad) - CHECKS_SHOWN)


def _usage_line(turn: Turn, health: dict[str, Any]) -> str:
    t, days = turn.texts, health["days_until_full"]
    used = t(
        "chat.used",
        percent=t.number(health["usage_percent"], 1),
        size=t.size(health["total_size_mb"] * (1 << 20)),
        backups=t.count("chat.backups", health["backup_count"]),
    )
    return used if days is None else f"{used} {t('chat.full_in', days=t.number(days, 1))}"


def _copy_lines(turn: Turn) -> Iterator[str]:
    records = turn.seline.exports.destinations.records()
    for target, record in records:
        copied_at, never = record.mirrored_at or record.whole_at, turn.texts("chat.never")
        yield turn.texts(
            "chat.copy",
            destination=target.destination.name,
            copied=turn.instant(copied_at) if copied_at else never,
            proven=turn.instant(record.proven_at) if record.proven_at else never,
        )
    if not records:
        yield turn.texts("chat.no_copies")


async def documents(turn: Turn) -> Card:
    """List the documents whose names have the word; show the only one at once."""
    t, word = turn.texts, turn.action.word
    there = await turn.seline.data.documents()
    infos = [info for info in there if word.lower() in info.name.lower()]
    if word and len(infos) == 1:
        return await document(doing(turn, document=infos[0].name, page=0))
    head = t.count("chat.found" if word else "chat.documents", len(infos), word=one_line(word, 60))
    card = _listed(turn, head, infos, turn.button("chat.deleted", "deleted"))
    return replace(card, text=f"{card.text}\n\n{t('chat.search')}")


async def deleted(turn: Turn) -> Card:
    """List the documents that were deleted and have backups."""
    infos = await turn.seline.deleted_documents()
    head = turn.texts.count("chat.deleted_documents", len(infos))
    return _listed(turn, head, infos, turn.button("chat.list", "documents"))


def _listed(turn: Turn, head: str, infos: Sequence[DocumentInfo], other: CardButton) -> Card:
    t = turn.texts
    page, pages, shown = paged(infos, turn.action.page)
    lines = [f"{head} {t('chat.page', page=page + 1, pages=pages)}" if pages > 1 else head]
    choices: list[CardButton] = []
    for number, info in enumerate(shown, start=1):
        backups = t.count("chat.backups", info.backup_count)
        what = t.size(info.size_bytes)
        if info.verdict == Verdict.MISSING:
            what = t("chat.deleted_at", at=turn.instant(info.updated_at))
        lines.append(f"{number}. {info.name} · {what} · {backups}")
        action = ChatAction("document", document=info.name)
        choices.append(CardButton(label(f"{number}. {info.name}"), action))
    buttons = [*page_buttons(turn, page, pages), other, turn.home]
    return Card(text="\n".join(lines), choices=choices, buttons=buttons)


async def document(turn: Turn) -> Card:
    """Show a document and its backups, each with the reason for which it is kept."""
    t, name = turn.texts, turn.action.document
    backups = await turn.seline.data.backups(name)
    page, pages, shown = paged(backups, turn.action.page)
    info = await turn.find(name)
    lines = [name, _current_line(turn, info), "", t.count("chat.kept_backups", len(backups))]
    choices: list[CardButton] = []
    for number, backup in enumerate(shown, start=1 + page * PER_PAGE):
        reason = one_line(turn.said(backup.flaw or backup.because), VALUE_CHARACTERS_MAX)
        at = turn.instant(backup.taken_at)
        lines.append(f"{number}. {at} · {t.size(backup.size_bytes)} · {reason}")
        if backup.verdict in USABLE:
            text = label(f"{number}. {backup.taken_at:%Y-%m-%d %H:%M:%S}")
            action = ChatAction("preview", document=name, backup=backup.name)
            choices.append(CardButton(text, action))
    buttons = [*page_buttons(turn, page, pages), turn.button("chat.list", "documents"), turn.home]
    if info is not None:
        buttons.insert(-2, turn.button("chat.show", "contents", document=name))
    return Card(text="\n".join(lines), choices=choices, buttons=buttons)


def _current_line(turn: Turn, info: DocumentInfo | None) -> str:
    if info is None:
        return turn.texts("chat.is_deleted")
    key = "chat.current" if info.revision is not None else "chat.is_broken"
    size = turn.texts.size(info.size_bytes)
    return turn.texts(key, size=size, at=turn.instant(info.updated_at))


async def contents(turn: Turn) -> Card:
    """Show the beginning of what a document holds now."""
    t, name = turn.texts, turn.action.document
    content, updated_at = await turn.seline.data.read_content(name)
    text = content.data[:CONTENT_BYTES_MAX].decode(errors="replace")
    if content.size_bytes <= CONTENT_BYTES_MAX:
        text = msgspec.json.format(text, indent=2)
    at = turn.instant(updated_at)
    head = f"{name}\n{t('chat.current', size=t.size(content.size_bytes), at=at)}\n\n"
    room = LIMITS[turn.request.service].text_max - len(head) - REST_CHARACTERS
    if utf16_units(text) > room:
        text = f"{fitted(text, room)}\n\n{t('chat.beginning')}"
    buttons = [turn.button("chat.other_backup", "document", document=name), turn.home]
    return Card(text=f"{head}{text}", buttons=buttons)


async def preview(turn: Turn, note: str = "") -> Card:
    """Show what a restore would change, and the button that restores."""
    t, (name, backup) = turn.texts, turn.action[1:3]
    restored = await turn.seline.data.restore(name, backup, dry_run=True)
    info = await turn.find(name)
    revision = (info.revision if info is not None else None) or ""
    lines = [note, t("chat.preview", document=name, at=turn.instant(restored.taken_at)), ""]
    difference = (await turn.seline.diff(name, CURRENT, backup)).difference
    room = LIMITS[turn.request.service].text_max - sum(map(len, lines)) - REST_CHARACTERS
    lines += change_lines(t, difference, room) or [t("chat.no_change")]
    buttons = [
        turn.button(
            "chat.restore_this", "restore", document=name, backup=backup, revision=revision
        ),
        turn.button("chat.other_backup", "document", document=name),
        turn.button("chat.cancel", "home"),
    ]
    return Card(text="\n".join(lines).strip(), buttons=buttons)


def change_lines(t: Wording, difference: Difference, room: int) -> list[str]:
    """Return a line in words for each change, the first ones of many.

    `room` is in UTF-16 units.
    """
    lines: list[str] = []
    for change in difference.changes[:CHANGES_SHOWN]:
        line = _change_line(t, change)
        room -= utf16_units(line) + 1
        if room < 0:
            break
        lines.append(line)
    count = difference.added + difference.removed + difference.changed
    if count > len(lines):
        lines.append(t.count("chat.more_changes", count - len(lines)))
    return lines


def _change_line(t: Wording, change: ChangedValue) -> str:
    path = " › ".join(
        token.replace("~1", "/").replace("~0", "~") for token in change.path.split("/")[1:]
    )
    return t(
        f"chat.{change.kind}",
        path=one_line(path, VALUE_CHARACTERS_MAX) or t("chat.whole"),
        before=_value(change.before, is_text="before" in change.shortened),
        after=_value(change.after, is_text="after" in change.shortened),
    )


def _value(value: Json, *, is_text: bool) -> str:
    text = str(value) if is_text else json.dumps(value, ensure_ascii=False)
    return one_line(text, VALUE_CHARACTERS_MAX)


async def export(turn: Turn) -> Card:
    """Ask before everything is sent into the chat."""
    is_encrypted = bool(turn.seline.exports.sealer.suffix)
    return Card(
        text=turn.texts("chat.export_encrypted" if is_encrypted else "chat.export_plain"),
        buttons=[turn.button("chat.export_now", "export_now"), turn.button("chat.cancel", "home")],
    )


async def alerts(turn: Turn) -> Card:
    """Show the open alerts, the latest first, with a button for each document."""
    t, found = turn.texts, open_alerts(turn)
    lines, choices = [t.count("chat.alerts", len(found))], list[CardButton]()
    for number, alert in enumerate(found[:ALERTS_SHOWN], start=1):
        text = one_line(body(alert, t.language), DETAIL_CHARACTERS_MAX)
        lines += ["", f"{number}. {text}"]
        if alert.document:
            action = ChatAction("document", document=alert.document)
            choices.append(CardButton(label(f"{number}. {alert.document}"), action))
    if len(found) > ALERTS_SHOWN:
        lines += ["", t.count("chat.more", len(found) - ALERTS_SHOWN)]
    return Card(text="\n".join(lines), choices=choices, buttons=[turn.home])


def buttons_of_alert(t: Wording, alert: Alert) -> Iterator[CardButton]:
    """Yield the buttons under an alert that is sent: they open views, and change nothing."""
    if alert.document:
        yield CardButton(t("chat.show"), ChatAction("contents", document=alert.document))
        action = ChatAction("document", document=alert.document)
        yield CardButton(t("chat.other_backup"), action)
    else:
        yield CardButton(t("chat.home"), ChatAction("home"))


def open_alerts(turn: Turn) -> list[Alert]:
    """Return the open alerts; none where no process sends any."""
    return [alert for alert in turn.seline.listed_alerts() if alert.state == "open"]


def paged(items: Sequence[T], page: int) -> tuple[int, int, Sequence[T]]:
    """Return the number of a page that exists, from 0, how many there are, and its items."""
    pages = max(1, -(-len(items) // PER_PAGE))
    page = min(page, pages - 1)
    return page, pages, items[page * PER_PAGE : (page + 1) * PER_PAGE]


def page_buttons(turn: Turn, page: int, pages: int) -> Iterator[CardButton]:
    """Yield the buttons for the page before and the one after."""
    for text, number in (("◀", page - 1), ("▶", page + 1)):
        if 0 <= number < pages:
            yield CardButton(text, turn.action._replace(page=number))


def doing(turn: Turn, **values: Any) -> Turn:
    """Return a turn that does something else."""
    return replace(turn, action=turn.action._replace(**values))
