"""The files that a replay writes: many are synced together, and renamed to their places then.

V3  A file has its name only after its bytes are durable.
A document that another program has written in the meantime is not replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from seline.domain.document import DocumentKey
from seline.storage.volume import files
from seline.storage.volume.commit.sync import Syncer
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.os_errors import is_full

REPLAYED: Final = "replayed"
"""The name in staging/ of a file that a replay writes, with a number."""
FILES_MAX: Final = 128
BYTES_MAX: Final = 4 << 20


class Replaced(NamedTuple):
    """The file of a document that was judged, and may be replaced; None if there was none."""

    key: DocumentKey
    identity: FileIdentity | None


class ReplayedFile(NamedTuple):
    """A file to write: `name` in `directory`, a held descriptor; attribute and mtime as `mark`."""

    directory: int
    name: str
    data: bytes
    attribute: bytes | None
    mtime_ns: int
    over: Replaced | None = None


@dataclass(slots=True)
class ReplayedFiles:
    """Writes files in the order in which they are given. A full volume makes room first.

    `make_room` frees that many bytes, or returns False.
    """

    staging: int
    syncer: Syncer
    make_room: Callable[[int], bool]
    _staged: list[tuple[ReplayedFile, int]] = field(default_factory=list[tuple[ReplayedFile, int]])
    _staged_bytes: int = 0
    _overtaken: list[DocumentKey] = field(default_factory=list[DocumentKey])

    def take_overtaken(self) -> list[DocumentKey]:
        """Return the documents that were not replaced: another program has written them."""
        overtaken, self._overtaken = self._overtaken, []
        return overtaken

    def write(self, file: ReplayedFile) -> None:
        """Write a file, which has its name after `finish`. Raises OSError."""
        try:
            self._staged.append((file, self._stage(file, len(self._staged))))
        except OSError as error:
            if not is_full(error):
                raise
            self.finish()
            self._write_alone(file)
            return
        self._staged_bytes += len(file.data)
        if len(self._staged) >= FILES_MAX or self._staged_bytes >= BYTES_MAX:
            self.finish()

    def finish(self) -> None:
        """Sync what was written and rename it. Raises OSError, after which none is waiting."""
        staged, self._staged, self._staged_bytes = self._staged, [], 0
        if not staged:
            return
        try:
            self.syncer.sync_written([descriptor for _, descriptor in staged])
        except OSError as error:
            if not is_full(error):
                raise
            self._write_again([file for file, _ in staged])
        else:
            for number, (file, _) in enumerate(staged):
                self._publish(file, number)
        finally:
            for _, descriptor in staged:
                files.close(descriptor)

    def discard(self) -> None:
        """Give up what is not finished: a replay that failed begins again with what is there."""
        self._overtaken = []
        staged, self._staged, self._staged_bytes = self._staged, [], 0
        for _, descriptor in staged:
            files.close(descriptor)

    def _write_again(self, staged: Sequence[ReplayedFile]) -> None:
        """Write files one by one that had no space together."""
        for number in range(len(staged)):
            files.unlink(self.staging, _name(number))
        for file in staged:
            self._write_alone(file)

    def _stage(self, file: ReplayedFile, number: int) -> int:
        files.unlink(self.staging, _name(number), missing_ok=True)
        return files.stage(self.staging, _name(number), file.data, file.attribute, file.mtime_ns)

    def _write_alone(self, file: ReplayedFile) -> None:
        while True:
            try:
                with files.closing(self._stage(file, 0)) as descriptor:
                    files.sync(descriptor)
                break
            except OSError as error:
                if not (is_full(error) and self.make_room(len(file.data))):
                    raise
        self._publish(file, 0)

    def _publish(self, file: ReplayedFile, number: int) -> None:
        if file.over is None or _identity(file) == file.over.identity:
            files.rename(self.staging, _name(number), file.directory, file.name)
        else:
            files.unlink(self.staging, _name(number))
            self._overtaken.append(file.over.key)


def _identity(file: ReplayedFile) -> FileIdentity | None:
    try:
        return FileIdentity.of(files.status(file.directory, file.name))
    except FileNotFoundError:
        return None


def _name(number: int) -> str:
    return f"{REPLAYED}-{number}"
