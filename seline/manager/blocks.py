"""The two blocks that lock documents: `edit` for one, `transaction` for several (V5, V6).

A block reads in its turn, so it sees everything saved before it. It commits with the revision it
read, so a lock that was lost can do no harm. The end of the commit releases the locks.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from seline.domain.document import ABSENT, BOT, DocumentKey, IfMatch, Json, check_document_name
from seline.domain.json_codec import decode
from seline.errors import DocumentNotFound
from seline.manager import changes
from seline.manager.locks import TRANSACTION, DocumentLock
from seline.manager.managed_store import ManagedStore
from seline.ports.futures import wait_for
from seline.ports.store import Change


class _Block:
    """The locks of one block, from its beginning to the end of its commit."""

    def __init__(self, store: ManagedStore, *, backup: bool) -> None:
        self._store = store
        self._backup = backup
        self._locks: list[DocumentLock] = []
        self._bases: dict[DocumentKey, IfMatch] = {}

    async def _lock(self, names: Iterable[str]) -> None:
        for name in names:
            self._locks.append(await self._store.locks.lock(name))

    async def _begin(self, names: Sequence[str], keys: Sequence[DocumentKey], default: Json) -> Any:
        """Lock the names and return the documents' values by name."""
        await self._store.open()
        try:
            await self._lock(names)
            return {key.name: await self._read(key, default) for key in keys}
        except BaseException:
            self._release()
            raise

    async def _read(self, key: DocumentKey, default: Json) -> Any:
        """Return a locked document's value, after everything that was queued before."""
        content = (await wait_for(self._store.submit((self._store.look_change(key),))))[0].content
        self._bases[key] = ABSENT if content is None else content.revision
        return copy.deepcopy(default) if content is None else decode(content.data)

    async def _commit(self, changes_of: Callable[[], Iterable[Change]]) -> None:
        """Commit the changes, all or none; the end of the commit releases the locks."""
        try:
            made = tuple(changes_of())
            future = self._store.locks.commit(
                self._locks, lambda: self._store.submit(made) if made else _nothing()
            )
        except BaseException:
            self._release()
            raise
        await wait_for(future)

    def _save(self, key: DocumentKey, value: object) -> Change:
        content = self._store.encoding.content(value)
        base = self._bases.get(key)
        return self._store.save_change(key, content, backup=self._backup, if_match=base)

    def _release(self) -> None:
        for lock in reversed(self._locks):
            self._store.locks.release(lock)


class Edit(_Block):
    """Locks one document while its value is changed in place."""

    def __init__(
        self, store: ManagedStore, key: DocumentKey, default: Json, *, backup: bool
    ) -> None:
        """Use `DataManager.edit`."""
        super().__init__(store, backup=backup)
        self._key = key
        self._default = default
        self._value: Any = None

    async def __aenter__(self) -> Any:
        name = self._key.name
        self._value = (await self._begin((name,), (self._key,), self._default))[name]
        return self._value

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self._commit(lambda: (self._save(self._key, self._value),))
        else:
            self._release()


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


class Transaction(_Block):
    """Locks several documents and commits the changes of all of them, or none."""

    def __init__(self, store: ManagedStore, keys: Sequence[DocumentKey], *, backup: bool) -> None:
        """Use `DataManager.transaction`."""
        super().__init__(store, backup=backup)
        self._keys = sorted(set(keys))
        self._changes = Changes({})

    async def __aenter__(self) -> Changes:
        names = (TRANSACTION, *(key.name for key in self._keys))
        self._changes = Changes(await self._begin(names, self._keys, {}))
        return self._changes

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._release()
            return
        try:
            await self._lock(sorted({*self._changes} - {key.name for key in self._keys}))
        except BaseException:
            self._release()
            raise
        await self._commit(self._made)

    def _made(self) -> Iterator[Change]:
        """Yield the changes: the deletes, then the saves, each by name."""
        for key in _keys(self._changes.deleted):
            base = self._bases.get(key)
            if base is not ABSENT:
                decide = changes.delete(if_match=base)
                yield Change(key, decide, retain=self._store.retain(key))
        for key in _keys(self._changes):
            if self._bases.get(key) is ABSENT and self._changes.is_untouched(key.name):
                continue
            yield self._save(key, self._changes[key.name])


def _keys(names: Iterable[str]) -> list[DocumentKey]:
    return [DocumentKey(BOT, name) for name in sorted(names)]


def _nothing() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(())
    return future
