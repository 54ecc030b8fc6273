"""Alerts over a real store: delivered to every sink, whatever fails, and kept across restarts."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from seline import open_seline
from seline.alerts.log import Alerts
from seline.domain.alerts.lifecycle import Alert, AlertType, Cleared, Raised, Severity
from seline.domain.alerts.retry import WAITING_MAX
from seline.domain.document import Json
from seline.domain.texts import Language
from seline.library import Seline
from seline.manager import ManagedStore
from seline.ports.alerts import Delivery
from seline.storage.volume.store import VolumeOptions, open_volume
from tests.clocks import FakeClock
from tests.stores import managed

NAME = "user_profile.json"
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SECRET = "s3cret-0123456789"
Answer = Callable[[Alert], Awaitable[Delivery]]


class FakeSink:
    """A chat that notes what reaches it, and answers as it is told to."""

    kind = "chat"

    def __init__(
        self, name: str = "chat", *, min_severity: Severity = Severity.INFO, alive: bool = True
    ) -> None:
        self.name = name
        self.min_severity = min_severity
        self.alive = alive
        self.answer: Answer | None = None
        self.attempts = 0
        self.got: list[Alert] = []

    async def send(self, alert: Alert) -> Delivery:
        self.attempts += 1
        if self.answer is not None:
            return await self.answer(alert)
        return self.took(alert) if self.alive else self.failed("it answered 503")

    def took(self, alert: Alert) -> Delivery:
        self.got.append(alert)
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
        return [alert.type for alert in self.got]

    @property
    def subjects(self) -> list[Json]:
        return [alert.details.get("job", alert.document) for alert in self.got]


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


def over(
    seline: Seline | ManagedStore, clock: FakeClock, *sinks: FakeSink, language: Language = "en"
) -> Alerts:
    """Return alerts over a store, by a clock that stands still."""
    store = seline.store if isinstance(seline, Seline) else seline
    return Alerts(store, sinks, language=language, clock=clock, jitter=lambda: 0.0)


async def kept(seline: Seline) -> Json:
    """Return what `alerts.json` holds."""
    state = seline.store.state("alerts.json", object, lambda: None)
    return cast("Json", await state.load())


@asynccontextmanager
async def running(directory: Path, clock: FakeClock, *sinks: FakeSink) -> AsyncIterator[Alerts]:
    """Open the store and its alerts as a process does, and close them so."""
    async with open_seline(directory) as seline:
        alerts = over(seline, clock, *sinks)
        await alerts.load()
        yield alerts
        await alerts.close()


@pytest.fixture
async def alerts(seline: Seline, clock: FakeClock, sink: FakeSink) -> AsyncIterator[Alerts]:
    alerts = over(seline, clock, sink)
    await alerts.load()
    yield alerts
    await alerts.close()


async def failing(alerts: Alerts, count: int = 1, *, first: int = 0) -> None:
    """Let a number of jobs fail."""
    for number in range(first, first + count):
        await alerts.raise_alert(AlertType.JOB_FAILED, f"job {number}")


# who hears


async def test_an_alert_reaches_every_sink_that_wants_to_hear_of_it(
    seline: Seline, clock: FakeClock
) -> None:
    sinks = [FakeSink(severity.value, min_severity=severity) for severity in Severity]
    alerts = over(seline, clock, *sinks)
    await alerts.load()

    await alerts.raise_alert(AlertType.USAGE, severity=Severity.INFO, details={"percent": 50})
    await alerts.raise_alert(AlertType.JOB_FAILED, "usage")
    await alerts.raise_alert(AlertType.WRONG_MOUNT)
    await alerts.deliver_due()

    told = [AlertType.USAGE, AlertType.JOB_FAILED, AlertType.WRONG_MOUNT]
    assert [sink.types for sink in sinks] == [told, told[1:], told[2:]]
    await alerts.close()


async def test_whoever_heard_of_the_worst_hears_of_the_end(
    seline: Seline, clock: FakeClock
) -> None:
    phone = FakeSink("phone", min_severity=Severity.CRITICAL)
    alerts = over(seline, clock, phone)
    await alerts.load()

    for severity in (Severity.WARNING, Severity.CRITICAL, Severity.WARNING):
        await alerts.raise_alert(AlertType.DAYS_UNTIL_FULL, severity=severity)
    await alerts.resolve(AlertType.DAYS_UNTIL_FULL)
    await alerts.deliver_due()

    assert [alert.state for alert in phone.got] == ["open", "resolved"]
    await alerts.close()


async def test_nothing_is_said_of_the_end_of_what_never_stood(
    alerts: Alerts, sink: FakeSink
) -> None:
    await alerts.resolve(AlertType.WRONG_MOUNT)
    await alerts.deliver_due()

    assert sink.got == []
    assert alerts.listing() == []


async def test_the_list_shows_open_ones_first_and_the_latest_of_them(
    alerts: Alerts, clock: FakeClock
) -> None:
    for number in range(3):
        clock.advance(60)
        await failing(alerts, first=number)
    clock.advance(60)
    await alerts.resolve(AlertType.JOB_FAILED, "job 1")

    shown = [(alert.state, alert.details["job"]) for alert in alerts.listing()]

    assert shown == [("open", "job 2"), ("open", "job 0"), ("resolved", "job 1")]


async def test_several_signals_are_taken_in_their_order(alerts: Alerts, sink: FakeSink) -> None:
    failed = Raised(type=AlertType.JOB_FAILED, subject="usage")
    done = Cleared(type=AlertType.JOB_FAILED, subject="usage")

    await alerts.take([failed, failed, done, done])
    await alerts.deliver_due()

    assert [alert.state for alert in sink.got] == ["open", "resolved"]


# again, and for how long


async def test_what_stands_is_told_again_after_a_day_and_its_end_once(
    alerts: Alerts, clock: FakeClock, sink: FakeSink
) -> None:
    await alerts.raise_alert(AlertType.WRONG_MOUNT)
    for _ in range(48):
        clock.advance(HOUR_S)
        await alerts.deliver_due()
    await alerts.resolve(AlertType.WRONG_MOUNT)
    clock.advance(DAY_S)
    await alerts.deliver_due()

    assert [(alert.state, alert.count) for alert in sink.got] == [
        ("open", 1), ("open", 2), ("open", 3), ("resolved", 3)
    ]  # fmt: skip
    assert len({alert.id for alert in sink.got}) == 1


async def test_what_was_resolved_is_listed_for_a_week(alerts: Alerts, clock: FakeClock) -> None:
    await alerts.raise_alert(AlertType.WRONG_MOUNT)
    await alerts.resolve(AlertType.WRONG_MOUNT)

    clock.advance(7 * DAY_S)
    await alerts.deliver_due()
    assert len(alerts.listing()) == 1
    clock.advance(1)
    await alerts.deliver_due()
    assert alerts.listing() == []


# a restart


async def test_a_restart_loses_neither_what_is_open_nor_what_waits(
    tmp_path: Path, clock: FakeClock
) -> None:
    dead, alive = FakeSink("dead", alive=False), FakeSink("alive")
    async with running(tmp_path, clock, dead, alive) as alerts:
        await alerts.raise_alert(AlertType.RECOVERY, NAME, details={"verdict": "torn"})
        await alerts.raise_alert(AlertType.WRONG_MOUNT)
        await alerts.deliver_due()
        before = alerts.listing()

    dead.alive = True
    async with running(tmp_path, clock, dead, alive) as alerts:
        await alerts.deliver_due()
        assert alerts.listing() == before

    assert dead.types == alive.types == [AlertType.RECOVERY, AlertType.WRONG_MOUNT]
    assert dead.got == alive.got


async def test_nothing_is_told_again_by_a_restart(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    happened_at = clock.now()
    for _ in range(4):
        async with running(tmp_path, clock, sink) as alerts:
            await alerts.raise_alert(AlertType.RECOVERY, NAME, at=happened_at)
            await alerts.raise_alert(AlertType.WRONG_MOUNT)
            await alerts.deliver_due()
        clock.advance(60)

    assert sink.types == [AlertType.RECOVERY, AlertType.WRONG_MOUNT]


async def test_what_stands_goes_on_across_restarts(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    for _ in range(5):
        async with running(tmp_path, clock, sink) as alerts:
            await alerts.raise_alert(AlertType.WRONG_MOUNT)
            await alerts.deliver_due()
        clock.advance(DAY_S / 2)
    async with running(tmp_path, clock, sink) as alerts:
        await alerts.resolve(AlertType.WRONG_MOUNT)
        await alerts.deliver_due()

    assert [(alert.state, alert.count) for alert in sink.got] == [
        ("open", 1), ("open", 2), ("open", 3), ("resolved", 3)
    ]  # fmt: skip


async def test_what_was_seen_before_the_store_opened_is_kept_beside_what_was_remembered(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    async with running(tmp_path, clock, FakeSink(alive=False)) as alerts:
        await failing(alerts)
    async with open_seline(tmp_path) as seline:
        alerts = over(seline, clock, sink)
        await alerts.raise_alert(AlertType.WRONG_MOUNT)
        await alerts.deliver_due()
        assert sink.types == [AlertType.WRONG_MOUNT]
        await alerts.load()
        later = over(seline, clock)
        await later.load()
        assert later.listing() == alerts.listing(), "it is written at once"
        await alerts.deliver_due()
        await alerts.close()

    assert sink.types == [AlertType.WRONG_MOUNT, AlertType.JOB_FAILED]


async def test_what_is_remembered_speaks_the_language_of_the_settings(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with running(tmp_path, clock) as alerts:
        await alerts.raise_alert(AlertType.WRONG_MOUNT)
        [english] = alerts.listing()

    async with open_seline(tmp_path) as seline:
        french = over(seline, clock, language="fr")
        await french.load()
        [shown] = french.listing()

    assert shown.id == english.id
    assert shown.summary.startswith("Le répertoire")


async def test_a_sink_that_was_taken_out_of_the_settings_leaves_nothing_behind(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    async with running(tmp_path, clock, FakeSink("gone", alive=False)) as alerts:
        await failing(alerts)
    async with running(tmp_path, clock, sink) as alerts:
        await failing(alerts, first=1)
        await alerts.deliver_due()

    assert sink.subjects == ["job 1"]


# sinks that fail


async def test_an_hours_outage_delivers_everything_afterwards_in_order(
    alerts: Alerts, clock: FakeClock, sink: FakeSink
) -> None:
    sink.alive = False
    for number in range(12):
        await failing(alerts, first=number)
        for _ in range(10):
            clock.advance(30)
            await alerts.deliver_due()
    assert sink.got == []
    assert sink.attempts < 30, "it is not asked again and again"
    assert alerts.sinks()[0].waiting == 12

    sink.alive = True
    clock.advance(300)
    await alerts.deliver_due()

    assert sink.subjects == [f"job {number}" for number in range(12)]
    [status] = alerts.sinks()
    assert (status.waiting, status.failures, status.detail) == (0, 0, "")
    assert (status.given_up, status.delivered_at) == (0, clock.now())


async def test_a_sinks_wish_for_patience_is_heeded(
    alerts: Alerts, clock: FakeClock, sink: FakeSink
) -> None:
    async def busy(alert: Alert) -> Delivery:
        return sink.failed("it answered 429", retry_after_s=900)

    sink.answer = busy
    await failing(alerts)
    await alerts.deliver_due()
    for _ in range(14):
        clock.advance(60)
        await alerts.deliver_due()
    assert sink.attempts == 1

    clock.advance(60)
    await alerts.deliver_due()
    assert sink.attempts == 2


async def test_a_dead_a_hanging_and_a_raising_sink_delay_no_other(
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
    alerts = over(seline, clock, dead, hanging, raising, alive)
    await alerts.load()

    async with asyncio.timeout(5):
        for number in range(5):
            await failing(alerts, first=number)
            await alerts.deliver_due(wait_s=0.01)
            clock.advance(10)
            assert len(alive.got) == number + 1
        status = {one.name: one for one in alerts.sinks()}
        await alerts.close()

    assert hanging.attempts == 1, "one alert at a time"
    assert [status[name].waiting for name in ("dead", "hanging", "raising", "alive")] == [
        5,
        5,
        5,
        0,
    ]
    assert "503" in status["dead"].detail
    assert status["raising"].detail == "a defect: RuntimeError"


async def test_a_sink_that_hangs_is_given_up_on_and_tried_again(
    alerts: Alerts, clock: FakeClock, sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.queue.SEND_S", 0.02)

    async def hang(alert: Alert) -> Delivery:
        await asyncio.sleep(60)
        raise AssertionError

    sink.answer = hang
    await failing(alerts)
    await alerts.deliver_due()
    assert "no answer within" in alerts.sinks()[0].detail

    sink.answer = None
    clock.advance(2)
    await alerts.deliver_due()
    assert sink.subjects == ["job 0"]


async def test_what_was_on_its_way_at_the_stop_is_delivered_by_the_next_process(
    tmp_path: Path, clock: FakeClock, sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.log.STOP_WAIT_S", 0.01)

    async def hang(alert: Alert) -> Delivery:
        await asyncio.sleep(60)
        raise AssertionError

    sink.answer = hang
    async with running(tmp_path, clock, sink) as alerts:
        await failing(alerts)
        await alerts.deliver_due(wait_s=0.01)
    sink.answer = None
    async with running(tmp_path, clock, sink) as alerts:
        await alerts.deliver_due()

    assert sink.subjects == ["job 0"]


async def test_an_alert_that_is_refused_lets_the_others_pass(
    alerts: Alerts, clock: FakeClock, sink: FakeSink
) -> None:
    async def picky(alert: Alert) -> Delivery:
        if alert.details.get("job") == "job 0":
            return sink.failed("it answered 400", refused=True)
        return sink.took(alert)

    sink.answer = picky
    await failing(alerts, 4)
    for _ in range(3):
        clock.advance(10)
        await alerts.deliver_due()

    assert sink.subjects == ["job 1", "job 2", "job 3"]
    assert alerts.sinks()[0].waiting == 1, "it is not thrown away"

    sink.answer = None
    clock.advance(300)
    await alerts.deliver_due()
    assert sink.subjects[-1] == "job 0"


async def test_more_than_can_wait_is_given_up_the_least_severe_first_and_said(
    seline: Seline, alerts: Alerts, clock: FakeClock, sink: FakeSink,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    sink.alive = False
    await alerts.raise_alert(AlertType.WRONG_MOUNT)
    for _ in range(WAITING_MAX // 20):
        for signal in (Raised, Cleared):
            jobs = [f"job {number}" for number in range(20)]
            await alerts.take(signal(type=AlertType.JOB_FAILED, subject=job) for job in jobs)
        clock.advance(1)

    [status] = alerts.sinks()
    assert status.waiting == WAITING_MAX
    assert status.given_up == WAITING_MAX + 1
    assert "were given up" in caplog.text
    record = cast("Any", await kept(seline))
    assert record["waiting"]["chat"][0]["type"] == AlertType.WRONG_MOUNT


async def test_what_waited_for_a_week_is_given_up(
    alerts: Alerts, clock: FakeClock, sink: FakeSink
) -> None:
    sink.alive = False
    await alerts.raise_alert(AlertType.RECOVERY, NAME)
    await alerts.deliver_due()
    clock.advance(7 * DAY_S + 1)
    await alerts.deliver_due()

    [status] = alerts.sinks()
    assert (status.waiting, status.given_up, sink.attempts) == (0, 1, 1)


async def test_a_sink_that_fails_is_said_once_in_the_log(
    alerts: Alerts, clock: FakeClock, sink: FakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.alive = False
    await failing(alerts)
    for _ in range(20):
        clock.advance(60)
        await alerts.deliver_due()

    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([record for record in said if "the alert sink chat fails" in record.message]) == 1


# the test alert


async def test_the_test_alert_reaches_all_and_is_neither_queued_nor_listed(
    seline: Seline, clock: FakeClock
) -> None:
    phone = FakeSink("phone", min_severity=Severity.CRITICAL)
    dead, raising = FakeSink("dead", alive=False), FakeSink("raising")

    async def raise_(alert: Alert) -> Delivery:
        raise RuntimeError(SECRET)

    raising.answer = raise_
    alerts = over(seline, clock, phone, dead, raising)
    await alerts.load()

    answers = await alerts.test()

    assert [(one.sink, one.delivered) for one in answers] == [
        ("phone", True), ("dead", False), ("raising", False)
    ]  # fmt: skip
    assert SECRET not in repr(answers)
    assert phone.types == [AlertType.TEST]
    assert alerts.listing() == []
    assert [status.waiting for status in alerts.sinks()] == [0, 0, 0]
    assert await kept(seline) is None


# a store that cannot be read or written


class Disk:
    """A volume whose flushes can be made to fail or to hang."""

    def __init__(self, directory: Path, clock: FakeClock, patch: pytest.MonkeyPatch) -> None:
        options = VolumeOptions(data_dir=str(directory), lock_wait_s=0)
        self.clock = clock
        self.managed = managed(open_volume(options, clock=clock), clock=clock)
        self._patch = patch

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Make every flush fail."""
        with self._patch.context() as patch:
            patch.setattr(os, "fsync", self._fail)
            yield

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Make every flush wait until the block ends."""
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


async def remembered(disk: Disk) -> list[str]:
    """Return the jobs of which the record on the disk knows."""
    found = over(disk.managed, disk.clock)
    await found.load()
    return sorted(str(alert.details.get("job")) for alert in found.listing())


async def test_alerts_are_delivered_where_the_store_cannot_be_written_and_kept_later(
    disk: Disk, clock: FakeClock, sink: FakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    alerts = over(disk.managed, clock, sink)
    await alerts.load()
    with disk.broken():
        await failing(alerts, 3)
        await alerts.deliver_due()
        assert len(sink.got) == 3
    assert "could not be written" in caplog.text

    clock.advance(60)
    await alerts.deliver_due()

    assert await remembered(disk) == ["job 0", "job 1", "job 2"]
    await alerts.close()


async def test_a_disk_that_hangs_holds_up_an_alert_for_a_moment_only(
    disk: Disk, clock: FakeClock, sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.log.KEEP_WAIT_S", 0.02)
    alerts = over(disk.managed, clock, sink)
    await alerts.load()
    with disk.hanging():
        async with asyncio.timeout(1):
            await failing(alerts, 3)
            await alerts.deliver_due()
        assert len(sink.got) == 3

    clock.advance(60)
    monkeypatch.setattr("seline.alerts.log.KEEP_WAIT_S", 5.0)
    await alerts.deliver_due()
    assert await remembered(disk) == ["job 0", "job 1", "job 2"]
    await alerts.close()


async def test_a_store_that_is_closed_already_stops_no_alert(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    async with open_seline(tmp_path) as seline:
        alerts = over(seline, clock, sink)
        await alerts.load()
    await failing(alerts)
    await alerts.deliver_due()
    await alerts.close()

    assert sink.subjects == ["job 0"]


async def test_a_record_that_cannot_be_read_now_is_taken_up_later(
    tmp_path: Path, clock: FakeClock, sink: FakeSink
) -> None:
    async with running(tmp_path, clock) as alerts:
        await failing(alerts)
    record, aside = tmp_path / ".seline" / "alerts.json", tmp_path / "aside"
    record.rename(aside)
    record.mkdir()
    async with running(tmp_path, clock, sink) as alerts:
        await failing(alerts, first=1)
        await alerts.deliver_due()
        assert sink.subjects == ["job 1"]
        record.rmdir()
        aside.rename(record)
        await alerts.deliver_due()
        assert {alert.details["job"] for alert in alerts.listing()} == {"job 0", "job 1"}
    async with running(tmp_path, clock) as alerts:
        assert len(alerts.listing()) == 2


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0" * 200, b'{"format": 1, "alerts": [', b"[]", b'{"format": 99}', b'{"format": 1}'],
    ids=["empty", "zeros", "torn", "a list", "another format", "nothing in it"],
)
async def test_a_broken_record_is_begun_anew_and_said(
    tmp_path: Path, clock: FakeClock, sink: FakeSink, garbage: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    async with running(tmp_path, clock) as alerts:
        await alerts.raise_alert(AlertType.WRONG_MOUNT)
    for path in (tmp_path / ".seline").rglob("alerts*.json"):
        path.write_bytes(garbage)

    async with running(tmp_path, clock, sink) as alerts:
        assert alerts.listing() == []
        assert "alerts.json" in caplog.text
        await failing(alerts)
        await alerts.deliver_due()
    async with running(tmp_path, clock) as alerts:
        assert [alert.details.get("job") for alert in alerts.listing()] == ["job 0"]

    assert sink.subjects == ["job 0"]


async def test_a_flipped_bit_in_the_record_is_mended_from_its_backup(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with running(tmp_path, clock) as alerts:
        await failing(alerts, 2)
    record = tmp_path / ".seline" / "alerts.json"
    before, data = record.stat(), bytearray(record.read_bytes())
    data[len(data) // 2] ^= 1
    with record.open("r+b") as file:
        file.write(data)
    os.utime(record, ns=(before.st_atime_ns, before.st_mtime_ns))

    async with running(tmp_path, clock) as alerts:
        assert [alert.details["job"] for alert in alerts.listing()] == ["job 0"]


# a week


async def test_a_week_tells_what_it_should_and_remembers_little(
    alerts: Alerts, clock: FakeClock, sink: FakeSink, seline: Seline
) -> None:
    """A look every ten minutes; a sink that is dead for two days of the seven."""
    recoveries: list[Raised] = []
    for look in range(7 * 144):
        sink.alive = not 288 <= look < 576
        if look % 40 == 0:
            recoveries.append(Raised(type=AlertType.RECOVERY, subject=NAME, at=clock.now()))
        ratio_percent = 80 if look % 3 else 50
        level = Severity.WARNING if look % 3 else Severity.INFO
        usage = {"percent": ratio_percent, "level_percent": ratio_percent}
        await alerts.take(
            [
                *recoveries[-4:],
                Raised(type=AlertType.USAGE, severity=level, details=usage),
                Raised(type=AlertType.CHECKSUMS_UNSUPPORTED),
                Cleared(type=AlertType.WRONG_MOUNT),
            ]
        )
        await alerts.deliver_due()
        assert len(alerts.listing()) == 3
        assert alerts.sinks()[0].waiting <= 6
        clock.advance(600)

    assert Counter(sink.types) == {
        AlertType.USAGE: 1 + 7,  # for information, then the warning and once a day again
        AlertType.RECOVERY: 7,
        AlertType.CHECKSUMS_UNSUPPORTED: 1,
    }
    told_of = [alert for alert in sink.got if alert.type is AlertType.RECOVERY]
    happened = [one for one in recoveries if one.at and one.at <= told_of[-1].last_at]
    assert told_of[-1].count == len(happened)


async def test_a_disk_that_fails_as_a_whole_is_told_in_few_words(
    alerts: Alerts, clock: FakeClock, sink: FakeSink
) -> None:
    """A thousand documents break, and go on breaking."""
    for _ in range(3):
        for kind in (AlertType.RECOVERY, AlertType.UNRECOVERABLE_DOCUMENT):
            at = clock.now()
            await alerts.take(
                Raised(type=kind, subject=f"d{number}.json", at=at) for number in range(1000)
            )
        clock.advance(60)
    await alerts.deliver_due()

    assert len(sink.got) == 2 * 26
    assert sink.types.count(AlertType.MANY) == 2
    assert len(alerts.listing()) == 2 * 26
