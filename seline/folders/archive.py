"""Recognize an archive that is given to an import; nothing is unpacked."""

import gzip
import os
import tarfile
from typing import Final

from seline.cures import free_path
from seline.domain.json_codec import archive_kind
from seline.domain.manifest import MANIFEST_NAME
from seline.quoting import quoted

_HEAD_BYTES: Final = 512


def unpack_step(source: str) -> str:
    """Return the commands that unpack an archive and import it, empty for a file that is none.

    Raises OSError.
    """
    with open(source, "rb") as file:
        head = file.read(_HEAD_BYTES)
    kind = archive_kind(head)
    if kind == "zstd" and _is_in_export(source):
        return (
            f"It is a part of an export: `seline import {quoted(os.path.dirname(source) or '.')}`"
        )
    at, folder = quoted(source), quoted(free_path(f"{source}.unpacked"))
    if unpack := _unpack(source, kind, head, at, folder):
        return f"Unpack it: `mkdir -- {folder} && {unpack} && seline import {folder}`"
    if kind in ("gzip", "zstd"):
        tool = "gunzip" if kind == "gzip" else "zstd -d"
        return f"Unpack it: `{tool} -c -- {at} | seline import - --yes`"
    return ""


def _unpack(source: str, kind: str, head: bytes, at: str, folder: str) -> str:
    """Return the command that unpacks into a folder; empty if it is no archive of files."""
    if kind == "zip":
        return f"python3 -m zipfile -e {at} {folder}"
    if kind == "zstd":
        return f"tar --zstd -xf {at} -C {folder}" if ".tar" in source else ""
    if kind == "gzip":
        kind = archive_kind(_gunzipped(source))
    return f"tar -xf {at} -C {folder}" if kind == "tar" or _is_packed_tar(source, head) else ""


def _gunzipped(source: str) -> bytes:
    try:
        with gzip.open(source) as file:
            return file.read(_HEAD_BYTES)
    except (OSError, EOFError):
        return b""


def _is_packed_tar(source: str, head: bytes) -> bool:
    return head.startswith((b"BZh", b"\xfd7zXZ")) and tarfile.is_tarfile(source)


def _is_in_export(source: str) -> bool:
    return os.path.isfile(os.path.join(os.path.dirname(source), MANIFEST_NAME))
