"""JSON for people: the contents of a document as a tree, and a difference as a list of changes.

Both are bounded. Text is shown so that no character hides or reorders what is beside it.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from seline import collector
from seline.domain.difference import ChangedValue, ChangeKind, Difference, pointer_token
from seline.domain.document import Content, Json
from seline.domain.json_codec import decode, encode_decoded, normalised
from seline.domain.json_parts import parts_of, stripped
from seline.domain.json_pointer import tokens_of
from seline.errors import PathNotFound
from seline.http.requests import DECODING, INLINE_BYTES_MAX
from seline.page.visit import Visit

ITEMS_MAX: Final = 100
"""How many items are shown of the value that is open."""
NESTED_MAX: Final = 20
"""How many items are shown of each value in it."""
NODES_MAX: Final = 500
DEPTH_MAX: Final = 3
"""How many levels are shown; a link opens a lower one."""
TEXT_MAX: Final = 300
OPEN_TEXT_MAX: Final = 20_000
"""How many characters are shown of a text, and of the one that is open."""
PATH_MAX: Final = 1_500
"""A longer JSON Pointer has no link: servers between take no longer address."""
CHANGES_SHOWN_MAX: Final = 200
_KEPT: Final = frozenset("\u00a0\u202f\u200c\u200d")
"""Spaces of French text, and the joiners of scripts and emoji."""
_LINE_BREAK: Final = re.compile(r"\n\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value of the tree. `path` is its JSON Pointer, `label` its key or index.

    `kind`: "object", "list", or "value", which has its JSON `text`; `is_whole` is False for the
    beginning of a longer one. An object or list has `count` items. Those from `first` on are in
    `items`, unless `is_closed`; `rest` is the number of the first one that follows, 0 if none does.
    """

    label: str
    path: str
    kind: str
    text: str = ""
    is_whole: bool = True
    count: int = 0
    items: tuple["Node", ...] = ()
    is_closed: bool = False
    rest: int = 0

    @property
    def has_link(self) -> bool:
        """Whether an address may contain the path."""
        return len(self.path) <= PATH_MAX


class ChangeInWords(NamedTuple):
    """A change in words: the keys on the way to the value, and its texts before and after."""

    path: str
    keys: tuple[str, ...]
    kind: ChangeKind
    before: str
    after: str


class DifferenceInWords(NamedTuple):
    """A difference in words. The counts are exact; `left_out` changes are not in `changes`."""

    changes: Sequence[ChangeInWords]
    added: int
    removed: int
    changed: int
    left_out: int


async def tree(visit: Visit, content: Content, path: str, first: int) -> Node:
    """Return the value at a JSON Pointer as a tree, its items from number `first` on.

    Raises InvalidRequest for what is no pointer, PathNotFound. A large document is taken apart
    outside the event loop, one at a time.
    """
    if content.size_bytes <= INLINE_BYTES_MAX:
        return tree_of(content.data, path, first)

    def build() -> Node:
        with collector.paused():
            return tree_of(content.data, path, first)

    async with visit.request.config_dict[DECODING]:
        return await asyncio.to_thread(build)


def tree_of(data: bytes, path: str, first: int = 0) -> Node:
    """Return a value of a JSON text as `tree` does. Blocks for a large one."""
    text = stripped(normalised(data))
    tokens = tokens_of(path)
    for token in tokens:
        text = _member(text, token, path)
    label = tokens[-1] if tokens else ""
    return _TreeBuilder().node(text, readable(label), path, ITEMS_MAX, first=first)


def shown(difference: Difference) -> DifferenceInWords:
    """Return a difference in words, at most CHANGES_SHOWN_MAX changes of it."""
    total = difference.added + difference.removed + difference.changed
    changes = [_change(change) for change in difference.changes[:CHANGES_SHOWN_MAX]]
    return DifferenceInWords(
        changes=changes,
        added=difference.added,
        removed=difference.removed,
        changed=difference.changed,
        left_out=total - len(changes),
    )


def keys_of(path: str) -> tuple[str, ...]:
    """Return the keys and indexes of a JSON Pointer as readable texts."""
    return tuple(readable(token)[:TEXT_MAX] for token in tokens_of(path))


def readable(text: str) -> str:
    """Return a text in which each invisible character is an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in _KEPT else f"\\u{ord(char):04x}" for char in text
    )


@dataclass(slots=True)
class _TreeBuilder:
    """Builds a tree, with at most NODES_MAX values."""

    left: int = field(default=NODES_MAX)

    def node(
        self, text: bytes, label: str, path: str, items_max: int, *, depth: int = 0, first: int = 0
    ) -> Node:
        """Return a value with its items, as far as there is room."""
        parts = parts_of(text)
        if parts is None:
            return _plain(text, label, path, OPEN_TEXT_MAX if depth == 0 else TEXT_MAX)
        kind = "object" if isinstance(parts, dict) else "list"
        pairs = parts.items() if isinstance(parts, dict) else enumerate(parts)
        shown_items = list(islice(pairs, first, first + items_max))
        is_closed = depth >= DEPTH_MAX or len(shown_items) > self.left
        if is_closed:
            return Node(label=label, path=path, kind=kind, count=len(parts), is_closed=True)
        self.left -= len(shown_items)
        items = tuple(
            self.node(
                value,
                readable(str(key))[:TEXT_MAX],
                f"{path}/{pointer_token(str(key))}",
                NESTED_MAX,
                depth=depth + 1,
            )
            for key, value in shown_items
        )
        after = first + len(shown_items)
        rest = after if after < len(parts) else 0
        return Node(label=label, path=path, kind=kind, count=len(parts), items=items, rest=rest)


def _plain(text: bytes, label: str, path: str, characters_max: int) -> Node:
    head = text[: 8 * characters_max]
    is_short = len(head) == len(text)
    found = value_text(decode(text)) if is_short else readable(head.decode(errors="ignore"))
    is_whole = is_short and len(found) <= characters_max
    cut = found if is_whole else found[:characters_max] + "…"
    return Node(label=label, path=path, kind="value", text=cut, is_whole=is_whole)


def value_text(value: Json) -> str:
    """Return a value as readable JSON on one line."""
    return readable(_LINE_BREAK.sub(" ", encode_decoded(value).decode().strip()))


def _member(text: bytes, token: str, path: str) -> bytes:
    parts = parts_of(text)
    try:
        if isinstance(parts, dict):
            return stripped(parts[token])
        if isinstance(parts, list) and token.isascii() and token.isdecimal():
            return stripped(parts[int(token)])
    except (LookupError, ValueError):
        pass
    raise PathNotFound(f"There is no value at {readable(path)[:TEXT_MAX]}.", path=path)


def _change(change: ChangedValue) -> ChangeInWords:
    def text(side: str, value: Json) -> str:
        return readable(str(value)) if side in change.shortened else value_text(value)

    return ChangeInWords(
        path=change.path,
        keys=keys_of(change.path),
        kind=change.kind,
        before="" if change.kind == "added" else text("before", change.before),
        after="" if change.kind == "removed" else text("after", change.after),
    )
