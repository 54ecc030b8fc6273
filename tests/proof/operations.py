"""Every operation that the fault suites break: what it finds, what it does, what it may change.

`python -m tests.proof.operations NAME prepare|act DIRECTORY` does one half in a process of its own,
and says `done` once the act was acknowledged. Every volume holds the same documents before.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seline import __version__
from seline.blocking import DataManager, Seline, open_seline
from seline.domain.document import Json
from seline.outbound.folder import Folder
from seline.services.exporting import Destination, Exporting
from seline.storage.volume import commit

A, B, C, NEW, STILL = "a.json", "b.json", "c.json", "new.json", "still.json"
DONE = "done"
CRASHED = 9


def as_it_is(_directory: Path) -> None:
    """Prepare nothing more: the documents are enough."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation. `changes` are the documents it may change, all or none of them.

    `prepare` comes after the documents were saved; the volume is closed in between. `certain`:
    what it changes is decided before it begins, so whatever fails, nothing else is ever served.
    """

    name: str
    act: Callable[[Seline, Path], None]
    prepare: Callable[[Path], None] = as_it_is
    changes: frozenset[str] = frozenset()
    certain: bool = False


def documents(directory: Path) -> None:
    """Save what every operation finds: four documents, each with backups."""
    with opened(directory) as seline:
        for number in range(3):
            for name in (A, B, C, STILL):
                seline.data.save_json(name, value(name, number))


def value(name: str, number: Json) -> dict[str, Json]:
    """Return what a document holds."""
    return {"name": name, "n": number, "filler": "x" * 600}


def opened(directory: Path) -> Seline:
    """Open a volume as the operations do."""
    return open_seline(
        directory, lock_wait_s=0, storage__settle_s=0.01, storage__volume_limit_mb=200
    )


def prepare(operation: Operation, directory: Path) -> None:
    """Make the volume that an operation finds."""
    documents(directory)
    operation.prepare(directory)


def act(operation: Operation, directory: Path) -> None:
    """Open the volume, do the operation, say that it is done, close."""
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


def _flip(directory: Path) -> None:
    """Change a byte as a bad disk does: the mtime stays."""
    path = directory / A
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"xxx", b"xyx", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _crash_after_the_commit_point(directory: Path) -> None:
    """Leave the record of a transaction behind, none of its documents published."""
    subprocess.run(
        [sys.executable, "-m", "tests.proof.operations", "transaction", "crash", str(directory)],
        check=False,
        env={**os.environ, "SELINE_STRICT": ""},
        stdout=subprocess.DEVNULL,
    )
    assert list((directory / ".seline").glob("journal*")), "the crash left no record"


def _die(*_args: object, **_kwargs: object) -> None:
    os._exit(CRASHED)


def _export_folder(seline: Seline, directory: Path) -> None:
    import asyncio

    target = Folder("beside", str(directory.with_name(directory.name + "-exports")))
    exporting = Exporting(
        seline.data._awaited, [Destination(target=target, keep=2)], version=__version__
    )
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
            act=lambda seline, _: seline.data.prune() and None,
            prepare=lambda directory: _more_backups_than_are_kept(directory),
        ),
        Operation(
            name="recovery",
            act=lambda seline, _: seline.data.load_json(A) and None,
            prepare=_flip,
            changes=frozenset({A}),
            certain=True,
        ),
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


def _more_backups_than_are_kept(directory: Path) -> None:
    """Save under a policy that keeps many, so that the usual one has something to discard."""
    with open_seline(directory, lock_wait_s=0, backups__keep_newest=20) as seline:
        for number in range(8):
            seline.data.save_json(A, {"name": A, "n": 2, "filler": "x" * (600 + number)})
        seline.data.save_json(A, {"name": A, "n": 2, "filler": "x" * 600})


def main(name: str, half: str, directory: str) -> None:
    """Do one half of an operation; `crash` dies after the commit point, before publishing."""
    operation = OPERATIONS[name]
    if half == "crash":
        commit.Committer._publish = _die  # type: ignore[method-assign]
    if half == "prepare":
        prepare(operation, Path(directory))
    else:
        act(operation, Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
