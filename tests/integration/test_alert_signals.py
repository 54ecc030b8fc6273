"""From events in a real store to notifications: one for each, and one for its end."""

import asyncio
import errno
import os
import stat
import threading
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from seline.alerts.process import OVER_CHECK_EVERY_S, AlertProcess
from seline.alerts.queue import BURST_S
from seline.alerts.signals import (
    CHECKSUMS,
    DAYS_OVER,
    DAYS_WARN,
    TYPE_OF_FAILURE,
    TYPE_OF_FINDING,
    capability_signals,
    failure_signals,
    forecast_signals,
    incident_signals,
    overdue_signals,
    pin_signals,
    report_signals,
    run_signals,
    usage_signals,
)
from seline.domain.alerts.lifecycle import (
    Alert,
    AlertType,
    Cleared,
    Raised,
    Severity,
    Signal,
    on_raised,
)
from seline.domain.alerts.message import worded
from seline.domain.incident import RULES, Incident, IncidentKind
from seline.domain.pins import BY_HAND, Pin
from seline.domain.report import Finding, FindingOutcome, VerifyReport
from seline.domain.usage import LEVELS, UsageLevel
from seline.errors import (
    DocumentUnrecoverable,
    ExportFailed,
    SelineError,
    StorageError,
    UnsupportedFormat,
    VolumeFailed,
    VolumeLocked,
    VolumeNotMounted,
    VolumeReadOnly,
)
from seline.manager import DataManager, ManagedStore
from seline.operations import Operations
from seline.ports.alerts import Delivery
from seline.ports.medium import Capability
from tests.clocks import FakeClock
from tests.stores import managed, open_store, settings

pytestmark = pytest.mark.usefixtures("files_at_once")

NAME = "user_profile.json"
LONG = {f"field_{number}": "a value of some length" for number in range(40)}
HOUR_S, DAY_S = 3600.0, 86_400.0
NOW = FakeClock().now()
DAY = timedelta(days=1)


class FakeSink:
    """A sink that confirms and records every alert."""

    name = kind = "chat"
    min_severity = Severity.INFO

    def __init__(self) -> None:
        self.received: list[Alert] = []

    async def send(self, alert: Alert) -> Delivery:
        self.received.append(alert)
        return Delivery(sink=self.name, kind=self.kind, delivered=True)


class Place:
    """A store in a real directory with its alert process, and a clock that the test moves."""

    def __init__(self, directory: Path, clock: FakeClock) -> None:
        self.directory = directory
        self.clock = clock
        self.failure: SelineError | None = None
        self.open()

    def open(self) -> None:
        self.store = open_store(self.directory, self.clock, storage__settle_s=0.0)
        managed_store = managed(self.store, clock=self.clock, storage__settle_s=0.0)
        self.operations = Operations(managed_store)
        self.data = DataManager(managed_store)
        self.sink = FakeSink()
        self.process = AlertProcess(self.operations, [self.sink], unavailable=lambda: self.failure)
        self.log = self.process.log

    async def close(self) -> None:
        await self.log.close()
        await self.operations.store.close()

    async def restart(self) -> None:
        """Close and open again, with the kept alerts."""
        await self.close()
        self.open()
        await self.log.load()

    async def evaluate(self, *, times: int = 1) -> list[Alert]:
        """Evaluate, several times every two seconds; return the notifications."""
        before = len(self.sink.received)
        for _ in range(times):
            await self.process.evaluate()
            await self.log.deliver_due()
            self.clock.advance(2)
        return self.sink.received[before:]

    async def save(self, *, versions: int = 1, name: str = NAME) -> None:
        for number in range(versions):
            await self.data.save_json(name, {**LONG, "n": number})
            self.clock.advance(60)

    async def until(self, *, busy: bool) -> None:
        """Wait until the store is busy with a batch, or idle."""
        async with asyncio.timeout(30):
            while bool(self.store.medium.busy_s()) is not busy:
                await asyncio.sleep(0.001)
                self.clock.elapsed_s += 0.001

    def flip(self, path: Path | None = None) -> None:
        """Flip one bit of the document or another file and keep the mtime, as a bad disk does."""
        path = path or self.directory / NAME
        before, data = path.stat(), bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        with path.open("r+b") as file:
            file.write(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def backups(self) -> list[Path]:
        """Return the document's backups, newest first."""
        stem = NAME.removesuffix(".json")
        return sorted((self.directory / "backups").glob(f"{stem}_*.json"), reverse=True)

    def break_everything(self) -> None:
        for path in (self.directory / NAME, *self.backups()):
            self.flip(path)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send an alert without waiting for the end of a burst."""
    monkeypatch.setattr("seline.alerts.queue.BURST_S", 0.0)


@pytest.fixture
async def place(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Place]:
    place = Place(tmp_path / "volume", clock)
    await place.log.load()
    yield place
    await place.close()


def types(alerts: Iterable[Alert]) -> list[AlertType]:
    return [alert.type for alert in alerts]


def an_incident(
    kind: str, *, document: str = NAME, lost: str = "", at_s: float = 0, source: str = "memory"
) -> Incident:
    return Incident(
        kind=IncidentKind(kind),
        document=document,
        at=NOW + timedelta(seconds=at_s),
        summary="So it was.",
        lost=lost,
        details={"verdict": "torn", "source": source},
    )


def a_report(*findings: Finding) -> VerifyReport:
    return VerifyReport(
        started_at=NOW - DAY, ended_at=NOW, documents=1, backups=1, bytes_read=1, findings=findings
    )


def a_finding(outcome: str, *, document: str = NAME, backup: str | None = None) -> Finding:
    return Finding(
        document=document, backup=backup, verdict="altered",
        outcome=FindingOutcome(outcome), detail="So it is.",
        found_at=NOW,
    )  # fmt: skip


def a_pin(because: str = "before a blank save of 2025-01-06", *, age: timedelta = DAY) -> Pin:
    return Pin(document=NAME, revision="0", because=because, pinned_at=NOW - age, until=NOW + DAY)


def only(signals: Iterable[Signal]) -> Raised:
    """Return the only signal, which is raised."""
    [signal] = signals
    assert isinstance(signal, Raised)
    return signal


def cleared(signals: Iterable[Signal]) -> set[AlertType]:
    """Return the cleared types; check that there is no other signal."""
    over = list(signals)
    assert all(isinstance(signal, Cleared) for signal in over)
    return {signal.type for signal in over}


# incidents, pins and findings


@pytest.mark.parametrize("kind", IncidentKind)
def test_an_incident_gives_the_signal_of_its_kind(kind: IncidentKind) -> None:
    signals = incident_signals([an_incident(kind)], NOW)

    expected = RULES[kind].alert
    if expected is None:
        assert signals == []
    else:
        signal = only(signals)
        assert (signal.type, signal.subject, signal.at) == (expected, NAME, NOW)


def test_incidents_give_signals_oldest_first() -> None:
    signals = incident_signals(
        (an_incident("disk_error", at_s=second) for second in (5, 1, 3)), NOW
    )

    ages = [cast("Raised", signal).at for signal in signals]
    assert ages == sorted(ages, key=lambda at: at or NOW)


def test_a_recovery_that_lost_changes_is_critical() -> None:
    assert only(incident_signals([an_incident("recovered")], NOW)).severity is None
    lossy = an_incident("recovered", lost="changes after", source="backup no_backups_name.json")
    signal = only(incident_signals([lossy], NOW))

    assert signal.severity is Severity.CRITICAL
    assert (signal.details["nothing_lost"], signal.details["lost_after"]) == (False, "")


def test_the_pin_of_a_blank_save_gives_a_signal_for_six_days() -> None:
    signal = only(pin_signals([a_pin()], NOW))
    late = a_pin(age=6 * DAY + timedelta(seconds=1))

    assert (signal.type, signal.subject, signal.at) == (AlertType.BLANK_SAVE, "", NOW - DAY)
    assert signal.details["documents"] == [NAME]
    assert signal.details["until"] == "2025-01-07"
    assert pin_signals([a_pin(BY_HAND), late], NOW) == []


@pytest.mark.parametrize("outcome", FindingOutcome)
def test_a_finding_gives_a_signal_unless_an_incident_reports_it(outcome: FindingOutcome) -> None:
    backup = f"{NAME}_1" if outcome is FindingOutcome.MARKED else None
    signals = report_signals(a_report(a_finding(outcome, backup=backup)), NOW)

    marked = {FindingOutcome.MARKED: AlertType.BACKUP_DAMAGED}
    expected = {**TYPE_OF_FINDING, **marked}.get(outcome)
    assert [signal.type for signal in signals] == ([] if expected is None else [expected])
    assert {(signal.subject, signal.at) for signal in signals} <= {(NAME, NOW)}


def test_the_damaged_backups_of_a_document_are_one_signal() -> None:
    signals = report_signals(
        a_report(
            a_finding("marked", document="a.json", backup="a_1.json"),
            a_finding("marked", document="b.json", backup="b_1.json"),
            a_finding("marked", document="a.json", backup="a_2.json"),
        ),
        NOW,
    )

    assert [(signal.subject, signal.details["backups"]) for signal in signals] == [
        ("a.json", 2), ("b.json", 1)
    ]  # fmt: skip
    assert signals[0].details["names"] == ["a_1.json", "a_2.json"]


# the volume


def test_only_missing_checksums_give_a_signal() -> None:
    missing = [Capability(name=CHECKSUMS, present=False, detail="")]
    other = [Capability(name="anonymous files", present=False, detail="")]
    there = [Capability(name=CHECKSUMS, present=True, detail="")]

    assert only(capability_signals(missing)).type is AlertType.CHECKSUMS_UNSUPPORTED
    for capabilities in (other, there, []):
        assert cleared(capability_signals(capabilities)) == {AlertType.CHECKSUMS_UNSUPPORTED}


@pytest.mark.parametrize(
    ("failure", "type"),
    [
        (VolumeNotMounted("it is elsewhere"), AlertType.WRONG_MOUNT),
        (VolumeFailed("it is elsewhere"), AlertType.WRITES_REFUSED),
        (VolumeReadOnly("it is elsewhere"), AlertType.WRITES_REFUSED),
        (UnsupportedFormat("it is elsewhere"), AlertType.WRITES_REFUSED),
    ],
)
def test_a_failure_gives_a_signal_with_its_message(failure: SelineError, type: AlertType) -> None:
    signal = only(failure_signals(failure))

    assert (signal.type, signal.details["what"]) == (type, "it is elsewhere")


@pytest.mark.parametrize(
    ("failure", "opened", "contained", "missing"),
    [
        (
            VolumeReadOnly("So it is."),
            True,
            "Reads still work. Seline keeps trying",
            "not be opened",
        ),
        (
            VolumeReadOnly("So it is."),
            False,
            "not be opened, so nothing is read",
            "Reads still work",
        ),
        (UnsupportedFormat("So it is."), False, "not be opened", "keeps trying"),
    ],
)
def test_the_alert_of_a_volume_without_writes_states_what_still_works(
    failure: SelineError, opened: bool, contained: str, missing: str
) -> None:
    signal = only(failure_signals(failure, opened=opened))
    state, _ = on_raised(None, signal, now=NOW, renotify=DAY)
    alert = worded(state.alert, "en")

    assert contained in alert.summary
    assert missing not in alert.summary + alert.fix


def test_waiting_for_another_process_gives_no_signal() -> None:
    assert failure_signals(VolumeLocked()) == []


def test_no_failure_clears_the_alert_of_every_failure() -> None:
    assert cleared(failure_signals(None)) == set(TYPE_OF_FAILURE.values())
    assert all(issubclass(failure, (StorageError, ExportFailed)) for failure in TYPE_OF_FAILURE)


@pytest.mark.parametrize("level", [level for level in UsageLevel if level is not UsageLevel.OK])
def test_a_level_of_usage_gives_a_signal_with_its_consequence(level: UsageLevel) -> None:
    signal = only(usage_signals(level, 0.91234))

    assert signal.severity is {
        UsageLevel.HALF: Severity.INFO, UsageLevel.CRITICAL: Severity.CRITICAL
    }.get(level, Severity.WARNING)  # fmt: skip
    assert signal.details["level_percent"] == pytest.approx(LEVELS[level] * 100)
    assert signal.details["percent"] == 91.2
    consequences = {name for name in ("half", "sheds", "refuses") if signal.details[name]}
    assert consequences == {
        UsageLevel.HALF: {"half"}, UsageLevel.HIGH: {"sheds"}, UsageLevel.CRITICAL: {"refuses"}
    }.get(level, set())  # fmt: skip


def test_a_volume_with_room_clears_the_alert() -> None:
    assert cleared(usage_signals(UsageLevel.OK, 0.3)) == {AlertType.USAGE}


@pytest.mark.parametrize(
    ("days", "severity", "shown"),
    [
        (0.0, Severity.CRITICAL, 1),
        (0.4, Severity.CRITICAL, 1),
        (2.99, Severity.CRITICAL, 3),
        (3.0, Severity.WARNING, 3),
        (13.99, Severity.WARNING, 14),
    ],
)
def test_a_forecast_within_two_weeks_gives_a_signal(
    days: float, severity: Severity, shown: int
) -> None:
    signal = only(forecast_signals(days))

    assert (signal.severity, signal.details) == (severity, {"days": shown})


def test_a_forecast_between_the_limits_gives_no_signal() -> None:
    assert forecast_signals(DAYS_WARN) == forecast_signals(DAYS_OVER - 0.1) == []


@pytest.mark.parametrize("days", [None, DAYS_OVER, 3000.0])
def test_a_later_forecast_clears_the_alert(days: float | None) -> None:
    assert cleared(forecast_signals(days)) == {AlertType.DAYS_UNTIL_FULL}


async def test_a_forecast_that_varies_around_two_weeks_is_notified_once(place: Place) -> None:
    for number in range(100):
        await place.log.take(forecast_signals(13.9 + number % 3 / 10))
        place.clock.advance(300)
    await place.log.deliver_due()

    assert [alert.state for alert in place.sink.received] == ["open"]


# jobs


async def test_a_failed_job_is_notified_and_its_success_resolves_the_alert(place: Place) -> None:
    for _ in range(3):
        await place.log.take(run_signals("usage", succeeded=False, detail="no room"))
        place.clock.advance(300)
    await place.log.deliver_due()
    await place.log.take(run_signals("usage", succeeded=True))
    await place.log.deliver_due()

    failed, again = place.sink.received
    assert (failed.type, failed.state) == (AlertType.JOB_FAILED, "open")
    assert "no room" in failed.summary
    assert (again.state, again.id) == ("resolved", failed.id)


async def test_a_success_resolves_the_alert_of_an_overdue_job(place: Place) -> None:
    await place.log.take(overdue_signals("export", NOW))
    await place.log.deliver_due()
    await place.log.take(run_signals("export", succeeded=True))
    await place.log.deliver_due()

    assert [alert.state for alert in place.sink.received] == ["open", "resolved"]
    assert "2025-01-06T14:30:22Z" in place.sink.received[0].summary


async def test_the_success_of_a_job_leaves_the_alerts_of_others(place: Place) -> None:
    await place.log.take(run_signals("usage", succeeded=False))
    await place.log.take(run_signals("export", succeeded=True))

    assert [alert.state for alert in place.log.listing()] == ["open"]


# a sound store


async def test_a_sound_store_causes_no_notification(place: Place) -> None:
    await place.save(versions=5)
    await place.data.restore(NAME)
    await place.operations.verify()
    (place.directory / "by_hand.json").write_text("{}")
    assert await place.data.load_json("by_hand.json") == {}

    assert await place.evaluate(times=5) == []
    assert place.log.listing() == []


# a broken document


async def test_a_flipped_bit_found_by_a_read_is_notified_once(place: Place) -> None:
    await place.save(versions=2)
    place.flip()
    assert await place.data.load_json(NAME) == {**LONG, "n": 1}

    [alert] = await place.evaluate(times=20)

    assert (alert.type, alert.document) == (AlertType.RECOVERY, NAME)
    assert alert.severity is Severity.WARNING
    assert "Nothing is lost" in alert.summary
    assert place.log.listing() == [alert]


async def test_a_flipped_bit_found_by_verify_is_notified_with_what_is_lost(place: Place) -> None:
    await place.save(versions=2)
    await place.restart()
    place.flip()
    await place.operations.verify()

    [alert] = await place.evaluate(times=20)

    assert (alert.type, alert.severity) == (AlertType.RECOVERY, Severity.CRITICAL)
    assert f"from the backup {place.backups()[0].name}" in alert.summary
    assert "Lost: the changes after 2025-01-06 14:31 UTC." in alert.summary


async def test_the_recoveries_of_a_day_are_counted_and_notified_the_next_day(place: Place) -> None:
    await place.save(versions=2)
    for _ in range(5):
        place.flip()
        await place.data.load_json(NAME)
        await place.evaluate(times=3)
        place.clock.advance(HOUR_S)
    assert len(place.sink.received) == 1

    place.clock.advance(DAY_S - 5 * HOUR_S)
    [again] = await place.evaluate()

    assert again.count == 5


async def test_an_unrecoverable_document_is_alerted_until_it_is_served(place: Place) -> None:
    await place.save(versions=3)
    await place.restart()
    place.break_everything()
    await place.operations.verify()
    with pytest.raises(DocumentUnrecoverable):
        await place.data.load_json(NAME)

    notified = await place.evaluate(times=3)
    assert set(types(notified)) == {AlertType.UNRECOVERABLE_DOCUMENT, AlertType.BACKUP_DAMAGED}
    assert {alert.document for alert in notified} == {NAME}
    await place.data.reset(NAME)
    await place.save()
    place.clock.advance(OVER_CHECK_EVERY_S)

    [over] = await place.evaluate(times=20)
    assert (over.type, over.state) == (AlertType.UNRECOVERABLE_DOCUMENT, "resolved")
    assert over.summary == f"{NAME} is no longer broken: it was mended, or given up."


async def test_a_reset_resolves_the_alert_of_an_unrecoverable_document(place: Place) -> None:
    await place.save()
    await place.restart()
    place.break_everything()
    await place.operations.verify()
    await place.evaluate()
    await place.data.reset(NAME)

    [over] = await place.evaluate()

    assert over.state == "resolved"


async def test_a_document_that_breaks_again_is_alerted_again(place: Place) -> None:
    for _ in range(2):
        await place.save(versions=2)
        await place.restart()
        place.break_everything()
        await place.operations.verify()
        await place.evaluate()
        await place.data.delete(NAME, purge=True)
        place.clock.advance(OVER_CHECK_EVERY_S)
        await place.evaluate()

        of_document = [
            alert for alert in place.sink.received if alert.type is AlertType.UNRECOVERABLE_DOCUMENT
        ]
        assert [alert.state for alert in of_document] == ["open", "resolved"]


async def test_an_open_alert_is_checked_twice_a_minute_at_most(place: Place) -> None:
    await place.save()
    await place.restart()
    place.break_everything()
    await place.operations.verify()
    await place.evaluate(times=2)
    await place.data.reset(NAME)
    looks_within = int(OVER_CHECK_EVERY_S / 2) - 1

    assert await place.evaluate(times=looks_within) == []
    assert len(await place.evaluate(times=2)) == 1


async def test_damaged_backups_are_notified_once_and_when_they_are_gone(place: Place) -> None:
    await place.save(versions=3)
    for backup in place.backups():
        place.flip(backup)
    for _ in range(3):
        await place.operations.verify()
        await place.evaluate(times=2)

    [alert] = place.sink.received
    assert (alert.type, alert.details["backups"]) == (AlertType.BACKUP_DAMAGED, 2)
    for backup in place.backups():
        backup.unlink()
    await place.restart()

    [over] = await place.evaluate(times=3)
    assert (over.state, over.id) == ("resolved", alert.id)


async def test_a_backup_damaged_after_the_resolution_opens_a_new_alert(place: Place) -> None:
    await place.save(versions=3)
    newer, older = place.backups()
    place.flip(newer)
    await place.operations.verify()
    await place.evaluate()
    newer.unlink()
    place.clock.advance(OVER_CHECK_EVERY_S)
    [over] = await place.evaluate()
    assert over.state == "resolved"
    place.clock.advance(DAY_S + HOUR_S)
    place.flip(older)
    await place.operations.verify()

    [alert] = await place.evaluate(times=20)

    assert (alert.type, alert.state) == (AlertType.BACKUP_DAMAGED, "open")
    assert alert.details["names"] == [older.name]


async def test_a_finding_of_an_earlier_verify_is_not_notified_again(place: Place) -> None:
    await place.save(versions=2)
    place.flip(place.backups()[0])
    await place.operations.verify(full=None)
    found = place.operations.verifier.report.findings if place.operations.verifier.report else ()
    await place.evaluate()
    for _ in range(5):
        place.clock.advance(HOUR_S)
        await place.operations.verify(full=False)

    assert place.operations.verifier.report is not None
    assert len(found) == 1
    assert place.operations.verifier.report.findings == found
    assert await place.evaluate(times=3) == []


# a blank save


async def test_a_blank_save_is_notified_once_with_the_last_day_to_undo_it(place: Place) -> None:
    await place.save()
    await place.data.save_json(NAME, {})

    [alert] = await place.evaluate(times=20)

    assert alert.type is AlertType.BLANK_SAVE
    assert NAME in alert.summary
    assert "until 2025-02-05" in alert.summary


async def test_forty_blanked_documents_are_one_notification_that_names_each(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.queue.BURST_S", BURST_S)
    names = [f"user_{number:02}.json" for number in range(40)]
    for name in names:
        await place.save(name=name)
    place.clock.advance(60)
    notified = []
    for number, name in enumerate(names):
        await place.data.save_json(name, {})
        place.clock.advance(0.05)
        if number % 10 == 5:
            notified += await place.evaluate()

    [alert] = [*notified, *await place.evaluate(times=40)]

    assert all(name in alert.summary for name in names)
    await place.restart()
    assert await place.evaluate(times=3) == []


async def test_the_pinned_content_comes_back_as_the_alert_says(place: Place) -> None:
    """The next step names `seline backups` and `seline restore NAME BACKUP`."""
    await place.save()
    await place.data.save_json(NAME, {})
    for number in range(8):
        await place.data.save_json(NAME, {"n": number})
    [alert] = await place.evaluate(times=5)

    assert f"`seline backups {NAME}`" in alert.fix
    assert f"`seline restore {NAME} BACKUP`" in alert.fix
    [pinned] = [backup for backup in await place.data.backups(NAME) if backup.pinned]
    await place.data.restore(NAME, pinned.name)
    assert await place.data.load_json(NAME) == {**LONG, "n": 0}


async def test_an_intended_blank_save_is_not_notified(place: Place) -> None:
    await place.save()
    await place.data.save_json(NAME, {}, shrink=True)

    assert await place.evaluate() == []


async def test_blank_saves_of_one_day_are_one_alert(place: Place) -> None:
    for _ in range(3):
        await place.save()
        await place.data.save_json(NAME, {})
        await place.evaluate(times=5)

    assert types(place.sink.received) == [AlertType.BLANK_SAVE]


# a volume without writes


async def test_a_missing_mount_is_notified_and_its_return_too(place: Place) -> None:
    place.failure = VolumeNotMounted("It lies on the container's own disk.")
    [alert] = await place.evaluate(times=10)
    place.failure = None
    [over] = await place.evaluate(times=10)

    assert (alert.type, alert.severity) == (AlertType.WRONG_MOUNT, Severity.CRITICAL)
    assert "container's own disk" in alert.summary
    assert (over.state, over.id) == ("resolved", alert.id)


async def test_a_store_that_is_not_open_is_not_read(tmp_path: Path, clock: FakeClock) -> None:
    store, sink = ManagedStore(Future(), settings(), clock=clock), FakeSink()
    process = AlertProcess(Operations(store), [sink], unavailable=VolumeLocked)

    await process.evaluate()
    await process.log.deliver_due()

    assert sink.received == []


async def test_a_failing_disk_is_notified_and_its_recovery_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        """Fail where a change or names are made durable: what is there then is not known."""
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) or "journal" in name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    await place.save()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageError):
            await place.data.save_json(NAME, {**LONG, "n": "new"})
        notified = await place.evaluate(times=3)
    assert set(types(notified)) == {AlertType.DISK_ERROR, AlertType.WRITES_REFUSED}
    place.clock.advance(60)
    await place.save(versions=2)

    [over] = await place.evaluate(times=3)
    assert (over.type, over.state) == (AlertType.WRITES_REFUSED, "resolved")


async def test_a_volume_without_room_is_no_disk_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.save(versions=7)
    unlink = os.unlink

    def refuse(path: str, **where: int) -> None:
        """Refuse to discard a backup, as where even that needs a block (or a quota)."""
        if str(path).startswith("user_profile_"):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        unlink(path, **where)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        await place.save()

    assert "no_room" in {incident.kind for incident in place.store.medium.incidents()}
    assert await place.evaluate(times=3) == []


async def test_a_hanging_disk_is_notified_and_its_answer_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.log.WRITE_WAIT_S", 0.02)
    release, fsync = threading.Event(), os.fsync

    def hang(descriptor: int) -> None:
        release.wait(10)
        fsync(descriptor)

    await place.save()
    monkeypatch.setattr(os, "fsync", hang)
    monkeypatch.setattr(os, "fdatasync", hang)
    saving = asyncio.create_task(place.data.save_json(NAME, {**LONG, "n": "new"}))
    await place.until(busy=True)
    assert await place.evaluate() == []
    place.clock.advance(30)
    [alert] = await place.evaluate(times=3)
    release.set()
    await saving
    await place.save(versions=2)
    await place.until(busy=False)
    [over] = await place.evaluate(times=3)

    assert (alert.type, over.type) == (AlertType.WRITES_REFUSED, AlertType.WRITES_REFUSED)
    assert "has not answered for 30 s" in alert.summary
    assert over.state == "resolved"


# old events, restarts and clocks


async def test_what_no_server_reported_for_days_is_notified_once(place: Place) -> None:
    """A command without a server sends no alert; the next server finds the incidents."""
    await place.save(versions=2)
    place.flip()
    await place.data.load_json(NAME)
    await place.data.save_json(NAME, {})
    place.clock.advance(5 * DAY_S)

    assert set(types(await place.evaluate(times=3))) == {AlertType.RECOVERY, AlertType.BLANK_SAVE}
    for _ in range(48):
        place.clock.advance(HOUR_S)
        assert await place.evaluate() == []


async def test_old_events_are_not_notified_without_a_record(place: Place) -> None:
    await place.save(versions=3)
    place.flip()
    await place.data.load_json(NAME)
    place.flip(place.backups()[-1])
    await place.operations.verify()
    await place.data.save_json(NAME, {})
    place.clock.advance(6 * DAY_S + 1)

    assert await place.evaluate(times=3) == []
    assert place.store.medium.incidents()


async def test_a_restart_notifies_nothing_again(place: Place) -> None:
    await place.save()
    await place.data.save_json(NAME, {})
    place.flip()
    await place.data.load_json(NAME)
    assert len(await place.evaluate(times=5)) == 2

    await place.restart()

    assert await place.evaluate(times=3) == []


async def test_a_resolved_event_is_not_opened_by_its_old_occurrence(place: Place) -> None:
    await place.save(versions=2)
    place.flip()
    await place.data.load_json(NAME)
    for _ in range(4 * 24):
        await place.evaluate()
        place.clock.advance(HOUR_S / 2)

    assert types(place.sink.received) == [AlertType.RECOVERY]
    assert [alert.state for alert in place.log.listing()] == ["resolved"]


async def test_a_clock_set_back_notifies_nothing_twice_and_hides_nothing(place: Place) -> None:
    await place.save(versions=2)
    place.flip()
    await place.data.load_json(NAME)
    await place.evaluate()
    place.clock.set_back(3 * HOUR_S)

    assert await place.evaluate(times=50) == []
    assert [alert.count for alert in place.log.listing()] == [1]
    place.flip()
    await place.data.load_json(NAME)
    [again] = await place.evaluate(times=50)
    assert again.count == 2


async def test_a_clock_set_back_opens_no_resolved_alert(place: Place) -> None:
    await place.save()
    await place.restart()
    place.break_everything()
    await place.operations.verify()
    await place.evaluate()
    place.clock.set_back(3 * HOUR_S)
    await place.data.reset(NAME)
    await place.save()

    notified = await place.evaluate(times=100)

    assert types(notified) == [AlertType.UNRECOVERABLE_DOCUMENT] * len(notified)
    assert [alert.state for alert in notified][-1] == "resolved"
    assert len(notified) <= 2, "once again for the clock, and the end"
