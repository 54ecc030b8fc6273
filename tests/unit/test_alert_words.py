"""What alerts say: in both languages, in whole sentences, for everything that is really told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from seline.alerts.signals import (
    CHECKSUMS,
    TYPE_OF_INCIDENT,
    alerts_from,
    alerts_from_capabilities,
    alerts_from_days,
    alerts_from_lateness,
    alerts_from_pins,
    alerts_from_report,
    alerts_from_run,
    alerts_from_trouble,
    alerts_from_usage,
)
from seline.cli.group import front
from seline.domain.alerts.lifecycle import (
    KIND_OF,
    Alert,
    AlertType,
    Course,
    Raised,
    Severity,
    Signal,
    raised,
    resolved,
    trial,
)
from seline.domain.alerts.message import body, cut, title
from seline.domain.alerts.words import TEXT_CHARACTERS_MAX, AlertWords, texts, wording
from seline.domain.document import Json
from seline.domain.pins import Pin
from seline.domain.report import Finding, VerifyReport
from seline.domain.texts import LANGUAGES, Language, fields_of
from seline.domain.usage import LEVELS, UsageLevel
from seline.errors import DocumentUnrecoverable, VolumeFailed, VolumeNotMounted
from seline.ports.store import Capability, Incident
from seline.settings import setting_names
from tests.unit.values import NOON

NAME = "user_profile.json"
BACKUP = "user_profile_20250106_093000.json"
DAY = timedelta(days=1)


def an_incident(kind: str, *, document: str = NAME, lost: str = "", **details: Json) -> Incident:
    return Incident(
        kind=kind, document=document, at=NOON, summary="So it was.", lost=lost, details=details
    )


def a_report(*findings: Finding) -> VerifyReport:
    return VerifyReport(
        started_at=NOON, ended_at=NOON, documents=1, backups=1, bytes_read=1, findings=findings
    )


def a_finding(outcome: str, *, verdict: str = "altered", backup: str | None = None) -> Finding:
    return Finding(
        document=NAME, backup=backup, verdict=verdict, outcome=outcome, detail="So it is.",
        found_at=NOON,
    )  # fmt: skip


def a_pin(*, until_days: int | None) -> Pin:
    until = None if until_days is None else NOON + until_days * DAY
    because = "before a blank save of 2025-01-06"
    return Pin(document=NAME, revision="0", because=because, pinned_at=NOON, until=until)


def everything() -> Iterator[Signal]:
    """Yield all that the watch can tell, in every shape that it has."""
    backup = f"backup {BACKUP}"
    for verdict in ("torn", "altered"):
        yield from alerts_from(
            [
                an_incident("recovered", verdict=verdict, source="memory"),
                an_incident("recovered", verdict=verdict, source=backup, lost="changes after"),
            ]
        )
    yield from alerts_from(an_incident(kind) for kind in (*TYPE_OF_INCIDENT, "of a later time"))
    yield from alerts_from([an_incident("disk_error", document="")])
    for outcome in ("unrecoverable", "unreadable", "failed"):
        yield from alerts_from_report(a_report(a_finding(outcome)))
    yield from alerts_from_report(a_report(a_finding("marked", backup=BACKUP)))
    yield from alerts_from_pins([a_pin(until_days=30), a_pin(until_days=None)], NOON)
    yield from alerts_from_capabilities([Capability(name=CHECKSUMS, present=False, detail="")])
    yield from alerts_from_trouble(VolumeNotMounted("It lies on the container's own disk."))
    yield from alerts_from_trouble(VolumeFailed())
    for level in UsageLevel:
        yield from alerts_from_usage(level, LEVELS[level])
    for days in (0.0, 2.9, 13.9):
        yield from alerts_from_days(days)
    yield from alerts_from_run("usage", succeeded=False, detail="no room")
    yield from alerts_from_run("usage", succeeded=False)
    yield from alerts_from_lateness("export", NOON)
    yield from alerts_from_lateness("export", None)
    yield Raised(type=AlertType.MANY, subject=AlertType.RECOVERY)
    yield Raised(type=AlertType.TEST)


SIGHTINGS = [signal for signal in everything() if isinstance(signal, Raised)]


def told(seen: Raised, language: Language = "en") -> Alert:
    step = raised(None, seen, now=NOON, renotify=DAY, language=language)
    return step.standing.alert


def ended(seen: Raised, language: Language = "en") -> Alert:
    opened = raised(None, seen, now=NOON, renotify=DAY, language=language).standing
    return resolved(opened, now=NOON + DAY, language=language).standing.alert


def said_of(signals: Iterable[Signal], language: Language = "en") -> str:
    [seen] = [signal for signal in signals if isinstance(signal, Raised)]
    return told(seen, language).summary


def words(kind: AlertType, language: Language) -> AlertWords:
    return texts(language).alerts[kind]


def sentences(words: AlertWords) -> list[str]:
    return [*words.summary, words.fix, words.resolved]


# the files


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_alert_type_has_its_texts(language: Language) -> None:
    assert set(texts(language).alerts) == set(AlertType)


def test_the_languages_have_the_same_keys() -> None:
    english, french = texts("en"), texts("fr")

    assert set(english.labels) == set(french.labels)
    assert set(english.verdicts) == set(french.verdicts)


@pytest.mark.parametrize("kind", AlertType)
def test_each_sentence_has_the_same_fields_in_every_language(kind: AlertType) -> None:
    english, french = (sentences(words(kind, language)) for language in ("en", "fr"))

    assert list(map(fields_of, english)) == list(map(fields_of, french))
    assert not [one for one, other in zip(english, french, strict=True) if one and one == other]


def test_each_label_has_the_same_fields_in_every_language() -> None:
    english, french = texts("en").labels, texts("fr").labels

    for name, label in english.items():
        assert fields_of(label) == fields_of(french[name]), name


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", AlertType)
def test_only_a_condition_has_a_text_for_its_end(kind: AlertType, language: Language) -> None:
    assert bool(words(kind, language).resolved) == (KIND_OF[kind].course is not Course.EVENT)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", AlertType)
def test_a_first_sentence_and_the_next_step_need_only_details_that_are_always_given(
    kind: AlertType, language: Language
) -> None:
    given = words(kind, language)

    for sentence in (given.summary[0], given.fix, given.resolved):
        assert fields_of(sentence) <= {KIND_OF[kind].about} | _ALWAYS_GIVEN.get(kind, set())


_ALWAYS_GIVEN = {
    AlertType.BACKUP_DAMAGED: {"backups"},
    AlertType.USAGE: {"percent"},
    AlertType.DAYS_UNTIL_FULL: {"days"},
    AlertType.BLANK_SAVE: {"document"},
}


def test_the_commands_and_settings_named_are_there() -> None:
    text = " ".join(
        sentence
        for language in LANGUAGES
        for kind in AlertType
        for sentence in sentences(words(kind, language))
    )

    commands = set(re.findall(r"`seline (\w+)", text))
    settings = set(re.findall(r"`([a-z]+\.[a-z_]+)", text))

    assert commands
    assert commands <= set(front.commands)
    assert settings
    assert settings <= set(setting_names())


# what is said


def test_everything_that_can_be_told_is_tried_here() -> None:
    assert {seen.type for seen in SIGHTINGS} == set(AlertType)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("seen", SIGHTINGS, ids=lambda seen: str(seen.type))
def test_every_alert_is_said_in_whole_sentences(seen: Raised, language: Language) -> None:
    opened, over = told(seen, language), ended(seen, language)

    for text in (opened.summary, opened.fix, over.summary):
        assert text
        assert not set(text) & set("{}[]"), text
        assert text.endswith(".")
        assert ".." not in text
        assert "  " not in text
        assert "None" not in text
    assert opened.document is None or opened.document in opened.summary


@pytest.mark.parametrize("level", [level for level in UsageLevel if level is not UsageLevel.OK])
def test_each_level_says_what_it_means_and_nothing_of_the_others(level: UsageLevel) -> None:
    meanings = {
        UsageLevel.HALF: "manual backups",
        UsageLevel.HIGH: "given up",
        UsageLevel.CRITICAL: "refused",
    }
    text = said_of(alerts_from_usage(level, LEVELS[level] + 0.0123))

    assert [word for word in meanings.values() if word in text] == [
        word for of, word in meanings.items() if of is level
    ]
    assert f"{LEVELS[level] * 100 + 1.2:g} %" in text


def test_a_number_is_written_as_the_language_writes_it() -> None:
    signals = alerts_from_usage(UsageLevel.WARNING, 0.8125)

    assert "81.2 %" in said_of(signals)
    assert "81,2 %" in said_of(signals, "fr")


@pytest.mark.parametrize("language", LANGUAGES)
def test_of_one_and_of_many_the_same_sentence_is_right(language: Language) -> None:
    one = a_report(a_finding("marked", backup=BACKUP))
    many = a_report(*[a_finding("marked", backup=BACKUP)] * 2)

    of_one = said_of(alerts_from_report(one), language)
    assert said_of(alerts_from_report(many), language) == of_one.replace(": 1.", ": 2.")
    assert of_one != said_of(alerts_from_report(many), language)
    assert said_of(alerts_from_days(1.0), language).replace("1.", "9.") == said_of(
        alerts_from_days(9.0), language
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_an_error_says_is_set_apart_and_ends_like_a_sentence(language: Language) -> None:
    label = {"en": "Detail: ", "fr": "Détail (en anglais) : "}[language]
    for detail in ("no room", "no room."):
        failed = alerts_from_run("usage", succeeded=False, detail=detail)
        assert said_of(failed, language).endswith(f"{label}no room.")


@pytest.mark.parametrize("language", LANGUAGES)
def test_of_a_document_that_is_lost_nothing_is_said_twice(language: Language) -> None:
    error = DocumentUnrecoverable(
        f"{NAME} is broken and it has no backup; nothing was overwritten."
    )
    current_documents = replace(a_finding("unrecoverable"), detail=error.message)

    text = said_of(alerts_from_report(a_report(current_documents)), language)

    assert text.count(NAME) == 1
    assert "nothing was overwritten" not in text


def test_a_recovery_says_what_is_lost_and_what_is_not() -> None:
    source = f"backup {BACKUP}"
    lossless = said_of(alerts_from([an_incident("recovered", source="memory", verdict="torn")]))
    lossy = said_of(
        alerts_from([an_incident("recovered", source=source, verdict="altered", lost="changes")])
    )

    assert "Nothing is lost" in lossless
    assert "from memory" in lossless
    assert "half-written" in lossless
    assert "Lost: the changes after 2025-01-06 09:30 UTC." in lossy
    assert BACKUP in lossy
    assert "changed by the disk" in lossy
    assert "Nothing is lost" not in lossy


def test_a_detail_that_no_sentence_names_is_not_said() -> None:
    incident = an_incident("unrecoverable", token="s3cret-0123456789")

    assert "s3cret" not in said_of(alerts_from([incident]))


def test_what_a_detail_says_is_not_read_as_a_sentence() -> None:
    signals = alerts_from_run("usage", succeeded=False, detail="KeyError: {job} [half]")

    assert "KeyError: {job} [half]" in said_of(signals)


def test_a_long_detail_is_cut() -> None:
    signals = alerts_from_run("usage", succeeded=False, detail="x" * 100_000)

    assert len(said_of(signals)) < TEXT_CHARACTERS_MAX + 100


def test_a_sentence_whose_detail_is_empty_is_left_out() -> None:
    [seen] = cast("list[Raised]", alerts_from_lateness("export", None))
    full = wording(seen.type, {"job": "export", "last_success": "2025-01-06"}, "en")[0]

    nothing: list[Json] = [None, "", False, [], {}]
    for empty in nothing:
        said, _ = wording(seen.type, {"job": "export", "last_success": empty}, "en")
        assert said == "The job `export` is overdue."
    assert full.startswith("The job `export` is overdue. ")


# a message


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("severity", Severity)
def test_a_title_names_the_service_and_how_much_it_matters(
    severity: Severity, language: Language
) -> None:
    alert = replace(trial(NOON, language), severity=severity)

    assert "my-bot" in title(alert, "my-bot", language)
    assert len({title(replace(alert, severity=one), "b", language) for one in Severity}) == 3


def test_a_resolved_alert_is_titled_so_whatever_its_severity() -> None:
    over = ended(Raised(type=AlertType.WRONG_MOUNT))

    assert title(over, "my-bot", "en") == "✅ my-bot: resolved"
    assert title(over, "my-bot", "fr") == "✅ my-bot : résolu"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_body_says_what_how_often_and_what_next(language: Language) -> None:
    alert = replace(told(Raised(type=AlertType.RECOVERY, subject=NAME), language), count=3)

    first, second, third = body(alert, language).splitlines()

    assert first == alert.summary
    assert second.startswith("3 ")
    assert "2025-01-06 12:00" in second
    assert third.endswith(alert.fix)


def test_what_stands_has_a_beginning_and_no_number() -> None:
    standing = replace(told(Raised(type=AlertType.WRONG_MOUNT)), count=4)

    english, french = (body(standing, language).splitlines()[1] for language in LANGUAGES)

    assert english == "It has been so since 2025-01-06 12:00 UTC."
    assert french == "Cela dure depuis le 2025-01-06 12:00 UTC."
    assert len(body(replace(standing, state="resolved"), "en").splitlines()) == 2


def test_what_is_over_asks_for_nothing_more() -> None:
    over = ended(Raised(type=AlertType.WRONG_MOUNT))

    assert body(over, "en") == over.summary


def test_a_text_is_cut_to_what_a_service_takes() -> None:
    assert cut("x" * 10, 10) == "x" * 10
    assert cut("x" * 11, 10) == "x" * 9 + "…"
