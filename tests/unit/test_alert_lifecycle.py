"""The life cycle of alerts: opened, repeated, resolved, and kept in alerts.json."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from seline.domain.alerts.lifecycle import (
    KIND_OF,
    OPEN_OF_A_TYPE_MAX,
    QUIET,
    RESOLVED_KEPT_FOR,
    RESOLVED_KEPT_MAX,
    Alert,
    AlertsFile,
    AlertState,
    AlertType,
    Raised,
    Severity,
    Transition,
    limited,
    on_cleared,
    on_raised,
    on_time_passed,
    rank_of,
    retained,
    trial,
)
from seline.domain.document import Json
from tests.unit.values import NOON, json_values

without_deadline = settings(deadline=None)
RENOTIFY = timedelta(hours=24)
NAME = "user_profile.json"
EVENTS = [kind for kind in AlertType if KIND_OF[kind].course == "event"]
CONDITIONS = [kind for kind in AlertType if KIND_OF[kind].course == "condition"]
QUIET_CONDITIONS = [kind for kind in AlertType if KIND_OF[kind].course == "quiet_condition"]


class Machine:
    """The states of alerts and the notifications so far, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOON
        self.states: dict[tuple[AlertType, str], AlertState] = {}
        self.notified: list[Alert] = []

    def raised(
        self,
        type: AlertType,
        subject: str = "",
        *,
        severity: Severity | None = None,
        at: datetime | None = None,
        **details: Json,
    ) -> list[Alert]:
        """Raise a signal; return the notifications that it causes."""
        signal = Raised(type=type, subject=subject, severity=severity, details=details, at=at)
        signal = limited(self.states, signal, self.now)
        before = self.states.get((signal.type, signal.subject))
        return self._enter(on_raised(before, signal, now=self.now, renotify=RENOTIFY))

    def cleared(self, type: AlertType, subject: str = "") -> list[Alert]:
        """Clear a condition; return the notification of its end."""
        return self._enter(on_cleared(self.states[type, subject], now=self.now))

    def wait(self, **time: float) -> list[Alert]:
        """Move the clock, then return the notifications that are due."""
        self.now += timedelta(**time)
        return [
            alert
            for state in list(self.states.values())
            for alert in self._enter(on_time_passed(state, now=self.now, renotify=RENOTIFY))
        ]

    def alert(self, type: AlertType, subject: str = "") -> Alert:
        return self.states[type, subject].alert

    def _enter(self, transition: Transition) -> list[Alert]:
        state, notify = transition
        self.states[state.key] = state
        notified = [state.alert] if notify else []
        self.notified += notified
        return notified


@pytest.fixture
def machine() -> Machine:
    return Machine()


def usage(machine: Machine, level_percent: int) -> list[Alert]:
    """Raise a level of usage."""
    severity = {50: Severity.INFO, 95: Severity.CRITICAL}.get(level_percent, Severity.WARNING)
    return machine.raised(AlertType.USAGE, severity=severity, level_percent=level_percent)


# the table


def test_every_type_has_a_row_and_the_severities_have_an_order() -> None:
    assert set(KIND_OF) == set(AlertType)
    assert Severity.INFO.rank < Severity.WARNING.rank < Severity.CRITICAL.rank


# events


@pytest.mark.parametrize("type", EVENTS)
def test_an_occurrence_is_notified_once_however_often_it_is_raised(type: AlertType) -> None:
    machine = Machine()
    happened_at = machine.now

    assert len(machine.raised(type, NAME, at=happened_at)) == 1
    for _ in range(200):
        assert machine.wait(minutes=30) == []
        assert machine.raised(type, NAME, at=happened_at) == []

    assert machine.alert(type, NAME).count == 1


def test_a_second_occurrence_is_notified_a_day_after_the_first(machine: Machine) -> None:
    machine.raised(AlertType.RECOVERY, NAME)
    assert machine.wait(hours=1) == []
    assert machine.raised(AlertType.RECOVERY, NAME) == []
    assert machine.wait(hours=22) == []

    [second] = machine.wait(hours=1)

    assert (second.count, second.first_at, second.last_at) == (2, NOON, NOON + timedelta(hours=1))
    assert second.state == "open"


def test_an_occurrence_more_than_a_day_later_is_notified_at_once(machine: Machine) -> None:
    machine.raised(AlertType.RECOVERY, NAME)
    machine.wait(hours=23.5)
    assert machine.raised(AlertType.RECOVERY, NAME, at=NOON + timedelta(hours=1)) == []
    machine.now += timedelta(hours=1)

    [notified] = machine.raised(AlertType.RECOVERY, NAME)

    assert notified.count == 3


def test_an_older_occurrence_is_ignored(machine: Machine) -> None:
    machine.raised(AlertType.RECOVERY, NAME)

    assert machine.raised(AlertType.RECOVERY, NAME, at=NOON - timedelta(hours=3)) == []
    assert machine.alert(AlertType.RECOVERY, NAME).count == 1


def test_an_event_is_resolved_silently_after_a_quiet_day(machine: Machine) -> None:
    machine.raised(AlertType.RECOVERY, NAME)

    assert machine.wait(hours=23.9) == []
    assert machine.alert(AlertType.RECOVERY, NAME).state == "open"
    assert machine.wait(hours=0.2) == []
    assert machine.alert(AlertType.RECOVERY, NAME).state == "resolved"


def test_a_resolved_event_is_opened_only_by_a_new_occurrence(machine: Machine) -> None:
    machine.raised(AlertType.RECOVERY, NAME)
    machine.wait(days=1)

    assert machine.raised(AlertType.RECOVERY, NAME, at=NOON) == []
    [opened] = machine.raised(AlertType.RECOVERY, NAME)

    assert opened.count == 1
    assert opened.id != machine.notified[0].id


def test_a_clearing_signal_does_not_resolve_an_event(machine: Machine) -> None:
    machine.raised(AlertType.RECOVERY, NAME)

    assert machine.cleared(AlertType.RECOVERY, NAME) == []
    assert machine.alert(AlertType.RECOVERY, NAME).state == "open"


# conditions


@pytest.mark.parametrize("type", CONDITIONS)
def test_a_condition_is_notified_daily_and_once_at_its_end(type: AlertType) -> None:
    machine = Machine()
    machine.raised(type, NAME)
    for _ in range(3 * 24 * 2):
        machine.wait(minutes=30)
        machine.raised(type, NAME)

    [end] = machine.cleared(type, NAME)
    assert machine.cleared(type, NAME) == []
    for _ in range(10):
        assert machine.wait(days=1) == []

    assert [alert.count for alert in machine.notified] == [1, 2, 3, 4, 4]
    assert {alert.id for alert in machine.notified} == {end.id}
    assert end.state == "resolved"


def test_a_condition_is_repeated_even_if_it_is_not_raised_again(machine: Machine) -> None:
    machine.raised(AlertType.WRONG_MOUNT)

    assert [len(machine.wait(hours=12)) for _ in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize("type", QUIET_CONDITIONS)
def test_a_quiet_condition_is_notified_once_and_at_its_end(type: AlertType) -> None:
    machine = Machine()
    machine.raised(type, NAME)
    for _ in range(5):
        assert machine.wait(days=1) == []
        assert machine.raised(type, NAME) == []

    machine.cleared(type, NAME)

    assert [alert.state for alert in machine.notified] == ["open", "resolved"]


def test_information_is_notified_once_and_at_its_end(machine: Machine) -> None:
    usage(machine, 50)
    for _ in range(5):
        assert machine.wait(days=1) == []
        assert usage(machine, 50) == []

    [end] = machine.cleared(AlertType.USAGE)

    assert end.severity is Severity.INFO


def test_a_condition_that_returns_opens_a_new_alert(machine: Machine) -> None:
    machine.raised(AlertType.WRONG_MOUNT)
    machine.wait(hours=1)
    machine.cleared(AlertType.WRONG_MOUNT)
    machine.wait(hours=1)

    [opened] = machine.raised(AlertType.WRONG_MOUNT)

    assert (opened.state, opened.count, opened.first_at) == ("open", 1, machine.now)
    assert opened.id != machine.notified[0].id


def test_a_signal_from_before_the_resolution_does_not_open_the_alert_again(
    machine: Machine,
) -> None:
    seen_at = machine.now
    machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=seen_at)
    machine.wait(hours=1)
    machine.cleared(AlertType.UNRECOVERABLE_DOCUMENT, NAME)
    machine.wait(minutes=1)

    assert machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=seen_at) == []
    assert len(machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=machine.now)) == 1


def test_each_type_and_subject_has_its_own_alert(machine: Machine) -> None:
    for alert_type in (AlertType.JOB_FAILED, AlertType.JOB_OVERDUE):
        for job in ("usage", "export"):
            assert len(machine.raised(alert_type, job)) == 1
    assert [alert.document for alert in machine.notified] == [None] * 4
    assert [alert.details["job"] for alert in machine.notified[:2]] == ["usage", "export"]
    [of_document] = machine.raised(AlertType.RECOVERY, NAME)
    assert (of_document.document, of_document.details["document"]) == (NAME, NAME)


# worse


def test_a_higher_severity_is_notified_at_once(machine: Machine) -> None:
    machine.raised(AlertType.DAYS_UNTIL_FULL, days=10)
    machine.wait(minutes=5)

    [worse] = machine.raised(AlertType.DAYS_UNTIL_FULL, severity=Severity.CRITICAL, days=2)

    assert (worse.severity, worse.count, worse.details["days"]) == (Severity.CRITICAL, 2, 2)


def test_a_worse_event_is_notified_at_once(machine: Machine) -> None:
    machine.raised(AlertType.RECOVERY, NAME)
    machine.wait(minutes=5)

    [worse] = machine.raised(AlertType.RECOVERY, NAME, severity=Severity.CRITICAL)

    assert (worse.severity, worse.count) == (Severity.CRITICAL, 2)


def test_each_higher_level_of_usage_is_notified_at_once(machine: Machine) -> None:
    notified = []
    for level_percent in (50, 80, 90, 95):
        notified += usage(machine, level_percent)
        assert usage(machine, level_percent) == []
        machine.wait(minutes=5)

    assert [alert.details["level_percent"] for alert in notified] == [50, 80, 90, 95]


@pytest.mark.parametrize(("reached", "left_for"), [(95, 50), (95, 90), (90, 80), (80, 50)])
def test_a_level_of_usage_that_was_left_is_notified_when_it_is_reached_again(
    machine: Machine, reached: int, left_for: int
) -> None:
    usage(machine, reached)
    machine.wait(minutes=5)
    assert usage(machine, left_for) == []
    machine.wait(minutes=5)

    [again] = usage(machine, reached)

    assert again.details["level_percent"] == reached
    machine.wait(minutes=5)
    assert usage(machine, reached) == []


def test_the_resolution_has_the_worst_severity_that_was_notified(machine: Machine) -> None:
    for level_percent in (80, 95, 50):
        usage(machine, level_percent)
    assert machine.alert(AlertType.USAGE).severity is Severity.INFO

    [end] = machine.cleared(AlertType.USAGE)

    assert end.severity is Severity.CRITICAL


def test_details_change_without_a_notification(machine: Machine) -> None:
    machine.raised(AlertType.DAYS_UNTIL_FULL, days=10)
    machine.wait(hours=1)

    assert machine.raised(AlertType.DAYS_UNTIL_FULL, days=9) == []
    assert machine.alert(AlertType.DAYS_UNTIL_FULL).details == {"days": 9}


@without_deadline
@given(
    st.sampled_from(Severity), st.sampled_from(Severity), st.integers(0, 100), st.integers(0, 100)
)
def test_severity_outranks_every_level(a: Severity, b: Severity, of_a: int, of_b: int) -> None:
    alert = Machine().raised(AlertType.USAGE)[0]
    first = replace(alert, severity=a, details={"level_percent": of_a})
    second = replace(alert, severity=b, details={"level_percent": of_b})

    assert (rank_of(first) > rank_of(second)) == ((a.rank, of_a) > (b.rank, of_b))


# a clock that is set back


def test_a_clock_set_back_notifies_no_occurrence_twice(machine: Machine) -> None:
    happened_at = machine.now
    machine.raised(AlertType.RECOVERY, NAME, at=happened_at)
    machine.wait(hours=-3)

    for _ in range(100):
        assert machine.raised(AlertType.RECOVERY, NAME, at=happened_at) == []
        assert machine.wait(minutes=6) == []

    assert machine.alert(AlertType.RECOVERY, NAME).count == 1


def test_a_clock_set_back_hides_no_new_event(machine: Machine) -> None:
    machine.raised(AlertType.RECOVERY, NAME)
    machine.wait(days=-365)

    notified = machine.raised(AlertType.RECOVERY, NAME, at=machine.now)

    assert [alert.count for alert in notified] == [2]
    assert machine.wait(hours=1) == []
    assert machine.alert(AlertType.RECOVERY, NAME).last_at < NOON


def test_a_clock_set_back_repeats_a_condition_once_and_then_daily(machine: Machine) -> None:
    machine.raised(AlertType.WRONG_MOUNT)

    assert len(machine.wait(days=-365)) == 1
    assert [len(machine.wait(hours=12)) for _ in range(4)] == [0, 1, 0, 1]


def test_a_clock_set_back_opens_no_resolved_alert(machine: Machine) -> None:
    seen_at = machine.now
    machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=seen_at)
    machine.wait(hours=-1)
    machine.cleared(AlertType.UNRECOVERABLE_DOCUMENT, NAME)

    for _ in range(10):
        machine.wait(seconds=2)
        assert machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=seen_at) == []


# too many


def test_too_many_alerts_of_a_type_become_one_more_of_type_many(machine: Machine) -> None:
    for number in range(200):
        machine.raised(AlertType.RECOVERY, f"d{number}.json")

    assert [alert.type for alert in machine.notified] == (
        [AlertType.RECOVERY] * OPEN_OF_A_TYPE_MAX + [AlertType.MANY]
    )
    assert machine.notified[-1].details == {"type": "recovery"}
    assert machine.notified[-1].severity is Severity.CRITICAL


def test_open_alerts_go_on_however_many_there_are(machine: Machine) -> None:
    for number in range(OPEN_OF_A_TYPE_MAX + 5):
        machine.raised(AlertType.JOB_FAILED, f"job {number}")

    assert len(machine.cleared(AlertType.JOB_FAILED, "job 3")) == 1
    [worse] = machine.raised(AlertType.JOB_FAILED, "job 4", severity=Severity.CRITICAL)
    assert worse.type is AlertType.JOB_FAILED


def test_what_too_many_alerts_covered_is_not_reported_when_others_are_over(
    machine: Machine,
) -> None:
    """The signals of a document's break are repeated for days, also after its repair."""
    names = [f"d{number}.json" for number in range(OPEN_OF_A_TYPE_MAX + 50)]
    happened_at = machine.now
    for name in names:
        machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, name, at=happened_at)
    for name in names[:OPEN_OF_A_TYPE_MAX]:
        machine.cleared(AlertType.UNRECOVERABLE_DOCUMENT, name)
    for _ in range(6 * 24):
        machine.wait(hours=1)
        for name in names:
            assert machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, name, at=happened_at) == []

    [new] = machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, "new.json")
    assert new.type is AlertType.UNRECOVERABLE_DOCUMENT


def test_a_repeated_signal_of_a_resolved_alert_is_not_too_many(machine: Machine) -> None:
    happened_at = machine.now
    machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=happened_at)
    machine.cleared(AlertType.UNRECOVERABLE_DOCUMENT, NAME)
    for number in range(OPEN_OF_A_TYPE_MAX):
        machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, f"d{number}.json")

    assert machine.raised(AlertType.UNRECOVERABLE_DOCUMENT, NAME, at=happened_at) == []


def test_many_alerts_of_one_type_do_not_limit_another(machine: Machine) -> None:
    for number in range(OPEN_OF_A_TYPE_MAX + 5):
        machine.raised(AlertType.RECOVERY, f"d{number}.json")

    [other] = machine.raised(AlertType.BLANK_SAVE, "d39.json")
    assert other.type is AlertType.BLANK_SAVE


# how long states are kept


def test_a_resolved_alert_is_kept_for_a_week_and_an_open_one_always(machine: Machine) -> None:
    machine.raised(AlertType.WRONG_MOUNT)
    machine.raised(AlertType.JOB_FAILED, "usage")
    machine.cleared(AlertType.JOB_FAILED, "usage")

    assert retained(machine.states, machine.now + RESOLVED_KEPT_FOR) == machine.states
    later = retained(machine.states, machine.now + timedelta(days=400))
    assert set(later) == {(AlertType.WRONG_MOUNT, "")}


def test_the_oldest_of_too_many_resolved_alerts_are_dropped(machine: Machine) -> None:
    for number in range(RESOLVED_KEPT_MAX + 10):
        machine.raised(AlertType.JOB_FAILED, f"job {number}")
        machine.cleared(AlertType.JOB_FAILED, f"job {number}")
        machine.wait(seconds=1)

    dropped = machine.states.keys() - retained(machine.states, machine.now).keys()

    assert dropped == {(AlertType.JOB_FAILED, f"job {number}") for number in range(10)}


def test_a_resolved_alert_is_kept_longer_than_its_signals_are_repeated() -> None:
    assert RESOLVED_KEPT_FOR > QUIET


def test_the_test_alert_is_information() -> None:
    alert = trial(NOON)

    assert (alert.type, alert.severity, alert.state) == (AlertType.TEST, Severity.INFO, "open")


# any sequence of signals

Action = Callable[[Machine], object]


def _raising(type: AlertType, subject: str, severity: Severity | None, level: int) -> Action:
    return lambda machine: machine.raised(type, subject, severity=severity, level_percent=level)


def _clearing(type: AlertType, subject: str) -> Action:
    return lambda machine: (type, subject) in machine.states and machine.cleared(type, subject)


def _waiting(hours: float) -> Action:
    return lambda machine: machine.wait(hours=hours)


_types = st.sampled_from(
    [AlertType.RECOVERY, AlertType.USAGE, AlertType.WRONG_MOUNT, AlertType.BACKUP_DAMAGED]
)
_subjects = st.sampled_from(["a.json", "b.json"])
_raises = st.builds(
    _raising,
    _types,
    _subjects,
    st.none() | st.sampled_from(Severity),
    st.sampled_from([50, 80, 95]),
)
_clears = st.builds(_clearing, _types, _subjects)
_waits = st.builds(_waiting, st.sampled_from([0.001, 1.0, 12.0, 24.0, 30.0]))
_actions = st.lists(_raises | _raises | _clears | _waits, max_size=60)


def _has_levels(state: AlertState) -> bool:
    kind = KIND_OF[state.alert.type]
    return kind.course != "event" and bool(kind.rises_with)


class CheckedMachine(Machine):
    """A machine that compares each notification with the last one of the same subject."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[tuple[AlertType, str], tuple[datetime, Alert]] = {}
        self.lowest: dict[tuple[AlertType, str], int] = {}
        """The lowest rank since the last notification, of a condition with levels."""

    def _enter(self, transition: Transition) -> list[Alert]:
        state, notified = transition[0], super()._enter(transition)
        for alert in notified:
            self._check(state, alert)
        if notified or (_has_levels(state) and rank_of(state.alert) < self.lowest[state.key]):
            self.lowest[state.key] = rank_of(state.alert)
        return notified

    def _check(self, state: AlertState, alert: Alert) -> None:
        at, before = self.last.get(state.key, (None, None))
        again = before is not None and before.id == alert.id
        if before is not None and before.state == "resolved":
            assert not again, "a resolved alert was notified again"
        if alert.state == "resolved":
            assert again, "a resolution without a notification before it"
        elif before is not None and again and at is not None and self.now - at < RENOTIFY:
            assert rank_of(alert) > self.lowest[state.key], "notified twice within a day, no worse"
        self.last[state.key] = (self.now, alert)


@without_deadline
@given(_actions)
def test_an_alert_is_notified_again_within_a_day_only_if_it_is_worse_or_new(
    actions: list[Action],
) -> None:
    machine = CheckedMachine()
    for act in actions:
        act(machine)


@without_deadline
@given(_actions)
def test_a_state_agrees_with_its_notifications(actions: list[Action]) -> None:
    machine = Machine()
    for act in actions:
        act(machine)
        for state in machine.states.values():
            alert = state.alert
            assert alert.first_at <= alert.last_at <= machine.now
            assert 1 <= state.notified_count <= alert.count
            assert state.notified_at <= machine.now
            notified = [
                earlier
                for earlier in machine.notified
                if earlier.id == alert.id and earlier.state == "open"
            ]
            assert state.notified_rank <= max(map(rank_of, notified))
            assert _has_levels(state) or state.notified_rank >= rank_of(notified[-1])
            assert max(earlier.severity.rank for earlier in notified) == state.worst.rank


@without_deadline
@given(_actions, st.integers(0, 60), st.floats(0.1, 10_000))
def test_a_clock_set_back_once_adds_few_messages_for_each_alert(
    actions: list[Action], when: int, back_h: float
) -> None:
    """One alert that the steady clock joins to the last one, and one for a day that shifted.

    The first has at most four messages: that it opened, that it became worse twice, that it ended.
    """
    steady, jumping = Machine(), Machine()
    for number, act in enumerate(actions):
        if number == when:
            jumping.now -= timedelta(hours=back_h)
        act(steady)
        act(jumping)

    more = len(jumping.notified) - len(steady.notified)
    assert more <= 5 * len(jumping.states)


@without_deadline
@given(st.lists(st.integers(0, 100 * 60), unique=True, max_size=12))
def test_each_occurrence_is_counted_once_however_often_it_is_raised(minutes: list[int]) -> None:
    machine, counts = Machine(), dict[str, int]()
    occurrences = [NOON + timedelta(minutes=minute) for minute in sorted(minutes)]
    for _ in range(60):
        for at in occurrences:
            if at <= machine.now:
                machine.raised(AlertType.RECOVERY, NAME, at=at)
        if occurrences and occurrences[0] <= machine.now:
            alert = machine.alert(AlertType.RECOVERY, NAME)
            counts[alert.id] = alert.count
        machine.wait(hours=2)

    assert sum(counts.values()) == len(occurrences)


# alerts.json


def written_and_read(file: AlertsFile) -> AlertsFile:
    return msgspec.json.decode(msgspec.json.encode(file), type=AlertsFile)


@without_deadline
@given(_actions)
def test_a_file_is_read_as_it_was_written(actions: list[Action]) -> None:
    machine = Machine()
    for act in actions:
        act(machine)
    waiting = {"chat": tuple(machine.notified), "phone": tuple(machine.notified[:1])}
    file = AlertsFile(alerts=tuple(machine.states.values()), waiting=waiting)

    assert written_and_read(file) == file


def test_instants_are_kept_to_the_microsecond() -> None:
    at = datetime(2025, 1, 6, 12, 0, 0, 123_456, tzinfo=UTC)
    signal = Raised(type=AlertType.RECOVERY, subject=NAME, at=at)
    state, _ = on_raised(None, signal, now=at, renotify=RENOTIFY)

    [kept] = written_and_read(AlertsFile(alerts=(state,), waiting={})).alerts

    assert on_raised(kept, signal, now=at, renotify=RENOTIFY) == (kept, False)
    assert kept.alert.last_at == at


def test_a_file_of_an_earlier_version_is_read() -> None:
    alert = {
        "id": "0123456789abcdef",
        "type": "recovery",
        "severity": "warning",
        "state": "open",
        "document": NAME,
        "summary": "It was broken.",
        "details": {"verdict": "torn", "names": ["a", 1, None]},
        "fix": "",
        "first_at": "2025-01-06T12:00:00.123456+00:00",
        "last_at": "2025-01-06T12:00:00+00:00",
        "count": 2,
    }
    state = {
        "subject": NAME,
        "alert": alert,
        "told_at": "2025-01-06T12:00:00+00:00",
        "told_count": 1,
        "told_rank": 1000,
        "worst": "warning",
    }
    file = {"format": 1, "alerts": [state], "waiting": {"chat": [alert]}}

    read = msgspec.json.decode(json.dumps(file), type=AlertsFile)

    [kept] = read.alerts
    assert (kept.notified_at, kept.notified_count, kept.notified_rank) == (NOON, 1, 1000)
    assert kept.alert.first_at == NOON + timedelta(microseconds=123_456)
    assert read.waiting == {"chat": (kept.alert,)}
    assert msgspec.to_builtins(kept).keys() == state.keys()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "flood"),
        ("severity", "terrible"),
        ("state", "ended"),
        ("details", []),
        ("last_at", "yesterday"),
        ("last_at", "0001-01-01T00:00:00+14:00"),
        ("count", "1"),
    ],
)
def test_a_file_with_a_wrong_field_is_refused(field: str, value: Json) -> None:
    [alert] = Machine().raised(AlertType.RECOVERY, NAME)
    file = msgspec.to_builtins(AlertsFile(alerts=(), waiting={"chat": (alert,)}))
    file["waiting"]["chat"][0][field] = value

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(file), type=AlertsFile)


@without_deadline
@given(json_values)
def test_another_json_value_is_refused_as_a_file(value: Json) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(json.dumps(value), type=AlertsFile)
