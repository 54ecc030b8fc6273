"""The difference of two JSON texts: a list of changes for people, and an RFC 6902 patch.

One comparison gives both. It goes down only where the texts differ, so equal parts are neither
decoded nor held. Items of a list are aligned: an item that is inserted at the front is one change.
Both forms are bounded; the counts are exact.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal, TypeAlias

from seline.domain.document import Json
from seline.domain.json_codec import decode
from seline.domain.json_parts import is_same_scalar, parts_of, stripped, without_space

CHANGES_MAX: Final = 1000
"""How many changes are listed."""
OPERATIONS_MAX: Final = 10_000
"""How many operations a patch may have."""
FORM_BYTES_MAX: Final = 1 << 20
"""The bytes of paths and values in the list of changes, and in the patch."""
SHOWN_BYTES_MAX: Final = 500
"""A longer value is shown as the beginning of its text; the indentation does not count."""
READ_BYTES_MAX: Final = 8 * SHOWN_BYTES_MAX
"""How much of a text is read to show it."""
WINDOW_ITEMS: Final = 10_000
"""How many items of two lists are aligned at once."""
_LINE_BREAK: Final = re.compile(rb"\s*\n\s*")

ChangeKind: TypeAlias = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedValue:
    """One change.

    `path` is a JSON Pointer: in the first content for a removed value, else in the second. `before`
    is None for an added value, `after` for a removed one. `shortened` names which of the two is the
    beginning of its JSON text, because the value is longer.
    """

    path: str
    kind: ChangeKind
    before: Json
    after: Json
    shortened: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What makes the second content of the first.

    `added`, `removed` and `changed` count all changes; `changes` may list only the first of them
    (`truncated`). `patch` has operations of RFC 6902, None if it would be too large.
    """

    changes: tuple[ChangedValue, ...]
    added: int
    removed: int
    changed: int
    patch: tuple[dict[str, Json], ...] | None

    @property
    def truncated(self) -> bool:
        """Whether `changes` lacks some."""
        return len(self.changes) < self.added + self.removed + self.changed


def difference_of(before: bytes | None, after: bytes | None) -> Difference:
    """Compare two JSON texts; None is a document that does not exist. Blocks for large ones."""
    found = _DifferenceForms()
    if before is None and after is not None:
        found.add("", stripped(after))
    elif before is not None and after is None:
        found.remove("", "", stripped(before))
    elif before is not None and after is not None and before != after:
        _Descent(found).values(stripped(before), stripped(after), "", "")
    return found.difference()


def pointer_token(key: str) -> str:
    """Return a key as a token of a JSON Pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


@dataclass(slots=True)
class _DifferenceForms:
    """The changes found so far, and the room that is left in each form."""

    counts: Counter[ChangeKind] = field(default_factory=Counter)
    changes: list[ChangedValue] = field(default_factory=list)
    changes_bytes: int = 0
    patch: list[dict[str, Json]] | None = field(default_factory=list)
    patch_bytes: int = 0

    def add(self, path: str, after: bytes) -> None:
        """Note a value that only the second content has."""
        self._change("added", path, None, after)
        self._operation("add", path, after)

    def remove(self, path: str, patch_path: str, before: bytes) -> None:
        """Note a value that only the first content has; in the patch it is at `patch_path`."""
        self._change("removed", path, before, None)
        self._operation("remove", patch_path, None)

    def replace(self, path: str, before: bytes, after: bytes) -> None:
        """Note a value that differs."""
        self._change("changed", path, before, after)
        self._operation("replace", path, after)

    def difference(self) -> Difference:
        """Return what was found."""
        return Difference(
            changes=tuple(self.changes),
            added=self.counts["added"],
            removed=self.counts["removed"],
            changed=self.counts["changed"],
            patch=None if self.patch is None else tuple(self.patch),
        )

    def _change(
        self, kind: ChangeKind, path: str, before: bytes | None, after: bytes | None
    ) -> None:
        is_one_left_out = len(self.changes) < self.counts.total()
        self.counts[kind] += 1
        self.changes_bytes += 3 * len(path)
        self.changes_bytes += sum(
            min(len(text or b""), SHOWN_BYTES_MAX) for text in (before, after)
        )
        is_full = len(self.changes) >= CHANGES_MAX or self.changes_bytes > FORM_BYTES_MAX
        if is_one_left_out or is_full:
            return
        old, is_old_whole = (None, True) if before is None else _shown(before)
        new, is_new_whole = (None, True) if after is None else _shown(after)
        shortened = [("before", is_old_whole), ("after", is_new_whole)]
        self.changes.append(
            ChangedValue(
                path=path,
                kind=kind,
                before=old,
                after=new,
                shortened=tuple(side for side, is_whole in shortened if not is_whole),
            )
        )

    def _operation(self, op: str, path: str, value: bytes | None) -> None:
        if self.patch is None:
            return
        self.patch_bytes += 3 * len(path) + len(value or b"")
        if len(self.patch) >= OPERATIONS_MAX or self.patch_bytes > FORM_BYTES_MAX:
            self.patch = None
            return
        operation: dict[str, Json] = {"op": op, "path": path}
        self.patch.append(operation if value is None else {**operation, "value": decode(value)})


@dataclass(frozen=True, slots=True)
class _Descent:
    """Goes down two texts at once. `at` is the path in the second content, `was_at` in the first.

    Operations of a patch apply in order, from the left: when one applies, everything to its left is
    as in the second content. So `at` is also the path of the operation.
    """

    found: _DifferenceForms

    def values(self, before: bytes, after: bytes, was_at: str, at: str) -> None:
        """Compare two values."""
        if before == after:
            return
        old, new = parts_of(before), parts_of(after)
        if isinstance(old, dict) and isinstance(new, dict):
            self._objects(old, new, was_at, at)
        elif isinstance(old, list) and isinstance(new, list):
            self._lists(old, new, was_at, at)
        elif old is not None or new is not None or not is_same_scalar(before, after):
            self.found.replace(at, before, after)

    def _objects(self, old: dict[str, bytes], new: dict[str, bytes], was_at: str, at: str) -> None:
        for key, before in old.items():
            after = new.get(key)
            if after == before:
                continue
            token = pointer_token(key)
            if after is None:
                self.found.remove(f"{was_at}/{token}", f"{at}/{token}", before)
            else:
                self.values(before, after, f"{was_at}/{token}", f"{at}/{token}")
        for key, after in new.items():
            if key not in old:
                self.found.add(f"{at}/{pointer_token(key)}", after)

    def _lists(self, old: list[bytes], new: list[bytes], was_at: str, at: str) -> None:
        i = j = 0
        for next_i, next_j in chain(_aligned(old, new), [(len(old), len(new))]):
            if next_i - i == next_j - j:
                for was, now in zip(range(i, next_i), range(j, next_j), strict=True):
                    self.items(old, new, was, now, was_at, at)
            else:
                for index in range(i, next_i):
                    self.found.remove(f"{was_at}/{index}", f"{at}/{j}", old[index])
                for index in range(j, next_j):
                    self.found.add(f"{at}/{index}", new[index])
            if next_i < len(old) and next_j < len(new):
                self.items(old, new, next_i, next_j, was_at, at)
            i, j = next_i + 1, next_j + 1
        for items in (old, new):  # freeing millions at once would stop all threads
            while items:
                del items[-WINDOW_ITEMS:]

    def items(
        self, old: list[bytes], new: list[bytes], was: int, now: int, was_at: str, at: str
    ) -> None:
        """Compare an item of each list."""
        if old[was] != new[now]:
            self.values(old[was], new[now], f"{was_at}/{was}", f"{at}/{now}")


def _aligned(old: Sequence[bytes], new: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield pairs of places of items that belong together, both ascending.

    Equal items at the start and the end are not among them, except the last of each. A pair may
    still differ: it is compared. A window of both lists is aligned at a time.
    """
    shorter = min(len(old), len(new))
    head = next((n for n in range(shorter) if old[n] != new[n]), shorter)
    rest = shorter - head
    tail = next((n for n in range(rest) if old[-1 - n] != new[-1 - n]), rest)
    old_end, new_end = len(old) - tail, len(new) - tail
    if head:
        yield head - 1, head - 1
    i = j = head
    while i < old_end and j < new_end:
        old_window = old[i : min(i + WINDOW_ITEMS, old_end)]
        new_window = new[j : min(j + WINDOW_ITEMS, new_end)]
        places = {key: n for n, key in enumerate(_keys(new_window))}
        keys = enumerate(_keys(old_window))
        pairs = _ascending([(n, places[key]) for n, key in keys if key in places])
        yield from ((i + was, j + now) for was, now in pairs)
        was, now = pairs[-1] if pairs else (len(old_window) - 1, len(new_window) - 1)
        i, j = i + was + 1, j + now + 1
    if tail:
        yield old_end, new_end


def _keys(items: Sequence[bytes]) -> list[tuple[bytes, int]]:
    """Return each item's text and how many equal ones are before it: no key is there twice."""
    counts: Counter[bytes] = Counter()
    keys: list[tuple[bytes, int]] = []
    for item in items:
        text = without_space(item)
        keys.append((text, counts[text]))
        counts[text] += 1
    return keys


def _ascending(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest subsequence of pairs whose second places ascend, too."""
    ends: list[int] = []
    at_end: list[int] = []
    before: list[int] = []
    for number, (_, place) in enumerate(pairs):
        length = bisect_left(ends, place)
        before.append(at_end[length - 1] if length else -1)
        ends[length : length + 1] = [place]
        at_end[length : length + 1] = [number]
    chosen: list[tuple[int, int]] = []
    number = at_end[-1] if at_end else -1
    while number >= 0:
        chosen.append(pairs[number])
        number = before[number]
    return chosen[::-1]


def _shown(text: bytes) -> tuple[Json, bool]:
    """Return a value, or the beginning of its text if it is long, and whether it is whole."""
    head = _LINE_BREAK.sub(b" ", text[:READ_BYTES_MAX])
    if len(text) <= READ_BYTES_MAX and len(head) <= SHOWN_BYTES_MAX:
        return decode(text), True
    return head[:SHOWN_BYTES_MAX].decode(errors="ignore") + "…", False
