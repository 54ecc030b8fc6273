"""Who hears what, and when: raised, repeated while it lasts, resolved; and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seline.domain.alerts.lifecycle import (
    KIND_OF,
    OPEN_OF_A_TYPE_MAX,
    QUIET,
    RESOLVED_KEPT_FOR,
    RESOLVED_KEPT_MAX,
    Alert,
    AlertState,
    AlertType,
    Course,
    Raised,
    Severity,
    Transition,
    crowded,
    forgotten,
    raised,
    rank_of,
    repeated,
    resolved,
    reworded,
    trial,
)
from seline.domain.alerts.record import read_record, write_record
from seline.domain.document import Json
from tests.unit.values import NOON, json_values, texts

patient = settings(deadline=None)
RENOTIFY = timedelta(hours=24)
NAME = "user_profile.json"
EVENTS = [kind for kind in AlertType if KIND_OF[kind].course is Course.EVENT]
STANDING = [kind for kind in AlertType if KIND_OF[kind].course is Course.STANDS]
QUIETLY = [kind for kind in AlertType if KIND_OF[kind].course is Course.STANDS_QUIETLY]


class Listener:
    """A person who hears what is told while things are seen, end, and time passes."""

    def __init__(self) -> None:
        self.now = NOON
        self.standings: dict[tuple[AlertType, str], AlertState] = {}
        self.heard: list[Alert] = []

    def see(
        self,
        type: AlertType,
        subject: str = "",
        *,
        severity: Severity | None = None,
        at: datetime | None = None,
        **details: Json,
    ) -> list[Alert]:
        """Let something be seen; return what is told of it now."""
        seen = Raised(type=type, subject=subject, severity=severity, details=details, at=at)
        seen = crowded(self.standings, seen)
        before = self.standings.get((seen.type, seen.subject))
        return self._take(raised(before, seen, now=self.now, renotify=RENOTIFY))

    def clear(self, type: AlertType, subject: str = "") -> list[Alert]:
        """Let something be over."""
        return self._take(resolved(self.standings[type, subject], now=self.now))

    def wait(self, **time: float) -> list[Alert]:
        """Let time pass, and ask once what is to be repeated."""
        self.now += timedelta(**time)
        return [
            alert
            for standing in list(self.standings.values())
            for alert in self._take(repeated(standing, now=self.now, renotify=RENOTIFY))
        ]

    def alert(self, type: AlertType, subject: str = "") -> Alert:
        return self.standings[type, subject].alert

    def _take(self, step: Transition) -> list[Alert]:
        self.standings[step.standing.key] = step.standing
        told = [step.standing.alert] if step.told else []
        self.heard += told
        return told


@pytest.fixture
def listener() -> Listener:
    return Listener()


def full(listener: Listener, level_percent: int) -> list[Alert]:
    """Let the volume reach a level of usage."""
    severity = {50: Severity.INFO, 95: Severity.CRITICAL}.get(level_percent, Severity.WARNING)
    return listener.see(AlertType.USAGE, severity=severity, level_percent=level_percent)


# the table


def test_every_type_has_a_row_and_the_severities_an_order() -> None:
    assert set(KIND_OF) == set(AlertType)
    assert Severity.INFO.rank < Severity.WARNING.rank < Severity.CRITICAL.rank


# what happened


@pytest.mark.parametrize("type", EVENTS)
def test_an_event_is_told_once_however_often_it_is_seen(type: AlertType) -> None:
    listener = Listener()
    happened_at = listener.now

    assert len(listener.see(type, NAME, at=happened_at)) == 1
    for _ in range(200):
        assert listener.wait(minutes=30) == []
        assert listener.see(type, NAME, at=happened_at) == []

    assert listener.alert(type, NAME).count == 1


def test_an_event_that_happened_again_is_told_again_after_a_day(listener: Listener) -> None:
    listener.see(AlertType.RECOVERY, NAME)
    assert listener.wait(hours=1) == []
    assert listener.see(AlertType.RECOVERY, NAME) == []
    assert listener.wait(hours=22) == []

    [again] = listener.wait(hours=1)

    assert (again.count, again.first_at, again.last_at) == (2, NOON, NOON + timedelta(hours=1))
    assert again.state == "open"


def test_an_event_that_happens_again_after_a_day_is_told_at_once(listener: Listener) -> None:
    listener.see(AlertType.RECOVERY, NAME)
    listener.wait(hours=23.5)
    assert listener.see(AlertType.RECOVERY, NAME, at=NOON + timedelta(hours=1)) == []
    listener.now += timedelta(hours=1)

    [again] = listener.see(AlertType.RECOVERY, NAME)

    assert again.count == 3


def test_an_older_occurrence_is_no_news(listener: Listener) -> None:
    listener.see(AlertType.RECOVERY, NAME)

    assert listener.see(AlertType.RECOVERY, NAME, at=NOON - timedelta(hours=3)) == []
    assert listener.alert(AlertType.RECOVERY, NAME).count == 1


def test_a_quiet_event_ends_unsaid_after_a_day(listener: Listener) -> None:
    listener.see(AlertType.RECOVERY, NAME)

    assert listener.wait(hours=23.9) == []
    assert listener.alert(AlertType.RECOVERY, NAME).state == "open"
    assert listener.wait(hours=0.2) == []
    assert listener.alert(AlertType.RECOVERY, NAME).state == "resolved"


def test_an_event_that_ended_is_not_opened_by_what_was_seen_before(listener: Listener) -> None:
    listener.see(AlertType.RECOVERY, NAME)
    listener.wait(days=1)

    assert listener.see(AlertType.RECOVERY, NAME, at=NOON) == []
    [anew] = listener.see(AlertType.RECOVERY, NAME)

    assert anew.count == 1
    assert anew.id != listener.heard[0].id


def test_an_event_is_not_ended_by_a_signal(listener: Listener) -> None:
    listener.see(AlertType.RECOVERY, NAME)

    assert listener.clear(AlertType.RECOVERY, NAME) == []
    assert listener.alert(AlertType.RECOVERY, NAME).state == "open"


# what stands


@pytest.mark.parametrize("type", STANDING)
def test_what_stands_is_repeated_each_day_until_it_is_over_which_is_told_once(
    type: AlertType,
) -> None:
    listener = Listener()
    listener.see(type, NAME)
    for _ in range(3 * 24 * 2):
        listener.wait(minutes=30)
        listener.see(type, NAME)

    [end] = listener.clear(type, NAME)
    assert listener.clear(type, NAME) == []
    for _ in range(10):
        assert listener.wait(days=1) == []

    assert [alert.count for alert in listener.heard] == [1, 2, 3, 4, 4]
    assert {alert.id for alert in listener.heard} == {end.id}
    assert (end.state, end.fix) == ("resolved", "")
    assert end.summary != listener.heard[0].summary


def test_what_stands_is_repeated_even_if_nobody_looks_any_more(listener: Listener) -> None:
    listener.see(AlertType.WRONG_MOUNT)

    assert [len(listener.wait(hours=12)) for _ in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize("type", QUIETLY)
def test_what_nobody_can_hurry_is_told_once_and_at_its_end(type: AlertType) -> None:
    listener = Listener()
    listener.see(type, NAME)
    for _ in range(5):
        assert listener.wait(days=1) == []
        assert listener.see(type, NAME) == []

    listener.clear(type, NAME)

    assert [alert.state for alert in listener.heard] == ["open", "resolved"]


def test_what_only_informs_is_told_once_and_at_its_end(listener: Listener) -> None:
    full(listener, 50)
    for _ in range(5):
        assert listener.wait(days=1) == []
        assert full(listener, 50) == []

    [end] = listener.clear(AlertType.USAGE)

    assert end.severity is Severity.INFO


def test_what_stands_again_is_opened_anew(listener: Listener) -> None:
    listener.see(AlertType.WRONG_MOUNT)
    listener.wait(hours=1)
    listener.clear(AlertType.WRONG_MOUNT)
    listener.wait(hours=1)

    [anew] = listener.see(AlertType.WRONG_MOUNT)

    assert (anew.state, anew.count, anew.first_at) == ("open", 1, listener.now)
    assert anew.id != listener.heard[0].id


def test_what_was_seen_before_its_end_does_not_open_it_again(listener: Listener) -> None:
    seen_at = listener.now
    listener.see(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=seen_at)
    listener.wait(hours=1)
    listener.clear(AlertType.UNRECOVERABLE_DOCUMENT, NAME)
    listener.wait(minutes=1)

    assert listener.see(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=seen_at) == []
    assert len(listener.see(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=listener.now)) == 1


def test_subjects_and_types_are_told_apart(listener: Listener) -> None:
    for kind in (AlertType.JOB_FAILED, AlertType.JOB_OVERDUE):
        for job in ("usage", "export"):
            assert len(listener.see(kind, job)) == 1
    assert [alert.document for alert in listener.heard] == [None] * 4
    assert [alert.details["job"] for alert in listener.heard[:2]] == ["usage", "export"]
    [of_document] = listener.see(AlertType.RECOVERY, NAME)
    assert (of_document.document, of_document.details["document"]) == (NAME, NAME)


# what is worse


def test_a_graver_severity_is_told_at_once(listener: Listener) -> None:
    listener.see(AlertType.DAYS_UNTIL_FULL, days=10)
    listener.wait(minutes=5)

    [worse] = listener.see(AlertType.DAYS_UNTIL_FULL, severity=Severity.CRITICAL, days=2)

    assert (worse.severity, worse.count, worse.details["days"]) == (Severity.CRITICAL, 2, 2)


def test_a_worse_event_is_told_at_once(listener: Listener) -> None:
    listener.see(AlertType.RECOVERY, NAME)
    listener.wait(minutes=5)

    [worse] = listener.see(AlertType.RECOVERY, NAME, severity=Severity.CRITICAL)

    assert (worse.severity, worse.count) == (Severity.CRITICAL, 2)


def test_each_level_of_usage_is_told_at_once(listener: Listener) -> None:
    told = []
    for level_percent in (50, 80, 90, 95):
        told += full(listener, level_percent)
        assert full(listener, level_percent) == []
        listener.wait(minutes=5)

    assert [alert.details["level_percent"] for alert in told] == [50, 80, 90, 95]


def test_a_level_that_falls_and_rises_again_is_no_news_for_a_day(listener: Listener) -> None:
    full(listener, 90)
    for _ in range(20):
        listener.wait(minutes=5)
        assert full(listener, 80) == []
        listener.wait(minutes=5)
        assert full(listener, 90) == []

    assert len(listener.wait(days=1)) == 1


def test_the_end_is_told_to_whoever_heard_of_the_worst(listener: Listener) -> None:
    for level_percent in (80, 95, 50):
        full(listener, level_percent)
    assert listener.alert(AlertType.USAGE).severity is Severity.INFO

    [end] = listener.clear(AlertType.USAGE)

    assert end.severity is Severity.CRITICAL


def test_the_words_follow_what_stands_without_a_telling(listener: Listener) -> None:
    listener.see(AlertType.DAYS_UNTIL_FULL, days=10)
    listener.wait(hours=1)

    assert listener.see(AlertType.DAYS_UNTIL_FULL, days=9) == []
    assert "about 9." in listener.alert(AlertType.DAYS_UNTIL_FULL).summary


@patient
@given(
    st.sampled_from(Severity), st.sampled_from(Severity), st.integers(0, 100), st.integers(0, 100)
)
def test_severity_outranks_every_level(a: Severity, b: Severity, of_a: int, of_b: int) -> None:
    alert = Listener().see(AlertType.USAGE)[0]
    first = replace(alert, severity=a, details={"level_percent": of_a})
    second = replace(alert, severity=b, details={"level_percent": of_b})

    assert (rank_of(first) > rank_of(second)) == ((a.rank, of_a) > (b.rank, of_b))


# a clock that is set back


def test_a_clock_set_back_does_not_tell_an_event_twice(listener: Listener) -> None:
    happened_at = listener.now
    listener.see(AlertType.RECOVERY, NAME, at=happened_at)
    listener.wait(hours=-3)

    for _ in range(100):
        assert listener.see(AlertType.RECOVERY, NAME, at=happened_at) == []
        assert listener.wait(minutes=6) == []

    assert listener.alert(AlertType.RECOVERY, NAME).count == 1


def test_a_clock_set_back_hides_no_new_event(listener: Listener) -> None:
    listener.see(AlertType.RECOVERY, NAME)
    listener.wait(days=-365)

    told = listener.see(AlertType.RECOVERY, NAME, at=listener.now)

    assert [alert.count for alert in told] == [2]
    assert listener.wait(hours=1) == []
    assert listener.alert(AlertType.RECOVERY, NAME).last_at < NOON


def test_a_clock_set_back_repeats_what_stands_once_and_goes_on(listener: Listener) -> None:
    listener.see(AlertType.WRONG_MOUNT)

    assert len(listener.wait(days=-365)) == 1
    assert [len(listener.wait(hours=12)) for _ in range(4)] == [0, 1, 0, 1]


def test_a_clock_set_back_opens_nothing_that_was_over(listener: Listener) -> None:
    seen_at = listener.now
    listener.see(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=seen_at)
    listener.wait(hours=-1)
    listener.clear(AlertType.UNRECOVERABLE_DOCUMENT, NAME)

    for _ in range(10):
        listener.wait(seconds=2)
        assert listener.see(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=seen_at) == []


# too many


def test_of_too_many_of_a_type_one_more_is_told_and_no_other(listener: Listener) -> None:
    for number in range(200):
        listener.see(AlertType.RECOVERY, f"d{number}.json")

    assert [alert.type for alert in listener.heard] == (
        [AlertType.RECOVERY] * OPEN_OF_A_TYPE_MAX + [AlertType.MANY]
    )
    assert listener.heard[-1].details == {"type": "recovery"}
    assert listener.heard[-1].severity is Severity.CRITICAL


def test_what_is_open_already_goes_on_however_many_there_are(listener: Listener) -> None:
    for number in range(30):
        listener.see(AlertType.JOB_FAILED, f"job {number}")

    assert len(listener.clear(AlertType.JOB_FAILED, "job 3")) == 1
    assert len(listener.see(AlertType.JOB_FAILED, "job 29")) == 1
    [worse] = listener.see(AlertType.JOB_FAILED, "job 4", severity=Severity.CRITICAL)
    assert worse.type is AlertType.JOB_FAILED


def test_types_do_not_crowd_each_other(listener: Listener) -> None:
    for number in range(40):
        listener.see(AlertType.RECOVERY, f"d{number}.json")

    [other] = listener.see(AlertType.BLANK_SAVE, "d39.json")
    assert other.type is AlertType.BLANK_SAVE


# what is remembered, and for how long


def test_what_is_resolved_is_forgotten_after_a_week_and_what_is_open_never(
    listener: Listener,
) -> None:
    listener.see(AlertType.WRONG_MOUNT)
    [gone] = listener.see(AlertType.JOB_FAILED, "usage")
    listener.clear(AlertType.JOB_FAILED, "usage")

    assert forgotten(listener.standings, listener.now + RESOLVED_KEPT_FOR) == set()
    assert forgotten(listener.standings, listener.now + timedelta(days=400)) == {gone.id}


def test_of_too_many_resolved_the_oldest_are_forgotten(listener: Listener) -> None:
    ids = []
    for number in range(RESOLVED_KEPT_MAX + 10):
        ids += [alert.id for alert in listener.see(AlertType.JOB_FAILED, f"job {number}")]
        listener.clear(AlertType.JOB_FAILED, f"job {number}")
        listener.wait(seconds=1)

    assert forgotten(listener.standings, listener.now) == set(ids[:10])


def test_an_alert_outlives_what_may_tell_it_again() -> None:
    assert RESOLVED_KEPT_FOR > QUIET


def test_the_test_alert_informs() -> None:
    alert = trial(NOON)

    assert (alert.type, alert.severity, alert.state) == (AlertType.TEST, Severity.INFO, "open")


def test_an_alert_can_be_put_into_the_other_language(listener: Listener) -> None:
    [opened] = listener.see(AlertType.WRONG_MOUNT)
    [ended] = listener.clear(AlertType.WRONG_MOUNT)

    for alert in (opened, ended):
        french = reworded(alert, "fr")
        assert french.summary != alert.summary
        assert bool(french.fix) == bool(alert.fix)
        assert reworded(french, "en") == alert


# whatever happens, in whatever order

Move = Callable[[Listener], object]


def _seeing(type: AlertType, subject: str, severity: Severity | None, level: int) -> Move:
    return lambda listener: listener.see(type, subject, severity=severity, level_percent=level)


def _clearing(type: AlertType, subject: str) -> Move:
    return lambda listener: (type, subject) in listener.standings and listener.clear(type, subject)


def _waiting(hours: float) -> Move:
    return lambda listener: listener.wait(hours=hours)


_types = st.sampled_from(
    [AlertType.RECOVERY, AlertType.USAGE, AlertType.WRONG_MOUNT, AlertType.BACKUP_DAMAGED]
)
_subjects = st.sampled_from(["a.json", "b.json"])
_seen = st.builds(
    _seeing, _types, _subjects, st.none() | st.sampled_from(Severity), st.sampled_from([50, 80, 95])
)
_cleared = st.builds(_clearing, _types, _subjects)
_passed = st.builds(_waiting, st.sampled_from([0.001, 1.0, 12.0, 24.0, 30.0]))
_moves = st.lists(_seen | _seen | _cleared | _passed, max_size=60)


class Recorder(Listener):
    """A listener who checks each telling against the last one of the same."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[tuple[AlertType, str], tuple[datetime, Alert]] = {}

    def _take(self, step: Transition) -> list[Alert]:
        told = super()._take(step)
        for alert in told:
            self._check(step.standing, alert)
        return told

    def _check(self, standing: AlertState, alert: Alert) -> None:
        at, before = self.last.get(standing.key, (None, None))
        again = before is not None and before.id == alert.id
        if before is not None and before.state == "resolved":
            assert not again, "nothing is told of what is over"
        if alert.state == "resolved":
            assert again, "nobody hears of the end of what was never told"
        elif before is not None and again and at is not None and self.now - at < RENOTIFY:
            assert rank_of(alert) > rank_of(before), "told twice within a day, and no worse"
        self.last[standing.key] = (self.now, alert)


@patient
@given(_moves)
def test_nothing_is_told_twice_within_a_day_unless_it_is_worse_or_new(moves: list[Move]) -> None:
    recorder = Recorder()
    for move in moves:
        move(recorder)


@patient
@given(_moves)
def test_what_is_known_agrees_with_what_was_told(moves: list[Move]) -> None:
    listener = Listener()
    for move in moves:
        move(listener)
        for standing in listener.standings.values():
            alert = standing.alert
            assert alert.first_at <= alert.last_at <= listener.now
            assert 1 <= standing.told_count <= alert.count
            assert standing.told_at <= listener.now
            heard = [one for one in listener.heard if one.id == alert.id and one.state == "open"]
            assert rank_of(heard[-1]) <= standing.told_rank <= max(map(rank_of, heard))
            assert max(one.severity.rank for one in heard) == standing.worst.rank


@patient
@given(_moves, st.integers(0, 60), st.floats(0.1, 10_000))
def test_a_clock_set_back_once_repeats_each_thing_at_most_once_more(
    moves: list[Move], when: int, back_h: float
) -> None:
    steady, jumping = Listener(), Listener()
    for number, move in enumerate(moves):
        if number == when:
            jumping.now -= timedelta(hours=back_h)
        move(steady)
        move(jumping)

    more = len(jumping.heard) - len(steady.heard)
    assert more <= 2 * len(jumping.standings), "once for the clock, once for a day that shifted"


@patient
@given(st.lists(st.integers(0, 100 * 60), unique=True, max_size=12))
def test_each_occurrence_is_counted_once_however_often_one_looks(minutes: list[int]) -> None:
    listener, counts = Listener(), dict[str, int]()
    happened = [NOON + timedelta(minutes=one) for one in sorted(minutes)]
    for _ in range(60):
        for at in happened:
            if at <= listener.now:
                listener.see(AlertType.RECOVERY, NAME, at=at)
        if happened and happened[0] <= listener.now:
            alert = listener.alert(AlertType.RECOVERY, NAME)
            counts[alert.id] = alert.count
        listener.wait(hours=2)

    assert sum(counts.values()) == len(happened)


# the record


@patient
@given(_moves)
def test_a_record_reads_back_as_it_was_written(moves: list[Move]) -> None:
    listener = Listener()
    for move in moves:
        move(listener)
    standings = list(listener.standings.values())
    waiting = {"chat": listener.heard, "phone": listener.heard[:1]}

    value = json.loads(json.dumps(write_record(standings, waiting)))

    assert read_record(value) == (standings, waiting)


@patient
@given(st.dictionaries(texts, json_values, max_size=4), texts)
def test_any_details_and_subject_can_be_remembered(details: dict[str, Json], subject: str) -> None:
    seen = Raised(type=AlertType.DISK_ERROR, subject=subject, details=details)
    standing = raised(None, seen, now=NOON, renotify=RENOTIFY).standing

    value = json.loads(json.dumps(write_record([standing], {})))

    assert read_record(value) == ([standing], {})


def test_instants_are_remembered_to_the_microsecond() -> None:
    at = datetime(2025, 1, 6, 12, 0, 0, 123_456, tzinfo=UTC)
    seen = Raised(type=AlertType.RECOVERY, subject=NAME, at=at)
    standing = raised(None, seen, now=at, renotify=RENOTIFY).standing

    [[read], _] = read_record(write_record([standing], {}))

    assert not raised(read, seen, now=at, renotify=RENOTIFY).told
    assert read.alert.last_at == at


def a_record() -> dict[str, Any]:
    """Return a sound record of one alert that waits."""
    [alert] = (listener := Listener()).see(AlertType.RECOVERY, NAME)
    return cast("dict[str, Any]", write_record(listener.standings.values(), {"chat": [alert]}))


def changed(value: Any, path: tuple[str | int, ...], entry: object) -> Any:
    """Return a value with one entry replaced, or left out where `entry` is the ellipsis."""
    if not path:
        return entry
    copy: Any = list(value) if isinstance(value, list) else dict(value)
    if len(path) == 1 and entry is ...:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(copy[path[0]], path[1:], entry)
    return copy


WRONG_FIELDS: Mapping[str, tuple[object, ...]] = {
    "id": (),
    "type": ("flood", None),
    "severity": ("terrible", 1),
    "state": ("ended", None, []),
    "document": (),
    "summary": (),
    "details": ([], None, "text"),
    "fix": (),
    "first_at": ("2025-13-01", 5),
    "last_at": ("", None),
    "count": ("1", 2.0, None),
}
BROKEN: Mapping[tuple[str | int, ...], tuple[object, ...]] = {
    (): (None, [], "text", 3, {}),
    ("format",): (2, "1", None, ...),
    ("alerts",): ({}, None, ["text"], [None], ...),
    ("waiting",): ([], None, {"chat": {}}, {"chat": ["text"]}, ...),
    ("alerts", 0, "subject"): (...,),
    ("alerts", 0, "told_at"): ("yesterday", None, ...),
    ("alerts", 0, "told_count"): ("1", 1.5, None, ...),
    ("alerts", 0, "told_rank"): ("1", [], ...),
    ("alerts", 0, "worst"): ("terrible", None, ...),
    ("alerts", 0, "alert"): (None, [], ...),
    **{
        (*where, key): (*entries, ...)
        for where in (("alerts", 0, "alert"), ("waiting", "chat", 0))
        for key, entries in WRONG_FIELDS.items()
    },
}


@pytest.mark.parametrize(
    ("path", "entry"), [(path, entry) for path, entries in BROKEN.items() for entry in entries]
)
def test_a_record_of_another_shape_is_refused(path: tuple[str | int, ...], entry: object) -> None:
    read_record(a_record())

    with pytest.raises((ValueError, KeyError)):
        read_record(changed(a_record(), path, entry))


@patient
@given(json_values)
def test_no_json_value_is_taken_for_a_record(value: Json) -> None:
    with pytest.raises((ValueError, KeyError)):
        read_record(value)
