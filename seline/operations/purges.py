"""What was purged and may still be in a copy: noted with the purge, until every copy is newer."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from seline.domain.copy import EXPORT, MIRROR, Copy
from seline.domain.purged import PURGED_MAX, HeldCopy, Oldest, Purged, ended, held_until
from seline.domain.retention import RetentionPolicy
from seline.manager.managed_store import ManagedStore
from seline.manager.state import State
from seline.operations.destinations import Destinations, keep
from seline.ports.destinations import Target
from seline.ports.store import Change, DocumentStore
from seline.settings.values import Exports

HOURLY: Final = 24


class Purges:
    """The purges that copies at the configured destinations may not have followed yet."""

    def __init__(self, store: ManagedStore, destinations: Destinations) -> None:
        """Note the purges of `store`."""
        self._store = store
        self._destinations = destinations
        self._targets = destinations.targets
        self._state: State[tuple[Purged, ...]] = store.state(
            "purged.json", tuple[Purged, ...], tuple[Purged, ...], field="purged", entry=Purged
        )
        if self._targets:
            store.on_purge = self.noted

    def read(self, store: DocumentStore) -> None:
        """Read what was noted. Blocks."""
        self._state.read(store)

    async def noted(self, name: str) -> tuple[Sequence[Change], Sequence[HeldCopy]]:
        """Return what notes a purge in its commit, and the copies that may hold the document.

        Nothing is noted where the list cannot be read: a purge is not refused for that.
        """
        entry = Purged(
            name=name,
            at=self._store.clock.now(),
            mirrors=tuple(t.destination.name for t in self._targets if t.takes_mirror),
            exports=tuple(t.destination.name for t in self._targets if t.takes_exports),
        )
        await self._state.load()
        await self._destinations.load()
        change = self._state.change(partial(self._added, entry), always=True)
        return [] if self._state.failure else [change], self.held(entry)

    def held(self, entry: Purged) -> list[HeldCopy]:
        """Return the copies that may hold a purged document."""
        exports = self._store.settings.exports
        found: list[HeldCopy] = []
        for target in self._targets:
            name = target.destination.name
            if name in entry.mirrors:
                until = held_until(entry.at, mirror_policy(target, exports))
                found.append(HeldCopy(destination=name, kind=MIRROR, until=until))
            if name in entry.exports:
                count = max(target.keep, 1)
                found.append(
                    HeldCopy(destination=name, kind=EXPORT, until=None, newer_exports=count)
                )
        return found

    def known(self) -> list[tuple[Purged, list[HeldCopy]]]:
        """Return what copies may still hold, and which."""
        return [(entry, held) for entry in self._state.value if (held := self.held(entry))]

    async def undone(self, copy: Copy, names: Collection[str]) -> list[str]:
        """Return which of these documents were purged after a copy, as far as that is known."""
        made = Oldest(copy.sequence, copy.taken_at)
        entries = await self._state.load()
        purged = {e.name for e in entries if not e.is_before(copy.destination, made)}
        return sorted(purged.intersection(names))

    def _added(self, entry: Purged, purged: tuple[Purged, ...]) -> tuple[Purged, ...]:
        """Add a purge as of now: in the store's turn, so that every later snapshot follows it."""
        begun = self._store.volume_file.value.exports
        numbers = {
            target.destination.name: max(record.sequence, begun)
            for target, record in self._destinations.records()
        }
        entry = replace(entry, at=self._store.clock.now(), numbers=numbers)
        return (*purged, entry)[-PURGED_MAX:]

    async def ended(self, destination: str, *, mirror: bool, oldest: Oldest) -> None:
        """Forget the purges that every copy at a destination follows."""
        await self._state.load()
        await keep(self._state, partial(_ended, destination, mirror, oldest))


def mirror_policy(target: Target, exports: Exports) -> RetentionPolicy:
    """Return which heads of a mirror are kept."""
    return RetentionPolicy(
        keep_newest=target.keep,
        keep_hourly=HOURLY,
        keep_daily=exports.keep_daily,
        keep_weekly=exports.keep_weekly,
        keep_monthly=exports.keep_monthly,
    )


def _ended(
    destination: str, mirror: bool, oldest: Oldest, purged: tuple[Purged, ...]
) -> tuple[Purged, ...]:
    return ended(purged, destination, mirror=mirror, oldest=oldest)
