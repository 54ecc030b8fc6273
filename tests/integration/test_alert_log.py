"""The alert log over a real store: every failure of a sink, of the disk and of the record."""

import asyncio
import errno
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from seline import open_seline
from seline.alerts.log import AlertLog
from seline.alerts.process import EVALUATE_EVERY_S
from seline.alerts.queue import BURST_MAX_S, BURST_S, SINGLE_MAX
from seline.domain.alerts.lifecycle import (
    OPEN_OF_A_TYPE_MAX,
    Alert,
    AlertType,
    Cleared,
    Raised,
    Severity,
)
from seline.domain.alerts.message import body
from seline.domain.alerts.retry import WAITING_MAX
from seline.domain.document import Json
from seline.library import Seline
from seline.manager import ManagedStore
from seline.outbound.alert_sinks import NTFY_CHARACTERS_MAX
from seline.ports.alerts import Delivery
from tests.clocks import FakeClock
from tests.stores import managed, open_store

NAME = "user_profile.json"
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SECRET = "s3cret-0123456789"
Answer = Callable[[Alert], Awaitable[Delivery]]


class FakeSink:
    """A sink that records its alerts, and answers as the test sets it."""

    kind = "chat"

    def __init__(
        self, name: str = "chat", *, min_severity: Severity = Severity.INFO, alive: bool = True
    ) -> None:
        self.name = name
        self.min_severity = min_severity
        self.alive = alive
        self.answer: Answer | None = None
        self.attempts = 0
        self.received: list[Alert] = []

    async def send(self, alert: Alert) -> Delivery:
        self.attempts += 1
        if self.answer is not None:
            return await self.answer(alert)
        return self.confirmed(alert) if self.alive else self.failed("it answered 503")

    def confirmed(self, alert: Alert) -> Delivery:
        self.received.append(alert)
        return Delivery(sink=self.name, kind=self.kind, delivered=True)

    def failed(
        self, detail: str, *, refused: bool = False, retry_after_s: float | None = None
    ) -> Delivery:
        return Delivery(
            sink=self.name,
            kind=self.kind,
            delivered=False,
            detail=detail,
            refused=refused,
            retry_after_s=retry_after_s,
        )

    @property
    def types(self) -> list[AlertType]:
        return [alert.type for alert in self.received]

    @property
    def subjects(self) -> list[Json]:
        return [alert.details.get("job", alert.document) for alert in self.received]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send an alert without waiting for the end of a burst."""
    monkeypatch.setattr("seline.alerts.queue.BURST_S", 0.0)


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


def a_log(seline: Seline | ManagedStore, clock: FakeClock, *sinks: FakeSink) -> AlertLog:
    """Return an alert log over a store, with a clock that the test moves."""
    store = seline.store if isinstance(seline, Seline) else seline
    return AlertLog(store, sinks, clock=clock, jitter=lambda: 0.0)


async def kept(seline: Seline) -> Json:
    """Return the content of `alerts.json`."""
    state = seline.store.state("alerts.json", object, lambda: None)
    return cast("Json", await state.load())


@asynccontextmanager
async def running(directory: Path, clock: FakeClock, *sinks: FakeSink) -> AsyncIterator[AlertLog]:
    """Open the store and its alert log as a process does, and close them in reverse."""
    async with open_seline(directory) as seline:
        log = a_log(seline, clock, *sinks)
        await log.load()
        yield log
        await log.close()


@pytest.fixture
async def log(seline: Seline, clock: FakeClock, sink: FakeSink) -> AsyncIterator[AlertLog]:
    log = a_log(seline, clock, sink)
    await log.load()
    yield log
    await log.close()


async def raised(log: AlertLog, type: AlertType, subject: str = "", **fields: Any) -> None:
    await log.take((Raised(type=type, subject=subject, **fields),))


async def cleared(log: AlertLog, type: AlertType, subject: str = "") -> None:
    await log.take((Cleared(type=type, subject=subject),))


async def failing(log: AlertLog, count: int = 1, *, first: int = 0) -> None:
    """Raise the alerts of a number of failed jobs."""
    for number in range(first, first + count):
        await raised(log, AlertType.JOB_FAILED, f"job {number}")


# which sinks get an alert


async def test_an_alert_reaches_every_sink_of_its_severity(
    seline: Seline, clock: FakeClock
) -> None:
    sinks = [FakeSink(severity.value, min_severity=severity) for severity in Severity]
    log = a_log(seline, clock, *sinks)
    await log.load()

    await raised(log, AlertType.USAGE, severity=Severity.INFO, details={"percent": 50})
    await raised(log, AlertType.JOB_FAILED, "usage")
    await raised(log, AlertType.WRONG_MOUNT)
    await log.deliver_due()

    types = [AlertType.USAGE, AlertType.JOB_FAILED, AlertType.WRONG_MOUNT]
    assert [sink.types for sink in sinks] == [types, types[1:], types[2:]]
    await log.close()


async def test_a_sink_that_got_the_worst_severity_gets_the_resolution(
    seline: Seline, clock: FakeClock
) -> None:
    phone = FakeSink("phone", min_severity=Severity.CRITICAL)
    log = a_log(seline, clock, phone)
    await log.load()

    for severity in (Severity.WARNING, Severity.CRITICAL, Severity.WARNING):
        await raised(log, AlertType.DAYS_UNTIL_FULL, severity=severity)
    await log.deliver_due()
    await cleared(log, AlertType.DAYS_UNTIL_FULL)
    await log.deliver_due()

    assert [alert.state for alert in phone.received] == ["open", "resolved"]
    await log.close()


async def test_clearing_a_condition_that_was_never_raised_does_nothing(
    log: AlertLog, sink: FakeSink
) -> None:
    await cleared(log, AlertType.WRONG_MOUNT)
    await log.deliver_due()

    assert sink.received == []
    assert log.listing() == []


async def test_the_listing_has_open_alerts_first_then_the_latest(
    log: AlertLog, clock: FakeClock
) -> None:
    for number in range(3):
        clock.advance(60)
        await failing(log, first=number)
    clock.advance(60)
    await cleared(log, AlertType.JOB_FAILED, "job 1")

    shown = [(alert.state, alert.details["job"]) for alert in log.listing()]

    assert shown == [("open", "job 2"), ("open", "job 0"), ("resolved", "job 1")]


async def test_signals_are_applied_in_order(log: AlertLog, sink: FakeSink) -> None:
    begun, over = Raised(type=AlertType.WRONG_MOUNT), Cleared(type=AlertType.WRONG_MOUNT)

    await log.take([begun, begun, over, over])
    await log.deliver_due()

    assert [(alert.state, alert.count) for alert in sink.received] == [("resolved", 1)]


# repeated and kept


async def test_a_condition_is_notified_daily_and_its_end_once(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    await raised(log, AlertType.WRONG_MOUNT)
    for _ in range(48):
        clock.advance(HOUR_S)
        await log.deliver_due()
    await cleared(log, AlertType.WRONG_MOUNT)
    clock.advance(DAY_S)
    await log.deliver_due()

    assert [(alert.state, alert.count) for alert in sink.received] == [
        ("open", 1), ("open", 2), ("open", 3), ("resolved", 3)
    ]  # fmt: skip
    assert len({alert.id for alert in sink.received}) == 1


async def test_a_resolved_alert_is_listed_for_a_week(log: AlertLog, clock: FakeClock) -> None:
    await raised(log, AlertType.WRONG_MOUNT)
    await cleared(log, AlertType.WRONG_MOUNT)

    clock.advance(7 * DAY_S)
    await log.deliver_due()
    assert len(log.listing()) == 1
    clock.advance(1)
    await log.deliver_due()
    assert log.listing() == []


# a restart


async def test_a_restart_loses_neither_open_nor_waiting_alerts(
    tmp_path: Path, clock: FakeClock
) -> None:
    dead, alive = FakeSink("dead", alive=False), FakeSink("alive")
    async with running(tmp_path, clock, dead, alive) as log:
        await raised(log, AlertType.RECOVERY, NAME, details={"verdict": "torn"})
        await raised(log, AlertType.WRONG_MOUNT)
        await log.deliver_due()
        before = log.listing()

    dead.alive = True
    async with running(tmp_path, clock, dead, alive) as log:
        await log.deliver_due()
        assert log.listing() == before

    assert dead.types == alive.types == [AlertType.RECOVERY, AlertType.WRONG_MOUNT]
    assert dead.received == alive.received


async def test_a_restart_notifies_nothing_again(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    happened_at = clock.now()
    for _ in range(4):
        async with running(tmp_path, clock, sink) as log:
            await raised(log, AlertType.RECOVERY, NAME, at=happened_at)
            await raised(log, AlertType.WRONG_MOUNT)
            await log.deliver_due()
        clock.advance(60)

    assert sink.types == [AlertType.RECOVERY, AlertType.WRONG_MOUNT]


async def test_a_condition_continues_across_restarts(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    for _ in range(5):
        async with running(tmp_path, clock, sink) as log:
            await raised(log, AlertType.WRONG_MOUNT)
            await log.deliver_due()
        clock.advance(DAY_S / 2)
    async with running(tmp_path, clock, sink) as log:
        await cleared(log, AlertType.WRONG_MOUNT)
        await log.deliver_due()

    assert [(alert.state, alert.count) for alert in sink.received] == [
        ("open", 1), ("open", 2), ("open", 3), ("resolved", 3)
    ]  # fmt: skip


async def test_alerts_raised_before_the_load_are_merged_with_the_record(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    async with running(tmp_path, clock, FakeSink(alive=False)) as log:
        await failing(log)
    async with open_seline(tmp_path) as seline:
        log = a_log(seline, clock, sink)
        await raised(log, AlertType.WRONG_MOUNT)
        await log.deliver_due()
        assert sink.types == [AlertType.WRONG_MOUNT]
        await log.load()
        later = a_log(seline, clock)
        await later.load()
        assert later.listing() == log.listing(), "written at the load"
        await log.deliver_due()
        await log.close()

    assert sink.types == [AlertType.WRONG_MOUNT, AlertType.JOB_FAILED]


async def test_loaded_alerts_are_in_the_language_of_the_settings(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with running(tmp_path, clock) as log:
        await raised(log, AlertType.WRONG_MOUNT)
        [english] = log.listing()

    async with open_seline(tmp_path, alerts__language="fr") as seline:
        french = a_log(seline, clock)
        await french.load()
        [shown] = french.listing()

    assert shown.id == english.id
    assert shown.summary.startswith("Le répertoire")


# a sink that is renamed, added or removed


async def test_a_renamed_sink_gets_what_waited_and_what_is_open(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Its token was wrong: of three alerts one was delivered before, and one is over."""
    wrong, right = FakeSink("chat"), FakeSink("my chat")
    async with running(tmp_path, clock, wrong) as log:
        await raised(log, AlertType.WRONG_MOUNT)
        await log.deliver_due()
        wrong.alive = False
        await failing(log, 2)
        clock.advance(HOUR_S)
        await cleared(log, AlertType.JOB_FAILED, "job 1")
        await log.deliver_due()

    for _ in range(3):
        async with running(tmp_path, clock, right) as log:
            await log.deliver_due()

    found = {(alert.type, alert.details.get("job"), alert.state) for alert in right.received}
    assert found == {
        (AlertType.WRONG_MOUNT, None, "open"),
        (AlertType.JOB_FAILED, "job 0", "open"),
        (AlertType.JOB_FAILED, "job 1", "resolved"),
    }
    assert len(right.received) == 3, "once, and not again at each restart"


async def test_only_a_new_sink_gets_what_is_open_and_only_from_its_severity(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    phone = FakeSink("phone", min_severity=Severity.CRITICAL)
    async with running(tmp_path, clock, sink) as log:
        await raised(log, AlertType.WRONG_MOUNT)
        await failing(log)
        await log.deliver_due()
    async with running(tmp_path, clock, sink, phone) as log:
        await log.deliver_due()

    assert len(sink.received) == 2
    assert phone.types == [AlertType.WRONG_MOUNT]


async def test_what_waits_for_a_removed_sink_is_logged_when_it_is_dropped(
    tmp_path: Path, clock: FakeClock, sink: FakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, clock, sink, FakeSink("gone", alive=False)) as log:
        await failing(log, 2)
        await log.deliver_due()
    async with running(tmp_path, clock, sink):
        pass
    async with running(tmp_path, clock, sink):
        pass

    assert caplog.text.count("2 alerts were not delivered to a sink that is gone") == 1


async def test_a_command_that_only_lists_alerts_hands_nothing_over(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Its environment may lack the sinks of the server."""
    async with running(tmp_path, clock, FakeSink("chat", alive=False)) as log:
        await failing(log)
    async with open_seline(tmp_path) as seline:
        before = await kept(seline)
        command = a_log(seline, clock, FakeSink("log"))
        await command.load(deliver=False)
        await command.close()
        assert await kept(seline) == before


# a storm


def brokens(count: int = 100) -> list[str]:
    return [f"user_{number:03}.json" for number in range(count)]


@pytest.fixture
def bursts(monkeypatch: pytest.MonkeyPatch, at_once: None) -> None:
    """Wait for the end of a burst, as the product does."""
    monkeypatch.setattr("seline.alerts.queue.BURST_S", BURST_S)


@pytest.mark.prove
@pytest.mark.usefixtures("bursts")
@pytest.mark.parametrize("language", ["en", "fr"])
async def test_a_storm_is_one_message_and_its_end_another(
    tmp_path: Path, clock: FakeClock, sink: FakeSink, language: str
) -> None:
    async with open_seline(tmp_path, alerts__language=language) as seline:
        log = a_log(seline, clock, sink)
        await log.load()
        for number, name in enumerate(brokens()):
            await raised(log, AlertType.UNRECOVERABLE_DOCUMENT, name, details={"verdict": "torn"})
            if number % 10 == 0:
                clock.advance(2)
                await log.deliver_due()
        assert sink.received == []
        clock.advance(BURST_S)
        await log.deliver_due()
        for name in brokens():
            await cleared(log, AlertType.UNRECOVERABLE_DOCUMENT, name)
        clock.advance(BURST_S)
        await log.deliver_due()
        await log.close()

    begun, over = sink.received
    assert (begun.type, begun.state, begun.severity) == (AlertType.DIGEST, "open", "critical")
    assert (over.type, over.state) == (AlertType.DIGEST, "resolved")
    assert [entry["about"] for entry in begun.details["alerts"]] == brokens()
    for digest in sink.received:
        assert all(words in digest.summary for words in ("100", "user_000.json, user_001.json"))
        assert re.search(r"… \(\+\d\d\)", digest.summary), "those without room are counted"
        assert "`seline alerts`" in digest.fix
        assert len(body(digest, "en")) < NTFY_CHARACTERS_MAX


@pytest.mark.usefixtures("bursts")
async def test_a_few_alerts_are_messages_of_their_own(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    await failing(log, SINGLE_MAX)
    await log.deliver_due()
    assert sink.received == []
    clock.advance(BURST_S)
    await log.deliver_due()

    assert sink.subjects == [f"job {number}" for number in range(SINGLE_MAX)]


@pytest.mark.usefixtures("bursts")
async def test_a_storm_without_an_end_is_reported_every_minute(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    for number in range(90):
        await failing(log, first=number)
        clock.advance(2)
        await log.deliver_due()

    assert sink.types == [AlertType.DIGEST] * 3


@pytest.mark.usefixtures("bursts")
@pytest.mark.parametrize("every_s", [2, 4])
async def test_no_alert_of_an_endless_storm_waits_for_more_than_a_minute(
    log: AlertLog, clock: FakeClock, sink: FakeSink, every_s: int
) -> None:
    since_s: dict[Json, float] = {}
    waits_s: list[float] = []
    for tick in range(OPEN_OF_A_TYPE_MAX):
        if tick * EVALUATE_EVERY_S % every_s == 0:
            await raised(log, AlertType.UNRECOVERABLE_DOCUMENT, f"{tick}.json")
            since_s[f"{tick}.json"] = clock.monotonic()
        await log.deliver_due()
        for message in sink.received:
            entries = message.details.get("alerts", [{"about": message.document}])
            waits_s += [clock.monotonic() - since_s.pop(entry["about"]) for entry in entries]
        sink.received.clear()
        waits_s += [clock.monotonic() - raised_s for raised_s in since_s.values()]
        clock.advance(EVALUATE_EVERY_S)

    assert max(waits_s) <= BURST_MAX_S + EVALUATE_EVERY_S


@pytest.mark.usefixtures("bursts")
async def test_a_condition_that_changes_at_every_tick_is_delivered_within_a_minute(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    while not sink.received and clock.monotonic() < 400:
        clock.advance(EVALUATE_EVERY_S)
        await raised(log, AlertType.USAGE, details={"percent": clock.monotonic()})
        await log.deliver_due()

    assert clock.monotonic() <= BURST_MAX_S + 2 * EVALUATE_EVERY_S, "the alert was raised at 2 s"


@pytest.mark.usefixtures("bursts")
@pytest.mark.parametrize(
    ("type", "lasted_s", "is_sent"),
    [
        (AlertType.JOB_FAILED, 3, False),
        (AlertType.JOB_FAILED, 2 * HOUR_S, True),
        (AlertType.WRONG_MOUNT, 3, True),
    ],
)
async def test_an_alert_that_is_over_before_it_is_sent_is_one_message_or_none(
    log: AlertLog, clock: FakeClock, sink: FakeSink, type: AlertType, lasted_s: float, is_sent: bool
) -> None:
    """The end alone would be about an alert that the receiver did not get."""
    sink.alive = lasted_s < HOUR_S
    await raised(log, type, "usage", details={"what": "no room"})
    for _ in range(3):
        clock.advance(lasted_s / 3)
        await log.deliver_due()
    await cleared(log, type, "usage")
    sink.alive = True
    clock.advance(HOUR_S)
    await log.deliver_due()

    assert [alert.state for alert in sink.received] == ["resolved"] * is_sent
    for alert in sink.received:
        assert "Detail: no room. That is over. The " in alert.summary
    assert log.sinks()[0].waiting == 0
    assert [alert.state for alert in log.listing()] == ["resolved"]


@pytest.mark.usefixtures("bursts")
async def test_a_digest_tells_what_began_and_ended_from_what_ended(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    await raised(log, AlertType.UNRECOVERABLE_DOCUMENT, NAME)
    clock.advance(BURST_S)
    await log.deliver_due()
    for name in brokens(SINGLE_MAX):
        await raised(log, AlertType.UNRECOVERABLE_DOCUMENT, name)
    for name in (NAME, *brokens(SINGLE_MAX)):
        await cleared(log, AlertType.UNRECOVERABLE_DOCUMENT, name)
    clock.advance(BURST_S)
    await log.deliver_due()

    _, *lines = sink.received[-1].summary.split("\n")
    [brief] = [line for line in lines if "That is over." in line]
    [known] = [line for line in lines if line != brief]
    assert "user_000.json, user_001.json" in brief
    assert (NAME in known, "cannot be served" in known) == (True, False)


async def test_an_end_that_follows_a_refused_message_has_its_beginning(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    async def refusing(_alert: Alert) -> Delivery:
        await cleared(log, AlertType.WRONG_MOUNT)
        return sink.failed("it answered 400", refused=True)

    sink.answer = refusing
    await raised(log, AlertType.WRONG_MOUNT)
    await log.deliver_due()
    sink.answer = None
    clock.advance(HOUR_S)
    await log.deliver_due()

    [over] = sink.received
    assert (over.state, "That is over." in over.summary) == ("resolved", True)


async def test_a_digest_tells_what_was_lost_from_what_was_not(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    for number, name in enumerate(brokens(8)):
        lost = number % 2 == 0
        severity = Severity.CRITICAL if lost else None
        details: dict[str, Json] = {
            "verdict": "torn" if number < 4 else "altered",
            "lost_after": f"2025-01-0{number + 1}" if lost else "",
            "nothing_lost": not lost,
        }
        await raised(log, AlertType.RECOVERY, name, severity=severity, details=details)
    await log.deliver_due()

    [digest] = sink.received
    _, critical, warning = digest.summary.split("\n")
    assert "user_000.json, user_002.json, user_004.json, user_006.json" in critical
    assert "after 2025-01-01, 2025-01-03, 2025-01-05, 2025-01-07" in critical
    assert "Nothing is lost" not in critical
    assert "user_001.json" in warning
    assert "Nothing is lost" in warning
    assert (critical[0], warning[0]) == ("🚨", "⚠")


async def test_a_sink_that_was_down_for_six_days_gets_one_message_about_each_alert(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    sink.alive = False
    await raised(log, AlertType.WRONG_MOUNT)
    await raised(log, AlertType.RECOVERY, NAME, severity=Severity.CRITICAL)
    for _ in range(6):
        clock.advance(DAY_S)
        await raised(log, AlertType.WRONG_MOUNT)
        await raised(log, AlertType.RECOVERY, NAME)
        await log.deliver_due()
    sink.alive = True
    clock.advance(300)
    await log.deliver_due()

    mount, recovery = sink.received
    assert (mount.type, mount.count) == (AlertType.WRONG_MOUNT, 7)
    assert (recovery.type, recovery.severity) == (AlertType.RECOVERY, Severity.CRITICAL)


async def test_a_digest_that_is_refused_is_sent_one_by_one(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    async def picky(alert: Alert) -> Delivery:
        if alert.type is AlertType.DIGEST:
            return sink.failed("it answered 413", refused=True)
        return sink.confirmed(alert)

    sink.answer = picky
    await failing(log, 8)
    await log.deliver_due()
    clock.advance(10)
    await log.deliver_due()

    assert sink.subjects == [f"job {number}" for number in range(8)]


async def test_an_alert_that_changes_while_it_is_sent_is_delivered_once(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    async def slow(alert: Alert) -> Delivery:
        clock.advance(2)
        await raised(log, AlertType.WRONG_MOUNT)
        return sink.confirmed(alert)

    sink.answer = slow
    await raised(log, AlertType.WRONG_MOUNT)
    await log.deliver_due()
    await log.deliver_due()

    assert sink.types == [AlertType.WRONG_MOUNT]


# sinks that fail


async def test_everything_is_delivered_after_an_outage_of_an_hour(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    sink.alive = False
    for number in range(12):
        await failing(log, first=number)
        for _ in range(10):
            clock.advance(30)
            await log.deliver_due()
    assert sink.received == []
    assert sink.attempts < 30, "the attempts back off"
    assert log.sinks()[0].waiting == 12

    sink.alive = True
    clock.advance(300)
    await log.deliver_due()

    [digest] = sink.received
    jobs = [entry["about"] for entry in digest.details["alerts"]]
    assert jobs == [f"job {number}" for number in range(12)]
    [status] = log.sinks()
    assert (status.waiting, status.failures, status.detail) == (0, 0, "")
    assert (status.given_up, status.delivered_at) == (0, clock.now())


async def test_a_sink_is_not_tried_before_its_retry_time(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    async def busy(alert: Alert) -> Delivery:
        return sink.failed("it answered 429", retry_after_s=900)

    sink.answer = busy
    await failing(log)
    await log.deliver_due()
    for _ in range(14):
        clock.advance(60)
        await log.deliver_due()
    assert sink.attempts == 1

    clock.advance(60)
    await log.deliver_due()
    assert sink.attempts == 2


async def test_dead_hanging_and_raising_sinks_delay_no_other(
    seline: Seline, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.log.STOP_WAIT_S", 0.01)
    dead, hanging, raising, alive = map(FakeSink, ("dead", "hanging", "raising", "alive"))

    async def hang(alert: Alert) -> Delivery:
        await asyncio.sleep(60)
        raise AssertionError

    async def raise_(alert: Alert) -> Delivery:
        raise RuntimeError(f"https://hooks.example/{SECRET}")

    dead.alive, hanging.answer, raising.answer = False, hang, raise_
    log = a_log(seline, clock, dead, hanging, raising, alive)
    await log.load()

    async with asyncio.timeout(5):
        for number in range(5):
            await failing(log, first=number)
            await log.deliver_due(wait_s=0.01)
            clock.advance(10)
            assert len(alive.received) == number + 1
        status = {status.name: status for status in log.sinks()}
        await log.close()

    assert hanging.attempts == 1, "one alert at a time"
    assert [status[name].waiting for name in ("dead", "hanging", "raising", "alive")] == [
        5,
        5,
        5,
        0,
    ]
    assert "503" in status["dead"].detail
    assert status["raising"].detail == "a defect: RuntimeError"


async def test_alerts_whose_digest_cannot_be_composed_are_sent_one_by_one(
    log: AlertLog, clock: FakeClock, sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_alerts: object, _language: object) -> Alert:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("seline.alerts.queue.digest", broken)
    await failing(log, 8)
    await log.deliver_due()
    [status] = log.sinks()
    assert (status.waiting, status.failures) == (8, 1)
    assert status.detail == "a defect in the digest: RuntimeError"
    await failing(log, first=8)
    clock.advance(10)
    await log.deliver_due()

    assert sink.subjects == [f"job {number}" for number in range(9)]
    [status] = log.sinks()
    assert (status.waiting, status.given_up) == (0, 0)


async def test_an_attempt_that_hangs_times_out_and_is_retried(
    log: AlertLog, clock: FakeClock, sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.queue.SEND_S", 0.02)

    async def hang(alert: Alert) -> Delivery:
        await asyncio.sleep(60)
        raise AssertionError

    sink.answer = hang
    await failing(log)
    await log.deliver_due()
    assert "no answer within" in log.sinks()[0].detail

    sink.answer = None
    clock.advance(2)
    await log.deliver_due()
    assert sink.subjects == ["job 0"]


async def test_a_delivery_cancelled_at_the_stop_is_made_by_the_next_process(
    tmp_path: Path, clock: FakeClock, sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.log.STOP_WAIT_S", 0.01)

    async def hang(alert: Alert) -> Delivery:
        await asyncio.sleep(60)
        raise AssertionError

    sink.answer = hang
    async with running(tmp_path, clock, sink) as log:
        await failing(log)
        await log.deliver_due(wait_s=0.01)
    sink.answer = None
    async with running(tmp_path, clock, sink) as log:
        await log.deliver_due()

    assert sink.subjects == ["job 0"]


async def test_a_refused_alert_does_not_block_the_others(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    async def picky(alert: Alert) -> Delivery:
        if alert.details.get("job") == "job 0":
            return sink.failed("it answered 400", refused=True)
        return sink.confirmed(alert)

    sink.answer = picky
    await failing(log, 4)
    for _ in range(3):
        clock.advance(10)
        await log.deliver_due()

    assert sink.subjects == ["job 1", "job 2", "job 3"]
    assert log.sinks()[0].waiting == 1, "the refused alert stays in the queue"

    sink.answer = None
    clock.advance(300)
    await log.deliver_due()
    assert sink.subjects[-1] == "job 0"


async def test_the_least_severe_of_too_many_waiting_alerts_are_dropped_and_logged(
    seline: Seline, log: AlertLog, clock: FakeClock, sink: FakeSink,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    sink.alive = False
    await raised(log, AlertType.WRONG_MOUNT)
    for _ in range(WAITING_MAX // 20):
        for signal in (Raised, Cleared):
            jobs = [f"job {number}" for number in range(20)]
            await log.take(signal(type=AlertType.JOB_FAILED, subject=job) for job in jobs)
            clock.advance(60)

    [status] = log.sinks()
    assert status.waiting == WAITING_MAX
    assert status.given_up == 1, "of each alert only the last notification waits"
    assert "were dropped" in caplog.text
    record = cast("Any", await kept(seline))
    assert record["waiting"]["chat"][0]["type"] == AlertType.WRONG_MOUNT


async def test_an_alert_is_dropped_after_a_week_in_the_queue(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    sink.alive = False
    await raised(log, AlertType.RECOVERY, NAME)
    await log.deliver_due()
    clock.advance(7 * DAY_S + 1)
    await log.deliver_due()

    [status] = log.sinks()
    assert (status.waiting, status.given_up, sink.attempts) == (0, 1, 1)


async def test_a_failing_sink_is_logged_once(
    log: AlertLog, clock: FakeClock, sink: FakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.alive = False
    await failing(log)
    for _ in range(20):
        clock.advance(60)
        await log.deliver_due()

    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (
        len([record for record in warnings if "the alert sink chat fails" in record.message]) == 1
    )


# the test alert


async def test_the_test_alert_reaches_every_sink_and_is_not_kept(
    seline: Seline, clock: FakeClock
) -> None:
    phone = FakeSink("phone", min_severity=Severity.CRITICAL)
    dead, raising = FakeSink("dead", alive=False), FakeSink("raising")

    async def raise_(alert: Alert) -> Delivery:
        raise RuntimeError(SECRET)

    raising.answer = raise_
    log = a_log(seline, clock, phone, dead, raising)
    await log.load()

    deliveries = await log.test()

    assert [(delivery.sink, delivery.delivered) for delivery in deliveries] == [
        ("phone", True), ("dead", False), ("raising", False)
    ]  # fmt: skip
    assert SECRET not in repr(deliveries)
    assert phone.types == [AlertType.TEST]
    assert log.listing() == []
    assert [status.waiting for status in log.sinks()] == [0, 0, 0]
    assert await kept(seline) is None


# a store that cannot be read or written


class Disk:
    """A volume whose fsync calls can fail or hang."""

    def __init__(self, directory: Path, clock: FakeClock, patch: pytest.MonkeyPatch) -> None:
        self.clock = clock
        self.managed = managed(open_store(directory, clock), clock=clock)
        self._patch = patch

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Make every fsync fail."""
        with self._patch.context() as patch:
            patch.setattr(os, "fsync", self._fail)
            yield

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Make every fsync wait until the block ends."""
        release, fsync = threading.Event(), os.fsync

        def wait(descriptor: int) -> None:
            release.wait(10)
            fsync(descriptor)

        with self._patch.context() as patch:
            patch.setattr(os, "fsync", wait)
            yield
            release.set()

    def _fail(self, descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
async def disk(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Disk]:
    disk = Disk(tmp_path / "volume", clock, monkeypatch)
    yield disk
    await disk.managed.close()


async def jobs_in_the_record(disk: Disk) -> list[str]:
    """Return the jobs of the alerts in the record on the disk."""
    found = a_log(disk.managed, disk.clock)
    await found.load()
    return sorted(str(alert.details.get("job")) for alert in found.listing())


async def test_alerts_are_delivered_while_writes_fail_and_kept_afterwards(
    disk: Disk, clock: FakeClock, sink: FakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    log = a_log(disk.managed, clock, sink)
    await log.load()
    with disk.broken():
        await failing(log, 3)
        await log.deliver_due()
        assert len(sink.received) == 3
    assert "could not write the alerts" in caplog.text

    clock.advance(60)
    await log.deliver_due()

    assert await jobs_in_the_record(disk) == ["job 0", "job 1", "job 2"]
    await log.close()


async def test_a_hanging_disk_delays_an_alert_only_for_a_moment(
    disk: Disk, clock: FakeClock, sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.log.WRITE_WAIT_S", 0.02)
    log = a_log(disk.managed, clock, sink)
    await log.load()
    with disk.hanging():
        async with asyncio.timeout(1):
            await failing(log, 3)
            await log.deliver_due()
        assert len(sink.received) == 3

    clock.advance(60)
    monkeypatch.setattr("seline.alerts.log.WRITE_WAIT_S", 5.0)
    await log.deliver_due()
    assert await jobs_in_the_record(disk) == ["job 0", "job 1", "job 2"]
    await log.close()


async def test_alerts_are_delivered_after_the_store_is_closed(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    async with open_seline(tmp_path) as seline:
        log = a_log(seline, clock, sink)
        await log.load()
    await failing(log)
    await log.deliver_due()
    await log.close()

    assert sink.subjects == ["job 0"]


async def test_an_unreadable_record_is_loaded_later(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    async with running(tmp_path, clock) as log:
        await failing(log)
    record, aside = tmp_path / ".seline" / "alerts.json", tmp_path / "aside"
    record.rename(aside)
    record.mkdir()
    async with running(tmp_path, clock, sink) as log:
        await failing(log, first=1)
        await log.deliver_due()
        assert sink.subjects == ["job 1"]
        record.rmdir()
        aside.rename(record)
        await log.deliver_due()
        assert {alert.details["job"] for alert in log.listing()} == {"job 0", "job 1"}
    async with running(tmp_path, clock) as log:
        assert len(log.listing()) == 2


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0" * 200, b'{"format": 1, "alerts": [', b"[]", b'{"format": 99}', b'{"format": 1}'],
    ids=["empty", "zeros", "torn", "a list", "another format", "nothing in it"],
)
async def test_a_broken_record_is_reset_and_logged(
    tmp_path: Path, clock: FakeClock, sink: FakeSink, garbage: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    async with running(tmp_path, clock) as log:
        await raised(log, AlertType.WRONG_MOUNT)
    for path in (tmp_path / ".seline").rglob("alerts*.json"):
        path.write_bytes(garbage)

    async with running(tmp_path, clock, sink) as log:
        assert log.listing() == []
        assert "reset" in caplog.text
        await failing(log)
        await log.deliver_due()
    async with running(tmp_path, clock) as log:
        assert [alert.details.get("job") for alert in log.listing()] == ["job 0"]

    assert sink.subjects == ["job 0"]


async def test_a_record_with_a_flipped_bit_is_recovered_from_its_backup(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with running(tmp_path, clock) as log:
        await failing(log, 2)
    record = tmp_path / ".seline" / "alerts.json"
    before, data = record.stat(), bytearray(record.read_bytes())
    data[len(data) // 2] ^= 1
    with record.open("r+b") as file:
        file.write(data)
    os.utime(record, ns=(before.st_atime_ns, before.st_mtime_ns))

    async with running(tmp_path, clock) as log:
        assert [alert.details["job"] for alert in log.listing()] == ["job 0"]


# a week


async def test_a_week_of_signals_causes_few_notifications(
    log: AlertLog, clock: FakeClock, sink: FakeSink, seline: Seline
) -> None:
    """Signals every ten minutes; the sink fails for two days of the seven, and what waited for
    two days is one message about each alert.
    """
    recoveries: list[Raised] = []
    for number in range(7 * 144):
        sink.alive = not 288 <= number < 576
        if number % 40 == 0:
            recoveries.append(Raised(type=AlertType.RECOVERY, subject=NAME, at=clock.now()))
        level = Severity.WARNING if number else Severity.INFO
        usage = {"percent": 80 + number % 3, "level_percent": 80 if number else 50}
        await log.take(
            [
                *recoveries[-4:],
                Raised(type=AlertType.USAGE, severity=level, details=usage),
                Raised(type=AlertType.CHECKSUMS_UNSUPPORTED),
                Cleared(type=AlertType.WRONG_MOUNT),
            ]
        )
        await log.deliver_due()
        assert len(log.listing()) == 3
        assert log.sinks()[0].waiting <= 6
        clock.advance(600)

    assert Counter(sink.types) == {
        AlertType.USAGE: 1 + 7 - 1,  # for information, the warning and once a day again
        AlertType.RECOVERY: 7 - 2,
        AlertType.CHECKSUMS_UNSUPPORTED: 1,
    }
    recovery_alerts = [alert for alert in sink.received if alert.type is AlertType.RECOVERY]
    counted = [
        signal for signal in recoveries if signal.at and signal.at <= recovery_alerts[-1].last_at
    ]
    assert recovery_alerts[-1].count == len(counted)


async def test_a_failing_disk_causes_one_message(
    log: AlertLog, clock: FakeClock, sink: FakeSink
) -> None:
    """A thousand documents break, again and again."""
    for _ in range(3):
        for kind in (AlertType.RECOVERY, AlertType.UNRECOVERABLE_DOCUMENT):
            at = clock.now()
            await log.take(
                Raised(type=kind, subject=f"d{number}.json", at=at) for number in range(1000)
            )
        clock.advance(60)
    await log.deliver_due()

    [digest] = sink.received
    types = [entry["type"] for entry in digest.details["alerts"]]
    assert types.count("many") == 2
    assert len(log.listing()) == len(types) == 2 * (OPEN_OF_A_TYPE_MAX + 1)
