"""A copy of a volume is put back: onto a store in use, or onto an empty volume at its start."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from seline import blocking, library, open_seline
from seline.domain.copy import Copy
from seline.domain.document import Content
from seline.domain.json_codec import encode
from seline.errors import (
    ExportDamaged,
    ImportRefused,
    RestoreUnfinished,
    SelineError,
    TooManyDocuments,
    VolumeFull,
)
from seline.library import Seline, load, restore_volume
from seline.manager import ManagedStore
from seline.operations import restore
from seline.operations.restore import fill_volume, restore_copy
from seline.operations.returning import Returned
from seline.settings import Settings
from seline.spool import Spool
from tests.copied import VOLUME, original

ORIGINAL = original()
FIRST = "doc_0.json"


def _settings(directory: Path, **arguments: object) -> Settings:
    return load(arguments={"storage.data_dir": str(directory), **arguments})


def _volume(directory: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((directory / ".seline/volume.json").read_bytes())
    return found


# onto a store in use


async def test_a_copy_is_put_back_all_or_none_and_can_be_undone(seline: Seline) -> None:
    await seline.data.save_json(FIRST, {"n": "newer"})
    await seline.data.save_json("own.json", {"n": 1})
    same = ORIGINAL.documents["doc_1.json"]
    await seline.data.save_json("doc_1.json", same)
    seen: list[tuple[int, int, int]] = []

    report = await restore_copy(
        seline.store, ORIGINAL.copy(), progress=lambda *step: seen.append(step)
    )

    assert report.created == ("doc_2.json", "doc_3.json", "doc_4.json", "doc_5.json")
    assert (report.changed, report.unchanged) == ((FIRST,), ("doc_1.json",))
    assert (report.backups, report.pins) == (13, 1)
    assert await seline.data.load_json("own.json") == {"n": 1}
    assert await seline.data.load_json(FIRST) == ORIGINAL.documents[FIRST]
    assert seen[-1][:2] == (6, 6)
    names = {backup.name for backup in await seline.data.backups("gone.json")}
    assert names == {"gone_20240101_000000.json"}
    await seline.data.restore(FIRST)
    assert await seline.data.load_json(FIRST) == {"n": "newer"}
    pinned = [backup for backup in await seline.data.backups(FIRST) if backup.pinned]
    assert [backup.name for backup in pinned] == ["doc_0_20240101_000001.json"]


async def test_a_dry_run_says_the_same_and_changes_nothing(seline: Seline) -> None:
    await seline.data.save_json(FIRST, {"n": "newer"})

    preview = await restore_copy(seline.store, ORIGINAL.copy(), dry_run=True)

    assert [info.name for info in await seline.data.documents()] == [FIRST]
    assert not await seline.data.backups(FIRST)
    done = await restore_copy(seline.store, ORIGINAL.copy())
    assert replace(preview, dry_run=False) == done
    again = await restore_copy(seline.store, ORIGINAL.copy())
    assert (again.created, again.changed, again.backups, again.pins) == ((), (), 0, 0)


async def test_only_the_named_documents_are_put_back(seline: Seline) -> None:
    report = await restore_copy(seline.store, ORIGINAL.copy(), only=[FIRST])

    assert (report.created, report.backups, report.pins) == ((FIRST,), 2, 1)
    assert [info.name for info in await seline.data.documents()] == [FIRST]
    with pytest.raises(ImportRefused, match=r"nothing\.json"):
        await restore_copy(seline.store, ORIGINAL.copy(), only=["nothing.json"])


@pytest.mark.parametrize("of_backup", [False, True], ids=["document", "backup"])
async def test_a_damaged_content_changes_nothing(seline: Seline, of_backup: bool) -> None:
    value = {"gone": 1} if of_backup else ORIGINAL.documents["doc_5.json"]
    damaged = Content.of(encode(value)).revision

    with pytest.raises(ExportDamaged):
        await restore_copy(seline.store, ORIGINAL.copy(lost=[damaged]))

    assert not await seline.data.documents()
    assert not await seline.all_backups()


async def test_contents_are_checked_and_spooled_beside_the_loop(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[threading.Thread] = []

    def noting(work: Callable[..., object]) -> Callable[..., object]:
        def noted(*given: object, **named: object) -> object:
            seen.append(threading.current_thread())
            return work(*given, **named)

        return noted

    monkeypatch.setattr(restore, "decode_strict", noting(restore.decode_strict))
    monkeypatch.setattr(Spool, "keep", noting(Spool.keep))
    await restore_copy(seline.store, ORIGINAL.copy())

    assert len(seen) > 2
    assert threading.current_thread() not in seen


# onto an empty volume


def test_an_empty_volume_becomes_the_volume_of_the_copy(tmp_path: Path) -> None:
    report = restore_volume(_settings(tmp_path), ORIGINAL.copy(), lock_wait_s=0)

    assert len(report.created) == 6
    assert (report.backups, report.pins) == (13, 1)
    assert ORIGINAL.flaws_of(tmp_path) == []
    known = _volume(tmp_path)
    assert known.pop("life")
    assert known == {"id": VOLUME, "exports": 7, "restoring": "", "pending": None}


@pytest.mark.follows("operations/restore:fill_volume")
def test_a_volume_that_holds_or_held_a_document_is_not_filled(tmp_path: Path) -> None:
    with library_open(tmp_path / "holds") as seline:
        seline.data.save_json("a.json", 1)
    with library_open(tmp_path / "held") as seline:
        seline.data.save_json("a.json", 1)
        seline.data.delete("a.json", purge=True)
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "a.json").write_text("{}", encoding="utf-8")

    for name in ("holds", "held", "older"):
        with pytest.raises(ImportRefused, match="holds documents") as refused:
            restore_volume(_settings(tmp_path / name), ORIGINAL.copy(), lock_wait_s=0)
        assert not (tmp_path / name / FIRST).exists()
    assert "onto an empty data directory" in refused.value.hint
    restore_volume(_settings(tmp_path / "empty"), ORIGINAL.copy(), lock_wait_s=0)
    assert ORIGINAL.flaws_of(tmp_path / "empty") == []


def library_open(directory: Path) -> blocking.Seline:
    return blocking.open_seline(directory, lock_wait_s=0)


@pytest.mark.follows("operations/restore:_check_fits*")
def test_a_copy_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    large = original(12, filler=200_000)
    small = _settings(tmp_path, **{"storage.volume_limit_mb": 2})
    with pytest.raises(VolumeFull, match=r"needs 2,\d{3},\d{3} bytes") as full:
        restore_volume(small, large.copy(), lock_wait_s=0)
    assert "storage.volume_limit_mb" in full.value.hint
    few = _settings(tmp_path, **{"storage.documents_max": 5})
    with pytest.raises(TooManyDocuments) as many:
        restore_volume(few, large.copy(), lock_wait_s=0)
    assert "storage.documents_max" in many.value.hint
    tiny = _settings(tmp_path, **{"storage.document_bytes_max": 100_000})
    with pytest.raises(ImportRefused, match="100000 are allowed"):
        restore_volume(tiny, large.copy(), lock_wait_s=0)

    assert not (tmp_path / ".seline/volume.json").exists()
    assert not list(tmp_path.glob("doc_*.json"))
    raised = {"storage.volume_limit_mb": 4, "storage.documents_max": 13}
    restore_volume(_settings(tmp_path, **raised), large.copy(), lock_wait_s=0)
    assert large.flaws_of(tmp_path) == []


def test_a_copy_that_fills_the_volume_is_restored_whole(tmp_path: Path) -> None:
    nearly = original(9, filler=200_000)

    restore_volume(
        _settings(tmp_path, **{"storage.volume_limit_mb": 2}), nearly.copy(), lock_wait_s=0
    )

    assert nearly.flaws_of(tmp_path) == []


@pytest.mark.parametrize("other", [False, True], ids=["same copy", "another copy"])
def test_an_interrupted_restore_is_not_served_and_any_whole_copy_completes_it(
    tmp_path: Path, other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "BATCH_FILES_MAX", 2)
    damaged = Content.of(encode(ORIGINAL.documents["doc_4.json"])).revision
    with pytest.raises(ExportDamaged):
        restore_volume(_settings(tmp_path), ORIGINAL.copy(lost=[damaged]), lock_wait_s=0)
    assert (tmp_path / FIRST).exists()

    with pytest.raises(RestoreUnfinished, match="head-1") as refused, library_open(tmp_path):
        pass

    assert "seline import EXPORT" in refused.value.hint
    whole = original(2, salt="later") if other else ORIGINAL
    restore_volume(_settings(tmp_path), whole.copy(volume="99999999"), lock_wait_s=0)
    assert whole.flaws_of(tmp_path) == []
    assert _volume(tmp_path)["id"] == "99999999"


# at a start


def _started(directory: Path, copy: Copy | None | SelineError) -> library.Seline:
    async def come_back(store: ManagedStore) -> Returned:
        if isinstance(copy, SelineError):
            raise copy
        if copy is None:
            return Returned()
        return Returned(copy, await fill_volume(store, copy))

    return library.start(
        _settings(directory), lock_wait_s=0, serves_commands=False, come_back=come_back
    )


async def test_a_start_on_an_empty_volume_restores_before_it_is_ready(tmp_path: Path) -> None:
    opened = _started(tmp_path, ORIGINAL.copy())
    try:
        assert await opened.data.load_json(FIRST) == ORIGINAL.documents[FIRST]
        assert opened.returned is not None
        assert opened.returned.report is not None
        assert opened.returned.report.backups == 13
        assert await opened.exports.known_volume_id() == VOLUME
    finally:
        await opened.close()
    again = _started(tmp_path, original(1, salt="another").copy())
    try:
        assert await again.data.load_json(FIRST) == ORIGINAL.documents[FIRST]
        assert again.returned is None
    finally:
        await again.close()
    assert threading.active_count() < 20


async def test_a_start_without_a_copy_serves_an_empty_store(tmp_path: Path) -> None:
    opened = _started(tmp_path, None)
    try:
        assert not await opened.data.documents()
    finally:
        await opened.close()


async def test_a_start_that_finds_no_destination_says_so(tmp_path: Path) -> None:
    opened = _started(tmp_path, ExportDamaged("The destination is broken."))
    with pytest.raises(ExportDamaged, match="destination is broken"):
        await opened.data.documents()
    await opened.close()
    async with open_seline(tmp_path, lock_wait_s=0) as seline:
        assert not await seline.data.documents()


async def test_a_cancelled_restore_changes_nothing(seline: Seline) -> None:
    copy = ORIGINAL.copy()
    waiting = asyncio.Event()

    async def never(_digest: str) -> bytes:
        waiting.set()
        await asyncio.sleep(3600)
        raise AssertionError

    task = asyncio.create_task(restore_copy(seline.store, replace(copy, fetch=never)))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not await seline.data.documents()
