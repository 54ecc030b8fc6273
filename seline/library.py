"""Seline without a server: open a volume in this process, once for all callers.

Nothing is opened at import. The caller that opens also closes.
"""

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar, cast

import seline
from seline.bot.lessons_learned import LessonsLearned
from seline.bot.user_profile import UserProfile
from seline.commands import Commands
from seline.domain.copy import Copy, lacking_text
from seline.domain.incident import IncidentKind
from seline.domain.plural import counted
from seline.domain.readable_export import ImportReport
from seline.errors import (
    ExportFailed,
    RestorePending,
    SelineError,
    SettingsError,
    VolumeFailed,
    VolumeFull,
    VolumeReadOnly,
)
from seline.manager import DataManager, ManagedStore
from seline.manager.awaited_store import NeverCopied
from seline.operations import Operations
from seline.operations.restore import fill_volume, may_be_filled
from seline.operations.returning import AUTO, OFF, Damaged, Returned, come_back, note_pending
from seline.operations.scratch import no_room, restore_and_compare
from seline.outbound.destinations.table import build_targets
from seline.outbound.sealing import sealer_of
from seline.ports.futures import refuse_in_turn, run_without_loop
from seline.ports.store import DocumentStore
from seline.settings import Settings, UnusableBucket, load_settings
from seline.storage.volume.journal.provision import IN_USE
from seline.storage.volume.open import choose_commit_form, open_volume
from seline.storage.volume.store import VolumeStore

LOCK_WAIT_S: Final = 5.0
RETRY_AFTER_S: Final = 5.0
ASK_AGAIN_S: Final = 30.0
"""After how long a destination is asked again for the copy of an empty volume."""
ComeBack: TypeAlias = Callable[[ManagedStore], Awaitable[Returned]]
"""Restores a copy onto an empty volume, if it finds one."""
T = TypeVar("T")
_log = logging.getLogger("seline")


class Seline(NeverCopied, Operations):
    """An open Seline: the operator's verbs, with the documents and the services for a bot."""

    def __init__(self, store: ManagedStore, settings: Settings) -> None:
        """Assemble what works over a store. Use `open_seline`."""
        exports = settings.exports
        super().__init__(
            store,
            build_targets(settings),
            version=seline.__version__,
            sealer=sealer_of(exports.encrypt_to, exports.passphrase or ""),
            open_volume=_open_scratch,
        )
        self.settings = settings
        self.returned: Returned | None = None
        """What this start found for the empty volume, None if the volume was not empty."""
        self.is_from_get = False
        """Whether `get_seline` opened it."""
        self.data = DataManager(store)
        self.profile = UserProfile(self.data)
        self.lessons = LessonsLearned(self.data)

    def filled(self, store: VolumeStore, returned: Returned | None) -> VolumeStore:
        """Report what was found for the empty volume, if it was empty; return the store.

        The copy of an empty volume only gives its id, so no one needs to know of it.
        """
        self.returned = returned
        self.restored = None if returned is None else returned.copy
        if returned is not None and returned.copy is None and returned.forbidden:
            self._report_unreadable(store.medium.place, returned.forbidden)
        elif returned is not None and returned.copy is not None and returned.copy.documents:
            self._report(returned.copy, returned.passed_over)
        return store

    def _report_unreadable(self, place: str, names: list[str]) -> None:
        self.store.note(
            IncidentKind.COPY_UNREADABLE,
            "",
            f"The volume at {place} is empty, and {' and '.join(names)} refuses to be read, so no "
            "copy was looked for.",
            place=place,
            destinations=[*names],
            destination=names[0],
        )

    def _report(self, copy: Copy, passed_over: list[str]) -> None:
        count = sum(bool(document.sha256) for document in copy.documents)
        taken_at = f"{copy.taken_at:%Y-%m-%d %H:%M:%S}"
        lacking = lacking_text(copy.lacking, copy.older)
        lacking = f" Documents could not be read for that copy: {lacking}." if lacking else ""
        older = f" Not taken: {'; '.join(passed_over)}." if passed_over else ""
        self.store.note(
            IncidentKind.VOLUME_RESTORED,
            "",
            f"Restored {counted(count, 'document')} as of {taken_at} UTC from {copy.destination}; "
            f"the volume was empty.{lacking}{older}",
            documents=count,
            taken_at=taken_at,
            destination=copy.destination,
            passed_over=[*passed_over],
        )

    async def close(self) -> None:
        """Carry out what is queued and close the volume; idempotent.

        It runs to its end even if the caller is cancelled; another call waits for it.
        """
        refuse_in_turn()
        _forget(self)
        await self.store.close()

    def begin_to_close(self) -> Future[None]:
        """Close on a new thread. A volume that is still opening is closed, too."""
        _forget(self)
        return self.store.begin_to_close()


class Opening:
    """What `open_seline` returns: `async with` it, or `await` it and `close()` what it gives."""

    def __init__(self, settings: Settings, *, lock_wait_s: float) -> None:
        """Remember how to open; nothing is opened yet."""
        self._settings = settings
        self._lock_wait_s = lock_wait_s
        self._seline: Seline | None = None

    def __await__(self) -> Generator[Any, None, Seline]:
        return self.open().__await__()

    async def __aenter__(self) -> Seline:
        self._seline = await self.open()
        return self._seline

    async def __aexit__(self, *_: object) -> None:
        if self._seline is not None:
            await self._seline.close()

    async def open(self) -> Seline:
        """Open and return the instance once it is ready."""
        opened = start(
            self._settings, lock_wait_s=self._lock_wait_s, come_back=copies_of(self._settings)
        )
        try:
            await opened.store.open()
        except BaseException:
            opened.begin_to_close()
            raise
        return opened


def open_seline(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    config: str | None = None,
    settings: Settings | None = None,
    lock_wait_s: float = LOCK_WAIT_S,
    **arguments: object,
) -> Opening:
    """Open a data directory; wait up to `lock_wait_s` for another process to release it.

    `async with open_seline("./data") as seline:`, or `seline = await open_seline("./data")` and
    `await seline.close()`. Other settings are arguments with their section and two underscores
    (`backups__keep_newest=10`). Raises SettingsError, VolumeLocked, VolumeNotMounted,
    UnsupportedFormat, VolumeFailed.
    """
    if settings is None:
        named: dict[str, object] = {
            name.replace("__", ".", 1): value for name, value in arguments.items()
        }
        if data_dir is not None:
            named["storage.data_dir"] = os.fspath(data_dir)
        settings = load(config=config, arguments=named)
    return Opening(settings, lock_wait_s=lock_wait_s)


def load(*, config: str | None = None, arguments: Mapping[str, object] | None = None) -> Settings:
    """Load the settings for this process, and log their warnings. Raises SettingsError."""
    settings = load_settings(config=config, arguments=arguments)
    for warning in settings.warnings:
        _log.warning("%s", warning)
    return settings


def start(
    settings: Settings,
    *,
    lock_wait_s: float,
    mount_wait_s: float = 0.0,
    serves_commands: bool = True,
    keep_trying: bool = False,
    reopens: bool = False,
    come_back: ComeBack | None = None,
    on_wait: Callable[[SelineError], None] | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> Seline:
    """Open on a new thread; every call on the result waits for that.

    Without `serves_commands` the caller serves the control socket itself. `keep_trying` retries a
    disk that is read-only or fails, until `give_up`; `reopens` opens anew at each call after a
    failure. `come_back` restores a copy onto a volume that never held a document, or onto which a
    restore was interrupted; that is done before the store is ready.
    Raises SettingsError if `get_seline` has opened another directory.
    """

    def is_given_up() -> bool:
        return give_up() or opened.store.is_closing

    def run(opening: Future[DocumentStore]) -> None:
        store: VolumeStore | None = None
        commands = Commands(settings.data_dir) if serves_commands else None
        if commands is not None:
            opened.store.before_close = commands.stop
        try:
            open_it = partial(
                open_volume,
                settings,
                lock_wait_s=lock_wait_s,
                mount_wait_s=mount_wait_s,
                serves_commands=True,
                on_wait=on_wait,
                give_up=is_given_up,
            )
            attempt = partial(_open_and_restore, open_it, settings, come_back)
            if keep_trying:
                attempt = partial(_retried, attempt, on_wait, is_given_up)
            store = opened.filled(*attempt())
            if commands is not None:
                _log.info("opened %s", os.path.abspath(settings.data_dir))
                commands.listen()
        except BaseException as error:  # noqa: BLE001  # raised to every waiting caller
            _close_unopened(store)
            opening.set_exception(error)
        else:
            opening.set_result(cast("DocumentStore", store))
        if commands is not None:
            commands.serve(None if opened.store.opened is None else opened)

    _log_notes(settings)
    begin = partial(_begin, run)
    opening = Future[DocumentStore]()
    opened = _registered(Seline(ManagedStore(opening, settings), settings))
    _begin_or_close(opened, begin, opening)
    opened.store.reopen = begin if reopens else None
    return opened


def _registered(opened: Seline) -> Seline:
    with _lock:
        _refuse_beside_another(opened.settings.data_dir)
        _open.append(opened)
    return opened


def _open_and_restore(
    open_it: Callable[[], VolumeStore], settings: Settings, come_back: ComeBack | None
) -> tuple[VolumeStore, Returned | None]:
    """Open a volume; restore a copy onto it first if it is empty and one is found."""
    store = open_it()
    try:
        if come_back is None or not may_be_filled(cast("DocumentStore", store)):
            return store, None
        returned = asyncio.run(_restored(store, settings, come_back))
    except BaseException:
        _close_unopened(store)
        raise
    return open_it(), returned


def restore_volume(settings: Settings, copy: Copy, *, lock_wait_s: float) -> ImportReport:
    """Restore a copy onto an empty volume, or complete an interrupted restore. Blocks.

    Raises what `open_seline` and `fill_volume` raise.
    """
    store = open_volume(settings, lock_wait_s=lock_wait_s)
    return asyncio.run(_restored(store, settings, lambda managed: fill_volume(managed, copy)))


def migrate(settings: Settings, *, journal: bool) -> str:
    """Have a volume that no process holds opened with or without a journal from now on. Blocks.

    Returns why a journal is not used although it is wanted, else nothing. Raises SettingsError, and
    what `choose_commit_form` raises.
    """
    if journal and not settings.storage.journal_bytes:
        raise SettingsError(
            "`storage.journal_bytes` is 0, so a start would make no journal; nothing was changed.",
            hint="Set `storage.journal_bytes` (8388608 is a usual size), then run the same command "
            "again.",
        )
    form = choose_commit_form(settings, journal=journal, lock_wait_s=LOCK_WAIT_S)
    return form.detail if journal and form.detail != IN_USE else ""


def try_restore(settings: Settings, copy: Copy, *, close: Callable[[], Awaitable[None]]) -> int:
    """Restore a copy into the temporary directory and compare it; return how many contents. Blocks.

    `close` releases the connections of `copy.fetch`, which end with the event loop of this call.
    Raises VolumeFull without room there, and as `restore_and_compare` does.
    """
    why = no_room(copy.documents)
    if why:
        raise VolumeFull(
            f"{copy.name} cannot be restored here: {why}.",
            hint="Free space there, or set TMPDIR to a directory on a larger disk.",
        )

    async def restored() -> int:
        try:
            return await restore_and_compare(copy, settings, _open_scratch)
        finally:
            await close()

    return asyncio.run(restored())


def _open_scratch(settings: Settings) -> DocumentStore:
    return cast("DocumentStore", open_volume(settings))


def copies_of(settings: Settings) -> ComeBack | None:
    """Return what restores a copy of the destinations (`exports.restore_from`), None for none."""
    exports, bucket = settings.exports, settings.unusable_bucket
    if exports.restore_from == OFF:
        return None
    if bucket is not None and exports.restore_from in (AUTO, bucket.name):
        return partial(_refuse_without, bucket)
    if not exports.destinations:
        return None

    damaged: Damaged = {}

    async def restore(store: ManagedStore) -> Returned:
        targets = build_targets(settings)
        sealer = sealer_of(exports.encrypt_to, exports.passphrase or "")
        try:
            return await come_back(
                store, targets, sealer, restore_from=exports.restore_from, damaged=damaged
            )
        except ExportFailed as error:
            await note_pending(store, error)
            raise
        finally:
            for target in targets:
                await target.destination.close()

    return restore


async def _refuse_without(bucket: UnusableBucket, store: ManagedStore) -> Returned:
    """Raise ExportFailed: the bucket that may have the copy of an empty volume cannot be asked."""
    place = (await store.open()).medium.place
    error = ExportFailed(
        f"The volume at {place} is empty, and no copy can be looked for: {bucket.message}.",
        hint=bucket.hint,
    )
    await note_pending(store, error)
    raise error


async def pending_restore(store: ManagedStore, settings: Settings) -> RestorePending | None:
    """Return why an empty volume waits for a copy; None if it does not. Raises StorageError."""
    pending, opened = store.volume_file.value.pending, await store.open()
    if pending is None or copies_of(settings) is None:
        return None
    if not await store.listing(lambda: may_be_filled(opened)):
        return None
    return RestorePending(
        "A restore is pending: until it has ended, only `seline status` and `seline exports` "
        f"answer. {pending.message}",
        hint=pending.hint,
    )


async def _restored(
    store: VolumeStore, settings: Settings, restore: Callable[[ManagedStore], Awaitable[T]]
) -> T:
    """Restore a copy onto an empty volume, and close the store."""
    opening: Future[DocumentStore] = Future()
    managed = ManagedStore(opening, settings, for_restore=True)
    opening.set_result(cast("DocumentStore", store))
    try:
        return await restore(managed)
    finally:
        await managed.close()


def _log_notes(settings: Settings) -> None:
    for note in settings.notes:
        _log.info("%s", note)


def _begin(run: Callable[..., None], opening: Future[DocumentStore]) -> None:
    threading.Thread(target=run, args=(opening,), name="seline-opening", daemon=True).start()


def _begin_or_close(
    opened: Seline, begin: Callable[[Future[DocumentStore]], None], opening: Future[DocumentStore]
) -> None:
    """Begin an opening; without a thread, forget the instance and fail every call on it.

    If that is interrupted, close what the thread may have begun to open.
    """
    try:
        begin(opening)
    except RuntimeError as error:  # there are too many threads, or the interpreter shuts down
        _forget(opened)
        opening.set_exception(error)
        raise
    except BaseException:
        opened.begin_to_close()
        raise


def _close_unopened(store: VolumeStore | None) -> None:
    """Close a store that no caller has. Never raises: the callers wait for the first error."""
    try:
        if store is not None:
            store.close()
    except Exception:  # noqa: BLE001  # the callers get the first error
        _log.exception("could not close a store whose opening failed")


def _retried(
    attempt: Callable[[], T],
    on_wait: Callable[[SelineError], None] | None,
    give_up: Callable[[], bool],
) -> T:
    reported = ""
    while True:
        try:
            return attempt()
        except (VolumeReadOnly, VolumeFailed, ExportFailed) as error:
            if on_wait is not None and error.message != reported:
                reported = error.message
                on_wait(error)
            wait_s = ASK_AGAIN_S if isinstance(error, ExportFailed) else RETRY_AFTER_S
            again_s = time.monotonic() + wait_s
            while time.monotonic() < again_s:
                if give_up():
                    raise
                time.sleep(0.05)


def log_wait(failure: SelineError) -> None:
    """Log what the opening of a volume waits for."""
    _log.warning("waiting for the volume: %s %s", failure.message, failure.hint)


def get_seline() -> Seline:
    """Return the instance opened in this process, or one opened now from the settings.

    If it could not be opened, each call tries again. Raises SettingsError if several directories
    are open, because any choice may be the wrong one.
    """
    with _lock:
        used = [opened for opened in _open if opened.is_from_get]
        usable = [opened for opened in _open if not opened.store.failed_to_open]
        if len(usable) > 1:
            places = " and ".join(os.path.abspath(opened.settings.data_dir) for opened in usable)
            raise SettingsError(
                f"This process has {places} open: get_seline() and get_data_manager() cannot know "
                "which one is meant.",
                hint="Use what `open_seline` returned for the directory that you mean.",
            )
        if usable or used:
            return (usable or used)[0]
        settings = load()
        opened = start(
            settings,
            lock_wait_s=LOCK_WAIT_S,
            reopens=True,
            come_back=copies_of(settings),
            on_wait=log_wait,
        )
        opened.is_from_get = True
        atexit.register(_close_at_exit, opened)
        return opened


def get_data_manager() -> DataManager:
    """Return the documents of the instance of this process (see `get_seline`)."""
    return get_seline().data


def get_user_profile() -> UserProfile:
    """Return the profile service over the instance of this process."""
    return get_seline().profile


def get_lessons_service() -> LessonsLearned:
    """Return the lessons service over the instance of this process."""
    return get_seline().lessons


def _refuse_beside_another(data_dir: str) -> None:
    """Raise SettingsError if `get_seline` has opened another directory: callers still use it."""
    asked = os.path.realpath(data_dir)
    for opened in _open:
        used = os.path.realpath(opened.settings.data_dir)
        if opened.is_from_get and used != asked:
            raise SettingsError(
                f"get_data_manager() uses {used} in this process, so what it returned would "
                f"not use {asked}.",
                hint=f"Call `open_seline` first, or set `SELINE_DATA_DIR={asked}`.",
            )


_lock = threading.RLock()
_open: list[Seline] = []


def _forget(opened: Seline) -> None:
    with _lock:
        if opened in _open:
            _open.remove(opened)


def _close_at_exit(opened: Seline) -> None:
    """Write the last report and close. Nothing depends on it: what was answered is durable."""
    try:
        run_without_loop(opened.close())
    except SelineError:
        return


def _after_fork() -> None:
    """Forget the parent's instances: a forked child must not use them."""
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
