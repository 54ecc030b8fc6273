"""The quarantine is bounded: the oldest broken files go, never what may be an only copy."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from seline import open_seline
from seline.clock import SystemClock
from seline.domain.backup import Stamp, backup_name
from seline.library import Seline
from seline.manager import setting_aside
from seline.manager.setting_aside import BYTES_MAX, ITEMS_MAX, surplus
from seline.ports.store import QuarantineItem
from seline.services.custody import Custody

FIRST = datetime(2025, 1, 6, 14, 30, 22, tzinfo=UTC)


def an_item(number: int, size_bytes: int, document: str = "a.json") -> QuarantineItem:
    taken_at = FIRST + timedelta(minutes=number)
    return QuarantineItem(
        name=backup_name(document, Stamp(taken_at, 0)),
        document=document,
        taken_at=taken_at,
        size_bytes=size_bytes,
    )


@given(
    sizes=some.lists(some.integers(0, BYTES_MAX * 2), max_size=ITEMS_MAX + 30),
    only=some.sets(some.sampled_from(["a.json", "b.json", "c.json"])),
)
def test_what_stays_is_within_bounds_or_may_be_the_only_copy(
    sizes: list[int], only: set[str]
) -> None:
    names = ["a.json", "b.json", "c.json"]
    items = [an_item(n, size, names[n % 3]) for n, size in enumerate(sizes)][::-1]
    gone = surplus(items, lambda document: document not in only)
    kept = [item for item in items if item not in gone]
    assert not {item.document for item in gone} & only
    assert kept[:1] == items[:1], "the newest stays"
    free = [item for item in kept[1:] if item.document not in only]
    assert len(free) < ITEMS_MAX
    assert sum(item.size_bytes for item in free) <= BYTES_MAX


@pytest.fixture
async def seline(tmp_path: Path) -> AsyncIterator[Seline]:
    async with open_seline(tmp_path) as opened:
        yield opened


def set_aside(directory: Path, document: str, count: int) -> None:
    for number in range(count):
        (directory / "quarantine" / an_item(number, 0, document).name).write_bytes(b"\0" * 10)


async def test_the_rotation_drops_the_oldest_beyond_the_bounds(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setting_aside, "ITEMS_MAX", 4)
    await seline.data.save_json("a.json", {"n": 1})
    set_aside(tmp_path, "a.json", 6)
    (tmp_path / "quarantine" / "notes.txt").write_text("not ours")
    report = await Custody(seline.data, clock=SystemClock()).rotate()
    assert (report.quarantined, report.freed_bytes) == (2, 20)
    left = await seline.data.quarantine()
    assert [item.taken_at for item in left] == [FIRST + timedelta(minutes=n) for n in (5, 4, 3, 2)]
    assert (tmp_path / "quarantine" / "notes.txt").exists()


async def test_what_may_be_the_only_copy_is_never_dropped(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setting_aside, "ITEMS_MAX", 1)
    set_aside(tmp_path, "gone.json", 3)
    assert await seline.data.bound_quarantine() == []
    await seline.data.save_json("gone.json", {"n": 1})
    before = (tmp_path / "gone.json").stat()
    (tmp_path / "gone.json").write_bytes(b"\0" * before.st_size)
    os.utime(tmp_path / "gone.json", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await seline.data.bound_quarantine() == [], "it is broken and has no backup"
    await seline.data.save_json("gone.json", {"n": 2})
    assert len(await seline.data.bound_quarantine()) >= 2
