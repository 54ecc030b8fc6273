"""The texts of alerts: complete in every language, whole sentences, and true of what happened."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest
from msgspec import structs

from seline.alerts.signals import (
    CHECKSUMS,
    capability_signals,
    copy_signals,
    document_limit_signals,
    failure_signals,
    forecast_signals,
    incident_signals,
    overdue_signals,
    pin_signals,
    report_signals,
    run_signals,
    usage_signals,
)
from seline.cli.verbs import front
from seline.domain.alerts.lifecycle import (
    KIND_OF,
    Alert,
    AlertType,
    Raised,
    Severity,
    Signal,
    on_cleared,
    on_raised,
    trial,
)
from seline.domain.alerts.message import (
    DETAIL_CHARACTERS_MAX,
    AlertWords,
    body,
    cut,
    texts,
    title,
    worded,
)
from seline.domain.document import Json
from seline.domain.incident import Incident, IncidentKind
from seline.domain.pins import Pin
from seline.domain.report import Finding, FindingOutcome, VerifyReport
from seline.domain.texts import LANGUAGES, Language, fields_of
from seline.domain.usage import LEVELS, UsageLevel
from seline.errors import DocumentUnrecoverable, VolumeFailed, VolumeNotMounted
from seline.operations.destination_checks import DestinationCheck, Problem
from seline.ports.medium import Capability
from seline.settings import setting_names
from tests.unit.values import NOON

NAME = "user_profile.json"
BACKUP = "user_profile_20250106_093000.json"
DAY = timedelta(days=1)


def an_incident(kind: str, *, document: str = NAME, lost: str = "", **details: Json) -> Incident:
    return Incident(
        kind=IncidentKind(kind),
        document=document,
        at=NOON,
        summary="So it was.",
        lost=lost,
        details=details,
    )


def a_report(*findings: Finding) -> VerifyReport:
    return VerifyReport(
        started_at=NOON, ended_at=NOON, documents=1, backups=1, bytes_read=1, findings=findings
    )


def a_finding(outcome: str, *, verdict: str = "altered", backup: str | None = None) -> Finding:
    return Finding(
        document=NAME, backup=backup, verdict=verdict,
        outcome=FindingOutcome(outcome), detail="So it is.",
        found_at=NOON,
    )  # fmt: skip


def a_pin(*, until_days: int | None) -> Pin:
    until = None if until_days is None else NOON + until_days * DAY
    because = "before a blank save of 2025-01-06"
    return Pin(document=NAME, revision="0", because=because, pinned_at=NOON, until=until)


def of_incidents(*incidents: Incident) -> list[Signal]:
    return incident_signals(incidents, NOON)


def of_findings(*findings: Finding) -> list[Signal]:
    return report_signals(a_report(*findings), NOON)


def all_signals() -> Iterator[Signal]:
    """Yield the signals of every type, with each combination of details."""
    backup = f"backup {BACKUP}"
    for verdict in ("torn", "altered"):
        yield from of_incidents(
            an_incident("recovered", verdict=verdict, source="memory"),
            an_incident("recovered", verdict=verdict, source=backup, lost="changes after"),
        )
    given = {"backups": 1, "backup": BACKUP, "destination": "bucket"}
    yield from of_incidents(*(an_incident(kind, **given) for kind in IncidentKind))
    yield from of_incidents(an_incident("disk_error", document=""))
    for outcome in ("unrecoverable", "unreadable", "failed"):
        yield from of_findings(a_finding(outcome))
    yield from of_findings(a_finding("marked", backup=BACKUP))
    for until_days in (30, None):
        yield from pin_signals([a_pin(until_days=until_days)], NOON + timedelta(minutes=1))
    for documents in (80, 100):
        yield from document_limit_signals(documents, 100)
    yield from capability_signals([Capability(name=CHECKSUMS, present=False, detail="")])
    yield from failure_signals(VolumeNotMounted("It lies on the container's own disk."))
    yield from failure_signals(VolumeFailed())
    for level in UsageLevel:
        yield from usage_signals(level, LEVELS[level])
    for days in (0.0, 2.9, 13.9):
        yield from forecast_signals(days)
    yield from run_signals("usage", succeeded=False, detail="no room")
    yield from run_signals("usage", succeeded=False)
    yield from overdue_signals("export", NOON)
    yield from overdue_signals("export", None)
    problem = Problem(detail="no copy was proven for 30 days", fix="Run `seline jobs run drill`.")
    yield from copy_signals([DestinationCheck(name="nas", last="", problems=(problem,))], ())
    yield Raised(type=AlertType.MANY, subject=AlertType.RECOVERY)
    yield Raised(type=AlertType.DIGEST, details={"number": 100})
    yield Raised(type=AlertType.TEST)


RAISED = [signal for signal in all_signals() if isinstance(signal, Raised)]


def opened(signal: Raised, language: Language = "en") -> Alert:
    state, _ = on_raised(None, signal, now=NOON, renotify=DAY)
    return worded(state.alert, language)


def resolved(signal: Raised, language: Language = "en") -> Alert:
    state, _ = on_raised(None, signal, now=NOON, renotify=DAY)
    return worded(on_cleared(state, now=NOON + DAY)[0].alert, language)


def summary_of(signals: Iterable[Signal], language: Language = "en") -> str:
    [signal] = [signal for signal in signals if isinstance(signal, Raised)]
    return opened(signal, language).summary


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
    pairs = zip(english, french, strict=True)
    assert not [same for same, other in pairs if same == other and same not in ("", "{fix}")]


def test_each_label_has_the_same_fields_in_every_language() -> None:
    english, french = texts("en").labels, texts("fr").labels

    for name, label in english.items():
        assert fields_of(label) == fields_of(french[name]), name


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", AlertType)
def test_only_a_condition_has_a_text_for_its_end(kind: AlertType, language: Language) -> None:
    assert bool(words(kind, language).resolved) == (KIND_OF[kind].course != "event")


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
    AlertType.DOCUMENT_LIMIT: {"documents", "documents_max"},
    AlertType.BLANK_SAVE: {"documents", "newest"},
    AlertType.DIGEST: {"number"},
    AlertType.VOLUME_RESTORED: {"documents", "s", "taken_at", "destination"},
    AlertType.COPY_UNREADABLE: {"place", "destinations", "destination"},
    AlertType.COPY_AT_RISK: {"fix"},
}


def test_the_commands_and_settings_in_the_texts_exist() -> None:
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


# the summary and the next step


def test_the_signals_of_every_type_are_tried_here() -> None:
    assert {signal.type for signal in RAISED} == set(AlertType)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("signal", RAISED, ids=lambda signal: str(signal.type))
def test_every_alert_has_whole_sentences(signal: Raised, language: Language) -> None:
    alert, over = opened(signal, language), resolved(signal, language)

    for text in (alert.summary, alert.fix, over.summary):
        assert text
        assert not set(text) & set("{}[]"), text
        assert text.endswith(".")
        assert ".." not in text
        assert "  " not in text
        assert "None" not in text
    assert alert.document is None or alert.document in alert.summary


@pytest.mark.parametrize(
    ("documents", "language", "text"),
    [
        (1, "en", "Restored 1 document as of"),
        (2, "en", "Restored 2 documents as of"),
        (1, "fr", "1 document restauré depuis bucket"),
        (2, "fr", "2 documents restaurés depuis bucket"),
    ],
)
def test_a_restore_counts_its_documents(documents: int, language: Language, text: str) -> None:
    details: dict[str, Json] = {
        "documents": documents,
        "taken_at": "2025-01-06 14:30:22",
        "destination": "bucket",
    }

    assert text in opened(Raised(type=AlertType.VOLUME_RESTORED, details=details), language).summary


def test_a_resolved_condition_has_another_summary_and_no_next_step() -> None:
    signal = Raised(type=AlertType.WRONG_MOUNT)

    assert resolved(signal).summary != opened(signal).summary
    assert resolved(signal).fix == ""


def test_a_resolved_event_keeps_its_summary_and_its_next_step() -> None:
    alert = opened(Raised(type=AlertType.RECOVERY, subject=NAME))

    assert worded(structs.replace(alert, state="resolved"), "en") == structs.replace(
        alert, state="resolved"
    )


@pytest.mark.parametrize("made", [opened, resolved])
def test_an_alert_can_be_put_into_another_language(made: Callable[[Raised], Alert]) -> None:
    alert = made(Raised(type=AlertType.WRONG_MOUNT))

    french = worded(alert, "fr")

    assert french.summary != alert.summary
    assert bool(french.fix) == bool(alert.fix)
    assert worded(french, "en") == alert


@pytest.mark.parametrize("level", [level for level in UsageLevel if level is not UsageLevel.OK])
def test_each_level_of_usage_has_its_own_consequence(level: UsageLevel) -> None:
    consequences = {
        UsageLevel.HALF: "manual backups",
        UsageLevel.HIGH: "given up",
        UsageLevel.CRITICAL: "refused",
    }
    text = summary_of(usage_signals(level, LEVELS[level] + 0.0123))

    assert [word for word in consequences.values() if word in text] == [
        word for of, word in consequences.items() if of is level
    ]
    assert f"{LEVELS[level] * 100 + 1.2:g} %" in text


def test_a_number_has_the_decimal_point_of_the_language() -> None:
    signals = usage_signals(UsageLevel.WARNING, 0.8125)

    assert "81.2 %" in summary_of(signals)
    assert "81,2 %" in summary_of(signals, "fr")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_sentence_is_right_for_one_and_for_many(language: Language) -> None:
    finding = a_finding("marked", backup=BACKUP)

    of_one = summary_of(of_findings(finding), language)
    of_two = summary_of(of_findings(finding, finding), language)

    assert of_two == of_one.replace(": 1.", ": 2.")
    assert of_one != of_two
    assert summary_of(forecast_signals(1.0), language).replace("1.", "9.") == summary_of(
        forecast_signals(9.0), language
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_error_text_has_a_label_and_ends_like_a_sentence(language: Language) -> None:
    end = {"en": "Detail: no space is left.", "fr": "Détail : il ne reste pas de place."}[language]
    for detail in ("no space is left", "no space is left."):
        failed = run_signals("usage", succeeded=False, detail=detail)
        assert summary_of(failed, language).endswith(end)


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_unrecoverable_document_is_described_once(language: Language) -> None:
    error = DocumentUnrecoverable(
        f"{NAME} is broken and it has no backup; nothing was overwritten."
    )
    finding = replace(a_finding("unrecoverable"), detail=error.message)

    text = summary_of(of_findings(finding), language)

    assert text.count(NAME) == 1
    assert "nothing was overwritten" not in text


def test_a_recovery_names_what_is_lost_only_if_something_is() -> None:
    source = f"backup {BACKUP}"
    lossless = summary_of(of_incidents(an_incident("recovered", source="memory", verdict="torn")))
    lossy = summary_of(
        of_incidents(an_incident("recovered", source=source, verdict="altered", lost="changes"))
    )

    assert "Nothing is lost" in lossless
    assert "from memory" in lossless
    assert "half-written" in lossless
    assert "Lost: the changes after 2025-01-06 09:30 UTC." in lossy
    assert BACKUP in lossy
    assert "changed by the disk" in lossy
    assert "Nothing is lost" not in lossy


def test_a_detail_without_a_field_is_not_shown() -> None:
    incident = an_incident("unrecoverable", token="s3cret-0123456789")

    assert "s3cret" not in summary_of(of_incidents(incident))


def test_braces_and_brackets_in_a_detail_are_kept_as_text() -> None:
    signals = run_signals("usage", succeeded=False, detail="KeyError: {job} [half]")

    assert "KeyError: {job} [half]" in summary_of(signals)


def test_a_long_detail_is_cut() -> None:
    signals = run_signals("usage", succeeded=False, detail="x" * 100_000)

    assert len(summary_of(signals)) < DETAIL_CHARACTERS_MAX + 100


def test_a_sentence_with_an_empty_detail_is_left_out() -> None:
    [signal] = cast("list[Raised]", overdue_signals("export", NOON))
    nothing: list[Json] = [None, "", False, [], {}]

    assert opened(signal).summary.startswith("The job `export` is overdue. ")
    for empty in nothing:
        without = replace(signal, details={"last_success": empty})
        assert opened(without).summary == "The job `export` is overdue."


# messages


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("severity", Severity)
def test_a_title_names_the_service_and_the_severity(severity: Severity, language: Language) -> None:
    alert = structs.replace(trial(NOON), severity=severity)

    assert "my-bot" in title(alert, "my-bot", language)
    assert (
        len({title(structs.replace(alert, severity=other), "b", language) for other in Severity})
        == 3
    )


def test_a_resolved_alert_has_its_own_title_at_any_severity() -> None:
    over = resolved(Raised(type=AlertType.WRONG_MOUNT))

    assert title(over, "my-bot", "en") == "✅ my-bot: resolved"
    assert title(over, "my-bot", "fr") == "✅ my-bot : résolu"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_body_has_the_summary_the_count_and_the_next_step(language: Language) -> None:
    alert = structs.replace(
        opened(Raised(type=AlertType.RECOVERY, subject=NAME), language), count=3
    )

    first, second, third = body(alert, language).splitlines()

    assert first == alert.summary
    assert second.startswith("3 ")
    assert "2025-01-06 12:00" in second
    assert third.endswith(alert.fix)


def test_the_body_of_a_condition_has_its_start_and_no_count() -> None:
    alert = structs.replace(opened(Raised(type=AlertType.WRONG_MOUNT)), count=4)

    english, french = (body(alert, language).splitlines()[1] for language in LANGUAGES)

    assert english == "It has been so since 2025-01-06 12:00 UTC."
    assert french == "Cela dure depuis le 2025-01-06 12:00 UTC."
    assert len(body(structs.replace(alert, state="resolved"), "en").splitlines()) == 2


def test_the_body_of_a_resolved_alert_is_its_summary() -> None:
    over = resolved(Raised(type=AlertType.WRONG_MOUNT))

    assert body(over, "en") == over.summary


def test_a_long_text_is_cut_to_what_a_service_accepts() -> None:
    assert cut("x" * 10, 10) == "x" * 10
    assert cut("x" * 11, 10) == "x" * 9 + "…"
