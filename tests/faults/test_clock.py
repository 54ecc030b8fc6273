"""A wrong wall clock: back an hour, a day or to 1970, ahead a year and back, and at random.

V2, V8  The newest backup is the last one made, regardless of the clock. Rotation discards no
        backup that the order of saves keeps, and none earlier because the clock was wrong.
V11     A pin lasts for elapsed days, not for days on the clock.
A clock jump repeats an open alert at most once, and shortens no forecast.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from seline import __version__
from seline.alerts.log import AlertLog
from seline.alerts.queue import BURST_S
from seline.domain.alerts.lifecycle import Alert, AlertType, Cleared, Raised, Severity
from seline.domain.backup import parse_backup_name
from seline.domain.document import Json
from seline.domain.retention import RetentionPolicy
from seline.manager import DataManager
from seline.operations import Operations
from seline.operations.export_folders import ExportFolders
from seline.operations.exports import Exporter
from seline.operations.own_exports import read_back
from seline.outbound.destinations.folder import Folder
from seline.ports.alerts import Delivery
from seline.ports.destinations import Target
from seline.ports.futures import run_without_loop
from seline.storage.volume import capabilities
from tests.clocks import FakeClock
from tests.faults.forms import each_form_at_once
from tests.faults.powercut.trying import fast_place, kind_of
from tests.faults.test_damage import rewrite
from tests.proof.figures import note
from tests.stores import open_managed

pytestmark = each_form_at_once

SUITE: Final = "clock"
NAME: Final = "user_profile.json"
HOUR_S, DAY_S, YEAR_S = 3600.0, 86_400.0, 365 * 86_400.0
SEED: Final = 20250106
LIMIT_S: Final = 60.0


class StoreWithClock:
    """A store with its manager, which can be restarted, and a clock that can be set."""

    def __init__(
        self, directory: Path, clock: FakeClock, *, retention: RetentionPolicy | None = None
    ) -> None:
        self.directory = directory
        self.clock = clock
        self.retention = retention or RetentionPolicy()
        self.open()

    def open(self) -> None:
        self.store = open_managed(
            self.directory,
            self.clock,
            storage__settle_s=0.0,
            storage__volume_limit_mb=200,
            **{f"backups__{name}": kept for name, kept in asdict(self.retention).items()},
        )
        self.operations = Operations(self.store)
        self.data = DataManager(self.store)

    def close(self) -> None:
        self.run(self.store.close())

    def restart(self) -> None:
        self.close()
        self.open()

    def run(self, coroutine: Any) -> Any:
        return run_without_loop(coroutine)

    def save(self, value: Json, name: str = NAME) -> None:
        self.run(self.data.save_json(name, value))

    def backup_values(self, name: str = NAME) -> list[Json]:
        """Return the values in the backups, newest first."""
        backups = self.run(self.data.backups(name))
        return [self.run(self.data.read_backup(name, backup.name)) for backup in backups]

    def backup_names(self, name: str = NAME) -> list[str]:
        return [backup.name for backup in self.run(self.data.backups(name))]

    def health_checks(self) -> dict[str, Mapping[str, str]]:
        return {check["name"]: check for check in self.run(self.operations.health())["checks"]}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a fast directory whose usage is that of its own files, not of the mount."""
    monkeypatch.setattr(capabilities, "mount_of", lambda _path: None)
    with fast_place(tmp_path) as fast:
        yield fast


@pytest.fixture
def volume(workspace: Path, clock: FakeClock) -> Iterator[StoreWithClock]:
    opened = StoreWithClock(workspace / "data", clock)
    yield opened
    opened.close()


def set_to_1970(clock: FakeClock) -> None:
    clock.instant = datetime(1970, 1, 1, tzinfo=UTC)


def set_ahead(seconds: float) -> Callable[[FakeClock], None]:
    """Return a jump of the wall clock ahead; no time elapses."""
    return lambda clock: clock.set_back(-seconds)


def set_back_by(seconds: float) -> Callable[[FakeClock], None]:
    return lambda clock: clock.set_back(seconds)


Jump = Callable[[FakeClock], None]
JUMPS: Final[Mapping[str, Sequence[Jump]]] = {
    "back an hour": (set_back_by(HOUR_S),),
    "back a day": (set_back_by(DAY_S),),
    "back a year": (set_back_by(YEAR_S),),
    "to 1970": (set_to_1970,),
    "ahead a year": (set_ahead(YEAR_S),),
    "ahead a year, then correct": (set_ahead(YEAR_S), set_back_by(YEAR_S)),
    "back a day, then correct": (set_back_by(DAY_S), set_ahead(DAY_S)),
    "ahead and back, repeatedly": (
        set_ahead(DAY_S),
        set_back_by(2 * DAY_S),
        set_ahead(YEAR_S),
        set_back_by(YEAR_S),
    ),
}


@pytest.fixture(params=JUMPS.values(), ids=JUMPS.keys())
def jumps(request: pytest.FixtureRequest) -> Sequence[Jump]:
    """Return the jumps of one kind of wrong clock."""
    return request.param  # type: ignore[no-any-return]


# backup names and rotation


def test_backups_are_ordered_by_saves_and_not_by_the_clock(
    volume: StoreWithClock, jumps: Sequence[Jump]
) -> None:
    saved = 0
    for jump in (lambda _clock: None, *jumps):
        jump(volume.clock)
        for _ in range(4):
            volume.save({"n": saved})
            volume.clock.advance(1)
            saved += 1
        volume.restart()

    assert volume.backup_values() == [{"n": number} for number in range(saved - 2, saved - 7, -1)]
    stamps = [parsed[1] for name in volume.backup_names() if (parsed := parse_backup_name(name))]
    assert stamps == sorted(set(stamps), reverse=True)
    assert volume.run(volume.data.restore_from_backup(NAME))
    assert volume.run(volume.data.load_json(NAME)) == {"n": saved - 2}


def test_a_broken_document_is_recovered_from_the_last_backup_made(
    volume: StoreWithClock, jumps: Sequence[Jump]
) -> None:
    for number, jump in enumerate((lambda _clock: None, *jumps)):
        jump(volume.clock)
        volume.save({"n": number})
    volume.save({"n": "last"})
    volume.close()
    rewrite(volume.directory / NAME, b"{")
    volume.open()
    for _ in range(2):
        assert volume.run(volume.data.load_json(NAME)) == {"n": len(jumps)}


def save_under_random_clock(directory: Path, rng: random.Random, *, saves: int = 25) -> list[str]:
    """Save under a clock that jumps at random; return what is not in the order of the saves."""
    clock = FakeClock()
    policy = RetentionPolicy(
        keep_newest=rng.randint(1, 5), keep_daily=rng.choice((0, 3)), keep_monthly=2
    )
    volume = StoreWithClock(directory, clock, retention=policy)
    broken: list[str] = []
    for number in range(saves):
        if rng.random() < 0.4:
            clock.set_back(rng.choice((1, -1)) * rng.choice((1, HOUR_S, DAY_S, YEAR_S)))
        if rng.random() < 0.2:
            volume.restart()
        before = volume.backup_names() if number else []
        if rng.random() < 0.3 and number:
            volume.run(volume.operations.prune())
            broken += [f"{number}: a prune left {volume.backup_names()}"] * (
                volume.backup_names() != before
            )
        volume.save({"n": number})
        newest = volume.backup_values()[: min(number, policy.keep_newest)] if number else []
        expected = [{"n": older} for older in range(number - 1, number - 1 - len(newest), -1)]
        if newest != expected or len(newest) < min(number, policy.keep_newest):
            broken.append(f"{number}: the newest are {newest}, not {expected}")
    volume.close()
    return broken


@pytest.mark.parametrize("seed", range(3))
def test_random_clock_jumps_change_no_order(workspace: Path, seed: int) -> None:
    assert save_under_random_clock(workspace / "data", random.Random(seed)) == []


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_random_clock_jumps_in_hundreds_of_stores_change_no_order(
    workspace: Path, share_s: float
) -> None:
    deadline_s = time.monotonic() + min(share_s, LIMIT_S)
    first_seed = random.SystemRandom().randrange(1 << 32)
    tried, broken = 0, list[str]()
    while not tried or (tried < 300 and time.monotonic() < deadline_s):
        failures = save_under_random_clock(
            workspace / str(tried), random.Random(first_seed + tried)
        )
        broken += [f"seed {first_seed + tried}: {failure}" for failure in failures]
        tried += 1
    note(SUITE, "25 saves under a clock that jumps at random", tried=tried,
         failures=len(broken), where=kind_of(workspace), first_seed=first_seed)  # fmt: skip
    assert not broken, "\n".join(broken)
    assert tried


BY_AGE: Final = RetentionPolicy(keep_newest=3, keep_daily=7, keep_weekly=4, keep_monthly=3)


@pytest.mark.one_in(3)
def test_a_clock_jump_discards_no_backup_that_is_kept_by_age(
    workspace: Path, clock: FakeClock, jumps: Sequence[Jump]
) -> None:
    volume = StoreWithClock(workspace / "data", clock, retention=BY_AGE)
    for number in range(100):
        volume.save({"n": number})
        clock.advance(DAY_S / 2)
    before = volume.backup_names()
    assert len(before) > 10
    for jump in jumps:
        jump(clock)
        volume.run(volume.operations.prune())
        assert volume.backup_names() == before
        volume.restart()
    volume.close()


# deleted documents


def prune_daily(volume: StoreWithClock, days: int) -> None:
    for _ in range(days):
        volume.clock.advance(DAY_S)
        volume.run(volume.operations.prune())


def test_backups_of_a_deleted_document_are_kept_through_jumps_for_their_elapsed_days(
    volume: StoreWithClock, jumps: Sequence[Jump]
) -> None:
    for number in range(3):
        volume.save({"n": number})
    volume.run(volume.data.delete(NAME))
    volume.run(volume.operations.prune())
    before = volume.backup_names()
    for jump in jumps:
        jump(volume.clock)
        volume.run(volume.operations.prune())
        volume.restart()
        assert volume.backup_names() == before
    correct = datetime(2025, 1, 6, 14, 30, 22, tzinfo=UTC)
    volume.clock.instant = correct + timedelta(seconds=volume.clock.elapsed_s)

    prune_daily(volume, 10)
    assert volume.backup_names() == before, "a jump counted as more than a week"
    prune_daily(volume, 25)
    assert volume.run(volume.operations.all_backups()) == []


# pins


LONG_VALUE: Final = {"text": "what took months to learn " * 60}


def save_until_rotated(volume: StoreWithClock) -> None:
    for number in range(8):
        volume.save({"later": number, "text": "short"})


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "restarts",
    [pytest.param(False, marks=pytest.mark.prove), True],
    ids=["running", "restarted while the clock is wrong"],
)
def test_the_content_before_a_blank_save_stays_pinned_for_its_elapsed_days(
    volume: StoreWithClock, jumps: Sequence[Jump], restarts: bool
) -> None:
    volume.save(LONG_VALUE)
    volume.save({"text": "short"})
    for jump in jumps:
        jump(volume.clock)
        if restarts:
            volume.restart()
        save_until_rotated(volume)
        assert LONG_VALUE in volume.backup_values()

    volume.clock.instant = datetime(2025, 1, 6, 14, 30, 22, tzinfo=UTC)
    for _ in range(32):
        if restarts:
            volume.restart()
        volume.clock.advance(DAY_S)
        volume.save({"elapsed_s": volume.clock.elapsed_s, "text": "short"})
    save_until_rotated(volume)
    assert LONG_VALUE not in volume.backup_values(), "the pin outlasted thirty elapsed days"


# alerts, health and forecasts


class RecordingSink:
    """A sink that records every alert."""

    name = kind = "recording"
    min_severity = Severity.INFO

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    async def send(self, alert: Alert) -> Delivery:
        self.alerts.append(alert)
        return Delivery(sink=self.name, kind=self.kind, delivered=True)


async def test_an_open_alert_is_repeated_at_most_once_for_each_jump_and_daily(
    volume: StoreWithClock, jumps: Sequence[Jump]
) -> None:
    sink = RecordingSink()
    alerts = AlertLog(volume.store, [sink], clock=volume.clock)
    await alerts.load()
    for jump in (lambda _clock: None, *jumps):
        jump(volume.clock)
        before = len(sink.alerts)
        for _ in range(48):
            await alerts.take([Raised(type=AlertType.JOB_FAILED, subject="export")])
            await alerts.deliver_due()
            volume.clock.advance(HOUR_S)
        assert 1 <= len(sink.alerts) - before <= 3, "once for the jump, and at most daily"
    await alerts.take([Cleared(type=AlertType.JOB_FAILED, subject="export")])
    volume.clock.advance(BURST_S)
    await alerts.deliver_due()
    assert [alert.state for alert in sink.alerts].count("resolved") == 1
    assert sink.alerts[-1].state == "resolved"
    await alerts.close()


def test_health_still_reports_a_recovery_after_the_clock_was_set_back(
    volume: StoreWithClock,
) -> None:
    for number in range(2):
        volume.save({"n": number})
    volume.close()
    rewrite(volume.directory / NAME, b"\0\0\0")
    volume.open()
    volume.run(volume.operations.verify())
    volume.clock.set_back(YEAR_S)
    assert {"recovered", "quarantine"} <= {
        name for name, check in volume.health_checks().items() if check["status"] == "warning"
    }


GROWTH_BYTES: Final = 50 << 10


def measure_growth(volume: StoreWithClock, hours: int) -> list[float]:
    """Grow the volume each hour and measure it; return every forecast in days."""
    forecasts: list[float] = []
    for _ in range(hours):
        name = f"d{volume.clock.elapsed_s:.0f}.json"
        volume.run(volume.data.save_json(name, "x" * GROWTH_BYTES))
        volume.clock.advance(HOUR_S)
        report = volume.run(volume.operations.usage.measure())
        if report.forecast is not None:
            forecasts.append(report.forecast.days)
    return forecasts


@pytest.mark.one_in(3)
def test_no_clock_jump_shortens_the_forecast(volume: StoreWithClock, jumps: Sequence[Jump]) -> None:
    """At this rate, 190 MB last for about 150 days."""
    before = measure_growth(volume, 30)
    assert before
    for jump in jumps:
        jump(volume.clock)
        assert all(days > 75 for days in measure_growth(volume, 12))
    later = measure_growth(volume, 30)
    assert later, "there was no forecast a day after the last jump"
    assert all(75 < days < 400 for days in later[-6:])


@pytest.mark.one_in(3)
async def test_exports_are_kept_in_the_order_they_were_made(
    volume: StoreWithClock, workspace: Path, jumps: Sequence[Jump]
) -> None:
    """The export just made is whole, and never fewer exports are kept than configured."""
    target = Folder("beside", str(workspace / "exports"))
    folders = ExportFolders(target)
    exporting = Exporter(volume.store, version=__version__)
    for number, jump in enumerate((lambda _clock: None, *jumps, *[lambda _clock: None] * 3)):
        jump(volume.clock)
        volume.clock.advance(HOUR_S + 1)
        revision = await volume.data.save_json(NAME, {"n": number})
        before = set(await folders.complete())
        await exporting.export_to(Target(target, keep=3))
        (written,) = set(await folders.complete()) - before
        manifest = await read_back(folders, written)
        assert manifest.holds({NAME: revision})
        assert len(await folders.complete()) == min(number + 1, 3)
