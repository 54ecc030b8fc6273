"""The two blocks that hold documents: `edit` for one, `transaction` for several (V5, V6).

A block reads in its turn, so it sees everything saved before it. It commits with the revision it
read: a hold that was lost can do no harm. The completion of the commit ends the hold.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableMapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any

from seline.domain.document import ABSENT, BOT, DocumentKey, IfMatch, Json, check_document_name
from seline.domain.json_codec import decode
from seline.errors import DocumentNotFound
from seline.manager import changes
from seline.manager.locks import TRANSACTION, DocumentLock
from seline.ports.futures import wait_for
from seline.ports.store import Atom, Change

if TYPE_CHECKING:
    from seline.manager.data import DataManager


class Edit:
    """Holds one document while its value is changed in place."""

    def __init__(self, data: DataManager, key: DocumentKey, default: Json, *, backup: bool) -> None:
        """Use `DataManager.edit`."""
        self._data = data
        self._key = key
        self._default = default
        self._backup = backup
        self._hold: DocumentLock | None = None
        self._value: Any = None
        self._base: IfMatch = None

    async def __aenter__(self) -> Any:
        await self._data.open_store()
        self._hold = hold = await self._data.locks.hold(self._key.name)
        try:
            self._value, self._base = await read_held(self._data, self._key, self._default)
        except BaseException:
            self._data.locks.release(hold)
            raise
        return self._value

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._hold is not None
        if error is not None:
            self._data.locks.release(self._hold)
            return
        try:
            content = self._data.encoding.content(self._value)
            change = self._data.save_change(
                self._key, content, backup=self._backup, if_match=self._base
            )
            future = self._data.locks.commit(
                (self._hold,), lambda: self._data.submit(Atom((change,)))
            )
        except BaseException:
            self._data.locks.release(self._hold)
            raise
        await wait_for(future)


class Changes(MutableMapping[str, Any]):
    """The documents of a transaction: those named are loaded, others may only be assigned."""

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
        """Whether a document that was not there is still as it was loaded: `{}`."""
        return name not in self._assigned and self._values[name] == {}

    @property
    def deleted(self) -> frozenset[str]:
        """The names that were deleted in the block."""
        return frozenset(self._deleted)


class Transaction:
    """Holds several documents and makes what becomes of them current together, or not at all."""

    def __init__(self, data: DataManager, keys: Sequence[DocumentKey], *, backup: bool) -> None:
        """Use `DataManager.transaction`."""
        self._data = data
        self._keys = sorted(set(keys))
        self._backup = backup
        self._locks: list[DocumentLock] = []
        self._bases: dict[str, IfMatch] = {}
        self._changes = Changes({})

    async def __aenter__(self) -> Changes:
        await self._data.open_store()
        try:
            for name in (TRANSACTION, *(key.name for key in self._keys)):
                self._locks.append(await self._data.locks.hold(name))
            loaded: dict[str, Any] = {}
            for key in self._keys:
                loaded[key.name], self._bases[key.name] = await read_held(self._data, key, {})
        except BaseException:
            self._release()
            raise
        self._changes = Changes(loaded)
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
            for name in sorted({*self._changes} - {*self._bases}):
                self._locks.append(await self._data.locks.hold(name))
            atom = Atom(tuple(self._atom()))
            future = self._data.locks.commit(
                self._locks, lambda: self._data.submit(atom) if atom.changes else _nothing()
            )
        except BaseException:
            self._release()
            raise
        await wait_for(future)

    def _atom(self) -> Iterator[Change]:
        for name in sorted(self._changes.deleted):
            key = DocumentKey(BOT, name)
            base = self._bases.get(name)
            if base is not ABSENT:
                decide = changes.delete(if_match=base)
                yield Change(key, decide, retain=self._data.keeping.retain(key))
        for name in sorted(self._changes):
            base = self._bases.get(name)
            if base is ABSENT and self._changes.is_untouched(name):
                continue
            yield self._data.save_change(
                DocumentKey(BOT, name),
                self._data.encoding.content(self._changes[name]),
                backup=self._backup,
                if_match=base,
            )

    def _release(self) -> None:
        for hold in reversed(self._locks):
            self._data.locks.release(hold)


async def read_held(data: DataManager, key: DocumentKey, default: Json) -> tuple[Any, IfMatch]:
    """Return a held document's value and revision, after everything that was queued before."""
    change = Change(key, changes.look, retain=data.keeping.retain(key))
    content = (await wait_for(data.submit(Atom((change,)))))[0].content
    if content is None:
        return copy.deepcopy(default), ABSENT
    return decode(content.data), content.revision


def _nothing() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(())
    return future
