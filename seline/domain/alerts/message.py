"""The texts of an alert, in the languages of `en.toml` and `fr.toml`.

`worded` adds the summary and the next step; `title` and `body` make a message for a chat or phone.
"""

from collections.abc import Mapping
from functools import cache
from typing import Final

import msgspec
from msgspec.structs import replace

from seline.domain.alerts.lifecycle import KIND_OF, Alert, Severity
from seline.domain.document import Json
from seline.domain.texts import Language, compose, load_texts

DETAIL_CHARACTERS_MAX: Final = 500
LIST_CHARACTERS_MAX: Final = 1200
_SENTENCE_ENDS: Final = (".", "!", "?", "…")
_MARKS: Final[Mapping[str, str]] = {
    Severity.INFO: "ℹ️",
    Severity.WARNING: "⚠️",
    Severity.CRITICAL: "🚨",
    "resolved": "✅",
}


class AlertWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sentences of one alert type. `resolved` is empty for an event.

    `fix_edit` is the next step if the details name the `item` in quarantine that holds an edit.
    """

    summary: tuple[str, ...]
    fix: str
    fix_edit: str = ""
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
    """Return an alert with its summary and next step in a language."""
    words = texts(language).alerts[alert.type]
    values = _values(alert.details, texts(language))
    if alert.state == "resolved" and KIND_OF[alert.type].course != "event":
        return replace(alert, summary=compose((words.resolved,), values), fix="")
    fix = words.fix_edit if words.fix_edit and "item" in values else words.fix
    return replace(alert, summary=compose(words.summary, values), fix=compose((fix,), values))


def title(alert: Alert, service: str, language: Language) -> str:
    """Return `🚨 my-bot: critical`."""
    labels, level = texts(language).labels, level_of(alert)
    return labels["title"].format(mark=_MARKS[level], service=service, label=labels[level])


def body(alert: Alert, language: Language) -> str:
    """Return the summary, how often or since when, and the next step, one per line."""
    labels = texts(language).labels
    lines = [alert.summary]
    if alert.count > 1 and alert.state == "open":
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


def _values(details: Mapping[str, Json], known: AlertTexts) -> dict[str, str]:
    """Return the details as text, without the empty ones; a list of texts is joined."""
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
    if (what := values.get("what", "")) and not what.endswith(_SENTENCE_ENDS):
        values["what"] = f"{what}."
    how = known.verdicts.get(str(details.get("verdict")))
    return values | ({"how": how} if how else {})


def _listed(names: list[str]) -> str:
    """Join names; those that a message has no room for are counted: `a.json, b.json, … (+38)`."""
    shown, characters = 0, 0
    while shown < len(names) and characters + len(names[shown]) + 2 <= LIST_CHARACTERS_MAX:
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
