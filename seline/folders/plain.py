"""A copy as plain files: the documents, and their backups in `backups/`, as a volume has them.

The folder is written beside its name and gets it at the end, so it is whole or does not exist.
"""

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final

from seline.domain.copy import Copy
from seline.domain.document import Content
from seline.domain.manifest import FileEntry, PackedDocument
from seline.domain.plural import counted, shortened
from seline.errors import ImportRefused, InvalidRequest
from seline.operations.restore import fetched
from seline.outbound.whole_file import sync_folder
from seline.ports.futures import Promise, run_once

_NAMES_SHOWN_MAX: Final = 20


def check_absent(folder: str) -> None:
    """Raise InvalidRequest unless the folder is new or empty."""
    if os.path.lexists(folder) and not (os.path.isdir(folder) and not os.listdir(folder)):
        raise InvalidRequest(
            f"{folder} is not empty; nothing was written.", hint="Name a new folder."
        )


def chosen_documents(copy: Copy, only: Collection[str]) -> list[PackedDocument]:
    """Return the documents named in `only`, all if it is empty. Raises ImportRefused."""
    known = [document.name for document in copy.documents]
    missing = sorted(set(only) - set(known))
    if missing:
        raise ImportRefused(
            f"The copy {copy.name} does not hold {shortened(missing)}. Nothing was written.",
            hint=f"It holds {counted(len(known), 'document')}: "
            f"{shortened(known, _NAMES_SHOWN_MAX)}.",
        )
    return [document for document in copy.documents if not only or document.name in only]


async def write_plain(
    copy: Copy, documents: Sequence[PackedDocument], folder: str, advance: Callable[[int], object]
) -> None:
    """Write documents of a copy and their backups into a new folder, durably.

    Every content is compared with its digest. `advance` is called with the bytes of each. Raises
    InvalidRequest if the folder is not empty, ExportFailed, ExportDamaged, KeyMissing, OSError.
    """
    check_absent(folder)
    staged = _stage(folder)
    try:
        for place, files in _places(staged, documents).items():
            async with aclosing(fetched(copy, files)) as batches:
                async for batch in batches:
                    await _in_thread(partial(_write, place, batch))
                    advance(sum(content.size_bytes for _, content in batch))
        await _in_thread(partial(_publish, staged, folder))
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _stage(folder: str) -> Path:
    """Make the folder that gets the name at the end."""
    parent, name = os.path.split(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=parent))
    (staged / "backups").mkdir(mode=0o700)
    return staged


async def _in_thread(work: Callable[[], None]) -> None:
    """Run work on a thread and wait for its end, also if cancelled: it uses the folder until then.

    The thread is not one of a pool: if a pool cannot start its thread, it does the work later.
    """
    done = Promise[None]()
    run = run_once(work, done)
    try:
        threading.Thread(target=run, name="seline-plain").start()
    except RuntimeError:  # there are too many
        run()
    ending, cancelled = asyncio.wrap_future(done), False
    while not ending.done():
        try:
            await asyncio.wait([ending])
        except asyncio.CancelledError:
            cancelled = True
    ending.result()
    if cancelled:
        raise asyncio.CancelledError


def _places(
    staged: Path, documents: Sequence[PackedDocument]
) -> Mapping[Path, Sequence[FileEntry]]:
    return {
        staged: [document for document in documents if document.sha256],
        staged / "backups": [backup for document in documents for backup in document.backups],
    }


def _write(place: Path, batch: Sequence[tuple[FileEntry, Content]]) -> None:
    for file, content in batch:
        descriptor = os.open(place / file.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as opened:
            opened.write(content.data)


def _publish(staged: Path, folder: str) -> None:
    """Make the files durable, then give the folder its name; an empty one is replaced."""
    os.sync()
    os.rename(staged, folder)
    sync_folder(str(staged.parent))
