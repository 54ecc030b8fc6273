"""The documents that changed and are not mirrored yet, and since when."""

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from seline.domain.document import BOT, DocumentKey
from seline.ports.store import Outcome

_PINS: Final = DocumentKey("seline", "pins.json")


class Waiting(NamedTuple):
    """What a mirror has not copied yet: the instant of the first change, None without one.

    `copied` of `of_all` documents are done in the run in progress; both are 0 without one.
    """

    since: datetime | None = None
    copied: int = 0
    of_all: int = 0


class ChangedNames:
    """The changed documents. Any thread notes them."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._count = 0
        self._names: dict[str, tuple[int, datetime]] = {}
        """Of each name the number of its last change, and the instant of its first."""
        self._purged: dict[str, int] = {}
        """Of each purged name the number of its last purge."""
        self._left_at: datetime | None = None

    def note(self, key: DocumentKey, outcome: Outcome) -> None:
        """Note a durable change; the pins count as a document without a name."""
        if outcome.changed and (key.space == BOT or key == _PINS):
            name = key.name if key.space == BOT else ""
            with self._lock:
                self._add(name)
                if outcome.content is None and outcome.backup is None:
                    self._purged[name] = self._count

    def add(self, names: Iterable[str]) -> None:
        """Note documents of which only the backups changed."""
        with self._lock:
            for name in names:
                self._add(name)

    def left(self, at: datetime) -> None:
        """Note that an earlier process left changes of this instant; the next run copies them."""
        self._left_at = at

    @property
    def since(self) -> datetime | None:
        """The instant of the first change that is not mirrored, None without one."""
        with self._lock:
            instants = [at for _, at in self._names.values()]
        return min([*instants, *([self._left_at] if self._left_at else [])], default=None)

    def seen(self) -> dict[str, int]:
        """Return the changed names, each with the number of its last change."""
        with self._lock:
            return {name: number for name, (number, _) in self._names.items()}

    def purged(self) -> dict[str, int]:
        """Return those whose content was erased, each with the number of that purge."""
        with self._lock:
            return dict(self._purged)

    def done(self, seen: Mapping[str, int], at: datetime) -> None:
        """Forget the names that did not change again after `at`, when they were seen."""
        with self._lock:
            self._left_at = None
            for name, number in seen.items():
                last = self._names[name][0]
                if last == number:
                    del self._names[name]
                    self._purged.pop(name, None)
                else:
                    self._names[name] = last, at

    def _add(self, name: str) -> None:
        self._count += 1
        first_at = self._names[name][1] if name in self._names else self._now()
        self._names[name] = self._count, first_at
