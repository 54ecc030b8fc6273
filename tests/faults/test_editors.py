"""Hand edits: Seline serves them, does not touch them while they are written, adopts them later."""

import asyncio
import codecs
import errno
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from seline import open_seline
from seline.alerts.signals import incident_signals
from seline.domain.alerts.lifecycle import on_raised
from seline.domain.alerts.message import worded
from seline.errors import DocumentUnrecoverable
from seline.library import Seline
from seline.storage.volume import files
from seline.storage.volume.earlier import WRITTEN_WITHIN
from tests.command_line import line_at
from tests.faults.forms import each_form_at_once
from tests.faults.injection import failing_call

pytestmark = each_form_at_once

NAME = "user_profile.json"
SETTLE_S = 0.3
DAY = timedelta(days=1)


async def read_until_adopted(seline: Seline, name: str = NAME) -> None:
    """Read until the edit has settled and Seline has adopted it."""
    await seline.data.load_json(name)
    await asyncio.sleep(SETTLE_S * 1.5)
    await seline.data.load_json(name)


async def test_an_edit_that_parses_is_served_at_once_and_adopted_when_it_has_settled(
    tmp_path: Path,
) -> None:
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"by": "seline"})
        (tmp_path / NAME).write_text('{"by": "hand"}')
        inode = (tmp_path / NAME).stat().st_ino
        assert await seline.data.load_json(NAME) == {"by": "hand"}
        assert (tmp_path / NAME).stat().st_ino == inode
        await read_until_adopted(seline)
        assert (tmp_path / NAME).stat().st_ino != inode
        assert (tmp_path / NAME).read_text() == '{"by": "hand"}'
        [backup] = await seline.data.backups(NAME)
        assert await seline.data.read_backup(NAME, backup.name) == {"by": "seline"}
        assert (await seline.verify()).findings == ()
        assert await seline.quarantine() == []


async def test_a_file_that_a_program_keeps_open_is_adopted_once_it_is_closed(
    tmp_path: Path,
) -> None:
    async with open_seline(tmp_path, storage__settle_s=0) as seline:
        await seline.data.save_json(NAME, {"by": "seline"})
        with (tmp_path / NAME).open("r+") as program:
            for number in range(2):
                program.seek(0)
                program.write(json.dumps({"line": number}))
                program.truncate()
                program.flush()
                assert await seline.data.load_json(NAME) == {"line": number}
                [finding] = (await seline.verify()).findings
                assert finding.outcome == "unsettled"
        [backup] = await seline.data.backups(NAME)
        assert await seline.data.read_backup(NAME, backup.name) == {"by": "seline"}
        [finding] = (await seline.verify()).findings
        assert finding.outcome == "adopted"
        assert await seline.data.load_json(NAME) == {"line": 1}
        assert not [i for i in seline.store.incidents() if i.kind == "another_writer"]


async def test_a_save_over_a_file_that_a_program_keeps_open_is_reported(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, {"by": "seline"})
        with (tmp_path / NAME).open("w") as program:
            program.write(json.dumps({"by": "program"}))
            program.flush()
            await seline.data.update_field(NAME, "n", 1)
        assert await seline.data.load_json(NAME) == {"by": "program", "n": 1}
        [incident] = [i for i in seline.store.incidents() if i.kind == "another_writer"]
        assert "is lost" in incident.summary


@pytest.mark.parametrize("call", ["stage", "exchange"])
async def test_an_adoption_that_the_disk_refuses_is_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async with open_seline(tmp_path, storage__settle_s=0) as seline:
        await seline.data.save_json(NAME, {"by": "seline"})
        (tmp_path / NAME).write_text('{"by": "hand"}')
        with monkeypatch.context() as patch:
            patch.setattr(files, call, failing_call(errno.EIO))
            assert await seline.data.load_json(NAME) == {"by": "hand"}
            [finding] = (await seline.verify()).findings
            assert finding.outcome == "unwritten"
            incidents = {incident.kind: incident for incident in seline.store.incidents()}
            assert incidents.keys() == {"not_adopted", "disk_error"}
            assert "could not be adopted" in incidents["not_adopted"].summary
        [finding] = (await seline.verify()).findings
        assert finding.outcome == "adopted"


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32-le", codecs.BOM_UTF32_LE),
    ],
)
@pytest.mark.parametrize("saved_over", [False, True], ids=["read", "saved over"])
async def test_an_edit_with_a_byte_order_mark_is_adopted(
    tmp_path: Path, encoding: str, mark: bytes, saved_over: bool
) -> None:
    """Notepad writes one; the text is the same, so nothing is set aside."""
    edit = {"by": "Notepad", "city": "Orléans"}
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"by": "seline"})
        (tmp_path / NAME).write_bytes(mark + json.dumps(edit, ensure_ascii=False).encode(encoding))
        assert await seline.data.load_json(NAME) == edit
        if saved_over:
            await seline.data.update_field(NAME, "n", 1)
        else:
            await read_until_adopted(seline)
        assert json.loads((tmp_path / NAME).read_bytes()) == edit | ({"n": 1} if saved_over else {})
        values = [await seline.data.read_backup(NAME, b.name) for b in await seline.all_backups()]
        assert {"by": "seline"} in values
        assert not saved_over or edit in values
        assert (await seline.verify()).findings == ()
        assert await seline.quarantine() == []


@pytest.mark.parametrize("saved_over", [False, True], ids=["verified", "saved over"])
async def test_the_bytes_of_a_file_in_another_encoding_are_kept_when_it_is_taken_over(
    tmp_path: Path, saved_over: bool
) -> None:
    """Seline did not write it, so its program may need it as it was."""
    before = codecs.BOM_UTF16_LE + '{"by": "an older bot"}'.encode("utf-16-le")
    (tmp_path / NAME).write_bytes(before)
    async with open_seline(tmp_path, storage__settle_s=0) as seline:
        if saved_over:
            await seline.data.update_field(NAME, "n", 1)
        else:
            assert [found.outcome for found in (await seline.verify()).findings] == ["adopted"]
        assert await seline.data.load_json(NAME) == {"by": "an older bot"} | (
            {"n": 1} if saved_over else {}
        )
        adopted = [i.summary for i in seline.store.incidents() if i.kind == "adopted"]
        why = "it was not written by Seline, and has a byte order mark"
        assert saved_over or why in adopted[0]
        [item] = await seline.quarantine()
        assert await seline.read_quarantine(item.name) == before
        [check] = [c for c in (await seline.health())["checks"] if c["name"] == "quarantine"]
        assert check["detail"] == f"1 file set aside within a day: {NAME}"


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        (b'{"by": "hand",\n  "n": 1,\n}', "line 3, column 1"),
        (b"{'by': 'hand'}", "line 1, column 2"),
        (b'{"by": "hand"', "line 1, column 14"),
        (codecs.BOM_UTF8 + b'{"by": "hand",}', ""),
    ],
    ids=["a trailing comma", "single quotes", "no end", "a mark and a trailing comma"],
)
async def test_an_edit_with_an_error_is_reported_with_its_place_and_can_be_mended(
    tmp_path: Path, text: bytes, flaw: str
) -> None:
    """The message names the place of the error, the file, and commands that work as printed."""
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"by": "seline"})
        (tmp_path / NAME).write_bytes(text)
        await read_until_adopted(seline)
        assert await seline.data.load_json(NAME) == {"by": "seline"}
        [item] = await seline.quarantine()
        [incident] = seline.store.incidents()
        [signal] = incident_signals([incident], incident.at)
        alert = worded(on_raised(None, signal, now=incident.at, renotify=DAY)[0].alert, "en")
        for message in (incident.summary, alert.summary):
            assert "changed outside Seline, and is not JSON" in message
            assert flaw in message
        for message in (incident.summary, alert.fix):
            assert f"`seline quarantine {item.name} > edit_{item.name}`" in message
            assert f"`seline save {NAME} edit_{item.name}`" in message
            assert "provider" not in message
        assert await seline.read_quarantine(item.name) == text


async def test_bytes_that_a_disk_changed_are_no_edit(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"by": "seline"})
        before = (tmp_path / NAME).stat()
        with (tmp_path / NAME).open("r+b") as file:
            file.write(codecs.BOM_UTF8)
        os.utime(tmp_path / NAME, ns=(before.st_atime_ns, before.st_mtime_ns))
        await read_until_adopted(seline)
        assert await seline.data.load_json(NAME) == {"by": "seline"}
        [incident] = seline.store.incidents()
        assert "outside Seline" not in incident.summary


@pytest.mark.parametrize(("edits", "reported"), [(2, 0), (3, 1), (5, 1)])
async def test_a_program_that_keeps_writing_a_document_is_reported(
    tmp_path: Path, edits: int, reported: int
) -> None:
    """An old bot that still runs writes between acknowledged saves; two edits are a person's."""
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        for number in range(edits):
            await seline.data.save_json(NAME, {"by": "seline", "n": number})
            (tmp_path / NAME).write_text(f'{{"by": "the old bot", "n": {number}}}')
        await seline.data.save_json(NAME, {"by": "seline"})
        kinds = [str(incident.kind) for incident in seline.store.incidents()]
        assert kinds.count("another_writer") == reported


async def test_an_edit_that_replaces_the_file_is_adopted(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"by": "seline"})
        (tmp_path / "new").write_text('{"by": "mv"}')
        (tmp_path / "new").rename(tmp_path / NAME)
        assert await seline.data.load_json(NAME) == {"by": "mv"}
        await read_until_adopted(seline)
        assert (await seline.data.documents())[0].verdict == "sound"


@pytest.mark.prove
async def test_slow_uploads_that_truncate_first_are_not_undone(tmp_path: Path) -> None:
    """Thirty slow uploads: reads return the previous or the new content, nothing is quarantined."""
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"upload": -1})
        for number in range(30):
            text = f'{{"upload": {number}, "filler": "{"x" * 200}"}}'
            with (tmp_path / NAME).open("w") as file:
                for start in range(0, len(text), 60):
                    file.write(text[start : start + 60])
                    file.flush()
                    seen = await seline.data.load_json(NAME)
                    assert isinstance(seen, dict)
                    assert seen["upload"] in (number - 1, number)
            if number % 5 == 4:
                await read_until_adopted(seline)
            assert (await seline.data.load_json(NAME))["upload"] == number  # type: ignore[index,call-overload]
        assert await seline.quarantine() == []


async def test_a_served_edit_stays_current_while_the_next_edit_is_torn(tmp_path: Path) -> None:
    """A read never returns older content, and recovery of the torn edit restores the first edit."""
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"by": "seline"})
        (tmp_path / NAME).write_text('{"by": "hand"}')
        assert await seline.data.load_json(NAME) == {"by": "hand"}
        (tmp_path / NAME).write_text('{"by": ')
        assert await seline.data.load_json(NAME) == {"by": "hand"}
        await read_until_adopted(seline)
        assert await seline.data.load_json(NAME) == {"by": "hand"}
        backups = await seline.data.backups(NAME)
        values = [await seline.data.read_backup(NAME, backup.name) for backup in backups]
        assert {"by": "seline"} in values
        assert len(await seline.quarantine()) == 1


async def test_shell_redirections_are_not_undone_while_the_bot_reads(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"n": -1})
        script = (
            "import sys, time\n"
            "for n in range(100):\n"
            "    with open(sys.argv[1], 'w') as f:\n"
            "        f.flush(); time.sleep(0.001); f.write('{\"n\": %d}' % n)\n"
            "    time.sleep(0.004)\n"
        )
        editor = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / NAME)])
        while editor.poll() is None:
            await seline.data.load_json(NAME)
            await asyncio.sleep(0.001)
        assert await seline.data.load_json(NAME) == {"n": 99}
        await read_until_adopted(seline)
        assert await seline.data.load_json(NAME) == {"n": 99}
        assert await seline.quarantine() == []


async def test_an_edit_that_stays_torn_is_quarantined_when_it_has_settled(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"n": 1})
        (tmp_path / NAME).write_text('{"n": 2,')
        assert await seline.data.load_json(NAME) == {"n": 1}
        assert (tmp_path / NAME).read_text() == '{"n": 2,'
        await read_until_adopted(seline)
        assert await seline.data.load_json(NAME) == {"n": 1}
        [item] = await seline.quarantine()
        assert await seline.read_quarantine(item.name) == b'{"n": 2,'


@pytest.mark.parametrize("restarts", [False, True], ids=["one process", "after a restart"])
async def test_an_upload_that_stalled_is_adopted_once_it_is_whole(
    tmp_path: Path, restarts: bool
) -> None:
    """Its file is in quarantine by then, where its writer goes on with it."""
    before, whole = {"n": 1}, {"n": 2, "filler": "x" * 50}
    text = json.dumps(whole)
    async with AsyncExitStack() as stack:
        seline = await stack.enter_async_context(open_seline(tmp_path, storage__settle_s=SETTLE_S))
        await seline.data.save_json(NAME, {"n": 0})
        await seline.data.save_json(NAME, before)
        with (tmp_path / NAME).open("w") as upload:
            upload.write(text[:20])
            upload.flush()
            await read_until_adopted(seline)
            assert await seline.data.load_json(NAME) == before
            assert len(await seline.quarantine()) == 1
            if restarts:
                await stack.aclose()
            upload.write(text[20:])
        if restarts:
            opened = open_seline(tmp_path, storage__settle_s=SETTLE_S)
            seline = await stack.enter_async_context(opened)
        assert await seline.data.load_json(NAME) == whole
        await read_until_adopted(seline)
        assert json.loads((tmp_path / NAME).read_bytes()) == whole
        values = [await seline.data.read_backup(NAME, b.name) for b in await seline.all_backups()]
        assert before in values
        assert (await seline.verify()).findings == ()
        await seline.data.save_json(NAME, {"n": 3, "filler": "y" * 50})
        assert await seline.data.load_json(NAME) == {"n": 3, "filler": "y" * 50}


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "saves",
    [[{"n": 3}], [{"n": 3}, {"n": 1}], [{"n": 0}]],
    ids=["a new value", "the recovered value again", "the value of the backup"],
)
async def test_an_upload_that_ends_after_a_save_without_a_backup_is_not_adopted(
    tmp_path: Path, saves: list[dict[str, int]]
) -> None:
    """V3: the save was acknowledged, and no backup shows it to the next process."""
    text = json.dumps({"n": 2, "filler": "x" * 50})
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"n": 0})
        await seline.data.save_json(NAME, {"n": 1})
        upload = (tmp_path / NAME).open("w")
        upload.write(text[:20])
        upload.flush()
        await read_until_adopted(seline)
        assert len(await seline.quarantine()) == 1
        await asyncio.sleep(WRITTEN_WITHIN.total_seconds())
        for value in saves:
            await seline.data.save_json(NAME, value, backup=False)
    upload.write(text[20:])
    upload.close()
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        assert await seline.data.load_json(NAME) == saves[-1]
        await read_until_adopted(seline)
        assert await seline.data.load_json(NAME) == saves[-1]
        [item] = await seline.quarantine()
        assert await seline.read_quarantine(item.name) == text.encode()


@pytest.mark.parametrize("restarts", [False, True], ids=["one process", "after a restart"])
async def test_an_upload_that_ends_broken_is_read_until_it_has_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    """The document is then answered from memory again; a later change is looked at once more."""
    whole = {"n": 2, "filler": "x" * 50}
    text = json.dumps(whole)
    async with AsyncExitStack() as stack:
        seline = await stack.enter_async_context(open_seline(tmp_path, storage__settle_s=SETTLE_S))
        await seline.data.save_json(NAME, {"n": 0})
        await seline.data.save_json(NAME, {"n": 1})
        upload = stack.enter_context((tmp_path / NAME).open("w"))
        upload.write(text[:20])
        upload.flush()
        await read_until_adopted(seline)
        if restarts:
            upload.write(text[20:])
            upload.flush()
            await seline.close()
            opened = open_seline(tmp_path, storage__settle_s=SETTLE_S)
            seline = await stack.enter_async_context(opened)
            upload.truncate(30)
        else:
            upload.write(text[20:30])
            upload.flush()
        await read_until_adopted(seline)
        reads, real = 0, files.read_whole

        def counted(directory: int, name: str, *, size_max: int) -> files.RawFile:
            nonlocal reads
            reads += 1
            return real(directory, name, size_max=size_max)

        with monkeypatch.context() as patch:
            patch.setattr(files, "read_whole", counted)
            for _ in range(10):
                assert await seline.data.load_json(NAME) == {"n": 1}
        assert reads == 0
        if not restarts:
            upload.write(text[30:])
            upload.flush()
            await read_until_adopted(seline)
            assert await seline.data.load_json(NAME) == whole


async def test_an_upload_into_the_file_of_another_document_is_not_adopted_after_a_restart(
    tmp_path: Path,
) -> None:
    text = json.dumps({"n": 2, "filler": "x" * 50})
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json("other.json", {"other": 1})
        await seline.data.save_json(NAME, {"n": 0})
        await seline.data.save_json(NAME, {"n": 1})
        (tmp_path / "other.json").rename(tmp_path / NAME)
        upload = (tmp_path / NAME).open("w")
        upload.write(text[:20])
        upload.flush()
        await read_until_adopted(seline)
        recovered = await seline.data.load_json(NAME)
    upload.write(text[20:])
    upload.close()
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await read_until_adopted(seline)
        assert await seline.data.load_json(NAME) == recovered


async def test_verify_waits_until_a_torn_edit_has_settled(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"n": 1})
        (tmp_path / NAME).write_text("{")
        [finding] = (await seline.verify()).findings
        assert (finding.verdict, finding.outcome) == ("torn", "recovered")


async def test_a_torn_first_file_is_unrecoverable_and_not_empty(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__settle_s=60.0) as seline:
        (tmp_path / NAME).write_text("{")
        with pytest.raises(DocumentUnrecoverable):
            await seline.data.load_json(NAME)


async def test_a_save_over_an_unsettled_edit_keeps_the_edit_and_the_previous_content(
    tmp_path: Path,
) -> None:
    async with open_seline(tmp_path, storage__settle_s=60.0) as seline:
        await seline.data.save_json(NAME, {"n": 1})
        (tmp_path / NAME).write_text('{"half')
        await seline.data.update_field(NAME, "m", 2)
        assert await seline.data.load_json(NAME) == {"n": 1, "m": 2}
        [item] = await seline.quarantine()
        assert await seline.read_quarantine(item.name) == b'{"half'
        [backup] = await seline.data.backups(NAME)
        assert await seline.data.read_backup(NAME, backup.name) == {"n": 1}


async def test_a_save_over_an_edit_keeps_the_edit_and_the_content_before_it(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, {"n": 1})
        (tmp_path / NAME).write_text('{"n": "hand"}')
        await seline.data.save_json(NAME, {"n": 3})
        values = [
            await seline.data.read_backup(NAME, backup.name)
            for backup in await seline.data.backups(NAME)
        ]
        assert values == [{"n": "hand"}, {"n": 1}]


async def test_edits_during_saves_are_kept_unless_the_next_edit_replaces_them(
    tmp_path: Path,
) -> None:
    """An editor replaces the file while the bot saves: most edits are kept.

    An edit that the next edit replaces before a save is lost, since Seline never sees it.
    """
    async with open_seline(tmp_path, backups__keep_newest=100_000) as seline:
        await seline.data.save_json(NAME, {"by": "seline", "n": -1})
        script = (
            "import os, sys, time\n"
            "for n in range(150):\n"
            "    with open(sys.argv[1] + '.edit', 'w') as f: f.write('{\"by\": \"hand\", "
            '"n": %d}\' % n)\n'
            "    os.rename(sys.argv[1] + '.edit', sys.argv[1]); time.sleep(0.004)\n"
        )
        editor = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / NAME)])
        number = 0
        while editor.poll() is None:
            number += 1
            await seline.data.save_json(NAME, {"by": "seline", "n": number})
        await seline.data.save_json(NAME, {"by": "seline", "n": "last"})
        kept = [path.read_text() for path in (tmp_path / "backups").glob("*.json")]
        kept += [path.read_text() for path in (tmp_path / "quarantine").glob("*.json")]
        lost = [n for n in range(150) if not any(f'"hand", "n": {n}}}' in text for text in kept)]
        replaced_by_the_next_edit = len(lost)
        assert number > 20
        assert replaced_by_the_next_edit < 150


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
async def test_an_edit_by_another_user_is_adopted(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(0o755)
    async with open_seline(tmp_path / "d", storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"by": "seline"})
        file = tmp_path / "d" / NAME
        (tmp_path / "d").chmod(0o777)
        file.chmod(0o666)
        script = f"open({str(file)!r}, 'w').write('{{\"by\": \"other\"}}')"
        subprocess.run(
            [sys.executable, "-c", f"import os; os.setgid(65534); os.setuid(65534); {script}"],
            check=True,
        )
        assert await seline.data.load_json(NAME) == {"by": "other"}
        await read_until_adopted(seline)
        os.chown(file, 65534, 65534)
        await seline.data.save_json(NAME, {"by": "seline again"})
        values = [
            await seline.data.read_backup(NAME, backup.name)
            for backup in await seline.data.backups(NAME)
        ]
        assert values == [{"by": "other"}, {"by": "seline"}]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Let another program write a file again and again while the block runs."""
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.01):
            path.write_text('{"half' + "x" * random.randrange(1_000))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


async def test_a_document_that_is_being_written_is_no_damage_and_raises_no_alert(
    tmp_path: Path,
) -> None:
    async with open_seline(tmp_path, storage__settle_s=0.1) as seline:
        with writing(tmp_path / NAME):
            while not (tmp_path / NAME).exists():
                await asyncio.sleep(0.01)
            with pytest.raises(DocumentUnrecoverable, match="being written just now"):
                await seline.data.load_json(NAME)
            report = await seline.verify()
        assert [found.outcome for found in report.findings] == ["unsettled"]
        assert seline.store.incidents() == []
        (tmp_path / NAME).write_text('{"whole": 1}')
        assert await seline.data.load_json(NAME) == {"whole": 1}


def test_verify_says_how_many_documents_it_could_not_check(tmp_path: Path) -> None:
    line = line_at(tmp_path, SELINE_STORAGE__SETTLE_S="0.1")
    assert line("save", "sound.json", stdin="{}").code == 0
    with writing(line.data / NAME):
        done = line("verify")
    assert "No damage in what was checked; 1 document could not be" in done.err
