"""One small volume per on-disk format, which every later version of Seline must open.

A volume is stored as a tar file, because git keeps neither extended attributes nor times. `python
-m tests.volumes` creates the file of the current format; it fails if the file exists.
"""

import os
import tarfile
from pathlib import Path
from typing import Final

from seline.domain.document import Json

FOLDER: Final = Path(__file__).parent
ATTRIBUTE: Final = "user.seline"
_ATTRIBUTE_KEY: Final = f"SELINE.{ATTRIBUTE}"
_MTIME_KEY: Final = "SELINE.mtime_ns"
_LEFT_OUT: Final = ("reserve", "control.sock", "server.json", "staging", "exports")


def large(number: int) -> dict[str, Json]:
    """Return a value of which the journal has only what a change of its number changes."""
    return {"n": number, "items": [f"item {at}" for at in range(400)]}


def pack(volume: Path, tar: Path) -> None:
    """Write a volume that nothing changes now into a new tar file, with checksums and times."""
    with tarfile.open(tar, "x:xz", format=tarfile.PAX_FORMAT) as packed:
        for path in sorted(volume.rglob("*")):
            if path.is_file() and not set(path.relative_to(volume).parts) & set(_LEFT_OUT):
                packed.addfile(_member(path, volume), path.open("rb"))


def unpack(tar: Path, volume: Path) -> None:
    """Create the volume that is in a tar file."""
    with tarfile.open(tar) as packed:
        for member in packed:
            path = volume / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = packed.extractfile(member)
            assert content is not None
            path.write_bytes(content.read())
            if _ATTRIBUTE_KEY in member.pax_headers:
                os.setxattr(path, ATTRIBUTE, bytes.fromhex(member.pax_headers[_ATTRIBUTE_KEY]))
            mtime_ns = int(member.pax_headers[_MTIME_KEY])
            os.utime(path, ns=(mtime_ns, mtime_ns))


def _member(path: Path, volume: Path) -> tarfile.TarInfo:
    member = tarfile.TarInfo(str(path.relative_to(volume)))
    member.size = path.stat().st_size
    member.pax_headers = {_MTIME_KEY: str(path.stat().st_mtime_ns)}
    if ATTRIBUTE in os.listxattr(path):
        member.pax_headers[_ATTRIBUTE_KEY] = os.getxattr(path, ATTRIBUTE).hex()
    return member
