"""When a delivery is retried, and which alerts are dropped if too many wait."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from seline.domain.alerts.lifecycle import Alert, Severity, trial
from seline.domain.alerts.retry import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    RETRY_AFTER_MAX_S,
    WAITING_AGE_MAX,
    WAITING_MAX,
    backoff_s,
    bounded,
)
from tests.unit.values import NOON

without_deadline = settings(deadline=None)
jitters = st.floats(0, 1)
failures = st.integers(1, 10_000)


def an_alert(*, severity: Severity = Severity.WARNING, age_s: float = 0) -> Alert:
    return replace(trial(NOON), severity=severity, last_at=NOON - timedelta(seconds=age_s))


def many(count: int, severity: Severity = Severity.WARNING) -> list[Alert]:
    return [an_alert(severity=severity) for _ in range(count)]


# when to retry


def test_the_wait_doubles_from_two_seconds_to_five_minutes() -> None:
    waits = [backoff_s(count, jitter=0.0) for count in range(1, 11)]

    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@without_deadline
@given(failures, jitters)
def test_jitter_shortens_a_wait_by_half_at_most(count: int, jitter: float) -> None:
    longest = backoff_s(count, jitter=0.0)

    assert longest / 2 <= backoff_s(count, jitter=jitter) <= longest
    assert backoff_s(count, jitter=1.0) == longest / 2


@without_deadline
@given(failures, jitters)
def test_a_wait_is_bounded_and_never_shrinks_with_failures(count: int, jitter: float) -> None:
    wait_s = backoff_s(count, jitter=jitter)

    assert BACKOFF_FIRST_S / 2 <= wait_s <= BACKOFF_MAX_S
    assert backoff_s(count + 1, jitter=jitter) >= wait_s


@without_deadline
@given(failures, jitters, st.floats(0, RETRY_AFTER_MAX_S))
def test_a_retry_never_comes_before_the_retry_time_of_the_sink(
    count: int, jitter: float, asked_s: float
) -> None:
    wait_s = backoff_s(count, jitter=jitter, retry_after_s=asked_s)

    assert wait_s == max(asked_s, backoff_s(count, jitter=jitter))


@pytest.mark.parametrize("asked_s", [3601.0, 86_400.0, float("inf")])
def test_a_retry_time_counts_up_to_an_hour(asked_s: float) -> None:
    assert backoff_s(1, jitter=0.5, retry_after_s=asked_s) == RETRY_AFTER_MAX_S


@pytest.mark.parametrize("asked_s", [None, 0.0, -5.0, float("-inf"), float("nan")])
def test_an_invalid_retry_time_changes_nothing(asked_s: float | None) -> None:
    assert backoff_s(1, jitter=0.0, retry_after_s=asked_s) == BACKOFF_FIRST_S


# which alerts are dropped


def test_an_alert_is_dropped_after_a_week() -> None:
    week_s = WAITING_AGE_MAX.total_seconds()
    old, fresh = an_alert(age_s=week_s + 1), an_alert(age_s=week_s)

    assert bounded([old, fresh], NOON) == (fresh,)


def test_none_is_dropped_up_to_the_limit() -> None:
    waiting = many(WAITING_MAX)

    assert bounded(waiting, NOON) == tuple(waiting)


def test_the_least_severe_of_too_many_are_dropped_first() -> None:
    critical, warning, info = (
        many(count, severity)
        for count, severity in (
            (WAITING_MAX - 50, Severity.CRITICAL),
            (50, Severity.WARNING),
            (9, Severity.INFO),
        )
    )

    assert bounded([*info, *critical, *warning], NOON) == (*critical, *warning)


def test_the_oldest_of_the_same_severity_are_dropped_first() -> None:
    waiting = [an_alert(age_s=-number) for number in range(WAITING_MAX + 3)]

    assert bounded(waiting, NOON) == tuple(waiting[3:])


def test_the_limit_holds_for_critical_alerts_too() -> None:
    assert len(bounded(many(1000, Severity.CRITICAL), NOON)) == WAITING_MAX


@without_deadline
@given(
    st.lists(
        st.builds(an_alert, severity=st.sampled_from(Severity), age_s=st.floats(-1e6, 1e6)),
        max_size=400,
    )
)
def test_kept_alerts_keep_their_order_and_are_as_severe_as_dropped_ones(
    alerts: list[Alert],
) -> None:
    kept = bounded(alerts, NOON)
    places = {id(alert): place for place, alert in enumerate(alerts)}

    assert len(kept) <= WAITING_MAX
    assert [places[id(alert)] for alert in kept] == sorted(places[id(alert)] for alert in kept)
    fresh = [alert for alert in alerts if NOON - alert.last_at <= WAITING_AGE_MAX]
    assert len(kept) == min(len(fresh), WAITING_MAX)
    dropped = [alert.severity.rank for alert in fresh if id(alert) not in set(map(id, kept))]
    assert not dropped or max(dropped) <= min(alert.severity.rank for alert in kept)
