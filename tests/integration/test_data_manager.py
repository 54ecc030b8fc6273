"""Test the DataManager on a real directory: reads, changes, backups, pins, imports, health."""

import asyncio
import contextlib
import copy
import decimal
import enum
import json
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pytest

from seline import ABSENT, blocking, open_seline
from seline.domain.forecast import Forecast
from seline.domain.pins import Pin, with_blank_pins
from seline.errors import (
    BackupNotFound,
    DocumentBusy,
    DocumentNotFound,
    DocumentTooLarge,
    DocumentUnrecoverable,
    ImportRefused,
    InvalidDocumentName,
    InvalidRequest,
    NestedEdit,
    NotAnObject,
    NotSerializable,
    PathNotFound,
    RevisionMismatch,
    StoreClosed,
    VolumeFailed,
    WrongShape,
)
from seline.library import Seline
from seline.manager import DataManager, transfer
from seline.manager.blocks import Locked
from seline.manager.locks import DocumentLock
from seline.manager.pins import Pins
from seline.ports.futures import run_without_loop
from tests.clocks import FakeClock
from tests.collector import counted_collections
from tests.faults.forms import JOURNAL_BYTES
from tests.stores import open_managed

PROFILE = "user_profile.json"
LONG = {f"field_{number}": "a value of some length" for number in range(40)}


AT_EXIT = """
import asyncio, atexit, sys
from seline import open_seline
from seline.domain.document import DocumentKey

async def use_and_close():
    async with seline.data.edit("a.json") as value:
        value["n"] += 1
    store = await seline.store.open()
    store.medium.read_from_disk(DocumentKey("", "a.json"))
    print(await seline.data.load_json("a.json"), len(await seline.data.documents()))
    await seline.close()

async def open_and_save():
    seline = await open_seline(sys.argv[1])
    await seline.data.save_json("a.json", {"n": 1})
    return seline

seline = asyncio.run(open_and_save())
atexit.register(lambda: asyncio.run(use_and_close()))
"""


class Colour(enum.Enum):
    RED = "red"


async def test_a_save_returns_the_revision_and_a_load_returns_a_fresh_value(seline: Seline) -> None:
    revision = await seline.data.save_json(PROFILE, {"visits": [1]}, backup=True)
    first = await seline.data.load_json(PROFILE)
    assert isinstance(first, dict)
    first["visits"] = "mutated"
    assert len(revision) == 64
    assert await seline.data.load_json(PROFILE) == {"visits": [1]}


async def test_locks_that_were_released_slow_no_later_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    class Counted(DocumentLock):
        def __getattribute__(self, name: str) -> Any:
            if name == "active":
                looks.append(name)
            return super().__getattribute__(name)

    monkeypatch.setattr("seline.manager.locks.DocumentLock", Counted)
    store = open_managed(tmp_path / "data", FakeClock())
    names = [f"{number}.json" for number in range(200)]
    for _ in range(2):
        with Locked(store) as locked:
            await locked.lock(names)
    await store.close()

    assert len(looks) < 20 * len(names)


async def test_only_a_missing_document_loads_as_the_default(seline: Seline) -> None:
    assert await seline.data.load_json(PROFILE) == {}
    assert await seline.data.load_json(PROFILE, default=None) is None
    await seline.data.save_json(PROFILE, [])
    assert await seline.data.load_json(PROFILE, default={"x": 1}) == []


class Visit(TypedDict):
    at: str


@dataclass
class Visits:
    count: int = 0
    visits: list[Visit] = field(default_factory=list)


class Place(msgspec.Struct, forbid_unknown_fields=True):
    name: str


@pytest.mark.parametrize(
    ("kind", "value", "loaded"),
    [
        (Visit, {"at": "noon"}, {"at": "noon"}),
        (Visits, {"count": 2, "visits": [{"at": "noon"}]}, Visits(2, [{"at": "noon"}])),
        (Place, {"name": "Lyon"}, Place("Lyon")),
        (list[Place], [{"name": "Lyon"}], [Place("Lyon")]),
    ],
)
async def test_a_document_is_loaded_as_the_type_that_is_asked_for(
    seline: Seline, kind: type[Any], value: object, loaded: object
) -> None:
    await seline.data.save_json("a.json", value)

    assert await seline.data.load_json("a.json", type=kind) == loaded
    assert await seline.data.load_json("none.json", None, type=kind) is None


async def test_a_value_of_another_type_is_refused_by_its_field(seline: Seline) -> None:
    await seline.data.save_json("a.json", {"count": "two"})

    with pytest.raises(WrongShape, match=r"a\.json is not a Visits: .*\$\.count") as refused:
        await seline.data.load_json("a.json", type=Visits)

    assert "without `type`" in refused.value.hint
    assert await seline.data.load_json("none.json", type=Visits) == Visits()
    with pytest.raises(DocumentNotFound):
        await seline.data.load_json("none.json", type=Place)


@pytest.mark.parametrize("value", [None, True, 0, 2**80, -1.5e300, "é☃", [], [1, [2]], {"a": {}}])
async def test_any_json_value_can_be_a_document(seline: Seline, value: object) -> None:
    await seline.data.save_json("any.json", value)
    assert await seline.data.load_json("any.json", default="missing") == value


def _with_next_n(value: Any) -> Any:
    return {**value, "n": value["n"] + 1}


async def test_a_number_beyond_a_float_is_written_as_it_was(tmp_path: Path) -> None:
    wei = "0.123456789012345678"
    (tmp_path / "a.json").write_text(f'{{"wei": {wei}, "n": 0}}')

    async with open_seline(tmp_path) as seline:
        data = seline.data
        await data.update_field("a.json", "n", 1)
        async with data.edit("a.json") as value:
            value["n"] += 1
        await data.update_json("a.json", _with_next_n)
        async with data.transaction("a.json") as documents:
            documents["b.json"] = documents["a.json"]["wei"]
        loaded: Any = await data.load_json("a.json")
        await data.save_json("a.json", {**loaded, "n": 4})
        await data.import_data(await data.export_all_data())

        for name, text in {
            "a.json": f'{{\n  "wei": {wei},\n  "n": 4\n}}\n',
            "b.json": f"{wei}\n",
        }.items():
            content, _ = await data.read_content(name)
            assert content.data.decode() == text


@pytest.mark.usefixtures("files_at_once")
async def test_a_document_is_stored_as_readable_text(seline: Seline, tmp_path: Path) -> None:
    await seline.data.save_json(PROFILE, {"nom": "Zoé", "n": 1})
    text = (tmp_path / "data" / PROFILE).read_text(encoding="utf-8")
    assert text == '{\n  "nom": "Zoé",\n  "n": 1\n}\n'


@pytest.mark.parametrize(
    ("value", "path", "hint"),
    [
        ({"visits": [0, 1, 2, {"at": datetime(2025, 1, 6, tzinfo=UTC)}]}, "$.visits[3].at", "iso"),
        ({123456: "x"}, "$", "str(123456)"),
        ({"a": float("nan")}, "$.a", "None"),
        ({"a": {1, 2}}, "$.a", "sorted"),
        ({"a": b"x"}, "$.a", "decode"),
        ({"a": decimal.Decimal(1)}, "$.a", "str"),
        ({"a": uuid.UUID(int=1)}, "$.a", "str"),
        ({"a": Colour.RED}, "$.a", ".value"),
        ({"a": "\ud800"}, "$.a", "replace"),
        ({"odd key": object()}, '$["odd key"]', "onvert"),
    ],
)
async def test_a_value_that_is_not_json_is_refused_with_its_path_and_a_hint(
    seline: Seline, value: object, path: str, hint: str
) -> None:
    await seline.data.save_json(PROFILE, {"kept": True})
    with pytest.raises(NotSerializable) as refused:
        await seline.data.save_json(PROFILE, value)
    assert refused.value.details["path"] == path
    assert hint in refused.value.hint
    assert await seline.data.load_json(PROFILE) == {"kept": True}


async def test_nesting_over_the_limit_is_refused(seline: Seline) -> None:
    value: list[object] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(NotSerializable):
        await seline.data.save_json(PROFILE, value)


async def test_a_document_over_the_size_limit_is_refused(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__document_bytes_max=2048) as seline:
        with pytest.raises(DocumentTooLarge):
            await seline.data.save_json(PROFILE, "x" * 3000)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "name",
    ["../evil.json", "a/b.json", "metadata.json", "x.txt", ".hidden.json", "", "a b.json",
     "x" * 200 + ".json", "é.json", "a.json\n", "a\0.json", "\\x.json", None, 5, b"a.json",
     ["a.json"], {"a.json"}],
)  # fmt: skip
async def test_every_method_refuses_an_invalid_document_name(
    seline: Seline, tmp_path: Path, name: str
) -> None:
    for attempt in (
        seline.data.save_json(name, {}),
        seline.data.load_json(name),
        seline.data.delete(name),
        seline.data.backups(name),
        seline.data.restore(name),
        seline.data.update_field(name, "a", 1),
    ):
        with pytest.raises(InvalidDocumentName):
            await attempt
    assert not (tmp_path / "evil.json").exists()


async def test_if_match_refuses_a_stale_revision(seline: Seline) -> None:
    first = await seline.data.save_json(PROFILE, {"n": 1}, if_match=ABSENT)
    second = await seline.data.save_json(PROFILE, {"n": 2}, if_match=first)
    with pytest.raises(RevisionMismatch) as refused:
        await seline.data.save_json(PROFILE, {"n": 3}, if_match=first)
    assert refused.value.details["current"] == second
    with pytest.raises(RevisionMismatch):
        await seline.data.save_json(PROFILE, {"n": 3}, if_match=ABSENT)
    assert await seline.data.load_json(PROFILE) == {"n": 2}


async def test_read_returns_revision_size_and_update_time(seline: Seline) -> None:
    revision = await seline.data.save_json(PROFILE, {"n": 1})
    document = await seline.data.read(PROFILE)
    assert (document.value, document.revision, document.size_bytes) == ({"n": 1}, revision, 13)
    assert abs((datetime.now(UTC) - document.updated_at).total_seconds()) < 30
    with pytest.raises(DocumentNotFound):
        await seline.data.read("none.json")


async def test_concurrent_field_updates_are_all_kept(seline: Seline) -> None:
    await asyncio.gather(*(seline.data.update_field(PROFILE, f"k{n}", n) for n in range(160)))
    assert await seline.data.load_json(PROFILE) == {f"k{n}": n for n in range(160)}


def test_an_update_function_may_load_but_not_wait_for_the_writer(tmp_path: Path) -> None:
    with blocking.open_seline(tmp_path, storage__settle_s=0) as seline:
        data = seline.data
        data.save_json("prices.json", {"p": 5})
        data.save_json("edited.json", {"p": 5})
        backup = data.backups("edited.json")
        (tmp_path / "edited.json").write_text('{"p": 6}')

        def export() -> object:
            with data.exported() as snapshot:
                return snapshot.names

        assert data.update_json(PROFILE, lambda _: data.load_json("prices.json")) == {"p": 5}
        for call in (
            lambda: data.save_json("other.json", {}),
            lambda: data.update_json("other.json", lambda value: value),
            lambda: data.load_json("edited.json"),
            lambda: data.edit("other.json").__enter__(),
            lambda: data.transaction("other.json").__enter__(),
            lambda: data.import_data({"files": {"other.json": {}}}),
            lambda: data.delete("prices.json"),
            export,
            seline.close,
        ):
            with pytest.raises(NestedEdit):
                data.update_json(PROFILE, lambda _, call=call: call())

        assert backup == []
        assert data.load_json("edited.json") == {"p": 6}
        assert data.save_json(PROFILE, {"after": True})
        assert "other.json" not in {info.name for info in data.documents()}


async def test_an_item_is_appended_to_a_list_in_a_document(seline: Seline) -> None:
    """Both to a text that Seline encoded, and to one that was written by hand."""
    data = seline.data
    for number in range(3):
        await data.append_item("new.json", "/items", {"n": number})
        await data.append_item("list.json", "", number)
        await data.append_item("deep.json", "/a", [])
    await data.append_item("deep.json", "/a/1", "x")

    assert await data.load_json("new.json") == {"items": [{"n": 0}, {"n": 1}, {"n": 2}]}
    assert await data.load_json("list.json") == [0, 1, 2]
    assert await data.load_json("deep.json") == {"a": [[], ["x"], []]}
    revision = (await data.read("new.json")).revision
    with pytest.raises(PathNotFound, match="no list at /items/0: its value is of type object"):
        await data.append_item("new.json", "/items/0", 1)
    with pytest.raises(PathNotFound):
        await data.append_item("new.json", "/other/list", 1)
    with pytest.raises(RevisionMismatch):
        await data.append_item("new.json", "/items", 1, if_match="0" * 64)
    with pytest.raises(NotSerializable):
        await data.append_item("new.json", "/items", {1, 2})
    assert (await data.read("new.json")).revision == revision


async def test_update_field_refuses_a_list_and_a_field_name_that_is_not_text(
    seline: Seline,
) -> None:
    await seline.data.save_json("list.json", [1])
    with pytest.raises(NotAnObject):
        await seline.data.update_field("list.json", "x", 1)
    with pytest.raises(InvalidRequest):
        await seline.data.update_field("list.json", 5, 1)  # type: ignore[arg-type]


async def test_edits_of_one_document_run_one_after_another(seline: Seline) -> None:
    async def visit() -> None:
        async with seline.data.edit(PROFILE) as profile:
            visits = profile.get("visits", 0)
            await asyncio.sleep(0)
            profile["visits"] = visits + 1

    await asyncio.gather(*(visit() for _ in range(20)))
    assert await seline.data.load_json(PROFILE) == {"visits": 20}


async def test_a_save_during_an_edit_takes_effect_after_it(seline: Seline) -> None:
    async with seline.data.edit(PROFILE) as profile:
        profile["by"] = "edit"
        save = asyncio.ensure_future(_in_fresh_context(seline.data.save_json(PROFILE, {"by": "s"})))
        await asyncio.sleep(0.05)
        assert not save.done()
    await save
    assert await seline.data.load_json(PROFILE) == {"by": "s"}


async def _in_fresh_context(work: object) -> object:
    """Run `work` in a new context, so that it does not count as nested in the caller's edit."""
    import contextvars

    task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())  # type: ignore[arg-type]
    return await task


async def test_reads_do_not_wait_for_an_edit(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, {"n": 1})
    async with seline.data.edit(PROFILE) as profile:
        profile["n"] = 2
        assert await seline.data.load_json(PROFILE) == {"n": 1}


async def test_an_edit_that_raises_changes_nothing_and_releases_the_document(
    seline: Seline,
) -> None:
    await seline.data.save_json(PROFILE, {"n": 1})
    with pytest.raises(ZeroDivisionError):
        async with seline.data.edit(PROFILE) as profile:
            profile["n"] = 1 / 0
    await seline.data.update_field(PROFILE, "m", 2)
    assert await seline.data.load_json(PROFILE) == {"n": 1, "m": 2}


async def test_an_edit_with_a_value_that_is_not_json_releases_the_document(seline: Seline) -> None:
    with pytest.raises(NotSerializable):
        async with seline.data.edit(PROFILE) as profile:
            profile["bad"] = {1, 2}
    assert await seline.data.save_json(PROFILE, {"n": 1})


@pytest.mark.parametrize("call", ["save", "field", "edit", "delete", "restore", "transaction"])
async def test_a_nested_change_of_a_locked_document_raises_at_once(
    seline: Seline, call: str
) -> None:
    await seline.data.save_json(PROFILE, {"n": 1})

    async def nested() -> None:
        data = seline.data
        if call == "save":
            await data.save_json(PROFILE, {})
        elif call == "field":
            await data.update_field(PROFILE, "n", 2)
        elif call == "delete":
            await data.delete(PROFILE)
        elif call == "restore":
            await data.restore(PROFILE)
        elif call == "edit":
            async with data.edit(PROFILE):
                pass
        else:
            async with data.transaction(PROFILE):
                pass

    async with seline.data.edit(PROFILE) as profile:
        with pytest.raises(NestedEdit):
            await asyncio.wait_for(nested(), 2)
        profile["n"] = 3
    assert await seline.data.load_json(PROFILE) == {"n": 3}


async def test_a_change_that_waits_too_long_raises_document_busy(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__edit_wait_s=0.1) as seline:
        async with seline.data.edit(PROFILE) as profile:
            with pytest.raises(DocumentBusy) as busy:
                await _in_fresh_context(seline.data.save_json(PROFILE, {"other": 1}))
            assert "since" in busy.value.details
            profile["n"] = 1
        assert await seline.data.load_json(PROFILE) == {"n": 1}


async def test_an_expired_edit_cannot_overwrite_a_newer_save(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__edit_limit_s=1) as seline:
        with pytest.raises(RevisionMismatch):
            async with seline.data.edit(PROFILE) as profile:
                profile["by"] = "expired edit"
                await _in_fresh_context(seline.data.save_json(PROFILE, {"by": "newer save"}))
        assert await seline.data.load_json(PROFILE) == {"by": "newer save"}


async def test_an_expired_edit_does_not_disturb_the_edit_after_it(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__edit_limit_s=1) as seline:

        async def next_edit() -> None:
            async with seline.data.edit(PROFILE) as profile:
                entered.set()
                await expired.wait()
                profile["by"] = "next edit"

        entered, expired = asyncio.Event(), asyncio.Event()
        with pytest.raises(RevisionMismatch):
            async with seline.data.edit(PROFILE) as profile:
                editing = asyncio.ensure_future(_in_fresh_context(next_edit()))
                await entered.wait()
                profile["by"] = "expired edit"
        expired.set()
        await editing
        assert await seline.data.load_json(PROFILE) == {"by": "next edit"}


async def test_a_document_cannot_be_locked_while_a_change_of_it_is_queued(seline: Seline) -> None:
    locks = seline.store.locks
    being_queued, held = threading.Event(), threading.Event()
    overtaken: list[bool] = []

    def queue() -> Future[None]:
        being_queued.set()
        overtaken.append(held.wait(0.2))
        future: Future[None] = Future()
        future.set_result(None)
        return future

    saver = threading.Thread(target=lambda: run_without_loop(locks.through(PROFILE, queue)))
    saver.start()
    assert being_queued.wait(5)
    lock = await locks.lock(PROFILE)
    held.set()
    locks.release(lock)
    saver.join()

    assert overtaken == [False]


async def test_a_transaction_changes_all_or_nothing(seline: Seline) -> None:
    await seline.data.save_json("a.json", {"coins": 5})
    await seline.data.save_json("b.json", {"coins": 0})
    async with seline.data.transaction("a.json", "b.json") as change:
        change["a.json"]["coins"] -= 5
        change["b.json"]["coins"] += 5
        change["c.json"] = {"log": "moved"}
    with pytest.raises(RuntimeError):
        async with seline.data.transaction("a.json", "b.json") as change:
            change["a.json"]["coins"] = 99
            raise RuntimeError
    files = (await seline.data.export_all_data())["files"]
    assert files == {"a.json": {"coins": 0}, "b.json": {"coins": 5}, "c.json": {"log": "moved"}}


async def test_a_transaction_loads_only_the_documents_it_names(seline: Seline) -> None:
    await seline.data.save_json("other.json", {"n": 1})
    async with seline.data.transaction("a.json") as change:
        with pytest.raises(DocumentNotFound):
            change["other.json"]["n"] = 2
        with pytest.raises(InvalidDocumentName):
            change["../x.json"] = {}


async def test_a_transaction_creates_assigned_documents_but_not_loaded_ones(seline: Seline) -> None:
    async with seline.data.transaction("assigned.json", "loaded.json", "again.json") as change:
        change["assigned.json"] = {}
        assert change["loaded.json"] == {}
        del change["again.json"]
        change["again.json"] = {}
    assert [info.name for info in await seline.data.documents()] == ["again.json", "assigned.json"]


async def test_transactions_run_one_at_a_time(seline: Seline) -> None:
    async def move() -> None:
        async with seline.data.transaction("a.json", "b.json") as change:
            before = change["a.json"].get("n", 0)
            await asyncio.sleep(0)
            change["a.json"]["n"] = change["b.json"]["n"] = before + 1

    await asyncio.gather(*(move() for _ in range(10)))
    assert await seline.data.load_json("b.json") == {"n": 10}


async def test_a_cancelled_save_still_completes(seline: Seline) -> None:
    task = asyncio.ensure_future(seline.data.save_json(PROFILE, {"n": 1}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await seline.data.save_json("after.json", {})
    assert await seline.data.load_json(PROFILE) == {"n": 1}


async def test_a_delete_can_be_undone(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, {"n": 1})
    deleted = await seline.data.delete(PROFILE)
    with pytest.raises(DocumentNotFound):
        await seline.data.delete(PROFILE)
    assert deleted.backup is not None
    assert await seline.data.restore_from_backup(PROFILE) is True
    assert await seline.data.load_json(PROFILE) == {"n": 1}


async def test_a_purge_erases_a_document_with_its_backups_and_pins(
    seline: Seline, tmp_path: Path
) -> None:
    await seline.data.save_json(PROFILE, {"secret": "words"})
    await seline.data.save_json(PROFILE, {"secret": "more"})
    [backup] = await seline.data.backups(PROFILE)
    await seline.data.pin(PROFILE, backup.name)
    await seline.data.delete(PROFILE, purge=True)
    remaining = [
        path
        for path in (tmp_path / "data").rglob("*")
        if path.is_file() and b"words" in path.read_bytes()
    ]
    assert remaining == []
    assert await seline.data.restore_from_backup(PROFILE) is False


async def test_a_restore_uses_the_newest_different_backup_and_can_be_undone(seline: Seline) -> None:
    for number in range(3):
        await seline.data.save_json(PROFILE, {"n": number})
    restored = await seline.data.restore(PROFILE)
    assert await seline.data.load_json(PROFILE) == {"n": 1}
    assert restored.undo is not None
    await seline.data.restore(PROFILE, restored.undo)
    assert await seline.data.load_json(PROFILE) == {"n": 2}


async def test_a_restore_without_a_matching_backup_fails(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, {"n": 1})
    assert await seline.data.restore_from_backup(PROFILE) is False
    with pytest.raises(BackupNotFound):
        await seline.data.restore(PROFILE, "user_profile_20200101_000000.json")
    with pytest.raises(BackupNotFound):
        await seline.data.restore(PROFILE, "../../etc/passwd")


@pytest.mark.parametrize("name", [None, 5, b"x", "", "a.json"])
async def test_an_invalid_backup_name_is_not_found(seline: Seline, name: str) -> None:
    await seline.data.save_json(PROFILE, {"n": 1})
    for attempt in (seline.data.read_backup(PROFILE, name), seline.data.pin(PROFILE, name)):
        with pytest.raises(BackupNotFound):
            await attempt
    with pytest.raises(DocumentNotFound):
        await seline.read_quarantine(name)


async def test_rotation_keeps_a_pinned_backup_until_it_is_unpinned(seline: Seline) -> None:
    for number in range(2):
        await seline.data.save_json(PROFILE, {"n": number})
    [first] = await seline.data.backups(PROFILE)
    await seline.data.pin(PROFILE, first.name, because="before the move")
    for number in range(2, 12):
        await seline.data.save_json(PROFILE, {"n": number})
    backups = await seline.data.backups(PROFILE)
    assert len(backups) == 6
    assert (backups[-1].name, backups[-1].pinned) == (first.name, True)
    assert "before the move" in backups[-1].because
    await seline.data.unpin(PROFILE, first.name)
    await seline.data.save_json(PROFILE, {"n": 99})
    assert first.name not in {backup.name for backup in await seline.data.backups(PROFILE)}


async def test_values_zeroed_in_a_busy_bot_are_in_a_backup_the_next_days(tmp_path: Path) -> None:
    """The shape is kept, so no blank save is detected; the bot saves on for three days."""
    clock = FakeClock()
    data = DataManager(open_managed(tmp_path, clock))
    good = {f"user_{number}": {"coins": number + 1, "level": 7} for number in range(20)}
    await data.save_json("economy.json", {**good, "turn": -1})
    for turn in range(72):
        values = good if turn < 10 else {name: {"coins": 0, "level": 0} for name in good}
        await data.save_json("economy.json", {**values, "turn": turn})
        clock.advance(3600)

    backups = await data.backups("economy.json")
    kept = [await data.read_backup("economy.json", backup.name) for backup in backups]
    assert [value["turn"] for value in kept if value["user_0"] == good["user_0"]] == [8]  # type: ignore[index,call-overload]
    assert backups[-1].because == "daily"
    await data.store.close()


async def test_repeated_blank_saves_keep_the_content_before_them(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, LONG)
    for number in range(8):
        await seline.data.save_json(PROFILE, {"blank": None, "n": number})
    pinned = [backup for backup in await seline.data.backups(PROFILE) if backup.pinned]
    assert len(pinned) == 1
    assert await seline.data.read_backup(PROFILE, pinned[0].name) == LONG
    health = await seline.health()
    assert "blank_save" in json.dumps(health["checks"])


async def test_a_blank_save_without_backup_still_pins_the_content_before_it(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, LONG)
    await seline.data.save_json(PROFILE, {}, backup=False)
    assert [backup.pinned for backup in await seline.data.backups(PROFILE)] == [True]


@pytest.mark.parametrize("method", ["field", "update", "edit", "transaction"])
async def test_every_method_that_blanks_a_document_pins_the_content_before_it(
    seline: Seline, method: str
) -> None:
    data, before = seline.data, {"profile": LONG, "v": 1}
    await data.save_json(PROFILE, before)

    if method == "field":
        await data.update_field(PROFILE, "profile", {}, backup=False)
    elif method == "update":
        await data.update_json(PROFILE, lambda _: {})
    elif method == "edit":
        async with data.edit(PROFILE, backup=False) as profile:
            profile.clear()
    else:
        async with data.transaction(PROFILE, backup=False) as change:
            change[PROFILE] = {}

    [backup] = await data.backups(PROFILE)
    assert backup.pinned
    assert await data.read_backup(PROFILE, backup.name) == before


async def _edited(data: DataManager, path: Path) -> None:
    path.write_text("{}")
    await _read_twice(data)


async def _edited_then_saved(data: DataManager, path: Path) -> None:
    path.write_text("{}")
    await data.update_field(PROFILE, "n", 1)


async def _edited_then_refused(data: DataManager, path: Path) -> None:
    """The save is refused, because its caller does not know the edit; the edit is adopted."""
    revision = (await data.read(PROFILE)).revision
    path.write_text("{}")
    await data.load_json(PROFILE)
    with pytest.raises(RevisionMismatch):
        await data.save_json(PROFILE, {"n": 1}, if_match=revision)


async def _edited_then_torn(data: DataManager, path: Path) -> None:
    """The recovery goes back to the edit that was served, not to the content before it."""
    path.write_text("{}")
    await data.load_json(PROFILE)
    path.write_text("{")
    await _read_twice(data)


async def _imported(data: DataManager, _: Path) -> None:
    await data.import_data({"exported_at": "2025-01-06T14:30:22", "files": {PROFILE: {}}})


async def _restored(data: DataManager, _: Path) -> None:
    assert await data.restore_from_backup(PROFILE)


async def _read_twice(data: DataManager) -> None:
    """Read, and read again when the edit counts as settled."""
    for _ in range(2):
        await data.load_json(PROFILE)


@pytest.mark.one_in(3)
@pytest.mark.usefixtures("files_at_once")
@pytest.mark.parametrize("memory", ["warm", "cold"])
@pytest.mark.parametrize(
    "door",
    [_edited, _edited_then_saved, _edited_then_refused, _edited_then_torn, _imported, _restored],
    ids=lambda door: door.__name__.strip("_"),
)
async def test_every_way_of_replacing_a_document_pins_what_was_most_of_it(
    tmp_path: Path, door: Callable[[DataManager, Path], Awaitable[None]], memory: str
) -> None:
    """Cold: Seline has not read the document since its start, and its newest backup counts."""
    data = DataManager(open_managed(tmp_path, FakeClock(), storage__settle_s=0.0))
    for value in ({"n": 0}, LONG, {**LONG, "n": 1}):
        await data.save_json(PROFILE, value)
    if door is _restored:
        first = (await data.backups(PROFILE))[-1].name
        await data.pin(PROFILE, first, because="the first one")
        for backup in (await data.backups(PROFILE))[:-1]:
            (tmp_path / "backups" / backup.name).unlink()
    if memory == "cold":
        await data.store.close()
        data = DataManager(open_managed(tmp_path, FakeClock(), storage__settle_s=0.0))

    await door(data, tmp_path / PROFILE)
    for number in range(8):
        await data.save_json(PROFILE, {"n": number})

    pinned = [b for b in await data.backups(PROFILE) if "before a blank save" in b.because]
    kept = [await data.read_backup(PROFILE, backup.name) for backup in pinned]
    lost_by_hand = memory == "cold" and door not in (_imported, _restored, _edited_then_refused)
    assert kept == [LONG if lost_by_hand else {**LONG, "n": 1}]
    assert "blank_save" in {str(incident.kind) for incident in data.store.incidents()}
    await data.store.close()


async def test_a_document_named_in_the_settings_may_shrink_in_every_way(tmp_path: Path) -> None:
    data = DataManager(
        open_managed(
            tmp_path, FakeClock(), storage__settle_s=0.0, backups__blank_guard_except=[PROFILE]
        )
    )
    for door in (_edited, _imported):
        await data.save_json(PROFILE, LONG)
        await door(data, tmp_path / PROFILE)
    assert data.store.pins.pins() == ()
    await data.store.close()


async def test_shrink_and_lesson_deletion_pin_nothing(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, {"profile": LONG})
    await seline.data.update_field(PROFILE, "profile", {}, shrink=True)
    await seline.data.save_json(PROFILE, {"profile": LONG})
    await seline.data.update_json(PROFILE, lambda _: {}, shrink=True)
    await seline.lessons.add_lesson("a", "b", "c" * 600)
    await seline.lessons.delete_lesson(0)
    assert seline.store.pins.pins() == ()


async def test_a_second_blank_save_of_a_day_keeps_an_unpinned_backup(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, LONG)
    await seline.data.save_json(PROFILE, {})
    await seline.data.save_json(PROFILE, {**LONG, "again": True}, backup=False)
    await seline.data.save_json(PROFILE, {}, backup=False)

    newest, *_ = backups = await seline.data.backups(PROFILE)
    assert await seline.data.read_backup(PROFILE, newest.name) == {**LONG, "again": True}
    assert sum(backup.pinned for backup in backups) == 1


async def test_each_of_forty_blanked_documents_has_its_pin(seline: Seline) -> None:
    names = [f"user_{number:02}.json" for number in range(40)]
    for name in names:
        await seline.data.save_json(name, LONG)
    for name in names:
        await seline.data.save_json(name, {})

    for number in range(8):
        for name in (names[0], names[-1]):
            await seline.data.save_json(name, {"n": number})
    assert [pin.document for pin in seline.store.pins.pins()] == names
    for name in (names[0], names[-1]):
        *_, oldest = await seline.data.backups(name)
        assert await seline.data.read_backup(name, oldest.name) == LONG


async def test_an_import_that_blanks_many_documents_writes_their_pins_once(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"user_{number:02}.json" for number in range(40)]
    export = {"exported_at": "2025-01-06T14:30:22", "files": dict.fromkeys(names, LONG)}
    await seline.data.import_data(export)
    emptied = {**export, "files": {**{name: {} for name in names}, names[7]: LONG}}
    added: list[int] = []

    def count(pins: Iterable[Pin], new: Iterable[Pin], *, ended_by: datetime) -> tuple[Pin, ...]:
        added.append(len(pins := with_blank_pins(pins, new, ended_by=ended_by)))
        return pins

    monkeypatch.setattr("seline.domain.pins.with_blank_pins", count)
    await seline.data.import_data(emptied, dry_run=True)
    assert (added, seline.store.pins.pins()) == ([], ())
    await seline.data.import_data(emptied)

    assert added == [39]
    pinned = {pin.document for pin in seline.store.pins.pins()}
    assert pinned == {*names} - {names[7]}
    assert len(seline.store.incidents()) == 39
    *_, backup = await seline.data.backups(names[0])
    assert backup.pinned
    assert await seline.data.read_backup(names[0], backup.name) == LONG


async def test_an_import_with_unreadable_pins_is_stored_and_reported(
    seline: Seline, tmp_path: Path
) -> None:
    export = {"exported_at": "2025-01-06T14:30:22", "files": {PROFILE: LONG}}
    await seline.data.import_data(export)
    (tmp_path / "data" / ".seline" / "pins.json").mkdir()

    await seline.data.import_data({**export, "files": {PROFILE: {}}})

    assert await seline.data.load_json(PROFILE) == {}
    kinds = {incident.kind for incident in seline.store.incidents()}
    assert "blank_save_unpinned" in kinds


async def test_a_blank_save_with_unreadable_pins_is_stored_and_reported(
    seline: Seline, tmp_path: Path
) -> None:
    data, path = seline.data, tmp_path / "data" / ".seline" / "pins.json"
    await data.save_json(PROFILE, LONG)
    path.mkdir()

    await data.save_json(PROFILE, {}, backup=False)

    assert await data.load_json(PROFILE) == {}
    for number in range(8):
        await data.save_json(PROFILE, {"n": number})
    oldest = (await data.backups(PROFILE))[-1]
    assert await data.read_backup(PROFILE, oldest.name) == LONG
    details = {check["name"]: check["detail"] for check in (await seline.health())["checks"]}  # type: ignore[union-attr,index,call-overload]
    assert "is its newest backup" in details["blank_save_unpinned"]  # type: ignore[operator]
    assert "no backup is rotated" in details["pins"]  # type: ignore[operator]


async def test_a_blank_save_resets_pins_of_another_shape_and_pins_its_content(
    seline: Seline, tmp_path: Path
) -> None:
    data, path = seline.data, tmp_path / "data" / ".seline" / "pins.json"
    await data.save_json(PROFILE, {"first": 1})
    await data.save_json(PROFILE, LONG)
    path.write_text("[]")

    await data.save_json(PROFILE, {}, backup=False)

    for number in range(8):
        await data.save_json(PROFILE, {"n": number})
    pinned = [backup for backup in await data.backups(PROFILE) if backup.pinned]
    values = [await data.read_backup(PROFILE, backup.name) for backup in pinned]
    assert values == [LONG, {"first": 1}]
    details = {check["name"]: check["detail"] for check in (await seline.health())["checks"]}  # type: ignore[union-attr,index,call-overload]
    assert "1 older backup stay pinned" in details["pins"]  # type: ignore[operator]
    assert "pins.json" in details["state_reset"]  # type: ignore[operator]


async def test_a_blank_save_in_a_batch_still_pins_the_content_before_it(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, {"start": 1})
    await asyncio.gather(
        seline.data.save_json(PROFILE, LONG), seline.data.save_json(PROFILE, {"n": None})
    )
    pinned = [backup for backup in await seline.data.backups(PROFILE) if backup.pinned]
    assert await seline.data.read_backup(PROFILE, pinned[0].name) == LONG


async def test_a_profile_field_has_its_default_only_if_it_is_not_set(seline: Seline) -> None:
    await seline.profile.save({"userName": "Alex", "birthDate": None})

    assert await seline.profile.get_field("userName") == "Alex"
    assert await seline.profile.get_field("birthDate", "unknown") is None
    assert await seline.profile.get_field("location", "Paris") == "Paris"


@pytest.mark.parametrize("value", [[], "text", 1, None])
async def test_a_profile_that_is_not_an_object_is_refused(seline: Seline, value: object) -> None:
    await seline.data.save_json(PROFILE, value)

    with pytest.raises(NotAnObject):
        await seline.profile.load()
    with pytest.raises(NotAnObject):
        await seline.profile.get_field("userName")


async def test_shrink_clear_and_restore_pin_nothing(seline: Seline) -> None:
    await seline.profile.save(dict(LONG))
    await seline.profile.clear()
    await seline.data.restore(PROFILE)
    await seline.data.save_json(PROFILE, {}, shrink=True)
    assert not any(backup.pinned for backup in await seline.data.backups(PROFILE))


async def test_one_document_comes_back_from_an_export_and_the_others_stay(seline: Seline) -> None:
    names = ("a.json", "b.json")
    for name in names:
        await seline.data.save_json(name, {"n": 1})
    export = await seline.data.export_all_data()
    for name in names:
        await seline.data.save_json(name, {"n": 2})

    preview = await seline.data.import_data(export, only=["a.json"], dry_run=True)
    report = await seline.data.import_data(export, only=["a.json"])

    assert preview.changed == report.changed == ("a.json",)
    assert [await seline.data.load_json(name) for name in names] == [{"n": 1}, {"n": 2}]
    for refused in ({"only": ["c.json"]}, {"only": ["a.json"], "mode": "replace"}):
        with pytest.raises(ImportRefused):
            await seline.data.import_data(export, **refused)  # type: ignore[arg-type]
    assert [await seline.data.load_json(name) for name in names] == [{"n": 1}, {"n": 2}]


async def test_an_export_can_be_imported_completely(seline: Seline, tmp_path: Path) -> None:
    await seline.data.save_json("a.json", {"n": 1})
    await seline.data.save_json("b.json", [1, 2])
    export = await seline.data.export_all_data()
    async with open_seline(tmp_path / "second") as second:
        await second.data.save_json("c.json", {"own": True})
        report = await second.data.import_data({"success": True, "data": export})
        assert report.created == ("a.json", "b.json")
        assert len(await second.data.documents()) == 3
        report = await second.data.import_data(export, mode="replace")
        assert (report.unchanged, report.deleted) == (("a.json", "b.json"), ("c.json",))
        reexported = await second.data.export_all_data()
    assert reexported["files"] == export["files"]


async def test_a_replacing_import_deletes_a_document_saved_while_it_waited(seline: Seline) -> None:
    data = seline.data
    await data.save_json("a.json", {"n": 1})
    entered, finish = asyncio.Event(), asyncio.Event()

    async def edit() -> None:
        async with data.edit("a.json"):
            entered.set()
            await finish.wait()

    editing = asyncio.ensure_future(_in_fresh_context(edit()))
    await entered.wait()
    importing = asyncio.ensure_future(
        _in_fresh_context(data.import_data({"files": {"a.json": {"n": 2}}}, mode="replace"))
    )
    await asyncio.sleep(0.05)  # the import has listed the documents and waits for the edit
    await data.save_json("late.json", {"n": 3})
    finish.set()
    await editing
    report = await importing

    assert report.deleted == ("late.json",)  # type: ignore[attr-defined]
    assert [info.name for info in await data.documents()] == ["a.json"]
    assert len(await data.backups("late.json")) == 1


async def test_an_import_that_keeps_finding_new_documents_gives_up_and_changes_nothing(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, hold = seline.data, seline.store.locks.lock

    async def hold_after_a_new_document(name: str) -> object:
        await data.save_json(f"another_{uuid.uuid4().hex}.json", {})
        return await hold(name)

    await data.save_json("a.json", {"n": 1})
    monkeypatch.setattr(seline.store.locks, "lock", hold_after_a_new_document)
    monkeypatch.setattr(transfer, "IMPORT_TRIES", 4)  # each has twice the documents

    with pytest.raises(DocumentBusy):
        await data.import_data({"files": {"a.json": {"n": 2}}}, mode="replace")

    assert await data.load_json("a.json") == {"n": 1}
    assert len(await data.documents()) > 1


async def test_an_import_dry_run_changes_nothing(seline: Seline) -> None:
    await seline.data.save_json("a.json", {"n": 1})
    report = await seline.data.import_data(
        {"files": {"a.json": {"n": 2}, "b.json": {}}}, mode="replace", dry_run=True
    )
    assert (report.changed, report.created, report.dry_run) == (("a.json",), ("b.json",), True)
    assert [info.name for info in await seline.data.documents()] == ["a.json"]
    assert await seline.data.load_json("a.json") == {"n": 1}


@pytest.mark.parametrize(
    "export",
    [
        None, [], {}, {"files": []}, {"data": 3}, {"files": {"../x.json": {}}},
        {"files": {"a.json": {}, "bad name.json": {}}}, {"files": {}, "extra": 1},
        {"success": True, "data": {"files": {}}, "more": 1},
    ],
)  # fmt: skip
async def test_an_invalid_import_is_refused_and_changes_nothing(
    seline: Seline, export: object
) -> None:
    with pytest.raises(ImportRefused):
        await seline.data.import_data(export)
    assert await seline.data.documents() == []


async def test_an_unknown_import_mode_is_refused(seline: Seline) -> None:
    with pytest.raises(ImportRefused):
        await seline.data.import_data({"files": {}}, mode="overwrite")


async def test_a_prune_dry_run_lists_what_prune_then_deletes(
    seline: Seline, tmp_path: Path
) -> None:
    for number in range(6):
        await seline.data.save_json(PROFILE, {"n": number})
    path = tmp_path / "data"
    await seline.close()
    async with open_seline(path, backups__keep_newest=2) as reopened:
        planned = await reopened.prune(dry_run=True)
        assert len(planned) == 3
        assert len(await reopened.data.backups(PROFILE)) == 5
        assert await reopened.prune() == planned
        assert len(await reopened.data.backups(PROFILE)) == 2


async def test_calls_after_close_raise_store_closed(seline: Seline) -> None:
    await seline.close()
    await seline.close()
    for attempt in (seline.data.load_json(PROFILE), seline.data.save_json(PROFILE, {})):
        with pytest.raises(StoreClosed):
            await attempt


async def test_a_change_during_close_raises_store_closed_without_waiting(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, {"n": 1})
    closing = asyncio.Event()

    async def change_during_close() -> None:
        await closing.wait()
        for change in (
            seline.data.update_field(PROFILE, "n", 2),
            seline.data.save_json(PROFILE, {"n": 2}),
            seline.data.restore(PROFILE),
        ):
            with pytest.raises(StoreClosed):
                await asyncio.wait_for(change, 5)

    changing = asyncio.ensure_future(change_during_close())
    with contextlib.suppress(StoreClosed):  # the edit's own save may still succeed
        async with seline.data.edit(PROFILE):
            ended = seline.begin_to_close()
            closing.set()
            await changing
    assert await asyncio.to_thread(ended.result, 10) is None


def test_loads_and_saves_work_during_interpreter_shutdown(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", AT_EXIT, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (process.stdout, process.stderr) == ("{'n': 2} 1\n", "")


async def test_a_saved_document_is_there_after_reopening(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as first:
        revision = await first.data.save_json(PROFILE, {"n": 1})
    async with open_seline(tmp_path) as second:
        assert (await second.data.read(PROFILE)).revision == revision
        health = await second.health()
    metadata = health["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["schema_version"] == "1.0.0"
    assert metadata["total_writes"] == 1
    assert health["status"] in ("healthy", "warning")


@pytest.mark.parametrize("file", ["metadata.json", ".seline/pins.json"])
@pytest.mark.parametrize(
    "text",
    [
        '{"created_at": "0001-01-01T00:00:00+05:00", "last_backup": "0001-01-01T00:00:00+05:00"}',
        '{"created_at": 5, "last_updated": [], "total_writes": "many"}',
        '{"pins": [{"document": "a", "revision": "x", "pinned_at": "9999-12-31T23:59:59-05:00"}]}',
        "[]",
        "null",
    ],
)
async def test_the_store_opens_with_any_content_in_its_own_files(
    tmp_path: Path, file: str, text: str
) -> None:
    async with open_seline(tmp_path) as first:
        await first.data.save_json(PROFILE, {"n": 1})
    (tmp_path / file).write_text(text)

    async with open_seline(tmp_path) as second:
        assert await second.data.load_json(PROFILE) == {"n": 1}
        assert await second.data.save_json(PROFILE, {"n": 2})


async def test_a_failed_open_releases_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Pins, "load", fail)
        with pytest.raises(MemoryError):
            await open_seline(tmp_path)

    async with open_seline(tmp_path, lock_wait_s=0) as seline:
        assert await seline.data.load_json(PROFILE) == {}


async def test_health_warns_when_the_volume_will_be_full_within_two_weeks(seline: Seline) -> None:
    for days, warns in ((13.9, True), (14.0, False)):
        report = await seline.usage.measure()
        forecast = Forecast(days=days, earliest=1.0, latest=None, bytes_per_day=1)
        seline.usage.measured = replace(report, forecast=forecast)
        [usage] = [check for check in (await seline.health())["checks"] if check["name"] == "usage"]  # type: ignore[union-attr,index,call-overload]
        assert (usage["status"] == "warning") == warns  # type: ignore[index,call-overload]


async def test_health_uses_the_singular_for_one_item(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, {"n": 1})
    await seline.data.save_json(PROFILE, {"n": 2})
    [backup] = await seline.data.backups(PROFILE)
    await seline.data.pin(PROFILE, backup.name)
    await seline.verify()
    details = " ".join(str(check["detail"]) for check in (await seline.health())["checks"])  # type: ignore[union-attr,index,call-overload]
    assert "1 document and 1 backup verified" in details
    assert "1 content pinned" in details


async def test_storage_info_has_the_documented_shape(seline: Seline) -> None:
    await seline.data.save_json(PROFILE, {"n": 1})
    await seline.data.save_json(PROFILE, {"n": 2})
    info = await seline.storage_info()
    assert set(info) == {"mount_path", "data_files", "backups", "summary"}
    [file] = info["data_files"]  # type: ignore[misc]
    assert file["name"] == PROFILE  # type: ignore[index,call-overload]
    assert file["sha256"] == (await seline.data.read(PROFILE)).revision  # type: ignore[index,call-overload]
    assert json.loads(json.dumps(info)) == info
    summary = info["summary"]
    assert isinstance(summary, dict)
    assert summary["volume_limit_mb"] == 500


async def test_a_repeated_lesson_raises_its_occurrences(seline: Seline) -> None:
    await seline.lessons.add_lesson("messaging", "Messages trop longs", "Limiter")
    repeated = await seline.lessons.add_lesson("Messaging", "MESSAGES TROP LONGS", "Couper")
    assert repeated["occurrences"] == 2
    await seline.lessons.add_lesson("other", "p", "s")
    assert [lesson["category"] for lesson in await seline.lessons.get_lessons()] == [
        "messaging",
        "other",
    ]
    assert "Messages trop longs" in await seline.lessons.format_lessons_for_prompt()
    assert await seline.lessons.delete_lesson(0) is True
    assert await seline.lessons.delete_lesson(7) is False
    document = await seline.data.load_json("lessons_learned.json")
    assert isinstance(document, dict)
    assert document["total_lessons"] == 1


async def test_lessons_stored_as_a_bare_list_load(seline: Seline) -> None:
    await seline.data.save_json("lessons_learned.json", [{"category": "a", "problem": "b"}])
    assert len(await seline.lessons.get_lessons()) == 1
    await seline.lessons.add_lesson("a", "b", "c")
    assert (await seline.lessons.get_lessons())[0]["occurrences"] == 2


async def test_an_empty_store_uses_little_space_beside_its_journal(seline: Seline) -> None:
    health, journal_bytes = await seline.health(), 2 * int(os.environ[JOURNAL_BYTES])
    assert isinstance(health["total_size_mb"], float)
    assert health["total_size_mb"] - journal_bytes / 2**20 < 0.2


async def test_an_unrecoverable_document_stays_in_health_across_restarts_until_it_is_reset(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data"
    async with open_seline(path) as seline:
        await seline.data.save_json(PROFILE, {"n": 1})
    (path / PROFILE).write_bytes(b'{"n": 1')
    os.utime(path / PROFILE, (0, 0))
    async with open_seline(path) as seline:
        report = await seline.verify()
        assert [finding.outcome for finding in report.findings] == ["unrecoverable"]

    async with open_seline(path) as seline:
        health = await seline.health()
        assert health["status"] == "critical"
        [documents] = [check for check in health["checks"] if check["name"] == "documents"]
        assert documents["detail"] == f"cannot be served: {PROFILE}"

        await seline.data.reset(PROFILE)
        assert (await seline.health())["status"] != "critical"
        await seline.verify()

    async with open_seline(path) as seline:
        assert seline.verifier.unserved == frozenset()


async def test_health_names_a_document_that_a_read_could_not_recover(tmp_path: Path) -> None:
    path = tmp_path / "data"
    async with open_seline(path) as seline:
        await seline.data.save_json(PROFILE, {"n": 1})
    (path / PROFILE).write_bytes(b'{"n": 1')
    os.utime(path / PROFILE, (0, 0))
    async with open_seline(path, storage__settle_s=0) as seline:
        with pytest.raises(DocumentUnrecoverable):
            await seline.data.load_json(PROFILE)

        [documents] = [
            check for check in (await seline.health())["checks"] if check["name"] == "documents"
        ]
        assert documents["status"] == "critical"


@pytest.mark.parametrize("path", ["file", "file/below"])
async def test_a_data_directory_that_is_a_file_is_refused_with_a_hint(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / "file").write_text("not a directory")

    with pytest.raises(VolumeFailed, match="Not a directory") as raised:
        async with open_seline(tmp_path / path):
            pass

    assert "SELINE_DATA_DIR" in raised.value.hint
    assert (tmp_path / "file").read_text() == "not a directory"


@pytest.mark.usefixtures("files_at_once")
async def test_verify_counts_a_document_once_when_it_reads_it_twice(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__settle_s=0.05) as seline:
        await seline.data.save_json(PROFILE, {"n": 1})
        (tmp_path / PROFILE).write_bytes(b'{"n": 22}\n')
        report = await seline.verify()

    assert (report.documents, report.backups, report.bytes_read) == (1, 1, 10 + 13)
    assert [finding.outcome for finding in report.findings] == ["adopted"]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_an_open_seline_refuses_to_be_copied_or_pickled(
    seline: Seline, copied: Callable[[object], object]
) -> None:
    for held in (seline, blocking.Seline(seline)):
        with pytest.raises(TypeError, match=r"cannot be pickled or copied.*get_seline"):
            copied(held)
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        pickle.dumps({"data": seline.data})


async def test_no_garbage_collection_stops_the_threads_while_a_large_save_is_compared(
    tmp_path: Path,
) -> None:
    value = {"kept": [[number] for number in range(20_000)]}
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json("large.json", value)
        with counted_collections() as collections:
            await seline.data.save_json("large.json", value | {"more": [1]})

    assert len(collections) <= 4
