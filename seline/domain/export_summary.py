"""The summary of an export, `summary.json` in its folder: readable without a key.

It is a file beside the manifest, because an older Seline refuses a manifest with a field that it
does not know. It is stored before the manifest, where that does not show the same: for an export
that is encrypted or in doubt.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from seline.domain.doubt import DaySize, doubt_about, with_copy
from seline.domain.manifest import Count, Manifest
from seline.domain.mirror import decode_as
from seline.errors import ExportDamaged, UnsupportedFormat

SUMMARY_NAME: Final = "summary.json"
FORMAT: Final = 1
UNREADABLE: Final = f"its {SUMMARY_NAME} cannot be read"


class ExportSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an export has: its documents and their bytes, None where only a key shows them.

    `doubt` is why a restore does not take it by itself, empty if it does.
    """

    format: int = FORMAT
    documents: Count | None = None
    size_bytes: Count | None = None
    doubt: str = ""


def summary_of(manifest: Manifest, doubt: str = "") -> ExportSummary:
    """Return the summary of an export by its manifest."""
    if manifest.encrypted and not manifest.documents:
        return ExportSummary(doubt=doubt)
    documents, size_bytes = _counts(manifest)
    return ExportSummary(documents=documents, size_bytes=size_bytes, doubt=doubt)


def judged(manifest: Manifest, largest: Sequence[DaySize]) -> ExportSummary:
    """Return the summary of a new export, which `doubt_about` judges by the sizes of others.

    The manifest names its documents.
    """
    documents, size_bytes = _counts(manifest)
    doubt = doubt_about(documents, size_bytes, largest)
    return ExportSummary(documents=documents, size_bytes=size_bytes, doubt=doubt)


def with_summary(
    largest: Sequence[DaySize], taken_at: datetime, summary: ExportSummary
) -> tuple[DaySize, ...]:
    """Return `with_copy` of an export; the same sizes if it is in doubt, or has none to compare."""
    if summary.doubt or summary.documents is None or summary.size_bytes is None:
        return tuple(largest)
    return with_copy(largest, taken_at, summary.documents, summary.size_bytes)


def decode_summary(data: bytes, manifest: Manifest) -> ExportSummary:
    """Read the summary of an export; one that cannot be read puts the export in doubt."""
    try:
        return decode_as(ExportSummary, data, SUMMARY_NAME)
    except (ExportDamaged, UnsupportedFormat):
        return summary_of(manifest, UNREADABLE)


def _counts(manifest: Manifest) -> tuple[int, int]:
    return len(manifest.documents), sum(listed.size_bytes for listed in manifest.documents)
