"""The contract of a sealer: what encrypts the files that leave the volume."""

from typing import Final, Protocol


class Sealer(Protocol):
    """Encrypts files for destinations, and decrypts them.

    Every method blocks: call it on a thread.
    """

    @property
    def suffix(self) -> str:
        """What is added to the name of a sealed file: `.age`, or empty without encryption."""
        ...

    @property
    def sealed_for(self) -> str:
        """A digest of whose keys open what it seals; empty without encryption."""
        ...

    @property
    def can_open(self) -> bool:
        """Whether this process can decrypt what it seals."""
        ...

    def seal(self, data: bytes) -> bytes:
        """Return a file's bytes encrypted."""
        ...

    def open(self, data: bytes) -> bytes:
        """Return the bytes of a sealed file.

        Raises KeyMissing if this process has no identity for it, ExportDamaged if it is not whole.
        """
        ...

    def key_file(self) -> bytes:
        """Return the passphrase's identity, encrypted with the passphrase; empty without one.

        Stored beside sealed files, it makes `age -d` with the passphrase enough to read them.
        """
        ...


class NoSealer:
    """Without encryption: nothing is changed."""

    suffix = ""
    sealed_for = ""
    can_open = True

    def seal(self, data: bytes) -> bytes:
        return data

    def open(self, data: bytes) -> bytes:
        return data

    def key_file(self) -> bytes:
        return b""


UNSEALED: Final[Sealer] = NoSealer()
