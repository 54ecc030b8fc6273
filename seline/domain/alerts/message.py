"""An alert as a person reads it in a chat or on a phone: a title and a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from seline.domain.alerts.lifecycle import KIND_OF, Alert, Course, Severity
from seline.domain.alerts.words import Language

_MARKS: Final[Mapping[str, str]] = {
    Severity.INFO: "ℹ️",
    Severity.WARNING: "⚠️",
    Severity.CRITICAL: "🚨",
    "resolved": "✅",
}
_LABELS: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {
        Severity.INFO: "for information",
        Severity.WARNING: "warning",
        Severity.CRITICAL: "critical",
        "resolved": "resolved",
        "next": "Next:",
        Course.EVENT: "{count} times since {first_at} UTC.",
        Course.STANDS: "It has been so since {first_at} UTC.",
    },
    "fr": {
        Severity.INFO: "pour information",
        Severity.WARNING: "attention",
        Severity.CRITICAL: "critique",
        "resolved": "résolu",
        "next": "À faire :",
        Course.EVENT: "{count} fois depuis le {first_at} UTC.",
        Course.STANDS: "Cela dure depuis le {first_at} UTC.",
    },
}


def title(alert: Alert, service: str, language: Language) -> str:
    """Return `🚨 my-bot: critical`."""
    word = "resolved" if alert.state == "resolved" else alert.severity
    colon = " :" if language == "fr" else ":"
    return f"{_MARKS[word]} {service}{colon} {_LABELS[language][word]}"


def body(alert: Alert, language: Language) -> str:
    """Return what happened, how often or since when, and the next step."""
    labels = _LABELS[language]
    lines = [alert.summary]
    if alert.count > 1 and alert.state == "open":
        event = KIND_OF[alert.type].course is Course.EVENT
        again = labels[Course.EVENT if event else Course.STANDS]
        first_at = f"{alert.first_at:%Y-%m-%d %H:%M}"
        lines.append(again.format(count=alert.count, first_at=first_at))
    if alert.fix:
        lines.append(f"{labels['next']} {alert.fix}")
    return "\n".join(lines)


def cut(text: str, characters_max: int) -> str:
    """Return a text that a service takes."""
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"
