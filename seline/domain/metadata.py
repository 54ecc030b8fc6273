"""Recognize the report `metadata.json`, so that another program's file is never replaced."""

from typing import Final

from seline.domain.document import BOT, METADATA_NAME, DocumentKey
from seline.domain.json_codec import NotJson, decode

REPORT: Final = DocumentKey(BOT, METADATA_NAME)
"""The address that the report's checksum records. It is no document."""
FIELDS: Final = frozenset(
    {
        "schema_version", "created_at", "last_backup", "last_updated", "total_writes",
        "storage_info",
    }
)  # fmt: skip
"""The members of the report."""
_BLANK: Final = b" \t\r\n\0"
"""What a power cut may leave of a file that was not synced."""


def is_report(data: bytes) -> bool:
    """Whether a file holds Seline's report, or nothing."""
    if not data.strip(_BLANK):
        return True
    try:
        value = decode(data)
    except NotJson:
        return False
    return isinstance(value, dict) and value.keys() == FIELDS
