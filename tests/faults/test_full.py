"""Full is not dead (V9): on a small file system of its own, filled by saves, backups, strangers.

- From 90 % on old backups make room, the oldest first, each with its reason, never a document's
  newest sound one (V8); from 95 % on growing writes are `VolumeFull`, and nothing is written.
- Full to the last byte, or the last inode: reads, deletes, shrinking writes, restores and exports
  go on, from a reserve where they must, also for a process that was started on the full volume.
- A full server is ready and says what is wrong; when there is room again all is as before.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from seline import __version__
from seline import open_seline as open_awaited
from seline.blocking import Seline, open_seline
from seline.domain.document import BOT, Content, DocumentKey, Json
from seline.errors import VolumeFull
from seline.operations.exports import Exporting, read_back
from seline.outbound.destinations.folder import Folder
from seline.ports.store import Atom, Change, Decision, Put, Remove
from seline.server import serving
from seline.storage.volume import batches
from seline.storage.volume.mounts import mount_of
from tests.command_line import line_at
from tests.faults.injection import in_backups, store_of, told_of
from tests.faults.small_filesystem import SmallFilesystem, free_bytes, small_filesystem
from tests.integration.test_http import Client, settings_for
from tests.proof.figures import note

SUITE: Final = "full volume"
LIMIT_S: Final = 90.0
NAMES: Final = ("a.json", "b.json", "c.json")
MB: Final = 1_000_000
FOREIGN: Final = "core.dump"
LONG: Final = 5_000


# a volume, and the ways to fill it


def _to_96_percent(volume: SmallFilesystem) -> Path:
    return volume.fill_to(0.96, FOREIGN)


def _to_the_last_byte(volume: SmallFilesystem) -> Path:
    return volume.fill(FOREIGN)


def _to_the_last_inode(volume: SmallFilesystem) -> Path:
    return volume.use_up_inodes(FOREIGN)


FILLED: Final[Mapping[str, Callable[[SmallFilesystem], Path]]] = {
    "to 96 %": _to_96_percent,
    "to the last byte": _to_the_last_byte,
    "to the last inode": _to_the_last_inode,
}


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[SmallFilesystem]:
    """Give a small file system of its own."""
    with small_filesystem(tmp_path / "volume") as small:
        yield small


@contextmanager
def volume_to_fill(way: str, tmp_path: Path) -> Iterator[SmallFilesystem]:
    """Give a volume that `way` can fill soon."""
    with small_filesystem(
        tmp_path / "volume", inodes=128 if way == "to the last inode" else None
    ) as small:
        yield small


def value(number: Json, length: int = LONG) -> dict[str, Json]:
    return {"n": number, "text": "x" * length}


def save_history(seline: Seline, count: int = 2) -> None:
    """Save the documents `count` times; with two, every backup is a newest sound one."""
    for number in range(count):
        for name in NAMES:
            seline.data.save_json(name, value(number))


def make_room(foreign: Path) -> None:
    """Take away what a stranger left."""
    if foreign.is_dir():
        for path in foreign.iterdir():
            path.unlink()
    else:
        foreign.unlink(missing_ok=True)


def strays(volume: SmallFilesystem) -> list[str]:
    inner = volume.path / ".seline"
    return [*os.listdir(inner / "staging"), *(path.name for path in inner.glob("journal*"))]


def backups_of(seline: Seline) -> dict[str, list[str]]:
    """Return every document's backups, newest first."""
    return {name: [backup.name for backup in seline.data.backups(name)] for name in NAMES}


def check_named(name: str, health: Any) -> Any:
    """Return one check of health."""
    return next(check for check in health["checks"] if check["name"] == name)


def shed_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the backups that the log says were discarded for want of space, in order."""
    said = [re.fullmatch(r"(\S+) was discarded: the volume is nearly full", line)
            for line in caplog.messages]  # fmt: skip
    return [one[1] for one in said if one]


def has_reserve(volume: SmallFilesystem) -> bool:
    return (volume.path / ".seline" / "reserve").exists()


def wait_until(is_so: Callable[[], bool], limit_s: float = 10.0) -> None:
    ends_at = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < ends_at, "it does not come about"
        time.sleep(0.01)


# what a full volume still does


def _transaction(seline: Seline) -> None:
    with seline.data.transaction("a.json", "b.json") as change:
        change["a.json"], change["b.json"] = value("short", 4_000), value("short", 4_000)


def _edit(seline: Seline) -> None:
    with seline.data.edit("a.json") as content:
        content["text"] = "short"


GIVE_ROOM: Final[Mapping[str, tuple[Callable[[Seline], object], Json]]] = {
    "a smaller save": (lambda s: s.data.save_json("a.json", value(2, 4_000)), value(2, 4_000)),
    "a save of the same size": (lambda s: s.data.save_json("a.json", value(2)), value(2)),
    "a blank save": (lambda s: s.data.save_json("a.json", {"n": 2}), {"n": 2}),
    "an update": (lambda s: s.data.update_field("a.json", "text", "x"), value(1, 1)),
    "an edit": (_edit, {"n": 1, "text": "short"}),
    "a transaction": (_transaction, value("short", 4_000)),
    "an import": (
        lambda s: s.data.import_data({"files": {name: {"n": 2} for name in NAMES[:2]}}),
        {"n": 2},
    ),
    "a restore": (lambda s: s.data.restore("a.json"), value(0)),
    "a delete": (lambda s: s.data.delete("a.json"), None),
    "a purge": (lambda s: s.data.delete("a.json", purge=True), None),
    "a pin": (lambda s: s.data.pin("a.json", backups_of_one(s, "a.json")[0]), value(1)),
}
"""What does not grow, with what a.json holds after it."""
ALWAYS_TRIED: Final = ("a smaller save", "a blank save", "a transaction", "a restore", "a delete")


@pytest.mark.parametrize("way", FILLED)
def test_a_volume_that_is_full_at_the_start_takes_what_does_not_grow(
    way: str, tmp_path: Path
) -> None:
    _give_room_while_full(way, ALWAYS_TRIED, tmp_path)


@pytest.mark.prove
def test_a_volume_that_is_full_at_the_start_takes_all_that_does_not_grow(tmp_path: Path) -> None:
    kinds = {
        _give_room_while_full(way, tuple(GIVE_ROOM), tmp_path / way.replace(" ", "-"))
        for way in FILLED
    }
    note(
        SUITE, "each change that does not grow, full at the start", where=", ".join(kinds),
        tried=len(FILLED) * len(GIVE_ROOM), failures=0,
    )  # fmt: skip


def _give_room_while_full(way: str, names: Sequence[str], place: Path) -> str:
    """Do each on a volume of its own that was full before it was opened; return what kind it is."""
    with volume_to_fill(way, place) as volume:
        for name in names:
            act, after = GIVE_ROOM[name]
            with open_seline(volume.path) as seline:
                save_history(seline)
            foreign = FILLED[way](volume)
            with open_seline(volume.path) as seline:
                assert seline.data.health()["status"] == "critical"
                _check_that_nothing_grows(seline)
                act(seline)
                assert seline.data.load_json("a.json", default=None) == after, name
                assert strays(volume) == [], name
                _check_that_nothing_grows(seline)
                make_room(foreign)
                seline.data.save_json("new.json", value(0, MB))
                assert seline.data.load_json("a.json", default=None) == after, name
                _begin_anew(seline)
    return volume.kind


def _check_that_nothing_grows(seline: Seline) -> None:
    """What grows is refused, and what lies there is shown."""
    with pytest.raises(VolumeFull):
        seline.data.save_json("new.json", value(0, 20 * MB))
    assert seline.data.load_json("b.json") != {}
    assert len(seline.data.export_all_data()["files"]) >= 2  # type: ignore[arg-type]
    assert seline.data.verify().findings == ()


def _begin_anew(seline: Seline) -> None:
    for info in seline.data.documents():
        seline.data.delete(info.name, purge=True)


async def test_an_export_leaves_a_full_volume_and_comes_back(tmp_path: Path) -> None:
    """The readable JSON, and the folder on another disk, read back."""
    for way, fill in FILLED.items():
        place = tmp_path / way.replace(" ", "-")
        place.mkdir()
        with volume_to_fill(way, place) as volume:
            async with open_awaited(volume.path) as seline:
                for number in range(2):
                    await seline.data.save_json("a.json", value(number))
                fill(volume)

                target = Folder("beside", str(place / "exports"))
                exporting = Exporting(seline.data, version=__version__)
                exported = await exporting.export_to(target, keep=1)
                readable = await seline.data.export_all_data()
                await seline.data.save_json("a.json", {"n": "lost"}, shrink=True)
                await seline.data.restore("a.json")
                report = await seline.data.import_data(readable)

                assert report.unchanged == ("a.json",)
                assert await seline.data.load_json("a.json") == value(1)
            manifest = await read_back(target, exported.export)
            assert [len(document.backups) for document in manifest.documents] == [1]


@pytest.mark.parametrize("way", FILLED)
async def test_a_full_server_is_ready_says_what_is_wrong_and_gets_well_by_itself(
    way: str, tmp_path: Path
) -> None:
    with volume_to_fill(way, tmp_path) as volume:
        async with open_awaited(volume.path) as seline:
            for number in range(2):
                for name in NAMES:
                    await seline.data.save_json(name, value(number))
        foreign = FILLED[way](volume)
        async with served(volume) as client:
            assert await ready(client) == 200
            status, health, _ = await client.call("GET", "/health")
            assert (status, health["status"]) == (200, "critical")
            wrong = "inodes" if way == "to the last inode" else "usage"
            assert check_named(wrong, health)["status"] == "critical"
            assert check_named(wrong, health)["fix"]
            assert await puts(client, "new.json", value(0, MB)) == (507, "volume_full")
            assert await puts(client, "a.json", value("short", 100)) == (200, None)
            for method, path, body in (
                ("GET", "/documents/a.json", None),
                ("GET", "/storage-info", None),
                ("GET", "/export", None),
                ("POST", "/restore-backup", {"filename": "b.json"}),
                ("DELETE", "/documents/c.json", None),
                ("POST", "/verify", None),
            ):
                assert (await client.call(method, path, body))[0] == 200, path
            assert await ready(client) == 200

            make_room(foreign)

            assert await puts(client, "new.json", value(0, MB)) == (201, None)
            _, health, _ = await client.call("GET", "/health")
            assert check_named(wrong, health)["status"] in ("ok", "info")
            assert await ready(client) == 200


@asynccontextmanager
async def served(volume: SmallFilesystem) -> AsyncIterator[Client]:
    async with serving(settings_for(volume.path)) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        yield Client(session, running.address)


async def ready(client: Client) -> int:
    root = client.base.removesuffix("/api/v1/data-admin")
    async with client.session.get(f"{root}/readyz") as answer:
        return answer.status


async def puts(client: Client, name: str, body: Json) -> tuple[int, str | None]:
    status, answer, _ = await client.call("PUT", f"/documents/{name}", body)
    return status, answer.get("code")


# by levels: 90 % and 95 %


def test_old_backups_go_from_ninety_percent_on_the_oldest_first_and_with_a_reason(
    volume: SmallFilesystem, caplog: pytest.LogCaptureFixture
) -> None:
    made: dict[str, list[str]] = {name: [] for name in NAMES}
    with open_seline(volume.path, backups__keep_newest=1000) as seline:
        for number in range(90):
            name = NAMES[number % 3]
            gone, before = len(shed_in(caplog)), seline.data.health()["usage_percent"]
            seline.data.save_json(name, value(number, 300_000))
            made[name] += [one for one in backups_of_one(seline, name)[:1] if one not in made[name]]
            assert len(shed_in(caplog)) == gone or before > 88, "some went before their time"  # type: ignore[operator]
        kept = backups_of(seline)
        health = seline.data.health()
        newest = [seline.data.read_backup(name, kept[name][0])["n"] for name in NAMES]  # type: ignore[index,call-overload]

    shed = {name: [one for one in shed_in(caplog) if one in made[name]] for name in NAMES}
    for name in NAMES:
        assert len(shed[name]) > 5
        assert [*shed[name], *reversed(kept[name])] == made[name], "an older one was left"
    assert newest == [84, 85, 86]
    assert max(map(len, shed.values())) - min(map(len, shed.values())) < 3
    assert health["usage_percent"] < 95  # type: ignore[operator]
    told = check_named("shed", health)
    assert told["status"] == "warning"
    assert shed_in(caplog)[0] in told["detail"]


def backups_of_one(seline: Seline, name: str) -> list[str]:
    return [backup.name for backup in seline.data.backups(name)]


def test_a_backup_that_must_stay_does_not_keep_the_others_from_going(
    volume: SmallFilesystem,
) -> None:
    """V8: the newest one of a.json is rotten, so an old one is the only one to rely on."""
    with open_seline(volume.path, backups__keep_newest=1000) as seline:
        for number in range(3):
            seline.data.save_json("a.json", value(number, 1_200_000))
        rotten, relied_on = backups_of_one(seline, "a.json")
    _flip(volume.path / "backups" / rotten)
    with open_seline(volume.path, backups__keep_newest=1000) as seline:
        for number in range(100):
            seline.data.save_json("b.json", value(number, 200_000))

        assert len(backups_of_one(seline, "b.json")) < 80
        assert seline.data.health()["usage_percent"] < 91  # type: ignore[operator]
        assert relied_on in backups_of_one(seline, "a.json")
        assert seline.data.read_backup("a.json", relied_on) == value(0, 1_200_000)


def _flip(path: Path) -> None:
    """Change a byte as a bad disk does: the mtime stays."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"xxx", b"xyx", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("way", ["to 90 %", "to the last inode"])
def test_no_more_backups_go_than_make_room(way: str, tmp_path: Path) -> None:
    """Small ones take a block and an inode each, whatever their size."""
    inodes = 128 if way == "to the last inode" else None
    with (
        small_filesystem(tmp_path / "volume", inodes=inodes) as volume,
        open_seline(volume.path, backups__keep_newest=1000) as seline,
    ):
        for number in range(60 if inodes else 320):
            seline.data.save_json("a.json", value(number, 300))
        before = len(backups_of_one(seline, "a.json"))
        if inodes:
            volume.use_up_inodes(FOREIGN)
        else:
            volume.fill_to(0.9, FOREIGN)
        for number in range(6):
            seline.data.save_json("a.json", value(f"again {number}", 300))
        after = len(backups_of_one(seline, "a.json"))

    freed = 16 + 2 if inodes else 256
    assert before + 6 - after <= freed + 4
    assert after >= 40


def test_what_seline_keeps_for_itself_is_not_worth_a_backup(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for way, fill in FILLED.items():
        place = tmp_path / way.replace(" ", "-")
        with volume_to_fill(way, place) as volume, open_seline(volume.path) as seline:
            save_history(seline, 4)
            fill(volume)
            awaited: Any = seline.data._awaited
            with pytest.raises(VolumeFull):
                _run(awaited.update_state("jobs.json", lambda _: {"jobs": "x" * 9_000}))
            assert [len(kept) for kept in backups_of(seline).values()] == [3, 3, 3]
    assert shed_in(caplog) == []


def _run(coroutine: Any) -> Any:
    from seline.ports.futures import run_without_loop

    return run_without_loop(coroutine)


def test_growing_saves_are_refused_from_ninety_five_percent_on(volume: SmallFilesystem) -> None:
    with open_seline(volume.path) as seline:
        save_history(seline, 1)
        volume.fill_to(0.94, FOREIGN)
        room = int(free_bytes(volume.path) - _beyond_95_percent(volume))

        with pytest.raises(VolumeFull) as refused:
            seline.data.save_json("new.json", "x" * (room + 40_000))
        assert seline.data.load_json("new.json", default=None) is None
        seline.data.save_json("new.json", "x" * (room - 40_000))

    assert 93 < refused.value.details["usage_percent"] < 95  # type: ignore[operator]
    assert refused.value.hint


def _beyond_95_percent(volume: SmallFilesystem) -> float:
    status = os.statvfs(volume.path)
    reach = status.f_blocks - status.f_bfree + status.f_bavail
    return 0.05 * reach * status.f_frsize


def test_no_save_is_refused_for_what_rotation_has_long_taken_away(tmp_path: Path) -> None:
    """Where our own files are counted, those that went count no more."""
    mount = mount_of(str(tmp_path))
    if mount is None or mount.point != "/":
        pytest.skip("on a mount of its own the file system counts, not our files")
    with open_seline(
        tmp_path / "data", storage__volume_limit_mb=10, backups__keep_newest=2
    ) as seline:
        for number in range(60):
            seline.data.save_json("a.json", value(number, 200_000 + number))
            assert seline.data.health()["usage_percent"] < 9  # type: ignore[operator]
        assert len(backups_of_one(seline, "a.json")) == 2


def test_a_growing_save_beside_a_delete_is_refused_on_a_full_volume(tmp_path: Path) -> None:
    with open_seline(tmp_path, lock_wait_s=0, storage__volume_limit_mb=4) as seline:
        seline.data.save_json("a.json", {"n": 1})
        with contextlib.suppress(VolumeFull):
            for number in range(100):
                seline.data.save_json(f"f{number}.json", {"b": "x" * 200_000}, backup=False)
        large = {"b": "y" * 900_000}
        with pytest.raises(VolumeFull):
            seline.data.save_json("a.json", large)

        deleted, saved = _in_one_batch(
            seline, Remove(), Put(content=Content.of(json.dumps(large).encode()))
        )

        assert deleted is None
        assert saved is VolumeFull


def _in_one_batch(seline: Seline, *decisions: Decision) -> list[type[BaseException] | None]:
    """Make decisions about one document in one batch; return which error each met."""
    store, begin = store_of(seline), threading.Event()
    held = store._writer.between(begin.wait)
    atoms = [
        Atom((Change(DocumentKey(BOT, "a.json"), lambda _, one=one: one),)) for one in decisions
    ]  # type: ignore[misc]
    futures = [store.submit(atom) for atom in atoms]
    begin.set()
    held.result(10)
    errors = [future.exception(10) for future in futures]
    return [None if error is None else type(error) for error in errors]


def test_no_backup_goes_for_room_that_was_made_by_hand(tmp_path: Path) -> None:
    """The measure may be a minute old: it is taken anew before any backup goes."""
    with open_seline(tmp_path, lock_wait_s=0, storage__volume_limit_mb=4) as seline:
        for number in range(4):
            seline.data.save_json("a.json", {"n": number})
        (tmp_path / "by hand").write_bytes(os.urandom(4 << 20))
        store_of(seline)._disk_usage.usage(fresh=True)
        (tmp_path / "by hand").unlink()

        seline.data.save_json("a.json", {"n": 4})

        assert in_backups(seline, "a.json") == [{"n": 3}, {"n": 2}, {"n": 1}, {"n": 0}]
        assert "shed" not in told_of(seline)


# the reserve


@pytest.mark.parametrize("way", ["to the last byte", "to the last inode"])
def test_the_reserve_goes_in_an_emergency_and_comes_back_by_itself(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "REOPEN_EVERY_S", 0.02)
    with volume_to_fill(way, tmp_path) as volume, open_seline(volume.path) as seline:
        save_history(seline)
        foreign = FILLED[way](volume)
        assert has_reserve(volume)
        with pytest.raises(VolumeFull):
            seline.data.save_json("new.json", value(0, 9_000))
        assert has_reserve(volume), "a growing save has drawn on it"

        files = os.statvfs(volume.path).f_favail
        seline.data.save_json("a.json", value("short", 100), shrink=True)

        if way == "to the last byte":
            assert not has_reserve(volume)
            assert check_named("reserve", seline.data.health())["status"] == "warning"
        else:
            assert files == 0
        make_room(foreign)
        wait_until(lambda: has_reserve(volume))
        assert "reserve" not in [check["name"] for check in seline.data.health()["checks"]]  # type: ignore[union-attr,call-overload,index]
        assert seline.data.load_json("a.json") == value("short", 100)


def test_a_reserve_that_was_drawn_on_is_there_again_after_a_start_with_room(
    volume: SmallFilesystem,
) -> None:
    with open_seline(volume.path) as seline:
        save_history(seline)
        foreign = volume.fill(FOREIGN)
        seline.data.restore("a.json")
        assert not has_reserve(volume)
    with open_seline(volume.path) as seline:
        assert not has_reserve(volume)
        assert seline.data.load_json("a.json") == value(0)
    make_room(foreign)
    with open_seline(volume.path):
        assert has_reserve(volume)


# who fills it


def test_saves_fill_the_volume_and_it_stays_usable(volume: SmallFilesystem) -> None:
    with open_seline(volume.path) as seline:
        seline.data.save_json("small.json", {"n": 1})
        count = _fill_by_saves(seline)
        assert count > 20
        assert seline.data.health()["status"] != "healthy"
        assert seline.data.load_json("d0.json") == "x" * 200_000
        assert len(seline.data.export_all_data()["files"]) == count + 1  # type: ignore[arg-type]
        seline.data.save_json("small.json", {"n": 2})
        assert seline.data.restore_from_backup("small.json") is True
        seline.data.save_json("d1.json", "x" * 1000)
        for number in range(count // 2):
            seline.data.delete(f"d{number}.json", purge=True)
        assert seline.data.save_json("more.json", "x" * 100_000)
        assert seline.data.health()["usage_percent"] < 80  # type: ignore[operator]
        assert seline.data.verify().findings == ()
        assert strays(volume) == []


def _fill_by_saves(seline: Seline) -> int:
    """Save ever new documents until the volume is full; return how many there are."""
    for number in range(10_000):
        try:
            seline.data.save_json(f"d{number}.json", "x" * 200_000)
        except VolumeFull:
            return number
    raise AssertionError("it was never full")


def test_a_broken_document_on_a_full_volume_is_recovered(volume: SmallFilesystem) -> None:
    with open_seline(volume.path, storage__cache_bytes_max=0) as seline:
        save_history(seline)
        volume.fill(FOREIGN)
        _flip(volume.path / "a.json")

        assert seline.data.load_json("a.json") == value(0)
        assert [item.document for item in seline.data.quarantine()] == ["a.json"]
        assert strays(volume) == []


def test_prune_says_before_how_many_bytes_it_gives_back(volume: SmallFilesystem) -> None:
    with open_seline(volume.path, backups__keep_newest=20) as seline:
        for number in range(12):
            seline.data.save_json("a.json", value(number, 40_960))
        volume.fill(FOREIGN)
    with open_seline(volume.path, backups__keep_newest=3) as seline:
        said = seline.data.prune(dry_run=True)
        free = free_bytes(volume.path)
        done = seline.data.prune()

    assert [one.backup for one in said] == [one.backup for one in done]
    assert {one.because for one in said} == {"older than the policy keeps"}
    blocks = sum(-(-one.size_bytes // 4096) * 4096 for one in said)
    assert free_bytes(volume.path) - free == pytest.approx(blocks, rel=0.1)
    assert len(said) == 11 - 3


@pytest.mark.prove
@pytest.mark.parametrize("way", FILLED)
def test_a_person_at_the_command_line_makes_room_on_a_full_volume(way: str, tmp_path: Path) -> None:
    """No server runs; every command opens the volume for itself."""
    inodes = 128 if way == "to the last inode" else None
    with small_filesystem(tmp_path / "data", inodes=inodes) as volume:
        with open_seline(volume.path, backups__keep_newest=8) as seline:
            save_history(seline, 8)
        FILLED[way](volume)
        run = line_at(tmp_path)

        status = run("status")
        said = run("prune", "--dry-run")
        exported = run("export", str(tmp_path / "exports"))
        pruned = run("prune", "--yes")
        restored = run("restore", "a.json", "--yes")
        imported = run("import", str(tmp_path / "exports"), "--yes")
        deleted = run("delete", "c.json", "--yes")
        taken_back = run("restore", "c.json", "--yes")

        assert "CRIT" in status.out
        assert "6 backups of 29.5 KB would be discarded" in said.err
        assert "older than the policy keeps" in said.out
        assert "Nothing was changed" in said.err
        assert "is whole and was read back" in exported.err
        done = (said, exported, pruned, restored, imported, deleted, taken_back)
        assert [one.code for one in done] == [0] * 7
        assert run("load", "a.json").value() == value(7)
        assert run("load", "c.json").value() == value(7)


# again and again


@pytest.mark.prove(share=3)
def test_a_volume_that_is_full_again_and_again_loses_nothing(
    tmp_path: Path, share_s: float
) -> None:
    """Random documents, sizes, policies and strangers; what was acknowledged is there."""
    seed = 20250106
    print(f"seed {seed}")
    ends_at = time.monotonic() + min(share_s, LIMIT_S)
    tried = refused = 0
    broken: list[str] = []
    kinds: set[str] = set()
    for number in range(200):
        if number and time.monotonic() > ends_at:
            break
        chance = random.Random(seed + number)
        inodes = chance.choice((None, None, 160))
        size_mb = chance.choice((24, 32))
        with small_filesystem(tmp_path / str(number), size_mb=size_mb, inodes=inodes) as volume:
            round_of = _Round(volume, chance)
            round_of.run()
        tried, refused = tried + round_of.tried, refused + round_of.refused
        broken += [f"seed {seed + number}: {one}" for one in round_of.broken]
        kinds.add(volume.kind)
    note(
        SUITE, "saves, backups and strangers that fill it, at random", tried=tried,
        failures=len(broken), where=", ".join(sorted(kinds)), refused=refused, volumes=number,
    )  # fmt: skip
    assert tried > 0
    assert broken == []


class _Round:
    """One volume: changes of some documents until it is full, more of them, room, and an end."""

    def __init__(self, volume: SmallFilesystem, chance: random.Random) -> None:
        self.volume = volume
        self.chance = chance
        self.held: dict[str, Json] = {}
        self.backed_up: set[str] = set()
        self.tried = self.refused = 0
        self.broken: list[str] = []

    def run(self) -> None:
        """Fill it in sessions, each with a policy of its own; then make room and look at all."""
        foreign: list[Path] = []
        for session in range(3):
            policy = self.chance.choice((2, 5, 1000))
            with open_seline(self.volume.path, backups__keep_newest=policy) as seline:
                for _ in range(40):
                    self._change(seline)
                foreign.append(self._stranger(session))
                for _ in range(25):
                    self._change(seline)
                self._shrink_everything(seline)
                self._look(seline)
        for path in foreign:
            make_room(path)
        with open_seline(self.volume.path) as seline:
            seline.data.prune()
            self._must(seline, "room.json", value("room", 1000))
            self._look(seline)
            if check_named("writing", seline.data.health())["status"] != "ok":
                self.broken.append("the state did not end by itself")
        if strays(self.volume):
            self.broken.append(f"stray: {strays(self.volume)}")

    def _stranger(self, session: int) -> Path:
        name = f"stranger-{session}"
        if os.statvfs(self.volume.path).f_files < 200:
            return self.volume.use_up_inodes(name, leave=self.chance.choice((0, 0, 2)))
        ratio = self.chance.choice((0.85, 0.93, 0.97, None))
        return self.volume.fill(name) if ratio is None else self.volume.fill_to(ratio, name)

    def _change(self, seline: Seline) -> None:
        name = f"d{self.chance.randrange(8)}.json"
        length = self.chance.choice((10, 500, 5_000, 60_000, 400_000))
        new: Json = value(self.chance.random(), length)
        backup = self.chance.random() < 0.8
        self.tried += 1
        try:
            seline.data.save_json(name, new, backup=backup, shrink=self.chance.random() < 0.5)
        except VolumeFull:
            self.refused += 1
        else:
            self.held[name] = new

    def _shrink_everything(self, seline: Seline) -> None:
        """On whatever is left: deletes, restores and smaller contents are taken (V9)."""
        for name in list(self.held):
            self.tried += 1
            before: Any = self.held[name]
            if self.chance.random() < 0.3:
                seline.data.delete(name)
                del self.held[name]
            elif len(before["text"]) > 10:
                self._must(seline, name, value("smaller", len(before["text"]) // 2))

    def _must(self, seline: Seline, name: str, new: Json) -> None:
        try:
            seline.data.save_json(name, new)
        except VolumeFull as error:
            self.broken.append(f"V9: {name} was not taken: {error.message}")
        else:
            self.held[name] = new

    def _look(self, seline: Seline) -> None:
        """Everything that was acknowledged is there, and every document has a sound backup."""
        for name, kept in self.held.items():
            if seline.data.load_json(name) != kept:
                self.broken.append(f"V3: {name} is not as it was acknowledged")
        self.broken += [f"V4: {one}" for one in seline.data.verify().findings]
        kept = {backup.document for backup in seline.data.all_backups()}
        self.broken += [f"V8: {name} has no backup any more" for name in self.backed_up - kept]
        self.backed_up = kept
