"""From what happens to a real store to alerts: each told once, and its end where it has one."""

from __future__ import annotations

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

from seline.alerts.log import Alerts
from seline.alerts.signals import (
    CHECKSUMS,
    DAYS_OVER,
    DAYS_WARN,
    OVER_EVERY_S,
    TYPE_OF_INCIDENT,
    TYPE_OF_OUTCOME,
    TYPE_OF_TROUBLE,
    Watcher,
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
from seline.domain.alerts.lifecycle import Alert, AlertType, Cleared, Raised, Severity, Signal
from seline.domain.alerts.words import wording
from seline.domain.pins import BY_HAND, Pin
from seline.domain.report import Finding, VerifyReport
from seline.domain.usage import LEVELS, UsageLevel
from seline.errors import (
    DocumentUnrecoverable,
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
from seline.ports.store import Capability, DocumentStore, Incident
from seline.storage.volume.store import VolumeOptions, open_volume
from tests.clocks import FakeClock
from tests.stores import managed, options

NAME = "user_profile.json"
LONG = {f"field_{number}": "a value of some length" for number in range(40)}
HOUR_S, DAY_S = 3600.0, 86_400.0
NOW = FakeClock().now()
DAY = timedelta(days=1)


class Ear:
    """A sink that hears everything."""

    name = kind = "ear"
    min_severity = Severity.INFO

    def __init__(self) -> None:
        self.heard: list[Alert] = []

    async def send(self, alert: Alert) -> Delivery:
        self.heard.append(alert)
        return Delivery(sink=self.name, kind=self.kind, delivered=True)


class Place:
    """A store on a real directory that is watched, by a clock that stands still."""

    def __init__(self, directory: Path, clock: FakeClock) -> None:
        self.directory = directory
        self.clock = clock
        self.trouble: SelineError | None = None
        self.open()

    def open(self) -> None:
        options = VolumeOptions(data_dir=str(self.directory), lock_wait_s=0, settle_s=0.0)
        self.store = open_volume(options, clock=self.clock)
        opening: Future[DocumentStore] = Future()
        opening.set_result(cast("DocumentStore", self.store))
        managed_store = managed(self.store, clock=self.clock, settle_s=0.0)
        self.operations = Operations(managed_store)
        self.data = DataManager(managed_store, self.operations)
        self.ear = Ear()
        self.alerts = Alerts(self.data.store, [self.ear], clock=self.clock)
        self.watch = Watcher(self.operations, self.alerts, trouble=lambda: self.trouble)

    async def close(self) -> None:
        await self.alerts.close()
        await self.data.close()

    async def restart(self) -> None:
        """Close and open again, with what is remembered."""
        await self.close()
        self.open()
        await self.alerts.load()

    async def look(self, *, times: int = 1) -> list[Alert]:
        """Look, every two seconds if it is several times; return what is told of it."""
        before = len(self.ear.heard)
        for _ in range(times):
            await self.watch.look()
            await self.alerts.deliver_due()
            self.clock.advance(2)
        return self.ear.heard[before:]

    async def save(self, *, versions: int = 1, name: str = NAME) -> None:
        for number in range(versions):
            await self.data.save_json(name, {**LONG, "n": number})
            self.clock.advance(60)

    async def until(self, *, busy: bool) -> None:
        """Wait until the store works on a batch, or on none."""
        async with asyncio.timeout(30):
            while bool(self.store.busy_s()) is not busy:
                await asyncio.sleep(0.001)
                self.clock.elapsed_s += 0.001

    def flip(self, path: Path | None = None) -> None:
        """Flip one bit, of the document or another file, and keep the mtime as a bad disk does."""
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


@pytest.fixture
async def place(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Place]:
    place = Place(tmp_path / "volume", clock)
    await place.alerts.load()
    yield place
    await place.close()


def types(alerts: Iterable[Alert]) -> list[AlertType]:
    return [alert.type for alert in alerts]


def an_incident(
    kind: str, *, document: str = NAME, lost: str = "", at_s: float = 0, source: str = "memory"
) -> Incident:
    return Incident(
        kind=kind,
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
        document=document, backup=backup, verdict="altered", outcome=outcome, detail="So it is.",
        found_at=NOW,
    )  # fmt: skip


def a_pin(because: str = "before a blank save of 2025-01-06", *, age: timedelta = DAY) -> Pin:
    return Pin(document=NAME, revision="0", because=because, pinned_at=NOW - age, until=NOW + DAY)


def only(signals: Iterable[Signal]) -> Raised:
    """Return the one thing that was seen."""
    [seen] = signals
    assert isinstance(seen, Raised)
    return seen


def cleared(signals: Iterable[Signal]) -> set[AlertType]:
    """Return what is said to be over, having seen that nothing else is said."""
    over = list(signals)
    assert all(isinstance(signal, Cleared) for signal in over)
    return {signal.type for signal in over}


# from incidents, pins and findings


@pytest.mark.parametrize(("kind", "type"), TYPE_OF_INCIDENT.items())
def test_an_incident_is_told_by_its_kind_and_instant(kind: str, type: AlertType | None) -> None:
    told = alerts_from([an_incident(kind)])

    if type is None:
        assert told == []
    else:
        seen = only(told)
        assert (seen.type, seen.subject, seen.at) == (type, NAME, NOW)


def test_an_incident_of_an_unknown_kind_is_told_all_the_same() -> None:
    seen = only(alerts_from([an_incident("of a later time")]))

    assert (seen.type, seen.details["what"]) == (AlertType.DISK_ERROR, "So it was.")


def test_incidents_are_told_oldest_first() -> None:
    told = alerts_from(an_incident("disk_error", at_s=second) for second in (5, 1, 3))

    ages = [cast("Raised", seen).at for seen in told]
    assert ages == sorted(ages, key=lambda at: at or NOW)


def test_a_recovery_that_lost_something_is_graver() -> None:
    assert only(alerts_from([an_incident("recovered")])).severity is None
    lossy = an_incident("recovered", lost="changes after", source="backup no_backups_name.json")
    seen = only(alerts_from([lossy]))

    assert seen.severity is Severity.CRITICAL
    assert (seen.details["nothing_lost"], seen.details["lost_after"]) == (False, "")


def test_a_blank_save_is_told_by_its_pin_for_a_day() -> None:
    seen = only(alerts_from_pins([a_pin()], NOW))
    late = a_pin(age=DAY + timedelta(seconds=1))

    assert (seen.type, seen.subject, seen.at) == (AlertType.BLANK_SAVE, NAME, NOW - DAY)
    assert seen.details == {"until": "2025-01-07"}
    assert alerts_from_pins([a_pin(BY_HAND), late], NOW) == []


@pytest.mark.parametrize("outcome", TYPE_OF_OUTCOME)
def test_a_finding_is_told_unless_an_incident_tells_it(outcome: str) -> None:
    backup = f"{NAME}_1" if outcome == "marked" else None
    told = alerts_from_report(a_report(a_finding(outcome, backup=backup)))

    expected = TYPE_OF_OUTCOME[outcome]
    assert [seen.type for seen in told] == ([] if expected is None else [expected])
    assert {(seen.subject, seen.at) for seen in told} <= {(NAME, NOW)}


def test_damaged_backups_are_told_by_their_document() -> None:
    told = alerts_from_report(
        a_report(
            a_finding("marked", document="a.json", backup="a_1.json"),
            a_finding("marked", document="b.json", backup="b_1.json"),
            a_finding("marked", document="a.json", backup="a_2.json"),
        )
    )

    assert [(seen.subject, seen.details["backups"]) for seen in told] == [
        ("a.json", 2), ("b.json", 1)
    ]  # fmt: skip
    assert told[0].details["names"] == ["a_1.json", "a_2.json"]


# from the volume


def test_only_missing_checksums_are_told() -> None:
    missing = [Capability(name=CHECKSUMS, present=False, detail="")]
    other = [Capability(name="anonymous files", present=False, detail="")]
    there = [Capability(name=CHECKSUMS, present=True, detail="")]

    assert only(alerts_from_capabilities(missing)).type is AlertType.CHECKSUMS_UNSUPPORTED
    for capabilities in (other, there, []):
        assert cleared(alerts_from_capabilities(capabilities)) == {AlertType.CHECKSUMS_UNSUPPORTED}


@pytest.mark.parametrize(
    ("trouble", "type"),
    [
        (VolumeNotMounted("it is elsewhere"), AlertType.WRONG_MOUNT),
        (VolumeFailed("it is elsewhere"), AlertType.WRITES_REFUSED),
        (VolumeReadOnly("it is elsewhere"), AlertType.WRITES_REFUSED),
        (UnsupportedFormat("it is elsewhere"), AlertType.WRITES_REFUSED),
    ],
)
def test_a_trouble_is_told_in_its_own_words(trouble: SelineError, type: AlertType) -> None:
    seen = only(alerts_from_trouble(trouble))

    assert (seen.type, seen.details["what"]) == (type, "it is elsewhere")


@pytest.mark.parametrize(
    ("trouble", "opened", "said", "not_said"),
    [
        (VolumeReadOnly("So it is."), True, "Reads go on. Seline goes on trying", "not be opened"),
        (VolumeReadOnly("So it is."), False, "not be opened, so nothing is read", "Reads go on"),
        (UnsupportedFormat("So it is."), False, "not be opened", "goes on trying"),
    ],
)
def test_of_a_volume_that_takes_no_changes_nothing_untrue_is_said(
    trouble: SelineError, opened: bool, said: str, not_said: str
) -> None:
    seen = only(alerts_from_trouble(trouble, opened=opened))
    summary, fix = wording(seen.type, seen.details, "en")

    assert said in summary
    assert not_said not in summary + fix


def test_waiting_for_another_process_neither_is_told_nor_ends_anything() -> None:
    assert alerts_from_trouble(VolumeLocked()) == []


def test_without_trouble_every_trouble_is_over() -> None:
    assert cleared(alerts_from_trouble(None)) == set(TYPE_OF_TROUBLE.values())
    assert all(issubclass(trouble, StorageError) for trouble in TYPE_OF_TROUBLE)


@pytest.mark.parametrize("level", [level for level in UsageLevel if level is not UsageLevel.OK])
def test_a_level_of_usage_is_told_with_its_mark(level: UsageLevel) -> None:
    seen = only(alerts_from_usage(level, 0.91234))

    assert seen.severity is {
        UsageLevel.HALF: Severity.INFO, UsageLevel.CRITICAL: Severity.CRITICAL
    }.get(level, Severity.WARNING)  # fmt: skip
    assert seen.details["level_percent"] == pytest.approx(LEVELS[level] * 100)
    assert seen.details["percent"] == 91.2
    said = {name for name in ("half", "sheds", "refuses") if seen.details[name]}
    assert said == {
        UsageLevel.HALF: {"half"}, UsageLevel.HIGH: {"sheds"}, UsageLevel.CRITICAL: {"refuses"}
    }.get(level, set())  # fmt: skip


def test_a_volume_with_room_ends_the_alert() -> None:
    assert cleared(alerts_from_usage(UsageLevel.OK, 0.3)) == {AlertType.USAGE}


@pytest.mark.parametrize(
    ("days", "severity", "said"),
    [
        (0.0, Severity.CRITICAL, 1),
        (0.4, Severity.CRITICAL, 1),
        (2.99, Severity.CRITICAL, 3),
        (3.0, Severity.WARNING, 3),
        (13.99, Severity.WARNING, 14),
    ],
)
def test_two_weeks_ahead_of_a_full_volume_it_is_told(
    days: float, severity: Severity, said: int
) -> None:
    seen = only(alerts_from_days(days))

    assert (seen.severity, seen.details) == (severity, {"days": said})


def test_between_the_marks_nothing_new_is_said_and_nothing_is_over() -> None:
    assert alerts_from_days(DAYS_WARN) == alerts_from_days(DAYS_OVER - 0.1) == []


@pytest.mark.parametrize("days", [None, DAYS_OVER, 3000.0])
def test_a_volume_that_is_not_full_soon_ends_the_alert(days: float | None) -> None:
    assert cleared(alerts_from_days(days)) == {AlertType.DAYS_UNTIL_FULL}


async def test_a_guess_that_wavers_about_two_weeks_is_told_once(place: Place) -> None:
    for number in range(100):
        await place.alerts.take(alerts_from_days(13.9 + number % 3 / 10))
        place.clock.advance(300)
    await place.alerts.deliver_due()

    assert [alert.state for alert in place.ear.heard] == ["open"]


# from jobs


async def test_a_job_that_fails_is_told_and_its_success_ends_it(place: Place) -> None:
    for _ in range(3):
        await place.alerts.take(alerts_from_run("usage", succeeded=False, detail="no room"))
        place.clock.advance(300)
    await place.alerts.take(alerts_from_run("usage", succeeded=True))
    await place.alerts.deliver_due()

    failed, again = place.ear.heard
    assert (failed.type, failed.state) == (AlertType.JOB_FAILED, "open")
    assert "no room" in failed.summary
    assert (again.state, again.id) == ("resolved", failed.id)


async def test_a_success_ends_what_was_said_of_lateness(place: Place) -> None:
    await place.alerts.take(alerts_from_lateness("export", NOW))
    await place.alerts.take(alerts_from_run("export", succeeded=True))
    await place.alerts.deliver_due()

    assert [alert.state for alert in place.ear.heard] == ["open", "resolved"]
    assert "2025-01-06T14:30:22Z" in place.ear.heard[0].summary


async def test_one_jobs_success_ends_nothing_of_anothers(place: Place) -> None:
    await place.alerts.take(alerts_from_run("usage", succeeded=False))
    await place.alerts.take(alerts_from_run("export", succeeded=True))

    assert [alert.state for alert in place.alerts.listing()] == ["open"]


# a store that is well


async def test_of_a_store_that_is_well_nothing_is_told(place: Place) -> None:
    await place.save(versions=5)
    await place.data.restore(NAME)
    await place.data.verify()
    (place.directory / "by_hand.json").write_text("{}")
    assert await place.data.load_json("by_hand.json") == {}

    assert await place.look(times=5) == []
    assert place.alerts.listing() == []


# a broken document


async def test_a_flipped_bit_that_a_read_finds_is_told_once(place: Place) -> None:
    await place.save(versions=2)
    place.flip()
    assert await place.data.load_json(NAME) == {**LONG, "n": 1}

    [told] = await place.look(times=20)

    assert (told.type, told.document) == (AlertType.RECOVERY, NAME)
    assert told.severity is Severity.WARNING
    assert "Nothing is lost" in told.summary
    assert place.alerts.listing() == [told]


async def test_a_flipped_bit_that_verify_finds_is_told_with_what_is_lost(place: Place) -> None:
    await place.save(versions=2)
    await place.restart()
    place.flip()
    await place.data.verify()

    [told] = await place.look(times=20)

    assert (told.type, told.severity) == (AlertType.RECOVERY, Severity.CRITICAL)
    assert f"from the backup {place.backups()[0].name}" in told.summary
    assert "Lost: the changes after 2025-01-06 14:31 UTC." in told.summary


async def test_recoveries_of_a_day_are_counted_and_told_again_the_next(place: Place) -> None:
    await place.save(versions=2)
    for _ in range(5):
        place.flip()
        await place.data.load_json(NAME)
        await place.look(times=3)
        place.clock.advance(HOUR_S)
    assert len(place.ear.heard) == 1

    place.clock.advance(DAY_S - 5 * HOUR_S)
    [again] = await place.look()

    assert again.count == 5


async def test_a_document_that_nothing_mends_is_told_until_it_is_served_again(
    place: Place,
) -> None:
    await place.save(versions=3)
    await place.restart()
    place.break_everything()
    await place.data.verify()
    with pytest.raises(DocumentUnrecoverable):
        await place.data.load_json(NAME)

    told = await place.look(times=3)
    assert set(types(told)) == {AlertType.UNRECOVERABLE_DOCUMENT, AlertType.BACKUP_DAMAGED}
    assert {alert.document for alert in told} == {NAME}
    await place.data.reset(NAME)
    await place.save()
    place.clock.advance(OVER_EVERY_S)

    [over] = await place.look(times=20)
    assert (over.type, over.state) == (AlertType.UNRECOVERABLE_DOCUMENT, "resolved")
    assert over.summary == f"{NAME} can be served again."


async def test_a_document_that_was_given_up_is_over_too(place: Place) -> None:
    await place.save()
    await place.restart()
    place.break_everything()
    await place.data.verify()
    await place.look()
    await place.data.reset(NAME)

    [over] = await place.look()

    assert over.state == "resolved"


async def test_a_document_that_breaks_again_is_told_again(place: Place) -> None:
    for _ in range(2):
        await place.save(versions=2)
        await place.restart()
        place.break_everything()
        await place.data.verify()
        await place.look()
        await place.data.delete(NAME, purge=True)
        place.clock.advance(OVER_EVERY_S)
        await place.look()

        told = [one for one in place.ear.heard if one.type is AlertType.UNRECOVERABLE_DOCUMENT]
        assert [alert.state for alert in told] == ["open", "resolved"]


async def test_whether_it_is_over_is_asked_twice_a_minute_at_most(place: Place) -> None:
    await place.save()
    await place.restart()
    place.break_everything()
    await place.data.verify()
    await place.look(times=2)
    await place.data.reset(NAME)
    looks_within = int(OVER_EVERY_S / 2) - 1

    assert await place.look(times=looks_within) == []
    assert len(await place.look(times=2)) == 1


async def test_damaged_backups_are_told_once_and_when_they_are_gone(place: Place) -> None:
    await place.save(versions=3)
    for backup in place.backups():
        place.flip(backup)
    for _ in range(3):
        await place.data.verify()
        await place.look(times=2)

    [told] = place.ear.heard
    assert (told.type, told.details["backups"]) == (AlertType.BACKUP_DAMAGED, 2)
    for backup in place.backups():
        backup.unlink()
    await place.restart()

    [over] = await place.look(times=3)
    assert (over.state, over.id) == ("resolved", told.id)


async def test_a_backup_that_rots_after_the_alert_of_another_ended_is_told(place: Place) -> None:
    await place.save(versions=3)
    newer, older = place.backups()
    place.flip(newer)
    await place.data.verify()
    await place.look()
    newer.unlink()
    place.clock.advance(OVER_EVERY_S)
    [over] = await place.look()
    assert over.state == "resolved"
    place.clock.advance(DAY_S + HOUR_S)
    place.flip(older)
    await place.data.verify()

    [told] = await place.look(times=20)

    assert (told.type, told.state) == (AlertType.BACKUP_DAMAGED, "open")
    assert told.details["names"] == [older.name]


async def test_what_an_earlier_pass_found_is_not_news_to_each_later_one(place: Place) -> None:
    await place.save(versions=2)
    place.flip(place.backups()[0])
    await place.data.verify()
    found = place.operations.verifier.report.findings if place.operations.verifier.report else ()
    await place.look()
    for _ in range(5):
        place.clock.advance(HOUR_S)
        await place.operations.verify(full=False)

    assert place.operations.verifier.report is not None
    assert len(found) == 1
    assert place.operations.verifier.report.findings == found
    assert await place.look(times=3) == []


# a blank save


async def test_a_blank_save_is_told_once_with_the_day_until_which_it_can_be_undone(
    place: Place,
) -> None:
    await place.save()
    await place.data.save_json(NAME, {})

    [told] = await place.look(times=20)

    assert (told.type, told.document) == (AlertType.BLANK_SAVE, NAME)
    assert "until 2025-02-05" in told.summary


async def test_a_blank_save_that_was_meant_is_not_told(place: Place) -> None:
    await place.save()
    await place.data.save_json(NAME, {}, shrink=True)

    assert await place.look() == []


async def test_blank_saves_of_one_day_are_one_alert(place: Place) -> None:
    for _ in range(3):
        await place.save()
        await place.data.save_json(NAME, {})
        await place.look(times=3)

    assert types(place.ear.heard) == [AlertType.BLANK_SAVE]


# why nothing is written


async def test_a_volume_that_is_not_mounted_is_told_and_its_return_too(place: Place) -> None:
    place.trouble = VolumeNotMounted("It lies on the container's own disk.")
    [told] = await place.look(times=10)
    place.trouble = None
    [over] = await place.look(times=10)

    assert (told.type, told.severity) == (AlertType.WRONG_MOUNT, Severity.CRITICAL)
    assert "container's own disk" in told.summary
    assert (over.state, over.id) == ("resolved", told.id)


async def test_a_store_that_is_not_open_yet_is_not_asked(tmp_path: Path, clock: FakeClock) -> None:
    store, ear = ManagedStore(Future(), options(), clock=clock), Ear()
    alerts = Alerts(store, [ear])
    watch = Watcher(Operations(store), alerts, trouble=lambda: VolumeLocked())

    await watch.look()
    await alerts.deliver_due()

    assert ear.heard == []


async def test_a_disk_that_fails_is_told_and_that_changes_are_taken_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        """Fail where names are made durable: what is there then is not known."""
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    await place.save()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError):
            await place.data.save_json(NAME, {**LONG, "n": "new"})
        told = await place.look(times=3)
    assert set(types(told)) == {AlertType.DISK_ERROR, AlertType.WRITES_REFUSED}
    place.clock.advance(60)
    await place.save(versions=2)

    [over] = await place.look(times=3)
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

    assert "no_room" in {incident.kind for incident in place.store.incidents()}
    assert await place.look(times=3) == []


async def test_a_disk_that_hangs_is_told_and_that_it_answers_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.log.KEEP_WAIT_S", 0.02)
    release, fsync = threading.Event(), os.fsync

    def hang(descriptor: int) -> None:
        release.wait(10)
        fsync(descriptor)

    await place.save()
    monkeypatch.setattr(os, "fsync", hang)
    saving = asyncio.create_task(place.data.save_json(NAME, {**LONG, "n": "new"}))
    await place.until(busy=True)
    assert await place.look() == []
    place.clock.advance(30)
    [told] = await place.look(times=3)
    release.set()
    await saving
    await place.save(versions=2)
    await place.until(busy=False)
    [over] = await place.look(times=3)

    assert (told.type, over.type) == (AlertType.WRITES_REFUSED, AlertType.WRITES_REFUSED)
    assert "has not answered for 30 s" in told.summary
    assert over.state == "resolved"


# what is old, and clocks


async def test_what_is_older_than_a_day_is_not_told_by_who_remembers_nothing(place: Place) -> None:
    await place.save(versions=3)
    place.flip()
    await place.data.load_json(NAME)
    place.flip(place.backups()[-1])
    await place.data.verify()
    await place.data.save_json(NAME, {})
    place.clock.advance(DAY_S + 1)

    assert await place.look(times=3) == []
    assert place.store.incidents()


async def test_a_restart_tells_nothing_again(place: Place) -> None:
    await place.save()
    await place.data.save_json(NAME, {})
    place.flip()
    await place.data.load_json(NAME)
    assert len(await place.look()) == 2

    await place.restart()

    assert await place.look(times=3) == []


async def test_what_ended_within_its_day_is_not_opened_by_looking_back(place: Place) -> None:
    await place.save(versions=2)
    place.flip()
    await place.data.load_json(NAME)
    for _ in range(4 * 24):
        await place.look()
        place.clock.advance(HOUR_S / 2)

    assert types(place.ear.heard) == [AlertType.RECOVERY]
    assert [alert.state for alert in place.alerts.listing()] == ["resolved"]


async def test_a_clock_set_back_tells_nothing_twice_and_hides_nothing(place: Place) -> None:
    await place.save(versions=2)
    place.flip()
    await place.data.load_json(NAME)
    await place.look()
    place.clock.set_back(3 * HOUR_S)

    assert await place.look(times=50) == []
    assert [alert.count for alert in place.alerts.listing()] == [1]
    place.flip()
    await place.data.load_json(NAME)
    [again] = await place.look(times=50)
    assert again.count == 2


async def test_a_clock_set_back_opens_nothing_that_is_over(place: Place) -> None:
    await place.save()
    await place.restart()
    place.break_everything()
    await place.data.verify()
    await place.look()
    place.clock.set_back(3 * HOUR_S)
    await place.data.reset(NAME)
    await place.save()

    told = await place.look(times=100)

    assert types(told) == [AlertType.UNRECOVERABLE_DOCUMENT] * len(told)
    assert [alert.state for alert in told][-1] == "resolved"
    assert len(told) <= 2, "once again for the clock, and the end"
