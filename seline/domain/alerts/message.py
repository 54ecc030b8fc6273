"""An alert as a chat message or a notification: a title and a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from seline.domain.alerts.lifecycle import KIND_OF, Alert, Course, Severity
from seline.domain.alerts.words import texts
from seline.domain.texts import Language

_MARKS: Final[Mapping[str, str]] = {
    Severity.INFO: "ℹ️",
    Severity.WARNING: "⚠️",
    Severity.CRITICAL: "🚨",
    "resolved": "✅",
}


def title(alert: Alert, service: str, language: Language) -> str:
    """Return `🚨 my-bot: critical`."""
    labels = texts(language).labels
    level = level_of(alert)
    return labels["title"].format(mark=_MARKS[level], service=service, label=labels[level])


def body(alert: Alert, language: Language) -> str:
    """Return the summary, how often or since when, and the next step, one per line."""
    labels = texts(language).labels
    lines = [alert.summary]
    if alert.count > 1 and alert.state == "open":
        repeated = labels["event" if KIND_OF[alert.type].course is Course.EVENT else "condition"]
        first_at = f"{alert.first_at:%Y-%m-%d %H:%M}"
        lines.append(repeated.format(count=alert.count, first_at=first_at))
    if alert.fix:
        lines.append(labels["fix"].format(fix=alert.fix))
    return "\n".join(lines)


def level_of(alert: Alert) -> str:
    """Return `resolved`, or the severity of an open alert."""
    return "resolved" if alert.state == "resolved" else alert.severity


def cut(text: str, characters_max: int) -> str:
    """Shorten a text to what a service accepts."""
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"
