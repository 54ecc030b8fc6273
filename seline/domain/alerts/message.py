"""The texts of an alert, in the languages of `en.toml` and `fr.toml`.

`worded` adds the summary and the next step, `digest` makes one message of several alerts; `title`
and `body` make a message for a chat or phone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, cast

import msgspec
from msgspec.structs import replace

from seline.domain.alerts.lifecycle import KIND_OF, UNSENT_BEGINNING, Alert, AlertType, Severity
from seline.domain.document import Json
from seline.domain.plural import ending
from seline.domain.sentences.translate import translated
from seline.domain.texts import Language, compose, load_texts

DETAIL_CHARACTERS_MAX: Final = 500
LIST_CHARACTERS_MAX: Final = 1200
DIGEST_LIST_MAX: Final = 300
"""The characters of one detail in a digest, shared by its lines."""
_SENTENCE_ENDS: Final = (".", "!", "?", "…")
_SENTENCES: Final = frozenset({"what", "flaw", "passed_over", "fix"})
"""The details that are sentences of errors and checks."""
_MARKS: Final[Mapping[str, str]] = {
    Severity.INFO: "ℹ️",
    Severity.WARNING: "⚠️",
    Severity.CRITICAL: "🚨",
    "resolved": "✅",
}


class AlertWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sentences of one alert type. `resolved` is empty for an event.

    `fix_edit` is the next step if the details name the `item` in quarantine that holds an edit,
    `fix_backup` if they name a `backup`.
    """

    summary: tuple[str, ...]
    fix: str
    fix_edit: str = ""
    fix_backup: str = ""
    resolved: str = ""


class AlertTexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One language's file. `verdicts` say how a file is broken, by its verdict."""

    labels: Mapping[str, str]
    verdicts: Mapping[str, str]
    alerts: Mapping[str, AlertWords]


@cache
def texts(language: Language) -> AlertTexts:
    """Return the texts of a language."""
    return load_texts("seline.domain.alerts", language, AlertTexts)


def worded(alert: Alert, language: Language) -> Alert:
    """Return an alert with its summary and next step in a language.

    A detail `fix` is the next step, instead of the usual one of the type. The end of an alert has
    its beginning as well if that was not sent.
    """
    words = texts(language).alerts[alert.type]
    values = _values(alert.details, language)
    if alert.state == "resolved" and KIND_OF[alert.type].course != "event":
        is_unsent = UNSENT_BEGINNING in alert.details
        begun = (*words.summary, texts(language).labels["over"]) if is_unsent else ()
        return replace(alert, summary=compose((*begun, words.resolved), values), fix="")
    fix = words.fix_edit if words.fix_edit and "item" in values else words.fix
    fix = words.fix_backup if words.fix_backup and "backup" in values else fix
    step = "{fix}" if "fix" in values else fix
    return replace(alert, summary=compose(words.summary, values), fix=compose((step,), values))


def digest(alerts: Sequence[Alert], language: Language) -> Alert:
    """Return one message for several alerts: a line for each type, the open and worst ones first.

    Its id follows from its content, so a repeated digest is recognized. The detail `alerts` lists
    what is in it.
    """
    groups: dict[tuple[str, int, AlertType, bool], list[Alert]] = {}
    for alert in alerts:
        is_unsent = UNSENT_BEGINNING in alert.details
        key = alert.state, -alert.severity.rank, alert.type, is_unsent
        groups.setdefault(key, []).append(alert)
    room, words = DIGEST_LIST_MAX // len(groups), texts(language).alerts[AlertType.DIGEST]
    lines = [_line(groups[key], room, language) for key in sorted(groups)]
    identity = "\n".join(f"{alert.id} {alert.state} {alert.count}" for alert in alerts)
    return Alert(
        id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        type=AlertType.DIGEST,
        severity=max((alert.severity for alert in alerts), key=lambda severity: severity.rank),
        state=min(alert.state for alert in alerts),
        document=None,
        summary="\n".join([compose(words.summary, {"number": str(len(alerts))}), *lines]),
        details={"alerts": [_entry(alert) for alert in alerts]},
        fix=words.fix,
        first_at=min(alert.first_at for alert in alerts),
        last_at=max(alert.last_at for alert in alerts),
        count=1,
    )


def title(alert: Alert, service: str, language: Language) -> str:
    """Return `🚨 my-bot: critical`."""
    labels, level = texts(language).labels, level_of(alert)
    return labels["title"].format(mark=_MARKS[level], service=service, label=labels[level])


def body(alert: Alert, language: Language) -> str:
    """Return the summary, how often or since when, and the next step, one per line."""
    labels = texts(language).labels
    lines = [alert.summary]
    if alert.count > 1 and alert.state == "open" and "documents" not in alert.details:
        label = labels["event" if KIND_OF[alert.type].course == "event" else "condition"]
        lines.append(label.format(count=alert.count, first_at=f"{alert.first_at:%Y-%m-%d %H:%M}"))
    if alert.fix:
        lines.append(labels["fix"].format(fix=alert.fix))
    return "\n".join(lines)


def level_of(alert: Alert) -> str:
    """Return `resolved`, or the severity of an open alert."""
    return "resolved" if alert.state == "resolved" else alert.severity


def cut(text: str, characters_max: int) -> str:
    """Shorten a text to what a service accepts."""
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


def _line(alerts: Sequence[Alert], room: int, language: Language) -> str:
    """Return the summary of alerts of one type, with each detail of all of them."""
    names = dict.fromkeys(name for alert in alerts for name in alert.details)
    merged = {name: _merged([alert.details.get(name) for alert in alerts], room) for name in names}
    alert = alerts[0]
    if len(alerts) > 1:
        alert = worded(replace(alert, details=merged), language)
    return f"{_MARKS[level_of(alert)]} {alert.summary}"


def _merged(values: Sequence[Json], room: int) -> Json:
    """Return one value for several: what is the same, a sum of numbers, or a list of texts."""
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return sum(cast("list[int]", values))
    if all(value == values[0] for value in values):
        return values[0]
    shown = [value for value in values if isinstance(value, str) and value]
    return _listed(list(dict.fromkeys(shown)), room) if shown else None


def _entry(alert: Alert) -> Json:
    """Return how a digest lists an alert."""
    about = alert.details.get(KIND_OF[alert.type].about)
    return {
        "id": alert.id,
        "type": alert.type.value,
        "state": alert.state,
        "severity": alert.severity.value,
        "about": about if isinstance(about, str) else "",
    }


def _values(details: Mapping[str, Json], language: Language) -> dict[str, str]:
    """Return the details as text, without the empty ones; a list of texts is joined."""
    known = texts(language)
    values = {
        name: _as_text(value, known.labels["decimal_point"])
        for name, value in details.items()
        if isinstance(value, (str, int, float)) and value not in ("", False)
    }
    values |= {
        name: _listed(list(map(str, value)))
        for name, value in details.items()
        if isinstance(value, (list, tuple)) and value
    }
    values |= {name: translated(language, values[name]) for name in _SENTENCES & values.keys()}
    if (what := values.get("what", "")) and not what.endswith(_SENTENCE_ENDS):
        values["what"] = f"{what}."
    if isinstance(documents := details.get("documents"), int):
        values["s"] = ending(documents)
    how = known.verdicts.get(str(details.get("verdict")))
    return values | ({"how": how} if how else {})


def _listed(names: list[str], room: int = LIST_CHARACTERS_MAX) -> str:
    """Join names; those that a message has no room for are counted: `a.json, b.json, … (+38)`."""
    shown, characters = 0, 0
    while shown < len(names) and characters + len(names[shown]) + 2 <= room:
        characters += len(names[shown]) + 2
        shown += 1
    shown = max(shown, 1)
    rest = [f"… (+{len(names) - shown})"] if shown < len(names) else []
    return ", ".join([*names[:shown], *rest])


def _as_text(value: str | float, decimal_point: str) -> str:
    if isinstance(value, str):
        return value[:DETAIL_CHARACTERS_MAX]
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace(".", decimal_point)
