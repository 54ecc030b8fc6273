"""The audit log: what a line has, and how it is read over HTTP and on the command line."""

import asyncio
import gc
import json
import re
import shlex
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from seline.access import audit
from seline.access.audit import CHANGES_MAX, AuditLog
from seline.clock import Clock
from seline.domain.document import BOT, Content, DocumentKey
from seline.manager import changes
from seline.manager.call_record import CallRecord, DocumentChange, recorded
from seline.ports.futures import Promise, wait_for
from seline.ports.store import Change, Outcome
from seline.server import Serving
from tests.clocks import FakeClock
from tests.command_line import Line, line_at
from tests.faults.injection import refuse_threads
from tests.http_client import NAME, Client


@pytest.fixture
async def log(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Clock, "now", lambda _: clock.now())
    (tmp_path / ".seline").mkdir()
    made = AuditLog(str(tmp_path))
    yield made
    made.close()


async def test_what_is_not_utf_8_is_logged_with_a_question_mark(log: AuditLog) -> None:
    log.open()
    record = CallRecord()
    record._changes["a.json"] = DocumentChange("a.json", None, "f" * 64)

    log.append(who="token 1", what="PUT /\udcff", outcome="200", record=record)

    [entry] = (await log.read()).entries
    assert (entry.what, entry.changes[0].document) == ("PUT /?", "a.json")


def test_a_record_has_a_change_as_soon_as_its_future_is_done() -> None:
    """The waiter of a future may go on before the future calls its callbacks."""
    record, future = CallRecord(), Unannounced()
    key = DocumentKey(BOT, "a.json")
    record.add(future, [Change(key, changes.look)])
    content = Content.of(b"{}")
    future.set_result((Outcome(content=content, changed=True, before=None),))

    assert record.changes() == (DocumentChange("a.json", None, content.revision),)

    announced = weakref.ref(future)
    future.announce()
    del future
    gc.collect()
    assert announced() is None, "its outcome, which holds a content, was kept"
    assert len(record.changes()) == 1


async def test_a_reader_of_a_record_waits_for_what_is_being_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record, future = CallRecord(), Promise[tuple[Outcome, ...]]()
    recording, release = threading.Event(), threading.Event()
    note = record._note

    def slow(*made: Any) -> None:
        recording.set()
        assert release.wait(10)
        note(*made)

    monkeypatch.setattr(record, "_note", slow)
    record.add(future, [Change(DocumentKey(BOT, "a.json"), changes.look)])
    outcome = Outcome(content=Content.of(b"{}"), changed=True)
    answering = asyncio.create_task(asyncio.to_thread(future.set_result, (outcome,)))
    await asyncio.to_thread(recording.wait, 10)

    reading = asyncio.create_task(asyncio.to_thread(record.changes))
    await asyncio.sleep(0.05)
    release.set()

    assert [change.document for change in await reading] == ["a.json"]
    await answering


class Unannounced(Promise[tuple[Outcome, ...]]):
    """A future that is done, and does not call its callbacks yet."""

    def announce(self) -> None:
        super()._invoke_callbacks()  # type: ignore[misc]

    def _invoke_callbacks(self) -> None:
        pass


async def entries(client: Client, query: str = "") -> list[dict[str, Any]]:
    status, body, _ = await client.call("GET", f"/audit{query}")
    assert status == 200, body
    found: list[dict[str, Any]] = body["entries"]
    return found


async def revision(client: Client) -> str:
    _, _, headers = await client.call("GET", f"/documents/{NAME}")
    return str(headers["ETag"].strip('"'))


# what a line has


async def test_a_change_has_its_document_and_both_revisions(client: Client) -> None:
    await client.call("PUT", f"/documents/{NAME}", {"n": 1})
    first = await revision(client)
    merge = "application/merge-patch+json"
    await client.call("PATCH", f"/documents/{NAME}", {"n": 2}, Content_Type=merge)
    second = await revision(client)
    await client.call("DELETE", f"/documents/{NAME}")
    deleted, patched, created = await entries(client)

    assert created["changes"] == [{"document": NAME, "before": None, "after": first}]
    assert patched["changes"] == [{"document": NAME, "before": first, "after": second}]
    assert deleted["changes"] == [{"document": NAME, "before": second, "after": None}]
    assert (created["who"], created["outcome"]) == ("SELINE_ADMIN_TOKEN", "201")
    assert patched["what"] == f"PATCH /api/v1/data-admin/documents/{NAME}"


async def test_a_restore_has_the_document_that_its_address_does_not_name(client: Client) -> None:
    for number in range(2):
        await client.call("PUT", f"/documents/{NAME}", {"n": number})
    before = await revision(client)
    await client.call("POST", "/restore-backup", {"filename": NAME})
    [restored, *_] = await entries(client)

    after = await revision(client)
    assert restored["changes"] == [{"document": NAME, "before": before, "after": after}]


async def test_what_changes_nothing_has_no_change(client: Client) -> None:
    await client.call("PUT", f"/documents/{NAME}", {"n": 1})
    await client.call("PUT", f"/documents/{NAME}", {"n": 1})
    await client.call("PUT", f"/documents/{NAME}", {"n": 2}, If_Match="0" * 64)
    await client.call("DELETE", f"/documents/{NAME}?dry_run=true")
    preview, refused, equal, _ = await entries(client)

    assert [each["changed"] for each in (preview, refused, equal)] == [0, 0, 0]
    assert refused["outcome"] == "revision_mismatch"


async def test_lines_that_arrive_during_a_write_share_the_next_sync(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(audit.os, "fsync", syncs.append)
    with audit._writing:
        for number in range(10):
            log.append(who="a", what=f"PUT {number}", outcome="200")
    page = await log.read()

    assert [entry.what for entry in page.entries] == [
        f"PUT {number}" for number in range(9, -1, -1)
    ]
    assert len(syncs) == 1


async def test_a_line_that_arrives_after_the_close_is_logged(
    log: AuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.close()
    for number in range(2):
        log.append(who="a", what=f"PUT {number}", outcome="200")

    assert ["PUT 0" in caplog.messages[0], "PUT 1" in caplog.messages[1]] == [True, True]


async def test_lines_are_written_again_once_a_thread_can_be_started(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        refuse_threads(patch, "seline-audit")
        log.open()
        log.append(who="a", what="PUT 0", outcome="200")
    log.append(who="a", what="PUT 1", outcome="200")
    page = await log.read()

    assert [entry.what for entry in page.entries] == ["PUT 1"]
    assert "PUT 0" in caplog.text


async def test_an_import_has_the_first_documents_and_the_count(client: Client) -> None:
    files = {f"d{number}.json": {"n": number} for number in range(CHANGES_MAX + 3)}
    export = {"exported_at": "2025-01-06T14:30:22Z", "files": files}
    status, body, _ = await client.call("POST", "/import?mode=merge", export)
    assert status == 200, body
    [imported] = await entries(client)

    assert len(imported["changes"]) == CHANGES_MAX
    assert imported["changed"] == CHANGES_MAX + 3


async def test_a_change_that_waits_for_a_block_belongs_to_its_own_call(
    client: Client, server: Serving
) -> None:
    """The task that ends the block starts the change, in another context."""
    async with server.data.edit(NAME) as value:
        waiting = asyncio.create_task(client.call("PUT", f"/documents/{NAME}", {"n": 9}))
        locks = server.data.store.locks
        while not locks._queues[NAME].waiting:
            await asyncio.sleep(0.01)
        value["n"] = 1
    await waiting
    [put] = await entries(client)

    assert put["changes"][0]["before"] is not None
    assert put["changed"] == 1


async def test_several_changes_of_a_document_are_one(server: Serving) -> None:
    store, key = server.data.store, DocumentKey(BOT, NAME)
    with recorded() as record:
        for number in range(3):
            value = {"n": number}
            await server.data.save_json(NAME, value)
        await wait_for(store.submit((store.change_of(key, changes.look),)))
    await server.data.save_json("other.json", {})

    [change] = record.changes()
    assert (change.document, change.before) == (NAME, None)
    content = await store.look(key)
    assert content is not None
    assert change.after == content.revision


# reading


async def test_only_an_admin_reads_the_log(client: Client, server: Serving) -> None:
    _, secret = await server.tokens.create(scope="read")
    bearer = f"Bearer {secret}"

    assert (await client.call("GET", "/audit", Authorization=bearer))[0] == 403


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "before=soon", "before=~1"])
async def test_a_wrong_parameter_is_named(client: Client, query: str) -> None:
    status, body, _ = await client.call("GET", f"/audit?{query}")

    assert (status, body["fields"]) == (422, [query.partition("=")[0]])


async def test_pages_have_each_entry_once_also_within_a_second(
    log: AuditLog, clock: FakeClock
) -> None:
    for number in range(7):
        log.append(who="a", what=str(number), outcome="200")
        if number % 3 == 2:
            clock.advance(1)
    seen, before = [], ""
    while True:
        page = await log.read(limit=2, before=before)
        seen += [entry.what for entry in page.entries]
        log.append(who="b", what="later", outcome="200")
        before = page.next
        if not before:
            break

    assert seen == [str(number) for number in reversed(range(7))]


async def test_an_instant_leaves_out_what_is_newer(log: AuditLog, clock: FakeClock) -> None:
    log.append(who="a", what="old", outcome="200")
    clock.advance(60)
    log.append(who="a", what="new", outcome="200")

    page = await log.read(before="2025-01-06T14:30:30+00:00")

    assert [entry.what for entry in page.entries] == ["old"]


async def test_lines_are_decoded_outside_of_the_event_loop(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, threads = audit._decoded, set[threading.Thread]()

    def decoded(line: bytes) -> audit.AuditEntry | None:
        threads.add(threading.current_thread())
        return decode(line)

    monkeypatch.setattr(audit, "_decoded", decoded)
    log.append(who="a", what="x", outcome="200")

    assert len((await log.read()).entries) == 1
    assert threads
    assert threading.main_thread() not in threads


async def test_both_files_are_read_and_damaged_lines_are_counted(
    log: AuditLog, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AUDIT_BYTES_MAX", 600)
    for number in range(6):
        log.append(who="a", what=str(number), outcome="200")
        clock.advance(1)
    await log.read()
    file = tmp_path / ".seline" / "audit.jsonl"
    with file.open("ab") as opened:
        opened.write(b'{"at": "2025\n\xff\n[]\n')

    page = await log.read()

    assert (tmp_path / ".seline" / "audit.jsonl.1").exists()
    assert page.damaged == 3
    assert len(page.entries) >= 4
    assert page.entries[0].what == "5"


async def test_a_line_of_an_earlier_version_is_read(log: AuditLog, tmp_path: Path) -> None:
    line = {"at": "2025-01-06T14:30:22Z", "who": "a", "what": "PUT /x/d.json", "outcome": "201"}
    (tmp_path / ".seline" / "audit.jsonl").write_text(json.dumps(line) + "\n")

    [entry] = (await log.read()).entries
    assert (entry.who, entry.changes, entry.changed) == ("a", (), 0)


async def test_a_log_that_is_in_the_way_names_the_next_step(log: AuditLog, tmp_path: Path) -> None:
    (tmp_path / ".seline" / "audit.jsonl").mkdir()

    from seline.errors import DocumentUnreadable

    with pytest.raises(DocumentUnreadable) as raised:
        await log.read()
    assert "mv -n" in raised.value.hint


async def test_the_entries_of_one_document(client: Client) -> None:
    for name in (NAME, "other.json"):
        await client.call("PUT", f"/documents/{name}", {"n": 1})
    await client.call("PUT", f"/documents/{NAME}", {"n": 2}, If_Match="0" * 64)
    await client.call("PUT", f"/documents/{NAME}", {"n": 2})
    await client.call("POST", "/restore-backup", {"filename": NAME})
    found = await entries(client, f"?document={NAME}")

    outcomes = [each["outcome"] for each in found]
    assert outcomes == ["200", "200", "revision_mismatch", "201"]


# the command line


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return line_at(tmp_path_factory.mktemp("audit"))


@pytest.mark.prove
def test_the_command_lists_pages_and_filters(line: Line) -> None:
    for number in range(3):
        assert line("save", NAME, "-", stdin=json.dumps({"n": number})).code == 0
    assert line("delete", NAME, "--yes").code == 0
    ran = line("audit", "--limit", "3", "--document", NAME)
    assert ran.code == 0, ran.err
    assert re.search(rf"control socket .*DELETE .*{NAME} [0-9a-f]{{12}} to none", ran.out)
    assert "dry_run=true" in ran.out
    assert re.search(rf"{NAME} [0-9a-f]{{12}} to [0-9a-f]{{12}}", ran.out)

    step = re.search(r"Older ones: `(.*)`", ran.err)
    assert step
    arguments = shlex.split(step[1])
    older = line(*arguments[arguments.index("audit") :])
    assert re.search(rf"{NAME} none to [0-9a-f]{{12}}", older.out)
    assert len(line("audit", "--json").value()["entries"]) == 5  # with the preview of delete


def test_an_empty_log_says_so(tmp_path: Path) -> None:
    line = line_at(tmp_path)
    (line.data).mkdir(exist_ok=True)
    assert line("token", "create").code == 0
    assert line("audit", "--document", "none.json").err.strip() == "There is no entry."
