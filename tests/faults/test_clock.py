"""The wall clock: back an hour, a day, to 1970, ahead a year and right again, and at random.

V2, V8  The newest backup is the newest by order, whatever the clock said when it was taken; nothing
        goes that order would keep, and nothing goes sooner because a clock was wrong for a while.
V11     The days of a pin are days that were lived.
What is told by the clock is told once more for each jump at most, and nothing is foreseen from it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import pytest

from seline import __version__
from seline.alerts.log import Alerts
from seline.domain.alerts.lifecycle import Alert, AlertType, Severity
from seline.domain.backup import parse_backup_name
from seline.domain.document import Json
from seline.domain.retention import RetentionPolicy
from seline.manager import DataManager, ManagerOptions
from seline.operations.custody import Custody
from seline.operations.exports import Exporting, read_back
from seline.outbound.destinations.folder import Folder
from seline.ports.alerts import Delivery
from seline.ports.futures import run_without_loop
from seline.ports.store import DocumentStore
from seline.storage.volume import capabilities
from seline.storage.volume.store import VolumeOptions, open_volume
from tests.clocks import FakeClock
from tests.faults.powercut.trying import fast_place, kind_of
from tests.faults.test_damage import rewrite
from tests.proof.figures import note

SUITE: Final = "clock"
NAME: Final = "user_profile.json"
HOUR_S, DAY_S, YEAR_S = 3600.0, 86_400.0, 365 * 86_400.0
SEED: Final = 20250106
LIMIT_S: Final = 60.0


class Volume:
    """A store with its manager over a clock that can be set wrong, and opened again."""

    def __init__(
        self, directory: Path, clock: FakeClock, *, retention: RetentionPolicy | None = None
    ) -> None:
        self.directory = directory
        self.clock = clock
        self.options = ManagerOptions(retention=retention or RetentionPolicy(), settle_s=0.0)
        self.open()

    def open(self) -> None:
        options = VolumeOptions(
            data_dir=str(self.directory), lock_wait_s=0, settle_s=0.0, limit_mb=200
        )
        opening: Future[DocumentStore] = Future()
        opening.set_result(cast("DocumentStore", open_volume(options, clock=self.clock)))
        self.data = DataManager(opening, self.options, clock=self.clock)

    def close(self) -> None:
        self.run(self.data.close())

    def restart(self) -> None:
        self.close()
        self.open()

    def run(self, coroutine: Any) -> Any:
        return run_without_loop(coroutine)

    def save(self, value: Json, name: str = NAME) -> None:
        self.run(self.data.save_json(name, value))

    def kept(self, name: str = NAME) -> list[Json]:
        """Return what the backups hold, the newest first."""
        backups = self.run(self.data.backups(name))
        return [self.run(self.data.read_backup(name, one.name)) for one in backups]

    def names(self, name: str = NAME) -> list[str]:
        return [one.name for one in self.run(self.data.backups(name))]

    def checks(self) -> dict[str, Mapping[str, str]]:
        return {check["name"]: check for check in self.run(self.data.health())["checks"]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a fast directory; what else fills its mount is none of this suite's."""
    monkeypatch.setattr(capabilities, "mount_of", lambda _path: None)
    with fast_place(tmp_path) as fast:
        yield fast


@pytest.fixture
def volume(place: Path, clock: FakeClock) -> Iterator[Volume]:
    opened = Volume(place / "data", clock)
    yield opened
    opened.close()


def to_1970(clock: FakeClock) -> None:
    clock.instant = datetime(1970, 1, 1, tzinfo=UTC)


def ahead(seconds: float) -> Callable[[FakeClock], None]:
    """Set the clock ahead; nobody lived that time."""
    return lambda clock: clock.set_back(-seconds)


def back(seconds: float) -> Callable[[FakeClock], None]:
    return lambda clock: clock.set_back(seconds)


Jump = Callable[[FakeClock], None]
JUMPS: Final[Mapping[str, Sequence[Jump]]] = {
    "back an hour": (back(HOUR_S),),
    "back a day": (back(DAY_S),),
    "back a year": (back(YEAR_S),),
    "to 1970": (to_1970,),
    "ahead a year": (ahead(YEAR_S),),
    "ahead a year, then right": (ahead(YEAR_S), back(YEAR_S)),
    "back a day, then right": (back(DAY_S), ahead(DAY_S)),
    "ahead and back, again and again": (ahead(DAY_S), back(2 * DAY_S), ahead(YEAR_S), back(YEAR_S)),
}


@pytest.fixture(params=JUMPS.values(), ids=JUMPS.keys())
def jumps(request: pytest.FixtureRequest) -> Sequence[Jump]:
    """Give each way in which a clock is wrong."""
    return request.param  # type: ignore[no-any-return]


# names and rotation


def test_the_newest_backup_is_the_newest_by_order_whatever_the_clock_says(
    volume: Volume, jumps: Sequence[Jump]
) -> None:
    saved = 0
    for jump in (lambda _clock: None, *jumps):
        jump(volume.clock)
        for _ in range(4):
            volume.save({"n": saved})
            volume.clock.advance(1)
            saved += 1
        volume.restart()

    assert volume.kept() == [{"n": number} for number in range(saved - 2, saved - 7, -1)]
    stamps = [parsed[1] for name in volume.names() if (parsed := parse_backup_name(name))]
    assert stamps == sorted(set(stamps), reverse=True)
    assert volume.run(volume.data.restore_from_backup(NAME))
    assert volume.run(volume.data.load_json(NAME)) == {"n": saved - 2}


def test_what_is_broken_is_recovered_from_the_newest_by_order(
    volume: Volume, jumps: Sequence[Jump]
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


def walk(directory: Path, chance: random.Random, *, saves: int = 25) -> list[str]:
    """Save under a clock that jumps at random; return what order would not have done."""
    clock = FakeClock()
    policy = RetentionPolicy(
        keep_newest=chance.randint(1, 5), keep_daily=chance.choice((0, 3)), keep_monthly=2
    )
    volume = Volume(directory, clock, retention=policy)
    broken: list[str] = []
    for number in range(saves):
        if chance.random() < 0.4:
            clock.set_back(chance.choice((1, -1)) * chance.choice((1, HOUR_S, DAY_S, YEAR_S)))
        if chance.random() < 0.2:
            volume.restart()
        before = volume.names() if number else []
        if chance.random() < 0.3 and number:
            volume.run(volume.data.prune())
            broken += [f"{number}: a prune took {volume.names()}"] * (volume.names() != before)
        volume.save({"n": number})
        newest = volume.kept()[: min(number, policy.keep_newest)] if number else []
        must = [{"n": one} for one in range(number - 1, number - 1 - len(newest), -1)]
        if newest != must or len(newest) < min(number, policy.keep_newest):
            broken.append(f"{number}: the newest are {newest}, not {must}")
    volume.close()
    return broken


@pytest.mark.parametrize("seed", range(3))
def test_a_clock_that_jumps_at_random_changes_no_order(place: Path, seed: int) -> None:
    assert walk(place / "data", random.Random(seed)) == []


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_hundreds_of_random_walks_of_the_clock_change_no_order(place: Path, share_s: float) -> None:
    until_s = time.monotonic() + min(share_s, LIMIT_S)
    first = random.SystemRandom().randrange(1 << 32)
    tried, broken = 0, list[str]()
    while tried < 300 and time.monotonic() < until_s:
        found = walk(place / str(tried), random.Random(first + tried))
        broken += [f"seed {first + tried}: {one}" for one in found]
        tried += 1
    note(SUITE, "25 saves under a clock that jumps at random", tried=tried,
         failures=len(broken), where=kind_of(place), first_seed=first)  # fmt: skip
    assert not broken, "\n".join(broken)
    assert tried


AGES: Final = RetentionPolicy(keep_newest=3, keep_daily=7, keep_weekly=4, keep_monthly=3)


def test_a_jump_alone_lets_nothing_go_that_is_kept_by_age(
    place: Path, clock: FakeClock, jumps: Sequence[Jump]
) -> None:
    volume = Volume(place / "data", clock, retention=AGES)
    for number in range(100):
        volume.save({"n": number})
        clock.advance(DAY_S / 2)
    before = volume.names()
    assert len(before) > 10
    for jump in jumps:
        jump(clock)
        volume.run(volume.data.prune())
        assert volume.names() == before
        volume.restart()
    volume.close()


# the deleted


def look_daily(volume: Volume, days: int) -> None:
    for _ in range(days):
        volume.clock.advance(DAY_S)
        volume.run(volume.data.prune())


def test_the_backups_of_the_deleted_stay_through_jumps_and_go_after_their_days(
    volume: Volume, jumps: Sequence[Jump]
) -> None:
    for number in range(3):
        volume.save({"n": number})
    volume.run(volume.data.delete(NAME))
    volume.run(volume.data.prune())
    before = volume.names()
    for jump in jumps:
        jump(volume.clock)
        volume.run(volume.data.prune())
        volume.restart()
        assert volume.names() == before
    right = datetime(2025, 1, 6, 14, 30, 22, tzinfo=UTC)
    volume.clock.instant = right + timedelta(seconds=volume.clock.elapsed_s)

    look_daily(volume, 10)
    assert volume.names() == before, "a jump may count as a week, and no more"
    look_daily(volume, 25)
    assert volume.run(volume.data.all_backups()) == []


# pins


BIG: Final = {"text": "what took months to learn " * 60}


def save_until_rotated(volume: Volume) -> None:
    for number in range(8):
        volume.save({"later": number, "text": "short"})


@pytest.mark.parametrize("restarts", [False, True], ids=["running", "restarted while it is wrong"])
def test_the_content_before_a_blank_save_is_pinned_through_jumps_for_the_days_lived(
    volume: Volume, jumps: Sequence[Jump], restarts: bool
) -> None:
    volume.save(BIG)
    volume.save({"text": "short"})
    for jump in jumps:
        jump(volume.clock)
        if restarts:
            volume.restart()
        save_until_rotated(volume)
        assert BIG in volume.kept()

    volume.clock.instant = datetime(2025, 1, 6, 14, 30, 22, tzinfo=UTC)
    for _ in range(32):
        if restarts:
            volume.restart()
        volume.clock.advance(DAY_S)
        volume.save({"lived": volume.clock.elapsed_s, "text": "short"})
    save_until_rotated(volume)
    assert BIG not in volume.kept(), "thirty days were lived"


# what is told and foreseen


class Ear:
    """A sink that hears everything."""

    name = kind = "ear"
    min_severity = Severity.INFO

    def __init__(self) -> None:
        self.heard: list[Alert] = []

    async def send(self, alert: Alert) -> Delivery:
        self.heard.append(alert)
        return Delivery(sink=self.name, kind=self.kind, delivered=True)


async def test_what_stands_is_told_once_more_for_each_jump_and_then_daily(
    volume: Volume, jumps: Sequence[Jump]
) -> None:
    ear = Ear()
    alerts = Alerts(volume.data, [ear], clock=volume.clock)
    await alerts.load()
    for jump in (lambda _clock: None, *jumps):
        jump(volume.clock)
        before = len(ear.heard)
        for _ in range(48):
            await alerts.raise_alert(AlertType.JOB_FAILED, "export")
            await alerts.deliver_due()
            volume.clock.advance(HOUR_S)
        assert 1 <= len(ear.heard) - before <= 3, "for the jump, and at most daily"
    await alerts.resolve(AlertType.JOB_FAILED, "export")
    await alerts.deliver_due()
    assert [alert.state for alert in ear.heard].count("resolved") == 1
    assert ear.heard[-1].state == "resolved"
    await alerts.close()


def test_what_happened_is_still_said_after_the_clock_was_set_back(volume: Volume) -> None:
    for number in range(2):
        volume.save({"n": number})
    volume.close()
    rewrite(volume.directory / NAME, b"\0\0\0")
    volume.open()
    volume.run(volume.data.verify())
    volume.clock.set_back(YEAR_S)
    assert {"recovered", "quarantine"} <= {
        name for name, check in volume.checks().items() if check["status"] == "warning"
    }


GROWTH_BYTES: Final = 50 << 10


def grow(volume: Volume, custody: Custody, hours: int) -> list[float]:
    """Let the volume grow each hour, measure it, and return every forecast in days."""
    forecasts: list[float] = []
    for _ in range(hours):
        name = f"d{volume.clock.elapsed_s:.0f}.json"
        volume.run(volume.data.save_json(name, "x" * GROWTH_BYTES))
        volume.clock.advance(HOUR_S)
        report = volume.run(custody.measure())
        if report.forecast is not None:
            forecasts.append(report.forecast.days)
    return forecasts


def test_no_jump_makes_a_volume_seem_full_sooner(volume: Volume, jumps: Sequence[Jump]) -> None:
    """At so much an hour, 190 MB more last for some 150 days."""
    custody = Custody(volume.data, clock=volume.clock)
    before = grow(volume, custody, 30)
    assert before
    for jump in jumps:
        jump(volume.clock)
        assert all(days > 75 for days in grow(volume, custody, 12))
    again = grow(volume, custody, 30)
    assert again, "a day after the last jump there is something to go by again"
    assert all(75 < days < 400 for days in again[-6:])


async def test_exports_follow_each_other_whatever_the_clock_says(
    volume: Volume, place: Path, jumps: Sequence[Jump]
) -> None:
    """The one just written stays, whole, and never fewer are kept than were asked for."""
    target = Folder("beside", str(place / "exports"))
    exporting = Exporting(volume.data, version=__version__)
    for number, jump in enumerate((lambda _clock: None, *jumps, *[lambda _clock: None] * 3)):
        jump(volume.clock)
        volume.clock.advance(HOUR_S + 1)
        revision = await volume.data.save_json(NAME, {"n": number})
        exported = await exporting.export_to(target, keep=3)
        manifest = await read_back(target, exported.export)
        assert manifest.holds({NAME: revision})
        assert len(await target.exports()) == min(number + 1, 3)
