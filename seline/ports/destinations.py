"""The contract of a destination: a store of objects, such as a folder or a bucket.

What is stored there, and what is removed, is decided above (`seline.operations`): exports, and the
mirror.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from seline.domain.destination import Mode
from seline.errors import ExportDamaged, ExportFailed

OBJECT_BYTES_MAX: Final = 64 << 20
"""Of an object whose caller does not say how large it may be."""


class ObjectMissing(ExportFailed):
    """There is no object with this key."""


class ObjectForbidden(ExportFailed):
    """The credentials are right, and lack the right to this call."""


class ObjectTooLarge(ExportDamaged, ExportFailed):
    """The object is larger than what Seline stores with such a key."""


class Listed(NamedTuple):
    """What a folder of a destination holds: an object, or a folder (its size is None)."""

    name: str
    size_bytes: int | None


class ObjectStore(Protocol):
    """Objects by key, such as `seline-20250106T143022Z-1a2b3c4d/pack-0001.tar.zst`.

    A key has the characters A-Z, a-z, 0-9, `.`, `_`, `-`, and `/` between its folders. Every call
    may take long, and has its own timeout. Every call raises ExportFailed with the reason and the
    next step, which contain no secret; ObjectForbidden if the credentials do not allow it.
    """

    @property
    def name(self) -> str:
        """The destination's name in the settings."""
        ...

    @property
    def where(self) -> str:
        """Its address for messages, without secrets."""
        ...

    async def make(self) -> None:
        """Make the destination itself, where that is possible; do nothing if it exists."""
        ...

    async def on_data_disk(self, data_dir: str) -> bool:
        """Whether the destination is on the disk of a data directory; it must not be inside it."""
        ...

    async def list(self, folder: str) -> Sequence[Listed]:
        """Return what one folder holds, in any order; "" is the destination itself.

        A folder that does not exist holds nothing. A listing that fails raises, and is never short.
        """
        ...

    async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        """Store an object, whole or not at all; it is durable on return.

        Without `replace` an object that exists stays as it is, also if it is made at this moment.
        The destination itself is not made here, so one that is gone fails.
        """
        ...

    async def get(self, key: str, *, bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
        """Return an object as stored, without the caches that can be bypassed.

        Raises ObjectMissing, and ObjectTooLarge for one of more than `bytes_max`: memory never
        holds more of it than that.
        """
        ...

    async def remove(self, key: str) -> None:
        """Remove an object, or an empty folder. Does nothing if there is none."""
        ...

    async def close(self) -> None:
        """Release connections; the next call makes new ones."""
        ...


class Target(NamedTuple):
    """A destination, how many exports it keeps, and what it receives.

    `same_disk`: it may be on the disk of the data directory. `may_be_unmounted`: it is a folder, so
    its marker is looked for before every use.
    """

    destination: ObjectStore
    keep: int
    same_disk: bool = False
    mode: Mode = "export"
    may_be_unmounted: bool = False

    @property
    def takes_exports(self) -> bool:
        return self.mode != "mirror"

    @property
    def takes_mirror(self) -> bool:
        return self.mode != "export"
