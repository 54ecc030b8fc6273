"""The next steps of alerts: a server raises each, and following it ends what it reports."""

import asyncio
import errno
import itertools
import json
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from seline.alerts import process
from seline.cli.errors import Exit
from seline.domain.alerts import lifecycle
from seline.server import serving
from seline.settings import load_settings
from seline.storage.volume import reopen
from tests.command_line import Line, line_at, served
from tests.faults.forms import PUBLISH_WITHIN_MS
from tests.faults.injection import failing_call
from tests.faults.small_filesystem import MIB, small_filesystem
from tests.hints.following import Step, next_of, run, shell
from tests.hints.test_command_steps import damage, saved
from tests.hints.test_volume_steps import alert, ended, fix_of

Follow = Callable[[str], Step]
LONG: Final = {f"field_{number}": "what took months to learn" for number in range(40)}


@pytest.fixture(scope="module", autouse=True)
def often() -> Iterator[None]:
    """Evaluate alerts often, and summarise those of a type from ten on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "EVALUATE_EVERY_S", 0.1)
        patch.setattr(process, "OVER_CHECK_EVERY_S", 0.2)
        patch.setattr(lifecycle, "OPEN_OF_A_TYPE_MAX", 10)
        patch.setattr(reopen, "REOPEN_EVERY_S", 0.1)
        yield


@pytest.fixture(scope="module")
def line(often: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """Yield a command line beside a server, which adopts hand edits at once."""
    folder = tmp_path_factory.mktemp("alerts")
    (folder / "file").write_text("")
    table = [{"name": "nas", "url": f"file://{folder}/file/nas"}]
    settings = {
        "SELINE_STORAGE__SETTLE_S": "0",
        "SELINE_EXPORTS__DESTINATIONS": json.dumps(table),
        PUBLISH_WITHIN_MS: "0",
    }
    line = line_at(folder, **settings)
    with serving_in_thread(line):
        yield line


@contextmanager
def serving_in_thread(line: Line) -> Generator[None]:
    """Run a server in this process, in a thread with an event loop."""
    place = {"storage.data_dir": str(line.data), "server.host": "127.0.0.1", "server.port": 0}
    settings = load_settings(environ=line.environ, arguments=place)
    loop, over = asyncio.new_event_loop(), asyncio.Event()
    started: Future[None] = Future()

    async def serve() -> None:
        async with serving(settings) as server:
            await server.acquired()
            started.set_result(None)
            await over.wait()

    with ThreadPoolExecutor(1) as threads:
        served_until = threads.submit(loop.run_until_complete, serve())
        try:
            wait({started, served_until}, return_when=FIRST_COMPLETED)
            yield
        finally:
            loop.call_soon_threadsafe(over.set)
            served_until.result()
            loop.close()


@pytest.mark.prove
@pytest.mark.follows("alert:recovery")
def test_what_a_recovery_set_aside_is_listed(line: Line, follow: Follow) -> None:
    saved(line, "torn.json")
    damage(line.data / "torn.json")
    assert line("load", "torn.json").value() == {"n": 2}
    [listing] = follow(alert(line, "recovery", about="torn.json")).commands()

    assert "torn.json" in run(line, listing).out


@pytest.mark.follows("alert:recovery:edit")
def test_a_hand_edit_with_an_error_is_corrected_and_saved(line: Line, follow: Follow) -> None:
    saved(line, "edited.json")
    (line.data / "edited.json").write_text('{"n": 3,}')
    for _ in ("not settled yet", "judged"):
        assert line("load", "edited.json").value() == {"n": 2}
    fetch, save = follow(alert(line, "recovery", about="edited.json")).commands()
    assert run(line, fetch).code == 0
    edit = line.folder / save.split()[-1]
    edit.write_text(edit.read_text().replace(",}", "}"))
    assert run(line, save).code == 0

    assert line("load", "edited.json").value() == {"n": 3}


@pytest.mark.prove
@pytest.mark.follows("alert:unrecoverable_document")
def test_a_document_beyond_recovery_is_imported_or_given_up(line: Line, follow: Follow) -> None:
    values = {"EXPORT": "export.json"}
    for number in range(2):
        name = f"lost{number}.json"
        saved(line, name, {"n": 1})
        line("export", "export.json", "--force")
        line("delete", name, "--purge", "--yes")
        (line.data / name).write_bytes(b"\0\0")
        assert line("load", name).code == 3
        step = follow(alert(line, "unrecoverable_document", about=name))
        command = step.commands(**values)[number]
        assert run(line, command).code == 0
        ended(line, "unrecoverable_document", about=name)
        assert line("load", name).code == (4 if number else 0)


@pytest.mark.follows("alert:blank_save")
def test_a_document_that_was_emptied_is_restored(line: Line, follow: Follow) -> None:
    saved(line, "long.json", LONG, {})
    step = follow(alert(line, "blank_save"))
    step.asks("pass `shrink=True`", "name the document in `backups.blank_guard_except`")
    listing, _ = step.commands()
    listed = run(line, f"{listing} --json").value()["backups"]
    pinned = next(backup["name"] for backup in listed if backup["pinned"])
    _, restoring = step.commands(BACKUP=pinned)
    assert run(line, restoring).code == 0

    assert line("load", "long.json").value() == LONG


@pytest.mark.prove
@pytest.mark.follows("alert:backup_damaged")
def test_damaged_backups_are_replaced_by_the_next_changes(line: Line, follow: Follow) -> None:
    saved(line, "kept.json")
    [backup] = (line.data / "backups").glob("kept_*")
    damage(backup)
    line("verify")
    step = follow(alert(line, "backup_damaged", about="kept.json"))
    step.asks("its next changes make new backups")
    [listing] = step.commands()
    assert backup.name in run(line, listing).out
    saved(line, "kept.json", *({"n": number} for number in range(12)))
    line("verify")

    ended(line, "backup_damaged", about="kept.json")


@pytest.mark.prove
@pytest.mark.follows("alert:another_writer")
def test_what_another_program_replaced_is_listed(line: Line, follow: Follow) -> None:
    saved(line, "shared.json")
    for number in range(8):
        (line.data / "shared.json").write_text(json.dumps({"other": number}))
        line("load", "shared.json")
        saved(line, "shared.json", {"mine": number})
    step = follow(alert(line, "another_writer", about="shared.json"))
    step.asks("Stop the other program", "lists what was replaced")
    [listing] = step.commands()

    assert len(run(line, f"{listing} --json").value()["backups"]) > 2


@pytest.mark.prove
@pytest.mark.usefixtures("files_at_once")
@pytest.mark.follows("alert:document_removed", "alert:document_removed:backup")
def test_a_document_that_was_removed_is_brought_back(tmp_path: Path, follow: Follow) -> None:
    line = line_at(tmp_path, SELINE_STORAGE__CACHE_BYTES_MAX="0")
    saved(line, "unsaved.json", {"n": 1})
    assert line("export", "export.json").code == 0
    with serving_in_thread(line):
        saved(line, "a.json")
        for name in ("a.json", "unsaved.json"):
            (line.data / name).unlink()
            assert line("load", name).code == Exit.NOT_FOUND
            [command] = follow(alert(line, "document_removed", about=name)).commands(
                EXPORT="export.json"
            )
            assert run(line, command).code == 0
            assert line("load", name).value() == {"n": 1}


@pytest.mark.follows("alert:job_failed")
def test_a_job_that_failed_is_run_again(line: Line, follow: Follow) -> None:
    saved(line, "a.json")
    assert line("jobs", "run", "export").code == 1
    jobs, again = follow(alert(line, "job_failed", about="export")).commands()
    assert "export" in run(line, jobs).out
    (line.folder / "file").unlink()
    assert run(line, again).code == 0

    ended(line, "job_failed", about="export")


@pytest.mark.prove
@pytest.mark.follows("alert:copy_at_risk")
def test_copies_on_the_disk_of_the_data_are_meant_or_moved(tmp_path: Path, follow: Follow) -> None:
    table = {"name": "nas", "url": f"file://{tmp_path}/nas"}
    line = line_at(tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps([table]))
    saved(line, "a.json")
    with serving_in_thread(line):
        assert line("jobs", "run", "export").code == 0
        follow(alert(line, "copy_at_risk", about="nas")).asks("`same_disk = true` for nas")
    meant = line_at(
        tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps([{**table, "same_disk": True}])
    )
    with serving_in_thread(meant):
        ended(meant, "copy_at_risk", about="nas")


@pytest.mark.prove
@pytest.mark.follows("alert:many")
def test_many_alerts_are_shown_as_a_whole(line: Line, follow: Follow) -> None:
    names = [f"many{number}.json" for number in range(14)]
    for name in names:
        saved(line, name, {"n": 1}, {"n": 2})
        damage(line.data / name)
    line("verify")
    status, verify = follow(alert(line, "many")).commands()
    assert names[0] in run(line, f"{status} --json").out
    assert run(line, verify).code == 0


@pytest.mark.follows("alert:disk_error")
def test_after_an_error_of_the_disk_an_export_is_made(
    line: Line, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    saved(line, "a.json", {"n": 1})
    with monkeypatch.context() as patch:
        for call in ("fsync", "fdatasync"):
            patch.setattr(os, call, failing_call(errno.EIO))
        assert line("save", "a.json", stdin='{"n": 2}').code == 1
    [command] = follow(alert(line, "disk_error")).commands()
    saved(line, "a.json", {"n": 3})
    assert json.loads(run(line, command).out)["data"]["files"]["a.json"]


@pytest.mark.follows("alert:access_refused", "cure:ELOOP")
def test_what_the_system_refuses_is_mended_as_the_detail_names(line: Line, follow: Follow) -> None:
    saved(line, "linked.json")
    (line.data / "linked.json").rename(line.folder / "elsewhere.json")
    (line.data / "linked.json").symlink_to(line.folder / "elsewhere.json")
    assert line("load", "linked.json").code != 0
    [verify] = follow(alert(line, "access_refused", about="linked.json")).commands()
    [summary] = [
        row["summary"]
        for row in line("alerts", "--json").value()["alerts"]
        if row["type"] == "access_refused"
    ]
    detail = follow(summary[summary.index("Put what the link") :].strip())
    shell(line.folder, detail.quoted[0])
    run(line, verify)

    assert line("load", "linked.json").value() == {"n": 2}


@pytest.mark.prove
@pytest.mark.follows("alert:wrong_mount")
def test_a_volume_is_attached_again_or_not_required(tmp_path: Path, follow: Follow) -> None:
    line = line_at(tmp_path)
    away = line_at(tmp_path, SELINE_DATA_DIR="away")
    saved(line)
    with serving_in_thread(line):
        line.data.rename(tmp_path / "away")
        line.data.mkdir()
        step = follow(alert(away, "wrong_mount"))
        step.asks("Attach the volume where the data directory is")
        line.data.rmdir()
        (tmp_path / "away").rename(line.data)
        ended(line, "wrong_mount")
    with served(line_at(tmp_path, **step.settings())):
        assert line("load", "user_profile.json").value() == {"n": 2}


@pytest.mark.prove
@pytest.mark.follows("alert:journal_damaged")
def test_documents_that_change_together_are_restored(tmp_path: Path, follow: Follow) -> None:
    line = line_at(tmp_path)
    saved(line)
    (line.data / ".seline" / "journal").write_text("{}\nno digest")
    with serving_in_thread(line):
        follow(alert(line, "journal_damaged")).asks(
            "Look at the documents that were changed last, and restore them"
        )
        assert line("restore", "user_profile.json", "--yes").code == 0
        assert line("load", "user_profile.json").value() == {"n": 1}


@pytest.mark.prove
@pytest.mark.follows("error:volume_full", "alert:usage", "alert:pins_shed")
def test_space_is_freed_on_a_full_volume(tmp_path: Path, follow: Follow) -> None:
    line = line_at(tmp_path)
    text = json.dumps({"text": "x" * MIB})
    with small_filesystem(line.data), serving_in_thread(line):
        saved(line, "pinned.json", {"text": "y" * 2 * MIB}, {}, {"n": 1}, {"n": 2})
        names = (f"d{number}.json" for number in itertools.count())
        saves = ((name, line("save", name, stdin=text)) for name in names)
        refused = next(ran for _, ran in saves if ran.code)
        assert refused.code == 6, refused.err

        line("jobs", "run", "usage")
        enlarge_or_erase = follow(alert(line, "pins_shed"))
        enlarge_or_erase.asks("Enlarge the volume")
        steps = [
            *follow(next_of(refused)).commands(NAME="d0.json"),
            *follow(alert(line, "usage")).commands(NAME="d1.json"),
            *enlarge_or_erase.commands(NAME="d2.json"),
            *Step(fix_of(line, "writing")).commands(NAME="d3.json"),
        ]
        for command in steps:
            assert run(line, command).code in (0, Exit.FULL), command

        assert line("save", "new.json", stdin=text).code == 0


@pytest.mark.prove
@pytest.mark.follows("alert:document_limit")
def test_a_document_too_many_is_deleted(tmp_path: Path, follow: Follow) -> None:
    line = line_at(tmp_path, SELINE_STORAGE__DOCUMENTS_MAX="2")
    with serving_in_thread(line):
        saved(line, "a.json")
        saved(line, "b.json")
        line("jobs", "run", "usage")
        step = follow(alert(line, "document_limit"))
        step.asks("raise `storage.documents_max` and restart")
        for command in step.commands(NAME="b.json"):
            assert run(line, command).code == 0

        assert line("save", "c.json", stdin="{}").code == 0
