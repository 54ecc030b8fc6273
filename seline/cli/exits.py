"""Exit codes: what a script learns from a verb, one row for every error's code (SPEC §8)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """How a verb ended. 141 is what every tool answers whose reader went away (`| head`)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DAMAGE = 3
    NOT_FOUND = 4
    REFUSED = 5
    FULL = 6
    LOCKED = 7
    NOT_ALLOWED = 8
    INTERRUPTED = 130
    PIPE_CLOSED = 141


EXIT_FOR: Final[Mapping[str, Exit]] = {
    "seline_error": Exit.FAILED,
    "document_error": Exit.FAILED,
    "document_not_found": Exit.NOT_FOUND,
    "backup_not_found": Exit.NOT_FOUND,
    "token_not_found": Exit.NOT_FOUND,
    "job_not_found": Exit.NOT_FOUND,
    "invalid_document_name": Exit.REFUSED,
    "not_serializable": Exit.REFUSED,
    "import_refused": Exit.REFUSED,
    "document_too_large": Exit.REFUSED,
    "revision_mismatch": Exit.REFUSED,
    "document_unrecoverable": Exit.DAMAGE,
    "document_unreadable": Exit.DAMAGE,
    "document_busy": Exit.LOCKED,
    "nested_edit": Exit.REFUSED,
    "not_an_object": Exit.REFUSED,
    "access_error": Exit.NOT_ALLOWED,
    "unauthorized": Exit.NOT_ALLOWED,
    "forbidden": Exit.NOT_ALLOWED,
    "too_many_requests": Exit.NOT_ALLOWED,
    "request_error": Exit.REFUSED,
    "invalid_request": Exit.REFUSED,
    "request_too_large": Exit.REFUSED,
    "unsupported_coding": Exit.REFUSED,
    "route_not_found": Exit.FAILED,
    "method_not_allowed": Exit.FAILED,
    "storage_error": Exit.FAILED,
    "export_damaged": Exit.DAMAGE,
    "export_failed": Exit.FAILED,
    "volume_full": Exit.FULL,
    "volume_busy": Exit.FAILED,
    "volume_locked": Exit.LOCKED,
    "volume_not_mounted": Exit.LOCKED,
    "volume_read_only": Exit.FAILED,
    "volume_failed": Exit.FAILED,
    "outcome_unknown": Exit.FAILED,
    "forked_store": Exit.FAILED,
    "store_closed": Exit.FAILED,
    "unsupported_format": Exit.FAILED,
    "called_in_event_loop": Exit.FAILED,
    "settings_error": Exit.USAGE,
}

EXIT_FOR_CHECK: Final[Mapping[str, Exit]] = {"documents": Exit.DAMAGE, "usage": Exit.FULL}
"""What `seline status` answers for a critical check of health; any other one is FAILED."""


def exit_for(code: str) -> Exit:
    """Return the exit code of an error's code; a newer server's unknown code is FAILED."""
    return EXIT_FOR.get(code, Exit.FAILED)
