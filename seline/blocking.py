"""Seline for code without an event loop: the same names, synchronous and thread-safe.

Code written for an older `data_manager.py` runs once it imports from `seline.blocking`. It shares
the instance that is open in this process and runs the same coroutines. Inside a running event loop
it raises CalledInEventLoop, because it would stop the loop.
"""

import functools
import os
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

from seline import library
from seline.bot.lessons_learned import LessonsLearned as AwaitedLessonsLearned
from seline.bot.user_profile import UserProfile as AwaitedUserProfile
from seline.domain.document import ABSENT
from seline.errors import CalledInEventLoop, SelineError
from seline.manager import DataManager as AwaitedDataManager
from seline.manager.awaited_store import NeverCopied
from seline.ports.futures import in_loop, run_without_loop
from seline.settings import Settings

__all__ = [
    "ABSENT",
    "DataManager",
    "LessonsLearned",
    "Seline",
    "SelineError",
    "UserProfile",
    "get_data_manager",
    "get_lessons_service",
    "get_seline",
    "get_user_profile",
    "open_seline",
]

P = ParamSpec("P")
T = TypeVar("T")


def _run(coroutine: Coroutine[Any, Any, T], name: str) -> T:
    if in_loop():
        coroutine.close()
        raise CalledInEventLoop(
            f"seline.blocking's {name} was called inside a running event loop, which it would "
            "stop. Await the same name of `seline` there."
        )
    return run_without_loop(coroutine)


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """Return an awaited method as a plain one, of the object in `_awaited`."""
    name = method.__name__

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _run(method(self._awaited, *args, **kwargs), name)

    return functools.update_wrapper(call, method)


def _block(
    method: Callable[Concatenate[Any, P], AbstractAsyncContextManager[T]],
) -> Callable[Concatenate[Any, P], AbstractContextManager[T]]:
    """Return a method that opens an `async with` block as one that opens a `with` block."""
    name = method.__name__

    @contextmanager
    def opened(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        awaited = method(self._awaited, *args, **kwargs)
        value = _run(awaited.__aenter__(), name)
        try:
            yield value
        except BaseException as error:
            _run(awaited.__aexit__(type(error), error, error.__traceback__), name)
            raise
        _run(awaited.__aexit__(None, None, None), name)

    return functools.update_wrapper(opened, method)


class DataManager:
    """The DataManager without `await` (see `seline.DataManager`)."""

    def __init__(self, awaited: AwaitedDataManager) -> None:
        self._awaited = awaited

    save_json = _blocking(AwaitedDataManager.save_json)
    load_json = _blocking(AwaitedDataManager.load_json)
    read = _blocking(AwaitedDataManager.read)
    update_field = _blocking(AwaitedDataManager.update_field)
    append_item = _blocking(AwaitedDataManager.append_item)
    update_json = _blocking(AwaitedDataManager.update_json)
    delete = _blocking(AwaitedDataManager.delete)
    reset = _blocking(AwaitedDataManager.reset)
    restore_from_backup = _blocking(AwaitedDataManager.restore_from_backup)
    restore = _blocking(AwaitedDataManager.restore)
    documents = _blocking(AwaitedDataManager.documents)
    backups = _blocking(AwaitedDataManager.backups)
    read_backup = _blocking(AwaitedDataManager.read_backup)
    pin = _blocking(AwaitedDataManager.pin)
    unpin = _blocking(AwaitedDataManager.unpin)
    export_all_data = _blocking(AwaitedDataManager.export_all_data)
    import_data = _blocking(AwaitedDataManager.import_data)
    edit = _block(AwaitedDataManager.edit)
    transaction = _block(AwaitedDataManager.transaction)
    exported = _block(AwaitedDataManager.exported)


class UserProfile:
    """The profile service without `await` (see `seline.UserProfile`)."""

    def __init__(self, awaited: AwaitedUserProfile) -> None:
        self._awaited = awaited

    save = _blocking(AwaitedUserProfile.save)
    load = _blocking(AwaitedUserProfile.load)
    get_field = _blocking(AwaitedUserProfile.get_field)
    update_field = _blocking(AwaitedUserProfile.update_field)
    clear = _blocking(AwaitedUserProfile.clear)
    restore_from_backup = _blocking(AwaitedUserProfile.restore_from_backup)


class LessonsLearned:
    """The lessons service without `await` (see `seline.LessonsLearned`)."""

    def __init__(self, awaited: AwaitedLessonsLearned) -> None:
        self._awaited = awaited

    add_lesson = _blocking(AwaitedLessonsLearned.add_lesson)
    get_lessons = _blocking(AwaitedLessonsLearned.get_lessons)
    delete_lesson = _blocking(AwaitedLessonsLearned.delete_lesson)
    format_lessons_for_prompt = _blocking(AwaitedLessonsLearned.format_lessons_for_prompt)


class Seline(NeverCopied):
    """An open Seline without `await` (see `seline.Seline`)."""

    def __init__(self, awaited: library.Seline) -> None:
        self._awaited = awaited
        self.settings: Settings = awaited.settings
        self.data = DataManager(awaited.data)
        self.profile = UserProfile(awaited.profile)
        self.lessons = LessonsLearned(awaited.lessons)

    health = _blocking(library.Seline.health)
    storage_info = _blocking(library.Seline.storage_info)
    verify = _blocking(library.Seline.verify)
    prune = _blocking(library.Seline.prune)
    all_backups = _blocking(library.Seline.all_backups)
    diff = _blocking(library.Seline.diff)
    raw = _blocking(library.Seline.raw)
    quarantine = _blocking(library.Seline.quarantine)
    read_quarantine = _blocking(library.Seline.read_quarantine)
    close = _blocking(library.Seline.close)

    def __enter__(self) -> "Seline":  # noqa: PYI034  # never subclassed
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_seline(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    config: str | None = None,
    settings: Settings | None = None,
    lock_wait_s: float = library.LOCK_WAIT_S,
    **arguments: object,
) -> Seline:
    """Open a data directory; `with` closes it again, or `close()` does."""
    opening = library.open_seline(
        data_dir, config=config, settings=settings, lock_wait_s=lock_wait_s, **arguments
    )
    return Seline(_run(opening.open(), "open_seline"))


def get_seline() -> Seline:
    """Return the instance opened in this process, or one opened now from the settings."""
    return Seline(library.get_seline())


def get_data_manager() -> DataManager:
    """Return the documents of the instance of this process (see `get_seline`)."""
    return DataManager(library.get_data_manager())


def get_user_profile() -> UserProfile:
    """Return the profile service over the instance of this process."""
    return UserProfile(library.get_user_profile())


def get_lessons_service() -> LessonsLearned:
    """Return the lessons service over the instance of this process."""
    return LessonsLearned(library.get_lessons_service())
