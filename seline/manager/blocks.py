"""The two blocks that lock documents: `edit` for one, `transaction` for several (V5, V6).

A block reads in its turn, so it sees everything saved before it. It commits with the revision it
read, so a lock that was lost can do no harm. The end of the commit releases the locks.
"""

import copy
from collections.abc import AsyncGenerator, Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, Final

from seline.domain.document import ABSENT, BOT, DocumentKey, IfMatch, check_document_name
from seline.domain.json_codec import decode
from seline.errors import DocumentNotFound
from seline.manager import changes
from seline.manager.encoding import content_of
from seline.manager.locks import TRANSACTION, DocumentLock
from seline.manager.managed_store import ManagedStore
from seline.ports.futures import pause, wait_for
from seline.ports.store import Change, Outcome

LOCKS_PER_STEP: Final = 100
"""How many locks a block takes before other tasks of the event loop run."""


@asynccontextmanager
async def edit(
    store: ManagedStore, key: DocumentKey, default: object, *, backup: bool
) -> AsyncGenerator[Any]:
    """Lock one document while its value is changed in place; save it when the block ends."""
    with Locked(store, backup=backup) as locked:
        await locked.lock([key.name])
        value = await locked.read(key, default)
        yield value
        saved = locked.commit([locked.save(key, value)])
    await wait_for(saved)


@asynccontextmanager
async def transaction(
    store: ManagedStore, keys: Iterable[DocumentKey], *, backup: bool
) -> AsyncGenerator["Changes"]:
    """Lock several documents; when the block ends, commit the changes of all of them, or none."""
    keys = sorted(set(keys))
    names = [key.name for key in keys]
    with Locked(store, backup=backup) as locked:
        await locked.lock([TRANSACTION, *names])
        documents = Changes({key.name: await locked.read(key, {}) for key in keys})
        yield documents
        await locked.lock(sorted({*documents}.difference(names)))
        saved = locked.commit([*locked.changes_of(documents)])
    await wait_for(saved)


class Locked:
    """The locks of one block. Leaving it releases them, unless a commit took them over."""

    def __init__(self, store: ManagedStore, *, backup: bool = True) -> None:
        """Lock nothing yet; `backup` keeps the contents before as backups."""
        self._store = store
        self._backup = backup
        self._locks: list[DocumentLock] = []
        self._bases: dict[DocumentKey, IfMatch] = {}

    def __enter__(self) -> "Locked":  # noqa: PYI034  # never subclassed
        return self

    def __exit__(self, *_: object) -> None:
        for lock in reversed(self._locks):
            self._store.locks.release(lock)

    async def lock(self, names: Iterable[str]) -> None:
        """Lock the names one after another. Raises NestedEdit, DocumentBusy."""
        await self._store.open()
        before = len(self._locks)
        for count, name in enumerate(names):
            if count % LOCKS_PER_STEP == LOCKS_PER_STEP - 1:
                await pause(0)  # an import locks thousands, and other tasks go on
            self._locks.append(await self._store.locks.lock(name))
        self._store.locks.hold(self._locks[before:])

    async def read(self, key: DocumentKey, default: object) -> Any:
        """Return a locked document's value, after everything that was queued before."""
        content = await self._store.look(key)
        self._bases[key] = ABSENT if content is None else content.revision
        return copy.deepcopy(default) if content is None else decode(content.data)

    def commit(self, made: Sequence[Change]) -> Future[tuple[Outcome, ...]]:
        """Commit changes, all or none; the end of the commit releases the locks."""
        future = self._store.locks.commit(
            self._locks, lambda: self._store.submit(made) if made else _nothing()
        )
        self._locks = []
        return future

    def save(self, key: DocumentKey, value: object) -> Change:
        """Return the change that saves a value over the revision that was read."""
        content = content_of(value, self._store.limits)
        base = self._bases.get(key)
        return self._store.save_change(key, content, backup=self._backup, if_match=base)

    def changes_of(self, documents: "Changes") -> Iterator[Change]:
        """Yield the changes of a transaction: the deletes, then the saves, each by name."""
        for key in _keys(documents.deleted):
            base = self._bases.get(key)
            if base is not ABSENT:
                decide = changes.delete(if_match=base)
                yield self._store.change_of(key, decide)
        for key in _keys(documents):
            if self._bases.get(key) is ABSENT and documents.is_untouched(key.name):
                continue
            yield self.save(key, documents[key.name])


class Changes(MutableMapping[str, Any]):
    """The documents of a transaction: those named are loaded, others can only be assigned."""

    def __init__(self, loaded: dict[str, Any]) -> None:
        """Hold the loaded values."""
        self._values = dict(loaded)
        self._assigned: set[str] = set()
        self._deleted: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise DocumentNotFound(
                f"{name} was not named when the transaction was opened, so it was not loaded.",
                hint=f"Open it as `transaction(…, {name!r})`, or assign a whole value.",
                document=name,
            ) from None

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[check_document_name(name)] = value
        self._assigned.add(name)
        self._deleted.discard(name)

    def __delitem__(self, name: str) -> None:
        self[name]
        del self._values[name]
        self._deleted.add(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def is_untouched(self, name: str) -> bool:
        """Whether a document that did not exist still has the value it was loaded with: `{}`."""
        return name not in self._assigned and self._values[name] == {}

    @property
    def deleted(self) -> frozenset[str]:
        """The names that were deleted in the block."""
        return frozenset(self._deleted)


def _keys(names: Iterable[str]) -> list[DocumentKey]:
    return [DocumentKey(BOT, name) for name in sorted(names)]


def _nothing() -> Future[tuple[Outcome, ...]]:
    future: Future[tuple[Outcome, ...]] = Future()
    future.set_result(())
    return future
