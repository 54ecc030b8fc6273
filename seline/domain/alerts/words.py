"""The sentences of alerts, from `en.toml` and `fr.toml`: what happened, the next step, the end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

import msgspec

from seline.domain.document import Json
from seline.domain.texts import Language, compose, load_texts

TEXT_CHARACTERS_MAX: Final = 500
_SENTENCE_ENDS: Final = (".", "!", "?", "…")


class AlertWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The words of one type of alert. `resolved` is empty for types that never end by a signal."""

    summary: tuple[str, ...]
    fix: str
    resolved: str = ""


class AlertTexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One language's file. `verdicts` describe how a file is broken, by its verdict."""

    labels: Mapping[str, str]
    verdicts: Mapping[str, str]
    alerts: Mapping[str, AlertWords]


@cache
def texts(language: Language) -> AlertTexts:
    """Return the texts of a language."""
    return load_texts("seline.domain.alerts", language, AlertTexts)


def wording(kind: str, details: Mapping[str, Json], language: Language) -> tuple[str, str]:
    """Return an alert's summary and its next step."""
    words = texts(language).alerts[kind]
    values = _values(details, texts(language))
    return compose(words.summary, values), compose((words.fix,), values)


def resolution(kind: str, details: Mapping[str, Json], language: Language) -> str:
    """Return the summary of an alert that is over."""
    words = texts(language).alerts[kind]
    return compose((words.resolved,), _values(details, texts(language)))


def _values(details: Mapping[str, Json], known: AlertTexts) -> dict[str, str]:
    """Return the details as text, without the empty ones and those that are no text or number."""
    values = {
        name: _as_text(value, known.labels["decimal_point"])
        for name, value in details.items()
        if isinstance(value, (str, int, float)) and value not in ("", False)
    }
    if (what := values.get("what", "")) and not what.endswith(_SENTENCE_ENDS):
        values["what"] = f"{what}."
    how = known.verdicts.get(str(details.get("verdict")))
    return values | ({"how": how} if how else {})


def _as_text(value: str | float, decimal_point: str) -> str:
    if isinstance(value, str):
        return value[:TEXT_CHARACTERS_MAX]
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace(".", decimal_point)
