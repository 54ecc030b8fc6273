"""The age identity that a passphrase gives, and the file from which `age -d` gives it again.

Encrypting each file with a passphrase would cost scrypt for each, so files are encrypted for one
identity, derived once. The key file has that identity, encrypted with the passphrase as
https://age-encryption.org/v1 specifies. pyrage could write it, but chooses a work factor that takes
512 MiB and more.
"""

import hashlib
import hmac
import secrets
from base64 import b64encode
from typing import Final

from seline.outbound.extra import extra

IDENTITY_PREFIX: Final = "AGE-SECRET-KEY-"
WORK_FACTOR: Final = 15
"""scrypt takes 1 KiB * 2 ** 15 = 32 MiB."""
_SALT: Final = b"seline/exports.passphrase/v1"
_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def identity_of(passphrase: str) -> str:
    """Return the identity `AGE-SECRET-KEY-1…` of a passphrase: the same on every machine."""
    return _bech32(IDENTITY_PREFIX.lower(), _scrypt(passphrase, _SALT)).upper()


def key_file(passphrase: str) -> bytes:
    """Return an identity file with the passphrase's identity, encrypted with the passphrase.

    Raises SettingsError without the extra `age`.
    """
    cipher = extra("cryptography.hazmat.primitives.ciphers.aead", "age").ChaCha20Poly1305
    file_key, salt, nonce = (secrets.token_bytes(16) for _ in range(3))
    wrapping = _scrypt(passphrase, b"age-encryption.org/v1/scrypt" + salt)
    wrapped = cipher(wrapping).encrypt(bytes(12), file_key, None)
    header = f"age-encryption.org/v1\n-> scrypt {_base64(salt)} {WORK_FACTOR}\n{_base64(wrapped)}\n"
    header += "---"
    mac = hmac.digest(_hkdf(file_key, b"", b"header"), header.encode(), "sha256")
    payload_key = cipher(_hkdf(file_key, nonce, b"payload"))
    identity = f"{identity_of(passphrase)}\n".encode()
    payload: bytes = payload_key.encrypt(bytes(11) + b"\x01", identity, None)  # the only chunk
    return f"{header} {_base64(mac)}\n".encode() + nonce + payload


def _scrypt(passphrase: str, salt: bytes) -> bytes:
    """Return 32 bytes. Takes about 0.1 s and 32 MiB; other threads run."""
    return hashlib.scrypt(
        passphrase.encode(), salt=salt, n=1 << WORK_FACTOR, r=8, p=1, maxmem=48 << 20, dklen=32
    )


def _hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """Return 32 bytes of HKDF-SHA-256 (RFC 5869)."""
    extracted = hmac.digest(salt or bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def _base64(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


def _bech32(prefix: str, data: bytes) -> str:
    """Return bytes in Bech32 (BIP 173), the text form of an age key."""
    count = -(-8 * len(data) // 5)
    number = int.from_bytes(data) << 5 * count - 8 * len(data)
    words = [number >> 5 * place & 31 for place in reversed(range(count))]
    letters = prefix.encode()
    expanded = [*(letter >> 5 for letter in letters), 0, *(letter & 31 for letter in letters)]
    check = _polymod([*expanded, *words, *[0] * 6]) ^ 1
    words += [check >> 5 * place & 31 for place in reversed(range(6))]
    return f"{prefix}1{''.join(_ALPHABET[word] for word in words)}"


def _polymod(words: list[int]) -> int:
    """Return Bech32's checksum."""
    check = 1
    for word in words:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ word
        for place, generator in enumerate(_GENERATORS):
            check ^= generator if top >> place & 1 else 0
    return check
