"""What readers are answered while a document's file is not its durable content.

V3  Content that a power cut could take away is never served.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeAlias

from msgspec import UNSET, UnsetType

from seline.domain.document import Content, DocumentKey
from seline.errors import SelineError, VolumeFailed

Answer: TypeAlias = Content | SelineError | None
"""A content, None for a document that does not exist, or the error that a read raises."""


class Overlay:
    """Answers that replace the files: during a commit, and after one whose outcome is unknown.

    The writer's thread changes it; any thread asks it.
    """

    def __init__(self) -> None:
        self._held: dict[DocumentKey, Answer] = {}
        self._instants: dict[DocumentKey, datetime] = {}
        self._in_doubt: frozenset[DocumentKey] = frozenset()

    def hold(self, key: DocumentKey, answer: Answer, at: datetime | None = None) -> None:
        """Answer readers of a document with `answer`, not with its file.

        `at` is the instant of an answer that the journal has, and that its file is to become.
        """
        if at is not None:
            self._instants[key] = at
        self._held[key] = answer

    def instant(self, key: DocumentKey) -> datetime | None:
        """Return the instant of the answer that is held, None if it is not known."""
        return self._instants.get(key)

    @property
    def unpublished(self) -> Sequence[DocumentKey]:
        """The documents whose answer only the journal has."""
        return list(self._instants)

    def release(self, key: DocumentKey) -> None:
        """Let readers see a document's file again."""
        self._held.pop(key, None)
        self._instants.pop(key, None)

    def doubt(self, keys: Iterable[DocumentKey]) -> None:
        """Refuse reads of documents whose outcome is unknown, until `clear`."""
        self._in_doubt |= frozenset(keys)

    def clear(self) -> None:
        """Let readers see every file again."""
        self._in_doubt = frozenset()
        self._held.clear()
        self._instants.clear()

    def answer(self, key: DocumentKey) -> Answer | UnsetType:
        """Return what to answer a reader, UNSET if the file is to be read."""
        held = self._held.get(key, UNSET)  # before the doubt, which is set before it is released
        return _unknown(key) if self._in_doubt and key in self._in_doubt else held

    def check_known(self, key: DocumentKey) -> None:
        """Raise VolumeFailed if the outcome of the document's last change is unknown."""
        if key in self._in_doubt:
            raise _unknown(key)

    @property
    def keys(self) -> frozenset[DocumentKey]:
        """The documents that are not answered from their files."""
        return self._in_doubt | frozenset(self._held)


def unknown_outcome(name: str) -> str:
    """Return a sentence, without its full stop, about a document in doubt."""
    return f"Whether the last change of {name} was made is not known yet: the disk failed"


def _unknown(key: DocumentKey) -> VolumeFailed:
    return VolumeFailed(
        f"{unknown_outcome(key.name)} and is being read again.", hint="Try again in half a minute."
    )
