"""Scratch: restore a copy into the temporary directory, compare every content, and remove it.

The volume is not touched: a copy is restored onto a volume of its own, which is opened twice, as a
restore and then as a service would. What a process leaves when it is killed is removed by the next
one that restores there.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from seline import collector
from seline.domain.copy import Copy
from seline.domain.document import BOT, Content, DocumentKey, Revision
from seline.domain.manifest import PackedDocument
from seline.domain.usage import blocks
from seline.errors import ExportDamaged, StorageError, TooManyDocuments
from seline.manager.managed_store import ManagedStore
from seline.manager.reads import backup_content
from seline.operations.mirror_store import in_thread
from seline.operations.restore import fill_volume
from seline.operations.verify import Verifier
from seline.ports.store import DocumentStore
from seline.settings import Settings
from seline.settings.values import Exports

PREFIX: Final = "seline-drill-"
MARGIN_BYTES: Final = 64 << 20
"""What must be free beside a quarter more than the copy needs."""
CACHE_BYTES: Final = 1 << 20
OpenVolume: TypeAlias = Callable[[Settings], DocumentStore]
"""Opens the volume that the settings name. Blocks."""
T = TypeVar("T")


class Scratch:
    """Restores copies of one store's destinations, one after the other."""

    def __init__(self, store: ManagedStore, open_volume: OpenVolume) -> None:
        self._store = store
        self._open_volume = open_volume
        self._turn = asyncio.Lock()

    @collector.without_full_ones
    async def try_restore(self, copy: Copy) -> str:
        """Restore a copy and compare it; return why that was not tried, else an empty text.

        It has an event loop of its own, so that this one is not blocked. Raises ExportDamaged if
        the copy does not become what it lists, and what `fill_volume` raises about the copy.
        """
        async with self._turn:
            obstacle = await self.obstacle(copy.documents)
            if obstacle:
                return obstacle
            here = partial(_in_loop, asyncio.get_running_loop(), copy.fetch)
            there = replace(copy, fetch=here)
            restoring = partial(restore_and_compare, there, self._store.settings, self._open_volume)
            try:
                await _apart(restoring)
            except TooManyDocuments:
                raise
            except (OSError, StorageError) as error:
                return f"{tempfile.gettempdir()} failed: {error}"
        return ""

    async def obstacle(self, documents: Iterable[PackedDocument], *, times: int = 1) -> str:
        """Return why documents and their backups cannot be restored here, empty if they can.

        `times`: how often their bytes are stored.
        """
        store = await self._store.open()
        usage = await self._store.reading(store.medium.usage)
        place = store.medium.place
        return await in_thread(
            lambda: _on_volume(place) if usage.own_mount else ""
        ) or await in_thread(lambda: no_room(documents, times=times))


def no_room(documents: Iterable[PackedDocument], *, times: int = 1) -> str:
    """Return that the temporary directory lacks room, empty if it has room. Blocks."""
    needed = MARGIN_BYTES + times * needed_bytes(documents) * 5 // 4
    status = os.statvfs(tempfile.gettempdir())
    has_room = needed <= status.f_bavail * status.f_frsize
    return "" if has_room else f"no room in {tempfile.gettempdir()}"


def needed_bytes(documents: Iterable[PackedDocument]) -> int:
    """Return the bytes that documents and their backups take on a disk."""
    files = [entry for document in documents for entry in (document, *document.backups)]
    return sum(blocks(entry.size_bytes) for entry in files)


def _on_volume(place: str) -> str:
    """Return that the temporary directory is on the volume, empty if it is not. Blocks."""
    folder = tempfile.gettempdir()
    return f"{folder} is on the volume" if os.stat(folder).st_dev == os.stat(place).st_dev else ""


async def restore_and_compare(copy: Copy, settings: Settings, open_volume: OpenVolume) -> int:
    """Restore a copy into the temporary directory and compare it; return how many contents.

    It blocks the event loop. Raises ExportDamaged, StorageError, and what `fill_volume` raises.
    """
    with scratch_folder() as folder:
        there = _scratch_settings(settings, os.path.join(folder, "data"), copy)
        async with _opened(there, open_volume, for_restore=True) as managed:
            await fill_volume(managed, copy)
        async with _opened(there, open_volume) as managed:
            return await _compared(managed, copy)


def _scratch_settings(settings: Settings, data_dir: str, copy: Copy) -> Settings:
    """Return the settings of a volume in scratch space: as large as needed, and without copies."""
    limit_mb = 512 + (2 * needed_bytes(copy.documents) >> 20)
    storage = replace(
        settings.storage, cache_bytes_max=CACHE_BYTES, volume_limit_mb=limit_mb, reserve_percent=0.0
    )
    return replace(
        settings, data_dir=data_dir, mount_required=False, storage=storage, exports=Exports()
    )


@asynccontextmanager
async def _opened(
    settings: Settings, open_volume: OpenVolume, *, for_restore: bool = False
) -> AsyncGenerator[ManagedStore]:
    opening: Future[DocumentStore] = Future()
    managed = ManagedStore(opening, settings, for_restore=for_restore)
    opening.set_result(open_volume(settings))
    try:
        yield managed
    finally:
        await managed.close()


async def _compared(managed: ManagedStore, copy: Copy) -> int:
    """Compare every document and backup of a volume with the copy; return how many."""
    opened = await managed.open()
    report = await Verifier(managed).run()
    expected = {document.name for document in copy.documents if document.sha256}
    found = {info.name for info in await managed.listing(lambda: opened.documents(BOT))}
    if report.findings or found != expected:
        raise ExportDamaged(f"{copy.name} was not restored as it was copied.")
    compared = 0
    for document in copy.documents:
        key = DocumentKey(BOT, document.name)
        contents = {backup.sha256: backup.name for backup in document.backups}
        revisions = {
            (await backup_content(managed, key, name)).revision for name in contents.values()
        }
        if document.sha256:
            raw = await managed.reading(partial(opened.medium.raw, key))
            revisions.add(Content.of(raw).revision)
            contents[document.sha256] = document.name
        if revisions != contents.keys():
            raise ExportDamaged(f"{document.name} of {copy.name} is not what was copied.")
        compared += len(contents)
    return compared


# the folder


@contextmanager
def scratch_folder(place: str | None = None, *, prefix: str = PREFIX) -> Generator[str]:
    """Yield a new folder in `place`, else in the temporary directory, and remove it. Blocks.

    It is locked, so that what a killed process left is distinguished from what is in use.
    """
    place = place or tempfile.gettempdir()
    _remove_leftovers(place, prefix)
    folder, lock = _locked_folder(place, prefix)
    try:
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _locked_folder(place: str, prefix: str) -> tuple[str, int]:
    while True:
        folder = tempfile.mkdtemp(prefix=prefix, dir=place)
        with suppress(FileNotFoundError):  # another process took it for a leftover
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.path.isdir(folder):
                return folder, lock
            os.close(lock)


def _remove_leftovers(place: str, prefix: str) -> None:
    """Remove the folders of this user that no process holds."""
    for entry in os.scandir(place):
        with suppress(OSError):  # it is in use, or gone
            if entry.name.startswith(prefix) and entry.stat().st_uid == os.geteuid():
                lock = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(lock)


# the event loop


async def _in_loop(
    loop: asyncio.AbstractEventLoop,
    fetch: Callable[[Revision], Coroutine[Any, Any, bytes]],
    digest: Revision,
) -> bytes:
    """Fetch a content in the event loop that has the connections to the destination."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fetch(digest), loop))


async def _apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in an event loop on a thread of its own; return its result.

    If the caller is cancelled, so is the coroutine, and its end is waited for.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()
    ended: Future[T] = Future()

    async def run() -> T:
        task = asyncio.create_task(work())
        started.set_result((asyncio.get_running_loop(), task))
        return await task

    def run_in_thread() -> None:
        try:
            ended.set_result(asyncio.run(run()))
        except BaseException as error:  # noqa: BLE001  # raised to the caller
            ended.set_exception(error)

    threading.Thread(target=run_in_thread, name="seline-scratch", daemon=True).start()
    ending = asyncio.wrap_future(ended)
    try:
        return await asyncio.shield(ending)
    except asyncio.CancelledError:
        loop, task = await asyncio.wrap_future(started)
        with suppress(RuntimeError):  # it has just ended
            loop.call_soon_threadsafe(task.cancel)
        await asyncio.wait([ending])
        if not ending.cancelled():
            ending.exception()
        raise
