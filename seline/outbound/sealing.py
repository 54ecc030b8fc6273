"""Encrypt what leaves the volume with age: https://age-encryption.org, the program `age`.

Files are encrypted for recipients (`age1…`), for the identity of a passphrase, or both. pyrage is
imported when a sealer is made.
"""

import hashlib
import io
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

from seline.errors import ExportDamaged, KeyMissing, SettingsError
from seline.outbound import passphrase_key
from seline.outbound.extra import extra
from seline.outbound.passphrase_key import IDENTITY_PREFIX
from seline.ports.sealing import UNSEALED, Sealer
from seline.quoting import quoted

SUFFIX: Final = ".age"
_AGE_FILE: Final = "age-encryption.org/v1"
_NO_IDENTITY: Final = "No matching keys found"
"""pyrage's message for a file that none of the identities opens."""


class KeyPair(NamedTuple):
    """A new age key: the secret identity, and the recipient that may be known."""

    identity: str
    recipient: str


class AgeSealer:
    """A port `Sealer` that encrypts with age. Its secrets are in no text."""

    suffix = SUFFIX

    def __init__(
        self, recipients: Sequence[str] = (), passphrase: str = "", identities: Sequence[str] = ()
    ) -> None:
        """Encrypt for `recipients` and the passphrase; decrypt with it and with `identities`.

        Raises SettingsError for what is no recipient or identity, and without the extra `age`.
        """
        self._age = extra("pyrage", "age")
        self._passphrase = passphrase
        self._recipients = [self._recipient(text) for text in recipients]
        self._identities = [self._identity(text) for text in identities]

    @property
    def sealed_for(self) -> str:
        names = sorted(str(recipient) for recipient in self._everyone)
        return hashlib.sha256("\n".join(names).encode()).hexdigest()

    @property
    def can_open(self) -> bool:
        return bool(self._passphrase or self._identities)

    def seal(self, data: bytes) -> bytes:
        sealed = _Pieces()
        self._age.encrypt_io(io.BytesIO(data), sealed, self._everyone)
        return sealed.getvalue()

    def open(self, data: bytes) -> bytes:
        opened = _Pieces()
        try:
            self._age.decrypt_io(io.BytesIO(data), opened, [*self._own, *self._identities])
        except (self._age.DecryptError, OSError) as error:
            if str(error) == _NO_IDENTITY:
                raise _key_missing(given=self.can_open) from error
            raise ExportDamaged(f"It is no whole age file: {error}.") from error
        return opened.getvalue()

    def key_file(self) -> bytes:
        return passphrase_key.key_file(self._passphrase) if self._passphrase else b""

    @property
    def _everyone(self) -> list[Any]:
        """The recipients, and that of the passphrase."""
        return [*self._recipients, *(own.to_public() for own in self._own)]

    @cached_property
    def _own(self) -> list[Any]:
        """The passphrase's identity, if there is a passphrase."""
        if not self._passphrase:
            return []
        return [self._identity(passphrase_key.identity_of(self._passphrase))]

    def _recipient(self, text: str) -> Any:
        try:
            return self._age.x25519.Recipient.from_str(text)
        except self._age.RecipientError as error:
            raise SettingsError(
                f"`exports.encrypt_to` has a recipient that age does not know: {error}.",
                hint="Set `exports.encrypt_to` to the recipient age1… that `seline key new` shows.",
            ) from error

    def _identity(self, text: str) -> Any:
        try:
            return self._age.x25519.Identity.from_str(text)
        except self._age.IdentityError as error:
            raise SettingsError(
                f"The identity is not as it was made: {error}.",
                hint=f"Copy the whole line that begins with {IDENTITY_PREFIX}1 into its file.",
            ) from error


class _Pieces(io.BytesIO):
    """Bytes written by pyrage, which otherwise holds the interpreter until a file is done."""

    def write(self, piece: Any, /) -> int:
        """Append a piece; let another thread run after each 64 KiB."""
        before = self.tell()
        size_bytes = super().write(piece)
        if before >> 16 < self.tell() >> 16:
            time.sleep(0)
        return size_bytes


def _key_missing(*, given: bool) -> KeyMissing:
    if not given:
        return KeyMissing()
    return KeyMissing(
        "This copy is encrypted for another key than the one that was given; nothing was changed."
    )


def sealer_of(recipients: Sequence[str], passphrase: str) -> Sealer:
    """Return the sealer that the settings ask for. Raises SettingsError."""
    return AgeSealer(recipients, passphrase) if recipients or passphrase else UNSEALED


def new_key() -> KeyPair:
    """Return a new key. Raises SettingsError without the extra `age`."""
    identity = extra("pyrage", "age").x25519.Identity.generate()
    return KeyPair(str(identity), str(identity.to_public()))


def identities_in(file: str) -> list[str]:
    """Return the identities in an identity file, as `seline key new` and `age-keygen` write it.

    Raises SettingsError if there are none, and OSError.
    """
    with open(file, encoding="utf-8", errors="replace") as opened:
        lines = opened.read().split()
    identities = [line for line in lines if line.startswith(IDENTITY_PREFIX)]
    if lines[:1] == [_AGE_FILE]:
        raise SettingsError(
            f"{file} is encrypted with a passphrase.",
            hint=f"Run `age -d -o key.txt {quoted(file)}`, then give key.txt.",
        )
    if not identities:
        raise SettingsError(
            f"{file} holds no identity: no line begins with {IDENTITY_PREFIX}1.",
            hint="Name the file that `seline key new` or `age-keygen` wrote.",
        )
    return identities
