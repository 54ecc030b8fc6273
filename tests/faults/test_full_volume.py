"""V9: a full volume still works. Each test fills its own small file system.

- From 90 %, Seline discards old backups, oldest first, each with a reason, and never the newest
  sound backup of a document (V8). From 95 %, growing writes raise `VolumeFull` and write nothing.
- With no free byte or inode, reads, deletes, shrinking writes, restores and exports work, from a
  reserve if needed, also in a process that starts on the full volume.
- A full server is ready and reports the state; the state ends when space returns.
"""

import contextlib
import json
import os
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from seline import __version__
from seline import open_seline as open_awaited
from seline.alerts.signals import incident_signals
from seline.blocking import Seline, open_seline
from seline.domain.alerts.lifecycle import AlertType
from seline.domain.document import BOT, Content, DocumentKey, Json
from seline.domain.incident import IncidentKind
from seline.domain.usage import UsageLevel
from seline.errors import VolumeFull
from seline.operations.export_folders import ExportFolders
from seline.operations.exports import Exporter
from seline.operations.own_exports import read_back
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Target
from seline.ports.store import Atom, Change, Decision, Put, Remove
from seline.server import serving
from seline.storage.volume import batches, capabilities
from seline.storage.volume.backup_index import BackupIndex
from seline.storage.volume.mounts import Mount, mount_of
from tests.command_line import line_at
from tests.faults.forms import each_form_at_once, labelled
from tests.faults.injection import backup_values, incident_kinds, store_of
from tests.faults.small_filesystem import SmallFilesystem, free_bytes, small_filesystem
from tests.http_client import Client, settings_for
from tests.proof.figures import note

pytestmark = each_form_at_once

SUITE: Final = "full volume"
LIMIT_S: Final = 60.0
NAMES: Final = ("a.json", "b.json", "c.json")
MB: Final = 1_000_000
FOREIGN: Final = "core.dump"
LONG: Final = 5_000


# a volume, and how it is filled


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
    """Yield a small file system."""
    with small_filesystem(tmp_path / "volume") as small:
        yield small


@contextmanager
def volume_to_fill(level: str, tmp_path: Path) -> Iterator[SmallFilesystem]:
    """Yield a small file system that can be filled to `level` quickly."""
    with small_filesystem(
        tmp_path / "volume", inodes=128 if level == "to the last inode" else None
    ) as small:
        yield small


def value(number: Json, length: int = LONG) -> dict[str, Json]:
    return {"n": number, "text": "x" * length}


def save_versions(seline: Seline, count: int = 2) -> None:
    """Save each document `count` times, also to its file.

    With two, each backup is the newest sound one.
    """
    for number in range(count):
        for name in NAMES:
            seline.data.save_json(name, value(number))
    seline.data.documents()  # has the files written


def remove_foreign(foreign: Path) -> None:
    """Delete foreign files."""
    if foreign.is_dir():
        for path in foreign.iterdir():
            path.unlink()
    else:
        foreign.unlink(missing_ok=True)


def stray_files(volume: SmallFilesystem) -> list[str]:
    inner = volume.path / ".seline"
    records = [path.name for name in ("journal", "*.new") for path in inner.glob(name)]
    return [*os.listdir(inner / "staging"), *records]


def all_backups(seline: Seline) -> dict[str, list[str]]:
    """Return the names of every document's backups, newest first."""
    return {name: [backup.name for backup in seline.data.backups(name)] for name in NAMES}


def check_named(name: str, health: Any) -> Any:
    """Return one check of a health report."""
    return next(check for check in health["checks"] if check["name"] == name)


def shed_backups(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the backups that were discarded to free space, in the order of the log."""
    matches = [re.fullmatch(r"(\S+) was discarded: the volume is nearly full", line)
            for line in caplog.messages]  # fmt: skip
    return [match[1] for match in matches if match]


def has_reserve(volume: SmallFilesystem) -> bool:
    return (volume.path / ".seline" / "reserve").exists()


def wait_until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    ends_at = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < ends_at, "the condition did not become true"
        time.sleep(0.01)


# what works on a full volume


def _transaction(seline: Seline) -> None:
    with seline.data.transaction("a.json", "b.json") as change:
        change["a.json"], change["b.json"] = value("short", 4_000), value("short", 4_000)


def _edit(seline: Seline) -> None:
    with seline.data.edit("a.json") as content:
        content["text"] = "short"


NOT_GROWING: Final[Mapping[str, tuple[Callable[[Seline], object], Json]]] = {
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
    "a pin": (lambda s: s.data.pin("a.json", backups_of(s, "a.json")[0]), value(1)),
}
"""Changes that do not grow the volume, each with the value of a.json afterwards."""
SOME_NOT_GROWING: Final = (
    "a smaller save",
    "a blank save",
    "a transaction",
    "a restore",
    "a delete",
)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("level", FILLED)
def test_a_volume_that_is_full_when_opened_accepts_some_changes_that_do_not_grow(
    level: str, tmp_path: Path
) -> None:
    _change_while_full(level, SOME_NOT_GROWING, tmp_path)


@pytest.mark.prove
def test_a_volume_that_is_full_when_opened_accepts_every_change_that_does_not_grow(
    form: str, tmp_path: Path
) -> None:
    kinds = {
        _change_while_full(level, tuple(NOT_GROWING), tmp_path / level.replace(" ", "-"))
        for level in FILLED
    }
    note(
        SUITE, labelled("each change that does not grow, full at the start", form),
        where=", ".join(kinds), tried=len(FILLED) * len(NOT_GROWING), failures=0,
    )  # fmt: skip


def _change_while_full(level: str, names: Sequence[str], directory: Path) -> str:
    """Do each change on a volume that was full before opening; return the file system's kind."""
    with volume_to_fill(level, directory) as volume:
        for name in names:
            act, after = NOT_GROWING[name]
            with open_seline(volume.path) as seline:
                save_versions(seline)
            foreign = FILLED[level](volume)
            with open_seline(volume.path) as seline:
                assert seline.health()["status"] == "critical"
                _check_full(seline)
                act(seline)
                assert seline.data.load_json("a.json", default=None) == after, name
                assert stray_files(volume) == [], name
                _check_full(seline)
                remove_foreign(foreign)
                seline.data.save_json("new.json", value(0, MB))
                assert seline.data.load_json("a.json", default=None) == after, name
                _delete_all(seline)
    return volume.kind


def _check_full(seline: Seline) -> None:
    """Check that a growing save is refused and that reads, exports and verify work."""
    with pytest.raises(VolumeFull):
        seline.data.save_json("new.json", value(0, 20 * MB))
    assert seline.data.load_json("b.json") != {}
    assert len(seline.data.export_all_data()["files"]) >= 2  # type: ignore[arg-type]
    assert seline.verify().findings == ()


def _delete_all(seline: Seline) -> None:
    for info in seline.data.documents():
        seline.data.delete(info.name, purge=True)


async def test_a_full_volume_can_be_exported_and_imported(tmp_path: Path) -> None:
    """Test the readable export, and an export to a folder on another disk that is read back."""
    for level, fill in FILLED.items():
        directory = tmp_path / level.replace(" ", "-")
        directory.mkdir()
        with volume_to_fill(level, directory) as volume:
            async with open_awaited(volume.path) as seline:
                for number in range(2):
                    await seline.data.save_json("a.json", value(number))
                fill(volume)

                target = Folder("beside", str(directory / "exports"))
                exporting = Exporter(seline.store, version=__version__)
                await exporting.export_to(Target(target, keep=1))
                readable = await seline.data.export_all_data()
                await seline.data.save_json("a.json", {"n": "lost"}, shrink=True)
                await seline.data.restore("a.json")
                report = await seline.data.import_data(readable)

                assert report.unchanged == ("a.json",)
                assert await seline.data.load_json("a.json") == value(1)
            (written,) = await ExportFolders(target).complete()
            manifest = await read_back(ExportFolders(target), written)
            assert [len(document.backups) for document in manifest.documents] == [1]


@pytest.mark.parametrize("level", FILLED)
async def test_a_full_server_is_ready_reports_critical_and_recovers_when_space_returns(
    level: str, tmp_path: Path
) -> None:
    with volume_to_fill(level, tmp_path) as volume:
        async with open_awaited(volume.path) as seline:
            for number in range(2):
                for name in NAMES:
                    await seline.data.save_json(name, value(number))
        foreign = FILLED[level](volume)
        async with served(volume) as client:
            assert await readiness(client) == 200
            status, health, _ = await client.call("GET", "/health")
            assert (status, health["status"]) == (200, "critical")
            wrong = "inodes" if level == "to the last inode" else "usage"
            assert check_named(wrong, health)["status"] == "critical"
            assert check_named(wrong, health)["fix"]
            assert await put(client, "new.json", value(0, MB)) == (507, "volume_full")
            assert await put(client, "a.json", value("short", 100)) == (200, None)
            for method, path, body in (
                ("GET", "/documents/a.json", None),
                ("GET", "/storage-info", None),
                ("GET", "/export", None),
                ("POST", "/restore-backup", {"filename": "b.json"}),
                ("DELETE", "/documents/c.json", None),
                ("POST", "/verify", None),
            ):
                assert (await client.call(method, path, body))[0] == 200, path
            assert await readiness(client) == 200

            remove_foreign(foreign)

            assert await put(client, "new.json", value(0, MB)) == (201, None)
            _, health, _ = await client.call("GET", "/health")
            assert check_named(wrong, health)["status"] in ("ok", "info")
            assert await readiness(client) == 200


@asynccontextmanager
async def served(volume: SmallFilesystem) -> AsyncIterator[Client]:
    async with serving(settings_for(volume.path)) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        yield Client(session, running.address)


async def readiness(client: Client) -> int:
    root = client.base.removesuffix("/api/v1/data-admin")
    async with client.session.get(f"{root}/readyz") as answer:
        return answer.status


async def put(client: Client, name: str, body: Json) -> tuple[int, str | None]:
    status, answer, _ = await client.call("PUT", f"/documents/{name}", body)
    return status, answer.get("code")


# levels: 90 % and 95 %


@pytest.mark.prove
def test_from_ninety_percent_the_oldest_backups_are_discarded_and_reported(
    volume: SmallFilesystem, caplog: pytest.LogCaptureFixture
) -> None:
    made: dict[str, list[str]] = {name: [] for name in NAMES}
    with open_seline(volume.path, backups__keep_newest=1000) as seline:
        for number in range(90):
            name = NAMES[number % 3]
            shed_before, percent_before = (
                len(shed_backups(caplog)),
                seline.health()["usage_percent"],
            )
            seline.data.save_json(name, value(number, 300_000))
            made[name] += [
                backup for backup in backups_of(seline, name)[:1] if backup not in made[name]
            ]
            assert len(shed_backups(caplog)) == shed_before or percent_before > 88, (
                "discarded too early"
            )  # type: ignore[operator]
        kept = all_backups(seline)
        health = seline.health()
        newest = [seline.data.read_backup(name, kept[name][0])["n"] for name in NAMES]  # type: ignore[index,call-overload]

    shed = {
        name: [backup for backup in shed_backups(caplog) if backup in made[name]] for name in NAMES
    }
    for name in NAMES:
        assert len(shed[name]) > 5
        assert [*shed[name], *reversed(kept[name])] == made[name], "an older backup was kept"
    assert newest == [84, 85, 86]
    assert max(map(len, shed.values())) - min(map(len, shed.values())) < 3
    assert health["usage_percent"] < 95  # type: ignore[operator]
    check = check_named("shed", health)
    assert check["status"] == "warning"
    assert shed_backups(caplog)[0] in check["detail"]


def backups_of(seline: Seline, name: str) -> list[str]:
    return [backup.name for backup in seline.data.backups(name)]


def test_a_backup_that_must_stay_does_not_protect_backups_of_other_documents(
    volume: SmallFilesystem,
) -> None:
    """V8: the newest backup of a.json is broken, so the older one is its newest sound backup."""
    with open_seline(volume.path, backups__keep_newest=1000) as seline:
        for number in range(3):
            seline.data.save_json("a.json", value(number, 1_200_000))
        broken, sound = backups_of(seline, "a.json")
    _flip(volume.path / "backups" / broken)
    with open_seline(volume.path, backups__keep_newest=1000) as seline:
        for number in range(100):
            seline.data.save_json("b.json", value(number, 200_000))

        assert len(backups_of(seline, "b.json")) < 80
        assert seline.health()["usage_percent"] < 91  # type: ignore[operator]
        assert sound in backups_of(seline, "a.json")
        assert seline.data.read_backup("a.json", sound) == value(0, 1_200_000)


def test_a_backup_makes_room_although_later_ones_are_not_written_yet(
    volume: SmallFilesystem,
) -> None:
    """The large one is the newest in a file, and has to stay until the others are files too."""
    with open_seline(volume.path, storage__publish_within_ms=10_000) as seline:
        seline.data.save_json("a.json", value(0, 2 * MB))
        for number in range(1, 4):
            seline.data.save_json("a.json", value(number, 10), shrink=True)
        volume.fill_to(0.93, FOREIGN)

        seline.data.save_json("b.json", value(0, MB))

        assert [value["n"] for value in backup_values(seline, "a.json")] == [2, 1]


def _flip(path: Path) -> None:
    """Change a byte and keep the mtime, as a failing disk does."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"xxx", b"xyx", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_pinned_backup_that_makes_room_is_reported_by_its_document(
    volume: SmallFilesystem,
) -> None:
    """V11: it goes last, after every backup without a pin, and an alert names the document."""
    with open_seline(volume.path) as seline:
        seline.data.save_json("wiped.json", value(0, 1_200_000))
        seline.data.save_json("wiped.json", {})
        for number in range(2):
            seline.data.save_json("wiped.json", {"n": number})
        [pinned] = [backup for backup in seline.all_backups() if backup.pinned]
        volume.fill_to(0.93, FOREIGN)
        for number in range(4):
            seline.data.save_json("b.json", value(number, 100_000))

        assert pinned.name not in backups_of(seline, "wiped.json")
        incidents = seline._awaited.store.incidents()

    [gone] = [incident for incident in incidents if incident.kind is IncidentKind.PINS_SHED]
    assert gone.details["documents"] == ["wiped.json"]
    [signal] = incident_signals([gone], gone.at)
    assert signal.type is AlertType.PINS_SHED


@pytest.mark.parametrize("level", ["to 90 %", "to the last inode"])
def test_no_more_backups_are_discarded_than_needed(level: str, tmp_path: Path) -> None:
    """A small backup occupies one block and one inode, regardless of its size."""
    inodes = 128 if level == "to the last inode" else None
    with (
        small_filesystem(tmp_path / "volume", inodes=inodes) as volume,
        open_seline(volume.path, backups__keep_newest=1000) as seline,
    ):
        for number in range(60 if inodes else 320):
            seline.data.save_json("a.json", value(number, 300))
        before = len(backups_of(seline, "a.json"))
        if inodes:
            volume.use_up_inodes(FOREIGN)
        else:
            volume.fill_to(0.9, FOREIGN)
        for number in range(6):
            seline.data.save_json("a.json", value(f"again {number}", 300))
        after = len(backups_of(seline, "a.json"))

    freed = 16 + 2 if inodes else 256
    assert before + 6 - after <= freed + 4
    assert after >= 40


def test_no_backup_is_discarded_for_a_state_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for level, fill in FILLED.items():
        directory = tmp_path / level.replace(" ", "-")
        with volume_to_fill(level, directory) as volume, open_seline(volume.path) as seline:
            save_versions(seline, 4)
            fill(volume)
            jobs: Any = seline._awaited.store.state("jobs.json", object, dict)
            with pytest.raises(VolumeFull):
                _run(jobs.update(lambda _: {"jobs": "x" * 9_000}))
            assert [len(kept) for kept in all_backups(seline).values()] == [3, 3, 3]
    assert shed_backups(caplog) == []


def _run(coroutine: Any) -> Any:
    from seline.ports.futures import run_without_loop

    return run_without_loop(coroutine)


def test_from_ninety_five_percent_growing_saves_are_refused(volume: SmallFilesystem) -> None:
    with open_seline(volume.path) as seline:
        save_versions(seline, 1)
        volume.fill_to(0.94, FOREIGN)
        bytes_left = int(free_bytes(volume.path) - _beyond_95_percent(volume))

        with pytest.raises(VolumeFull) as refused:
            seline.data.save_json("new.json", "x" * (bytes_left + 40_000))
        assert seline.data.load_json("new.json", default=None) is None
        seline.data.save_json("new.json", "x" * (bytes_left - 40_000))

    assert 93 < refused.value.details["usage_percent"] < 95  # type: ignore[operator]
    assert refused.value.hint


@pytest.mark.parametrize("deleted", [False, True])
def test_a_save_that_would_be_refused_is_critical_and_the_advice_makes_room(
    deleted: bool, tmp_path: Path
) -> None:
    """At 94.9 %: nothing is left that `prune` would remove, so the next step does not name it."""
    run = line_at(tmp_path)
    with small_filesystem(tmp_path / "data") as volume:
        with open_seline(volume.path) as seline:
            seline.data.save_json("a.json", value(0, 60_000))
            seline.data.save_json("old.json", value(0, 600_000))
            if deleted:
                seline.data.delete("old.json")
            volume.fill_to(0.949, FOREIGN)
            with pytest.raises(VolumeFull):
                seline.data.save_json("a.json", value(1, 60_500))
            health, measured = seline.health(), _run(seline._awaited.usage.measure())
        status = run("status")

        assert health["status"] == "critical"
        for name in ("writing", "usage"):
            check = check_named(name, health)
            assert check["status"] == "critical"
            assert "`seline prune`" not in check["fix"]
            assert check["fix"].endswith("Or enlarge the volume.")
        detail = check_named("writing", health)["detail"]
        assert f"a save that adds {64 if deleted else 586} KB is refused" in detail
        assert measured.level is UsageLevel.CRITICAL
        assert status.code == 6
        assert ("`seline delete old.json --purge`" in status.out) is deleted
        assert "`seline delete NAME --purge`" in status.out
        assert run("delete", "old.json", "--purge", "--yes").code == 0
        with open_seline(volume.path) as seline:
            seline.data.save_json("a.json", value(1, 60_500))
            assert check_named("writing", seline.health())["status"] == "ok"


def test_a_nearly_full_volume_says_what_prune_frees(tmp_path: Path) -> None:
    run = line_at(tmp_path)
    with small_filesystem(tmp_path / "data") as volume:
        with open_seline(volume.path, backups__keep_newest=20, backups__keep_daily=0) as seline:
            for number in range(12):
                seline.data.save_json("a.json", value(number, 40_900))
            volume.fill_to(0.85, FOREIGN)
        with open_seline(volume.path) as seline:
            fix = check_named("usage", seline.health())["fix"]
        free = free_bytes(volume.path)
        [promised] = re.findall(r"`seline prune` frees (\d+) KB", fix)
        assert run("prune", "--yes").code == 0

        assert free_bytes(volume.path) - free == pytest.approx(int(promised) * 1024, rel=0.1)


def test_on_a_shared_disk_other_programs_files_warn_and_refuse_nothing_until_it_is_full(
    volume: SmallFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def root_of(path: str) -> Mount | None:
        mount = mount_of(path)
        return mount and replace(mount, point="/")

    monkeypatch.setattr(capabilities, "mount_of", root_of)
    with open_seline(volume.path, storage__volume_limit_mb=500) as seline:
        save_versions(seline)
        foreign = volume.fill(FOREIGN, leave_bytes=(3 * MB) // 2)
        nearly = check_named("usage", seline.health())
        seline.data.save_json("a.json", value(2))
        remove_foreign(foreign)
        volume.fill(FOREIGN, leave_bytes=500_000)
        full = check_named("usage", seline.health())
        with pytest.raises(VolumeFull):
            seline.data.save_json("new.json", value(0))

    assert (nearly["status"], full["status"]) == ("warning", "critical")
    assert "9" in nearly["detail"]
    assert "other files" in nearly["fix"]


def _beyond_95_percent(volume: SmallFilesystem) -> float:
    status = os.statvfs(volume.path)
    reach = status.f_blocks - status.f_bfree + status.f_bavail
    return 0.05 * reach * status.f_frsize


def test_rotated_backups_no_longer_count_in_usage(tmp_path: Path) -> None:
    """Where usage is the sum of Seline's own files, a deleted file no longer counts."""
    mount = mount_of(str(tmp_path))
    if mount is None or mount.point != "/":
        pytest.skip("on a separate mount, usage is that of the file system, not of Seline's files")
    with open_seline(
        tmp_path / "data", storage__volume_limit_mb=10, backups__keep_newest=2
    ) as seline:
        for number in range(60):
            seline.data.save_json("a.json", value(number, 200_000 + number))
            assert store_of(seline).medium.usage().refusal_ratio < 0.09
        assert len(backups_of(seline, "a.json")) == 2


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
    """Make decisions about one document in one batch; return the type of each error, or None."""
    store, resume = store_of(seline), threading.Event()
    paused = store.writer.between(resume.wait)
    atoms = [
        Atom((Change(DocumentKey(BOT, "a.json"), lambda _, decision=decision: decision),))
        for decision in decisions
    ]  # type: ignore[misc]
    futures = [store.submit(atom) for atom in atoms]
    resume.set()
    paused.result(10)
    errors = [future.exception(10) for future in futures]
    return [None if error is None else type(error) for error in errors]


def test_no_backup_is_discarded_when_space_was_freed_since_the_last_measurement(
    tmp_path: Path,
) -> None:
    """The last measurement may be a minute old, so Seline measures again before it discards."""
    with open_seline(tmp_path, lock_wait_s=0, storage__volume_limit_mb=4) as seline:
        for number in range(4):
            seline.data.save_json("a.json", {"n": number})
        (tmp_path / "by hand").write_bytes(os.urandom(4 << 20))
        store_of(seline).medium.batches.disk_usage.usage(fresh=True)
        (tmp_path / "by hand").unlink()

        seline.data.save_json("a.json", {"n": 4})

        assert backup_values(seline, "a.json") == [{"n": 3}, {"n": 2}, {"n": 1}, {"n": 0}]
        assert "shed" not in incident_kinds(seline)


@pytest.mark.parametrize(("limit_mb", "listings_max", "has_room"), [(4, 12, True), (2, 0, False)])
def test_whether_a_save_fits_is_found_without_listing_every_document(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit_mb: int,
    listings_max: int,
    has_room: bool,
) -> None:
    """Old backups make room for the save, or do not; health says so beforehand."""
    with open_seline(tmp_path / "data") as seline:
        for number in range(39):
            seline.data.save_json(f"d{number % 13}.json", value(number, 100_000))
    with open_seline(tmp_path / "data", storage__volume_limit_mb=limit_mb) as seline:
        listed, of = [], BackupIndex.of
        monkeypatch.setattr(BackupIndex, "of", lambda *given: listed.append(given) or of(*given))
        writing = store_of(seline).medium.has_room_for(65_536)
        assert (writing, len(listed) <= listings_max) == (has_room, True)
        with contextlib.nullcontext() if has_room else pytest.raises(VolumeFull):
            seline.data.save_json("new.json", value(0, 60_000))


# the reserve


@pytest.mark.parametrize("level", ["to the last byte", "to the last inode"])
def test_the_reserve_is_released_for_a_shrinking_save_and_rebuilt_when_space_returns(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "REOPEN_EVERY_S", 0.02)
    with volume_to_fill(level, tmp_path) as volume, open_seline(volume.path) as seline:
        save_versions(seline)
        foreign = FILLED[level](volume)
        assert has_reserve(volume)
        with pytest.raises(VolumeFull):
            seline.data.save_json("new.json", value(0, 9_000))
        assert has_reserve(volume), "a growing save released the reserve"

        files = os.statvfs(volume.path).f_favail
        seline.data.save_json("a.json", value("short", 100), shrink=True)

        if level == "to the last byte":
            assert not has_reserve(volume)
            assert check_named("reserve", seline.health())["status"] == "warning"
        else:
            assert files == 0
        remove_foreign(foreign)
        wait_until(lambda: has_reserve(volume))
        assert "reserve" not in [check["name"] for check in seline.health()["checks"]]  # type: ignore[union-attr,call-overload,index]
        assert seline.data.load_json("a.json") == value("short", 100)


def test_a_released_reserve_is_rebuilt_by_the_next_start_with_free_space(
    volume: SmallFilesystem,
) -> None:
    with open_seline(volume.path) as seline:
        save_versions(seline)
        foreign = volume.fill(FOREIGN)
        seline.data.restore("a.json")
        assert not has_reserve(volume)
    with open_seline(volume.path) as seline:
        assert not has_reserve(volume)
        assert seline.data.load_json("a.json") == value(0)
    remove_foreign(foreign)
    with open_seline(volume.path):
        assert has_reserve(volume)


# causes of a full volume


def test_a_volume_filled_by_saves_stays_usable(volume: SmallFilesystem) -> None:
    with open_seline(volume.path) as seline:
        seline.data.save_json("small.json", {"n": 1})
        count = _save_until_full(seline)
        assert count > 20
        assert seline.health()["status"] != "healthy"
        assert seline.data.load_json("d0.json") == "x" * 200_000
        assert len(seline.data.export_all_data()["files"]) == count + 1  # type: ignore[arg-type]
        seline.data.save_json("small.json", {"n": 2})
        assert seline.data.restore_from_backup("small.json") is True
        seline.data.save_json("d1.json", "x" * 1000)
        for number in range(count // 2):
            seline.data.delete(f"d{number}.json", purge=True)
        assert seline.data.save_json("more.json", "x" * 100_000)
        assert seline.health()["usage_percent"] < 80  # type: ignore[operator]
        assert seline.verify().findings == ()
        assert stray_files(volume) == []


def _save_until_full(seline: Seline) -> int:
    """Save new documents until the volume is full; return how many were saved."""
    for number in range(10_000):
        try:
            seline.data.save_json(f"d{number}.json", "x" * 200_000)
        except VolumeFull:
            return number
    raise AssertionError("the volume was never full")


def test_a_broken_document_is_recovered_on_a_full_volume(volume: SmallFilesystem) -> None:
    with open_seline(volume.path, storage__cache_bytes_max=0) as seline:
        save_versions(seline)
        volume.fill(FOREIGN)
        _flip(volume.path / "a.json")

        assert seline.data.load_json("a.json") == value(0)
        assert [item.document for item in seline.quarantine()] == ["a.json"]
        assert stray_files(volume) == []


def test_a_prune_preview_names_the_backups_and_bytes_that_prune_frees(
    volume: SmallFilesystem,
) -> None:
    with open_seline(volume.path, backups__keep_newest=20) as seline:
        for number in range(12):
            seline.data.save_json("a.json", value(number, 40_960))
        volume.fill(FOREIGN)
    with open_seline(volume.path, backups__keep_newest=3) as seline:
        preview = seline.prune(dry_run=True)
        free = free_bytes(volume.path)
        pruned = seline.prune()

    assert [dropped.backup for dropped in preview] == [dropped.backup for dropped in pruned]
    assert {dropped.because for dropped in preview} == {"older than the policy keeps"}
    blocks = sum(-(-dropped.size_bytes // 4096) * 4096 for dropped in preview)
    assert free_bytes(volume.path) - free == pytest.approx(blocks, rel=0.1)
    assert len(preview) == 11 - 3


@pytest.mark.prove
@pytest.mark.parametrize("level", FILLED)
def test_the_command_line_works_on_a_full_volume(level: str, tmp_path: Path) -> None:
    """No server runs; every command opens the volume itself."""
    inodes = 128 if level == "to the last inode" else None
    with small_filesystem(tmp_path / "data", inodes=inodes) as volume:
        with open_seline(volume.path, backups__keep_newest=8) as seline:
            save_versions(seline, 8)
        FILLED[level](volume)
        run = line_at(tmp_path)

        status = run("status")
        preview = run("prune", "--dry-run")
        exported = run("export", str(tmp_path / "exports"))
        pruned = run("prune", "--yes")
        restored = run("restore", "a.json", "--yes")
        imported = run("import", str(tmp_path / "exports"), "--no-backups", "--yes")
        deleted = run("delete", "c.json", "--yes")
        undeleted = run("restore", "c.json", "--yes")

        assert "CRIT" in status.out
        assert "6 backups of 29.5 KB would be discarded" in preview.err
        assert "older than the policy keeps" in preview.out
        assert "Nothing was changed" in preview.err
        assert "has every document and was read back" in exported.err
        results = (preview, exported, pruned, restored, imported, deleted, undeleted)
        assert [result.code for result in results] == [0] * 7
        assert run("load", "a.json").value() == value(7)
        assert run("load", "c.json").value() == value(7)


# filled repeatedly


@pytest.mark.prove(share=3)
def test_a_volume_that_fills_up_repeatedly_loses_nothing(
    form: str, tmp_path: Path, share_s: float
) -> None:
    """Random documents, sizes, policies and foreign files: acknowledged changes are kept (V3)."""
    seed = 20250106
    print(f"seed {seed}")
    ends_at = time.monotonic() + min(share_s, LIMIT_S)
    tried = refused = 0
    broken: list[str] = []
    kinds: set[str] = set()
    for number in range(200):
        if number and time.monotonic() > ends_at:
            break
        rng = random.Random(seed + number)
        inodes = rng.choice((None, None, 160))
        size_mb = rng.choice((24, 32))
        with small_filesystem(tmp_path / str(number), size_mb=size_mb, inodes=inodes) as volume:
            trial = _FullVolumeRun(volume, rng)
            trial.run()
        tried, refused = tried + trial.tried, refused + trial.refused
        broken += [f"seed {seed + number}: {failure}" for failure in trial.broken]
        kinds.add(volume.kind)
    note(
        SUITE, labelled("saves, backups and foreign files that fill it, at random", form),
        tried=tried, failures=len(broken), where=", ".join(sorted(kinds)), refused=refused,
        volumes=number,
    )  # fmt: skip
    assert tried > 0
    assert broken == []


class _FullVolumeRun:
    """Saves on one volume until it is full, more saves, then free space and a last check."""

    def __init__(self, volume: SmallFilesystem, rng: random.Random) -> None:
        self.volume = volume
        self.rng = rng
        self.expected: dict[str, Json] = {}
        self.backed_up: set[str] = set()
        self.tried = self.refused = 0
        self.broken: list[str] = []

    def run(self) -> None:
        """Fill the volume in three sessions, each with its own policy; free space and check."""
        foreign: list[Path] = []
        for session in range(3):
            policy = self.rng.choice((2, 5, 1000))
            with open_seline(self.volume.path, backups__keep_newest=policy) as seline:
                for _ in range(40):
                    self._save_some(seline)
                foreign.append(self._foreign_file(session))
                for _ in range(25):
                    self._save_some(seline)
                self._shrink_everything(seline)
                self._check(seline)
        for path in foreign:
            remove_foreign(path)
        with open_seline(self.volume.path) as seline:
            seline.prune()
            self._require_save(seline, "room.json", value("room", 1000))
            self._check(seline)
            if check_named("writing", seline.health())["status"] != "ok":
                self.broken.append("health still reports that writing fails")
        if stray_files(self.volume):
            self.broken.append(f"stray: {stray_files(self.volume)}")

    def _foreign_file(self, session: int) -> Path:
        name = f"foreign-{session}"
        if os.statvfs(self.volume.path).f_files < 200:
            return self.volume.use_up_inodes(name, leave=self.rng.choice((0, 0, 2)))
        ratio = self.rng.choice((0.85, 0.93, 0.97, None))
        return self.volume.fill(name) if ratio is None else self.volume.fill_to(ratio, name)

    def _save_some(self, seline: Seline) -> None:
        name = f"d{self.rng.randrange(8)}.json"
        length = self.rng.choice((10, 500, 5_000, 60_000, 400_000))
        new: Json = value(self.rng.random(), length)
        backup = self.rng.random() < 0.8
        self.tried += 1
        try:
            seline.data.save_json(name, new, backup=backup, shrink=self.rng.random() < 0.5)
        except VolumeFull:
            self.refused += 1
        else:
            self.expected[name] = new

    def _shrink_everything(self, seline: Seline) -> None:
        """Check that a full volume accepts deletes and smaller contents (V9)."""
        for name in list(self.expected):
            self.tried += 1
            before: Any = self.expected[name]
            if self.rng.random() < 0.3:
                seline.data.delete(name)
                del self.expected[name]
            elif len(before["text"]) > 10:
                self._require_save(seline, name, value("smaller", len(before["text"]) // 2))

    def _require_save(self, seline: Seline, name: str, new: Json) -> None:
        try:
            seline.data.save_json(name, new)
        except VolumeFull as error:
            self.broken.append(f"V9: {name} was refused: {error.message}")
        else:
            self.expected[name] = new

    def _check(self, seline: Seline) -> None:
        """Check that acknowledged values are served and documents keep a sound backup (V3, V8)."""
        for name, kept in self.expected.items():
            if seline.data.load_json(name) != kept:
                self.broken.append(f"V3: {name} is not the acknowledged value")
        self.broken += [f"V4: {finding}" for finding in seline.verify().findings]
        kept = {backup.document for backup in seline.all_backups()}
        self.broken += [f"V8: {name} has no backup left" for name in self.backed_up - kept]
        self.backed_up = kept
