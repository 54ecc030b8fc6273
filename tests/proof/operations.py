"""The operations that the fault suites run with faults: the volume before, and what they change.

`python -m tests.proof.operations NAME prepare|act DIRECTORY` runs one half in its own process, and
prints `done` once the act was acknowledged. Every volume has the same documents before.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seline import __version__
from seline.blocking import DataManager, Seline, open_seline
from seline.domain.document import BOT, Content, DocumentKey, Json
from seline.domain.json_codec import encode
from seline.operations.exports import Exporter
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Target
from seline.ports.store import AddedBackup
from seline.storage.volume import capabilities
from seline.storage.volume.commit import exchange_form
from seline.storage.volume.journal import pending

A, B, C, NEW, STILL = "a.json", "b.json", "c.json", "new.json", "still.json"
DONE = "done"
CRASHED = 9
SETTLE_S = 0.01
HELD_S = 5.0


def as_it_is(_directory: Path) -> None:
    """Prepare nothing else."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation. `changes` are the documents that it changes, all or none of them.

    `prepare` runs after the documents were saved and the volume was closed; `saved` are the values
    that it saves. `certain`: the outcome is decided before the operation begins, so after any fault
    its final values are served. `first`: there is no volume before.
    """

    name: str
    act: Callable[[Seline, Path], None]
    prepare: Callable[[Path], None] = as_it_is
    saved: Mapping[str, Json] = field(default_factory=dict[str, Json])
    changes: frozenset[str] = frozenset()
    certain: bool = False
    first: bool = False


def documents(directory: Path) -> None:
    """Save the documents that every operation finds: four, each with backups."""
    with opened(directory) as seline:
        for number in range(3):
            for name in (A, B, C, STILL):
                seline.data.save_json(name, value(name, number))


def value(name: str, number: Json) -> dict[str, Json]:
    """Return a document's value."""
    return {"name": name, "n": number, "filler": "x" * 600}


def opened(directory: Path, **settings: object) -> Seline:
    """Open a volume as the operations do."""
    return open_seline(
        directory,
        lock_wait_s=0,
        storage__settle_s=SETTLE_S,
        storage__volume_limit_mb=200,
        **settings,
    )


def prepare(operation: Operation, directory: Path) -> None:
    """Create the volume that an operation finds."""
    if operation.first:
        directory.mkdir(parents=True)
    else:
        documents(directory)
    operation.prepare(directory)


def act(operation: Operation, directory: Path) -> None:
    """Open the volume, run the operation, print DONE, close."""
    with opened(directory) as seline:
        operation.act(seline, directory)
        os.write(1, DONE.encode())


def _transaction(data: DataManager) -> None:
    with data.transaction(A, B, C) as change:
        for name in (A, B, C):
            change[name] = value(name, "new")


def _edit(data: DataManager) -> None:
    with data.edit(A) as value:
        value["n"] = "new"


def large(number: Json) -> dict[str, Json]:
    """Return a value that is larger than what changes in it, and fits into a small journal."""
    return {"n": number, "items": [{"at": at, "text": "y" * 40} for at in range(60)]}


def _make_large(directory: Path) -> None:
    with opened(directory) as seline:
        seline.data.save_json(A, large(0))


def change_large(seline: Seline, _directory: Path) -> None:
    """Edit, remove and append items of the large document, in one change."""

    def changed(value: Any) -> Any:
        items = value["items"]
        items[20]["text"] = "edited"
        return {**value, "items": [*items[:30], *items[33:], {"at": len(items), "text": "new"}]}

    seline.data.update_json(A, changed)


def change_two_parts(seline: Seline, _directory: Path) -> None:
    """Set a field and append an item of the large document, in one batch of the writer."""
    changed = in_one_batch(
        seline,
        [
            lambda: seline.data.update_field(A, "n", "of two parts"),
            lambda: seline.data.append_item(A, "/items", {"at": 60, "text": "of two parts"}),
        ],
    )
    for change in changed:
        change.result()


def in_one_batch(seline: Seline, changes: Sequence[Callable[[], object]]) -> list[Future[object]]:
    """Make changes while the writer is held, so that it takes them in one batch; return them."""
    store: Any = seline._awaited.store.opened
    writer, held, resume = store.writer, threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        resume.wait(HELD_S)

    paused = writer.between(hold)
    assert held.wait(HELD_S)
    with ThreadPoolExecutor(len(changes)) as threads:
        made: list[Future[object]] = [threads.submit(change) for change in changes]
        for _ in range(int(HELD_S / 0.001)):
            if writer.queued >= len(changes):
                break
            time.sleep(0.001)
        else:
            raise AssertionError("the changes were not queued")
        resume.set()
        paused.result()
    return made


def _delete_and_change(data: DataManager) -> None:
    with data.transaction(A, B) as change:
        del change[A]
        change[B] = value(B, "new")


def _save_beside_an_export(data: DataManager) -> None:
    with data.exported() as snapshot:
        data.save_json(A, value(A, "new"))
        old = b"".join(snapshot.open(A))
    assert json.loads(old) == value(A, 2), "an export has a later change"


def _edit_by_hand(directory: Path) -> None:
    (directory / A).write_text(json.dumps(value(A, "by hand")), encoding="utf-8")


def _adopt(data: DataManager) -> None:
    """Read until the edit has settled and the store has adopted it."""
    for _ in range(2):
        data.load_json(A)
        time.sleep(3 * SETTLE_S)
    data.load_json(A)


def _flip(directory: Path) -> None:
    """Change a byte and keep the mtime, like a disk that corrupts data."""
    path = directory / A
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"xxx", b"xyx", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _crash_after_the_commit_point(directory: Path) -> None:
    """Leave a durable transaction, in a record or a journal, with no document's file written."""
    crashed = subprocess.run(
        [sys.executable, "-m", "tests.proof.operations", "transaction", "crash", str(directory)],
        check=False,
        env={**os.environ, "SELINE_STRICT": ""},
        stdout=subprocess.DEVNULL,
    )
    assert crashed.returncode == CRASHED, "the process did not come to the commit point"


def _die(*_args: object, **_kwargs: object) -> None:
    os._exit(CRASHED)


ADDED = ("a_20240101_000000.json", "a_20240101_000000_01.json")


def _add_backups(seline: Seline) -> None:
    """Add two backups from elsewhere, the second under the name that a backup has now."""
    store = seline._awaited.store.opened
    assert store is not None
    added = [
        AddedBackup(
            key=DocumentKey(BOT, A), name=ADDED[0], content=Content.of(encode(value(A, number)))
        )
        for number in ADDED
    ]
    assert store.add_backups(added).result(20) == [True, True]


def _export_folder(seline: Seline, directory: Path) -> None:
    import asyncio

    target = Folder("beside", str(directory.with_name(directory.name + "-exports")))
    exporting = Exporter(seline._awaited.store, [Target(target, 2)], version=__version__)
    asyncio.run(exporting.run())


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation(
            name="first save",
            act=lambda seline, _: seline.data.save_json(NEW, value(NEW, "new")) and None,
            changes=frozenset({NEW}),
        ),
        Operation(
            name="save",
            act=lambda seline, _: seline.data.save_json(A, value(A, "new")) and None,
            changes=frozenset({A}),
        ),
        Operation(
            name="save without a backup",
            act=lambda seline, _: seline.data.save_json(A, value(A, "new"), backup=False) and None,
            changes=frozenset({A}),
        ),
        Operation(
            name="blank save",
            act=lambda seline, _: seline.data.save_json(A, {}) and None,
            changes=frozenset({A}),
        ),
        Operation(
            name="update",
            act=lambda seline, _: seline.data.update_field(A, "n", "new") and None,
            changes=frozenset({A}),
        ),
        Operation(name="edit", act=lambda seline, _: _edit(seline.data), changes=frozenset({A})),
        Operation(
            name="delete",
            act=lambda seline, _: seline.data.delete(A) and None,
            changes=frozenset({A}),
        ),
        Operation(
            name="purge",
            act=lambda seline, _: seline.data.delete(A, purge=True) and None,
            changes=frozenset({A}),
        ),
        Operation(
            name="transaction",
            act=lambda seline, _: _transaction(seline.data),
            changes=frozenset({A, B, C}),
        ),
        Operation(
            name="restore",
            act=lambda seline, _: seline.data.restore(A) and None,
            changes=frozenset({A}),
        ),
        Operation(
            name="import",
            act=lambda seline, _: (
                seline.data.import_data(
                    {"files": {name: value(name, "new") for name in (A, B, NEW)}}
                )
                and None
            ),
            changes=frozenset({A, B, NEW}),
        ),
        Operation(
            name="rotation",
            act=lambda seline, _: seline.prune() and None,
            prepare=lambda directory: _more_backups_than_are_kept(directory),
        ),
        Operation(
            name="recovery",
            act=lambda seline, _: seline.data.load_json(A) and None,
            prepare=_flip,
            changes=frozenset({A}),
            certain=True,
        ),
        Operation(name="adding backups", act=lambda seline, _: _add_backups(seline)),
        Operation(name="export to a folder", act=_export_folder),
        Operation(
            name="start after a crash",
            act=lambda _seline, _directory: None,
            prepare=_crash_after_the_commit_point,
            changes=frozenset({A, B, C}),
            certain=True,
        ),
    )
}


MORE = {
    operation.name: operation
    for operation in (
        Operation(
            name="first start",
            act=lambda seline, _: seline.data.save_json(NEW, value(NEW, "new")) and None,
            changes=frozenset({NEW}),
            first=True,
        ),
        Operation(
            name="change of a large document",
            act=change_large,
            prepare=_make_large,
            saved={A: large(0)},
            changes=frozenset({A}),
        ),
        Operation(
            name="transaction that deletes",
            act=lambda seline, _: _delete_and_change(seline.data),
            changes=frozenset({A, B}),
        ),
        Operation(
            name="import that replaces",
            act=lambda seline, _: (
                seline.data.import_data(
                    {"files": {A: value(A, "new"), STILL: value(STILL, 2)}}, mode="replace"
                )
                and None
            ),
            changes=frozenset({A, B, C}),
        ),
        Operation(
            name="save beside an export",
            act=lambda seline, _: _save_beside_an_export(seline.data),
            changes=frozenset({A}),
        ),
        Operation(
            name="adoption of a hand edit",
            act=lambda seline, _: _adopt(seline.data),
            prepare=_edit_by_hand,
            changes=frozenset({A}),
            certain=True,
        ),
        Operation(
            name="adoption of an emptied document",
            act=lambda seline, _: _adopt(seline.data),
            prepare=lambda directory: (directory / A).write_text("{}", encoding="utf-8") and None,
            changes=frozenset({A}),
            certain=True,
        ),
    )
}
"""Operations for the suites of single calls only."""
EVERY = OPERATIONS | MORE


def _more_backups_than_are_kept(directory: Path) -> None:
    """Save with a policy that keeps many backups, so that the default one drops some."""
    with open_seline(directory, lock_wait_s=0, backups__keep_newest=20) as seline:
        for number in range(8):
            seline.data.save_json(A, {"name": A, "n": 2, "filler": "x" * (600 + number)})
        seline.data.save_json(A, {"name": A, "n": 2, "filler": "x" * 600})


def main(name: str, half: str, directory: str) -> None:
    """Run one half of an operation; `crash` exits after the commit point, before publishing.

    The crash has room on a shared mount, too, that other tests fill.
    """
    operation = EVERY[name]
    if half == "crash":
        capabilities.mount_of = lambda _path: None
        exchange_form.ExchangeCommitter._publish = _die  # type: ignore[method-assign]
        pending.PendingDocuments.add = _die  # type: ignore[method-assign]
    if half == "prepare":
        prepare(operation, Path(directory))
    else:
        act(operation, Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
