"""What a head has of documents that cannot be read: the content of an older head, or nothing."""

import logging
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from msgspec.structs import replace

from seline.domain.document import Revision
from seline.domain.manifest import PackedDocument
from seline.domain.mirror import Head, content_key, merged
from seline.errors import ExportDamaged, KeyMissing
from seline.operations.mirror_store import MirrorStore

_log = logging.getLogger("seline.mirror")


class OlderContent(NamedTuple):
    """The content that an older head has of a document."""

    digest: Revision
    size_bytes: int


class Unread(NamedTuple):
    """The documents that could not be read for a head.

    It lacks `lacking`, and has the content of an older head of `older`. `keys` are of lacking
    documents that an encrypted head of an earlier process named; only their keys are known.
    """

    lacking: frozenset[str] = frozenset()
    older: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()

    @classmethod
    def of(cls, head: Head) -> "Unread":
        """Return what the next head lacks as long as nothing is known of these documents."""
        lacking = frozenset(head.lacking)
        return cls(keys=lacking) if head.encrypted else cls(lacking=lacking)

    def after(
        self,
        seen: AbstractSet[str],
        *,
        lacking: AbstractSet[str],
        older: AbstractSet[str],
        name_key: str,
    ) -> "Unread":
        """Return what is unread once the documents `seen` were read, deleted, or unread again."""
        known = {content_key(name, name_key) for name in seen} if self.keys else set[str]()
        return Unread(
            (self.lacking - seen) | lacking, (self.older - seen) | older, self.keys - known
        )

    def listed(self, name_key: str) -> tuple[str, ...]:
        """Return `Head.lacking`."""
        return tuple(sorted(self.keys | {content_key(name, name_key) for name in self.lacking}))


async def older_contents(
    at: MirrorStore, chains: Sequence[Sequence[Head]], names: Collection[str]
) -> dict[str, OlderContent]:
    """Return what the first of these chains that has a document has of it, by name.

    A chain that is damaged, or needs a key that is not here, is left out. Raises ExportFailed.
    """
    found: dict[str, OlderContent] = {}
    for chain in reversed(chains) if names else ():
        try:
            documents = merged([await at.manifest(head) for head in chain])
        except (ExportDamaged, KeyMissing) as error:
            _log.warning("%s: no older content was looked for: %s", chain[-1].name, error.message)
            continue
        listed = (documents[name] for name in names if name in documents)
        found |= {
            document.name: OlderContent(document.sha256, document.size_bytes)
            for document in listed
            if document.sha256
        }
    return found


def with_older(
    documents: Sequence[PackedDocument], older: Mapping[str, OlderContent]
) -> list[PackedDocument]:
    """Return the documents; those in `older` have that content, and the backups that were read."""
    there = {document.name: document for document in documents}
    for name, (digest, size_bytes) in older.items():
        nothing = PackedDocument(name=name, sha256="", size_bytes=0)
        there[name] = replace(there.get(name, nothing), sha256=digest, size_bytes=size_bytes)
    return list(there.values())
