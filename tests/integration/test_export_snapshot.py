"""Test the snapshot of an export: later saves are not in it, and no file stays open."""

import asyncio
import errno
import itertools
import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from seline import open_seline
from seline.domain.document import BOT, bot_document
from seline.domain.json_codec import encode
from seline.manager import changes
from seline.manager.transfer import export_of
from seline.pacing import FILES
from seline.ports.futures import wait_for
from seline.ports.store import Atom, Change, Remove
from seline.storage.volume import files
from seline.storage.volume.snapshots import WHOLE_BYTES_MAX, VolumeSnapshot
from seline.storage.volume.store import VolumeStore
from tests.contract.saving import save

NAME = "a.json"


async def test_an_export_excludes_a_save_made_while_its_snapshot_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, {"of": "the instant"})
        loop = asyncio.get_running_loop()

        def places_then_save(self: VolumeSnapshot, name: str) -> Any:
            places = real(self, name)
            monkeypatch.setattr(VolumeSnapshot, "_places", real)
            saving = seline.data.save_json(NAME, {"of": "later"})
            asyncio.run_coroutine_threadsafe(saving, loop).result(10)
            return places

        real = VolumeSnapshot._places
        monkeypatch.setattr(VolumeSnapshot, "_places", places_then_save)

        async with seline.data.exported() as snapshot:
            exported = await asyncio.to_thread(lambda: b"".join(snapshot.open(NAME)))

        assert b"the instant" in exported
        assert await seline.data.load_json(NAME) == {"of": "later"}


@pytest.mark.usefixtures("files_at_once")
async def test_an_export_has_its_instant_though_a_commit_is_about_to_replace_a_hand_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, {"of": "the instant"})
        store = await seline.store.open()
        assert isinstance(store, VolumeStore)

        def places_then_link(self: VolumeSnapshot, name: str) -> Any:
            places = real(self, name)
            store.snapshots.before_replacing(bot_document(NAME))
            return places

        real = VolumeSnapshot._places
        monkeypatch.setattr(VolumeSnapshot, "_places", places_then_link)

        async with seline.data.exported() as snapshot:
            await asyncio.to_thread((tmp_path / NAME).write_text, '{"of": "an edit"}')
            exported = await asyncio.to_thread(lambda: b"".join(snapshot.open(NAME)))

        assert b"the instant" in exported


FORMS = {"by a journal": {}, "in the first form": {"storage__journal_bytes": 0}}
MANY = [f"d{number:03}.json" for number in range(3 * FILES)]
FIRST, SECOND, LAST = (bot_document(name) for name in (MANY[0], MANY[1], MANY[-1]))


@asynccontextmanager
async def opened_with_many(directory: Path, **settings: Any) -> AsyncGenerator[VolumeStore]:
    """Open a store with documents that a snapshot looks at in several steps."""
    async with open_seline(directory, **settings) as seline:
        await asyncio.gather(*[seline.data.save_json(name, "before") for name in MANY])
        store = await seline.store.open()
        assert isinstance(store, VolumeStore)
        store.medium.settle()
        yield store


@asynccontextmanager
async def taken_during(
    store: VolumeStore, act: Callable[[], object]
) -> AsyncGenerator[VolumeSnapshot]:
    """Take a snapshot whose first step runs before `act`, and whose last runs after it."""
    resume = threading.Event()
    store.writer.between(resume.wait)
    taking = store.snapshot(BOT)
    acting = store.writer.between(act)
    resume.set()
    with await wait_for(taking) as snapshot:
        assert acting.done()
        acting.result()
        assert isinstance(snapshot, VolumeSnapshot)
        yield snapshot


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_changes_run_while_the_snapshot_of_many_documents_is_taken_and_are_in_it(
    tmp_path: Path, form: dict[str, Any]
) -> None:
    async with opened_with_many(tmp_path, **form) as store:
        saved = [save(key, "after") for key in (FIRST, LAST, bot_document("new.json"))]
        atom = Atom((*saved, Change(SECOND, changes.delete())))

        async with taken_during(store, lambda: store.submit(atom)) as snapshot:
            assert snapshot.names == sorted({*MANY, "new.json"} - {SECOND.name})
            after = [name for name in snapshot.names if b"after" in snapshot.read(name).data]
            assert after == [FIRST.name, LAST.name, "new.json"]
            assert not snapshot.broken


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_a_snapshot_has_both_documents_of_a_transaction_or_neither(
    tmp_path: Path, form: dict[str, Any]
) -> None:
    """While one transaction follows another: some commit during its steps."""
    async with opened_with_many(tmp_path, storage__publish_within_ms=1, **form) as store:
        numbers, ended = itertools.count(), threading.Event()

        def go_on(_: object = None) -> None:
            if not ended.is_set():
                number = next(numbers)
                both = Atom((save(FIRST, number), save(LAST, number)))
                store.submit(both).add_done_callback(go_on)

        go_on()
        during = 0
        for _ in range(20):
            begun = next(numbers)
            with await wait_for(store.snapshot(BOT)) as snapshot:
                during += next(numbers) - begun - 1
                contents = {snapshot.read(key.name).revision for key in (FIRST, LAST)}
                assert len(contents) == 1
                assert not snapshot.broken
        ended.set()
        assert during > 20


async def test_a_purge_while_a_snapshot_is_taken_leaves_nothing_in_it(tmp_path: Path) -> None:
    async with opened_with_many(tmp_path) as store:
        purge = Atom((Change(FIRST, lambda _: Remove(purge=True)),))
        again = Atom((save(FIRST, "another one"),))

        def purge_and_save() -> None:
            store.submit(purge)
            store.submit(again)

        async with taken_during(store, purge_and_save) as snapshot:
            assert b"another one" in snapshot.read(FIRST.name).data
            assert not snapshot.broken


async def test_a_reopening_while_a_snapshot_is_taken_leaves_what_it_wrote_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync the documents of the journal are written again: as other files."""
    async with opened_with_many(tmp_path) as store:
        await wait_for(store.submit(Atom((save(FIRST, "in the journal"),))))
        store.medium.settle()
        inode = (tmp_path / FIRST.name).stat().st_ino

        def fail_once(_: int) -> None:
            monkeypatch.undo()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def fail_and_save() -> None:
            monkeypatch.setattr(files, "sync_data", fail_once)
            failing = store.submit(Atom((save(SECOND, "in doubt"),)))
            failing.add_done_callback(lambda _: store.submit(Atom((save(LAST, "after"),))))

        async with taken_during(store, fail_and_save) as snapshot:
            assert inode != (tmp_path / FIRST.name).stat().st_ino
            assert snapshot.read(FIRST.name).data == encode("in the journal")
            assert not snapshot.broken


async def test_a_snapshot_looks_again_at_what_changes_all_the_time(tmp_path: Path) -> None:
    """Also if more than one step's documents change in each of its passes."""
    async with opened_with_many(tmp_path, storage__publish_within_ms=0) as store:
        ended = threading.Event()

        def go_on(_: object = None) -> None:
            if not ended.is_set():
                several = Atom(
                    tuple(save(bot_document(name), next(numbers)) for name in MANY[:150])
                )
                store.submit(several).add_done_callback(go_on)

        numbers = itertools.count()
        for _ in range(3):
            ended.clear()
            async with taken_during(store, go_on) as snapshot:
                ended.set()
                contents = [snapshot.read(name).data for name in snapshot.names]
                assert len(contents) == len(MANY)
                assert not snapshot.broken


def _edit(path: Path) -> None:
    edited = path.with_name("edited")
    edited.write_text('"by hand"')
    edited.rename(path)


def _edit_badly(path: Path) -> None:
    edited = path.with_name("edited")
    edited.write_text('"by ha')
    edited.rename(path)


@pytest.mark.parametrize("is_during", [True, False], ids=["while it is taken", "after it"])
@pytest.mark.parametrize("change", [_edit, _edit_badly, Path.unlink])
async def test_what_another_program_changes_mixes_no_later_change_into_a_snapshot(
    tmp_path: Path, change: Callable[[Path], None], *, is_during: bool
) -> None:
    """Memory has the content of the instant."""

    def now(*, is_due: bool) -> None:
        if is_due:
            change(tmp_path / FIRST.name)

    async with (
        opened_with_many(tmp_path) as store,
        taken_during(store, lambda: now(is_due=is_during)) as snapshot,
    ):
        now(is_due=not is_during)
        for content in ("later", "last"):
            await wait_for(store.submit(Atom((save(FIRST, content), save(LAST, content)))))
            if FIRST.name in snapshot.names:
                assert snapshot.read(FIRST.name).data == encode("before")
            assert snapshot.read(LAST.name).data == encode("before")
        assert (FIRST.name in snapshot.names) is not (is_during and change is Path.unlink)
        assert not snapshot.broken


async def test_a_snapshot_has_a_hand_edit_if_memory_has_nothing_older(tmp_path: Path) -> None:
    def edit() -> None:
        store.current_documents.inspector.cache.clear()
        _edit(tmp_path / FIRST.name)

    async with opened_with_many(tmp_path) as store, taken_during(store, edit) as snapshot:
        for content in ("later", "last"):
            await wait_for(store.submit(Atom((save(FIRST, content), save(LAST, content)))))
            assert snapshot.read(FIRST.name).data == b'"by hand"'
            assert snapshot.read(LAST.name).data == encode("before")


async def test_a_purge_leaves_no_bytes_on_the_volume_while_an_export_runs(tmp_path: Path) -> None:
    """Also if the document was replaced before, and is linked for the export."""

    def there() -> list[Path]:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return [path for path in files if b"secret" in path.read_bytes()]

    async with open_seline(tmp_path) as seline:
        for name in (NAME, "b.json"):
            await seline.data.save_json(name, {"secret": name})
        await seline.data.save_json("c.json", {})
        async with seline.data.exported() as snapshot:
            await seline.data.save_json("b.json", {"secret": "newer"})
            assert len(there()) >= 3
            for name in (NAME, "b.json"):
                await seline.data.delete(name, purge=True)
            assert there() == []
            export = await export_of(snapshot, seline.store)
        assert (list(export["files"]), "unrecoverable" in export) == (["c.json"], False)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_large_document_that_is_not_read_leaves_no_file_open(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, "x" * (2 * WHOLE_BYTES_MAX))
        async with seline.data.exported() as snapshot:
            before = len(os.listdir("/proc/self/fd"))

            for _ in range(20):
                snapshot.open(NAME)

            assert len(os.listdir("/proc/self/fd")) == before
