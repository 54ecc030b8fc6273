"""Restore a copy that nearly fills a volume, in a process of its own, and print what it took.

`python -m tests.faults.large_restore DIRECTORY` prints the growth of the peak memory in MiB, and
the bytes that were restored.
"""

import hashlib
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from seline.domain.copy import Copy
from seline.domain.document import Revision
from seline.domain.manifest import FileEntry, PackedDocument
from seline.library import load, restore_volume

LARGE: Final = range(40)
LARGE_BYTES: Final = 4 << 20
MANY: Final = range(3000)
MANY_BYTES: Final = 64 << 10
BACKUP_BYTES: Final = 16 << 10


def content(kind: str, number: int, size_bytes: int) -> bytes:
    """Return the bytes of one content, which are made whenever they are fetched."""
    head = f'{{"kind": "{kind}", "n": {number}, "filler": "'.encode()
    return head + b"x" * (size_bytes - len(head) - 2) + b'"}'


class Contents:
    """The contents of a copy by digest; none is held."""

    def __init__(self) -> None:
        self.made: dict[Revision, tuple[str, int, int]] = {}

    def entry(self, name: str, kind: str, number: int, size_bytes: int) -> FileEntry:
        digest = hashlib.sha256(content(kind, number, size_bytes)).hexdigest()
        self.made[digest] = kind, number, size_bytes
        return FileEntry(name=name, sha256=digest, size_bytes=size_bytes)

    def document(self, kind: str, number: int, size_bytes: int) -> PackedDocument:
        name = f"{kind}_{number}.json"
        file = self.entry(name, kind, number, size_bytes)
        kept = self.entry(
            f"{kind}_{number}_20240101_000000.json", f"{kind}-backup", number, BACKUP_BYTES
        )
        return PackedDocument(name=name, sha256=file.sha256, size_bytes=size_bytes, backups=(kept,))

    async def fetch(self, digest: Revision) -> bytes:
        return content(*self.made[digest])

    def copy(self, documents: list[PackedDocument]) -> Copy:
        return Copy(
            name="large",
            taken_at=datetime.now(UTC),
            volume="1a2b3c4d",
            documents=tuple(documents),
            fetch=self.fetch,
        )


def main(directory: Path) -> None:
    """Restore a small copy first, so that only the growth with the size is measured."""
    contents = Contents()
    large = [contents.document("large", number, LARGE_BYTES) for number in LARGE]
    many = [contents.document("many", number, MANY_BYTES) for number in MANY]
    small = load(arguments={"storage.data_dir": str(directory.with_name("small"))})
    restore_volume(small, contents.copy(many[:1]), lock_wait_s=0)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    restore_volume(
        load(arguments={"storage.data_dir": str(directory)}),
        contents.copy([*large, *many]),
        lock_wait_s=0,
    )
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    print(grown_kb >> 10, sum(size_bytes for *_, size_bytes in contents.made.values()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
