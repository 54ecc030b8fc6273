"""V3, V4, V7: syncs fail at random, and a disk fails and works again, in each form."""

import contextlib
import errno
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from seline.blocking import Seline
from seline.domain.document import Json
from seline.errors import OutcomeUnknown, SelineError, StorageError, VolumeFailed
from seline.storage.volume.reopen import REOPEN_EVERY_S
from tests.clocks import FakeClock
from tests.faults.forms import FIRST, labelled
from tests.faults.powercut.trying import kind_of
from tests.faults.small_filesystem import FailingDisk, failing_disk
from tests.faults.test_sync_failures import (
    LIMIT_S,
    NEXT,
    SUITE,
    _not_durable,
    _save_together,
    _served,
    _wait_for_writer,
    watch_syncs,
)
from tests.proof.figures import note
from tests.proof.judge import stray
from tests.proof.operations import NEW, A, B, C, opened, value

SEED = 20250106
DISKS_MAX = 20


# a disk


@pytest.mark.prove(share=2)
def test_a_disk_that_fails_and_recovers_repeatedly_loses_nothing(
    form: str, tmp_path: Path, share_s: float
) -> None:
    """A disk on which no start succeeds any more is replaced; a copy of its files is judged."""
    print(f"seed {SEED}")
    ends_at = time.monotonic() + min(share_s, LIMIT_S)
    rng, tried, restarted, broken = random.Random(SEED), 0, 0, list[str]()
    for number in range(DISKS_MAX):
        if restarted and (time.monotonic() > ends_at or tried >= 200):
            break
        with failing_disk(tmp_path / str(number)) as disk:
            acknowledged: dict[str, Json] = {}
            try:
                while not restarted or (time.monotonic() < ends_at and tried < 200):
                    count, failures = _fail_and_recover(form, disk, rng, acknowledged)
                    tried, broken = tried + count, broken + failures
                    disk.remount()
                    broken += _lost(disk.data, acknowledged)
                    restarted += 1
            except VolumeFailed:
                disk.remount()
                copy = tmp_path / f"copy-{number}"
                shutil.copytree(disk.data, copy, copy_function=_copy_if_readable)
                broken += _lost(copy, acknowledged)
            except OSError as error:  # in the test itself: the kernel gave up the file system
                if error.errno not in {errno.EIO, errno.EROFS}:
                    raise
    note(
        SUITE,
        labelled("a disk whose writes fail and work again", form),
        tried=tried,
        failures=len(broken),
        where="ext4",
    )
    assert tried > 0
    assert restarted > 0
    assert broken == []


def _fail_and_recover(
    form: str, disk: FailingDisk, rng: random.Random, acknowledged: dict[str, Json]
) -> tuple[int, list[str]]:
    """Save documents before, while and after the disk fails; return the failed syncs, and flaws."""
    with watch_syncs(disk.data) as syncs, opened(disk.data) as seline:
        acknowledged.update(_save_at_random(seline, rng))
        _wait_for_writer(seline)
        disk.fail_writes()
        saved = _save_at_random(seline, rng)
        broken = [f"{name} was acknowledged on a bad disk" for name in saved if form == FIRST]
        acknowledged.update(saved)
        syncs.release_files()
        disk.allow_writes()
        acknowledged.update(_save_at_random(seline, rng))
        broken += [f"{name} was synced again" for name in syncs.repeated]
        return len(syncs.failed), broken


def _lost(volume: Path, acknowledged: Mapping[str, Json]) -> list[str]:
    """Return what is not as it was acknowledged, and what a pass finds, after a new start."""
    with opened(volume) as restarted:
        served = {name: restarted.data.load_json(name) for name in acknowledged}
        lost = [name for name, kept in acknowledged.items() if served[name] != kept]
        findings = restarted.verify().findings
    return [f"{name} is not as acknowledged" for name in lost] + [f"V4: {x}" for x in findings]


def _copy_if_readable(source: str, target: str) -> None:
    """Copy a file; one that the disk does not return is left out."""
    with contextlib.suppress(OSError):
        shutil.copy2(source, target)


def _save_at_random(seline: Seline, rng: random.Random) -> dict[str, Json]:
    """Save random documents with random sizes; return those that were acknowledged."""
    saved: dict[str, Json] = {}
    for _ in range(rng.randrange(1, 8)):
        name = f"d{rng.randrange(6)}.json"
        content = {"n": rng.random(), "filler": "x" * rng.choice((10, 3_000, 40_000))}
        with contextlib.suppress(StorageError):
            seline.data.save_json(name, content, backup=rng.random() < 0.7, shrink=True)
            saved[name] = content
    return saved


# many syncs fail


@pytest.mark.prove(share=2)
def test_randomly_failing_syncs_lose_nothing(
    form: str, tmp_path: Path, frozen_clock: FakeClock, share_s: float
) -> None:
    print(f"seed {SEED}")
    ends_at = time.monotonic() + min(share_s, LIMIT_S)
    tried, broken = 0, list[str]()
    for number in range(300):
        if number and time.monotonic() > ends_at:
            break
        volume = tmp_path / f"volume-{number}"
        count, failures = _change_while_syncs_fail(
            random.Random(SEED + number), volume, frozen_clock
        )
        tried += count
        broken += failures
    note(
        SUITE, labelled("any sync, at random", form), tried=tried, failures=len(broken),
        where=kind_of(tmp_path),
    )  # fmt: skip
    assert tried > 0
    assert broken == []


def _change_while_syncs_fail(
    rng: random.Random, volume: Path, frozen_clock: FakeClock
) -> tuple[int, list[str]]:
    """Change documents while one sync in ten fails; each must hold a value that is possible."""
    names = (A, B, C, NEW)
    possible: dict[str, list[Json]] = {name: [None] for name in names}
    with watch_syncs(volume) as syncs:
        with opened(volume) as seline:
            syncs.refuse = lambda _: rng.random() < 0.1
            for number in range(40):
                _change_at_random(seline, rng, names, number, possible)
                frozen_clock.advance(rng.choice((0, 0, 2, REOPEN_EVERY_S)))
            syncs.refuse = lambda _: False
            for _ in range(2):  # the first one may find that a checkpoint has failed
                frozen_clock.advance(2 * REOPEN_EVERY_S)
                with contextlib.suppress(VolumeFailed):
                    seline.data.save_json(NEXT, value(NEXT, 1))
            served = {name: _served(seline.data, name) for name in names}
        broken = [f"V3: {name} was synced again" for name in syncs.repeated]
        broken += [f"V3: {name} was not synced" for name in _not_durable(syncs)]
    broken += [
        f"{name} shows {served[name]}, of {possible[name]}"
        for name in names
        if served[name] not in possible[name]
    ]
    with opened(volume) as restarted:
        if {name: _served(restarted.data, name) for name in names} != served:
            broken.append("a document changed its value at the restart")
        broken += [f"V4: {finding}" for finding in restarted.verify().findings]
    return len(syncs.failed), broken + [f"stray: {name}" for name in stray(volume)]


def _change_at_random(
    seline: Seline,
    rng: random.Random,
    names: Sequence[str],
    number: int,
    possible: dict[str, list[Json]],
) -> None:
    """Change one document or several at once, and record the values that each may have now."""
    chosen = rng.sample(names, rng.choice((1, 1, 1, 2, 3)))
    new: dict[str, Json] = {name: value(name, number) for name in chosen}
    try:
        if len(chosen) == 1 and rng.random() < 0.2 and possible[chosen[0]] != [None]:
            new = dict.fromkeys(chosen)
            seline.data.delete(chosen[0])
        elif len(chosen) == 1:
            seline.data.save_json(chosen[0], new[chosen[0]], backup=rng.random() < 0.7)
        else:
            _save_together(seline, chosen, number)
    except OutcomeUnknown:
        for name in chosen:
            possible[name] = [*possible[name], new[name]]
    except SelineError:
        return
    else:
        for name in chosen:
            possible[name] = [new[name]]
