"""The next steps about destinations of exports: each is taken as it is printed."""

import asyncio
import json
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seline.errors import ExportFailed
from seline.manager import DataManager
from seline.operations import Operations
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Target
from tests.clocks import FakeClock
from tests.command_line import Line, line_at, served
from tests.hints.following import Step, next_of, run
from tests.stores import open_managed

NAME = "a.json"
Follow = Callable[[str], Step]


def check(line: Line) -> dict[str, Any]:
    checks = line("status", "--json").value()["checks"]
    [found] = [check for check in checks if check["name"] == "exports"]
    return found


def with_nas(folder: Path, url: str, **more: Any) -> Line:
    table = json.dumps([{"name": "nas", "url": url, **more}])
    return line_at(folder, SELINE_EXPORTS__DESTINATIONS=table)


@pytest.mark.prove
@pytest.mark.follows(
    "operations/checks:_exports",
    "operations/destination_checks:check_destination",
    "operations/destination_checks:_problems#3",
)
def test_exports_become_ok_by_the_steps_of_health(
    line: Line, tmp_path: Path, follow: Follow
) -> None:
    assert line("save", NAME, stdin="[1]").code == 0
    follow(check(line)["fix"]).asks("Name a folder", "`exports.destinations`")
    nas = f"file://{tmp_path}/nas"
    line = with_nas(tmp_path, nas)
    [command] = follow(check(line)["fix"]).commands()
    assert run(line, command).code == 0
    follow(check(line)["fix"]).asks("`same_disk = true` for nas")
    assert check(with_nas(tmp_path, nas, same_disk=True))["status"] == "ok"


@pytest.mark.prove
@pytest.mark.follows("operations/exports:_damaged")
def test_a_damaged_export_is_written_again_and_drilled(tmp_path: Path, follow: Follow) -> None:
    line = with_nas(tmp_path, f"file://{tmp_path}/nas", same_disk=True)
    assert line("save", NAME, stdin="[1]").code == 0
    assert line("jobs", "run", "export").code == 0
    [pack] = (tmp_path / "nas").rglob("pack-*")
    pack.write_bytes(pack.read_bytes()[:-1])
    time.sleep(1.1)  # an export's name has its second
    assert line("jobs", "run", "drill").code == 1
    for command in follow(check(line)["fix"]).commands():
        assert run(line, command).code == 0
    assert (check(line)["status"], "last proven" in check(line)["detail"]) == ("ok", True)


@pytest.mark.prove
@pytest.mark.follows("operations/exports:_write")
async def test_an_export_is_repeated_a_second_later(tmp_path: Path, follow: Follow) -> None:
    clock = FakeClock()
    store = open_managed(tmp_path / "data", clock)
    targets = [Target(Folder("nas", str(tmp_path / "nas")), 7)]
    exports = Operations(store, targets).exports
    await DataManager(store).save_json(NAME, [1])
    await exports.run()
    await DataManager(store).save_json(NAME, [2])
    with pytest.raises(ExportFailed, match="already"):
        await exports.run()
    [(_, record)] = exports.destinations.records()
    follow(record.cure).asks("Repeat it a second later")
    clock.advance(1)
    assert "read back" in await exports.run()
    await store.close()


def emptied(line: Line) -> None:
    """Export three documents, then one, which is in doubt; an export's name has its second."""
    for number in range(3):
        line("save", f"{number}.json", stdin="[1]")
    assert line("jobs", "run", "export").code == 0
    for number in range(2):
        line("delete", f"{number}.json", "--yes")
    time.sleep(1.1)
    failed = line("jobs", "run", "export")
    assert failed.code == 1
    for text in (failed.out, failed.err, check(line)["detail"]):
        assert ".;" not in text
    time.sleep(1.1)


@pytest.mark.prove
@pytest.mark.parametrize("is_meant", [True, False])
@pytest.mark.follows("operations/exports:_in_doubt")
def test_an_export_that_lost_much_is_accepted_or_mended(
    tmp_path: Path, follow: Follow, is_meant: bool
) -> None:
    line = with_nas(tmp_path, f"file://{tmp_path}/nas", same_disk=True)
    emptied(line)
    accept, restore = follow(check(line)["fix"]).commands(NAME="0.json")
    if is_meant:
        assert run(line, accept).code == 0
    else:
        assert run(line, restore).code == 0
        assert line("jobs", "run", "export").code == 0
    assert check(line)["status"] == "ok"


@pytest.mark.prove
@pytest.mark.follows("operations/copies:_all_in_doubt")
def test_a_copy_in_doubt_is_restored_where_there_is_no_other(
    tmp_path: Path, follow: Follow
) -> None:
    line = with_nas(tmp_path, f"file://{tmp_path}/nas", same_disk=True)
    emptied(line)
    sound, _ = sorted((tmp_path / "nas").glob("seline-2*"))
    shutil.rmtree(sound)
    line("delete", "2.json", "--yes")
    [command] = follow(next_of(line("exports", "restore", "nas", "--yes"))).commands()
    assert run(line, command).code == 0
    assert line("load", "2.json").code == 0


@pytest.mark.prove
@pytest.mark.follows(
    "operations/destinations:_another",
    "cli/destinations:destinations",
    "error:destination_not_found",
)
@pytest.mark.parametrize("cure", ["mounted", "replaced"])
def test_a_destination_without_its_marker_gets_exports_again(
    tmp_path: Path, follow: Follow, cure: str
) -> None:
    line, nas = with_nas(tmp_path, f"file://{tmp_path}/nas", same_disk=True), tmp_path / "nas"
    assert line("save", NAME, stdin="[1]").code == 0
    assert line("jobs", "run", "export").code == 0
    nas.rename(tmp_path / "away")
    assert line("jobs", "run", "export").code == 1
    step = follow(check(line)["fix"])
    step.asks("Mount it, then", "If it was moved or replaced")
    again, use = step.commands()
    if cure == "mounted":
        (tmp_path / "away").rename(nas)
    [listing] = follow(next_of(line("destinations", "use", "other"))).commands()
    assert "nas" in run(line, listing).out
    taken = run(line, use)
    notices = taken.err.strip().splitlines()
    assert follow(notices[-1]).text.partition("Next: ")[2] == again
    assert ("No copy of this volume" in taken.err) == (cure == "replaced")
    assert ("the newest export was read back" in check(line)["detail"]) == (cure == "mounted")
    assert check(line)["status"] == "warning", "it failed, and no export was written since"
    assert run(line, again).code == 0
    assert check(line)["status"] == "ok"


@pytest.mark.prove
@pytest.mark.follows("outbound/destinations/folder:_on_data_disk")
def test_a_link_into_the_data_directory_is_replaced(tmp_path: Path, follow: Follow) -> None:
    line = with_nas(tmp_path, f"file://{tmp_path}/link", same_disk=True)
    assert line("save", NAME, stdin="[1]").code == 0
    (line.data / "inside").mkdir()
    (tmp_path / "link").symlink_to("data/inside")
    ran = line("jobs", "run", "export")
    assert (ran.code, "inside the data directory" in ran.out) == (1, True)
    follow(check(line)["fix"]).asks("Name a folder on another disk in `exports.destinations`")
    line = with_nas(tmp_path, f"file://{tmp_path}/nas", same_disk=True)
    assert line("jobs", "run", "export").code == 0
    assert check(line)["status"] == "ok"


@pytest.mark.follows("settings/__init__:_check_restore_from")
def test_a_restore_from_no_destination_is_corrected(tmp_path: Path, follow: Follow) -> None:
    line = with_nas(tmp_path, f"file://{tmp_path}/nas", same_disk=True)
    refused = line("documents", SELINE_EXPORTS__RESTORE_FROM="nsa")
    assert "is 'nsa', and no destination is" in refused.err
    follow(next_of(refused)).asks("Set `exports.restore_from` to nas, auto or off")
    assert line("save", NAME, stdin="[1]", SELINE_EXPORTS__RESTORE_FROM="nas").code == 0


@pytest.mark.follows("outbound/destinations/folder:_in_thread")
async def test_a_destination_that_hung_gets_exports_again(tmp_path: Path, follow: Follow) -> None:
    mounted = threading.Event()

    class Hanging(Folder):
        def _on_data_disk(self, data_dir: str) -> bool:
            assert mounted.wait(20)
            return super()._on_data_disk(data_dir)

    store = open_managed(tmp_path / "data", FakeClock())
    await DataManager(store).save_json(NAME, [1])
    exports = Operations(
        store, [Target(Hanging("nas", str(tmp_path / "nas"), timeout_s=0.2), 7)]
    ).exports
    for why in ("took over", "does not answer"):
        with pytest.raises(ExportFailed, match=why):
            await exports.run()
        await asyncio.sleep(0.1)
    [(_, record)] = exports.destinations.records()
    follow(record.cure).asks("Mount it again", "`seline jobs run export`", "for a mirror")
    mounted.set()
    await asyncio.sleep(0.1)
    assert "read back" in await exports.run()
    await store.close()


@pytest.mark.prove
@pytest.mark.follows("operations/imports:foreign_export")
def test_the_export_of_another_volume_is_imported_on_request(line: Line, follow: Follow) -> None:

    assert line("save", NAME, stdin="[1]").code == 0
    with served(line) as server:
        token = line("token", "create").out.strip()

        def post(query: str) -> Any:
            request = urllib.request.Request(
                f"{server.url}/api/v1/data-admin/import?volume=01234567{query}",
                json.dumps({"files": {NAME: [2]}}).encode(),
                {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
            )
            with urllib.request.urlopen(request) as response:
                return json.load(response)

        with pytest.raises(urllib.error.HTTPError) as refused:
            post("")
        step = follow(json.load(refused.value)["hint"])
        step.asks("a dry run shows")
        assert post("&dry_run=true")["changed"] == [NAME]
        [flag] = re.findall("`(.*)`", step.text)
        post(f"&{flag}")
    assert line("load", NAME).value() == [2]
