"""Other stores that do the same durable work as Seline, each used as its documentation advises.

Each keeps five earlier versions of a document, in the transaction that replaces it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

import seline
from seline.library import Seline, open_seline

KEPT: Final = 5
Fields = Mapping[str, Any]
encode, decode = msgspec.json.encode, msgspec.json.decode


class Peer:
    """One store. Each method returns once the change is durable, with what it replaced kept."""

    title: ClassVar[str]
    package: ClassVar[str | None] = None
    remark: ClassVar[str]
    """How it does the work, for the page."""
    blocks: ClassVar[bool] = False
    """Whether it blocks the event loop while it syncs."""
    ranked: ClassVar[bool] = True
    """False for what a power cut can destroy, for what is no store, and for a slower form."""
    only: ClassVar[str] = ""
    """The kind of work that it is compared at, if not at all."""

    @classmethod
    def lacks(cls) -> str:
        """Return what is not installed, empty if nothing is missing."""
        return cls.package if cls.package and find_spec(cls.package) is None else ""

    def version(self) -> str:
        """Return the version of the store."""
        return metadata.version(str(self.package))

    async def open(self, folder: Path) -> None:
        """Make a new store in an empty folder."""

    async def close(self) -> None:
        """Close the store."""

    async def save(self, documents: Mapping[str, Fields]) -> None:
        """Save documents, all or none."""
        raise NotImplementedError

    async def set_fields(self, name: str, fields: Fields) -> None:
        """Set fields of a document, each by a change for itself in one transaction."""
        raise NotImplementedError

    async def append(self, name: str, item: Fields) -> None:
        """Append an item to the list `items` of a document."""
        raise NotImplementedError

    async def load(self, name: str) -> Any:
        """Return a document."""
        raise NotImplementedError

    async def save_fields(self, name: str, value: Fields) -> None:
        """Save a document whose fields will be set one by one."""
        await self.save({name: value})

    async def save_list(self, name: str, items: list[Fields]) -> None:
        """Save a document whose list `items` will grow."""
        await self.save({name: {"items": items}})

    def writers(self) -> "Writers":
        """Return what takes the changes of many tasks at once."""
        return Writers(self)


class Writers:
    """Makes one transaction of the changes that arrive while the one before it is committed."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._saves: dict[str, Fields] = {}
        self._fields: dict[str, dict[str, Any]] = defaultdict(dict)

    async def save(self, name: str, value: Fields) -> None:
        """Save a document."""
        self._saves[name] = value
        await self._commit()

    async def set_field(self, name: str, field: str, value: object) -> None:
        """Set one field of a document."""
        self._fields[name][field] = value
        await self._commit()

    async def _commit(self) -> None:
        if self._next is None:
            self._next = asyncio.create_task(self._commit_waiting())
        await self._next

    async def _commit_waiting(self) -> None:
        async with self._lock:
            self._next = None
            saves, self._saves = self._saves, {}
            fields, self._fields = self._fields, defaultdict(dict)
            if saves:
                await self._peer.save(saves)
            for name, of_document in fields.items():
                await self._peer.set_fields(name, of_document)


class WithoutQueue(Peer):
    """A store whose tasks each make a transaction of their own."""

    ranked = False
    only = "together"

    def writers(self) -> Writers:
        return _OwnTransactions(self)


class _OwnTransactions(Writers):
    async def save(self, name: str, value: Fields) -> None:
        await self._peer.save({name: value})

    async def set_field(self, name: str, field: str, value: object) -> None:
        await self._peer.set_fields(name, {field: value})


class SelinePeer(Peer):
    """Seline, with its default settings."""

    title = "Seline"
    remark = "the library in the same process, through `open_seline`; plain JSON files"
    opened: Seline

    def version(self) -> str:
        return seline.__version__

    async def open(self, folder: Path) -> None:
        self.opened = await open_seline(folder, lock_wait_s=0)

    async def close(self) -> None:
        await self.opened.close()

    async def save(self, documents: Mapping[str, Fields]) -> None:
        for name, value in documents.items():
            await self.opened.data.save_json(f"{name}.json", value)

    async def set_fields(self, name: str, fields: Fields) -> None:
        for field, value in fields.items():
            await self.opened.data.update_field(f"{name}.json", field, value)

    async def append(self, name: str, item: Fields) -> None:
        await self.opened.data.append_item(f"{name}.json", "/items", item)

    async def load(self, name: str) -> Any:
        return await self.opened.data.load_json(f"{name}.json")

    def writers(self) -> Writers:
        return _SelineWriters(self)


class _SelineWriters(Writers):
    def __init__(self, peer: SelinePeer) -> None:
        self._data = peer.opened.data

    async def save(self, name: str, value: Fields) -> None:
        await self._data.save_json(f"{name}.json", value)

    async def set_field(self, name: str, field: str, value: object) -> None:
        await self._data.update_field(f"{name}.json", field, value)
