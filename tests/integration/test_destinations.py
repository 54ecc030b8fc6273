"""Test what is known of a destination: that it is the right one, and whether its exports are whole.

Every command runs as a person types it; the cure that a message names is followed to the letter.
"""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from seline import __version__
from seline.errors import ExportFailed
from seline.manager import DataManager
from seline.operations import Operations
from seline.operations.export_folders import MARKER_NAME
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Target
from tests.command_line import Line, line_at, served
from tests.faults.injection import refuse_threads
from tests.integration.test_operations import SettableClock
from tests.mirrored_bot import Bot
from tests.stores import open_managed

NAME = "a.json"


def line_to(folder: Path, nas: Path, **more: Any) -> Line:
    table = {"name": "nas", "url": f"file://{nas}", **more}
    return line_at(folder, SELINE_EXPORTS__DESTINATIONS=json.dumps([table]))


def exports_check(line: Line) -> dict[str, Any]:
    checks = line("status", "--json").value()["checks"]
    [check] = [check for check in checks if check["name"] == "exports"]
    return check


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    return tmp_path / "mnt" / "nas"


@pytest.fixture
def line(tmp_path: Path, nas: Path) -> Line:
    """Return a command line on a volume that was exported once."""
    line = line_to(tmp_path, nas, same_disk=True)
    assert line("save", NAME, stdin='{"n": 1}').code == 0
    assert exports_check(line)["status"] == "info", "no copy is known"
    ran = line("jobs", "run", "export")
    assert ran.code == 0, ran.out
    assert exports_check(line)["status"] == "ok"
    assert line("save", NAME, stdin='{"n": 2}').code == 0
    return line


def another(nas: Path) -> None:
    nas.mkdir()
    (nas / MARKER_NAME).write_text("01234567\n")


GONE: dict[str, Callable[[Path], object]] = {
    "the folder is removed": lambda nas: None,
    "the mount point is empty": lambda nas: nas.mkdir(),
    "the mount point is a file": lambda nas: nas.write_text("mine"),
    "another destination is mounted": another,
    "the marker is blank": lambda nas: (nas.mkdir(), (nas / MARKER_NAME).write_text("")),
}


def tree(path: Path) -> list[str]:
    return sorted(str(found) for found in [path, *path.rglob("*")] if found.exists())


@pytest.mark.prove
@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(gone, marks=[] if gone == "the mount point is empty" else pytest.mark.prove)
        for gone in GONE
    ],
)
def test_a_destination_that_is_not_the_marked_one_gets_no_export(
    line: Line, nas: Path, gone: str
) -> None:
    away = nas.with_name("away")
    nas.rename(away)
    GONE[gone](nas)
    before = tree(nas)
    with served(line):
        ran = line("jobs", "run", "export")
        alerts = line("alerts").out
    assert ran.code == 1
    assert str(nas) in ran.out
    assert tree(nas) == before, "nothing is written, and nothing is made"
    check = exports_check(line)
    assert check["status"] == "warning"
    assert "the export failed on" in check["detail"]
    assert "job_failed" in alerts
    assert str(nas) in alerts
    if nas.exists():
        shutil.rmtree(nas) if nas.is_dir() else nas.unlink()
    away.rename(nas)
    ran = line("jobs", "run", "export")
    assert ran.code == 0, ran.out
    assert exports_check(line)["status"] == "ok"
    assert len([path for path in nas.iterdir() if path.is_dir()]) == 2


@pytest.mark.prove
def test_destinations_are_listed_with_their_last_export_and_problem(line: Line, nas: Path) -> None:
    listed = line("destinations").out
    assert "nas" in listed
    assert str(nas) in listed
    assert "on the disk of the data directory" not in listed
    table = json.dumps([{"name": "nas", "url": f"file://{nas}"}])
    exposed = line("destinations", SELINE_EXPORTS__DESTINATIONS=table).out
    assert "on the disk of the data directory" in exposed
    shutil.rmtree(nas)
    line("jobs", "run", "export")
    assert "no marker" in line("destinations").out
    [shown] = line("destinations", "--json").value()["destinations"]
    assert shown["whole_at"] is not None


def test_a_mount_that_goes_during_an_export_fails_it(tmp_path: Path, nas: Path) -> None:
    class Unmounted(Folder):
        async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
            if "/" in key and not nas.with_name("away").exists():
                nas.rename(nas.with_name("away"))
                nas.mkdir()
            await super().put(key, data, replace=replace)

    async def export() -> None:
        store = open_managed(tmp_path / "data", SettableClock())
        await DataManager(store).save_json(NAME, [1])
        operations = Operations(store, [Target(Unmounted("nas", str(nas)), 7)])
        try:
            await operations.exports.run()
        finally:
            await store.close()

    with pytest.raises(ExportFailed, match="no marker"):
        asyncio.run(export())


def test_a_destination_on_the_disk_of_the_data_is_a_warning_until_it_is_meant(
    tmp_path: Path, nas: Path
) -> None:
    line = line_to(tmp_path, nas)
    assert line("save", NAME, stdin="[1]").code == 0
    for _ in range(2):  # it says so each time, also if nothing changed
        assert "disk of the data directory" in line("jobs", "run", "export").out
    check = exports_check(line)
    assert check["status"] == "warning"
    assert "same_disk = true" in check["fix"]
    meant = line_to(tmp_path, nas, same_disk=True)
    assert "disk of the data directory" not in meant("jobs", "run", "export").out
    assert exports_check(meant)["status"] == "ok"


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk here")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_a_destination_on_another_disk_is_no_warning(tmp_path: Path, other_disk: Path) -> None:
    line = line_to(tmp_path, other_disk / "nas")
    assert line("save", NAME, stdin="[1]").code == 0
    assert "disk of the data" not in line("jobs", "run", "export").out
    assert exports_check(line)["status"] == "ok"


async def exports_result(operations: Operations) -> dict[str, Any]:
    checks: Any = (await operations.health())["checks"]
    [check] = [check for check in checks if check["name"] == "exports"]
    return check


async def test_one_of_two_destinations_that_fails_for_ten_days_is_not_ok(tmp_path: Path) -> None:
    clock = SettableClock()
    store = open_managed(tmp_path / "data", clock)
    await DataManager(store).save_json(NAME, [1])
    one, two = (
        Target(Folder(name, str(tmp_path / name)), 7, same_disk=True, may_be_unmounted=True)
        for name in ("one", "two")
    )
    operations = Operations(store, [one, two], version=__version__)
    await operations.exports.run()
    assert (await exports_result(operations))["status"] == "ok"
    shutil.rmtree(tmp_path / "two")
    for _ in range(10):
        clock.instant += timedelta(days=1)
        with pytest.raises(ExportFailed, match=r"two: .*\. one: nothing changed"):
            await operations.exports.run()
    check = await exports_result(operations)
    assert check["status"] == "warning"
    assert "two: the newest export was read back on" in check["detail"]
    assert "the export failed on" in check["detail"]
    assert "destinations use two" in check["fix"]
    again = Operations(store, [one, two])
    await again.load()
    assert await exports_result(again) == check, "the next process knows it, too"
    await store.close()


async def test_an_export_that_lacks_a_document_is_not_whole(tmp_path: Path) -> None:
    clock = SettableClock()
    store = open_managed(tmp_path / "data", clock)
    data = DataManager(store)
    await data.save_json(NAME, [1], backup=False)
    await data.save_json("b.json", [2], backup=False)
    operations = Operations(store, [Target(Folder("nas", str(tmp_path / "nas")), 7, True)])
    await operations.exports.run()
    whole_at = operations.exports.destinations.last_seen_at
    clock.instant += timedelta(days=1)
    path = tmp_path / "data" / "b.json"
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    store.opened.current_documents.inspector.cache.clear()  # type: ignore[union-attr]
    await data.save_json(NAME, [3])
    assert "it lacks b.json" in await operations.exports.run()
    check = await exports_result(operations)
    assert (check["status"], "lacks b.json" in check["detail"]) == ("warning", True)
    assert operations.exports.destinations.last_seen_at == whole_at
    await data.reset("b.json")
    clock.instant += timedelta(days=1)
    await operations.exports.run()
    assert (await exports_result(operations))["status"] == "ok"
    await store.close()


async def test_an_export_that_was_stopped_is_not_ok(tmp_path: Path) -> None:
    class Slow(Folder):
        async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
            await asyncio.sleep(60)

    store = open_managed(tmp_path / "data", SettableClock())
    await DataManager(store).save_json(NAME, [1])
    operations = Operations(store, [Target(Slow("nas", str(tmp_path / "nas")), 7, True)])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(operations.exports.run(), 0.3)
    check = await exports_result(operations)
    assert (check["status"], "was stopped" in check["detail"]) == ("warning", True)
    await store.close()


@pytest.mark.follows("operations/destinations:_marked")
async def test_a_destination_that_keeps_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def swallow(_: Folder, _key: str, _data: bytes, *, replace: bool = True) -> None:
        """Answer as if it were stored."""

    bot = Bot(tmp_path, Folder("bucket", str(tmp_path / "bucket")))
    await bot.data.save_json("a.json", {"n": 1})
    with monkeypatch.context() as broken:
        broken.setattr(Folder, "put", swallow)
        with pytest.raises(ExportFailed, match="has not kept the marker"):
            await bot.mirrored()

    assert "1 document" in await bot.mirrored()
    await bot.store.close()


async def test_a_folder_without_a_thread_is_an_error_until_a_thread_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder("nas", str(tmp_path), timeout_s=5)
    with monkeypatch.context() as patch:
        refuse_threads(patch, "seline-export")
        for _ in range(2):
            with pytest.raises(ExportFailed, match="Resource temporarily unavailable"):
                await folder.put("early", b"")

    await folder.put("late", b"")

    assert [listed.name for listed in await folder.list("")] == ["late"]


@pytest.mark.follows("operations/export_folders:_read_marker")
async def test_a_page_instead_of_the_marker_is_no_other_destination(tmp_path: Path) -> None:
    """What is known of the copies is not forgotten, and the page is not taken for a marker."""
    bot = Bot(tmp_path, Folder("bucket", str(tmp_path / "bucket")))
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    marker = tmp_path / "bucket" / MARKER_NAME
    whole = marker.read_bytes()
    marker.write_text("<html>Log in</html>")
    again = Operations(bot.store, bot.operations.exports.destinations.targets, version="test")

    with pytest.raises(ExportFailed, match="another content than Seline stores"):
        await again.mirrors.run()
    with pytest.raises(ExportFailed, match="another content than Seline stores"):
        await again.exports.destinations.use("bucket")

    marker.write_bytes(whole)  # the page is no longer there
    assert again.exports.destinations.record("bucket").mirrored_at is not None
    await again.mirrors.run()
    marker.write_text("edited")
    marker.unlink()
    await again.exports.destinations.use("bucket")
    assert await again.mirrors.run() == ""
    await bot.store.close()
